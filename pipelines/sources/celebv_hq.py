"""CelebV-HQ: faces of celebrities with attributes, actions and emotions, cut out of YouTube videos.

Facts, of the repository CelebV-HQ/CelebV-HQ (README.md, download_and_process.py):

- `celebvhq_info.json`: `meta_info` (`appearance_mapping` and `action_mapping`, names of attributes) and
  `clips`: name -> `ytb_id`, `duration` {`start_sec`, `end_sec`}, `bbox` {`top`, `bottom`, `left`, `right`} in
  shares of the picture, `attributes` {`appearance` and `action`: 0 or 1 in the order of the mappings,
  `emotion`}.
- `emotion`: `{"sep_flag": false, "labels": "neutral"}`, or with `sep_flag` true a list of `emotion`,
  `start_sec`, `end_sec`.
- The script puts whole videos into `downloaded_celebvhq/raw/<ytb_id>.mp4` and cut ones, where that is asked
  for, into `downloaded_celebvhq/processed/<name>.mp4`. It widens the box by 0.02 on each side and makes it
  square; here the published box is taken as it is.
- Terms: for non-commercial research, not to be copied or published further (README.md, Agreement).

`gender` is the attribute Male. Persons are not named.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.schema import Field
from media.crop import CROP
from pipelines.sources.celebv import clips_of, place_of
from pipelines.sources.reader import EMOTION, GENDER, Reader, Row, Tree, each_row, find_file, table_of

LICENCE = "non-commercial research only (CelebV-HQ agreement)"
LIST = "celebvhq_info.json"
COLUMNS = {
    "emotion": EMOTION,
    "emotions": Field(
        "strings", "", "All emotions of the clip in order; where they differ `emotion` is null."
    ),
    "gender": GENDER,
    "appearance": Field("strings", "", "Attributes of appearance that CelebV-HQ says the face has."),
    "actions": Field("strings", "", "Actions that CelebV-HQ says happen."),
}


def looks_like(root: Path) -> bool:
    """Whether its list is there."""
    return find_file(root, [LIST]) is not None


def read(tree: Tree) -> pa.Table:
    """The clips of the list."""
    file = find_file(tree.root, [LIST])
    assert file is not None, "the folder was looked at"
    clips, rest = clips_of(file)
    names = {kind: rest.get("meta_info", {}).get(f"{kind}_mapping", []) for kind in ("appearance", "action")}
    rows = each_row("CelebV-HQ", clips.items(), lambda name, clip: _row(tree, name, clip, names))
    return table_of(rows, COLUMNS)


def _row(tree: Tree, name: str, clip: dict[str, Any], names: dict[str, list[str]]) -> Row:
    place = place_of(tree, name, clip)
    if "start_s" in place:
        box = clip["bbox"]
        place |= dict(zip(CROP, (box["left"], box["top"], box["right"], box["bottom"]), strict=True))
    attributes = clip.get("attributes", {})
    labels = attributes.get("emotion", {}).get("labels") or []
    emotions = [labels] if isinstance(labels, str) else [label["emotion"] for label in labels]
    flags = {kind: attributes.get(kind, []) for kind in names}
    has = {
        kind: [word for word, flag in zip(names[kind], flags[kind], strict=False) if flag] for kind in names
    }
    says_gender = "Male" in names["appearance"][: len(flags["appearance"])]
    return {
        **place,
        "licence": LICENCE,
        "emotion": emotions[0] if len(set(emotions)) == 1 else None,
        "emotions": emotions or None,
        "gender": ("male" if "Male" in has["appearance"] else "female") if says_gender else None,
        "appearance": has["appearance"] if flags["appearance"] else None,
        "actions": has["action"] if flags["action"] else None,
    }


READER = Reader(
    title="CelebV-HQ",
    looks_for=f"{LIST} beside the whole videos <youtube id>.mp4 or the clips <youtube id>_<number>.mp4 "
    "(in any folders, such as downloaded_celebvhq/raw/ and processed/ of its script)",
    looks_like=looks_like,
    read=read,
    licence=LICENCE,
    columns=COLUMNS,
)
