"""ViCo: speakers and those who listen to them, in pairs of videos of the same time.

Facts, of the repository dc3ea9f/vico_challenge_baseline (README.md, preprocess/convert.py):

- The challenge's form: `train.csv` (one file for each side of the split, of its name) with `video_id`,
  `uuid`, `speaker_id`, `listener_id`; `videos/<uuid>.listener.mp4`, `videos/<uuid>.speaker.mp4` and
  `audios/<uuid>.wav`. Its README moves the videos on to `videos/test/`.
- The form before, which convert.py reads: one CSV with `audio`, `listener`, `speaker`, `speaker_id`,
  `listener_id`, `data_split`; `<listener>.mp4`, `<speaker>.mp4` and `<audio>.wav`.

Not verified: the terms of the data, for which the repository names none; and the attitudes (positive,
negative, neutral) of its paper, for which these lists have no column.

Each pair is two samples, one of the speaker and one of the listener. Videos and sound are found by their
names.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa

from manifests.schema import Field
from pipelines.sources.reader import IDENTITY, SPLIT, Reader, Row, Tree, names_in, table_of

LICENCE = "ViCo terms"
CHALLENGE = {"uuid", "speaker_id", "listener_id"}
EARLIER = {"audio", "listener", "speaker", "speaker_id", "listener_id"}
COLUMNS = {
    "identity": IDENTITY,
    "role": Field("string", "", "speaker or listener."),
    "pair": Field("string", "", "What the two videos of a pair share."),
    "other_identity": Field("string", "", "The other person of the pair."),
    "speech": Field("string", "path", "The speaker's sound, relative to the data set's folder."),
    "source_split": SPLIT,
}


def looks_like(root: Path) -> bool:
    """Whether one of its lists is there."""
    return bool(_lists(root))


def _lists(root: Path) -> list[Path]:
    """The CSV files in the folder with the columns of one of the two forms."""
    files = [root / name for name in names_in(root) if name.endswith(".csv")]
    return [file for file in files if (names := _header(file)) >= CHALLENGE or names >= EARLIER]


def _header(file: Path) -> set[str]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            return {name.strip() for name in next(csv.reader(text), [])}
    except (OSError, UnicodeError, csv.Error):
        return set()


def read(tree: Tree) -> pa.Table:
    """Both videos of each pair."""
    sounds = {name.rpartition("/")[2][:-4]: name for name in tree.files if name.endswith(".wav")}
    rows = []
    for file in _lists(tree.root):
        with file.open(encoding="utf-8-sig", newline="") as text:
            for pair in csv.DictReader(text):
                rows += [_row(tree, sounds, file.stem, pair, role) for role in ("speaker", "listener")]
    return table_of(rows, COLUMNS)


def _row(tree: Tree, sounds: dict[str, str], split: str, pair: dict[str, str], role: str) -> Row:
    is_challenge = "uuid" in pair
    stem = f"{pair['uuid']}.{role}" if is_challenge else pair[role]
    sound = pair["uuid"] if is_challenge else pair["audio"]
    other = "listener" if role == "speaker" else "speaker"
    return {
        "uri": tree.by_stem.get(stem, f"videos/{stem}.mp4"),
        "licence": LICENCE,
        "identity": pair[f"{role}_id"],
        "role": role,
        "pair": sound,
        "other_identity": pair[f"{other}_id"],
        "speech": sounds.get(sound),
        "source_split": split if is_challenge else pair.get("data_split"),
    }


READER = Reader(
    title="ViCo",
    looks_for="train.csv with the columns uuid, speaker_id, listener_id beside videos/<uuid>.speaker.mp4 and "
    "videos/<uuid>.listener.mp4, or a CSV with audio, listener, speaker, speaker_id, listener_id",
    looks_like=looks_like,
    read=read,
    licence=LICENCE,
    columns=COLUMNS,
)
