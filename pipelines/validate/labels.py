"""Labels: what a person saw or heard in media, or what media were made to show."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.errors import UsageError
from configs.reading import nearest
from manifests import store

COLUMNS = ("media", "claim", "value", "start_s", "end_s", "x", "y", "tolerance", "source", "note")
NEEDED = ("media", "claim", "value")
NUMBERS = ("start_s", "end_s", "x", "y", "tolerance")


class LabelError(UsageError, ValueError):
    """A file of labels cannot be used; the message names the file, the line and the way out."""


@dataclass(frozen=True)
class Label:
    """One thing that is true of one file.

    Attributes:
        media: the file, relative to the folder of media; a sample's id where `is_sample`.
        claim: a column of the manifest, a reason of the screen, or one of `claims.SPECIAL`.
        value: the truth, as text: a word, a number, yes or no; several that are all right stand between bars.
        start_s, end_s: when, s on the file's clock; None: all the time.
        x, y: where, shares of the picture as stages see it (its crop); None: nowhere.
        tolerance: how far a right answer may lie away, in the claim's unit; None: the claim's own.
        source: what it shares its origin with, so that intervals do not count the same person twice.
        note: for people.
        where: file and line, for messages.
    """

    media: str
    claim: str
    value: str
    start_s: float | None = None
    end_s: float | None = None
    x: float | None = None
    y: float | None = None
    tolerance: float | None = None
    source: str = ""
    note: str = ""
    where: str = ""
    is_sample: bool = False

    @property
    def values(self) -> tuple[str, ...]:
        """All values that are right."""
        return tuple(part.strip() for part in self.value.split("|"))


def read_labels(path: Path) -> list[Label]:
    """Labels of a CSV file with a header, or the reviews of a run (`reviews.parquet`).

    Raises:
        LabelError: it cannot be read, has other columns, or a value is wrong.
    """
    try:
        if path.suffix == ".parquet":
            return list(_reviews(path))
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_header(path, list(reader.fieldnames or ()))
            return [_label(path, reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise LabelError(f"cannot read the labels in {path}: {error}") from None


def _check_header(path: Path, header: list[str]) -> None:
    for name in header:
        if header.count(name) > 1:
            raise LabelError(f"{path}: the column {name!r} is there twice")
        if name not in COLUMNS:
            raise LabelError(f"{path}: unknown column {name!r}{nearest(name, COLUMNS)}")
    for name in NEEDED:
        if name not in header:
            raise LabelError(f"{path}: there is no column {name!r}; it needs {', '.join(NEEDED)}")


def _label(path: Path, line: int, row: Mapping[str | None, Any]) -> Label:
    where = f"{path}, line {line}"
    if None in row or None in row.values():
        raise LabelError(f"{where}: it has another number of columns than the header")
    values: dict[str, Any] = {str(name): str(text).strip() for name, text in row.items()}
    for name in NEEDED:
        if not values[name]:
            raise LabelError(f"{where}: {name} is empty")
    for name in NUMBERS:
        if name in values:
            values[name] = _number(values[name], f"{where}: {name}")
    label = Label(**values, where=where)
    if not all(0 <= share <= 1 for share in (label.x, label.y) if share is not None):
        raise LabelError(f"{where}: x and y are shares of the picture, 0 to 1")
    if label.tolerance is not None and label.tolerance < 0:
        raise LabelError(f"{where}: tolerance is below 0")
    if (label.x is None) != (label.y is None):
        raise LabelError(f"{where}: x and y are given together or not at all")
    if None not in (label.start_s, label.end_s) and label.end_s <= label.start_s:  # type: ignore[operator]
        raise LabelError(f"{where}: end_s is not after start_s")
    return label


def _number(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise LabelError(f"{where}: {text!r} is no number")
    return number


def _reviews(path: Path) -> Iterator[Label]:
    """A review says of a sample whether to keep it: columns `sample_id` and `keep`."""
    table = store.read_file(path)
    for name in ("sample_id", "keep"):
        if name not in table.column_names:
            raise LabelError(f"{path}: there is no column {name!r}; reviews have sample_id and keep")
    for i, row in enumerate(table.select(["sample_id", "keep"]).to_pylist()):
        if not isinstance(row["sample_id"], str) or not isinstance(row["keep"], bool | None):
            raise LabelError(f"{path}, row {i}: sample_id is text, and keep true, false or null")
        if row["keep"] is not None:
            value = "yes" if row["keep"] else "no"
            yield Label(
                row["sample_id"],
                "keep",
                value,
                source=row["sample_id"],
                where=f"{path}, row {i}",
                is_sample=True,
            )
