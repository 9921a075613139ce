"""How verdicts have changed: a screening that changes some leaves the changed samples in a file of its own.

The files are `verdicts/0001.parquet`, `verdicts/0002.parquet`, ... in the run's folder. They are only ever
added, each in the same step as the verdicts that it tells of (`manifests/journal.py`).
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import journal, storage, store
from manifests.journal import DamagedError

HISTORY = "verdicts"

# A verdict before and after, as `rescreen` tells it.
CHANGED = pa.schema(
    [
        ("sample_id", pa.string()),
        ("keep_before", pa.bool_()),
        ("keep", pa.bool_()),
        ("reasons_before", pa.list_(pa.string())),
        ("reasons", pa.list_(pa.string())),
    ]
)
SCHEMA = pa.schema(
    [CHANGED.field(0), ("at", pa.timestamp("us", "UTC")), ("screen", pa.string()), *list(CHANGED)[1:]]
)


def history_files(folder: Path, screen: str, changed: pa.Table) -> dict[Path, bytes]:
    """The file to write for verdicts that a screen changes; none where it changes none.

    Args:
        folder: of the run.
        screen: its name.
        changed: rows of `CHANGED`.
    """
    if not changed.num_rows:
        return {}
    when, names = (pa.repeat(pa.scalar(v), changed.num_rows) for v in (datetime.now(UTC), screen))
    columns = {name: changed[name] for name in CHANGED.names} | {"at": when, "screen": names}
    table = pa.table({name: columns[name] for name in SCHEMA.names}).cast(SCHEMA)
    return {storage.next_numbered(folder / HISTORY, ".parquet"): store.to_bytes(table)}


def read_history(folder: Path) -> pa.Table:
    """All changes of verdicts in a run's folder, the oldest first; columns as `SCHEMA`.

    Raises:
        DamagedError: a file cannot be read, or the journal is damaged.
    """
    tables = [SCHEMA.empty_table()]
    names = {file.name for file in storage.files(folder / HISTORY, ".parquet")}
    waiting = (PurePosixPath(name) for name in journal.pending(folder / "manifest"))
    names |= {path.name for path in waiting if path.parent.name == HISTORY}
    names -= {name for name in names if name.startswith("_")}
    for name in sorted(names, key=lambda name: (storage.number_of(name), name)):
        with suppress(FileNotFoundError):  # of a change that another writer has made void meanwhile
            data = journal.read(folder, f"{HISTORY}/{name}")
            try:
                tables.append(pq.read_table(pa.BufferReader(data)).cast(SCHEMA))
            except (pa.ArrowException, ValueError) as error:
                raise DamagedError(
                    f"{folder / HISTORY / name} cannot be read ({str(error).partition(chr(10))[0]}); move it "
                    "away: it tells of verdicts as they were, and nothing else reads it"
                ) from error
    return pa.concat_tables(tables)
