"""What the pages on Python, folders of one's own and screens promise."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from interavatar import load_arrays
from manifests.screen import load_screen
from prompts.vocabulary import load_vocabulary
from tests.docs.checks import At, after
from tests.docs.pages import blocks


@after("docs/python.md", "python 1")
def _(at: At) -> None:
    assert len(at.names["rows"]) == 2
    shown, (unit, meaning) = at.values
    assert list(shown.columns) == ["source_uri", "keep", "drop_reasons", "luminance"]
    assert unit.startswith("0-255") and meaning
    assert at.record("out")["settings"]["quality"]["fps"] == 1


@after("docs/python.md", "python 2")
def _(at: At) -> None:
    (reasons,) = at.values
    finished = at.names["judged"][at.names["judged"].error.isna()]
    assert reasons["narrow"] == len(finished) > 0


@after("docs/python.md", "python 3")
def _(at: At) -> None:
    (luminance,) = at.values
    assert 10 < luminance < 245


@after("docs/python.md", "python 4")
def _(at: At) -> None:
    (shape,) = at.values
    found = load_arrays(at.folder / "out", at.names["row"], "consistency")
    assert shape == found["face_embedding"].shape == (128,)


@after("docs/export.md", "python 1")
def _(at: At) -> None:
    (stages,) = at.values
    assert "probe" in stages


@after("docs/export.md", "interavatar export out --clips clips")
def _(at: At) -> None:
    assert "2 files, 2 of them new" in at.done.said
    assert len(list((at.folder / "clips").glob("*.mp4"))) == 2


@after("docs/export.md", "python 2")
def _(at: At) -> None:
    (path,) = at.values
    assert Path(path).parent == at.folder / "videos" / "clips" and Path(path).is_file()


@after("docs/export.md", "python 3")
def _(at: At) -> None:
    assert at.names["records"] == at.rows("out").fps.tolist()


@after("docs/export.md", "text 1")
def _(at: At) -> None:
    """With a module in FiftyOne's place: each field of each line is parsed."""
    asked: dict[str, Any] = {}
    dataset = SimpleNamespace(from_dir=lambda folder, **options: asked.update(options, folder=folder))
    stand_in: Any = ModuleType("fiftyone")
    stand_in.Dataset, stand_in.types = dataset, SimpleNamespace(CSVDataset="CSVDataset")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "fiftyone", stand_in)
        patch.chdir(at.folder)
        exec(at.shown, {})
    assert (asked["folder"], asked["dataset_type"]) == ("fiftyone", "CSVDataset")
    with (at.folder / "fiftyone" / "labels.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    parsed = [{name: asked["fields"][name](line[name]) for name in ("fps", "num_frames")} for line in lines]
    assert parsed == at.rows("out")[["fps", "num_frames"]].to_dict("records")
    assert set(lines[0]) - {"filepath"} == set(asked["fields"])


@after("docs/own_folder.md", "python 1")
def _(at: At) -> None:
    """The reader saves it."""
    (block,) = [b for b in blocks("docs/own_folder.md") if b.language == "python"]
    (at.folder / "mine.py").write_text(block.text)


@after("docs/own_folder.md", "interavatar plan mine.py:brightness --input /your/videos --limit 3")
def _(at: At) -> None:
    assert "brightness, profile laptop: 3 samples to compute" in at.done.said


RUN = "interavatar run mine.py:brightness --input /your/videos --output bright --limit 3"


@after("docs/own_folder.md", RUN)
def _(at: At) -> None:
    assert at.record("bright")["counts"]["computed"] == 3
    assert at.rows("bright").brightness.dropna().between(10, 255).all()
    again = at.reader.type(RUN.replace("run ", "run --engine inline "))
    assert again.status == 0 and "(computed 0, reused 3, " in again.said


@after("docs/own_folder.md", f"{RUN} --set brightness.fps=1")
def _(at: At) -> None:
    assert "due, brightness.fps 2.0 -> 1.0: brightness (" in at.done.said


@after("docs/own_folder.md", "text 1")
def _(at: At) -> None:
    assert at.shown.startswith('[project.entry-points."interavatar.pipelines"]\nbrightness = "')


ASKED = "interavatar run real_interactions --input /your/videos --output asked --limit 2"


@after("docs/own_folder.md", f"{ASKED} --set prompts=my_prompts")
def _(at: At) -> None:
    """The same text changes nothing, another makes its stage run again."""
    file = at.folder / "my_prompts" / "caption.md"
    for text, due in ((file.read_text(), False), (f"{file.read_text()}\nBe brief.\n", True)):
        file.write_text(text)
        again = at.reader.type(f"{ASKED} --set prompts=my_prompts".replace("run ", "run --engine inline ", 1))
        assert again.status == 0 and ("due, prompt caption changed: caption (" in again.said) is due, (
            again.said
        )


@after("docs/own_folder.md", "text 2")
def _(at: At) -> None:
    """The reader saves it."""
    (at.folder / "my_types.yaml").write_text(at.shown)
    types = load_vocabulary(str(at.folder / "my_types.yaml"))
    assert types.group_of("hugged") == "affectionate" and not types.needs_hand("licked")


TOUCHED = "interavatar run real_interactions --input /your/videos --output touched --limit 2"


@after("docs/own_folder.md", f"{TOUCHED} --set vocabulary=my_types.yaml")
def _(at: At) -> None:
    """Without the file two stages are due, and no other for a reason of its own."""
    without = at.reader.type(TOUCHED.replace("run ", "plan ", 1))
    due = [line for line in without.said.splitlines() if line.startswith("due, ")]
    assert due[0].startswith("due, vocabulary changed: interaction, touch_point ("), due
    assert all("something that it reads" in line for line in due[1:]), due


HUGGED = "interavatar run portraits --input /your/portraits --output hugged --set vocabulary=my_types.yaml"


@after("docs/own_folder.md", f"{HUGGED} --set reactions.types=[hugged]")
def _(at: At) -> None:
    (reactions,) = at.rows("hugged").reactions
    assert {(r["interaction_type"], r["interaction_group"]) for r in reactions} == {
        ("hugged", "affectionate")
    }


@after("docs/screens.md", "text 1")
def _(at: At) -> None:
    """The reader saves it; there is a run already."""
    (at.folder / "mine.yaml").write_text(at.shown)
    rules = {rule.reason: rule for rule in load_screen(str(at.folder / "mine.yaml")).rules}
    assert rules["too_dark"].min == 20 and rules["wrong_caption"].one_of == ["source", "qwen*"]
    assert {rule.reason for rule in load_screen("visual").rules} < set(rules)


@after("docs/screens.md", "interavatar screen out --screen mine.yaml --dry-run")
def _(at: At) -> None:
    assert "screen mine would keep " in at.done.said
    assert not (at.folder / "out" / "screens").exists()


@after("docs/screens.md", "interavatar screen out --screen mine.yaml")
def _(at: At) -> None:
    assert yaml.safe_load((at.folder / "out" / "screen.yaml").read_text())["name"] == "mine"
    assert (at.folder / "out" / "screens" / "0001.yaml").is_file()


@after("docs/compare.md", "interavatar compare out other --page compared.html")
def _(at: At) -> None:
    assert "samples: 2 in both, 0 only in B, 0 only in A" in at.done.said
    assert re.search(r"setting +quality.fps +2 +1", at.done.said)
    assert re.search(r"stage +quality +quality.fps 2.0 -> 1.0", at.done.said)
    assert (at.folder / "compared.html").read_text().count("<article>") == 1


@after("docs/compare.md", "interavatar compare out other --json")
def _(at: At) -> None:
    (found,) = json.loads(at.done.said[at.done.said.index("{") :])["comparisons"]
    assert found["in_both"] == 2 and found["a"]["folder"] == "out"


@after("docs/compare.md", "python 1")
def _(at: At) -> None:
    verdicts, scores = at.values
    assert set(verdicts["cause"]) <= {"rules", "scores", "either", "both"} and len(verdicts) > 0
    assert "luminance" in set(scores["column"]) and "quality.fps 2.0 -> 1.0" in set(scores["why"])
