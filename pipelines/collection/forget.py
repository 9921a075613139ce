"""Which samples are to be forgotten: of a person, of a source, of a list.

What is removed then, and in which order, stands in `forget_run.py` and `forget_shards.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import collected, store
from manifests.outcomes import with_outcomes
from pipelines.catalogue import STEPS
from pipelines.engine.lists import LIST_SUFFIXES, SEPARATORS
from pipelines.engine.record import read_run
from pipelines.engine.source import InputError

# What tells whose a sample is, and what would name it elsewhere.
READ = (
    *("sample_id", "parent_id", "portrait_id", "source", "source_uri", "media_uri", "start_s", "end_s"),
    *("content_hash", "person_id", "duplicate_group"),
)
VIDEOS = "videos"  # below a run that cuts: what was computed of whole videos
# Columns of a list that name samples; their ids, or the files that they come from.
NAMING = ("sample_id", "source_uri", "uri")


@dataclass(frozen=True)
class Wanted:
    """What a command wants to be forgotten; a sample goes when it is of any of these.

    Attributes:
        people: values of `person_id`.
        sources: values of `source`.
        names: values of `sample_id`, `parent_id` or `source_uri`, or local paths of such a file.
    """

    people: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.people or self.sources or self.names)


def read_names(path: Path) -> frozenset[str]:
    """The samples and files that a list names.

    Args:
        path: a list with a column `sample_id`, `source_uri` or `uri` (.csv, .tsv, .parquet, .jsonl), or a
            text with one name a line.

    Raises:
        InputError: it cannot be read, or has none of these columns.
    """
    import pandas as pd

    suffix = path.suffix.lower()
    try:
        if suffix not in LIST_SUFFIXES:
            lines = [line.strip() for line in path.read_text("utf-8-sig", "surrogateescape").splitlines()]
            return frozenset(line for line in lines if line)
        if suffix == ".parquet":
            frame = pd.read_parquet(path)
        elif suffix == ".jsonl":
            frame = pd.read_json(path, lines=True, dtype=False)
        else:
            frame = pd.read_csv(path, sep=SEPARATORS[suffix][0], dtype=str, encoding="utf-8-sig")
    except (ValueError, OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {path}: {str(error).partition(chr(10))[0]}") from error
    there = [name for name in NAMING if name in frame.columns]
    if not there:
        raise InputError(f"{path} has none of the columns {', '.join(NAMING)}")
    return frozenset(str(value) for name in there for value in frame[name].dropna())


def runs_at(folder: Path) -> list[Path]:
    """The runs in a folder: its own, or those of both steps below it.

    Raises:
        InputError: there is none, or its run.json is damaged.
    """
    if read_run(folder) is not None:
        return [folder]
    below = [folder / name for steps in STEPS.values() for name in steps]
    found = [step for step in below if read_run(step) is not None]
    if not found:
        raise InputError(f"{folder} is not the folder of a run (no run.json in it)")
    return found


def parts_of(run: Path) -> list[Path]:
    """The folders of a run that hold a manifest: of whole videos, and its own."""
    return [part for part in (run / VIDEOS, run) if store.exists(part / "manifest")]


def files_of(part: Path) -> list[Path]:
    """The files of a manifest with rows: its own, and committed parts that are not merged yet."""
    return [*store.manifest_files(part / "manifest"), *store.part_files(part / "manifest")]


def rows_of(part: Path) -> pa.Table:
    """All rows below a folder of `parts_of`, the columns `READ`, null where a manifest has none."""
    schema = pa.schema(
        [(name, pa.float64() if name in ("start_s", "end_s") else pa.string()) for name in READ]
    )
    tables = [store.conform(store.read_file(file, list(READ)), schema) for file in files_of(part)]
    return pa.concat_tables([schema.empty_table(), *tables])


def find(runs: Sequence[Path], wanted: Wanted) -> dict[Path, pa.Table]:
    """The rows of some runs that are to be forgotten, by the folder of their manifest.

    With a video go the clips that were cut from it, and with the last of its clips the video; with a portrait
    go the clips that were made of it. A sample that is in several of the runs goes in all of them.

    Args:
        runs: their folders.
        wanted: what is to be forgotten.

    Raises:
        DamagedError: a file of theirs cannot be read.
    """
    tables = {part: rows_of(part) for run in runs for part in parts_of(run)}
    names = {
        *wanted.names,
        *(os.path.normpath(Path(name).absolute()) for name in wanted.names if "://" not in name),
    }
    masks: dict[Path, npt.NDArray[np.bool_]] = {}
    for part, table in tables.items():
        people = with_outcomes(table.select(["sample_id", "person_id"]), [_people(part)])["person_id"]
        mask = _is_in(people, wanted.people) | _is_in(table["source"], wanted.sources)
        for name in ("sample_id", "parent_id", "source_uri"):
            mask |= _is_in(table[name], names)
        masks[part] = mask
    count = -1
    while count < (count := sum(int(mask.sum()) for mask in masks.values())):
        ids = {name for part, mask in masks.items() for name in _names(tables[part], "sample_id", mask)}
        for part, table in tables.items():
            for name in ("sample_id", "parent_id", "portrait_id"):
                masks[part] |= _is_in(table[name], ids)
        for part, table in tables.items():
            if (clips := tables.get(part.parent)) is not None and part.name == VIDEOS:
                goes = masks[part.parent]
                stay = {*_names(clips, "parent_id", ~goes), *_names(clips, "sample_id", ~goes)}
                masks[part] |= _is_in(table["sample_id"], {*_names(clips, "parent_id", goes)} - stay)
    return {part: table.filter(pa.array(masks[part])) for part, table in tables.items()}


def _people(part: Path) -> pa.Table:
    """Who is in which sample, as it was found last."""
    known = collected.read(part).select(["sample_id", "person_id"])
    return known if known.num_rows else known.select(["sample_id"])


def _is_in(column: pa.ChunkedArray, values: frozenset[str] | set[str]) -> npt.NDArray[np.bool_]:
    if not values:
        return np.zeros(len(column), bool)
    return np.asarray(pc.is_in(column, value_set=pa.array(sorted(values), pa.string())), bool)


def _names(table: pa.Table, column: str, mask: npt.NDArray[np.bool_]) -> list[str]:
    names: list[str] = table[column].filter(pa.array(mask)).drop_null().to_pylist()
    return names


def copies_left(runs: Sequence[Path], found: dict[Path, pa.Table]) -> int:
    """How many rows that stay are copies of some that go: they may show the same person."""
    groups = {g for table in found.values() for g in table["duplicate_group"].to_pylist() if g}
    going = {name for table in found.values() for name in table["sample_id"].to_pylist()}
    left = 0
    for run in runs:
        table = rows_of(run)
        mask = _is_in(table["duplicate_group"], groups) & ~_is_in(table["sample_id"], going)
        left += int(mask.sum())
    return left
