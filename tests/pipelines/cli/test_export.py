"""`interavatar export`: which options belong together, what it says, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manifests.screen import Rule, Screen
from tests.pipelines.cli.test_cli import invoke, refused
from tests.support.export_runs import make_run
from tests.support.helpers import execute, make_files, toy_stages


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("export"))


def export(*words: Any) -> Any:
    return invoke("export", *words, "--engine", "inline")


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix != ".mp4"}


@pytest.mark.parametrize(
    ("tool", "words", "files", "clips"),
    [
        ("huggingface", [], {"README.md", "data", "data/train.parquet"}, 0),
        (
            "huggingface",
            ["--clips", "OUT/media"],
            {"README.md", "metadata.parquet", "media", "media/clips.csv"},
            2,
        ),
        ("croissant", [], {"croissant.json", "samples.parquet"}, 0),
        ("labelstudio", [], {"tasks-00000.json", "config.xml", "clips", "clips/clips.csv"}, 2),
        ("labelstudio", ["--all"], {"tasks-00000.json", "config.xml", "clips", "clips/clips.csv"}, 3),
        ("fiftyone", [], {"labels.csv", "fields.json", "data", "data/clips.csv"}, 2),
    ],
)
def test_each_tool_gets_its_folder(
    run: Path, tmp_path: Path, tool: str, words: list[str], files: set[str], clips: int
) -> None:
    out = tmp_path / "out"
    done = export(run, "--to", tool, "--output", out, *[w.replace("OUT", str(out)) for w in words])
    assert done.exit_code == 0, done.output
    assert names(out) == files and len(list(out.rglob("*.mp4"))) == clips
    assert f"{tool}  {out}: {max(2, clips)} rows of 4" in done.output


def test_clips_alone_and_once_more(run: Path, tmp_path: Path) -> None:
    assert f"clips     {tmp_path}: 2 files, 2 of them new" in export(run, "--clips", tmp_path).output
    done = export(run, "--clips", tmp_path)
    assert "2 of 2 clips are there already" in done.stderr and "0 of them new" in done.stdout


def test_a_clip_that_is_missing_is_status_1_and_a_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "made")
    next((tmp_path / "made").glob("whole*")).unlink()
    done = export(run, "--to", "labelstudio", "--output", tmp_path / "out")
    assert done.exit_code == 1 and "1 files, 1 of them new" in done.stdout
    first, last = done.stderr.strip().splitlines()
    assert first.startswith("whole-") and "No such file" in first
    assert last.startswith("error: 1 clips could not be written, as said above and in ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say what to write"),
        (["--to", "croissant"], "belong together"),
        (["--output", "out", "--clips", "c"], "belong together"),
        (["--to", "croissant", "--output", "out", "--clips", "out/c"], "rows, no clips"),
        (["--to", "huggingface", "--output", "out", "--clips", "c"], "must lie below --output out"),
        (["--to", "fiftyone", "--output", "out", "--clips", "out/c"], "fiftyone looks for clips in "),
    ],
)
def test_options_that_do_not_fit_together(run: Path, words: list[str], said: str) -> None:
    assert said in refused(2, "export", run, *words)


def test_other_folders_are_refused(run: Path, tmp_path: Path) -> None:
    assert "is not the folder of a run" in refused(2, "export", tmp_path, "--clips", tmp_path / "c")
    said = refused(2, "export", run, "--to", "croissant", "--output", run / "manifest")
    assert "give the export a folder of its own" in said


def test_an_empty_run_is_exported(tmp_path: Path) -> None:
    """None of its rows is kept."""
    screen = Screen(name="none", rules=[Rule(reason="too_long", column="length", max=0)])
    execute(toy_stages(), make_files(tmp_path / "in", 2), tmp_path / "run", screen=screen)
    for tool in ("huggingface", "croissant", "labelstudio", "fiftyone"):
        done = export(tmp_path / "run", "--to", tool, "--output", tmp_path / tool)
        assert done.exit_code == 0 and "0 rows of 2" in done.output, done.output
