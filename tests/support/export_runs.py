"""A small finished run to export: whole files and ranges, touched and not, hostile names, a broken file."""

from __future__ import annotations

from pathlib import Path

from tests.support.clips import make_clip
from tests.support.shard_runs import HOSTILE, SENTENCE, finished_run

# Columns of the list whose names mean something to the tools.
OWN = {"video": "v", "my_file_name": "../../x", "tags": "t", "id": "7", "a b/é": "<é>", "note.x": None}


def make_run(folder: Path) -> Path:
    """Two clips that are kept, one too short, one broken; ids begin with whole, range, short, broken."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = make_clip(folder / "whole & 'odd' ü.mp4", seconds=2, size="160x120")
    long = make_clip(folder / "long.mp4", seconds=6, size="160x120")
    broken = folder / "broken.mp4"
    broken.write_bytes(b"no video")
    touch = {"interaction_prompt": SENTENCE, "interaction_x": 0.5, "interaction_y": 0.99}
    none = dict.fromkeys(touch)
    rows = [
        {
            "uri": str(whole),
            "start_s": None,
            "end_s": None,
            "caption": HOSTILE,
            "licence": "CC BY 4.0",
            **touch,
        },
        {"uri": str(long), "start_s": 1.0, "end_s": 3.0, "caption": None, "licence": "CC BY 4.0", **none},
        {"uri": str(long), "start_s": 3.0, "end_s": 3.5, "caption": "short", "licence": "| <b>", **none},
        {"uri": str(broken), "start_s": None, "end_s": None, "caption": None, "licence": None, **none},
    ]
    return finished_run(folder / "run", [row | OWN for row in rows])
