"""Mending a run's folder: what is damaged is moved to `quarantine/`, what is left is put in order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from manifests import features, journal, packs, reviews, storage, store
from manifests.journal import DamagedError
from manifests.packs import Place
from manifests.schema import stage_array, stage_dicts, without_stale_arrays
from pipelines.engine.lock import lock
from pipelines.engine.record import parse_run
from pipelines.engine.source import InputError

QUARANTINE = "quarantine"
NAMED = 5  # samples of a pack that are named one by one

# Of a file of rows: sample -> stages whose arrays cannot be read.
Lost = Mapping[str, set[str]]


@dataclass(frozen=True)
class Finding:
    """Something that is wrong in a run's folder.

    Attributes:
        what: the file and what is wrong with it.
        done: what was, or would be, done about it: "moved to ..."; "" where nothing can be.
        then: what is left to do.
        is_mended: nothing stands in the way of the other commands once that is done.
    """

    what: str
    done: str = ""
    then: str = ""
    is_mended: bool = True


@dataclass
class Repair:
    """Examines a run's folder, and mends it.

    Args:
        folder: the run's.
        writes: mend what is found; else only say what would be done.
        arrays: also read the arrays of every row.
    """

    folder: Path
    writes: bool
    arrays: bool = False
    findings: list[Finding] = field(default_factory=list)
    _ids: set[str] = field(default_factory=set)  # of the rows that the manifest has when all is mended

    def execute(self) -> list[Finding]:
        """Examine and mend; the findings, none where all is well.

        Raises:
            RunError: a run holds the folder.
            InputError: it is not the folder of a run.
        """
        if not is_run(self.folder):
            raise InputError(
                f"{self.folder} is not the folder of a run (neither run.json nor manifest in it)"
            )
        with lock(self.folder):
            for part in (self.folder, self.folder / "videos"):
                if is_run(part):
                    self._change(part / "manifest")
                    self._half_written(part)
                    self._manifest(part)
            self._record()
            self._reviews()
        return self.findings

    def _find(self, path: Path, what: str, done: str, then: str = "", is_mended: bool = True) -> None:
        self.findings.append(Finding(f"{self._name(path)} {what}", done, then, is_mended))

    def _name(self, path: Path) -> str:
        return "/".join(path.parts[len(self.folder.parts) :])

    def _move(self, path: Path, what: str, then: str = "") -> None:
        """Move a file to the quarantine, under a name that is free there."""
        target = self._place(path)
        self._find(path, what, f"moved to {self._name(target)}", then)
        if self.writes:
            storage.move(path, target)
            storage.remove([path])

    def _place(self, path: Path) -> Path:
        """Where a file lies in the quarantine; beside others of its name from before."""
        target = self.folder / QUARANTINE / self._name(path)
        taken = {other.name for other in storage.files(target.parent)}
        names = [target.name, *(f"{target.stem}-{i}{target.suffix}" for i in range(1, len(taken) + 1))]
        return target.with_name(next(name for name in names if name not in taken))

    def _change(self, manifest: Path) -> None:
        """A screen that was cut short."""
        try:
            names = journal.pending(manifest)
        except DamagedError:
            path = manifest / journal.FOLDER / journal.NAME
            self._move(path, "is damaged", f"`interavatar screen {self.folder}` judges all rows anew")
            names = {}
        if names:
            self._find(manifest, "has a change of several files that was cut short", "ended")
        if self.writes:
            journal.complete(manifest)

    def _half_written(self, part: Path) -> None:
        """What killed writers left: no writer will ever look at it again."""
        paths = [*storage.half_written(part), *store.half_written(part / "manifest")]
        if paths:
            self._find(paths[0], f"is one of {len(paths)} files that were left half written", "deleted")
            if self.writes:
                storage.remove(paths)

    def _lost_arrays(self, part: Path, files: Sequence[Path]) -> dict[Path, Lost]:
        """For each file of rows those whose arrays cannot be read."""
        alone = self._unreadable_files(part)
        lost: dict[Path, defaultdict[str, set[str]]] = {file: defaultdict(set) for file in files}
        of_pack: defaultdict[str, list[str]] = defaultdict(list)  # its samples whose arrays are lost
        wrong: dict[str, str] = {}  # packs that cannot be opened, and why
        for file in files:
            packed: defaultdict[str, list[tuple[str, Place]]] = defaultdict(list)
            for name, places in _places(file):
                for stage in alone.get(name, set()) - {place["stage"] for place in places}:
                    lost[file][name].add(stage)
                for place in places:
                    packed[place["file"]].append((name, place))
            for pack in sorted(packed):
                unreadable, why = _unreadable(part, pack, packed[pack])
                if why:
                    wrong[pack] = why
                for name, place in unreadable:
                    lost[file][name].add(place["stage"])
                    of_pack[pack].append(name)
        for pack, names in of_pack.items():
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            whose = f"{len(names)} rows ({', '.join(names[:NAMED])}{more})"
            if pack in wrong:
                what = f"{wrong[pack]}: the arrays of {whose} are lost"
                self._find(part / pack, what, "marked in the manifest")
            else:
                what = f"is damaged: the arrays of {whose} are lost"
                self._find(part / pack, what, "marked in the manifest", "it stays for its other rows")
        return dict(lost)

    def _unreadable_files(self, part: Path) -> dict[str, set[str]]:
        """Sample -> stages whose arrays have a file of their own that cannot be read; it is moved away."""
        lost: dict[str, set[str]] = {}
        for path in storage.below(part / packs.FEATURES, ".npz"):
            try:
                features.load(path)
            except (ValueError, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                self._move(path, "cannot be read")
                lost.setdefault(path.stem.rpartition("-")[0], set()).add(path.parent.parent.name)
        return lost

    def _manifest(self, part: Path) -> None:
        manifest = part / "manifest"
        ours = list(self._readable(manifest))
        parts = [path for path in store.part_files(manifest) if self._is_readable(path)]
        lost = self._lost_arrays(part, [*ours, *parts]) if self.arrays else {}
        ids = self._rows_of(ours, lost)
        self._mark(parts, lost)
        committed = {name for path in parts for name in store.sample_ids(path)}
        if part == self.folder:
            self._ids = ids | committed
        waiting = len(committed)
        if parts and self._fits(ours, parts):
            self._find(manifest, f"has {waiting} committed rows that were not merged", "merged")
            if self.writes:
                schema = store.prepare(manifest, store.read_schema(parts[-1]))
                with features.Leftovers(part) as leftovers:
                    store.merge(manifest, schema, on_replaced=leftovers.of)
        elif parts:
            self._find(
                manifest, f"has {waiting} committed rows of other columns", "", "the next run merges them"
            )

    def _readable(self, manifest: Path) -> Iterator[Path]:
        """The manifest's own files that can be read; all others are moved away."""
        for path in storage.files(manifest, ".parquet"):
            if path.name.startswith(("_", ".")):
                continue
            if not store.is_ours(path):
                self._move(path, "is not one of the manifest's own files")
            elif self._is_readable(path):
                yield path

    def _is_readable(self, path: Path) -> bool:
        try:
            table = store.read_file(path)
        except DamagedError:
            self._move(path, "cannot be read", "its rows are lost")
            return False
        if "sample_id" not in table.column_names or not pa.types.is_string(table["sample_id"].type):
            self._move(path, "holds no samples")
            return False
        return True

    def _rows_of(self, files: list[Path], lost: Mapping[Path, Lost]) -> set[str]:
        """Of rows with one id the newest stays; those without an id go, and stages whose arrays are lost.

        Returns:
            The ids.
        """
        newest: dict[str, tuple[str, int, int]] = {}
        for number, path in enumerate(files):
            for key, name in _keys(number, path):
                if name is not None:
                    newest[name] = max(key, newest.get(name, key))
        for number, path in enumerate(files):
            keys = list(_keys(number, path))
            stays = np.array([name is not None and newest[name] == key for key, name in keys], bool)
            without = sum(name is None for _, name in keys)
            doubled = int((~stays).sum()) - without
            if stays.all() and not lost.get(path):
                continue
            said = [
                f"{count} rows {what}"
                for count, what in ((doubled, "that are doubled"), (without, "without an id"))
                if count
            ]
            copy = self._place(path)
            self._say_lost(path, lost)
            if said:
                whole = f"taken out; the file of before is kept as {self._name(copy)}"
                self._find(path, f"has {' and '.join(said)}", whole)
            if self.writes:
                storage.write_bytes(copy, storage.read_bytes(path))
                table = store.read_file(path)
                store.write_table(path, _without(table, lost.get(path, {})).filter(pa.array(stays)))
        return set(newest)

    def _mark(self, parts: list[Path], lost: Mapping[Path, Lost]) -> None:
        """Forget the stages whose arrays are lost in rows that are not merged."""
        for path in parts:
            self._say_lost(path, lost)
            if self.writes and lost.get(path):
                storage.write_bytes(self._place(path), storage.read_bytes(path))
                store.write_table(path, _without(store.read_file(path), lost[path]))

    def _say_lost(self, path: Path, lost: Mapping[Path, Lost]) -> None:
        if lost.get(path):
            what = f"has {len(lost[path])} rows whose arrays are lost"
            self._find(path, what, "marked", "the same command again computes those stages")

    def _fits(self, files: list[Path], parts: list[Path]) -> bool:
        """Whether files and parts have the same columns, so that nothing is lost in merging them."""
        first, *others = [store.read_schema(path) for path in (*files, *parts)]
        return all(first.equals(other) for other in others)

    def _record(self) -> None:
        """run.json, else the newest of runs/ that can be read; and how many rows it says there were."""
        place = self.folder / "run.json"
        record, what = None, "is missing"
        try:
            record = parse_run(storage.read_bytes(place))
        except FileNotFoundError:
            pass
        except ValueError:
            what = "is damaged"
        for path in [] if record else reversed(storage.files(self.folder / "runs", ".json")):
            text = storage.read_bytes(path)
            try:
                record = parse_run(text)
            except ValueError:
                self._move(path, "is damaged")
                continue
            if what == "is damaged":
                self._move(place, what)
            self._find(place, "is missing", f"written again from {self._name(path)}")
            if self.writes:
                storage.write_bytes(place, text)
            break
        if record is None:
            if what == "is damaged":
                self._move(place, what)
            self._find(place, "is missing", "", "run the same command again: it writes one", is_mended=False)
            return
        before = (record.get("counts") or {}).get("manifest_rows", 0)
        if before > len(self._ids):
            self._find(
                self.folder / "manifest",
                f"lacks {before - len(self._ids)} of the {before} rows that it had",
                "",
                "run the same command again: it computes them, and only them",
                is_mended=bool(self._ids),
            )

    def _reviews(self) -> None:
        """Files of reviews that cannot be read."""
        for path in reviews.files(self.folder):
            try:
                reviews.read_file(path)
            except DamagedError:
                self._move(path, "cannot be read as reviews", "the reviews in it are lost")


def is_run(folder: Path) -> bool:
    """Whether there is something of a run in a folder."""
    if storage.files(folder, "run.json") or storage.files(folder / "runs", ".json"):
        return True
    return bool(storage.below(folder / "manifest"))


def _keys(number: int, path: Path) -> Iterator[tuple[tuple[str, int, int], str | None]]:
    """For each row how new it is (its run, whose id begins with the time; its place), and its id."""
    columns = store.read_schema(path).names
    table = store.read_file(path, [name for name in ("sample_id", "run_id") if name in columns])
    runs = table["run_id"].to_pylist() if "run_id" in columns else [None] * table.num_rows
    for row, (name, run) in enumerate(zip(table["sample_id"].to_pylist(), runs, strict=True)):
        yield (run or "", number, row), name


def _places(path: Path) -> Iterator[tuple[str, list[Place]]]:
    """The id of each row, and where its arrays lie in packs."""
    columns = [name for name in ("sample_id", "arrays") if name in store.read_schema(path).names]
    for row in store.read_file(path, columns).to_pylist():
        if row["sample_id"] is not None:
            yield row["sample_id"], row.get("arrays") or []


def _unreadable(
    part: Path, pack: str, places: Sequence[tuple[str, Place]]
) -> tuple[Sequence[tuple[str, Place]], str]:
    """Samples and places of a pack at which no arrays can be read; what is wrong with all of it, or ""."""
    lost = []
    try:
        with packs.opened(part, pack) as opened:
            for name, place in sorted(places, key=lambda item: item[1]["offset"]):
                try:
                    features.arrays_of(packs.read_range(opened, place))
                except ValueError:
                    lost.append((name, place))
    except FileNotFoundError:
        return places, "is missing"
    except ValueError:
        return places, "is no pack of a run"
    return lost, ""


def _without(table: pa.Table, lost: Lost) -> pa.Table:
    """The table without the entries in `stages` and `arrays` of what is lost."""
    if not lost:
        return table
    names, stages = table["sample_id"].to_pylist(), stage_dicts(table["stages"])
    kept = [
        {stage: fingerprint for stage, fingerprint in done.items() if stage not in lost.get(name, ())}
        for name, done in zip(names, stages, strict=True)
    ]
    table = without_stale_arrays(store.with_values(table, "stages", stage_array(kept)))
    if "program" not in table.column_names:  # a folder of an earlier version
        return table
    programs = table["program"].to_pylist()
    due = [None if name in lost else program for name, program in zip(names, programs, strict=True)]
    return store.with_values(table, "program", due)
