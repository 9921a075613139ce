"""MEAD: 60 actors speak with eight emotions at three intensities, seen from seven sides.

Facts:

- "We package the audio-visual data of each actor in a single folder named after MXXX or WXXX, where M and W
  indicate actor and actress" (README.md of uniBruce/Mead); eight emotions, three levels (neutral has one),
  seven views (https://wywu.github.io/projects/MEAD/MEAD.html).
- `M003/video/front/angry/level_1/001.mp4`: as many public repositories read it (haonanhe/MEAD-3D's README.md
  among them). Views: down, front, left_30, left_60, right_30, right_60, top. Emotions: angry, contempt,
  disgusted, fear, happy, neutral, sad, surprised. `video` may lie in a folder of its archive's name, or be
  left out.

Not verified: the terms, which are a PDF ("Terms of Use_ Mead.pdf" in the repository) that was not read. Sound
also comes as files of its own (`M003/audio/angry/level_1/001.m4a`), which are passed over.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from manifests.schema import Field
from pipelines.sources.reader import EMOTION, GENDER, IDENTITY, Reader, Tree, names_in, table_of

LICENCE = "MEAD terms of use"
COLUMNS = {
    "identity": IDENTITY,
    "gender": GENDER,
    "emotion": EMOTION,
    "emotion_level": Field("int", "1-3", "Intensity, 3 the strongest; neutral has 1 alone."),
    "view": Field("string", "", "Side that the camera sees, such as front or left_30."),
}
_PATH = re.compile(
    r"(?:.*/)?([MW]\d{3})/(?:.*/)?(down|front|left_30|left_60|right_30|right_60|top)/([a-z]+)/level_([123])/[^/]+"
)


def looks_like(root: Path) -> bool:
    """Whether a folder of an actor holds videos as they are packed."""
    return any(
        name in ("video", "video.tar", "front") or name.startswith("video")
        for actor in names_in(root)
        if re.fullmatch(r"[MW]\d{3}", actor)
        for name in names_in(root / actor)
    )


def read(tree: Tree) -> pa.Table:
    """The files whose paths say what they are."""
    rows = []
    for uri in tree.media:
        said = _PATH.fullmatch(uri)
        if said is not None:
            actor, view, emotion, level = said.groups()
            rows.append(
                {
                    "uri": uri,
                    "licence": LICENCE,
                    "identity": actor,
                    "gender": "male" if actor.startswith("M") else "female",
                    "emotion": emotion,
                    "emotion_level": int(level),
                    "view": view,
                }
            )
    return table_of(rows, COLUMNS)


READER = Reader(
    title="MEAD",
    looks_for="videos such as M003/video/front/angry/level_1/001.mp4",
    looks_like=looks_like,
    read=read,
    licence=LICENCE,
    columns=COLUMNS,
)
