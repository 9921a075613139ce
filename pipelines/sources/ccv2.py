"""Casual Conversations v2 of Meta: monologues of 5,567 paid people of seven countries.

Facts (the data lie behind an agreement, so they are of those who published code for them):

- `CasualConversationsV2.json`, in the archive CCv2_annotations.zip: a list with an entry for each video,
  which has `video_name`, `subject_id`, `age`, `gender`, `native_language`, `monk_skin_tone` {`scale`,
  `confidence`} and `fitzpatrick_skin_tone` {`type`, `confidence`} (public code that reads it agrees; ages and
  genders are what participants said of themselves and may be "prefer not to say", HELM's
  casual_conversations2_scenario.py).
- Videos come in 80 archives CCv2_part_<number>.zip and are called `0818_portuguese_nonscripted_1.mp4`:
  subject, language, scripted or nonscripted, number.

Not verified: the text of the agreement (https://ai.meta.com/datasets/casual-conversations-v2-downloads/), and
in which folders the archives put the videos: they are found by their names, anywhere below the folder.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.schema import Field
from pipelines.engine.input_error import InputError
from pipelines.sources.reader import GENDER, IDENTITY, Reader, Row, Tree, each_row, find_file, table_of

LICENCE = "Casual Conversations v2 agreement (Meta)"
LIST = "CasualConversationsV2.json"
COLUMNS = {
    "identity": IDENTITY,
    "gender": GENDER,
    "age": Field("string", "", "Age as participants gave it, years or words."),
    "native_language": Field("string", "", "First language as participants gave it."),
    "language": Field("string", "", "Language that is spoken, by the file's name."),
    "is_scripted": Field("bool", "", "A given text is read, by the file's name."),
    "monk_skin_tone": Field("string", "", "Tone of the Monk scale, as annotated."),
    "fitzpatrick_skin_tone": Field("string", "", "Type of the Fitzpatrick scale, as annotated."),
}
_NAME = re.compile(r"(?:.*_)?\d+_(?P<language>.+)_(?P<kind>scripted|nonscripted)_\d+")


def looks_like(root: Path) -> bool:
    """Whether its annotations are there."""
    return find_file(root, [LIST]) is not None


def read(tree: Tree) -> pa.Table:
    """The videos of the annotations.

    Raises:
        InputError: they cannot be read.
    """
    file = find_file(tree.root, [LIST])
    assert file is not None, "the folder was looked at"
    try:
        videos = json.loads(file.read_text("utf-8"))
        entries = [(video.get("video_name", ""), video) for video in videos]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file} cannot be read as a list of videos: {error!r}") from None
    rows = each_row("Casual Conversations v2", entries, lambda _, video: _row(tree, video))
    return table_of(rows, COLUMNS)


def _row(tree: Tree, video: dict[str, Any]) -> Row:
    name = str(video["video_name"])
    stem = name.rpartition("/")[2]
    stem = stem[:-4] if stem.lower().endswith(".mp4") else stem
    said = _NAME.fullmatch(stem)
    return {
        "uri": tree.by_stem.get(stem, f"{stem}.mp4"),
        "licence": LICENCE,
        "identity": _text(video["subject_id"]),
        "gender": _text(video.get("gender")),
        "age": _text(video.get("age")),
        "native_language": _text(video.get("native_language")),
        "language": None if said is None else said["language"],
        "is_scripted": None if said is None else said["kind"] == "scripted",
        "monk_skin_tone": _text((video.get("monk_skin_tone") or {}).get("scale")),
        "fitzpatrick_skin_tone": _text((video.get("fitzpatrick_skin_tone") or {}).get("type")),
    }


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


READER = Reader(
    title="Casual Conversations v2",
    looks_for=f"{LIST} beside the videos, such as 0818_portuguese_nonscripted_1.mp4 (in any folders)",
    looks_like=looks_like,
    read=read,
    licence=LICENCE,
    columns=COLUMNS,
)
