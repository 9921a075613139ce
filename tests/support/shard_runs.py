"""Small finished runs for the tests of shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from manifests import store
from manifests.screen import Rule, Screen
from media.requests import Audio
from pipelines.shards.plan import make_plan, open_runs
from pipelines.shards.write import write_shards
from stages.clip import Clip
from stages.contract import Array, Column, Score, Stage
from stages.probe import Probe
from tests.support.helpers import execute

SENTENCE = "The person is reacting right after being poked."
SCREEN = Screen(name="toy", rules=[Rule(reason="too_short", column="duration_s", min=1, source="a toy")])
HOSTILE = '../../<b>"quoted", caption\nof two lines\0'


class Consistency(Stage):
    """A face wherever the picture is wide."""

    reads = ("width",)
    writes: ClassVar = {
        "face_embedding": Array("[D]", "", ""),
        "face_embedder": Column("string", "", ""),
        "odd_score": Score("1", ""),
    }

    def score(self, clip: Clip) -> dict[str, Any]:
        face = np.arange(4, dtype=np.float32) if clip["width"] > 64 else np.full(1, np.nan, np.float32)
        return {"face_embedding": face, "face_embedder": "toy face", "odd_score": None}


class Attributes(Stage):
    writes: ClassVar = {
        "attribute_features": Array("[N, D]", "", ""),
        "attribute_embedder": Column("string", "", ""),
    }

    def score(self, clip: Clip) -> dict[str, Any]:
        return {"attribute_features": np.ones((3, 5), np.float16), "attribute_embedder": "toy attributes"}


class AudioFeatures(Stage):
    sees = (Audio(16000),)
    writes: ClassVar = {
        "audio_features": Array("[T, D]", "", ""),
        "audio_features_hz": Score("Hz", ""),
        "audio_embedder": Column("string", "", ""),
    }

    def score(self, clip: Clip) -> dict[str, Any]:
        heard = clip.audio(Audio(16000))
        rows = 0 if heard is None else len(heard) // 320
        features = np.repeat(np.arange(rows, dtype=np.float16)[:, None], 2, axis=1)
        rate = None if heard is None else 50.0
        return {"audio_features": features, "audio_features_hz": rate, "audio_embedder": "toy audio"}


class Given(Stage):
    """What a list says of a clip."""

    names = ("caption", "interaction_prompt", "interaction_x", "interaction_y")
    reads = tuple(f"input_{name}" for name in names)
    writes: ClassVar = {
        "caption": Column("string", "", ""),
        "interaction_prompt": Column("string", "", ""),
        "interaction_x": Score("0-1", ""),
        "interaction_y": Score("0-1", ""),
    }

    def score(self, clip: Clip) -> dict[str, Any]:
        return {name: clip[f"input_{name}"] for name in self.names}


def finished_run(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A run of probe and toy features over an input list, which lies beside it."""
    listed = folder.parent / f"{folder.name}.parquet"
    store.write_table(listed, pa.Table.from_pylist(rows))
    stages = [Probe(), Given(), Consistency(), Attributes(), AudioFeatures()]
    record = execute(stages, listed, folder, screen=SCREEN)
    assert record["counts"]["ids_out"] == len(rows)
    return folder


def write(run: Path | list[Path], output: Path, size: int = 10**9, **options: Any) -> dict[str, Any]:
    runs = [str(r) for r in (run if isinstance(run, list) else [run])]
    preview = options.pop("allow_preview", False)
    plan = make_plan(open_runs(runs, options.pop("weights", {}), preview), size)
    return write_shards(plan, output, options.pop("engine", "inline"), **options)


def contents(folder: Path) -> dict[str, bytes]:
    """What a reader sees: the tars and the index."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != ".lock"}
