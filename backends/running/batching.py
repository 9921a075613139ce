"""One model for several threads: their pictures share batches."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# What ONNX Runtime, cuDNN and cuBLAS write when there is no memory left; their errors have no class for it.
_NO_MEMORY = (
    "out of memory",
    "failed to allocate memory",
    "alloc_failed",
    "bad_alloc",
    "can't allocate memory",
)


# Full batches after which a larger one is tried again: at first, and at most.
_PATIENCE = (16, 1024)


class BatchSize:
    """How many items go into a batch: fewer when memory has run out, more again when it seems to be back.

    Memory may be short for a while only, because neighbours on the GPU hold it. So after 16 full batches the
    size is doubled, up to `most`. Whenever a size that was reached so fails, twice as many batches are waited
    for, up to 1024: where memory is too small for good, that is the share of batches which fail.

    Args:
        most: as configured, 1 or more.

    Attributes:
        now: items of the next batch, 1 to `most`.

    Raises:
        ValueError: `most` is less than 1.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"a batch holds one item or more, got size {most}")
        self.most = most
        self.now = most
        self._patience = _PATIENCE[0]
        self._full = 0
        self._has_grown = False

    def fitted(self, count: int) -> None:
        """A batch of so many items went through."""
        if count < self.now:  # says nothing of a larger one
            return
        self._full += 1
        if self._full >= self._patience and self.now < self.most:
            self.now = min(self.most, 2 * self.now)
            self._full = 0
            self._has_grown = True

    def failed(self, count: int) -> None:
        """For a batch of so many items there was no memory."""
        if self._has_grown:
            self._patience = min(2 * self._patience, _PATIENCE[1])
        self._has_grown = False
        self._full = 0
        self.now = min(self.now, max(1, count // 2))


class Batcher(Generic[Item, Result]):
    """Runs a model on the items of several threads together.

    One of the threads that wait runs `forward` on up to `size` items of all of them, first come first served;
    meanwhile the others' items gather for the next batch. Nobody waits for a batch to fill. It has no thread
    of its own, and `forward` never runs twice at once.

    A batch that does not fit into memory is tried again in halves, and `size` grows back as `BatchSize` says;
    a single item that does not fit fails its own caller. After any other error each caller's items are tried
    by themselves, so that a bad item fails nobody else.

    Args:
        forward: items to as many results, in order. It is called from any thread, by one at a time.
        size: most items of a batch, 1 or more.

    Attributes:
        batches: successful calls of `forward`.
        items: results it gave.
    """

    def __init__(self, forward: Callable[[list[Item]], list[Result]], size: int) -> None:
        self._size = BatchSize(size)
        self.batches = 0
        self.items = 0
        self._forward = forward
        self._waiting: deque[_Place[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._is_running = False

    @property
    def size(self) -> int:
        """Most items of the next batch: as configured, or less since memory ran out."""
        return self._size.now

    def __call__(self, items: Sequence[Item]) -> list[Result]:
        """Results of N items, in order; raises what `forward` raises on them."""
        call: _Call[Item, Result] = _Call(items)
        with self._changed:
            self._waiting.extend((call, i) for i in range(len(items)))
        try:
            while self._lead_or_wait(call):
                pass
        finally:
            with self._changed:  # of a call that failed or was interrupted
                self._waiting = deque(place for place in self._waiting if place[0] is not call)
        if call.error is not None:
            try:
                raise call.error
            finally:
                del call  # else the error would hold itself, and tensors with it, through its traceback
        return [call.results[i] for i in range(len(items))]

    def _lead_or_wait(self, call: _Call[Item, Result]) -> bool:
        """Run one batch if nobody does, else wait; False when the call is finished."""
        with self._changed:
            while self._is_running and not call.is_finished:
                self._changed.wait()
            if call.is_finished:
                return False
            self._is_running = True
            batch = [self._waiting.popleft() for _ in range(min(self.size, len(self._waiting)))]
        try:
            self._run(batch)
        finally:
            with self._changed:
                # After an interrupt of this thread: what it ran for others has still to be done.
                self._waiting.extendleft(p for p in reversed(batch) if not p[0].has(p[1]))
                self._is_running = False
                self._changed.notify_all()
        return True

    def _run(self, batch: list[_Place[Item, Result]]) -> None:
        """Give every place of a batch its result or its call an error."""
        parts = deque([batch])
        while parts:
            part = [place for place in parts.popleft() if place[0].error is None]
            if len(part) > self.size:  # memory has run out since it was made
                parts.extendleft([part[self.size :], part[: self.size]])
                continue
            if not part:
                continue
            error = self._try(part)
            if error is None:
                continue
            if is_out_of_memory(error):
                alone = part[0][0] if len(part) == 1 else None
                if alone is None:
                    self._size.failed(len(part))
                    parts.appendleft(part)
                del error  # its traceback holds the tensors
                _empty_cache()
                # What was free may have been held by another library of this process: once more.
                if alone is not None:
                    alone.error = self._try(part)
                continue
            calls = _unique(call for call, _ in part)
            if len(calls) == 1:
                calls[0].error = error
            else:
                parts.extend([place for place in part if place[0] is call] for call in calls)

    def _try(self, part: list[_Place[Item, Result]]) -> Exception | None:
        """Run the model on one part; gives back what it raised."""
        try:
            results = self._forward([call.items[i] for call, i in part])
            if len(results) != len(part):
                raise ValueError(f"the model gave {len(results)} results for {len(part)} items")
        except Exception as error:
            return error
        for (call, i), result in zip(part, results, strict=True):
            call.results[i] = result
        self.batches += 1
        self.items += len(part)
        self._size.fitted(len(part))
        return None


class _Call(Generic[Item, Result]):
    """One thread's items on their way."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.results: dict[int, Result] = {}
        self.error: Exception | None = None

    @property
    def is_finished(self) -> bool:
        """Whether all results or an error are there."""
        return self.error is not None or len(self.results) == len(self.items)

    def has(self, i: int) -> bool:
        """Whether nothing is left to do for item i."""
        return self.error is not None or i in self.results


_Place = tuple[_Call[Item, Result], int]


def grouped(
    items: Sequence[Item], key: Callable[[Item], object], run: Callable[[list[Item]], list[Result]]
) -> list[Result]:
    """Results of N items, in order, where only items with one key, such as their shape, can run together."""
    places: dict[object, list[int]] = {}
    for i, item in enumerate(items):
        places.setdefault(key(item), []).append(i)
    results: dict[int, Result] = {}
    for alike in places.values():
        results |= zip(alike, run([items[i] for i in alike]), strict=True)
    return [results[i] for i in range(len(items))]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch, ONNX Runtime or Python itself says that there is no memory left, on GPU or CPU."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    is_onnx = type(error).__module__.startswith("onnxruntime")
    text = str(error).lower()
    return (is_onnx or isinstance(error, RuntimeError)) and any(words in text for words in _NO_MEMORY)


def _empty_cache() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _unique(calls: Iterable[_Call[Item, Result]]) -> list[_Call[Item, Result]]:
    return list(dict.fromkeys(calls))
