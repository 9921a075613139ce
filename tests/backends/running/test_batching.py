"""One model under many threads: batches, order, memory, errors."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import pytest

from backends.running.batching import Batcher, BatchSize, grouped, is_out_of_memory


class Gate:
    """A model that doubles numbers and waits in its first batch until told, so that others gather."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, items: list[int]) -> list[int]:
        self.seen.append(list(items))
        self.entered.set()
        assert self.opened.wait(30)
        return [2 * item for item in items]


def gathered(batcher: Batcher[int, int], gate: Gate, calls: list[list[int]]) -> list[Future[list[int]]]:
    """The first call is in the model while all others queue up, in this order; then the gate opens."""
    pool = ThreadPoolExecutor(len(calls))
    futures = [pool.submit(batcher, calls[0])]
    assert gate.entered.wait(30)
    queued = 0
    for call in calls[1:]:
        futures.append(pool.submit(batcher, call))
        queued += len(call)
        while len(batcher._waiting) < queued:
            pass
    gate.opened.set()
    pool.shutdown()
    return futures


def test_one_thread() -> None:
    seen: list[int] = []

    def forward(items: list[int]) -> list[str]:
        seen.append(len(items))
        return [str(item) for item in items]

    batcher = Batcher(forward, 3)
    assert batcher(range(7)) == list("0123456")
    assert seen == [3, 3, 1]
    assert (batcher.batches, batcher.items) == (3, 7)
    assert batcher([]) == []
    assert batcher.batches == 3


def test_waiting_threads_share_batches_in_order() -> None:
    gate = Gate()
    batcher = Batcher(gate, 4)
    futures = gathered(batcher, gate, [[1], [2, 3], [4, 5, 6], [7]])
    assert [f.result() for f in futures] == [[2], [4, 6], [8, 10, 12], [14]]
    assert gate.seen == [[1], [2, 3, 4, 5], [6, 7]]


def test_many_threads_get_their_own_results() -> None:
    running = threading.Lock()

    def forward(items: list[int]) -> list[int]:
        assert running.acquire(blocking=False), "two batches at once"
        try:
            return [item * item for item in items]
        finally:
            running.release()

    batcher = Batcher(forward, 5)
    calls = [list(range(start, start + start % 7)) for start in range(200)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(batcher, calls)) == [[i * i for i in call] for call in calls]
    assert batcher.items == sum(map(len, calls))


def out_of_memory() -> Exception:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    return torch.OutOfMemoryError("CUDA out of memory")


def test_memory_halves_the_batch() -> None:
    tried: list[int] = []
    error = out_of_memory()

    def forward(items: list[int]) -> list[int]:
        tried.append(len(items))
        if len(items) > 2:
            raise error
        return items

    batcher = Batcher(forward, 8)
    assert batcher(range(8)) == list(range(8))
    assert tried == [8, 4, 2, 2, 2, 2]
    assert batcher.size == 2
    tried.clear()
    assert batcher(range(5)) == list(range(5))
    assert tried == [2, 2, 1]


def test_a_batch_grows_back_when_memory_does() -> None:
    tried: list[int] = []
    error = out_of_memory()
    fits = 2

    def forward(items: list[int]) -> list[int]:
        tried.append(len(items))
        if len(items) > fits:
            raise error
        return items

    batcher = Batcher(forward, 6)
    assert batcher(range(6)) == list(range(6))
    assert (tried, batcher.size) == ([6, 3, 1, 1, 1, 1, 1, 1], 1)
    fits = 6
    batcher(range(10))  # with the six of before 16 batches of full size
    assert batcher.size == 2
    batcher([1])  # one that is not full says nothing of a larger one
    batcher(range(30))
    assert batcher.size == 2
    batcher(range(2))
    assert batcher.size == 4
    batcher(range(16 * 4))
    assert batcher.size == 6  # no more than configured
    tried.clear()
    assert batcher(range(15)) == list(range(15))
    assert tried == [6, 6, 3]


def test_what_never_fits_is_tried_ever_more_rarely() -> None:
    size = BatchSize(64)
    failed: list[int] = []  # batches before each failure
    for i in range(5000):
        if size.now > 8:
            failed.append(i)
            size.failed(size.now)
        else:
            size.fitted(size.now)
    assert size.now == 8
    assert failed[:3] == [0, 1, 2]  # 64, 32, 16
    waits = [after - before - 1 for before, after in pairwise(failed[2:])]
    assert waits == [16, 32, 64, 128, 256, 512, 1024, 1024, 1024]
    assert BatchSize(1).most == 1
    one = BatchSize(2)
    one.failed(1)
    assert one.now == 1


def test_an_item_too_large_fails_its_caller_alone() -> None:
    error = out_of_memory()
    gate = Gate()

    def forward(items: list[int]) -> list[int]:
        if 13 in items:
            raise error
        return gate(items)

    batcher = Batcher(forward, 8)
    first, bad, good = gathered(batcher, gate, [[1], [12, 13], [4, 5]])
    assert first.result() == [2]
    assert good.result() == [8, 10]
    assert bad.exception() is error
    assert batcher.size == 1
    assert batcher([6]) == [12]


def test_a_bad_item_fails_its_caller_alone() -> None:
    gate = Gate()

    def forward(items: list[int]) -> list[int]:
        if 13 in items:
            raise ValueError("thirteen")
        return gate(items)

    batcher = Batcher(forward, 3)
    futures = gathered(batcher, gate, [[1], [13, 2], [3], [4, 5]])
    assert isinstance(futures[1].exception(), ValueError)
    assert [f.result() for f in futures if f is not futures[1]] == [[2], [6], [8, 10]]
    assert batcher.size == 3
    assert not batcher._waiting


def test_the_rest_of_a_failed_call_is_not_run() -> None:
    seen: list[list[int]] = []

    def forward(items: list[int]) -> list[int]:
        seen.append(items)
        raise KeyError("no")

    with pytest.raises(KeyError):
        Batcher(forward, 2)(range(6))
    assert seen == [[0, 1]]


def test_an_interrupted_thread_leaves_the_others_their_results() -> None:
    gate = Gate()
    interrupted: list[int] = []

    def forward(items: list[int]) -> list[int]:
        if 2 in items and not interrupted:
            interrupted.extend(items)
            raise KeyboardInterrupt
        return gate(items)

    batcher = Batcher(forward, 8)
    futures = gathered(batcher, gate, [[1], [2], [3]])
    assert futures[0].result() == [2]
    outcomes = [futures[1].exception(), futures[2].exception()]
    assert sorted(interrupted) == [2, 3]
    # Whichever thread led the batch was interrupted; the other one is served.
    assert sum(isinstance(outcome, KeyboardInterrupt) for outcome in outcomes) == 1
    assert outcomes.count(None) == 1
    assert batcher([5]) == [10]


def test_a_model_that_loses_results_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 results for 2 items"):
        Batcher(lambda items: items[:1], 2)([1, 2])
    with pytest.raises(ValueError, match="got size 0"):
        Batcher(lambda items: items, 0)


def test_what_counts_as_no_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(out_of_memory())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))
    OnnxError = type("RuntimeException", (Exception,), {"__module__": "onnxruntime.capi"})
    assert is_out_of_memory(OnnxError("Failed to allocate memory for requested buffer of size 9"))
    assert not is_out_of_memory(OnnxError("Invalid rank for input"))


def test_only_alike_items_run_together_and_come_back_in_order() -> None:
    seen: list[list[str]] = []

    def forward(words: list[str]) -> list[str]:
        assert len({len(word) for word in words}) == 1
        seen.append(words)
        return [word.upper() for word in words]

    assert grouped(["ab", "c", "de", "fgh", "i"], len, forward) == ["AB", "C", "DE", "FGH", "I"]
    assert seen == [["ab", "de"], ["c", "i"], ["fgh"]]
    assert grouped([], len, forward) == [] and len(seen) == 3
    with pytest.raises(ValueError, match="shorter"):
        grouped(["ab", "cd"], len, lambda words: words[:1])
