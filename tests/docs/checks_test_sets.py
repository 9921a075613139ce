"""What must be so after the commands of docs/test_sets.md."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

from pipelines.evaluation.cases import read_cases
from tests.docs.checks import At, after
from tests.docs.checks_sources import make_data_sets

PAGE = "docs/test_sets.md"


def make_compared(folder: Path) -> None:
    """The reader's data sets, and clips of two methods: nothing is trained to make them."""
    make_data_sets(folder)
    for method in ("ours", "other"):
        (folder / method).mkdir()
        for clip in ("one", "two"):
            shutil.copy(folder / "videos" / "clip00.mp4", folder / method / f"{clip}.mp4")


@after(
    PAGE,
    "interavatar benchmark talking --input hdtf:/your/HDTF --input celebv-hq:/your/CelebV-HQ --input "
    "ravdess:/your/RAVDESS --sample 100 --output test",
)
def _(at: At) -> None:
    cases = read_cases(at.folder / "test" / "cases.jsonl")
    assert {case.model_dump()["source"] for case in cases} == {"HDTF", "CelebV-HQ", "RAVDESS"}
    assert {case.prompt for case in cases} == {"the person is talking"}
    folders = {"real": "mp4", "images": "png", "audio": "wav"}
    for folder, ending in folders.items():
        names = {path.name for path in (at.folder / "test" / folder).iterdir()}
        assert names == {f"{case.id}.{ending}" for case in cases}
    assert "1 clips: sung" in at.done.said and "there are no more" in at.done.said


@after(PAGE, "interavatar evaluate study ours other=/your/other --output page.html")
def _(at: At) -> None:
    """A rater sends what the page would have saved: ours is always better."""
    key = json.loads((at.folder / "page_key.json").read_text())
    assert key["methods"].keys() == {"ours", "other"} and len(key["comparisons"]) == 2
    with (at.folder / "answers-ada.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("study", "rater", "comparison", "question", "answer", "at"))
        for pair in key["comparisons"]:
            side = "left" if pair["left"] == "ours" else "right"
            table.writerows((key["study"], "Ada", pair["id"], name, side, "") for name in key["questions"])


@after(PAGE, "interavatar evaluate votes page_key.json answers-*.csv --output votes.md")
def _(at: At) -> None:
    said = (at.folder / "votes.md").read_text()
    assert (
        said in at.done.said
        and said.count("| ours | other | 2 | 2 | 0 | 0 | 100.0% | 34.2% to 100.0% |") == 3
    )
