"""Tasks that fit the labelling interface beside them, as Label Studio's documentation describes both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest

from pipelines.export import labelstudio
from pipelines.export.clips import write_clips
from pipelines.export.labelstudio import write_labelstudio
from pipelines.export.rows import ExportedRun, open_run
from tests.support.shard_runs import HOSTILE

# Which tag of an interface makes results of which type, and where a result keeps its labels.
TAGS = {"videorectangle": "VideoRectangle", "choices": "Choices", "textarea": "TextArea"}


def exported(run: ExportedRun, folder: Path) -> list[dict[str, Any]]:
    files = write_clips(run, folder / "clips", "inline").files
    count = write_labelstudio(run, folder, {name: f"clips/{file}" for name, file in files.items()})
    tasks = [task for path in sorted(folder.glob("tasks-*.json")) for task in json.loads(path.read_text())]
    assert len(tasks) == count == len(files)
    return tasks


@pytest.fixture
def tasks(run: Path, tmp_path: Path) -> list[dict[str, Any]]:
    return exported(open_run(str(run), everything=True), tmp_path)


def test_every_result_has_its_tag_and_its_words(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    view = ElementTree.parse(tmp_path / "config.xml").getroot()
    tags = {tag.get("name"): tag for tag in view.iter() if tag.get("name")}
    regions = [label.get("value") for label in tags["interaction_region"]]
    assert tags["video"].attrib == {"name": "video", "value": "$video", "frameRate": "$fps"}
    for task in tasks:
        assert {"video", "fps"} <= set(task["data"])
        (prediction,) = task["predictions"]
        ids = [result["id"] for result in prediction["result"]]
        assert len(set(ids)) == len(ids) and prediction["model_version"].startswith("toy ")
        for result in prediction["result"]:
            tag = tags[result["from_name"]]
            assert result["to_name"] == tag.get("toName") == "video" and tag.tag == TAGS[result["type"]]
            value = result["value"]
            if result["type"] == "choices":
                assert set(value["choices"]) <= {choice.get("value") for choice in tag}
            if result["type"] == "videorectangle":
                assert set(value["labels"]) <= set(regions)


def test_a_point_is_a_box_on_the_first_picture_and_inside_it(tasks: list[dict[str, Any]]) -> None:
    (task,) = [t for t in tasks if t["data"]["sample_id"].startswith("whole")]
    results = {result["id"]: result["value"] for result in task["predictions"][0]["result"]}
    (seen,) = results["touch"]["sequence"]
    assert (seen["frame"], seen["time"], seen["enabled"], seen["rotation"]) == (1, 0.0, False, 0)
    assert (seen["x"], seen["y"], seen["width"], seen["height"]) == (48, 96, 4, 4)
    assert results["touch"]["framesCount"] == 20 and results["touch"]["duration"] == pytest.approx(2)
    assert results["caption"] == {"text": [HOSTILE]} and results["verdict"] == {"choices": ["keep"]}
    dropped = [t for t in tasks if not t["data"]["keep"]]
    assert [r["value"] for r in dropped[0]["predictions"][0]["result"]][-1] == {"choices": ["drop"]}


def test_addresses_lead_to_the_clips_and_own_columns_stay(
    tasks: list[dict[str, Any]], tmp_path: Path
) -> None:
    for task in tasks:
        parts = urlsplit(task["data"]["video"])
        (inside,) = parse_qs(parts.query)["d"]
        assert parts.path == "/data/local-files/" and (tmp_path / inside).is_file()
        assert task["data"]["input_video"] == "v" and task["data"]["a b/é"] == "<é>"


def test_many_tasks_are_several_files(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelstudio, "TASKS_A_FILE", 1)
    exported(open_run(str(run), everything=True), tmp_path)
    assert len(list(tmp_path.glob("tasks-*.json"))) == 3
    exported(open_run(str(run)), tmp_path)
    assert len(list(tmp_path.glob("tasks-*.json"))) == 2


def test_labels_are_any_text() -> None:
    labels = labelstudio._Labels()
    data = {"fps": 10.0, "interaction_x": 0.0, "interaction_y": 1.0, "interaction_region": '"<a&b>'}
    (result,) = labelstudio._results(data | {"num_frames": None}, labels)
    assert result["value"]["sequence"][0]["x"] == 0 and result["value"]["sequence"][0]["y"] == 96
    view = ElementTree.fromstring(labels.interface())
    assert [label.get("value") for label in view.iter("Label")] == ['"<a&b>']
