"""`interavatar compare` on a terminal, for machines, and as a page in a browser."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser
from typer.testing import CliRunner

from manifests.screen import Rule, Screen
from pipelines.cli import app as cli
from tests.pipelines.compare.test_compare import changed_rows, make_run, sample
from tests.support.random_runs import random_rows

SCREEN = Screen(name="first", rules=[Rule(reason="low", column="odd", min=0.3)])
STRICT = Screen(name="strict", rules=[Rule(reason="low", column="odd", min=0.6)])
HOSTILE = '</td><script>document.title = "hacked"</script><img src=http://127.0.0.1:9/x onerror=alert(1)>'
ERROR = {"stage": "probe", "kind": "K", "message": HOSTILE, "traceback": "", "fingerprint": "f"}


def invoke(*arguments: Any, columns: int = 200) -> Any:
    done = CliRunner(env={"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}).invoke(
        cli.app, [str(a) for a in arguments]
    )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Five samples, of which three are in both runs; one falls by its score and one by the rules."""
    before = [sample(n, odd=value) for n, value in enumerate((0.9, 0.7, 0.5, 0.2))]
    after = [before[0], before[1] | {"odd": 0.1}, before[2], sample(4, odd=1.0)]
    told = {"settings": {"seed": 0}, "versions": {"numpy": "1"}}
    other = {"settings": {"seed": 1}, "versions": {"numpy": "2"}}
    a = make_run(tmp_path / "a", before, SCREEN, **told)
    return a, make_run(tmp_path / "b", after, STRICT, **other)


def lines_of(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_it_says_what_differs_and_why(runs: tuple[Path, Path]) -> None:
    a, b = runs
    done = invoke("compare", a, b)
    assert done.exit_code == 0
    said = lines_of(done.stdout)
    assert said[:3] == [
        f"A {a}: talking_head, run r-1, 4 rows, kept 3, errors 0",
        f"B {b}: talking_head, run r-1, 4 rows, kept 2, errors 0",
        "samples: 3 in both, 1 only in B, 1 only in A",
    ]
    for line in (
        "setting seed 0 1",
        "rule low (odd) min 0.3 min 0.6",
        "version numpy 1 2",
        "verdicts: 2 changed: 2 kept -> dropped",
        "1 by changed scores, 1 by changed rules",
        "low 2 1 scores, 1 rules",
        "/in/1.mp4: +low (odd 0.7 -> 0.1, min 0.3 -> min 0.6; scores)",
        "/in/2.mp4: +low (odd 0.5, min 0.3 -> min 0.6; rules)",
        "odd 1 0.7 0.5 -1.225 0 -0.6 s1",
        "errors: none new, none gone",
    ):
        assert line in said, done.stdout
    same = invoke("compare", a, a)
    assert lines_of(same.stdout)[2:] == [
        "samples: 4 in both, 0 only in B, 0 only in A",
        "nothing differs in what the runs were told and ran on",
        "verdicts: none changed",
        "scores: none differs",
        "errors: none new, none gone",
    ]


def test_changed_reviews_are_told(runs: tuple[Path, Path], tmp_path: Path) -> None:
    rows = [sample(n, odd=0.9, review=review) for n, review in enumerate((None, "drop"))]
    b = make_run(tmp_path / "c", rows, SCREEN)
    done = invoke("compare", runs[0], b, "--page", tmp_path / "p.html")
    said = lines_of(done.stdout)
    assert "1 by changed reviews" in said and "review 1 1 reviews" in said, done.stdout
    assert "/in/1.mp4: +review (reviews)" in said
    text = (tmp_path / "p.html").read_text()
    assert "<td>reviews</td>" in text and "changed reviews: B&#39;s reviews on A&#39;s scores" in text
    (found,) = json.loads(invoke("compare", runs[0], b, "--json").stdout)["comparisons"]
    assert found["verdicts"]["causes"]["reviews"] == 1


def test_machines_get_one_object(runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = invoke("compare", *runs, "--json", "--samples", 1, "--page", tmp_path / "p.html", columns=40)
    (found,) = json.loads(done.stdout)["comparisons"]
    assert found["step"] == "" and found["in_both"] == 3 and found["a"]["kept"] == 3
    assert found["added"] == {
        "count": 1,
        "samples": [{"sample_id": "s4", "source_uri": "/in/4.mp4", "keep": True}],
    }
    assert found["verdicts"]["changes"] == {"dropped": 2, "kept": 0, "reasons": 0}
    assert [example["sample_id"] for example in found["verdicts"]["examples"]] == ["s1"]
    assert found["scores"][0]["column"] == "odd" and found["errors"] == {"new": 0, "gone": 0, "messages": []}
    assert (tmp_path / "p.html").is_file()


def test_the_steps_of_a_pipeline_are_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    for side, run in zip("xy", runs, strict=True):
        for name in ("portraits", "clips"):
            shutil.copytree(run, tmp_path / side / name)
    done = invoke("compare", tmp_path / "x", tmp_path / "y", "--page", tmp_path / "p.html")
    assert re.findall(r"^== (\w+)$", done.stdout, re.MULTILINE) == ["portraits", "clips"]
    assert done.stdout.count("verdicts: 2 changed") == 2
    found = json.loads(invoke("compare", tmp_path / "x", tmp_path / "y", "--json").stdout)["comparisons"]
    assert [one["step"] for one in found] == ["portraits", "clips"]
    assert re.findall(r"<h2>(portraits|clips)</h2>", (tmp_path / "p.html").read_text()) == [
        "portraits",
        "clips",
    ]


def test_wrong_use_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = invoke("compare", runs[0], tmp_path)
    assert done.exit_code == 2 and done.stderr.startswith(f"error: {tmp_path} is not the folder of a run (")
    (tmp_path / "file").write_text("")
    done = invoke("compare", *runs, "--page", tmp_path / "file" / "p.html")
    assert done.exit_code == 1 and done.stderr.startswith(f"error: cannot write into {tmp_path / 'file'}: ")


def test_samples_that_cannot_match_have_a_hint(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = make_run(tmp_path / "c", [sample(9, odd=1.0)], SCREEN)
    said = invoke("compare", runs[0], other).stdout
    assert "no sample is in both: " in said and "--set source=NAME" in said


def test_texts_from_outside_cannot_steer_a_terminal(tmp_path: Path) -> None:
    rows = [sample(n, odd=0.5) for n in range(2)]
    after = [
        rows[0] | {"caption": "\x1b[2J\nerrors: 9 new", "source_uri": "/in/\x1b]0;x\x07.mp4", "odd": 0.1},
        rows[1] | {"error": ERROR | {"message": "\x1b[31m\nred"}},
    ]
    done = invoke("compare", make_run(tmp_path / "a", rows, SCREEN), make_run(tmp_path / "b", after, SCREEN))
    assert "\x1b" not in done.stdout and "\nerrors: 9 new" not in done.stdout and "\nred" not in done.stdout
    assert "\\x1b[31m\\nred" in done.stdout


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_safe_and_can_be_read_by_everybody(tmp_path: Path, browser: Browser, scheme: Any) -> None:
    rows = random_rows(80, seed=4)
    after = changed_rows(rows, seed=5)
    for row in (*rows[:40], *after[40:]):
        row |= {"caption": HOSTILE, "source_uri": HOSTILE}
    after[50]["error"] = ERROR
    a = make_run(tmp_path / "a", rows, SCREEN, input=HOSTILE, settings={HOSTILE: 1})
    b = make_run(tmp_path / "b", after, STRICT, input="b", settings={HOSTILE: HOSTILE})
    page = tmp_path / "compared.html"
    assert invoke("compare", a, b, "--page", page).stdout.endswith(f"page      {page}\n")
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1000, "height": 900}, offline=True)
    shown = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("console", lambda message: complaints.append(message.text))
    shown.goto(page.as_uri())
    assert shown.title() == "Two runs compared"
    assert asked == [page.as_uri()] and complaints == []
    assert shown.locator("script, img, iframe, link").count() == 0
    text = shown.locator("body").text_content() or ""
    assert text.count(HOSTILE) > 20 and "None" not in text and "nan" not in text
    background = shown.evaluate("getComputedStyle(document.documentElement).colorScheme")
    assert background == "light dark"
    wide = shown.evaluate("document.documentElement.scrollWidth")
    assert wide <= 1000
    found = Axe().run(shown).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []
    context.close()
