"""Shards of kept samples for training: WebDataset tars, an index, a mixing table (docs/shards.md).

One task writes one shard, on Ray or in this process. A shard is finished when its part of the index lies in
`_parts/`, under a name that holds the digest of the plan; so a command that was killed goes on where it
stood, and shards of another plan are never mixed in.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from manifests import shards as format
from manifests import storage, store
from pipelines.engine.lock import lock
from pipelines.engine.pipeline import RunError
from pipelines.engine.source import InputError
from pipelines.shards.plan import Sample, ShardPlan
from pipelines.shards.rows import laid_out
from pipelines.shards.sample import make_sample
from pipelines.shards.tasks import Engine, on_each
from pipelines.shards.trainer_lists import remove_lists, remove_videos

PARTS = "_parts"
MARK = "plan.json"  # among the parts: this command writes here
TAR_BYTES = b"tar_bytes"  # in a part's metadata: how long the tar is; 0: none was written


@dataclass(frozen=True)
class ShardTask:
    """What one worker gets: the samples of one shard."""

    number: int
    digest: str
    folder: Path
    samples: Sequence[Sample]


@dataclass(frozen=True)
class ShardDone:
    """What came of it."""

    number: int
    samples: int
    errors: int
    bytes: int


def write_shards(
    plan: ShardPlan,
    folder: Path,
    engine: Engine = "ray",
    retry_errors: bool = False,
    start: Callable[[int, int], None] = lambda total, finished: None,
    on_shard: Callable[[ShardDone], None] = lambda done: None,
) -> dict[str, Any]:
    """Write what is missing of a plan, then the index; returns what index.json holds.

    Args:
        plan: the samples of every shard.
        folder: where to; local or a folder of an object store.
        engine: ray, or inline: in this process, one shard after the other.
        retry_errors: write shards again in which samples failed.
        start: told how many shards there are, and how many are finished already.
        on_shard: told of each shard that was written.

    Raises:
        InputError: the folder holds something else.
        RunError: another command writes to it, a manifest is not the planned one any more, or not every
            sample came out.
    """
    _refuse_foreign(folder)
    with lock(folder) as held:
        finished = _clean(folder, plan.digest, len(plan.shards), retry_errors)
        todo = [number for number in range(len(plan.shards)) if number not in finished]
        start(len(plan.shards), len(finished))
        with laid_out(plan, todo) as shards:
            tasks = (ShardTask(number, plan.digest, folder, samples) for number, samples in shards)
            for done in on_each(engine, write_shard, tasks):
                held()
                on_shard(done)
        return _finish(plan, folder)


def write_shard(task: ShardTask) -> ShardDone:
    """Write one shard, and then its part of the index; each appears whole or not at all."""
    name, part = format.shard_name(task.number), _part(task.folder, task.digest, task.number)
    rows: list[dict[str, Any]] = []
    # Beside the shards a half-written tar would be taken for one of them.
    remote = storage.is_remote(task.folder)
    place = (task.folder if remote else task.folder / PARTS) / name
    with storage.making(place) as path, path.open("wb") as file:
        tar = Tar(file)
        for sample in task.samples:
            row, data = make_sample(sample)
            rows.append(row | (_add(tar, sample.key, data) | {"shard": name} if data else {}))
        size = tar.close()
        if _plan_in(task.folder) != task.digest:  # this worker outlived its command
            raise RunError(f"another command writes to {task.folder} now")
    written = sum(row["error"] is None for row in rows)
    if not written:
        storage.remove([place])  # an empty tar is no WebDataset
        size = 0
    elif not remote:
        place.replace(task.folder / name)
    table = pa.Table.from_pylist(rows, schema=format.INDEX_SCHEMA.with_metadata({TAR_BYTES: str(size)}))
    store.write_table(part, table)
    return ShardDone(task.number, len(rows), len(rows) - written, size)


def _part(folder: Path, digest: str, number: int) -> Path:
    return folder / PARTS / f"{digest}-{number:06d}.parquet"


class Tar:
    """A tar whose bytes depend on its members alone."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.offset = 0

    def add(self, name: str, data: bytes) -> dict[str, Any]:
        """Append a member; returns where its data lies."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        begins = self.offset
        self._write(data)
        self._write(b"\0" * (-len(data) % format.BLOCK))
        return {"name": name, "offset": begins, "size": len(data)}

    def close(self) -> int:
        """End the tar and see it safely onto the disk; returns its length."""
        self._write(b"\0" * (2 * format.BLOCK))
        self._write(b"\0" * (-self.offset % tarfile.RECORDSIZE))
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.offset

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.offset += len(data)


def _add(tar: Tar, key: str, data: Mapping[str, bytes]) -> dict[str, Any]:
    """Append a sample's members; returns where they lie."""
    start = tar.offset
    members = [tar.add(f"{key}.{suffix}", data[suffix]) for suffix in format.MEMBERS]
    return {"offset": start, "size": tar.offset - start, "members": members}


def _refuse_foreign(folder: Path) -> None:
    """Never overwrite what this command did not write.

    Raises:
        InputError: the folder is a run's, or holds tars of somebody else.
    """
    if (folder / "run.json").exists():
        raise InputError(f"{folder} is the folder of a run; choose another --output")
    tars = [path.name for path in storage.files(folder, ".tar") if format.is_shard_name(path.name)]
    if tars and not (folder / PARTS / MARK).exists():
        raise InputError(
            f"{folder} holds {tars[0]}, which this command did not write; choose another --output"
        )


def _clean(folder: Path, digest: str, count: int, retry_errors: bool) -> set[int]:
    """Delete what is left of other plans and of killed commands; this plan's finished shards.

    In such an order that whenever this is killed, no index and no list names what is gone.
    """
    mark, before = folder / PARTS / MARK, _plan_in(folder)
    if before not in (None, digest):  # before the mark: afterwards nobody knows whose videos these are
        _remove_index(folder)
        remove_lists(folder)
        remove_videos(folder)
    storage.write_bytes(mark, json.dumps({"version": format.VERSION, "plan": digest}).encode())
    parts = {path.name: path for path in storage.files(folder / PARTS) if path.name != MARK}
    sizes = _sizes(folder)
    finished = set()
    for number in range(count):
        part = parts.get(_part(folder, digest, number).name)
        if part is None:
            continue
        table = store.read_file(part)
        size = int((table.schema.metadata or {}).get(TAR_BYTES, b"-1"))
        failed = table.num_rows - table["error"].null_count
        if sizes.get(format.shard_name(number), 0) == size and not (failed and retry_errors):
            finished.add(number)
    mine = {_part(folder, digest, number).name for number in finished}
    if len(finished) < count or not _is_of(folder, digest):
        _remove_index(folder)
        if before is not None:  # else the folder is new, and what is in it somebody else's
            remove_lists(folder)
    keep = {format.shard_name(number) for number in finished}
    storage.remove(folder / name for name in sizes if name not in keep)
    storage.remove(path for name, path in parts.items() if name not in mine)  # half-written ones too
    return finished


def _plan_in(folder: Path) -> str | None:
    """Digest of the plan that is being written to the folder."""
    try:
        return str(json.loads(storage.read_bytes(folder / PARTS / MARK))["plan"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of the shards that are there, by name."""
    found = [path for path in storage.files(folder, ".tar") if format.is_shard_name(path.name)]
    return {path.name: int(path.stat().st_size) for path in found}


def _is_of(folder: Path, digest: str) -> bool:
    """Whether the folder's summary is of this plan."""
    try:
        return bool(json.loads(storage.read_bytes(folder / format.SUMMARY))["plan"] == digest)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _remove_index(folder: Path) -> None:
    """Nobody takes the folder for finished from now on."""
    storage.remove([folder / format.SUMMARY])
    storage.remove([folder / format.INDEX])


def _finish(plan: ShardPlan, folder: Path) -> dict[str, Any]:
    """Audit the parts, and write the index and, last, the summary."""
    paths = [_part(folder, plan.digest, number) for number in range(len(plan.shards))]
    parts = storage.each(store.read_file, paths, storage.is_remote(folder))
    parts = [format.with_person(part.replace_schema_metadata()) for part in parts]
    index = pa.concat_tables(parts).cast(format.INDEX_SCHEMA)
    planned = Counter((run.name, sample_id) for run in plan.runs for sample_id in run.ids.to_pylist())
    written = Counter(zip(index["run"].to_pylist(), index["sample_id"].to_pylist(), strict=True))
    if planned != written:
        wrong = sorted((planned - written) + (written - planned))
        raise RunError(
            f"audit failed: {len(wrong)} samples are missing or doubled in {folder} (first: {wrong[0]}); "
            f"delete {folder / PARTS} and run the same command again"
        )
    store.write_table(folder / format.INDEX, index)
    runs = {
        run.name: {"weight": run.weight, "pipeline": run.pipeline, "run_id": run.run_id} for run in plan.runs
    }
    side = {} if plan.split is None else {"split": plan.split}
    summary = summarise(plan.digest, runs, index) | side
    storage.write_bytes(
        folder / format.SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False).encode("utf-8", "replace")
    )
    return summary


def summarise(digest: str, runs: Mapping[str, Mapping[str, Any]], index: pa.Table) -> dict[str, Any]:
    """What index.json says; samples with an error count in `errors` alone.

    Args:
        digest: of the plan.
        runs: by name: weight, pipeline and run_id.
        index: of all shards.
    """
    there = index.filter(pc.is_null(index["error"]))
    names = there["run"].to_pylist()
    seconds: Counter[str] = Counter()
    for name, length in zip(names, there["seconds"].to_pylist(), strict=True):
        seconds[name] += length
    samples = Counter(names)
    buckets = Counter(bucket or "none" for bucket in there["bucket"].to_pylist())
    return {
        "version": format.VERSION,
        "plan": digest,
        "samples": there.num_rows,
        "shards": len(set(there["shard"].to_pylist())),
        "previews": sum(there["preview"].to_pylist()),
        "errors": index.num_rows - there.num_rows,
        "mixing": {
            name: {
                "samples": samples[name],
                "seconds": round(seconds[name], 6),
                **{key: run[key] for key in ("weight", "pipeline", "run_id")},
            }
            for name, run in runs.items()
        },
        "buckets": dict(sorted(buckets.items())),
    }
