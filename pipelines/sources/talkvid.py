"""TalkVid: clips of 7,729 speakers of 15 languages, cut out of YouTube videos, with captions.

Facts, of the repository FreedomIntelligence/TalkVid (README.md, data_pipeline/0_video_download):

- The list is a JSON array (`filtered_video_clips.json` of the data set on Hugging Face, and one with
  captions): `id`, `start-time`, `end-time` (s), `info` {`Person ID`, `Ethnicity`, `Age Group`, `Gender`,
  `Video Link`, `Language`, `Video Category`}, `description`, `dover_scores`, `cotracker_ratio`,
  `head_detail`.
- The downloader cuts the clips out: `<video id>/<video id>_001_10.500_25.300.mp4`, number of the section,
  start and end with three decimals. (Where yt-dlp has no number, `NA` stands there.) Logs lie in
  `json_logs/`.
- Licence: CC BY-NC 4.0 (README.md and the card on Hugging Face).

A clip is found by video, start and end, to a hundredth of a second.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa

from manifests.schema import Field
from pipelines.engine.input_error import InputError
from pipelines.sources.reader import (
    CAPTION,
    GENDER,
    IDENTITY,
    Reader,
    Row,
    Tree,
    each_row,
    find_file,
    table_of,
)

LICENCE = "CC-BY-NC-4.0"
LISTS = (
    "filtered_video_clips_with_captions.json",
    "filtered_video_clips.json",
    "input.json",
)
COLUMNS = {
    "identity": IDENTITY,
    "gender": GENDER,
    "caption": CAPTION,
    "language": Field("string", "", "Language, in the data set's words."),
    "age_group": Field("string", "", "Age, such as 31-45."),
    "ethnicity": Field("string", "", "Ethnicity, in the data set's words."),
    "category": Field("string", "", "What the video is about, in the data set's words."),
    "talkvid_id": Field("string", "", "The clip's id in TalkVid."),
    "talkvid_dover": Field("float", "", "TalkVid's DOVER score."),
    "talkvid_cotracker_ratio": Field("float", "0-1", "TalkVid's share of points that CoTracker follows."),
}
_CUT = re.compile(r"(?P<video>.+)_(?:\d+|NA)_(?P<start>\d+\.\d+)_(?P<end>\d+\.\d+)")


def looks_like(root: Path) -> bool:
    """Whether its list is there."""
    return find_file(root, LISTS[:2]) is not None or (
        (root / LISTS[2]).is_file() and _is_its(root / LISTS[2])
    )


def _is_its(file: Path) -> bool:
    with file.open(encoding="utf-8", errors="replace") as text:
        return '"Video Link"' in text.read(1 << 16)


def read(tree: Tree) -> pa.Table:
    """The clips of the list.

    Raises:
        InputError: it cannot be read.
    """
    file = find_file(tree.root, LISTS)
    assert file is not None, "the folder was looked at"
    cut = {}
    for stem, name in tree.by_stem.items():
        if (said := _CUT.fullmatch(stem)) is not None:
            cut[_key(said["video"], float(said["start"]), float(said["end"]))] = name
    try:
        clips = json.loads(file.read_text("utf-8"))
        entries = [(clip.get("id", ""), clip) for clip in clips]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file} cannot be read as a list of clips: {error!r}") from None
    return table_of(each_row("TalkVid", entries, lambda _, clip: _row(cut, clip)), COLUMNS)


def _key(video: str, start: float, end: float) -> tuple[str, int, int]:
    return video, round(start * 100), round(end * 100)


def _row(cut: dict[tuple[str, int, int], str], clip: dict[str, Any]) -> Row:
    info = clip["info"]
    video = _video_id(info["Video Link"])
    start, end = float(clip["start-time"]), float(clip["end-time"])
    name = cut.get(_key(video, start, end), f"{video}/{video}_001_{start:.3f}_{end:.3f}.mp4")
    return {
        "uri": name,
        "licence": LICENCE,
        "identity": _text(info.get("Person ID")),
        "gender": info.get("Gender"),
        "caption": clip.get("description"),
        "language": info.get("Language"),
        "age_group": info.get("Age Group"),
        "ethnicity": info.get("Ethnicity"),
        "category": info.get("Video Category"),
        "talkvid_id": _text(clip.get("id")),
        "talkvid_dover": clip.get("dover_scores"),
        "talkvid_cotracker_ratio": clip.get("cotracker_ratio"),
    }


def _video_id(link: str) -> str:
    """The id in a link of YouTube."""
    parts = urlsplit(link)
    return (parse_qs(parts.query).get("v") or [parts.path.rpartition("/")[2]])[0]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


READER = Reader(
    title="TalkVid",
    looks_for="filtered_video_clips.json (or ..._with_captions.json; in the folder or in data/) beside clips "
    "such as <video id>/<video id>_001_10.500_25.300.mp4, as its downloader cuts them",
    looks_like=looks_like,
    read=read,
    licence=LICENCE,
    columns=COLUMNS,
)
