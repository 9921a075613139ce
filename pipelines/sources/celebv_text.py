"""CelebV-Text: faces with twenty sentences each, cut out of YouTube videos.

Facts, of the repository celebv-text/CelebV-Text (README.md, download_and_process.py):

- `celebvtext_info.json`: `clips`: name -> `ytb_id`, `duration`, `bbox` {`top`, `bottom`, `left`, `right`} in
  pixels of the best video that YouTube had. `duration` has `start_sec` and `end_sec`; one of the README's two
  examples calls them `start_frame` and `end_frame`, with fractions, and says that they are times: they are
  read as s.
- The script puts whole videos into `downloaded_celebvtext/raw/<ytb_id>.mp4` and cut ones, where that is asked
  for, into `downloaded_celebvtext/processed/<name>.mp4`.
- Texts come in one download each for general and detailed face attributes, emotion, action, light direction,
  light intensity and light colour temperature.
- Terms: for non-commercial research, not to be copied or published further (README.md, Agreement).

Not verified: how the downloads of texts are laid out. Read is every `<name>.txt` below the folder, one
sentence a line; the caption is the first sentence of each folder of texts, folders in the order of their
names.

The sizes of whole videos are read, to turn pixels into shares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from media.crop import CROP
from media.files import MediaError
from media.size import shown_size
from pipelines.engine.addresses import PROBLEM
from pipelines.engine.looking import at_each
from pipelines.sources.celebv import clips_of, place_of
from pipelines.sources.reader import CAPTION, Reader, Row, Tree, each_row, find_file, table_of

LICENCE = "non-commercial research only (CelebV-Text agreement)"
LIST = "celebvtext_info.json"
COLUMNS = {"caption": CAPTION}
# How far a box may lie outside, share of the side.
SLACK = 0.005


def looks_like(root: Path) -> bool:
    """Whether its list is there."""
    return find_file(root, [LIST]) is not None


def read(tree: Tree) -> pa.Table:
    """The clips of the list."""
    file = find_file(tree.root, [LIST])
    assert file is not None, "the folder was looked at"
    clips, _ = clips_of(file)
    whole = sorted({w for w in (_whole(tree, name, clip) for name, clip in clips.items()) if w is not None})
    sizes = dict(zip(whole, at_each(lambda name: _size(tree.path(name)), whole), strict=True))
    texts = _texts(tree, set(clips))
    sentences = dict(zip(texts, at_each(lambda name: _caption(tree, texts[name]), list(texts)), strict=True))

    def row(name: str, clip: dict[str, Any]) -> Row:
        place = place_of(tree, name, clip)
        size = sizes.get(place["uri"]) if "start_s" in place else None
        cropped = {} if size is None else _crop(name, clip["bbox"], size)
        return {**place, **cropped, "licence": LICENCE, "caption": sentences.get(name)}

    return table_of(each_row("CelebV-Text", clips.items(), row), COLUMNS)


def _whole(tree: Tree, name: str, clip: Any) -> str | None:
    """The whole video that a clip is a part of; None: it was cut out, or its entry is broken."""
    video = clip.get("ytb_id") if isinstance(clip, dict) else None
    return None if name in tree.by_stem else tree.by_stem.get(str(video))


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return shown_size(path)
    except (MediaError, OSError):  # said by the stage that opens it
        return None


def _crop(name: str, box: dict[str, Any], size: tuple[int, int]) -> Row:
    width, height = size
    edges = (box["left"] / width, box["top"] / height, box["right"] / width, box["bottom"] / height)
    if not all(0 <= edge <= 1 + SLACK for edge in edges):
        return {
            PROBLEM: f"the box of {name}, {box['left']} {box['top']} {box['right']} {box['bottom']} px, lies "
            f"outside of the video of {width}x{height}: it was measured on a larger one"
        }
    return dict(zip(CROP, (min(edge, 1.0) for edge in edges), strict=True))


def _texts(tree: Tree, clips: set[str]) -> dict[str, list[str]]:
    """The files of sentences of each clip, by the names of their folders."""
    texts: dict[str, list[str]] = {}
    for name in tree.files:
        if name.endswith(".txt") and (stem := name.rpartition("/")[2][:-4]) in clips:
            texts.setdefault(stem, []).append(name)
    return texts


def _caption(tree: Tree, files: list[str]) -> str | None:
    sentences = []
    for name in files:
        lines = tree.path(name).read_text("utf-8", "replace").split("\n")
        sentences += [line.strip() for line in lines if line.strip()][:1]
    return " ".join(sentences) or None


READER = Reader(
    title="CelebV-Text",
    looks_for=f"{LIST} beside the whole videos <youtube id>.mp4 or the clips <youtube id>_<number>.mp4, and "
    "texts <youtube id>_<number>.txt (in any folders)",
    looks_like=looks_like,
    read=read,
    licence=LICENCE,
    columns=COLUMNS,
)
