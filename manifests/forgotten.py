"""Samples that a run was made to forget: it never lists them again, and holds nothing that names them.

`forgotten.parquet` in a run's folder has one row a sample: a hash of its id under a salt of the folder's own,
so that an id can be recognised and none can be read. Of a clip that was cut from a longer video the row also
says which part of which video it was, the video by such a hash: cut anew it would have another id.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import storage, store
from manifests.journal import DamagedError

FILE = "forgotten.parquet"
SALT = b"salt"  # in the file's metadata
SCHEMA = pa.schema(
    [
        ("sample", pa.binary()),
        ("video", pa.binary()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
    ]
)


def name_hash(sample_id: str) -> str:
    """32 hex digits that stand for a sample where its id shall not."""
    return hashlib.sha256(sample_id.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True)
class Forgotten:
    """The samples that a run was made to forget.

    Attributes:
        salt: of the hashes.
        rows: by `SCHEMA`.
    """

    salt: bytes
    rows: pa.Table

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def holds(self, sample_id: str | None) -> bool:
        """Whether the sample of this id is forgotten."""
        return sample_id is not None and self.holds_hash(name_hash(sample_id))

    def holds_hash(self, hashed: str) -> bool:
        """Whether the sample is, by its `name_hash`."""
        return bool(self._samples) and self._salted(hashed) in self._samples

    def which(self, ids: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.bool_]:
        """(rows,) `holds` of each."""
        if not len(self):
            return np.zeros(len(ids), bool)
        return np.fromiter(map(self.holds, ids.to_pylist()), bool, len(ids))

    def hides(self, listed: pa.Table, is_cut: bool) -> npt.NDArray[np.bool_]:
        """(rows,) which samples of a listing must not be listed.

        Args:
            listed: with sample_id, parent_id, start_s and end_s.
            is_cut: these are what is computed: not whole videos that are cut first. So one that overlaps a
                forgotten clip of the same video goes, too.
        """
        hidden = self.which(listed["sample_id"])
        if not is_cut or not self._ranges:
            return hidden
        for at, row in enumerate(listed.select(["sample_id", "parent_id", "start_s", "end_s"]).to_pylist()):
            video = self._salted(name_hash(row["parent_id"] or row["sample_id"]))
            hidden[at] |= any(_overlap(row, other) for other in self._ranges.get(video, ()))
        return hidden

    def with_samples(self, rows: Iterable[Mapping[str, Any]]) -> Forgotten:
        """The same and more samples; one that is forgotten already stays as it is.

        Args:
            rows: of a manifest, with sample_id, parent_id, start_s and end_s.
        """
        added = {}
        for row in rows:
            sample, video = self._salted(name_hash(row["sample_id"])), row["parent_id"]
            if sample not in self._samples:
                of_video = dict.fromkeys(("video", "start_s", "end_s"))
                if video is not None and row["end_s"] is not None:  # else it was made of a portrait
                    of_video = {
                        "video": self._salted(name_hash(video)),
                        "start_s": row["start_s"],
                        "end_s": row["end_s"],
                    }
                added[sample] = {"sample": sample, **of_video}
        if not added:
            return self
        rows_ = pa.Table.from_pylist(list(added.values()), schema=SCHEMA)
        # By hash: the order in which they came would say something of the ids.
        return Forgotten(self.salt, pa.concat_tables([self.rows, rows_]).sort_by("sample"))

    @cached_property
    def _samples(self) -> frozenset[bytes]:
        return frozenset(self.rows["sample"].to_pylist())

    @cached_property
    def _ranges(self) -> Mapping[bytes, Sequence[Mapping[str, Any]]]:
        """For each video the parts of it that are forgotten."""
        ranges: defaultdict[bytes, list[Mapping[str, Any]]] = defaultdict(list)
        for row in self.rows.to_pylist():
            if row["video"] is not None:
                ranges[row["video"]].append(row)
        return ranges

    def _salted(self, hashed: str) -> bytes:
        return hashlib.blake2b(hashed.encode(), key=self.salt, digest_size=16).digest()


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two parts of a video have anything in common; null: its beginning, or its end."""
    ends = [np.inf if row["end_s"] is None else row["end_s"] for row in (one, other)]
    return (one["start_s"] or 0.0) < ends[1] and (other["start_s"] or 0.0) < ends[0]


def read(run: Path) -> Forgotten:
    """What a run has forgotten; with no file, nothing.

    Raises:
        DamagedError: the file cannot be read.
    """
    path = run / FILE
    try:
        data = storage.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return Forgotten(secrets.token_bytes(32), SCHEMA.empty_table())
    try:
        table = pq.read_table(pa.BufferReader(data))
        salt = (table.schema.metadata or {})[SALT]
        return Forgotten(bytes.fromhex(salt.decode()), table.select(SCHEMA.names).cast(SCHEMA))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DamagedError(
            f"{path} cannot be read ({str(error).partition(chr(10))[0]}); put back a copy of it: without it "
            "samples that were to be forgotten are listed again"
        ) from error


def write(run: Path, forgotten: Forgotten) -> None:
    """Write the file, in one step."""
    table = forgotten.rows.replace_schema_metadata({SALT: forgotten.salt.hex()})
    storage.write_bytes(run / FILE, store.to_bytes(table))
