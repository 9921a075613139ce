"""What CelebV-HQ and CelebV-Text share: a JSON of clips with ranges and boxes, whole and cut videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.engine.input_error import InputError
from pipelines.sources.reader import Tree


def clips_of(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The clips by name, and the rest of the JSON.

    Raises:
        InputError: it holds no clips.
    """
    try:
        data = json.loads(file.read_text("utf-8"))
        return dict(data["clips"]), data
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} cannot be read as the list of clips: {error!r}") from None


def place_of(tree: Tree, name: str, clip: dict[str, Any]) -> dict[str, Any]:
    """Address and range of a clip: the file that was cut for it, else its range of the whole video.

    Args:
        tree: the data set's.
        name: of the clip, as its cut file has it.
        clip: its entry: `ytb_id` is the name of the whole video, `duration` its range.
    """
    if name in tree.by_stem:
        return {"uri": tree.by_stem[name]}
    duration, video = clip["duration"], clip["ytb_id"]
    start, end = (duration.get(f"{side}_sec", duration.get(f"{side}_frame")) for side in ("start", "end"))
    whole = tree.by_stem.get(video, f"raw/{video}.mp4")
    return {"uri": whole, "start_s": float(start), "end_s": float(end)}
