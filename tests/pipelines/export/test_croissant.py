"""What the checker of Croissant says of the metadata, and the records that it reads through them."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from manifests import store
from pipelines.export.croissant import METADATA, RECORDS, write_croissant
from pipelines.export.rows import open_run
from tests.support.export_runs import OWN

mlcroissant = pytest.importorskip("mlcroissant")


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value


@pytest.mark.parametrize("everything", [False, True])
def test_the_checker_reads_every_record(run: Path, tmp_path: Path, everything: bool) -> None:
    count = write_croissant(open_run(str(run), everything), tmp_path)
    data = mlcroissant.Dataset(str(tmp_path / METADATA))
    issues = data.metadata.ctx.issues
    assert not issues.errors and not [w for w in issues.warnings if "citeAs" not in w]
    names = {field.id: field.name for field in data.metadata.record_sets[0].fields}
    records = [{names[k]: plain(v) for k, v in r.items()} for r in data.records(RECORDS)]
    assert len(records) == count == (4 if everything else 2)
    expected = {row["sample_id"]: row for row in store.read(run / "manifest").to_pylist()}
    for record in records:
        row = expected[record["sample_id"]]
        assert {"caption", "fps", "num_frames", "keep", "drop_reasons", *OWN} <= set(record)
        assert all(plain(row[name]) == value for name, value in record.items())


def test_structs_are_in_the_file_and_no_fields(run: Path, tmp_path: Path) -> None:
    write_croissant(open_run(str(run)), tmp_path)
    fields = json.loads((tmp_path / METADATA).read_text())["recordSet"][0]["field"]
    names = {field["name"] for field in fields}
    assert not {"stages", "error", "stopped", "arrays", "media_uri"} & names
    assert {field["dataType"] for field in fields} == {"sc:Text", "sc:Float", "sc:Integer", "sc:Boolean"}
    (described,) = [field for field in fields if field["name"] == "interaction_x"]
    assert described["description"].endswith("share of the width from the left. [0-1]")


def test_the_hash_is_that_of_the_file(run: Path, tmp_path: Path) -> None:
    write_croissant(open_run(str(run)), tmp_path)
    (file,) = json.loads((tmp_path / METADATA).read_text())["distribution"]
    assert file["sha256"] == hashlib.sha256((tmp_path / file["contentUrl"]).read_bytes()).hexdigest()
