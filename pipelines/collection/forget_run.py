"""A run's folder brought in line with what the run was made to forget.

First `forgotten.parquet` says it, by hashes (`manifests/forgotten.py`). Then goes whatever is of these
samples, or names them: nothing here remembers how far it came, so a command that was killed is given again.
What can be recognised by the rows alone (addresses, hashes of media) goes before the rows. The rows go in one
step, with the places of the arrays of all other rows: packs that held more than these are written anew.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from backends.language.answer_cache import AnswerCache
from manifests import collected, forgotten, journal, packs, reviews, storage, store
from manifests.forgotten import Forgotten
from manifests.history import HISTORY
from manifests.journal import DamagedError
from pipelines.catalogue import STEPS
from pipelines.collection.forget import VIDEOS, files_of, parts_of, rows_of
from pipelines.engine import live
from pipelines.engine.attempts import ATTEMPTS
from pipelines.engine.lock import lock
from pipelines.engine.record import read_run, run_files
from pipelines.engine.repair import QUARANTINE
from pipelines.review.report import FOUND, REPORT, is_current, write_report
from pipelines.review.screening import screen_again
from pipelines.review.strips import FOLDER as STRIPS
from pipelines.review.strips import READS, strip_name, strips_there

# Columns that name the copy of a sample, and what falls with the name.
COPIES = {
    "duplicate_of": ("duplicate_of", "duplicate_kind", "duplicate_distance"),
    "duplicate_group": ("duplicate_group",),
}
INSTEAD = "forgotten"  # stands where a record named a sample
VALIDATION = ("validation.html", "validation.parquet")
LARGEST_TEXT = 64 << 20  # bytes of a file of somebody else that is searched
NOT_SEARCHED = (packs.FEATURES, "media", STRIPS, "answers")


@dataclass
class Removed:
    """What was removed of a run.

    Attributes:
        counts: a word for it, and how many.
        others: files in the folder that name a sample and are none of this program's: they stay.
    """

    counts: Counter[str] = field(default_factory=Counter)
    others: list[Path] = field(default_factory=list)


def forget_in_run(run: Path, found: Mapping[Path, pa.Table], writes: bool = True) -> Removed:
    """Forget samples of a run, and what a command that was killed has left of such.

    Args:
        run: its folder.
        found: rows to forget, as `forget.find` gives them; those of other runs are passed over.
        writes: False: only count.

    Raises:
        RunError: another process holds the folder.
        DamagedError: a file of it cannot be read.
    """
    rows = [row for part in parts_of(run) for row in found[part].to_pylist()]
    gone = forgotten.read(run).with_samples(rows)
    if not len(gone):
        return Removed()
    if not writes:
        return _Sweep(run, gone, lambda: None, writes=False).execute()
    with lock(run) as check_lock:
        for part in parts_of(run):
            journal.complete(part / "manifest")
        forgotten.write(run, gone)
        removed = _Sweep(run, gone, check_lock).execute()
    if run in parts_of(run):
        screen_again(run)  # of copies, one that is gone may have been the best
        if _there(run, REPORT) and not is_current(run):
            write_report(run, strips=0)
    return removed


def half_written(folder: Path) -> list[Path]:
    """What killed writers left anywhere below a folder; they may hold rows."""
    found = [path for path in storage.below(folder, storage.PARTIAL) if path.name.startswith("_")]
    return [*found, *(path for path in storage.half_written(folder) if path not in found)]


class _Sweep:
    """Removes from a run's folder what is of forgotten samples, or counts it.

    Args:
        run: its folder, which the caller holds.
        gone: what is forgotten.
        check_lock: raises where the folder is another writer's by now.
        writes: False: only count.
    """

    def __init__(
        self, run: Path, gone: Forgotten, check_lock: Callable[[], None], writes: bool = True
    ) -> None:
        self.run, self.gone, self.check_lock, self.writes = run, gone, check_lock, writes
        self.removed = Removed()
        self.counts = self.removed.counts

    def execute(self) -> Removed:
        """Do it; what was removed."""
        parts = parts_of(self.run)
        rows = {part: self._going(part) for part in parts}
        texts = _naming([row for some in rows.values() for row in some])
        self._drop_leftovers(parts, is_new=bool(texts))
        self._clean_records(texts)
        for part in parts:
            self._rows(part, len(rows[part]))
            if self.writes:
                packs.remove_unused(part)
            self._files_of_one(part)
        self._tables()
        self._answers()
        self._strips()
        self._remove("pages of what was found", _there(self.run, FOUND))
        self._search(texts)
        return self.removed

    def _going(self, part: Path) -> list[dict[str, Any]]:
        table = rows_of(part)
        rows: list[dict[str, Any]] = table.filter(pa.array(self.gone.which(table["sample_id"]))).to_pylist()
        return rows

    def _remove(self, what: str, paths: Iterable[Path]) -> None:
        paths = list(paths)
        self.counts[what] += len(paths)
        if self.writes:
            storage.remove(paths)

    def _drop_leftovers(self, parts: Sequence[Path], is_new: bool) -> None:
        """What may hold rows and cannot be looked into, and what shows them and is made again."""
        self._remove("damaged files in quarantine", storage.below(self.run / QUARANTINE))
        if self.writes:
            storage.remove_tree(self.run / QUARANTINE)
        self._remove("half-written files", half_written(self.run))
        for part in parts:
            if is_new:
                self._remove("plans of a run that was cut short", _there(part, "_plan.parquet"))
        if is_new:
            self._remove("progress of a run that was cut short", _there(self.run, live.FILE))
            self._remove("files of a validation", _there(self.run, *VALIDATION))

    def _clean_records(self, texts: frozenset[str]) -> None:
        """run.json and those of earlier runs: an error or an input that names a sample."""
        if not texts:
            return
        for path in [self.run / "run.json", *storage.files(self.run / "runs", ".json")]:
            try:
                before = json.loads(storage.read_bytes(path))
            except (FileNotFoundError, ValueError):
                continue
            after = _without(before, texts)
            if after != before:
                self.counts["records that name a sample"] += 1
                if self.writes:
                    data = json.dumps(after, indent=2, ensure_ascii=False)
                    storage.write_bytes(path, data.encode("utf-8", "replace"))

    def _rows(self, part: Path, going: int) -> None:
        """The rows, and the packs: one step for the whole manifest."""
        files = files_of(part)
        stay = {file: ~self.gone.which(store.read_file(file, ["sample_id"])["sample_id"]) for file in files}
        moved = self._packs(part, stay)
        versions = {entry.path: entry.version for entry in store.listed(part / "manifest")}
        change = journal.Change(part / "manifest") if self.writes else None
        tally: Counter[str] = Counter()
        for file in files:
            table = store.read_file(file)
            left = table if stay[file].all() else table.filter(pa.array(stay[file]))
            left = _moved(self._unlinked(left), moved)
            if left is table:
                continue
            tally += _outcomes(table.filter(pa.array(~stay[file])))
            if change is not None:
                change.write(file, store.file_bytes(file, left), versions.get(file))
        self.counts["rows" if part == self.run else "rows of whole videos"] += going
        if change is None:
            return
        if part == self.run:
            for path, data in {**self._collected(), **self._counts(tally)}.items():
                change.write(path, data)
        change.commit(self.check_lock)

    def _packs(
        self, part: Path, stay: Mapping[Path, npt.NDArray[np.bool_]]
    ) -> dict[str, tuple[str, dict[int, int]]]:
        """Packs with bytes of no row that stays -> the pack that takes their place, and offsets in it."""
        named = _ranges(stay)
        moved = {}
        for path in storage.below(part / packs.FEATURES, packs.SUFFIX):
            name = "/".join(path.parts[len(part.parts) :])
            ranges = named.get(name, np.empty((0, 2), np.int64))
            if int(path.stat().st_size) <= ranges[:, 1].sum():
                continue
            self.counts["packs of arrays, written anew without them"] += 1
            if self.writes and len(ranges):
                try:
                    moved[name] = packs.copied(part, name, ranges.tolist())
                except ValueError as error:
                    raise DamagedError(
                        f"{path} is damaged ({error}): `interavatar repair {self.run} --arrays` marks its "
                        "rows, then give this command again"
                    ) from error
        return moved

    def _unlinked(self, table: pa.Table) -> pa.Table:
        """Rows that stay, without the names of copies that go."""
        for name, falling in COPIES.items():
            if name not in table.column_names or not pa.types.is_string(table.schema.field(name).type):
                continue
            names = pc.unique(table[name].drop_null())
            lost = names.filter(pa.array(self.gone.which(names)))
            if not len(lost):
                continue
            mask = pc.is_in(table[name], value_set=lost)
            self.counts["names of copies in other rows"] += pc.sum(mask).as_py()
            for column in falling:
                at = table.schema.get_field_index(column)
                if at >= 0:
                    null = pa.scalar(None, table.schema.field(at).type)
                    table = table.set_column(
                        at, table.schema.field(at), pc.if_else(mask, null, table[column])
                    )
        return table

    def _collected(self) -> Mapping[Path, bytes]:
        """What is known of the samples beside others, where that changes."""
        known = collected.read(self.run)
        goes = self.gone.which(known["sample_id"])
        left = self._unlinked(known.filter(pa.array(~goes)) if goes.any() else known)
        return {} if left is known else collected.files(self.run, left)

    def _counts(self, tally: Mapping[str, int]) -> Mapping[Path, bytes]:
        """run.json with the counts of what is left; the screen counts kept and dropped ones."""
        record = read_run(self.run)
        if record is None or "counts" not in record or not tally:
            return {}
        names = {name: tally.get(name, tally["rows"]) for name in ("errors", "stopped")}
        names |= dict.fromkeys(("ids_in", "ids_out", "manifest_rows"), tally["rows"])
        before = record["counts"]
        less = {name: max(0, before[name] - count) for name, count in names.items() if name in before}
        return run_files(self.run, record | {"counts": before | less})

    def _files_of_one(self, part: Path) -> None:
        """Files whose names begin with a sample's id: media, arrays of an earlier version, attempts."""
        held = [
            path
            for folder in (part / "media", part / packs.FEATURES, part / ATTEMPTS)
            for path in storage.below(folder)
            if path.suffix != packs.SUFFIX and self._is_named_by(path.name)
        ]
        self._remove("media and notes of single samples", held)

    def _is_named_by(self, name: str) -> bool:
        ends = [match.start() for match in re.finditer(r"[-.]", name)]
        return any(self.gone.holds(name[:end]) for end in [*ends, len(name)])

    def _tables(self) -> None:
        """Reviews, the history of verdicts, and all further tables beside the manifest."""
        own = {collected.FILE, forgotten.FILE}
        beside = [path for path in storage.files(self.run, ".parquet") if path.name not in own]
        found = {
            "reviews": reviews.files(self.run),
            "changes of verdicts": storage.files(self.run / HISTORY, ".parquet"),
            "rows of further tables": [path for path in beside if path.is_file()],
        }
        for what, paths in found.items():
            for path in paths:
                try:
                    table = pq.read_table(pa.BufferReader(storage.read_bytes(path)))
                except (pa.ArrowException, FileNotFoundError):
                    continue
                left = self._without_names(table)
                if left is table:
                    continue
                self.counts[what] += table.num_rows - left.num_rows
                if self.writes:
                    storage.write_bytes(path, store.to_bytes(left))

    def _without_names(self, table: pa.Table) -> pa.Table:
        """A table without the rows of forgotten samples, and without their names in others."""
        for at, column in enumerate(table.schema):
            if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
                continue
            names = pc.unique(table[column.name].drop_null())
            lost = names.filter(pa.array(self.gone.which(names)))
            if not len(lost):
                continue
            mask = pc.is_in(table[column.name], value_set=lost)
            if column.name == "sample_id":
                table = table.filter(pc.invert(mask))
            else:
                null = pa.scalar(None, column.type)
                table = table.set_column(at, column, pc.if_else(mask, null, table[column.name]))
        return table

    def _answers(self) -> None:
        """What language models said of them, in the folder of the run or of its two steps."""
        steps = {name for of_pipeline in STEPS.values() for name in of_pipeline}
        folders = [self.run, *([self.run.parent] if self.run.name in steps else [])]
        for folder in (folder / "answers" for folder in folders):
            for place in (folder, folder / "reaction_writer"):
                cache = AnswerCache(place)
                self.counts["answers of language models"] += cache.forget(self.gone.holds_hash, self.writes)

    def _strips(self) -> None:
        """Pictures of the report that are of no row."""
        there = strips_there(self.run)
        if not there or self.run not in parts_of(self.run):
            return
        names = set()
        for file in files_of(self.run):
            table = store.read_file(file, list(READS))
            rows = table.filter(pa.array(~self.gone.which(table["sample_id"]))).to_pylist()
            names |= {strip_name({name: row.get(name) for name in READS}) for row in rows}
        self._remove("strips of pictures", (self.run / STRIPS / name for name in sorted(there - names)))

    def _search(self, texts: frozenset[str]) -> None:
        """Name the files of somebody else in the folder that name a sample; they stay."""
        needles = [text.encode("utf-8", "surrogateescape") for text in texts]
        if not needles:
            return
        for path in storage.below(self.run):
            inside = path.parts[len(self.run.parts) :]
            known = inside[0] in (*NOT_SEARCHED, "manifest", VIDEOS, "report.html")
            if known or path.suffix == ".parquet" or path.stat().st_size > LARGEST_TEXT:
                continue
            data = storage.read_bytes(path)
            if any(needle in data for needle in needles):
                self.removed.others.append(path)


def _there(folder: Path, *names: str) -> list[Path]:
    return [path for path in storage.files(folder) if path.name in names]


def _naming(rows: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The texts that name samples: ids, addresses and hashes of their media."""
    names = ("sample_id", "source_uri", "media_uri", "content_hash")
    return frozenset(row[name] for row in rows for name in names if row[name])


def _without(value: Any, texts: frozenset[str]) -> Any:
    """A value of JSON; each text in it that names a sample is `INSTEAD`."""
    if isinstance(value, dict):
        return {key: _without(inner, texts) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without(inner, texts) for inner in value]
    if isinstance(value, str) and any(text in value for text in texts):
        return INSTEAD
    return value


def _outcomes(rows: pa.Table) -> Counter[str]:
    """How many rows, and how many of them are an error or were stopped."""
    ended = {
        "errors": rows.num_rows - rows["error"].null_count,
        "stopped": rows.num_rows - rows["stopped"].null_count,
    }
    return Counter({"rows": rows.num_rows, **ended})


def _ranges(stay: Mapping[Path, npt.NDArray[np.bool_]]) -> dict[str, npt.NDArray[np.int64]]:
    """For each pack the parts that rows name, (parts, 2): offset and size, bytes.

    Args:
        stay: for each file of a manifest which of its rows count.
    """
    found: defaultdict[str, list[npt.NDArray[np.int64]]] = defaultdict(list)
    for file, mask in stay.items():
        table = store.read_file(file, ["arrays"])
        if "arrays" not in table.column_names:
            continue
        for chunk in table["arrays"].filter(pa.array(mask)).chunks:
            places = chunk.flatten()
            names = places.field("file").dictionary_encode()
            ranges = np.stack([places.field(name).to_numpy() for name in ("offset", "size")], axis=1)
            numbers = names.indices.to_numpy()
            for number, name in enumerate(names.dictionary.to_pylist()):
                found[name].append(ranges[numbers == number])
    whole = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: ranges[np.unique(ranges[:, 0], return_index=True)[1]] for name, ranges in whole.items()}


def _moved(table: pa.Table, moved: Mapping[str, tuple[str, Mapping[int, int]]]) -> pa.Table:
    """Rows with the new places of their arrays."""
    if not moved or "arrays" not in table.column_names:
        return table
    files = [chunk.flatten().field("file").unique() for chunk in table["arrays"].chunks]
    if not any(name in moved for of_chunk in files for name in of_chunk.to_pylist()):
        return table
    places = table["arrays"].to_pylist()
    for of_row in places:
        for place in of_row or ():
            if place["file"] in moved:
                name, offsets = moved[place["file"]]
                place["file"], place["offset"] = name, offsets[place["offset"]]
    return store.with_values(table, "arrays", places)
