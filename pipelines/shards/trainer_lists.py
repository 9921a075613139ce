"""Plain files beside the shards for trainers that read no tars: a folder of videos and one list of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests import storage
from manifests.shards import ShardsFolder, read_members
from pipelines.shards.tasks import Engine, on_each


class Trainer(StrEnum):
    """Trainers whose own list of videos can be written."""

    FINETRAINERS = "finetrainers"
    DIFFSYNTH = "diffsynth"
    VIDEOX_FUN = "videox-fun"


VIDEOS = "videos"
READ = ["sample_id", "key", "shard", "offset", "size", "members", "error"]  # what finds a sample
LISTED = ["key", "width", "height"]
BATCH = 10_000  # rows at once as Python objects
# What pandas takes for a missing value, and DiffSynth then for a number; a space makes it text again.
MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"}
    | {"NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)


def finetrainers(rows: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """metadata.jsonl: file_name, caption."""
    lines = [{"file_name": row["file"], "caption": row["prompt"]} for row in rows]
    return "metadata.jsonl", "".join(json.dumps(line) + "\n" for line in lines)


def diffsynth(rows: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """metadata.csv: video, prompt."""
    sink = io.StringIO()
    table = csv.writer(sink, quoting=csv.QUOTE_ALL, lineterminator="\n")
    table.writerow(["video", "prompt"])
    for row in rows:
        prompt = row["prompt"].replace("\0", " ").replace("\r", " ")
        table.writerow([row["file"], prompt + " " if prompt in MISSING else prompt])
    return "metadata.csv", sink.getvalue()


def videox_fun(rows: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """metadata.json: a list of file_path, text, type, width, height."""
    items = [
        {
            "file_path": row["file"],
            "text": row["prompt"],
            "type": "video",
            "width": row["width"],
            "height": row["height"],
        }
        for row in rows
    ]
    return "metadata.json", json.dumps(items, indent=1) + "\n"


FORMATS: Mapping[Trainer, Callable[[Iterable[Mapping[str, Any]]], tuple[str, str]]] = {
    Trainer.FINETRAINERS: finetrainers,
    Trainer.DIFFSYNTH: diffsynth,
    Trainer.VIDEOX_FUN: videox_fun,
}


@dataclass(frozen=True)
class _Task:
    """Rows of one shard whose videos are taken out, and the folder for them."""

    shards: Path
    videos: Path
    rows: Sequence[Mapping[str, Any]]


def export(folder: Path, trainer: Trainer, engine: Engine = "ray") -> Path:
    """Write FOLDER/TRAINER/videos/KEY.mp4 and the trainer's list of them; returns the list's path.

    Videos that are there are not written again; those of other shards are deleted. The list goes
    first and comes last: it never names a video that is not there.

    Raises:
        ShardError: the shards are not finished.
        RunError: a worker failed.
    """
    index = ShardsFolder(folder).index
    index = index.filter(pc.is_null(index["error"]))
    place = folder / trainer
    videos = place / VIDEOS
    storage.remove([place / list_name(trainer)])
    wanted = {f"{key}.mp4" for key in index["key"].to_pylist()}
    storage.remove(path for path in storage.files(videos, ".mp4") if path.name not in wanted)
    tasks = (_Task(folder, videos, list(group)) for _, group in groupby(_rows(index.select(READ)), _shard))
    prompts: dict[str, str] = {}
    for said in on_each(engine, _take_out, tasks):
        prompts |= said
    listed = (
        row | {"file": str(PurePosixPath(VIDEOS, f"{row['key']}.mp4")), "prompt": prompts[row["key"]]}
        for row in _rows(index.select(LISTED))
    )
    name, text = FORMATS[trainer](listed)
    storage.write_bytes(place / name, text.encode("utf-8", "replace"))
    return place / name


def list_name(trainer: Trainer) -> str:
    """File name of the trainer's list."""
    return FORMATS[trainer](())[0]


def remove_lists(folder: Path) -> None:
    """Delete every trainer's list in a folder of shards: these are no longer what it names."""
    storage.remove(folder / trainer / list_name(trainer) for trainer in Trainer)


def remove_videos(folder: Path) -> None:
    """Delete the videos that were taken out of a folder of shards."""
    for trainer in Trainer:
        storage.remove(storage.files(folder / trainer / VIDEOS, ".mp4"))


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows, a batch of them at a time."""
    return (row for batch in table.to_batches(max_chunksize=BATCH) for row in batch.to_pylist())


def _shard(row: Mapping[str, Any]) -> str:
    return str(row["shard"])


def _take_out(task: _Task) -> dict[str, str]:
    """Write the videos of one shard that are not there; returns the prompt of each key."""
    prompts = {}
    for row in task.rows:
        members = read_members(task.shards, row)
        target = task.videos / f"{row['key']}.mp4"
        try:
            there = storage.read_bytes(target)
        except FileNotFoundError:
            there = b""
        if there != members["mp4"]:
            storage.write_bytes(target, members["mp4"], durable=False)
        prompts[row["key"]] = members["txt"].decode("utf-8", "replace")
    return prompts
