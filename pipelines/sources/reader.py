"""What a reader of a published data set is, and what it gives: a table as of an input list."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.schema import ARROW_TYPES, Field
from media.crop import CROP, crop_problem
from pipelines.engine.addresses import INSIDE, PROBLEM
from pipelines.engine.list_values import SECONDS
from pipelines.engine.lists import URI

# Columns of ours that a reader may fill, and why a row can only be an error.
OWN = {
    URI: pa.string(),
    "licence": pa.string(),
    **dict.fromkeys((*SECONDS, *CROP), pa.float64()),
    INSIDE: pa.binary(),
    "source_size": pa.int64(),
    PROBLEM: pa.string(),
}
CAPTION = Field("string", "", "Caption that the data set gives; a stage `caption` takes it over.")
IDENTITY = Field("string", "", "The person, as the data set names it.")
EMOTION = Field("string", "", "Emotion, in the data set's words.")
GENDER = Field("string", "", "Gender, in the data set's words.")
SPLIT = Field("string", "", "Side of the data set's own split.")


@dataclass(frozen=True)
class Tree:
    """The files below a folder of this machine.

    root: the folder.
    suffixes: file name endings of the pipeline's media, lower case with the dot.
    """

    root: Path
    suffixes: frozenset[str]

    @cached_property
    def files(self) -> list[str]:
        """All files that are not hidden, relative to the root, in a fixed order; links are followed."""
        found: list[str] = []
        seen: set[tuple[int, int]] = set()
        start = len(os.path.join(self.root, ""))  # noqa: PTH118 - pathlib drops the slash at the end
        for folder, folders, names in os.walk(self.root, followlinks=True):
            about = os.stat(folder)  # noqa: PTH116 - pathlib takes ten times as long
            if (about.st_dev, about.st_ino) in seen:  # a link back to a folder already listed
                folders.clear()
                continue
            seen.add((about.st_dev, about.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = os.path.join(folder, "")[start:]  # noqa: PTH118
            found += [below + name for name in sorted(names) if not name.startswith(".")]
        return found

    @cached_property
    def media(self) -> list[str]:
        """Those of them that are media."""
        endings = tuple(self.suffixes)
        return [name for name in self.files if name.lower().endswith(endings)]

    @cached_property
    def by_stem(self) -> dict[str, str]:
        """Media by their names without folder and ending; of several with one name the first."""
        named: dict[str, str] = {}
        for name in self.media:
            named.setdefault(name.rpartition("/")[2].rpartition(".")[0], name)
        return named

    def path(self, name: str) -> Path:
        """The path of one of them."""
        return self.root / name


Row = Mapping[str, Any]


@dataclass(frozen=True)
class Reader:
    """How a published data set is read.

    Attributes:
        title: its name, which the column `source` gets; "": the folder's.
        looks_for: what its folder holds, for people.
        looks_like: whether a folder is one of it, by a look at a few names.
        read: its samples in order, as of an input list: `uri` relative to the folder, the columns `OWN`, and
            further ones whose names and meanings come with the table.
        licence: its terms as the column `licence` says them; "": each data set's own.
        columns: further columns that may come of it.
        kind: video, or any: what its media are.
    """

    title: str
    looks_for: str
    looks_like: Callable[[Path], bool]
    read: Callable[[Tree], pa.Table]
    licence: str
    columns: Mapping[str, Field]
    kind: str = "video"


def table_of(rows: Sequence[Row], columns: Mapping[str, Field]) -> pa.Table:
    """Rows as dicts as a table: the columns `OWN` that one of them has, and all further ones.

    Args:
        rows: absent values are null.
        columns: the further columns.
    """
    given = {name for row in rows for name in row} | {URI}
    fields = [pa.field(name, kind) for name, kind in OWN.items() if name in given]
    fields += [described(name, column) for name, column in columns.items()]
    rows = [_with_whole_crop(row) for row in rows] if given & set(CROP) else list(rows)
    if any(PROBLEM in row for row in rows) and PROBLEM not in given:
        fields.append(pa.field(PROBLEM, pa.string()))
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _with_whole_crop(row: Row) -> Row:
    """The row; with the error instead of the crop where that is no part of a picture."""
    crop = [row.get(name) for name in CROP]
    if all(side is None for side in crop):
        return row
    problem = crop_problem(*(math.nan if side is None else float(side) for side in crop))
    return row if problem is None else {**row, **dict.fromkeys(CROP), PROBLEM: problem}


def each_row(title: str, entries: Iterable[tuple[Any, Any]], row: Callable[[str, Any], Row]) -> list[Row]:
    """A row of each entry of a data set's list; of one that cannot be read a row with that error.

    Args:
        title: of the data set, for the error.
        entries: names, for the error, and entries.
        row: makes the row of a name and an entry.
    """
    rows = []
    for given, entry in entries:
        name = str(given)
        try:
            rows.append(row(name, entry))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            said = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read: {error}"
            rows.append({URI: name or "unnamed", PROBLEM: f"{title}'s entry of {name or 'a clip'} {said}"})
    return rows


def described(name: str, column: Field, kind: pa.DataType | None = None) -> pa.Field:
    """An Arrow field with unit and meaning."""
    about = {"unit": column.unit, "meaning": column.meaning, "from": "input list"}
    return pa.field(name, kind or ARROW_TYPES[column.type], metadata=about)


def names_in(folder: Path, most: int = 20_000) -> list[str]:
    """Names in a folder, sorted; of a large folder some. Nothing where it cannot be read."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.append(entry.name)
                if len(found) == most:
                    break
    except OSError:
        return []
    return sorted(found)


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones; nothing where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError:
        return []
    return [folder / name for name in names]


def find_file(root: Path, names: Sequence[str]) -> Path | None:
    """The first of these files that lies in a folder or in one of its folders."""
    for folder in [root, *folders_in(root)]:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None
