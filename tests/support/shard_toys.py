"""A small valid folder of shards with real tiny videos."""

from __future__ import annotations

import io
import json
import tarfile
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.buckets import BucketConfig
from manifests.shards import INDEX, INDEX_SCHEMA, SUMMARY, VERSION, shard_name

SENTENCE = "The person is reacting right after being poked."
EMBEDDERS = {
    "face_embedder": "toy-face",
    "attribute_embedder": "toy-attributes",
    "audio_embedder": "toy-audio",
}


def gradient(time: float, width: int, height: int) -> np.ndarray:
    """A picture [H, W, 3] that says what it is: red rises with x, green with y, blue is the time (0-1)."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., 0] = (np.arange(width) + 0.5) / width * 255
    picture[..., 1] = ((np.arange(height) + 0.5) / height * 255)[:, None]
    picture[..., 2] = round(time * 255)
    return picture


def write_video(
    pictures: Sequence[np.ndarray],
    fps: float = 16,
    key_every: int = 12,
    codec: str = "libx264",
    **options: str,
) -> bytes:
    """An MP4 of pictures [H, W, 3] uint8, nearly without loss."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=round(fps))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "4", "preset": "ultrafast", "g": str(key_every), **options}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return sink.getvalue()


def _wav(seconds: float, rate: int = 16000) -> bytes:
    sink = io.BytesIO()
    tone = np.sin(np.arange(round(seconds * rate)) * (2 * np.pi * 440 / rate)) * 8000
    with wave.open(sink, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(tone.astype("<i2").tobytes())
    return sink.getvalue()


def _measured(video: bytes) -> tuple[int, float, int, int]:
    with av.open(io.BytesIO(video)) as container:
        stream = container.streams.video[0]
        return stream.frames, float(stream.average_rate or 25), stream.width, stream.height


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    sink = io.BytesIO()
    np.savez(sink, allow_pickle=False, **arrays)
    return sink.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> dict[str, Any]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    return {"name": name, "offset": tar.offset - -(-len(data) // 512) * 512, "size": len(data)}


def toy_shards(
    folder: Path,
    clips: int = 4,
    *,
    seconds: float | Sequence[float] = 2.0,
    size: tuple[int, int] | Sequence[tuple[int, int]] = (64, 64),
    fps: int = 16,
    runs: Mapping[str, float] | None = None,
    interactions: int = 1,
    previews: int = 0,
    errors: int = 0,
    points: Sequence[tuple[float, float]] = ((0.25, 0.75),),
    videos: Sequence[bytes] = (),
    sound: bool = True,
    features: bool = True,
    identity_dim: int = 512,
    attribute_dim: int = 1024,
    attribute_tokens: int = 5,
    audio_dim: int = 768,
    audio_hz: float = 50.0,
    embedders: Mapping[str, str] = EMBEDDERS,
    per_shard: int = 3,
    persons: Sequence[str] = (),
    seed: int = 0,
) -> Path:
    """Write a folder of shards; the widths are those of `ModelConfig`'s defaults.

    Args:
        clips: how many are written; the pictures are `gradient`s, so a frame says when and where it is.
        seconds, size: of every clip, or a list that the clips take in turn; size is width, height.
        runs: weight of each run in the mixing table; clips take the runs in turn. Default: one, `toy`.
        interactions: the first so many clips of all are touched, at `points` in turn.
        previews: the last so many clips were made by a stand-in.
        errors: so many further rows could not be written.
        videos: MP4 files that the clips take in turn instead of pictures made here; their length and size
            take the place of `seconds`, `size` and `fps`.
        persons: whom the clips show, in turn.
        features: identity, attributes and (with `sound`) audio are there.
    """
    runs = dict(runs or {"toy": 1.0})
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lengths = [seconds] if isinstance(seconds, int | float) else list(seconds)
    sizes: list[Any] = [size] if isinstance(size[0], int) else list(size)
    rows: list[dict[str, Any]] = []
    made: dict[Any, bytes] = {}
    for number in range(clips + errors):
        run = list(runs)[number % len(runs)]
        length, (width, height) = lengths[number % len(lengths)], sizes[number % len(sizes)]
        frames, rate = round(length * fps), float(fps)
        if videos:
            frames, rate, width, height = _measured(videos[number % len(videos)])
        broken = number >= clips
        row: dict[str, Any] = {
            "sample_id": f"{run}-{number:04d}",
            "key": f"{run}-{number:04d}",
            "run": run,
            "pipeline": "talking_head",
            "person": persons[number % len(persons)] if persons else None,
            "shard": None if broken else shard_name(number // per_shard),
            "offset": None,
            "size": None,
            "members": [],
            "seconds": frames / rate,
            "fps": rate,
            "num_frames": frames,
            "width": width,
            "height": height,
            "has_audio": sound,
            "is_interaction": number < interactions,
            "preview": clips - previews <= number < clips,
            "has_identity": features,
            "has_attributes": features,
            "has_audio_features": features and sound,
            "identity_dim": identity_dim if features else None,
            "attribute_dim": attribute_dim if features else None,
            "audio_dim": audio_dim if features and sound else None,
            "error": "the video cannot be decoded" if broken else None,
        }
        row |= {name: value if features else None for name, value in embedders.items()}
        bucket = BucketConfig().bucket_of(row["seconds"], width, height)
        row["bucket"] = None if bucket is None else str(bucket)
        rows.append(row)
        if broken:
            continue
        what = (frames, width, height)
        if what not in made and not videos:
            made[what] = write_video([gradient(i / frames, width, height) for i in range(frames)], fps)
        arrays: dict[str, np.ndarray] = {}
        if features:
            arrays["identity"] = rng.standard_normal(identity_dim).astype(np.float32)
            arrays["attributes"] = rng.standard_normal((attribute_tokens, attribute_dim)).astype(np.float16)
        if features and sound:
            heard = int(row["seconds"] * audio_hz)
            arrays["audio"] = rng.standard_normal((heard, audio_dim)).astype(np.float16)
            arrays["audio_hz"] = np.float32(audio_hz)
        touched = row["is_interaction"]
        x, y = points[number % len(points)]
        caption = f"A person looks into the camera, number {number}."
        record = {
            "sample_id": row["sample_id"],
            "pipeline": row["pipeline"],
            "run": run,
            "preview": row["preview"],
            "caption": caption,
            "interaction_prompt": SENTENCE if touched else None,
            "interaction_type": "poked" if touched else None,
            "interaction_x": x if touched else None,
            "interaction_y": y if touched else None,
            "fps": rate,
            "num_frames": frames,
            "width": width,
            "height": height,
            "has_audio": sound,
        }
        members = {
            "mp4": videos[number % len(videos)] if videos else made[what],
            **({"wav": _wav(row["seconds"])} if sound else {}),
            "json": json.dumps(record).encode(),
            "txt": (f"{SENTENCE}\n{caption}" if touched else caption).encode(),
            "npz": _npz(arrays),
        }
        with tarfile.open(folder / row["shard"], "a" if number % per_shard else "w") as tar:
            row["offset"] = tar.offset
            row["members"] = [_add(tar, f"{row['key']}.{kind}", data) for kind, data in members.items()]
            row["size"] = tar.offset - row["offset"]
    _write_index(folder, rows, runs)
    return folder


def _write_index(folder: Path, rows: list[dict[str, Any]], runs: Mapping[str, float]) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), folder / INDEX)
    written = [row for row in rows if row["error"] is None]
    mixing = {}
    for run, weight in runs.items():
        mine = [row for row in written if row["run"] == run]
        mixing[run] = {
            "samples": len(mine),
            "seconds": sum(row["seconds"] for row in mine),
            "weight": weight,
            "pipeline": "talking_head",
            "run_id": f"{run}-1",
        }
    buckets: dict[str, int] = {}
    for row in written:
        buckets[str(row["bucket"])] = buckets.get(str(row["bucket"]), 0) + 1
    head = {
        "version": VERSION,
        "mixing": mixing,
        "buckets": buckets,
        "previews": sum(row["preview"] for row in written),
        "errors": len(rows) - len(written),
    }
    (folder / SUMMARY).write_text(json.dumps(head, indent=2))
