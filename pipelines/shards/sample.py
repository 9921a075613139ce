"""One sample as its shard holds it: its members' bytes, and its row of the index."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests import features
from manifests import shards as format
from manifests.buckets import BucketConfig
from manifests.schema import stage_dict
from manifests.text import clean_text, public_text
from media.files import local_copy
from pipelines.engine.faults import MACHINE_ERRORS
from pipelines.engine.sample_media import crop_of, is_own_media, media_of
from pipelines.shards.media import RATE, Packed, Wanted, pack
from pipelines.shards.plan import Sample, resampling_rate
from stages.constant_rate import STANDARD_RATES

# Columns that mean nothing outside a run: where its arrays lie, and other samples by their ids, which may be
# forgotten while this one stays.
LEFT_OUT = ("arrays", "duplicate_of", "duplicate_group")


def make_sample(sample: Sample) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A sample's row of the index, as far as it does not tell the place in a tar, and its members by suffix.

    Of a sample that cannot be made the row holds the `error`, and there are no members.

    Raises:
        OSError: this machine is at its end (disk full, too many open files).
        MemoryError: likewise.
    """
    row = sample.row
    entry = dict.fromkeys(format.INDEX_SCHEMA.names) | {
        "sample_id": row["sample_id"],
        "key": sample.key,
        "run": sample.run,
        "pipeline": row["pipeline"],
        "person": person_of(row),
        "is_interaction": row.get("interaction_prompt") is not None,
        "preview": sample.preview,
    }
    try:
        packed = pack_media(sample.row, sample.folder, wanted_media(sample.row))
        arrays = _arrays(sample, packed.first_s)
        prompt = format.training_prompt(row.get("interaction_prompt"), row.get("caption"))
        members = {
            "mp4": packed.mp4,
            "wav": packed.wav,
            "json": _json(sample),
            "txt": prompt.encode("utf-8", "replace"),
            "npz": _npz(arrays),
        }
    except Exception as error:
        if getattr(error, "errno", None) in MACHINE_ERRORS or isinstance(error, MemoryError):
            raise
        said = clean_text(public_text(f"{type(error).__name__}: {error}"))
        return entry | {"error": " ".join(said.split())[:1000]}, {}
    bucket = BucketConfig().bucket_of(packed.seconds, packed.width, packed.height)
    entry |= _described(row, arrays) | {
        "bucket": None if bucket is None else str(bucket),
        "seconds": packed.seconds,
        "fps": packed.fps,
        "num_frames": packed.num_frames,
        "width": packed.width,
        "height": packed.height,
        "has_audio": packed.has_audio,
    }
    return entry, members


def person_of(row: Mapping[str, Any]) -> str:
    """What clips of one person share, as far as is known: the person, identity, portrait or source file."""
    identity = row.get("identity")
    of_source = f"{row.get('source')}/{identity}" if identity else None
    known = row.get("person_id") or of_source or row.get("portrait_id") or row.get("source_uri")
    return str(known or row["sample_id"])


def wanted_media(row: Mapping[str, Any], sound_rate: int = RATE) -> Wanted:
    """Which part of its file a row of a manifest is, and what was measured on it."""
    own = is_own_media(row)
    # A constant-rate copy was made after the content was hashed and the frames were counted.
    is_copy = own and row.get("constant_rate_fps") is not None
    return Wanted(
        start_s=None if own else row["start_s"],
        end_s=None if own else row["end_s"],
        rate=resampling_rate(row, STANDARD_RATES),
        is_uniform=not (row.get("size_changes") or row.get("interlaced")) or is_copy,
        size=(row["width"], row["height"]) if row.get("width") and row.get("height") else None,
        frames=None if is_copy else row.get("num_frames"),
        content_hash=None if is_copy else row.get("content_hash"),
        skip_s=row.get("clip_start_s") or 0.0,
        sound_rate=sound_rate,
        crop=crop_of(row),
    )


def pack_media(row: Mapping[str, Any], run: Path, wanted: Wanted) -> Packed:
    """The media of a row of the manifest in a run's folder; what lies elsewhere is downloaded meanwhile.

    Raises:
        MediaError: the file is no clip, or no longer the one that was measured.
        OSError: it cannot be had.
    """
    uri, _, _ = media_of(run, row)
    with local_copy(uri) as path:
        return pack(path, wanted)


def _json(sample: Sample) -> bytes:
    row = dict(sample.row) | {"run": sample.run, "preview": sample.preview}
    for name in LEFT_OUT:
        row.pop(name, None)
    text = json.dumps(_plain(row), ensure_ascii=False, allow_nan=False, sort_keys=False)
    return text.encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    """A value as JSON has it: no NaN, no infinity; what JSON does not know as text.

    Shards travel further than the manifest: no address in any text has a key.
    """
    if isinstance(value, Mapping):
        return {public_text(str(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, int | bool) else public_text(str(value))


def _arrays(sample: Sample, first_s: float) -> dict[str, npt.NDArray[Any]]:
    """What the run measured for training; see `manifests.shards.read_arrays`.

    Raises:
        FileNotFoundError, ValueError: the run's arrays are gone or damaged.
    """
    made: dict[str, npt.NDArray[Any]] = {}
    row, stages = sample.row, stage_dict(sample.row["stages"])

    def load(stage: str) -> dict[str, npt.NDArray[Any]]:
        return features.load_features(str(sample.folder), row, stage) if stage in stages else {}

    face = load("consistency").get("face_embedding")
    if face is not None and np.isfinite(face).all():
        made["identity"] = face.astype(np.float32)
    tokens = load("attributes").get("attribute_features")
    if tokens is not None and len(tokens):
        made["attributes"] = tokens.astype(np.float16)
    heard, rate = load("audio_features").get("audio_features"), row.get("audio_features_hz")
    if heard is not None and rate:
        # The shard's clock begins with the first picture, the run's with whatever comes first.
        heard = heard[round(first_s * rate) :]
        if len(heard):
            made["audio"] = heard.astype(np.float16)
            made["audio_hz"] = np.asarray(rate, np.float32)
    return made


def _npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    sink = io.BytesIO()
    np.savez(sink, allow_pickle=False, **arrays)
    return sink.getvalue()


def _described(row: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """The index's columns on arrays; width and embedder of those that are there."""
    said: dict[str, Any] = {}
    for array, has, width, embedder in (
        ("identity", "has_identity", "identity_dim", "face_embedder"),
        ("attributes", "has_attributes", "attribute_dim", "attribute_embedder"),
        ("audio", "has_audio_features", "audio_dim", "audio_embedder"),
    ):
        there = array in arrays
        said[has] = there
        said[width] = arrays[array].shape[-1] if there else None
        said[embedder] = row.get(embedder) if there else None
    return said
