"""RAVDESS: 24 actors speak and sing two sentences with eight emotions.

Facts, of Zenodo (record 1188976) and the paper (Livingstone & Russo 2018, doi:10.1371/journal.pone.0196391):

- A file's name has seven numbers, `02-01-06-01-02-01-12.mp4`: modality (01 picture and sound, 02 picture
  alone, 03 sound alone), channel (01 speech, 02 song), emotion (01 neutral, 02 calm, 03 happy, 04 sad, 05
  angry, 06 fearful, 07 disgust, 08 surprised), intensity (01 normal, 02 strong), statement (01 "Kids are
  talking by the door", 02 "Dogs are sitting by the door"), repetition, actor (01 to 24; odd numbers are male,
  even ones female).
- Archives `Video_Speech_Actor_01.zip` and `Video_Song_Actor_01.zip` hold folders `Actor_01`.
- Licence: CC BY-NC-SA 4.0; commercial licences are sold by the authors.

The files themselves are the list. Those of picture alone show the same performance as those with sound: the
column `modality` tells them apart, and screens that want speech drop them. Sound alone is passed over.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from manifests.schema import Field
from pipelines.sources.reader import EMOTION, GENDER, IDENTITY, Reader, Tree, names_in, table_of

LICENCE = "CC-BY-NC-SA-4.0"
MODALITIES = {"01": "picture and sound", "02": "picture"}
CHANNELS = {"01": "speech", "02": "song"}
EMOTIONS = dict(
    zip(
        (f"{number:02d}" for number in range(1, 9)),
        ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"),
        strict=True,
    )
)
INTENSITIES = {"01": "normal", "02": "strong"}
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
COLUMNS = {
    "identity": IDENTITY,
    "gender": GENDER,
    "emotion": EMOTION,
    "emotion_intensity": Field("string", "", "normal or strong."),
    "statement": Field("string", "", "The words that are said or sung."),
    "vocal_channel": Field("string", "", "speech or song."),
    "modality": Field("string", "", "picture and sound, or picture."),
    "repetition": Field("int", "", "1 or 2."),
}
_NAME = re.compile(r"(0[12])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)\.mp4")


def looks_like(root: Path) -> bool:
    """Whether files in it, or in a folder of an actor, are called so."""
    names = names_in(root)
    folders = [name for name in names if re.fullmatch(r"(Video_(Speech|Song)_)?Actor_\d\d", name)]
    inner = [root / name for name in folders[:3]]
    inner += [folder / name for folder in inner for name in names_in(folder, 9) if name.startswith("Actor_")]
    return any(_NAME.fullmatch(name) for name in [*names, *(n for folder in inner for n in names_in(folder))])


def read(tree: Tree) -> pa.Table:
    """The files whose names say what they are."""
    rows = []
    for uri in tree.media:
        said = _NAME.fullmatch(uri.rpartition("/")[2])
        if said is None:
            continue
        modality, channel, emotion, intensity, statement, repetition, actor = said.groups()
        rows.append(
            {
                "uri": uri,
                "licence": LICENCE,
                "identity": f"Actor_{actor}",
                "gender": "male" if int(actor) % 2 else "female",
                "emotion": EMOTIONS[emotion],
                "emotion_intensity": INTENSITIES[intensity],
                "statement": STATEMENTS[statement],
                "vocal_channel": CHANNELS[channel],
                "modality": MODALITIES[modality],
                "repetition": int(repetition),
            }
        )
    return table_of(rows, COLUMNS)


READER = Reader(
    title="RAVDESS",
    looks_for="videos such as Actor_12/02-01-06-01-02-01-12.mp4, as its archives hold them",
    looks_like=looks_like,
    read=read,
    licence=LICENCE,
    columns=COLUMNS,
)
