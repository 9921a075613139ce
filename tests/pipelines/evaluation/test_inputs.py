"""Which clips are measured, and which real ones are their partners."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from manifests import store
from metrics.metric import REAL
from pipelines.engine.input_error import InputError
from pipelines.engine.settings import SourceSettings
from pipelines.evaluation.inputs import Methods, gather, parse_methods, write_inputs
from tests.support.helpers import execute, toy_stages

SOURCES = SourceSettings()


def touch(folder: Path, *names: str) -> Path:
    """Empty files that are listed as videos."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * len(name))
    return folder


def rows(methods: Methods, **options: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """By method and name."""
    found = gather(methods, SOURCES, **options).table.to_pylist()
    return {(row["method"], row["pair"]): row for row in found}


def test_partners_have_equal_paths_but_for_the_ending(tmp_path: Path) -> None:
    made = touch(tmp_path / "made", "a.mp4", "sub/b.webm", "only_made.mp4")
    real = touch(tmp_path / "real", "a.mov", "sub/b.mp4", "only_real.mp4")
    inputs = gather(Methods({"ours": str(made)}, str(real)), SOURCES)
    found = {(row["method"], row["pair"]): row for row in inputs.table.to_pylist()}
    assert [*found] == [
        *((REAL, name) for name in ("a", "only_real", "sub/b")),
        *(("ours", name) for name in ("a", "only_made", "sub/b")),
    ]
    assert found["ours", "sub/b"]["reference_uri"] == str(real / "sub/b.mp4")
    assert found["ours", "sub/b"]["reference_size"] == len("sub/b.mp4")
    assert found["ours", "sub/b"]["reference_image_uri"] == str(real / "sub/b.mp4")
    assert found["ours", "only_made"]["reference_uri"] is None
    assert found[REAL, "a"]["reference_uri"] is None
    assert inputs.notes == {
        "ours": [
            "1 of 3 clips have no real partner: only_made",
            "1 of 3 real clips have no made one: only_real",
        ]
    }


def test_sets_without_common_names_are_compared_as_sets(tmp_path: Path) -> None:
    made, real = touch(tmp_path / "made", "x.mp4"), touch(tmp_path / "real", "y.mp4")
    (said,) = gather(Methods({"m": str(made)}, str(real)), SOURCES).notes["m"]
    assert said.startswith("no clip has the name of a real one: only distances of whole sets compare them")
    (said,) = gather(Methods({"m": str(made)}), SOURCES).notes["m"]
    assert said.startswith("no reference:")


def test_two_clips_of_one_name_are_refused(tmp_path: Path) -> None:
    made = touch(tmp_path / "made", "a.mp4", "a.mov")
    with pytest.raises(InputError, match=r"made/a\.mov and .*made/a\.mp4 are both named a; move one away"):
        gather(Methods({"m": str(made)}), SOURCES)


def test_a_list_names_partners_texts_and_parts(tmp_path: Path) -> None:
    touch(tmp_path, "g/1.mp4", "r/1.mp4", "r/1.png", "g/2.mp4")
    cases = [
        {
            "id": "case one",
            "generated": "g/1.mp4",
            "reference_video": "r/1.mp4",
            "reference_image": "r/1.png",
            "text": "A man talks.",
            "objects": ["cup", "ball"],
            "contact_spans": [[0.5, 1.0]],
            "start_s": 1.0,
            "end_s": 2.5,
        },
        {"id": "two", "generated": "g/2.mp4", "dataset": "HDTF"},
    ]
    listed = tmp_path / "cases.jsonl"
    listed.write_text("".join(json.dumps(case) + "\n" for case in cases))
    found = rows(Methods({"m": str(listed)}))
    one, two = found["m", "case one"], found["m", "two"]
    assert one["uri"] == str(tmp_path / "g/1.mp4") and (one["start_s"], one["end_s"]) == (1.0, 2.5)
    assert one["reference_uri"] == str(tmp_path / "r/1.mp4")
    assert one["reference_image_uri"] == str(tmp_path / "r/1.png") and one["reference_image_size"] == len(
        "r/1.png"
    )
    assert one["prompt"] == "A man talks." and json.loads(one["objects"]) == ["cup", "ball"]
    assert json.loads(one["contact_spans"]) == [[0.5, 1.0]]
    assert two["dataset"] == "HDTF" and two["reference_uri"] is None and two["prompt"] is None


def test_real_clips_are_of_the_data_set_of_their_partners(tmp_path: Path) -> None:
    """A folder names none; else all real clips would be of another set than the made ones."""
    touch(tmp_path, *(f"{place}/{name}.mp4" for place in ("made", "real", "others") for name in "abc"))
    listed = tmp_path / "made.csv"
    listed.write_text("generated,dataset\nmade/a.mp4,HDTF\nmade/b.mp4,RAVDESS\n")
    real = str(tmp_path / "real")
    found = rows(Methods({"m": str(listed), "others": str(tmp_path / "others")}, real))
    for method in (REAL, "others"):
        assert [found[method, name]["dataset"] for name in "abc"] == ["HDTF", "RAVDESS", None]
    other = tmp_path / "other.csv"
    other.write_text("generated,dataset\nmade/a.mp4,CelebV-HQ\n")
    found = rows(Methods({"m": str(listed), "n": str(other)}, real))
    assert found[REAL, "a"]["dataset"] is None and found[REAL, "b"]["dataset"] == "RAVDESS"


def test_a_list_of_cases_is_the_reference_of_a_folder(tmp_path: Path) -> None:
    """As `benchmark talking` writes it; the real clip may be a part of a file."""
    touch(tmp_path, "real/1.mp4", "images/1.png", "made/c1.mp4")
    case = {
        "id": "c1",
        "reference_video": "real/1.mp4",
        "reference_image": "images/1.png",
        "prompt": "Talks.",
    }
    (tmp_path / "cases.jsonl").write_text(
        json.dumps({**case, "dataset": "RAVDESS", "start_s": 2, "end_s": 3})
    )
    found = rows(Methods({"m": str(tmp_path / "made")}, str(tmp_path / "cases.jsonl")))
    made = found["m", "c1"]
    assert made["reference_uri"] == str(tmp_path / "real/1.mp4")
    assert (made["reference_start_s"], made["reference_end_s"], made["start_s"]) == (2, 3, None)
    assert made["reference_image_uri"] == str(tmp_path / "images/1.png")
    assert made["reference_image_start_s"] is None
    assert (
        (made["prompt"], made["dataset"])
        == ("Talks.", "RAVDESS")
        == (
            found[REAL, "c1"]["prompt"],
            found[REAL, "c1"]["dataset"],
        )
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"generated": "http://host/a.mp4"}', r"row 1: a list may not name http://"),
        ('{"generated": "a.mp4", "reference_video": "s3://b/a.mp4"}', r"row 1: a list may not name s3://"),
        ('{"video": "a.mp4"}', r"it has no column `generated` or `uri`"),
        ('{"generated": null, "id": "x"}', r"row 1 has no generated"),
        ('{"uri": "a.mp4", "start_s": 3, "end_s": "x"}', r"row 1 \(line 1\) has 'x' as end_s"),
    ],
)
def test_what_a_list_cannot_say(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "list.jsonl").write_text(line)
    with pytest.raises(InputError, match=said):
        gather(Methods({"m": str(tmp_path / "list.jsonl")}), SOURCES)


def test_of_a_run_the_kept_clips_count(tmp_path: Path) -> None:
    touch(tmp_path / "in", "short.mp4", "a_name_that_is_too_long.mp4")
    execute(toy_stages(), tmp_path / "in", tmp_path / "run")
    found = rows(Methods({"m": str(tmp_path / "run")}))
    assert [*found] == [("m", "short")]
    assert found["m", "short"]["uri"] == str(tmp_path / "in/short.mp4")


def test_the_first_clips_by_name(tmp_path: Path) -> None:
    made = touch(tmp_path / "made", "c.mp4", "a.mp4", "b.mp4")
    assert [*rows(Methods({"m": str(made)}), limit=2)] == [("m", "a"), ("m", "b")]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with pytest.raises(InputError, match="no media in"):
        gather(Methods({"m": str(tmp_path / "made")}), SOURCES)


@pytest.mark.parametrize(
    ("generated", "named", "said"),
    [
        (None, [], "nothing to measure"),
        ("out/reference", [], "reference is the name of the real clips"),
        (None, ["ours"], "--method ours: give it as NAME=DIR"),
        (None, ["=x"], "give it as NAME=DIR"),
        ("a/ours", ["ours=b"], "two methods are named ours"),
        (None, ["a\nb=x"], "is no name for a method"),
        (None, [f"{'x' * 61}=y"], "at most 60 characters"),
    ],
)
def test_names_of_methods(generated: str | None, named: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_methods(generated, named, None)


def test_a_method_is_named_by_its_folder() -> None:
    methods = parse_methods("out/ours/", ["theirs=s3://b/x=y"], "real")
    assert methods == Methods({"ours": "out/ours/", "theirs": "s3://b/x=y"}, "real")


def test_the_list_is_written_once(tmp_path: Path) -> None:
    made = touch(tmp_path / "made", "a.mp4")
    inputs = gather(Methods({"m": str(made)}), SOURCES)
    path = write_inputs(inputs, tmp_path / "out")
    before = path.stat().st_mtime_ns
    assert write_inputs(inputs, tmp_path / "out") == path and path.stat().st_mtime_ns == before
    assert store.read_file(path).equals(inputs.table)
    assert pd.read_parquet(path)["method"].tolist() == ["m"]
    shutil.rmtree(made)
