"""Shards: WebDataset tars of kept samples, and the index that finds every sample in them.

`pipelines/shards/write.py` writes such a folder (docs/shards.md has its layout), the trainer reads it here.
A tar is plain: any WebDataset reader takes it without the index.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import UsageError, UserError
from manifests import features, storage, store

VERSION = 1
INDEX, SUMMARY = "index.parquet", "index.json"
# The members of every sample, in this order: a reader that wants the same members in all of them finds them.
MEMBERS = ("mp4", "wav", "json", "txt", "npz")
BLOCK = 512  # bytes of a tar's header; data is padded to it

INDEX_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("key", pa.string()),
        ("run", pa.string()),
        ("pipeline", pa.string()),
        ("person", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        (
            "members",
            pa.list_(pa.struct([("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])),
        ),
        ("bucket", pa.string()),
        ("seconds", pa.float64()),
        ("fps", pa.float64()),
        ("num_frames", pa.int64()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("has_audio", pa.bool_()),
        ("is_interaction", pa.bool_()),
        ("preview", pa.bool_()),
        ("has_identity", pa.bool_()),
        ("has_attributes", pa.bool_()),
        ("has_audio_features", pa.bool_()),
        ("identity_dim", pa.int64()),
        ("attribute_dim", pa.int64()),
        ("audio_dim", pa.int64()),
        ("face_embedder", pa.string()),
        ("attribute_embedder", pa.string()),
        ("audio_embedder", pa.string()),
        ("error", pa.string()),
    ]
)
_SHARD = re.compile(r"shard-[0-9]{6,}\.tar")
_KEY = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"  # names of files are made of it


def with_person(index: pa.Table) -> pa.Table:
    """The same with the column `person`, null where an earlier release wrote it without."""
    if "person" in index.column_names:
        return index
    place = INDEX_SCHEMA.get_field_index("person")
    return index.add_column(place, INDEX_SCHEMA.field("person"), pa.nulls(len(index), pa.string()))


class ShardError(UserError, ValueError):
    """A folder of shards cannot be used; the message names it and the way out."""


class MissingShards(ShardError, UsageError):
    """There is no finished folder of shards."""


def shard_name(number: int) -> str:
    """File name of the shard of this number, from 0."""
    return f"shard-{number:06d}.tar"


def is_shard_name(name: str) -> bool:
    """Whether a file of this name is a shard."""
    return _SHARD.fullmatch(name) is not None


def read_arrays(npz: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays in a sample's `.npz`; those that were not measured are absent.

    identity: float32 [D]. attributes: float16 [N, D]. audio: float16 [T, D], row i of which begins at
    i / audio_hz seconds of the clip. audio_hz: float32 [].

    Raises:
        ShardError: the bytes are damaged.
    """
    try:
        return features.arrays_of(npz)
    except ValueError as error:
        raise ShardError(f"the arrays of a sample are damaged ({error}); write the shards again") from error


def training_prompt(sentence: str | None, caption: str | None) -> str:
    """The text to train with (InterAvatar §3.4): the sentence of a touch, then the caption on the next line.

    What is None or empty is left out; "" without either.
    """
    return "\n".join(text for text in (sentence, caption) if text)


class ShardsFolder:
    """A finished folder of shards, to be read by sample. It can be pickled and used from several threads.

    Args:
        path: the folder, local or an fsspec URL.

    Raises:
        ShardError: there is no finished folder of shards of this version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = storage.folder_of(path)
        self.summary = self._read_summary()
        try:
            self._index = with_person(store.read_file(self.path / INDEX))
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise ShardError(
                f"{self.path / INDEX} cannot be read ({error}); write the shards again"
            ) from None
        missing = sorted(set(INDEX_SCHEMA.names) - set(self._index.column_names))
        if missing:
            raise ShardError(f"{self.path / INDEX} has no {', '.join(missing)}; write the shards again")
        if pc.all(pc.match_substring_regex(self._index["key"], _KEY)).as_py() is False:
            raise ShardError(f"{self.path / INDEX} has keys that are no file names; write the shards again")

    def _read_summary(self) -> dict[str, Any]:
        place = self.path / SUMMARY
        try:
            summary = json.loads(storage.read_bytes(place))
            version = summary["version"]
        except (FileNotFoundError, NotADirectoryError):
            raise MissingShards(
                f"{self.path} is no finished folder of shards (no {SUMMARY} in it): give the --output of "
                "`interavatar shards`, and run that command again if it was cut short"
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise ShardError(f"{place} is damaged ({error!r}); write the shards again") from None
        if version != VERSION:
            raise ShardError(f"{place} is of version {version}, this program reads version {VERSION}")
        if not isinstance(summary.get("mixing"), dict):
            raise ShardError(f"{place} has no mixing table; write the shards again")
        return dict(summary)

    @property
    def index(self) -> pa.Table:
        """One row a sample: the columns of `INDEX_SCHEMA` (docs/shards.md says what they mean)."""
        return self._index

    @property
    def mixing(self) -> dict[str, dict[str, Any]]:
        """For each run by name: samples, seconds, weight, pipeline, run_id."""
        return dict(self.summary["mixing"])

    def read(self, row: Mapping[str, Any]) -> dict[str, bytes]:
        """The members of one sample; see `read_members`."""
        return read_members(self.path, row)


def read_members(folder: Path, row: Mapping[str, Any]) -> dict[str, bytes]:
    """The members of one sample, by suffix: mp4, wav, json, txt, npz; one range read.

    Args:
        folder: of the shards.
        row: of its index; what is used: sample_id, key, shard, offset, size, members, error.

    Raises:
        ShardError: the sample was not written, or the tar does not hold what the index says.
    """
    name = row["sample_id"]
    if row["shard"] is None:
        raise ShardError(f"{folder}: sample {name} is in no shard: {row['error']}")
    if not is_shard_name(row["shard"]):
        raise ShardError(f"{folder / INDEX}: {row['shard']!r} is no name of a shard; write them again")
    place = folder / row["shard"]
    try:
        span = _read_range(place, row["offset"], row["size"])
    except FileNotFoundError:
        raise ShardError(f"{place} is gone; run the command that wrote it again") from None
    if len(span) != row["size"]:
        raise ShardError(f"{place} ends before sample {name}: it is cut short; write the shards again")
    members = {}
    for member in row["members"]:
        start = member["offset"] - row["offset"]
        if not _begins_here(span, start, member) or not member["name"].startswith(f"{row['key']}."):
            raise ShardError(
                f"{place}: {member['name']} is not where the index says; the tar is of another "
                "version of this folder: write the shards again"
            )
        members[member["name"][len(row["key"]) + 1 :]] = span[start : start + member["size"]]
    return members


def _read_range(path: Path, offset: int, size: int) -> bytes:
    """Bytes [offset, offset + size) of a file, fewer where it ends before; nothing stays open."""
    if offset < 0 or size < 0:
        return b""
    remote: Any = path
    if storage.is_remote(path):
        return bytes(remote.fs.cat_file(remote.path, start=offset, end=offset + size))
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        parts, left = [], size
        while left and (part := file.read(left)):  # one read gives 2 GiB at most
            parts.append(part)
            left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _begins_here(span: bytes, start: int, member: Mapping[str, Any]) -> bool:
    """Whether the member's data lies at `start` of the span, with its own header before it."""
    if start < BLOCK or member["size"] < 0 or start + member["size"] > len(span):
        return False
    try:
        header = tarfile.TarInfo.frombuf(span[start - BLOCK : start], "utf-8", "strict")
    except tarfile.HeaderError:
        return False
    return header.name == member["name"] and header.size == member["size"]
