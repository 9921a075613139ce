"""What people say of samples: a log that is only added to, and what it decides.

`reviews.parquet` in a run's folder is a folder itself, as `manifest/` is: other readers take the files in it
for one table. Each writer has files of its own, which it alone replaces, each in one step. So nothing is
locked and no writer can lose another's rows, on a disk or in an object store, also while a run goes on.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from manifests import storage, store
from manifests.journal import DamagedError

REVIEWS, REVIEW = "reviews.parquet", "review"  # the log, and the manifest's column of what it decides
KEEP, DROP, FLAG, CLEAR = "keep", "drop", "flag", "clear"
Verdict = Literal["keep", "drop", "flag", "clear"]
ROWS_PER_FILE = 2000  # a writer's file is written whole for each review
LONGEST_NOTE, LONGEST_NAME = 2000, 200  # characters

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("reviewer", pa.string()),
        ("verdict", pa.string()),
        ("note", pa.string()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("screen", pa.string()),
        ("screen_hash", pa.string()),
        ("keep", pa.bool_()),
        ("drop_reasons", pa.list_(pa.string())),
    ]
)
DECIDED = pa.schema([("sample_id", pa.string()), (REVIEW, pa.string())])


class Review(BaseModel):
    """A person's word on a sample, and what the person was shown of its verdict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample_id: str = Field(min_length=1)
    reviewer: str = Field(min_length=1, max_length=LONGEST_NAME)
    verdict: Verdict = Field(
        description="keep or drop; flag: for others to look at; clear: takes one's earlier word back."
    )
    note: str = Field("", max_length=LONGEST_NOTE)
    screen: str | None = Field(
        None, max_length=LONGEST_NAME, description="Name of the screen whose verdict was shown."
    )
    screen_hash: str | None = Field(None, description="Its `Screen.hash`.")
    keep: bool | None = Field(None, description="The verdict that was shown.")
    drop_reasons: list[Annotated[str, Field(max_length=LONGEST_NAME)]] | None = Field(
        None, max_length=1000, description="Its reasons."
    )


class ReviewLog:
    """Adds to the reviews of a run; of one log, from several threads.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: Path) -> None:
        self._folder = run / REVIEWS
        self._lock = threading.Lock()
        self._last = datetime.min.replace(tzinfo=UTC)
        self._begin()

    def _begin(self) -> None:
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet"
        self._file, self._rows = self._folder / name, SCHEMA.empty_table()

    def append(self, reviews: Sequence[Review]) -> datetime:
        """Add reviews, all of them or none; they survive any crash once this returns the time they bear.

        Raises:
            OutputError: the folder cannot be written to.
        """
        with self._lock, storage.written(self._folder):
            # What one log is told later is later, whatever the clock does.
            at = max(datetime.now(UTC), self._last + timedelta(microseconds=1))
            rows = pa.Table.from_pylist([{**r.model_dump(), "at": at} for r in reviews], schema=SCHEMA)
            if self._rows.num_rows >= ROWS_PER_FILE:
                self._begin()
            rows = pa.concat_tables([self._rows, rows])
            store.write_table(self._file, rows)
            self._rows, self._last = rows, at
        return at


def files(run: Path) -> list[Path]:
    """The files of a run's reviews."""
    return [path for path in storage.files(run / REVIEWS, ".parquet") if path.name[0] not in "._"]


def read(run: Path) -> pa.Table:
    """All reviews of a run, by `SCHEMA`, the earliest first; none where there is no log.

    Raises:
        DamagedError: one of its files cannot be read, or is no file of reviews.
    """
    tables = storage.each(read_file, files(run), storage.is_remote(run))
    return pa.concat_tables([SCHEMA.empty_table(), *tables]).sort_by("at")


def read_file(path: Path) -> pa.Table:
    """One file of reviews.

    Raises:
        DamagedError: it cannot be read, or holds something else.
    """
    data = storage.read_bytes(path)  # at once: its writer may replace it
    try:
        table = pq.read_table(pa.BufferReader(data))
        if missing := [name for name in SCHEMA.names if name not in table.column_names]:
            raise pa.ArrowInvalid(f"no column {missing[0]}")
        return table.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, OSError) as error:
        reason, run = str(error).partition("\n")[0], path.parent.parent
        raise DamagedError(
            f"{path} cannot be read as reviews ({reason}); `interavatar repair {run}` moves it away"
        ) from error


def latest(reviews: pa.Table) -> pa.Table:
    """The last word of each reviewer on each sample, in the order of time; one that was cleared is none.

    Args:
        reviews: as `read` gives them.
    """
    samples, people = (_numbers(reviews[name]) for name in ("sample_id", "reviewer"))
    pairs = samples * (int(people.max(initial=0)) + 1) + people
    _, from_the_end = np.unique(pairs[::-1], return_index=True)
    last = reviews.take(pa.array(np.sort(len(pairs) - 1 - from_the_end)))
    return last.filter(pc.not_equal(last["verdict"], CLEAR))


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """For each value the number of the first that equals it among the distinct ones."""
    return np.asarray(column.combine_chunks().dictionary_encode().indices, np.int64)


def decided(reviews: pa.Table) -> pa.Table:
    """What reviewers decided: `sample_id` and `review`, keep or drop, of the samples on which they did.

    Each reviewer's last word counts, the majority decides; a flag and a tie decide nothing.

    Args:
        reviews: as `read` gives them.
    """
    words = latest(reviews)
    ids = words["sample_id"].combine_chunks().dictionary_encode()
    votes = {KEEP: 1.0, DROP: -1.0}
    weights = np.array([votes.get(verdict, 0.0) for verdict in words["verdict"].to_pylist()])
    sums = np.bincount(np.asarray(ids.indices, np.int64), weights, len(ids.dictionary))
    found = np.flatnonzero(sums)
    names = pa.array(np.where(sums[found] > 0, KEEP, DROP), pa.string())
    return pa.table([ids.dictionary.take(pa.array(found)), names], schema=DECIDED)
