"""OpenHumanVid: millions of clips of people with captions and scores.

Facts (the data lie behind a form, so they are of those who published code for them; two repositories agree):

- `OpenHumanVid_part_001.csv`, ... with `clip_id`, `path`, `caption`, `luminance_min`, `luminance_max`,
  `blur_min`, `blur_max`, `aesthetic`, `technical_score`, `global_motion`; empty columns may follow. `path` is
  `clips/part_001/f6/05/f605b8e91db3dd66865f3ea1b4e3621d`, and the video lies at
  `part_001/f6/05/f605b8e91db3dd66865f3ea1b4e3621d.mp4`.
- What the scores mean, and the limits that they were filtered by, is in the pipeline's figure (README.md of
  fudan-generative-vision/OpenHumanVid): luminance 10-210, blur (CPBD), aesthetic (VILA), technical (DOVER),
  motion (UniMatch).

Not verified: the text of the licence, a file LICENSE of that repository that was not to be had; and the
form's own layout, for these CSV files are those of the subset HQ-OpenHumanVid.

The CSV files lie in the folder, the videos below it or below its `clips/`. Rows are read by columns: no
Python runs for each of them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import Field
from pipelines.engine.addresses import PROBLEM
from pipelines.engine.lists import URI
from pipelines.sources.reader import CAPTION, Reader, Tree, described, names_in
from pipelines.sources.tables import read_tables, texts

LICENCE = "OpenHumanVid licence"
_LIST = re.compile(r"OpenHumanVid_part_\w+\.csv")
SCORES = {
    "luminance_min": Field("float", "0-255", "OpenHumanVid's lowest luminance."),
    "luminance_max": Field("float", "0-255", "OpenHumanVid's highest luminance."),
    "blur_min": Field("float", "0-1", "OpenHumanVid's lowest sharpness (CPBD)."),
    "blur_max": Field("float", "0-1", "OpenHumanVid's highest sharpness (CPBD)."),
    "aesthetic": Field("float", "", "OpenHumanVid's aesthetic score (VILA)."),
    "technical_score": Field("float", "", "OpenHumanVid's technical score (DOVER)."),
    "global_motion": Field("float", "", "OpenHumanVid's motion score (UniMatch)."),
}
COLUMNS = {
    "caption": CAPTION,
    "clip_id": Field("string", "", "The clip's id in OpenHumanVid."),
    **{f"openhumanvid_{name}": column for name, column in SCORES.items()},
}


def looks_like(root: Path) -> bool:
    """Whether one of its lists is there."""
    return bool(_lists(root))


def _lists(root: Path) -> list[Path]:
    return [root / name for name in names_in(root) if _LIST.fullmatch(name)]


def read(tree: Tree) -> pa.Table:
    """The clips of the lists."""
    tables = [_clips(tree.root, table) for table in read_tables(_lists(tree.root), "path")]
    return pa.concat_tables(tables, promote_options="default")


def _clips(root: Path, table: pa.Table) -> pa.Table:
    path = table[URI]
    if not (root / "clips").is_dir():
        path = pc.replace_substring_regex(path, "^clips/", "")
    columns: dict[pa.Field, pa.ChunkedArray] = {
        pa.field(URI, pa.string()): pc.binary_join_element_wise(path, ".mp4", ""),
        pa.field("licence", pa.string()): pa.chunked_array([pa.repeat(LICENCE, table.num_rows)]),
        described("caption", CAPTION): texts(table, "caption"),
        described("clip_id", COLUMNS["clip_id"]): texts(table, "clip_id"),
    }
    if PROBLEM in table.column_names:
        columns[pa.field(PROBLEM, pa.string())] = table[PROBLEM]
    for name, column in SCORES.items():
        columns[described(f"openhumanvid_{name}", column)] = texts(table, name).cast(pa.float64())
    return pa.table(list(columns.values()), schema=pa.schema(list(columns)))


READER = Reader(
    title="OpenHumanVid",
    looks_for="OpenHumanVid_part_001.csv, ... beside part_001/f6/05/<clip id>.mp4",
    looks_like=looks_like,
    read=read,
    licence=LICENCE,
    columns=COLUMNS,
)
