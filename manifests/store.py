"""Reading and writing a manifest so that it is right at every moment.

Finished samples are committed as small part files under `manifest/_parts/` (readers ignore names
that begin with `_`): written under a temporary name, then renamed. `merge` folds parts into the
manifest's files. A row never moves from one file to another and each file is replaced by one
rename, so a reader sees every row once, and a merge that is killed can simply be done again.
In an object store one PUT stands for the rename (`manifests/storage.py`).

Every reader here gives what an earlier version wrote as this version writes it; `prepare` rewrites the files.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from configs.errors import UserError
from manifests import storage
from manifests.schema import as_type, is_outdated, plain_type, to_rows, upgraded

ROWS_PER_FILE = 50_000
PARTS = "_parts"
_NUMBERED = re.compile(r"manifest-(\d+)\.parquet")


class ColumnError(UserError, ValueError):
    """A column cannot take the type that this run gives it; the message says which and why."""


def write_table(
    path: Path, table: pa.Table, row_group_size: int | None = None, mode: int | None = None
) -> None:
    """Replace a Parquet file in one step; `mode`: of a local file, as chmod takes it."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=row_group_size)
    storage.write_bytes(path, sink.getvalue().to_pybytes(), mode=mode)


def read_file(path: Path, columns: list[str] | None = None) -> pa.Table:
    """One Parquet file; all of its columns come in one request where it is remote.

    Raises:
        FileNotFoundError: there is none.
    """
    fs, inside = storage.filesystem(path)
    if fs is None:
        return upgraded(pq.read_table(path, columns=columns))
    if columns is None:
        return upgraded(pq.read_table(pa.BufferReader(storage.read_bytes(path))))
    return upgraded(storage.steady(lambda: pq.read_table(inside, columns=columns, filesystem=fs)))


def read_schema(path: Path) -> pa.Schema:
    """The columns that `read_file` gives of one Parquet file.

    Raises:
        FileNotFoundError: there is none.
    """
    return upgraded(stored_schema(path).empty_table()).schema


def stored_schema(path: Path) -> pa.Schema:
    """The columns of one Parquet file as they are in it.

    Raises:
        FileNotFoundError: there is none.
    """
    fs, inside = storage.filesystem(path)
    return storage.steady(lambda: pq.read_schema(inside, filesystem=fs))


def manifest_files(manifest: Path) -> list[Path]:
    """The manifest's own files, in order."""
    return [p for p in storage.files(manifest, ".parquet") if not p.name.startswith(("_", "."))]


def part_files(manifest: Path) -> list[Path]:
    """Committed parts that are not merged yet, oldest first."""
    return [p for p in storage.files(manifest / PARTS, ".parquet") if not p.name.startswith("_")]


def commit(manifest: Path, table: pa.Table, run_id: str = "") -> str:
    """Commit finished rows as one part; returns its name. After this the rows survive any crash."""
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}-{run_id}.parquet"
    write_table(manifest / PARTS / name, table)
    return name


def read(manifest: Path, columns: list[str] | None = None) -> pa.Table:
    """The merged rows (what pandas shows), as one table.

    Raises:
        FileNotFoundError: there is no manifest here.
    """

    def tables() -> list[pa.Table]:
        return [upgraded(dataset.to_table(columns=columns)) for dataset in _datasets(manifest)]

    return pa.concat_tables(storage.steady(tables))


def column_names(manifest: Path) -> list[str]:
    """The columns that the manifest has.

    Raises:
        FileNotFoundError: there is no manifest here.
    """
    return list(_datasets(manifest)[0].schema.names)


def take(manifest: Path, positions: list[int]) -> pa.Table:
    """Whole rows by their position in `read`, without loading the others.

    Raises:
        FileNotFoundError: there is no manifest here.
    """

    def rows() -> pa.Table:
        datasets, indices = _datasets(manifest), pa.array(positions, pa.int64())
        if len(datasets) == 1:
            return upgraded(datasets[0].take(indices))
        return read(manifest).take(indices)

    return storage.steady(rows)


def _datasets(manifest: Path) -> list[ds.Dataset]:
    """The manifest's files in order, with all columns that any of them has.

    One data set; more while some of the files are as an earlier version wrote them, and others not.
    """
    files = manifest_files(manifest)
    if not files:
        raise FileNotFoundError(f"no manifest in {manifest}")
    fs, _ = storage.filesystem(manifest)
    stored = storage.each(stored_schema, files, storage.is_remote(manifest))
    whole = pa.unify_schemas([upgraded(schema.empty_table()).schema for schema in stored])
    datasets = []
    for outdated, group in groupby(zip(files, stored, strict=True), lambda pair: is_outdated(pair[1])):
        pairs = list(group)
        schema = whole
        if outdated:
            index = whole.get_field_index("stopped")
            schema = whole.set(index, pairs[0][1].field("stopped"))
        paths = [storage.filesystem(file)[1] for file, _ in pairs]
        datasets.append(ds.dataset(paths, schema=schema, format="parquet", filesystem=fs))
    return datasets


def _newest_parts(parts: list[Path], schema: pa.Schema) -> pa.Table:
    """All rows of the parts, the newest for each sample."""
    tables = storage.each(read_file, parts, storage.is_remote(parts[0]))
    table = pa.concat_tables([conform(table, schema) for table in tables])
    ids = np.asarray(table.column("sample_id").to_pylist(), dtype=object)
    _, last = np.unique(ids[::-1], return_index=True)
    return table.take(np.sort(len(ids) - 1 - last))


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


def with_values(table: pa.Table, name: str, values: Sequence[Any] | npt.NDArray[Any]) -> pa.Table:
    """The table with other values in a column that it has; type and metadata stay."""
    index = table.schema.get_field_index(name)
    field = table.schema.field(index)
    return table.set_column(index, field, pa.array(values, field.type))


def prepare(manifest: Path, schema: pa.Schema, stages: Collection[str] | None = None) -> pa.Schema:
    """Make the manifest readable from the first moment and give every file the same columns.

    Columns that an earlier run took from another input list are kept. Columns of a stage that is gone are
    dropped, and with them its entry in `stages`: should it come back, it is computed again.

    Args:
        manifest: the manifest's folder.
        schema: the columns of this run.
        stages: the stages of this run; None: all that the rows name.

    Returns:
        The schema that the files have now.
    """
    storage.make_folder(manifest / PARTS)
    for folder in (manifest, manifest / PARTS):
        storage.remove(p for p in storage.files(folder, storage.PARTIAL) if p.name.startswith("_"))
    files = manifest_files(manifest)
    schema = merged_schema(manifest, schema)
    if not files:
        write_table(_numbered(manifest, 0), schema.empty_table())
    stored = _as_stored(schema)
    for file in files:
        if not stored_schema(file).equals(stored, check_metadata=True):
            table = conform(read_file(file), schema)
            write_table(file, table if stages is None else _only_stages(table, stages))
    return schema


def _as_stored(schema: pa.Schema) -> pa.Schema:
    """The schema as it comes back from a file: Parquet renames the fields inside lists and maps."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    return pq.read_schema(pa.BufferReader(sink.getvalue()))


def _only_stages(table: pa.Table, names: Collection[str]) -> pa.Table:
    kept = [[(n, fp) for n, fp in row or () if n in names] for row in table["stages"].to_pylist()]
    return with_values(table, "stages", kept)


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
    """The ids in one Parquet file."""
    ids: list[str] = read_file(file, ["sample_id"])["sample_id"].to_pylist()
    return ids


def num_rows(part: Path) -> int:
    """Rows of one Parquet file; 0 if a merge has just deleted it."""
    fs, inside = storage.filesystem(part)
    try:
        return int(pq.read_metadata(inside, filesystem=fs).num_rows)
    except FileNotFoundError:
        return 0


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
        on_replaced: called with the old `sample_id`, `media_uri` and `stages` of each replaced or removed
            row and the new ones (None when removed).
        run_id: parts of other runs are thrown away: a worker that outlived its killed run for a moment must
            not overwrite what was planned since.

    Returns:
        The number of rows that were merged.
    """
    parts = part_files(manifest)
    if run_id is not None:
        storage.remove(part for part in parts if not part.stem.endswith(f"-{run_id}"))
        parts = [part for part in parts if part.stem.endswith(f"-{run_id}")]
    if not parts and not remove:
        return 0
    fresh = _newest_parts(parts, schema) if parts else schema.empty_table()
    gone = pa.array(sorted(remove), pa.string())
    if len(gone):
        fresh = fresh.filter(pc.invert(pc.is_in(fresh["sample_id"], value_set=gone)))
    waiting = fresh
    sizes: dict[Path, int] = {}
    for file in manifest_files(manifest):
        ids = read_file(file, ["sample_id"])["sample_id"]
        sizes[file] = len(ids)
        here = pc.is_in(waiting["sample_id"], value_set=ids.combine_chunks())
        mine = waiting.filter(here)
        waiting = waiting.filter(pc.invert(here))
        replaced = pc.is_in(ids, value_set=pa.concat_arrays([mine["sample_id"].combine_chunks(), gone]))
        if not pc.any(replaced).as_py():
            continue
        old = conform(read_file(file), schema)
        write_table(file, _sorted(pa.concat_tables([old.filter(pc.invert(replaced)), mine])))
        sizes[file] -= pc.sum(replaced).as_py() - mine.num_rows
        if on_replaced:
            _tell(on_replaced, old.filter(replaced), mine)
    _append(manifest, waiting, sizes)
    storage.remove(parts)
    return fresh.num_rows


def _append(manifest: Path, rows: pa.Table, sizes: dict[Path, int]) -> None:
    """Put new rows into the last file while it has room, then into further files.

    A new file's number is one more than the highest: files in between may be missing, and others may lie
    beside ours.
    """
    while rows.num_rows:
        last = max(sizes, key=_number)
        if sizes[last] >= ROWS_PER_FILE or _number(last) < 0:
            last = _numbered(manifest, _number(last) + 1)
            sizes[last] = 0
        room = ROWS_PER_FILE - sizes[last]
        old = [conform(read_file(last), rows.schema)] if sizes[last] else []
        write_table(last, _sorted(pa.concat_tables([*old, rows.slice(0, room)])))
        sizes[last] += min(room, rows.num_rows)
        rows = rows.slice(room)


def _numbered(manifest: Path, number: int) -> Path:
    return manifest / f"manifest-{number:05d}.parquet"


def _number(file: Path) -> int:
    """The number in the name of one of our files; -1 for any other."""
    match = _NUMBERED.fullmatch(file.name)
    return int(match[1]) if match else -1


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by("sample_id")


def _tell(
    on_replaced: Callable[[dict[str, Any], dict[str, Any] | None], None], old: pa.Table, new: pa.Table
) -> None:
    names = ["sample_id", "media_uri", "stages"]
    after = {row["sample_id"]: row for row in to_rows(new.select(names))}
    for row in to_rows(old.select(names)):
        on_replaced(row, after.get(row["sample_id"]))
