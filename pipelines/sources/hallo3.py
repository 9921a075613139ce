"""Hallo3's training data: talking heads, and some scenes of the real world.

Facts:

- `videos/0001.mp4` with `caption/0001.txt` (README.md of fudan-generative-vision/hallo3).
- The release on Hugging Face (fudan-generative-ai/hallo3_training_data) is `.tgz` archives of videos, over 70
  hours of talking heads and more than 50 clips of other scenes; it came without captions (issue 46 of the
  repository).
- Licence: CC BY-NC-ND 4.0 (the card on Hugging Face).

A video without a text has no caption. Which videos are HDTF's, YouTube's or films' the release does not say
(issue 49).
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from pipelines.engine.looking import at_each
from pipelines.sources.reader import CAPTION, Reader, Tree, names_in, table_of

LICENCE = "CC-BY-NC-ND-4.0"
COLUMNS = {"caption": CAPTION}


def looks_like(root: Path) -> bool:
    """Whether videos and texts lie in folders of these names, or the archives do."""
    names = set(names_in(root))
    return {"videos", "caption"} <= names or {"videos", "videos.tgz"} <= names


def read(tree: Tree) -> pa.Table:
    """The videos, with the texts of their names."""
    texts = {name.rpartition("/")[2][:-4]: name for name in tree.files if _is_text(name)}
    videos = [name for name in tree.media if name.startswith("videos/")]
    captions = at_each(lambda name: _caption(tree, texts.get(_stem(name))), videos)
    rows = [
        {"uri": name, "licence": LICENCE, "caption": caption}
        for name, caption in zip(videos, captions, strict=True)
    ]
    return table_of(rows, COLUMNS)


def _is_text(name: str) -> bool:
    return name.startswith("caption/") and name.endswith(".txt")


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _caption(tree: Tree, name: str | None) -> str | None:
    return None if name is None else tree.path(name).read_text("utf-8", "replace").strip() or None


READER = Reader(
    title="Hallo3",
    looks_for="videos/0001.mp4 with caption/0001.txt",
    looks_like=looks_like,
    read=read,
    licence=LICENCE,
    columns=COLUMNS,
)
