"""Reading and writing a manifest so that it is right at every moment.

Finished samples are committed as small part files under `manifest/_parts/` (readers ignore names
that begin with `_`): written under a temporary name, then renamed. A part is an Arrow file, which is
written and read ten times as fast as one of Parquet where it holds a few rows. `merge` folds parts into the
manifest's files. A row never moves from one file to another and each file is replaced by one
rename, so a reader sees every row once, and a merge that is killed can simply be done again.
In an object store one PUT stands for the rename (`manifests/storage.py`); where the store can, it refuses
a file that another writer has replaced since it was read. Several files change together by a journal
(`manifests/journal.py`).

Every reader here gives what an earlier version wrote as this version writes it, parts that are Parquet
among it; `prepare` rewrites the files.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.errors import UserError
from manifests import journal, storage
from manifests.journal import DamagedError, run_of
from manifests.schema import (
    as_type,
    plain_type,
    stage_array,
    stage_dicts,
    to_rows,
    upgraded,
    without_stale_arrays,
)

ROWS_PER_FILE = 50_000
PARTS, PART_SUFFIX = "_parts", ".arrow"
# Rows that are merged at once, which bounds the memory that it takes.
MERGE_ROWS, READ_TOGETHER = 200_000, 256
PACK_NAMES = "arrays.list.element.file"  # as Parquet calls the field of the column
NUMBERED = re.compile(r"manifest-(\d+)\.parquet")

Result = TypeVar("Result")


class ColumnError(UserError, ValueError):
    """A column cannot take the type that this run gives it; the message says which and why."""


def to_bytes(table: pa.Table, row_group_size: int | None = None) -> bytes:
    """A table as a Parquet file."""
    sink = pa.BufferOutputStream()
    # Numbers with a fraction hardly repeat: a dictionary of them triples the time and saves nothing.
    repeating = [name for field in table.schema for name in _repeating(field.name, field.type)]
    pq.write_table(table, sink, row_group_size=row_group_size, use_dictionary=repeating)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _repeating(path: str, kind: pa.DataType) -> list[str]:
    """The columns that Parquet makes of one of a type, those of fractions left out."""
    if pa.types.is_map(kind):
        inner = {"key_value.key": kind.key_type, "key_value.value": kind.item_type}
    elif pa.types.is_struct(kind):
        inner = {field.name: field.type for field in kind}
    elif pa.types.is_nested(kind):
        inner = {"list.element": kind.value_type}
    else:
        return [] if pa.types.is_floating(kind) else [path]
    return [name for below, of in inner.items() for name in _repeating(f"{path}.{below}", of)]


def write_table(
    path: Path,
    table: pa.Table,
    row_group_size: int | None = None,
    replaces: str | None = None,
) -> None:
    """Replace a Parquet file, or a part, in one step.

    Args:
        path: where to.
        table: its rows.
        row_group_size: rows that are read together.
        replaces: the version it must still have (`storage.put`).

    Raises:
        ReplacedError: it has another one.
    """
    data = file_bytes(path, table, row_group_size)
    storage.write_bytes(path, data, replaces=replaces)


def file_bytes(path: Path, table: pa.Table, row_group_size: int | None = None) -> bytes:
    """What `write_table` writes there."""
    if path.suffix != PART_SUFFIX:
        return to_bytes(table, row_group_size)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def read_file(path: Path, columns: list[str] | None = None) -> pa.Table:
    """One Parquet file, or a part; all of its columns come in one request where it is remote.

    Args:
        path: of the file.
        columns: their names, those that it lacks are left out; `name.field` is a field of a struct. None:
            all.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it cannot be read.
    """
    fs, inside = storage.filesystem(path)
    with _named(path):
        if path.suffix == PART_SUFFIX:
            table = upgraded(_opened(path).read_all())
            return table if columns is None else table.select([n for n in columns if n in table.column_names])
        if fs is not None and columns is None:
            return upgraded(pq.ParquetFile(pa.BufferReader(storage.read_bytes(path))).read())
        return upgraded(storage.steady(lambda: _columns_of(inside, fs, columns)))


def _columns_of(inside: str, fs: Any, columns: list[str] | None) -> pa.Table:
    # Not `read_table`: it takes folders named a=b above the file for columns.
    with pq.ParquetFile(inside, filesystem=fs, pre_buffer=fs is not None) as file:
        return file.read(columns=columns)


def _opened(part: Path) -> pa.RecordBatchFileReader:
    return pa.ipc.open_file(pa.py_buffer(storage.read_bytes(part)))


def read_schema(path: Path) -> pa.Schema:
    """The columns that `read_file` gives of one file of a manifest.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it cannot be read, or holds no samples.
    """
    return upgraded(stored_schema(path).empty_table()).schema


def stored_schema(path: Path) -> pa.Schema:
    """The columns of one file of a manifest as they are in it.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it cannot be read, or holds no samples.
    """
    fs, inside = storage.filesystem(path)
    with _named(path):
        if path.suffix == PART_SUFFIX:
            schema = _opened(path).schema
        else:
            schema = storage.steady(lambda: pq.read_schema(inside, filesystem=fs))
    if "sample_id" not in schema.names:
        raise DamagedError(f"{path} has no column sample_id: it is not one of ours; {_way_out(path)}")
    return schema


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in what pyarrow says of it."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if not is_damage(error):
            raise
        reason = str(error).partition("\n")[0]
        raise DamagedError(f"{path} cannot be read ({reason}); {_way_out(path)}") from error


def is_damage(error: BaseException) -> bool:
    """Whether pyarrow says by this error that a file is no Parquet, or a broken one."""
    if isinstance(error, OSError):  # one of the system or of a store's client has a number or a class
        return type(error) is OSError and error.errno is None
    return isinstance(error, pa.ArrowException) and not isinstance(error, MemoryError)


def _way_out(path: Path) -> str:
    folder = path.parent
    if folder.name == PARTS:
        folder = folder.parent
    elif not NUMBERED.fullmatch(path.name):
        return "move it away, or give another one"
    elif journal.FOLDER in folder.parts:
        folder = folder.parent.parent
    return f"`interavatar repair {run_of(folder)}` moves it away and says what to do then"


def manifest_files(manifest: Path) -> list[Path]:
    """The manifest's files in order, where they are read now; none without a manifest.

    Raises:
        DamagedError: another Parquet file lies among them, or the journal is damaged.
    """
    return [entry.path for entry in listed(manifest)]


def listed(manifest: Path) -> list[storage.Listed]:
    """The same files, each with its version and time."""
    found = {}
    for entry in storage.listed(manifest, ".parquet"):
        if is_ours(entry.path):
            found[entry.path.name] = entry
        elif not entry.path.name.startswith(("_", ".")):
            raise DamagedError(
                f"{entry.path} is not one of the manifest's own files; move it away, or let "
                f"`interavatar repair {run_of(manifest)}` do so"
            )
    # After the files: a change that ends in between has put its own into their places.
    if names := journal.pending(manifest):
        for entry in storage.listed(manifest / journal.FOLDER / manifest.name, ".parquet"):
            if f"{manifest.name}/{entry.path.name}" in names:
                found[entry.path.name] = entry
    return [found[name] for name in sorted(found)]


def is_ours(file: Path) -> bool:
    """Whether a file's name is that of one of a manifest's files."""
    return NUMBERED.fullmatch(file.name) is not None


def exists(manifest: Path) -> bool:
    """Whether a folder holds a manifest."""
    return any(is_ours(path) for path in storage.files(manifest, ".parquet"))


def part_files(manifest: Path) -> list[Path]:
    """Committed parts that are not merged yet, oldest first."""
    files = storage.files(manifest / PARTS)
    return [p for p in files if p.suffix in (PART_SUFFIX, ".parquet") and not p.name.startswith("_")]


def commit(manifest: Path, table: pa.Table, run_id: str = "") -> str:
    """Commit finished rows as one part; returns its name. After this the rows survive any crash."""
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}-{run_id}{PART_SUFFIX}"
    write_table(manifest / PARTS / name, table)
    return name


def read(manifest: Path, columns: list[str] | None = None) -> pa.Table:
    """The merged rows (what pandas shows), as one table.

    Raises:
        FileNotFoundError: there is no manifest here.
        DamagedError: one of its files cannot be read, or is not one of ours.
        KeyError: no file has one of the columns.
    """

    def whole(files: Sequence[storage.Listed]) -> pa.Table:
        paths = [file.path for file in files]
        tables = storage.each(lambda path: read_file(path, columns), paths, storage.is_remote(manifest))
        for path, table in zip(paths, tables, strict=True):
            if not set(columns or ["sample_id"]) <= set(table.column_names):
                read_schema(path)  # names one that is not ours
        schema = pa.unify_schemas([table.schema for table in tables])
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns], schema.metadata)
        return pa.concat_tables([conform(table, schema) for table in tables])

    return at_one_moment(manifest, whole)


def column_names(manifest: Path) -> list[str]:
    """The columns that the manifest has.

    Raises:
        FileNotFoundError, DamagedError: as `read`.
    """
    return list(at_one_moment(manifest, lambda files: whole_schema(files).names))


def at_one_moment(manifest: Path, work: Callable[[Sequence[storage.Listed]], Result]) -> Result:
    """What `work` makes of a manifest's files; done again where one was replaced meanwhile, a few times.

    Raises:
        FileNotFoundError: there is no manifest here.
        DamagedError: one of its files cannot be read, or is not one of ours.
    """
    for is_last in [False] * (storage.READ_ATTEMPTS - 1) + [True]:
        files = listed(manifest)
        if not files:
            raise FileNotFoundError(f"no manifest in {manifest}")
        try:
            result = work(files)
        except (pa.ArrowException, OSError, DamagedError):
            if is_last or listed(manifest) == files:
                raise
            continue
        if is_last or listed(manifest) == files:
            break
    return result


def whole_schema(files: Sequence[storage.Listed]) -> pa.Schema:
    """All columns that any of a manifest's files has."""
    paths = [file.path for file in files]
    schemas = storage.each(read_schema, paths, any(storage.is_remote(path) for path in paths))
    return pa.unify_schemas(schemas)


def read_columns(file: storage.Listed, schema: pa.Schema) -> pa.Table:
    """The rows of one file with exactly these columns; those that the file does not have are null."""
    return conform(read_file(file.path, schema.names), schema)


def _newest(table: pa.Table) -> pa.Table:
    """The rows, of several of one sample the last one."""
    numbers = table["sample_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    last = np.zeros(len(set(numbers.tolist())), int)
    last[numbers] = np.arange(len(numbers))
    return table.take(np.sort(last))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns of `schema`, missing ones null.

    What an earlier version of the schema wrote becomes what this one writes. A column of another type is
    cast, and refused with its name where it cannot, or not without a loss.

    Raises:
        ColumnError: a column cannot be of the type that the schema gives it.
    """
    table = upgraded(table)
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        before = table.column(field.name)
        if before.type == field.type:
            columns.append(before)
            continue
        try:
            after = as_type(before, field.type)
        except pa.ArrowException as error:
            raise ColumnError(f"column {field.name} cannot become {field.type}: {error}") from error
        if _is_text(before.type) and _is_number(field.type) and not after.cast(before.type).equals(before):
            raise ColumnError(
                f"column {field.name} cannot become {field.type}: it holds texts such as 007, which "
                "would change; give the column of the input list another name, or take another output folder"
            )
        columns.append(after)
    return pa.table(columns, schema=schema)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def with_values(table: pa.Table, name: str, values: Sequence[Any] | npt.NDArray[Any] | pa.Array) -> pa.Table:
    """The table with other values in a column that it has; type and metadata stay."""
    index = table.schema.get_field_index(name)
    field = table.schema.field(index)
    return table.set_column(index, field, pa.array(values, field.type))


def prepare(manifest: Path, schema: pa.Schema, stages: Collection[str] | None = None) -> pa.Schema:
    """Make the manifest readable from the first moment and give every file the same columns.

    A change of several files that was cut short is ended. Columns that an earlier run took from another
    input list are kept. Columns of a stage that is gone are dropped, and with them its entry in `stages`:
    should it come back, it is computed again.

    Args:
        manifest: the manifest's folder.
        schema: the columns of this run.
        stages: the stages of this run; None: all that the rows name.

    Returns:
        The schema that the files have now.

    Raises:
        DamagedError: a file cannot be read, or is not one of ours.
        ReplacedError: another writer has replaced a file meanwhile.
    """
    journal.complete(manifest)
    storage.make_folder(manifest / PARTS)
    storage.remove(half_written(manifest))
    files = listed(manifest)
    schema = merged_schema(manifest, schema)
    if not files:
        write_table(_numbered(manifest, 0), schema.empty_table(), replaces=storage.ABSENT)
    stored = _as_stored(schema)
    for entry in files:
        if not stored_schema(entry.path).equals(stored, check_metadata=True):
            table = conform(read_file(entry.path), schema)
            if stages is not None:  # a stage that is gone, and comes back, is due again
                table = with_values(_only_stages(table, stages), "program", [None] * table.num_rows)
            write_table(entry.path, table, replaces=entry.version)
    return schema


def half_written(manifest: Path) -> list[Path]:
    """What killed writers left in a manifest's folder."""
    return [
        path
        for folder in (manifest, manifest / PARTS)
        for path in storage.files(folder, storage.PARTIAL)
        if path.name.startswith("_")
    ]


def _as_stored(schema: pa.Schema) -> pa.Schema:
    """The schema as it comes back from a file: Parquet renames the fields inside lists and maps."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    return pq.read_schema(pa.BufferReader(sink.getvalue()))


def _only_stages(table: pa.Table, names: Collection[str]) -> pa.Table:
    rows = stage_dicts(table["stages"])
    kept = [{name: done for name, done in row.items() if name in names} for row in rows]
    return without_stale_arrays(with_values(table, "stages", stage_array(kept)))


def merged_schema(manifest: Path, schema: pa.Schema) -> pa.Schema:
    """`schema` and, after it, columns that earlier runs took from other input lists."""
    known = set(schema.names)
    for file in manifest_files(manifest):
        for field in read_schema(file):
            if field.name not in known and (field.metadata or {}).get(b"from") == b"input list":
                known.add(field.name)
                schema = schema.insert(len(schema), field.with_type(plain_type(field.type)))
    return schema


def sample_ids(file: Path) -> list[str]:
    """The ids in one file of a manifest, or in one part."""
    ids: list[str] = read_file(file, ["sample_id"])["sample_id"].to_pylist()
    return ids


def used_packs(manifest: Path) -> set[str]:
    """The packs that rows refer to (`manifests/packs.py`), as `arrays` names them; rows of parts count, too.

    Only that one field is read, and of it each name once.

    Raises:
        DamagedError: a file cannot be read, or is not one of ours.
    """
    files = [*manifest_files(manifest), *part_files(manifest)]
    return set[str]().union(*storage.each(_packs_of, files, storage.is_remote(manifest)))


def _packs_of(file: Path) -> set[str]:
    if file.suffix == PART_SUFFIX:
        table = read_file(file, ["arrays"])
    elif "arrays" in stored_schema(file).names:
        fs, inside = storage.filesystem(file)
        with _named(file), pq.ParquetFile(inside, filesystem=fs, read_dictionary=[PACK_NAMES]) as opened:
            table = opened.read(columns=[PACK_NAMES])
    else:
        return set()
    chunks = table["arrays"].chunks if "arrays" in table.column_names else []
    return {name for chunk in chunks for name in chunk.flatten().field("file").unique().to_pylist()}


def num_rows(part: Path) -> int:
    """Rows of a file of the manifest, or of a part; 0 if a merge has just deleted it."""
    fs, inside = storage.filesystem(part)
    with suppress(FileNotFoundError), _named(part):
        if part.suffix == PART_SUFFIX:
            file = _opened(part)
            return sum(file.get_batch(i).num_rows for i in range(file.num_record_batches))
        return int(pq.read_metadata(inside, filesystem=fs).num_rows)
    return 0


def count(manifest: Path) -> int:
    """Rows of the merged manifest."""
    return sum(storage.each(num_rows, manifest_files(manifest), storage.is_remote(manifest)))


def waiting_rows(manifest: Path) -> int:
    """Rows that are committed and not merged yet."""
    return sum(storage.each(num_rows, part_files(manifest), storage.is_remote(manifest)))


def merge(
    manifest: Path,
    schema: pa.Schema,
    remove: Collection[str] = (),
    on_replaced: Callable[[dict[str, Any], dict[str, Any] | None], None] | None = None,
    run_id: str | None = None,
) -> int:
    """Fold committed parts into the manifest's files and delete them; doing it twice changes nothing.

    Args:
        manifest: the manifest's folder, already prepared.
        schema: the columns of every file.
        remove: ids of rows that have been superseded (clips of a video that was cut anew).
        on_replaced: called with the old `sample_id`, `media_uri`, `stages` and `arrays` of each replaced or
            removed row and the new ones (None when removed).
        run_id: parts of other runs are thrown away: a worker that outlived its killed run for a moment must
            not overwrite what was planned since.

    Returns:
        The number of rows that were merged.

    Raises:
        DamagedError: a part or a file cannot be read, or is not one of ours.
        ReplacedError: another writer has replaced a file since it was read; what it wrote stays.
    """
    if journal.pending(manifest):
        journal.complete(manifest)
    parts = part_files(manifest)
    if run_id is not None:
        storage.remove(part for part in parts if not part.stem.endswith(f"-{run_id}"))
        parts = [part for part in parts if part.stem.endswith(f"-{run_id}")]
    merged = 0
    for some, rows in _in_turn(parts, schema):
        fresh = _newest(rows)
        merged += fresh.num_rows
        _fold(manifest, schema, fresh, (), on_replaced)
        storage.remove(some)
    if remove:
        _fold(manifest, schema, schema.empty_table(), remove, on_replaced)
    return merged


def _in_turn(parts: list[Path], schema: pa.Schema) -> Iterator[tuple[list[Path], pa.Table]]:
    """The parts in their order and the rows in them, about `MERGE_ROWS` at a time."""
    some: list[Path] = []
    tables: list[pa.Table] = []
    for start in range(0, len(parts), READ_TOGETHER):
        these = parts[start : start + READ_TOGETHER]
        some += these
        tables.append(_together(storage.each(read_file, these, storage.is_remote(parts[0])), schema))
        if sum(table.num_rows for table in tables) >= MERGE_ROWS:
            yield some, pa.concat_tables(tables)
            some, tables = [], []
    if some:
        yield some, pa.concat_tables(tables)


def _together(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    """The rows of many small tables, nearly always of one schema, in one piece: each piece costs time."""
    alike: list[list[pa.Table]] = []
    for table in tables:
        if not alike or not table.schema.equals(alike[-1][0].schema):
            alike.append([])
        alike[-1].append(table)
    return pa.concat_tables([conform(pa.concat_tables(some).combine_chunks(), schema) for some in alike])


def _fold(
    manifest: Path,
    schema: pa.Schema,
    fresh: pa.Table,
    remove: Collection[str],
    on_replaced: Callable[[dict[str, Any], dict[str, Any] | None], None] | None,
) -> None:
    """Put these rows, each of another sample, into the manifest's files; see `merge`."""
    files = listed(manifest)
    if not files:
        raise FileNotFoundError(f"no manifest in {manifest}: was it deleted? Run the same command again")
    gone = pa.array(sorted(remove), pa.string())
    waiting = fresh
    for entry in files:
        ids = read_file(entry.path, ["sample_id"])["sample_id"]
        here = pc.is_in(waiting["sample_id"], value_set=ids)
        mine = waiting.filter(here)
        waiting = waiting.filter(pc.invert(here))
        replaced = pc.is_in(ids, value_set=pa.chunked_array([*mine["sample_id"].chunks, gone], pa.string()))
        left = len(ids) - (pc.sum(replaced).as_py() or 0) + mine.num_rows
        # Rows that no file has yet fill the last one while it has room.
        room = max(0, ROWS_PER_FILE - left) if entry is files[-1] else 0
        added, waiting = waiting.slice(0, room), waiting.slice(room)
        if not pc.any(replaced).as_py() and not added.num_rows:
            continue
        old = conform(read_file(entry.path), schema)
        rows = pa.concat_tables([old.filter(pc.invert(replaced)), mine, added])
        write_table(entry.path, rows.sort_by("sample_id"), replaces=entry.version)
        if on_replaced:
            _tell(on_replaced, old.filter(replaced), mine)
    # A new file's number is one more than the highest: files in between may be missing.
    number = max(_number(entry.path) for entry in files)
    while waiting.num_rows:
        number += 1
        rows = waiting.slice(0, ROWS_PER_FILE)
        write_table(_numbered(manifest, number), rows.sort_by("sample_id"), replaces=storage.ABSENT)
        waiting = waiting.slice(ROWS_PER_FILE)


def _numbered(manifest: Path, number: int) -> Path:
    return manifest / f"manifest-{number:05d}.parquet"


def _number(file: Path) -> int:
    match = NUMBERED.fullmatch(file.name)
    assert match is not None  # as `listed` has made sure
    return int(match[1])


def _tell(
    on_replaced: Callable[[dict[str, Any], dict[str, Any] | None], None], old: pa.Table, new: pa.Table
) -> None:
    names = [name for name in ("sample_id", "media_uri", "stages", "arrays") if name in old.column_names]
    after = {row["sample_id"]: row for row in to_rows(new.select(names))}
    for row in to_rows(old.select(names)):
        on_replaced(row, after.get(row["sample_id"]))
