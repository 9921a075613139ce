"""The command line: what it says, what it exits with, and that a mistake costs one line, not a traceback."""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
import typer
import yaml
from typer.testing import CliRunner

from interavatar import history
from manifests import store
from manifests.screen import load_screen
from pipelines import catalogue
from pipelines.cli import app as cli
from pipelines.engine.lock import lock
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.record import read_run
from pipelines.engine.settings import Settings
from pipelines.requests import load_profile
from pipelines.review.screening import screen_again
from stages.clip import Clip
from stages.contract import Column, Stage
from tests.conftest import ROOT
from tests.support.helpers import make_files
from tests.support.mortal import Mortal
from tests.support.toys import Length, Root, Square

COMMANDS = (
    *("run", "screen", "status", "report", "compare", "review", "repair", "validate"),
    *("duplicates", "people", "split", "find", "card", "forget", "ledger"),
    *("plan", "doctor", "shards", "train", "latents", "sample", "live", "export", "export-model"),
)
HOSTILE = "<script>alert(1)</script>"


class Say(Stage):
    """The caption of the input list."""

    reads = ("input_caption",)
    writes: ClassVar = {"caption": Column("string", "", "As given.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        return {"caption": clip["input_caption"]}


class ToySettings(Settings):
    length: Length.Config = Length.Config()
    square: Square.Config = Square.Config()


def invoke(*arguments: Any) -> Any:
    """Run the program in this process; a traceback fails the test."""
    done = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(
        cli.app, [str(a) for a in arguments]
    )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def refused(code: int, *arguments: Any) -> str:
    """Its one line of complaint."""
    done = invoke(*arguments)
    assert done.exit_code == code, done.output
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


def write_yaml(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def screen_file(path: Path, longest: float, column: str = "length") -> Path:
    rule = {"reason": "too_long", "column": column, "max": longest, "source": "a toy needs none"}
    return write_yaml(path, {"name": path.stem, "rules": [rule]})


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A pipeline of toy stages beside the real ones; SIGTERM as it was afterwards."""
    judge = str(screen_file(tmp_path / "toy.yaml", 20))

    def build(models: Any, settings: ToySettings) -> Pipeline:
        stages = [Length(config=settings.length), Square(config=settings.square), Root(), Say()]
        return Pipeline("toy", stages, judge, max_seconds=30)

    monkeypatch.setitem(catalogue.PIPELINES, "toy", (ToySettings, build))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return make_files(tmp_path / "in", 5)


def run_toy(files: Path | str, output: Path, *more: Any) -> Any:
    return invoke("run", "toy", "--input", files, "--output", output, "--engine", "inline", *more)


def record(output: Path) -> dict[str, Any]:
    return json.loads((output / "run.json").read_text())


def test_every_command_is_listed() -> None:
    groups = {"benchmark", "evaluate", "models"}
    assert set(typer.main.get_command(cli.app).commands) == {*COMMANDS, *groups}
    said = invoke("--help").output
    assert all(re.search(rf"\b{name}\b", said) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_names_its_options(name: str) -> None:
    done = invoke(name, "--help")
    assert done.exit_code == 0
    for parameter in typer.main.get_command(cli.app).commands[name].params:
        shown = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar
        assert shown in done.output
        assert getattr(parameter, "help", None), f"{shown} has no help"


def test_python_m_pipelines_is_the_program() -> None:
    command = [sys.executable, "-m", "pipelines", "status", "/nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: /nowhere is not the folder of a run (no run.json in it)\n"


def test_a_missing_input_is_refused_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    said = refused(2, "run", "talking_head", "--input", tmp_path / "no", "--output", tmp_path / "out")
    assert said == f"error: no such file or folder: {tmp_path / 'no'}"
    assert time.monotonic() - started < 5 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("pipeline", "options", "said"),
    [
        ("taking_head", [], r"no pipeline 'taking_head'; did you mean talking_head\?.*, toy, and FILE"),
        ("toy", ["--profile", "lapptop"], r"no profile 'lapptop': neither a file nor one of gpu, laptop"),
        (
            "toy",
            ["--screen", "none.yaml"],
            r"no screen 'none.yaml'.* one of commercial, portraits, portraits_gpu, real_interactions, ",
        ),
        ("toy", ["--screen", "talking_head"], r"screen talking_head: rule too_short reads duration_s"),
        ("toy", ["--set", "lenght.add=1"], r"--set: unknown key lenght; did you mean length\?"),
        ("toy", ["--set", "length.ad=1"], r"unknown key length.ad; did you mean length.add\?"),
        ("toy", ["--set", "length.add=x"], r"length.add: Input should be a valid integer"),
        ("toy", ["--set", "split"], r"write key=value"),
        ("talking_head", ["--set", "quality.fsp=1"], r"did you mean quality.fps\?"),
    ],
)
def test_a_wrong_word_is_refused(
    tmp_path: Path, files: Path, pipeline: str, options: list[str], said: str
) -> None:
    command = ("run", pipeline, "--input", files, "--output", tmp_path / "out", "--engine", "inline")
    assert re.search(said, refused(2, *command, *options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [["--engine", "slurm"], ["--limit", "0"], ["--limit", "few"], ["--outptu", "x"]]
)
def test_a_wrong_option_is_wrong_use(tmp_path: Path, files: Path, options: list[str]) -> None:
    done = run_toy(files, tmp_path / "out", *options)
    assert done.exit_code == 2 and options[0] in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": {"lenght": {"add": 1}}}, r"p\.yaml.*lenght; did you mean .*length\?"),
        ({"resources": {"sqare": {"cpus": 2}}}, r"sqare.*did you mean .*square"),
        ({"roles": {"pse": {"use": "mediapipe"}}}, r"no role 'pse'; did you mean 'pose'\?"),
    ],
)
def test_a_misspelt_profile_is_refused(
    tmp_path: Path, files: Path, changes: dict[str, Any], said: str
) -> None:
    values = load_profile("laptop").model_dump(exclude_defaults=True)
    values = values | {k: values.get(k, {}) | v for k, v in changes.items()}
    profile = write_yaml(tmp_path / "p.yaml", values)
    command = ("run", "toy", "--input", files, "--output", tmp_path / "out", "--engine", "inline")
    assert re.search(said, refused(2, *command, "--profile", profile))


@pytest.mark.parametrize("command", ["status", "report", "screen"])
@pytest.mark.parametrize("what", ["in", "missing", "in/clip0000.mp4"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, files: Path, command: str, what: str) -> None:
    assert f"{tmp_path / what} is not the folder of a run" in refused(2, command, tmp_path / what)


@pytest.mark.parametrize("command", ["status", "report", "screen"])
@pytest.mark.parametrize("damage", ['{"run_id": ', "{}"])
def test_a_damaged_record_is_refused_by_name(files: Path, command: str, damage: str) -> None:
    (files / "run.json").write_text(damage)
    assert str(files / "run.json") in refused(2, command, files)


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path, files: Path) -> None:
    (tmp_path / "file").write_text("")
    command = ("run", "toy", "--engine", "inline", "--input", files, "--output")
    assert f"--output {tmp_path / 'file'} is a file; name a folder" in refused(2, *command, tmp_path / "file")
    assert "cannot write to" in refused(2, *command, tmp_path / "file" / "deeper")


def test_doctor_refuses_a_misspelt_profile(tmp_path: Path) -> None:
    values = load_profile("laptop").model_dump(exclude_defaults=True)
    values["roles"]["pse"] = {"use": "mediapipe"}
    profile = write_yaml(tmp_path / "p.yaml", values)
    assert "no role 'pse'; did you mean 'pose'?" in refused(2, "doctor", "--profile", profile)


def test_a_run_counts_errors_and_says_where_things_are(tmp_path: Path, files: Path) -> None:
    (files / "notes.txt").write_text("")
    out = tmp_path / "out"
    done = run_toy(files, out, "--set", "square.raise_on=clip0001.mp4")
    assert done.exit_code == 0
    assert "5 samples in, 5 out: kept 4, dropped 0, errors 1 (computed 5, reused 0" in done.stdout
    assert "passed over: 1 .txt" in done.stdout and "--retry-errors all computes them again:\n" in done.stdout
    assert f"\n  1 in square: cannot square clip0001.mp4 ({files / 'clip0001.mp4'})\n" in done.stdout
    assert (
        f"manifest  {out / 'manifest'}" in done.stdout and f"report    {out / 'report.html'}" in done.stdout
    )
    assert len(pd.read_parquet(out / "manifest")) == 5 and (out / "report.html").is_file()
    assert record(out)["status"] == "finished" and record(out)["settings"]["square"]["raise_on"]


def test_a_run_in_which_most_samples_fail_is_no_success(tmp_path: Path) -> None:
    one = make_files(tmp_path / "one", 1)
    done = run_toy(one, tmp_path / "out", "--set", "square.raise_on=clip0000.mp4")
    assert done.exit_code == 1 and "1 samples in, 1 out: kept 0" in done.stdout
    assert "error: most samples ended in errors: 1 of 1, as said above" in done.stderr
    assert (tmp_path / "out" / "report.html").is_file()


def test_the_same_command_again_computes_nothing(tmp_path: Path, files: Path) -> None:
    run_toy(files, tmp_path / "out", "--limit", "2")
    done = run_toy(files, tmp_path / "out")
    assert "5 samples in, 5 out: kept 5, dropped 0, errors 0 (computed 3, reused 2" in done.stdout
    assert "(computed 0, reused 5" in run_toy(files, tmp_path / "out").stdout
    assert len(list((tmp_path / "out" / "runs").glob("*.json"))) == 3


def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = Square.score, []

    def third_time(self: Square, clip: Clip) -> dict[str, Any]:
        seen.append(clip["sample_id"])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return original(self, clip)

    monkeypatch.setattr(Square, "score", third_time)
    out, options = tmp_path / "out", ("--set", "rows_per_part=1")
    done = run_toy(files, out, *options)
    assert done.exit_code == 1
    said = done.stderr.strip().splitlines()[-1]
    assert (
        said.startswith("interrupted.") and "run the same command again to go on" in said and str(out) in said
    )
    assert record(out)["status"] == "interrupted" and len(pd.read_parquet(out / "manifest")) == 2
    assert ": interrupted" in invoke("status", out).stdout
    monkeypatch.setattr(Square, "score", original)
    assert "(computed 3, reused 2" in run_toy(files, out, *options).stdout


def test_a_locked_folder_is_left_alone(tmp_path: Path, files: Path) -> None:
    out = tmp_path / "out"
    run_toy(files, out)
    before = (out / "run.json").read_bytes()
    strict = screen_file(tmp_path / "strict.yaml", 3)
    with lock(out):
        command = ("run", "toy", "--input", files, "--output", out, "--engine", "inline")
        for arguments in (command, ("screen", out, "--screen", strict)):
            assert "another run is writing to" in refused(1, *arguments)
        assert ": running" in invoke("status", out).stdout
        (out / "_attempts").mkdir()
        (out / "_attempts" / "clip0001-ab").write_text("run-1 length square")
        assert "longest in work: clip0001-ab in square for 0:00:0" in invoke("status", out).stdout
    assert (out / "run.json").read_bytes() == before and pd.read_parquet(out / "manifest")["keep"].all()


def test_a_dry_run_of_a_screen_says_what_would_change_and_writes_nothing(tmp_path: Path, files: Path) -> None:
    out = tmp_path / "out"
    run_toy(files, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    done = invoke("screen", out, "--dry-run", "--screen", screen_file(tmp_path / "strict.yaml", 3))
    assert done.exit_code == 0
    first, rule, last = done.stdout.splitlines()
    assert first == (
        "screen strict would keep 0 of 5 (5 are kept): drop 5 that are kept, keep 0 that are dropped"
    )
    assert re.fullmatch(r"\+ too_long: 5 \(\S+, \S+, \S+, \.\.\.\)", rule) and last == "nothing was written"
    assert "no verdict would change" in invoke("screen", out, "--dry-run").stdout
    odd = screen_file(tmp_path / "odd.yaml", 3, column="nowhere")
    assert "rule too_long reads nowhere" in refused(2, "screen", out, "--screen", odd, "--dry-run")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_screen_that_is_killed_leaves_all_or_nothing(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verdicts, their history, run.json and the screens agree, and the next command ends it."""
    run_toy(files, tmp_path / "made")
    strict = screen_file(tmp_path / "strict.yaml", 2)
    mortal = Mortal(monkeypatch, lambda: None)
    seen = []
    for left in range(4, 40, 4):
        run = shutil.copytree(tmp_path / "made", tmp_path / str(left))
        if not mortal.run(left, True, lambda run=run: screen_again(run, load_screen(str(strict)))):
            break
        kept = json.loads(invoke("status", run, "--json").output)["runs"][0]["kept"]
        assert list(history(run)["screen"]) == ["strict"] * (5 - kept)
        counted = read_run(run)
        assert kept == counted["counts"]["kept"] and counted["screen"]["name"] == ("toy", "strict")[kept == 0]
        assert pd.read_parquet(run / "manifest")["sample_id"].is_unique
        again = run_toy(files, run) if left % 8 else invoke("screen", run)
        assert again.exit_code == 0
        last = "toy" if left % 8 else counted["screen"]["name"]
        assert (
            record(run)["screen"]["name"] == yaml.safe_load((run / "screen.yaml").read_text())["name"] == last
        )
        assert record(run)["counts"]["kept"] == pd.read_parquet(run / "manifest")["keep"].sum()
        assert (run / "screens").exists() == (kept == 0)
        assert list(history(run)["screen"]) == (["strict"] * 5 + ["toy"] * 5 * (last == "toy")) * (kept == 0)
        seen.append(kept)
    assert set(seen) == {0, 5} and not mortal.left


def test_screens_that_were_replaced_are_kept(tmp_path: Path, files: Path) -> None:
    out = tmp_path / "out"
    run_toy(files, out)
    for longest in (3, 3, 4):
        invoke("screen", out, "--screen", screen_file(tmp_path / "mine.yaml", longest))
    kept = [yaml.safe_load(path.read_text()) for path in sorted((out / "screens").iterdir())]
    assert [(s["name"], s["rules"][0]["max"]) for s in kept] == [("toy", 20), ("mine", 3)]
    assert [path.name for path in sorted((out / "screens").iterdir())] == ["0001.yaml", "0002.yaml"]
    (out / "screens" / "0001.yaml").unlink()  # the number is one more than the highest
    done = invoke("screen", out, "--screen", screen_file(tmp_path / "mine.yaml", 5))
    assert f"the screen of before is kept: {out / 'screens' / '0003.yaml'}" in done.stdout
    assert sorted(path.name for path in (out / "screens").iterdir()) == ["0002.yaml", "0003.yaml"]


def test_screening_again_changes_verdicts_and_says_so(tmp_path: Path, files: Path) -> None:
    out = tmp_path / "out"
    run_toy(files, out)
    assert "screen toy: kept 5 of 5, 0 verdicts changed" in invoke("screen", out).stdout
    done = invoke("screen", out, "--screen", screen_file(tmp_path / "strict.yaml", 3))
    assert done.exit_code == 0 and "screen strict: kept 0 of 5, 5 verdicts changed" in done.stdout
    rows = pd.read_parquet(out / "manifest")
    assert not rows["keep"].any() and [list(r) for r in rows["drop_reasons"]] == [["too_long"]] * 5
    assert record(out)["screen"]["name"] == "strict"
    assert (record(out)["counts"]["kept"], record(out)["counts"]["dropped"]) == (0, 5)
    assert "screen strict" in (out / "report.html").read_text()
    assert yaml.safe_load((out / "screen.yaml").read_text())["name"] == "strict"
    assert "0 verdicts changed" in invoke("screen", out).stdout
    odd, before = screen_file(tmp_path / "odd.yaml", 3, column="nowhere"), (out / "run.json").read_bytes()
    assert "rule too_long reads nowhere" in refused(2, "screen", out, "--screen", odd)
    assert (out / "run.json").read_bytes() == before


def test_status_counts_what_is_merged_and_what_waits(tmp_path: Path, files: Path) -> None:
    out = tmp_path / "out"
    run_toy(
        files, out, "--set", "square.raise_on=clip0001.mp4", "--screen", screen_file(tmp_path / "s.yaml", 12)
    )
    store.commit(out / "manifest", store.read(out / "manifest").slice(0, 2))
    done = invoke("status", out)
    assert done.exit_code == 0 and ": finished" in done.stdout
    assert "in the manifest: 5 (kept 4, dropped 0, errors 1); committed and not merged yet: 2" in done.stdout
    assert f"\n  1 in square: cannot square clip0001.mp4 ({files / 'clip0001.mp4'})\n" in done.stdout
    assert re.search(r"square\W+4\W+0\W+1\b", done.stdout)
    (out / "run.json").write_text(json.dumps(record(out) | {"status": "running"}))
    assert "killed; run the same command again to go on" in invoke("status", out).stdout


class Page(HTMLParser):
    """Checks that tags are closed, and collects what they refer to and what is shown."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.shown = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action", "data")]
        assert not [k for k, _ in attrs if k.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.shown += data


def test_the_report_is_one_safe_page(tmp_path: Path) -> None:
    folder = tmp_path / "<b onclick=x>&'\""
    names = ["<img src=x onerror=alert(1)>.mp4", '"><script>x.mp4', "{{7*7}}.mp4", "é😀.mp4"]
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"x")
    captions = [HOSTILE, "</p></table><h1>big</h1>", "{{ 7*7 }} {% raw %}", None]
    pd.DataFrame({"uri": names, "caption": captions}).to_json(
        folder / "l.jsonl", orient="records", lines=True
    )
    out = tmp_path / "out"
    broken = ("--set", f"square.raise_on={names[3]}")
    assert run_toy(folder / "l.jsonl", out, *broken).exit_code == 0
    (out / "report.html").unlink()
    done = invoke("report", out)
    assert done.exit_code == 0 and f"report    {out / 'report.html'}" in done.stdout
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!doctype html>") and HOSTILE not in text and str(folder) not in text
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    assert not re.search(r"(src|href|url|@import)\s*[=(]\s*[\"']?\s*(https?:)?//", text)
    blob = re.search(r'<script type="text/plain" id="texts-0">([^<]+)</script>', text)
    assert blob is not None
    said = json.loads(zlib.decompress(base64.b64decode(blob[1])))
    assert {one["source_uri"] for one in said} == {str(folder / name) for name in names}
    assert {one["caption"] for one in said if "caption" in one} == {c for c in captions if c}
    (failed,) = [one["error"] for one in said if "error" in one]
    assert f"cannot square {names[3]}" in failed["message"]
    assert f"toy: {pd.read_parquet(out / 'manifest').keep.sum()} of 4 kept" in page.shown


def test_plan_says_what_a_run_would_do_and_does_nothing(tmp_path: Path, files: Path) -> None:
    out = tmp_path / "out"
    done = invoke("plan", "toy", "--input", files)
    assert done.exit_code == 0 and "toy, profile laptop: 5 samples to compute, 0 reused" in done.stdout
    assert all(name in done.stdout for name in ("length", "square", "root", "say", "no measured seconds yet"))
    done = invoke("plan", "toy", "--input", files, "--output", out)
    assert "5 samples to compute, 0 reused" in done.stdout and not out.exists()
    run_toy(files, out, "--limit", "2")
    before = sorted((p, p.stat().st_mtime_ns) for p in out.rglob("*"))
    done = invoke("plan", "toy", "--input", files, "--output", out)
    assert "3 samples to compute, 2 reused" in done.stdout and "CPU-seconds a sample" in done.stdout
    changed = invoke("plan", "toy", "--input", files, "--output", out, "--set", "length.add=1")
    assert "5 samples to compute, 0 reused" in changed.stdout
    limited = invoke("plan", "toy", "--input", files, "--output", out, "--limit", "2")
    assert "0 samples to compute, 2 reused" in limited.stdout
    assert sorted((p, p.stat().st_mtime_ns) for p in out.rglob("*")) == before


def test_plan_with_another_input_list_than_the_runs(tmp_path: Path, files: Path) -> None:
    out = tmp_path / "out"
    run_toy(files, out)
    names = sorted(p.name for p in files.glob("*.mp4"))
    pd.DataFrame({"uri": names, "note": "new", "source": "in"}).to_csv(files / "l.csv", index=False)
    done = invoke("plan", "toy", "--input", files / "l.csv", "--output", out)
    assert done.exit_code == 0 and "0 samples to compute, 5 reused" in done.stdout


def test_plan_counts_what_a_killed_run_left_behind(tmp_path: Path, files: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    run_toy(files, killed, "--limit", "2")
    run_toy(files, whole)
    store.commit(killed / "manifest", store.read(whole / "manifest"))
    done = invoke("plan", "toy", "--input", files, "--output", killed)
    assert "0 samples to compute, 5 reused" in done.stdout


def test_status_as_json_has_the_same_figures(tmp_path: Path, files: Path) -> None:
    out = tmp_path / "out"
    run_toy(files, out, "--set", "square.raise_on=clip0001.mp4")
    (run,) = json.loads(invoke("status", out, "--json").stdout)["runs"]
    assert run.pop("stages")["square"] == {
        "computed": 4,
        "left": 0,
        "errors": 1,
        "reused": 0,
        "seconds": record(out)["stages"]["square"]["seconds"],
    }
    assert run == {
        "folder": str(out),
        "pipeline": "toy",
        "run_id": record(out)["run_id"],
        "state": "finished",
        "message": "",
        "started": record(out)["started"],
        "finished": record(out)["finished"],
        "rows": 5,
        "kept": 4,
        "dropped": 0,
        "errors": 1,
        "unmerged": 0,
        "due": 0,
        "longest_running": None,
        "progress": None,
        "failures": [
            {
                "stage": "square",
                "message": "cannot square clip0001.mp4",
                "count": 1,
                "first": str(files / "clip0001.mp4"),
            }
        ],
    }
    assert all(key in invoke("status", "--help").stdout for key in (*run, "stages", "computed", "seconds"))
    assert "is not the folder of a run" in refused(2, "status", files, "--json")
    assert invoke("status", files, "--json").stdout == ""


def test_a_files_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    files, out = tmp_path / "in", tmp_path / "out"
    files.mkdir()
    name = "\x1b]0;x\x07\x9b31m\u202e\r\nkept 9"
    for file in (f"{name}.mp4", f"b.{name}"):
        (files / file).write_bytes(b"x")
    twin = tmp_path / "twin" / "in"
    twin.mkdir(parents=True)
    (twin / f"{name}.mp4").write_bytes(b"y")
    fails = ("--set", f"square.raise_on={json.dumps(f'{name}.mp4')}")
    said = [
        run_toy(files, out, *fails),
        run_toy(files, out, *fails),
        run_toy(twin, out),
        *(invoke(*words) for words in (("status", out), ("status", out, "--json"), ("report", out))),
        invoke("plan", "toy", "--input", files, "--output", out, *fails),
        invoke("screen", out, "--dry-run"),
        invoke("status", name),
        invoke(name),
    ]
    for done in said:
        shown = (done.stdout + done.stderr).replace("\n", "")
        assert not [c for c in shown if not c.isprintable()], done.output
    assert said[0].exit_code == 1 and "1 in square: cannot square \\x1b]0;x" in said[0].stdout
    assert said[2].exit_code == 2 and "\\x1b]0;x" in said[2].stderr
    for done in said[:3]:
        assert "\nkept 9" not in done.output
    row = store.read(out / "manifest").to_pylist()[0]
    assert row["source_uri"] == str(files / f"{name}.mp4")  # data stays as it is
