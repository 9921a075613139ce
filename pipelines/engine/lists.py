"""Reading an input list: CSV, TSV, JSON lines or Parquet as one table in which every value is as it was."""

from __future__ import annotations

import codecs
import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.schema import as_type, plain_type
from pipelines.engine.list_values import NUMBERS, ListError, as_number, numbers, shown_value, with_crops

# The separators that are looked for in the header of a list, the one that its ending promises first.
SEPARATORS = {".csv": ",;\t|", ".tsv": "\t,;|"}
LIST_SUFFIXES = frozenset({".parquet", ".csv", ".tsv", ".jsonl"})

URI = "uri"
# Columns of a list that fill columns of ours.
OWN = (URI, "source", *NUMBERS, "licence")

# How R, pandas, SQL and spreadsheets write that a value is missing; so read in our own columns alone.
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none"})
TRUE_AND_FALSE = ({"True", "False"}, {"true", "false"}, {"TRUE", "FALSE"})
ROWS_AT_ONCE = 10_000
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as the mark of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_list(
    file: Path, suffix: str, limit: int | None = None, key: str = URI
) -> tuple[pa.Table, dict[int, str]]:
    """The columns of a list, `uri` among them, and what is wrong with single rows.

    Args:
        file: a local file.
        suffix: what it is, one of `LIST_SUFFIXES`.
        limit: the first so many rows; None: all. Of a Parquet list the others are not read. All other lists
            are read to their ends, since the type of a column depends on all of its values.
        key: the column that names the media.

    Returns:
        Columns of plain types (`plain_type`), in the list's order. Of a CSV or TSV list a further column is
        boolean or numeric only where its text can be written anew from the values, and text otherwise; of
        all lists `NUMBERS` are float64, without NaN, and a row has all four numbers of a crop or none. And,
        by the number of the row from 1, what makes a row useless while all others can be read; the value
        that is wrong is null.

    Raises:
        ListError: it is broken, empty, or has no column `key`.
        OSError: it cannot be opened.
    """
    problems: dict[int, str] = {}
    if suffix == ".parquet":
        try:
            table = _read_parquet(file, limit)
        except pa.ArrowException as error:
            raise ListError(str(error)) from error
    elif suffix == ".jsonl":
        with _opened(file) as text:
            table = _read_json(text, problems)
    else:
        with _opened(file) as text:
            table = _read_separated(text, SEPARATORS[suffix], key)
    _check_names(table.column_names, key)
    if not table.num_rows:
        raise ListError("the list is empty")
    for place, field in enumerate(table.schema):
        if field.name in NUMBERS:
            column = numbers(field.name, table.column(place), problems)
        else:
            column = _plain(table.column(place), field.name)
            if field.name in OWN and not pa.types.is_string(column.type):
                column = _as_text(column, field.name)
        table = table.set_column(place, field.name, column)
    return with_crops(table, problems).slice(0, limit), problems


def _read_parquet(file: Path, limit: int | None) -> pa.Table:
    """All rows, or the first `limit`, and one at least to see that there is one."""
    if limit is None or file.is_dir():
        return pq.read_table(file, partitioning=None)  # folders named a=b above it are no columns
    wanted, batches = max(limit, 1), []
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(min(wanted, ROWS_AT_ONCE)):
            batches.append(batch)
            if sum(map(len, batches)) >= wanted:
                break
        return pa.Table.from_batches(batches, parquet.schema_arrow)


def _check_names(names: Sequence[str], key: str | None) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ListError(f"two columns have the name {twice[0]!r}; rename one")
    if key is not None and key not in names:
        raise ListError(_without(key, names))


def _without(key: str, names: Sequence[str]) -> str:
    return f"it has no column `{key}`, which names the media of each row; it has: {', '.join(names)}"


def _opened(file: Path) -> TextIO:
    """The file as text; line ends are as they are in it, since values may hold some."""
    with file.open("rb") as raw:
        start = raw.read(4)
    encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
    return file.open(encoding=encoding, newline="")


def _not_text(error: UnicodeError, line: int) -> ListError:
    encoding = getattr(error, "encoding", "utf-8").upper()
    return ListError(
        f"what follows line {line} is not {encoding} text; save the list as UTF-8, such as by "
        "`iconv -f latin1 -t utf-8`"
    )


def _read_separated(text: TextIO, separators: str, key: str) -> pa.Table:
    """A table of the records of a CSV or TSV file.

    Python's reader takes values and line breaks of any length, and names a quote that is never closed, which
    pyarrow's takes for the rest of the file.
    """
    names, separator, is_spaced = _header(text, separators, key)
    text.seek(0)
    records = _records(text, separator, is_spaced)
    next(records)
    kept: list[list[pa.Array]] = [[] for _ in names]
    while block := list(islice(_whole(records, len(names)), ROWS_AT_ONCE)):
        for chunks, values in zip(kept, zip(*block, strict=True), strict=True):
            chunks.append(pa.array(values, pa.string()))
    fields, columns = [], []
    for name, chunks in zip(names, kept, strict=True):
        column = _typed(pa.chunked_array(chunks, pa.string()), name)
        if name or column.null_count < len(column):  # spreadsheets write empty columns without a name
            fields.append(name)
            columns.append(column)
    return pa.table(columns, names=fields)


def _header(text: TextIO, separators: str, key: str) -> tuple[list[str], str, bool]:
    """The names of the columns, the separator, and whether blanks stand behind it.

    The separator is the one that gives the column `key`.

    Raises:
        ListError: none does, or two columns have one name.
    """
    found: dict[str, list[str]] = {}
    broken: list[ListError] = []
    for separator in separators:
        text.seek(0)
        try:
            _, record = next(_records(text, separator, is_spaced=True))
        except StopIteration:
            raise ListError("the list is empty") from None
        except ListError as error:  # quotes that stand beside another separator
            broken.append(error)
            continue
        found[separator] = names = [name.strip() for name in record]
        if key in names:
            break
    else:
        if not found:
            raise broken[0]
        separator = max(found, key=lambda s: len(found[s]))
        names = found[separator]
        if "\0" in "".join(names):
            raise ListError("it is no UTF-8 text; save the list as UTF-8")
        seen = f"separated by {separator!r}" if len(names) > 1 else "columns are separated by , ; | or a tab"
        raise ListError(f"{_without(key, names)} ({seen})")
    _check_names([name for name in names if name], None)
    text.seek(0)
    _, plain = next(_records(text, separator))
    return names, separator, any(name.startswith(" ") for name in plain[1:])


def _records(text: TextIO, separator: str, is_spaced: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Each record and the number of its last line; empty lines are none.

    Args:
        text: an opened file, at its start.
        separator: between values.
        is_spaced: leave out blanks behind separators.
    """
    csv.field_size_limit(2**31 - 1)  # of the whole process; Python's own is 128 KB
    reader = csv.reader(text, delimiter=separator, skipinitialspace=is_spaced, strict=True)
    width = rows = 0  # of the header; of what lies before this record, the header among it
    try:
        for record in reader:
            is_blank = not record or (len(record) == 1 != width and not record[0].strip())
            if not is_blank:
                width = width or len(record)
                yield reader.line_num, record
                rows += 1
    except csv.Error as error:
        where = f"row {rows} (line {reader.line_num})" if rows else "the header"
        is_open = "unexpected end" in str(error)
        raise ListError(
            f"{where}: {'a double quote is opened and not closed' if is_open else error}"
        ) from None
    except UnicodeError as error:
        raise _not_text(error, reader.line_num) from None


def _whole(records: Iterator[tuple[int, list[str]]], width: int) -> Iterator[list[str]]:
    """The records, all as wide as the header."""
    for number, (line, record) in enumerate(records, 1):
        if len(record) != width:
            raise ListError(
                f"row {number} (line {line}) has {len(record)} values, and the header {width}; a value "
                "that holds the separator or a line break stands in double quotes"
            )
        yield record


def _typed(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column of texts by what they say; nothing at all is missing."""
    if name not in OWN:
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        return column.cast(_type_of(column.unique().drop_null().to_pylist()))
    column = pc.utf8_trim_whitespace(column)
    missing = pa.array([""] if name == URI else sorted(MISSING), pa.string())
    is_missing = pc.is_in(pc.utf8_lower(column), value_set=missing)
    return pc.if_else(is_missing, pa.scalar(None, pa.string()), column)


def _type_of(values: Sequence[str]) -> pa.DataType:
    """The type whose values give back every text as it stands; text where none does.

    So 007, 1e5, +1, 2024-01-01, nan and numbers of more digits than a float64 holds stay text, and so do
    1.10 beside 1.9, since as numbers they would be 1.1 and 1.9.
    """
    if not values:
        return pa.string()
    if any(pair.issuperset(values) for pair in TRUE_AND_FALSE):
        return pa.bool_()
    if _gives_back(values, lambda text: str(int(text))):
        return pa.int64() if all(-(2**63) <= int(value) < 2**63 for value in values) else pa.string()
    decimals = len(values[0].partition(".")[2])
    ways: tuple[Callable[[str], str], ...] = (
        lambda text: repr(float(text)),
        lambda text: repr(float(text)).removesuffix(".0"),
        lambda text: f"{float(text):.{decimals}f}",
    )
    if any(_gives_back(values, way) for way in ways) and all(math.isfinite(float(v)) for v in values):
        return pa.float64()
    return pa.string()


def _gives_back(values: Sequence[str], way: Callable[[str], str]) -> bool:
    try:
        return all(way(value) == value for value in values)
    except ValueError:
        return False


def _read_json(text: TextIO, problems: dict[int, str]) -> pa.Table:
    """A table of a file with one JSON object a line; what is wrong with single rows is noted in `problems`.

    Python's reader leaves text and whole numbers as they are; pyarrow's makes dates of some texts, and
    rounds whole numbers beyond 64 bits.
    """
    columns: dict[str, list[Any]] = {}
    rows = 0
    line = 0
    try:
        for line, item in enumerate(text, 1):
            if not item.strip():
                continue
            try:
                given = _json_row(item, rows + 1)
            except ListError as error:
                problems[rows + 1] = f"row {rows + 1} (line {line}) {error}"
                given = {}
            for name in given:
                if name not in columns:
                    columns[name] = [None] * rows
            for name, values in columns.items():
                values.append(given.get(name))
            rows += 1
    except UnicodeError as error:
        raise _not_text(error, line) from None
    if not rows:
        raise ListError("the list is empty")
    if len(problems) == rows:
        raise ListError(problems[1])
    return pa.table({name: _array(columns.pop(name), name) for name in list(columns)})


def _json_row(line: str, number: int) -> dict[str, Any]:
    """The object in a line.

    Raises:
        ListError: there is none, or one of its values can be no row's.
    """
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ListError(f"is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise ListError("is no JSON object ({...}), which every line of a .jsonl list is")
    for name, value in given.items():
        if name in NUMBERS and value is not None:
            given[name] = as_number(value, name)
        if name == URI and not isinstance(value, str | None):
            raise ListError(f"has no text as {URI}: {shown_value(value)}")
        if "\\u" in line:
            try:
                json.dumps([name, value], ensure_ascii=False).encode()
            except UnicodeError:
                raise ListError(
                    f"has half a surrogate pair in {shown_value(name)}: {shown_value(value)}"
                ) from None
    return given


def _array(values: list[Any], name: str) -> pa.Array:
    """A column of values from JSON, of one type.

    Raises:
        ListError: they are of several, or cannot be stored; the first row that does not fit is named.
    """
    try:
        return pa.array(values)
    except OverflowError:
        if all(value is None or type(value) is int for value in values):  # ids: no digit is to be lost
            return pa.array([None if value is None else str(value) for value in values], pa.string())
        raise ListError(f"column {name} holds whole numbers beyond 64 bits; write them as text") from None
    except (pa.ArrowException, UnicodeError) as error:
        fits, fails = 0, len(values)
        while fails - fits > 1:
            middle = (fits + fails) // 2
            try:
                pa.array(values[:middle])
                fits = middle
            except (pa.ArrowException, UnicodeError, OverflowError):
                fails = middle
        raise ListError(f"row {fails}: {name} does not fit what is in the rows before: {error}") from None


def _plain(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The column in a type that a manifest carries.

    Raises:
        ListError: there is none.
    """
    kind = plain_type(column.type)
    try:
        pq.write_table(pa.schema([(name, kind)]).empty_table(), pa.BufferOutputStream())
        plain = as_type(column, kind)
        plain.validate(full=True)  # text that is no UTF-8 would fail when it is taken out
        return plain
    except pa.ArrowException as error:
        raise ListError(
            f"column {name} of type {column.type} cannot be kept, leave it out: {error}"
        ) from None


def _as_text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column of ours as text: some writers leave it as bytes, and names of data sets may be numbers."""
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise ListError(f"column {name} of type {column.type} is no text: {error}") from None
