"""The folder as FiftyOne's documentation says that its `CSVDataset` is read; FiftyOne itself is not run."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from manifests import store
from pipelines.export.clips import write_clips
from pipelines.export.fiftyone import OWNED, write_fiftyone
from pipelines.export.rows import open_run
from tests.support.clips import make_clip
from tests.support.export_runs import OWN
from tests.support.shard_runs import finished_run

PARSE: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: text == "true",
}


def test_every_line_has_its_clip_and_its_values(run: Path, tmp_path: Path) -> None:
    opened = open_run(str(run), everything=True)
    files = write_clips(opened, tmp_path / "data", "inline").files
    assert write_fiftyone(opened, tmp_path, {n: f"data/{file}" for n, file in files.items()}) == 3
    kinds = json.loads((tmp_path / "fields.json").read_text())
    expected = {row["sample_id"]: row for row in store.read(run / "manifest").to_pylist()}
    with (tmp_path / "labels.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3
    for line in lines:
        assert (tmp_path / "data" / line.pop("filepath")).is_file()
        row = expected[line["sample_id"]]
        assert line.pop("drop_reasons") == ",".join(row["drop_reasons"])
        for name, text in line.items():
            assert re.fullmatch(r"[^_.][^.]*", name) and name not in OWNED
            told = PARSE[kinds[name]](text) if text else None
            column = {"input_tags": "tags", "input_id": "id", "note_x": "note.x"}.get(name, name)
            value = row[column]
            assert told == (value.replace("\0", " ") if isinstance(value, str) else value), name
    assert {"input_tags", "input_id", "note_x"} <= set(lines[0]) and OWN["tags"] == lines[0]["input_tags"]


def test_columns_whose_fields_would_be_the_same_have_fields_of_their_own(tmp_path: Path) -> None:
    own = {"a.b": "1", "a_b": "2", "_a_b": "3", "tags": "4", "input_tags": "5", "drop.reasons": "6"}
    make_clip(tmp_path / "clip.mp4", seconds=1)
    row = {"uri": str(tmp_path / "clip.mp4"), "start_s": None, "end_s": None, "caption": None}
    row |= {"licence": None, "interaction_prompt": None, "interaction_x": None, "interaction_y": None}
    opened = open_run(str(finished_run(tmp_path / "run", [row | own])), everything=True)
    (name,) = opened.files and store.read(tmp_path / "run" / "manifest")["sample_id"].to_pylist()
    assert write_fiftyone(opened, tmp_path / "out", {name: "data/x.mp4"}) == 1
    with (tmp_path / "out" / "labels.csv").open(newline="") as file:
        ((head, line),) = [list(csv.reader(file))]
    assert len(set(head)) == len(head)
    fields = dict(zip(head, line, strict=True))
    assert {name: fields[name] for name in ("a_b", "a_b_2", "a_b_3", "input_tags", "input_tags_2")} == {
        **{"a_b": "2", "a_b_2": "1", "a_b_3": "3", "input_tags": "5", "input_tags_2": "4"},
    }
    assert fields["drop_reasons_2"] == "6" and fields["drop_reasons"] != "6"
    assert set(json.loads((tmp_path / "out" / "fields.json").read_text())) == set(head) - {
        "filepath",
        "drop_reasons",
    }
