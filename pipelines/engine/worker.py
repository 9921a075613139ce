"""Running stages on rows: one decode for all of them, every failure kept as data.

This is the whole of a run's inner loop, in one process. Runners only decide where it happens.
"""

from __future__ import annotations

import hashlib
import math
import time
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from backends.language.answer_cache import asking_for
from backends.language.vision_language_model import Deferred
from backends.running.batching import is_out_of_memory
from manifests import features, storage, store
from manifests.packs import PackFiles, PackObjects, Packs, Place
from manifests.schema import ARROW_TYPES, SCHEMA_VERSION, to_table
from manifests.text import clean_text, without_secrets
from media.crop import CROP, Crop
from media.decode import Decoded, decode
from media.files import PICTURE_SUFFIXES, local_copy
from media.picture import decode_picture
from pipelines.engine.attempts import Attempt, attempt
from pipelines.engine.deadlines import Deadlines, Watchdog
from pipelines.engine.faults import fault_of, shown
from pipelines.engine.figures import Summary
from pipelines.engine.pipeline import MEDIA
from pipelines.engine.program import Program, Step, due
from pipelines.engine.source import ADDRESS
from stages.clip import Clip
from stages.contract import Array, Beside, Column

# So much of another file is read where only its first picture is wanted, however long it is, s.
BEGINNING_S = 10.0


class Worker:
    """Runs a group of steps on rows and commits the finished ones.

    Args:
        program: the whole pipeline.
        steps: the group of it that runs here.
        folder: the run's folder.
        run_id: written into rows that are computed.
        deadlines: how long each stage may take for a sample before this process is killed; None: as long as
            it takes.
        is_first: rows come from the plan, and not from another group.
        before, after: stages of the turns before and after this one (`pipelines.engine.placement`).
    """

    def __init__(
        self,
        program: Program,
        steps: Sequence[Step],
        folder: Path,
        run_id: str,
        deadlines: Deadlines | None = None,
        is_first: bool = True,
        before: Collection[str] = (),
        after: Collection[str] = (),
    ) -> None:
        self.program, self.steps, self.folder, self.run_id = program, list(steps), folder, run_id
        self.deadlines = deadlines
        self.is_first, self.before, self.after = is_first, frozenset(before), frozenset(after)
        self.is_ready = False

    def setup(self) -> None:
        """Load the models of this group once."""
        if not self.is_ready:
            self._watchdog = Watchdog()
            self._files = PackFiles(self.folder, self.run_id)
            for step in self.steps:
                step.stage.setup()
            self.is_ready = True

    def close(self) -> None:
        """End the process beside this one that sees to the deadlines, and close the packs of arrays."""
        if self.is_ready:
            self._watchdog.close()
            self._files.close()

    def run(self, rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], Summary]:
        """Compute what each row still needs of this group; as many rows come back, in the same order.

        May be called from several threads when every step of the group allows that. The arrays that the rows
        refer to are safe when it returns: another machine may go on with them.

        Raises:
            DeviceLost: the GPU was lost.
            OutputError: the arrays cannot be written.
        """
        self.setup()
        done = Summary()
        is_remote = storage.is_remote(self.folder)
        packs: Packs = PackObjects(self.folder, self.run_id) if is_remote else self._files
        after = [self._sample(row, packs, done) for row in rows]
        with storage.written(self.folder):
            packs.sync()
        return after, done

    def commit(self, rows: Sequence[dict[str, Any]], done: Summary) -> Summary:
        """Judge rows and commit them as one part; `done`, what was computed, is completed.

        Raises:
            OutputError: the part cannot be written.
        """
        are_ended = []
        for row in rows:
            clear_outdated(row, self.program)
            left = due(row, self.program.steps)[0]
            row["program"] = None if left else self.program.hash
            are_ended.append(not left or left[0].name not in self.before | self.after)
            if are_ended[-1]:  # on what comes after a stop or an error nothing was done, and that is settled
                done.due.update(
                    step.name
                    for step in self.program.steps
                    if step.name in self.after and row["stages"].get(step.name) != step.fingerprint
                )
        table = self.program.screen.apply(to_table(list(rows), self.program.schema))
        with storage.written(self.folder):
            store.commit(self.folder / "manifest", table, self.run_id)
        ended = [row for row, is_ended in zip(rows, are_ended, strict=True) if is_ended]
        done.rows, done.passed_on = len(ended), len(rows) - len(ended)
        kept = zip(table["keep"].to_pylist(), are_ended, strict=True)
        done.kept = sum(keep and is_ended for keep, is_ended in kept)
        done.errors = sum(row["error"] is not None for row in ended)
        done.stopped = sum(row["stopped"] is not None for row in ended)
        return done

    def _sample(self, row: dict[str, Any], packs: Packs, summary: Summary) -> dict[str, Any]:
        everything, ended = due(row, self.program.steps)
        if self.is_first and everything and everything[0].name not in self.before:
            summary.due.update(step.name for step in everything if step.name not in self.after)
        todo = [step for step in everything if step in self.steps]
        # Where a step of an earlier group is still due, that group put the sample off, or lost what it reads.
        if not todo or todo[0] is not everything[0]:
            return row
        row = {**row, "run_id": self.run_id, "schema_version": SCHEMA_VERSION}
        if not ended:
            row["error"] = row["stopped"] = None
        row["stages"] = dict(row["stages"] or {})
        row["arrays"] = list(row["arrays"] or [])
        if any(MEDIA in step.stage.writes for step in todo):
            row[MEDIA] = row["source_uri"]
        with attempt(self.folder, row["sample_id"], self.run_id) as note:
            if note.is_hopeless:
                last = next((s for s in todo if s.name == note.deaths[-1].stage), todo[0])
                _fail(row, last, "WorkerDied", self._died(note, last), "")
                summary.fail(row)
                return row
            with ExitStack() as stack, asking_for(row["sample_id"]):
                self._steps(row, todo, stack, note, packs, summary, ended)
        return row

    def _died(self, note: Attempt, last: Step) -> str:
        why = "a crash inside a library, or out of memory"
        if note.deaths[-1].was_late:
            why = "it took too long, see the setting deadline_s"
        return (
            f"the worker process died {len(note.deaths)} times on this sample, last in {last.name} ({why}); "
            "try again with --retry-errors WorkerDied"
        )

    def _steps(
        self,
        row: dict[str, Any],
        todo: list[Step],
        stack: ExitStack,
        note: Attempt,
        packs: Packs,
        summary: Summary,
        ended: bool,
    ) -> None:
        clip = Clip(row=row, seed=_seed(self.program.seed, row["sample_id"]), folder=self.folder)
        for position, step in enumerate(todo):
            note.stage(step.name)
            started = time.perf_counter()
            decoding = 0.0
            try:
                with self._in_time(step, note, row["sample_id"]):
                    clip.fingerprint = step.fingerprint
                    self._load_arrays(clip, step)
                    if clip.local_path is None and (step.stage.sees or MEDIA in step.stage.writes):
                        clip.local_path = stack.enter_context(local_copy(address_of(row)))
                    if step.stage.sees and clip.decoded is None:
                        self._decode(clip, todo[position:])
                        summary.decoded[clip.media.decoder] += 1
                    self._look_beside(clip, todo[position:])
                    decoding = time.perf_counter() - started
                    written = checked(step.stage.score(clip), step)
                    arrays = {k: v for k, v in written.items() if isinstance(step.stage.writes[k], Array)}
                    place = self._save_arrays(packs, step, arrays) if arrays else None
            except Deferred as error:
                if not ended:  # a gate or an error further on still stands, and says more
                    row["stopped"] = _stop(step, str(error), waits=True)  # not done, so it is taken up again
                return
            except Exception as error:
                if is_device_lost(error):
                    raise DeviceLost(f"{step.name}: {error}") from error
                cause, media = _cause(error, row)
                fault = fault_of(cause, media, row["source_size"] is not None)
                if fault is not None:
                    said = shown(error)
                    summary.faults[f"{fault} fault in {step.name}: {said}"] += 1
                    if not ended:
                        row["stopped"] = _stop(step, f"{fault} fault: {said}", waits=True)
                    return
                _fail(row, step, type(cause).__name__, str(error), traceback.format_exc())
                self._heal(row, error)
                summary.fail(row)
                return
            finally:
                summary.seconds[step.name] += time.perf_counter() - started - decoding
                summary.seconds["decode"] += decoding
            columns = {k: v for k, v in written.items() if k not in arrays}
            if MEDIA in columns and columns[MEDIA] != row[MEDIA]:
                clip.decoded = clip.local_path = None  # later stages see the new file
            row.update(columns)
            row["stages"][step.name] = step.fingerprint
            row["arrays"] = [other for other in row["arrays"] if other["stage"] != step.name]
            if place is not None:
                row["arrays"].append(place)
                clip.arrays.update(arrays)
            summary.computed[step.name] += 1
            reason = step.stage.stop(row)
            if reason is not None:
                row["stopped"] = _stop(step, reason)
                return

    def _heal(self, row: dict[str, Any], error: Exception) -> None:
        """Forget the stage whose stored result is gone, so that the next run makes it again."""
        lost = error.stage if isinstance(error, LostFeature) else None
        if row[MEDIA] != row["source_uri"] and not storage.exists(row[MEDIA]):
            lost = next(s.name for s in self.program.steps if MEDIA in s.stage.writes)
        if lost is not None:
            row["stages"].pop(lost, None)

    def _decode(self, clip: Clip, todo: list[Step]) -> None:
        """One sequential pass for everything that this and the later steps want."""
        row = clip.row
        requests = [request for step in todo for request in step.stage.sees]
        own_file = row[MEDIA] != row["source_uri"]  # made for this sample alone
        start, end = (None, None) if own_file else (row["start_s"], row["end_s"])
        crop = None if own_file else Crop.of(row)
        assert clip.local_path is not None
        if self.program.media == "picture" and not own_file:
            clip.decoded = decode_picture(clip.local_path, requests, crop)
            return
        limit, decoder = self.program.max_seconds, self.program.decoder
        clip.decoded = decode(clip.local_path, requests, start, end, limit, decoder, crop)

    def _look_beside(self, clip: Clip, todo: list[Step]) -> None:
        """Other files that the first of the steps looks at: each is read once for this and the later steps.

        Raises:
            BesideError: one cannot be read.
        """
        for column in dict.fromkeys(beside.column for beside in todo[0].stage.sees_beside):
            address = clip.row.get(column)
            if column in clip.beside:
                continue
            if address is None:
                clip.beside[column] = None
                continue
            wanted = [beside for step in todo for beside in step.stage.sees_beside if beside.column == column]
            try:
                clip.beside[column] = self._decoded_beside(clip.row, address, wanted)
            except Exception as error:
                raise BesideError(column, address, error) from error

    def _decoded_beside(self, row: Mapping[str, Any], address: str, wanted: Sequence[Beside]) -> Decoded:
        """One pass over another file that belongs to a sample."""
        _, _, _, start, end, *sides = (row.get(name) for name in wanted[0].columns)
        crop = Crop.of(dict(zip(CROP, sides, strict=True)))
        requests = [beside.request for beside in wanted]
        if all(request.fps == 0 for request in requests):  # the first picture is looked for in its beginning
            end = min(math.inf if end is None else end, (start or 0.0) + BEGINNING_S)
        with local_copy(address) as path:
            if PurePosixPath(address).suffix.lower() in PICTURE_SUFFIXES:
                return decode_picture(path, requests, crop)
            return decode(path, requests, start, end, self.program.max_seconds, self.program.decoder, crop)

    @contextmanager
    def _in_time(self, step: Step, note: Attempt, sample_id: str) -> Iterator[None]:
        """A stage at work on a sample; past its deadline this process is killed."""
        if self.deadlines is None:
            yield
            return
        started = time.perf_counter()
        with self._watchdog.watching(self.deadlines.of(step.name), note.path, f"{step.name} of {sample_id}"):
            yield
        self.deadlines.add(step.name, time.perf_counter() - started)

    def _save_arrays(self, packs: Packs, step: Step, arrays: dict[str, np.ndarray]) -> Place:
        npz = features.npz_of(arrays)
        with storage.written(self.folder):
            return packs.add(step.name, step.fingerprint, npz)

    def _load_arrays(self, clip: Clip, step: Step) -> None:
        """Arrays that the step reads and an earlier run, or group of steps, stored."""
        for name in step.stage.reads:
            owner = self.program.array_owner.get(name)
            if owner is not None and name not in clip.arrays:
                try:
                    clip.arrays.update(features.load_features(self.folder, clip.row, owner))
                except (OSError, ValueError) as error:
                    raise LostFeature(owner, error) from error


def address_of(row: Mapping[str, Any]) -> str:
    """Where the sample's media are, with the user or signature that the manifest's address lacks."""
    listed = row.get(ADDRESS) if row[MEDIA] == row["source_uri"] else None
    return str(listed or row[MEDIA])


def _cause(error: Exception, row: Mapping[str, Any]) -> tuple[Exception, str]:
    """What went wrong, and the media at which it did."""
    return (error.error, error.address) if isinstance(error, BesideError) else (error, row[MEDIA])


def _seed(seed: int, sample_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{sample_id}".encode()).digest()[:8], "big")


def _stop(step: Step, reason: str, waits: bool = False) -> dict[str, Any]:
    return {"stage": step.name, "reason": clean_text(reason), "waits": waits}


def _fail(row: dict[str, Any], step: Step, kind: str, message: str, trace: str) -> None:
    row["error"] = {
        "stage": step.name,
        "kind": kind,
        "message": clean_text(without_secrets(message))[:1000],
        "traceback": clean_text(without_secrets(trace))[-4000:],
        "fingerprint": step.fingerprint,
    }


def clear_outdated(row: dict[str, Any], program: Program) -> None:
    """Forget columns and arrays of stages that this row does not carry in their current version.

    So every value in the manifest belongs to the fingerprint that `stages` names.
    """
    have = row.get("stages") or {}
    current = program.fingerprints.items()  # in the pipeline's order, whatever was computed last
    row["stages"] = {name: fingerprint for name, fingerprint in current if have.get(name) == fingerprint}
    places = {place["stage"]: place for place in row.get("arrays") or ()}
    row["arrays"] = [places[name] for name in row["stages"] if name in places]
    for step in program.steps:
        if step.name not in row["stages"]:
            for name in step.stage.writes:
                row[name] = row["source_uri"] if name == MEDIA else None


class DeviceLost(Exception):
    """Nothing runs on this process's GPU any more; a new process must take the sample up again."""


def is_device_lost(error: Exception) -> bool:
    """Whether every further use of the GPU, or of vLLM's engine, would fail too."""
    if type(error).__name__ == "EngineDeadError":
        return True
    message = str(error)
    lost = "CUDA error" in message or "CUDNN_STATUS_EXECUTION_FAILED" in message
    return lost and not is_out_of_memory(error)


class BesideError(Exception):
    """Another file that belongs to the sample cannot be read; `address` says which, `error` why."""

    def __init__(self, column: str, address: str, error: Exception) -> None:
        super().__init__(f"{column} {address}: {str(error) or type(error).__name__}")
        self.address, self.error = address, error


class LostFeature(Exception):
    """Arrays that an earlier run stored cannot be read; the next run computes them again."""

    def __init__(self, stage: str, error: Exception) -> None:
        super().__init__(f"the arrays of {stage} cannot be read ({error}); the next run computes them again")
        self.stage = stage


class ContractError(Exception):
    """A stage did not return what it declares."""


def checked(written: dict[str, Any], step: Step) -> dict[str, Any]:
    """The stage's output with plain Python values.

    Raises:
        ContractError: a name is missing or unknown, or a value has the wrong type.
    """
    declared = step.stage.writes
    if set(written) != set(declared):
        missing, unknown = sorted(set(declared) - set(written)), sorted(set(written) - set(declared))
        raise ContractError(f"{step.name} must return what it declares; missing {missing}, unknown {unknown}")
    return {name: _plain(value, declared[name], name) for name, value in written.items()}


_PYTHON_TYPES = {"float": float, "int": int, "bool": bool, "string": str}


def _plain(value: Any, what: Column | Array, name: str) -> Any:
    if isinstance(what, Array):
        value = np.asarray(value)
        if value.dtype == object:
            raise ContractError(f"array {name} holds Python objects")
        return value
    if value is None:
        return None
    if what.type == "strings":
        return [clean_text(str(v)) for v in value]
    if what.type == "floats":
        return [float(v) for v in value]
    if what.type in ("regions", "reactions"):
        return [_record(v, ARROW_TYPES[what.type].value_type, name) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    wanted = _PYTHON_TYPES[what.type]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted:
        raise ContractError(f"column {name} must be {what.type}, got {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return clean_text(value) if isinstance(value, str) else value


def _record(value: Mapping[str, Any], kind: pa.StructType, name: str) -> dict[str, Any]:
    if set(value) != {field.name for field in kind}:
        raise ContractError(f"a record of {name} has {sorted(value)}, not {[field.name for field in kind]}")
    return {n: clean_text(v) if isinstance(v, str) else float(v) for n, v in value.items()}
