"""Pipelines that lie in a file of one's own, or in another installed package."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

import interavatar as ia
from pipelines import own
from pipelines.engine.record import read_run
from pipelines.own import find_pipeline
from pipelines.talking_head import TalkingHeadSettings, talking_head
from tests.conftest import ROOT
from tests.support.helpers import make_files

MINE = '''
from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

import interavatar as ia

VOWELS = set("aeiou")


class Vowels(ia.Stage):
    """Vowels in the file's name."""

    class Config(ia.StageConfig):
        """Settings of Vowels."""

        times: int = Field(1, ge=1, description="Each vowel counts so often.")

    reads = ("source_uri",)
    writes: ClassVar = {"vowels": ia.Column("int", "letters", "Vowels in the name.")}

    def score(self, clip: ia.Clip) -> dict[str, Any]:
        """Count them."""
        return {"vowels": count(clip["source_uri"]) * self.config.times}


def count(uri: str) -> int:
    return sum(letter in VOWELS for letter in Path(uri).stem)


class NamesSettings(ia.Settings):
    """Settings of names."""

    vowels: Vowels.Config = Vowels.Config()


def names(models: ia.Roles, settings: NamesSettings) -> ia.Pipeline:
    """Judges names."""
    few = ia.Screen(name="few", rules=[ia.Rule(reason="many_vowels", column="vowels", max=1)])
    return ia.Pipeline("names", [Vowels(config=settings.vowels)], few, max_seconds=30)


def without_annotations(models, settings):
    return None


def nothing(models: ia.Roles, settings: NamesSettings) -> None:
    return None


LIMIT = 3
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "mine.py"
    file.write_text(MINE)
    return file


def counts(folder: Path) -> dict[str, Any]:
    record = read_run(folder)
    assert record is not None
    return record["counts"]


@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_a_pipeline_from_a_file_runs_and_goes_on(mine: Path, tmp_path: Path, engine: Any) -> None:
    files, out = make_files(tmp_path / "in", 3), tmp_path / "out"

    def run(**settings: Any) -> Any:
        return ia.run(
            f"{mine}:names", input=files, output=out, engine=engine, settings=settings, progress=False
        )

    rows = run()
    assert rows["error"].isna().all() and rows["vowels"].tolist() == [1, 1, 1] and rows["keep"].all()
    assert counts(out)["computed"] == 3
    run()
    assert counts(out)["computed"] == 0 and counts(out)["reused"] == 3
    if engine == "inline":
        mine.write_text(MINE.replace("self.config.times", "self.config.times + 1"))  # version stays
        assert run()["vowels"].tolist() == [1, 1, 1]
        changed = run(**{"vowels.times": 2})
        assert changed["vowels"].tolist() == [3, 3, 3]  # the file is read anew
        assert changed["drop_reasons"].map(list).tolist() == [["many_vowels"]] * 3


def test_the_command_line_takes_it_too(mine: Path, tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 2)

    def interavatar(*words: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "pipelines",
            *words,
            "elsewhere/mine.py:names",
            "--input",
            str(files),
        ]
        command += ["--output", "out", "--set", "vowels.times=2"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    plan = interavatar("plan")
    assert plan.returncode == 0 and "names, profile laptop: 2 samples to compute" in plan.stdout, plan.stderr
    done = interavatar("run", "--engine", "inline")
    assert done.returncode == 0 and "names: 2 samples in, 2 out: kept 0, dropped 2" in done.stdout, (
        done.stderr
    )
    assert ia.read_manifest(tmp_path / "out")["vowels"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{folder}/mine.py:nmaes", r"mine\.py has no 'nmaes'; did you mean names\?"),
        ("{folder}/mine.py:LIMIT", r"mine\.py:LIMIT must be a function of the models and its settings"),
        ("{folder}/mine.py:count", r"mine\.py:count must be a function"),
        ("{folder}/mine.py:without_annotations", "must be a function"),
        ("{folder}/yours.py:names", r"there is no file .*yours\.py"),
        ("{folder}/broken.py:names", r"broken\.py:2: ModuleNotFoundError: No module named 'nowhere'"),
        ("{folder}/two.py:names", r"two\.py:1: mine\.py lies beside it, .* entry point"),
        ("{folder}/mine.py", r"mine\.py: name a function in it .*; there are: .*/mine\.py:names, "),
        (
            "talking_heads",
            r"no pipeline 'talking_heads'; did you mean talking_head\? there are: ",
        ),
        ("xyzzy", r"no pipeline 'xyzzy'; there are: talking_head, .*, and FILE\.py:NAME"),
    ],
)
def test_a_wrong_name_is_refused_with_the_way_out(mine: Path, name: str, message: str) -> None:
    (mine.parent / "broken.py").write_text("import os\nimport nowhere\n")
    (mine.parent / "two.py").write_text("import mine\n")
    with pytest.raises(ia.SettingsError, match=message):
        find_pipeline(name.format(folder=mine.parent))


def test_a_function_that_gives_no_pipeline_is_refused(mine: Path, tmp_path: Path) -> None:
    with pytest.raises(ia.SettingsError, match=r"mine\.py:nothing gives NoneType, not a Pipeline"):
        ia.run(f"{mine}:nothing", input=make_files(tmp_path / "in", 1), output=tmp_path / "out")


def test_an_installed_package_offers_its_pipelines(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = EntryPoints(
        [
            EntryPoint("theirs", "pipelines.talking_head:talking_head", own.GROUP),
            EntryPoint("gone", "pipelines.talking_head:no_longer", own.GROUP),
        ]
    )
    monkeypatch.setattr(own, "entry_points", lambda group: entries.select(group=group))
    assert find_pipeline("theirs") == (TalkingHeadSettings, talking_head)
    with pytest.raises(ia.SettingsError, match=r"pipeline gone: pipelines\.talking_head:no_longer cannot be"):
        find_pipeline("gone")
    with pytest.raises(ia.SettingsError, match=r"synthetic_interactions, gone, theirs, and FILE\.py:NAME"):
        find_pipeline("nothing")
