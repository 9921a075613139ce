"""Shards written anew without forgotten samples; all other samples stay in their shard, bit for bit.

A shard is recognised by the index, which comes last: killed before, the command is given again. Until then a
reader of a shard that has changed meets an error that says so (`manifests.shards.read_members`).
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import shards as format
from manifests import storage, store
from manifests.forgotten import Forgotten
from manifests.shards import ShardError, ShardsFolder
from media.files import local_copy
from pipelines.collection.forget_run import half_written
from pipelines.engine.lock import lock
from pipelines.shards import trainer_lists
from pipelines.shards.trainer_lists import Trainer
from pipelines.shards.write import MARK, PARTS, Tar, summarise


@dataclass(frozen=True)
class InShards:
    """Forgotten samples of a folder of shards.

    Attributes:
        samples: how many of them its index has.
        names: of the shards that hold them.
    """

    samples: int
    names: Sequence[str]


def held_in(folder: Path, gone: Sequence[Forgotten]) -> InShards:
    """The forgotten samples of finished shards.

    Args:
        folder: of the shards.
        gone: what runs have forgotten.

    Raises:
        ShardError: there is no finished folder of shards.
    """
    return _held(ShardsFolder(folder).index, gone)


def _held(index: pa.Table, gone: Sequence[Forgotten]) -> InShards:
    rows = index.filter(pa.array(_which(index, gone)))
    return InShards(rows.num_rows, sorted({name for name in rows["shard"].to_pylist() if name}))


def _which(index: pa.Table, gone: Sequence[Forgotten]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(index.num_rows, bool)
    for forgotten in gone:
        mask |= forgotten.which(index["sample_id"])
    return mask


def forget_in_shards(folder: Path, gone: Sequence[Forgotten]) -> InShards:
    """Write the shards that hold forgotten samples anew, with their index and lists for trainers.

    Args:
        folder: of finished shards.
        gone: what runs have forgotten.

    Returns:
        What was there before.

    Raises:
        ShardError: there is no finished folder of shards, or a tar is damaged.
        RunError: another process writes to it.
    """
    with lock(folder) as check_lock:
        shards = ShardsFolder(folder)
        begun = (path for path in storage.files(folder / PARTS) if storage.PARTIAL in path.name)
        storage.remove([*half_written(folder), *begun])
        held = _held(shards.index, gone)
        if held.samples:
            goes = _which(shards.index, gone)
            _take_from_lists(folder, shards.index.filter(pa.array(goes))["key"].to_pylist())
            index = shards.index.filter(pa.array(~goes))
            for name in held.names:
                check_lock()
                index = _rewritten(folder, name, index)
            _finish(folder, shards.summary, index)
        for trainer in Trainer:  # a list that is not there although its videos are was taken away here
            videos = folder / trainer / trainer_lists.VIDEOS
            listed = {path.name for path in storage.files(folder / trainer)}
            if storage.files(videos, ".mp4") and trainer_lists.list_name(trainer) not in listed:
                trainer_lists.export(folder, trainer, "inline")
    return held


def _take_from_lists(folder: Path, keys: Sequence[str]) -> None:
    """The lists of other trainers, which are written again at the end, and these samples' videos."""
    trainer_lists.remove_lists(folder)
    for trainer in Trainer:
        storage.remove(folder / trainer / trainer_lists.VIDEOS / f"{key}.mp4" for key in keys)


def _rewritten(folder: Path, name: str, index: pa.Table) -> pa.Table:
    """Write a shard with the samples alone that an index has of it; the index with their new places.

    Raises:
        ShardError: the tar is damaged, or lacks one of them.
    """
    mine = np.flatnonzero(np.asarray(pc.fill_null(pc.equal(index["shard"], name), False)))
    rows = index.take(pa.array(mine)).to_pylist()
    if not rows:
        storage.remove([folder / name])  # an empty tar is no WebDataset
        return index
    wanted = {row["key"] for row in rows}
    members: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    # Beside the shards a half-written tar would be taken for one of them.
    place = folder / name if storage.is_remote(folder) else folder / PARTS / name
    try:
        with (
            local_copy(str(folder / name)) as source,
            tarfile.open(source) as old,
            storage.making(place) as path,
            path.open("wb") as file,
        ):
            tar = Tar(file)
            for member in old:
                key = member.name.partition(".")[0]
                data = old.extractfile(member)
                if key in wanted and data is not None:
                    members[key].append(tar.add(member.name, data.read()))
            tar.close()
    except tarfile.TarError as error:
        raise ShardError(f"{folder / name} is damaged ({error}); write the shards again") from error
    if missing := wanted - set(members):
        raise ShardError(f"{folder / name} lacks sample {min(missing)}; write the shards again")
    if place != folder / name:
        place.replace(folder / name)
    for row in rows:
        of_row = members[row["key"]]
        row["members"] = of_row
        row["offset"] = of_row[0]["offset"] - format.BLOCK
        end = of_row[-1]["offset"] + of_row[-1]["size"]
        row["size"] = end + -end % format.BLOCK - row["offset"]
    order = np.arange(index.num_rows)
    order[mine] = index.num_rows + np.arange(len(mine))
    moved = pa.Table.from_pylist(rows, schema=index.schema)
    return pa.concat_tables([index, moved]).take(pa.array(order))


def _finish(folder: Path, summary: Mapping[str, Any], index: pa.Table) -> None:
    """Leave no part of the index of before, and say last what the shards hold."""
    data = store.to_bytes(index)
    # These are the shards of no plan: `interavatar shards` takes none of them for its own.
    digest = hashlib.sha256(f"{summary['plan']}\0".encode() + data).hexdigest()[:16]
    mark = json.dumps({"version": format.VERSION, "plan": digest})
    storage.write_bytes(folder / PARTS / MARK, mark.encode())
    storage.remove(path for path in storage.files(folder / PARTS) if path.name != MARK)
    after = {**summary, **summarise(digest, summary["mixing"], index)}
    said = json.dumps(after, indent=2, ensure_ascii=False)
    storage.write_bytes(folder / format.SUMMARY, said.encode("utf-8", "replace"))
    storage.write_bytes(folder / format.INDEX, data)
