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
from tests.support.export_runs import OWN

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
