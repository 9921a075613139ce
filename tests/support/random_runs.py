"""Finished runs of random rows without media, in as many files as one likes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from manifests import store
from manifests.schema import manifest_schema, stage_dict, to_table
from manifests.screen import Rule, Screen
from stages.contract import Column

COLUMNS = {
    "bitrate_per_pixel": Column("float", "", ""),
    "video_codec": Column("string", "", ""),
    "pixel_format": Column("string", "", ""),
    "mirrored": Column("bool", "", ""),
    "rotation": Column("int", "", ""),
    "variable_frame_rate": Column("bool", "", ""),
    "attribute_embedder": Column("string", "", ""),
    "audio_embedder": Column("string", "", ""),
    "synthesis_by": Column("string", "", ""),
    "odd": Column("float", "", ""),
    "even": Column("float", "", ""),
    "words": Column("strings", "", ""),
}
# Two rules share a reason, two a column, and one reason comes before it is a rule's.
SCREEN = Screen(
    name="random",
    rules=[
        Rule(reason="low", column="odd", min=0.2),
        Rule(reason="high", column="even", max=0.8, missing="pass"),
        Rule(reason="low", column="even", min=0.1),
        Rule(reason="narrow", column="width", min=1),
        Rule(reason="odd", column="odd", max=0.9),
    ],
)
SCHEMA = manifest_schema(COLUMNS)


def random_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows with nulls, NaN and infinities; a third are kept, some are in error, stopped or previews."""
    rng = np.random.default_rng(seed)

    def one(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    rows = []
    for number in range(count):
        source = f"/in/{number}.mp4"
        error = {"stage": "s", "kind": "K", "message": "m", "traceback": "", "fingerprint": "f"}
        row = {
            "sample_id": f"{one('a', 'B', 'é', '_', 'clip')}-{number:05d}",
            "source_uri": one(source, source, None),
            "media_uri": one(source, source, "/made.mp4", None),
            "start_s": one(None, None, 1.5, float("nan")),
            "end_s": one(None, None, 2.5),
            "source_size": one(None, 0, int(rng.integers(1, 10**7))),
            "fps": one(None, 0.0, 25.0, 29.97, 23.976),
            "num_frames": one(None, 0, int(rng.integers(1, 1000))),
            "width": one(None, 640, 1920),
            "height": one(None, 480, 1080),
            "has_audio": one(None, False, True, True),
            "bitrate_per_pixel": one(None, 0.0, -1.0, float("nan"), float("inf"), float(rng.random())),
            "video_codec": one(None, "h264", "h264", "h264", "hevc"),
            "pixel_format": one(None, "yuv420p", "yuv420p", "yuv422p"),
            "mirrored": one(None, False, False, True),
            "rotation": one(None, 0, 0, 90),
            "variable_frame_rate": one(None, False, False, True),
            "attribute_embedder": one(None, "", "dinov2 x", "another"),
            "audio_embedder": one(None, "", "wav2vec2(x, y)"),
            "synthesis_by": one(None, "wan", "stand_in_warp", "stand_in_warp"),
            "odd": one(None, float("nan"), float(rng.random()), 0.5),
            "even": one(None, float(rng.random()), 0.5),
            "words": one(None, [], ["a", None], ["bé"]),
            "caption": one(None, "Someone.", "é" * int(rng.integers(30))),
            "error": one(*[None] * 20, error),
            "stopped": one(*[None] * 20, {"stage": "gate", "reason": "dark", "waits": False}),
            "stages": [("probe", "1"), ("quality", "2")][: int(rng.integers(3))],
            "keep": one(None, False, True),
            "drop_reasons": one(
                *[None, [], ["stand_in"], ["stand_in"], ["stand_in", "low"], ["missing:odd"], ["odd", "low"]],
                *[
                    ["narrow"],
                    ["high", "missing:even"],
                    ["missing:width", "odd"],
                    ["of another screen"],
                    [None],
                ],
            ),
        }
        rows.append(row)
    return rows


def random_run(folder: Path, rows: Sequence[dict[str, Any]], rows_per_file: int = 10**6) -> Path:
    """A finished run of these rows; each file is sorted by sample_id, as a merge leaves it."""
    for number, start in enumerate(range(0, max(1, len(rows)), rows_per_file)):
        some = rows[start : start + rows_per_file]
        table = to_table(({**row, "stages": stage_dict(row.get("stages"))} for row in some), SCHEMA)
        store.write_table(folder / "manifest" / f"manifest-{number:05d}.parquet", table.sort_by("sample_id"))
    screen = SCREEN.model_dump(mode="json", exclude_none=True)
    record = {
        "run_id": "r-1",
        "status": "finished",
        "started": "2025-01-01T00:00:00Z",
        "pipeline": "talking_head",
        "input": "in",
        "profile": {"name": "laptop"},
        "screen": screen,
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder
