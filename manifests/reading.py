"""Reading a manifest file by file, so that it need not fit into memory, as it is at one moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from manifests import storage, store
from manifests.journal import DamagedError

Result = TypeVar("Result")


def at_one_moment(manifest: Path, work: Callable[[Sequence[storage.Listed]], Result]) -> Result:
    """What `work` makes of a manifest's files; done again where one was replaced meanwhile, a few times.

    Raises:
        FileNotFoundError: there is no manifest here.
        DamagedError: one of its files cannot be read, or is not one of ours.
    """
    for is_last in [False] * (storage.READ_ATTEMPTS - 1) + [True]:
        files = store.listed(manifest)
        if not files:
            raise FileNotFoundError(f"no manifest in {manifest}")
        try:
            result = work(files)
        except (pa.ArrowException, OSError, DamagedError):
            if is_last or store.listed(manifest) == files:
                raise
            continue
        if is_last or store.listed(manifest) == files:
            break
    return result


def whole_schema(files: Sequence[storage.Listed]) -> pa.Schema:
    """All columns that any of a manifest's files has."""
    paths = [file.path for file in files]
    schemas = storage.each(store.read_schema, paths, any(storage.is_remote(path) for path in paths))
    return pa.unify_schemas(schemas)


def read_columns(file: storage.Listed, schema: pa.Schema) -> pa.Table:
    """The rows of one file with exactly these columns; those that the file does not have are null."""
    there = store.read_schema(file.path).names
    wanted = [name for name in schema.names if name in there]
    return store.conform(store.read_file(file.path, wanted if len(wanted) < len(there) else None), schema)
