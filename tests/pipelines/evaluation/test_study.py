"""A blind page: what raters see betrays no method, and what they answer comes home."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import av
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from typer.testing import CliRunner

from pipelines.cli.study import study as study_command
from pipelines.cli.typer_app import new_app
from pipelines.evaluation.study import QUESTIONS, Study, write_study
from pipelines.evaluation.study_key import StudyError, read_key
from pipelines.evaluation.votes import count_votes
from tests.support.browser import opened
from tests.support.clips import make_clip

HOSTILE = '</script><script>alert("x")</script>'


@pytest.fixture(scope="module")
def methods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `secretours` and `secretother`, which share clip-a, clip-b and clip-c."""
    root = tmp_path_factory.mktemp("methods")
    clip = make_clip(root / "made.mp4", 1, 10, "64x48", options=("-metadata", "comment=secretours made it"))
    other = make_clip(root / "made.mkv", 1, 10, "64x48", options=("-metadata", "title=secretother"))
    for method, source, names in (
        ("secretours", clip, ("clip-a", "clip-b", "clip-c", "alone")),
        ("secretother", other, ("clip-a", "clip-b", "clip-c")),
    ):
        (root / method).mkdir()
        for name in names:
            (root / method / f"{name}{source.suffix}").write_bytes(source.read_bytes())
    (root / "secretours" / "notes.txt").write_text("not a clip")
    return root


def written(methods: Path, output: Path, **options: object) -> Study:
    folders = [str(methods / "secretours"), str(methods / "secretother")]
    return write_study(folders, output, **options)  # type: ignore[arg-type]


# What is written


def test_pairs_of_all_clips_that_both_have(methods: Path, tmp_path: Path) -> None:
    made = written(methods, tmp_path / "page.html")
    assert made.left_out == [
        "secretother lacks 1 clips that others have: alone",
        "secretours: no videos, passed over: 1 .txt",
    ]
    assert sorted(one.clip for one in made.key.comparisons) == ["clip-a", "clip-b", "clip-c"]
    assert {frozenset((one.left, one.right)) for one in made.key.comparisons} == {
        frozenset(("secretours", "secretother"))
    }
    lefts = [one.left for one in made.key.comparisons]
    assert abs(lefts.count("secretours") - lefts.count("secretother")) == 1
    assert list(made.key.questions.values()) == list(QUESTIONS)
    assert read_key(made.key_file) == made.key
    assert sorted(made.key.files) == sorted(path.name for path in (tmp_path / "page_files").iterdir())


def test_nothing_that_raters_get_betrays_a_method(methods: Path, tmp_path: Path) -> None:
    made = written(methods, tmp_path / "page.html")
    files = [*(tmp_path / "page_files").iterdir()]
    assert len(files) == 6
    for path in (made.page, *files):
        assert not re.search(rb"secret|clip-[abc]", path.read_bytes() + path.name.encode())
    assert {path.stat().st_mtime for path in files} == {0}
    formats = set()
    for path in files:
        with av.open(str(path)) as container:
            video, sound = container.streams.video[0], container.streams.audio[0]
            formats.add((video.codec.name, sound.codec.name, video.average_rate, str(container.metadata)))
    assert len(formats) == 1


def test_the_seed_draws_order_sides_and_clips(methods: Path, tmp_path: Path) -> None:
    first, same, other = (
        written(methods, tmp_path / f"{n}.html", seed=seed) for n, seed in enumerate((0, 0, 1))
    )
    assert first.key == same.key and first.key.study != other.key.study
    assert [c.id for c in first.key.comparisons] != [c.id for c in other.key.comparisons]
    few = written(methods, tmp_path / "few.html", most=2)
    assert len(few.key.comparisons) == 2
    more = written(methods, tmp_path / "more.html", most=5)
    assert more.left_out[-1] == "3 clips instead of 5: there are no more"


def test_three_methods_in_pairs_with_each_side_as_often(methods: Path, tmp_path: Path) -> None:
    ours, other = methods / "secretours", methods / "secretother"
    made = write_study([f"a={ours}", f"b={other}", f"c={ours}"], tmp_path / "page.html")
    assert len(made.key.comparisons) == 9
    for pair in ("ab", "ac", "bc"):
        lefts = [c.left for c in made.key.comparisons if {c.left, c.right} == set(pair)]
        assert sorted(map(lefts.count, pair)) == [1, 2]


def test_a_broken_clip_is_named_and_left_out(methods: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "clip-a.mp4").write_bytes((methods / "secretours" / "clip-a.mp4").read_bytes())
    (bad / "clip-b.mp4").write_bytes(b"not a video")
    made = write_study([str(methods / "secretours"), str(bad)], tmp_path / "page.html")
    assert [one.clip for one in made.key.comparisons] == ["clip-a"]
    assert any("clip-b.mp4" in line and "the clip is left out" in line for line in made.left_out)
    assert len(list((tmp_path / "page_files").iterdir())) == 2


def test_foreign_text_stays_text(methods: Path, tmp_path: Path) -> None:
    made = written(methods, tmp_path / "page.html", questions=[HOSTILE, "and & now?"])
    html = made.page.read_text()
    assert HOSTILE not in html and "&lt;/script&gt;" in html and "and &amp; now?" in html


def test_what_cannot_be_compared(methods: Path, tmp_path: Path) -> None:
    ours = str(methods / "secretours")
    page = tmp_path / "page.html"
    for given, said in (
        ([ours], "needs two methods"),
        ([ours, ours], "two methods are called secretours"),
        ([ours, "gone"], "gone: no such folder"),
        ([ours, f"empty={tmp_path}"], "share no clip"),
    ):
        with pytest.raises(StudyError, match=said):
            write_study(given, page)
    for questions in ([], ["a", "a"], [" "], ["x"] * 10, ["x" * 301]):
        with pytest.raises(StudyError, match="question"):
            written(methods, page, questions=questions)
    with pytest.raises(StudyError, match=r"\.html"):
        written(methods, tmp_path / "page.md")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "page_key.json").write_text("{}")
    with pytest.raises(StudyError, match=r"page_key\.json: there already"):
        written(methods, page)


def test_the_command(methods: Path, tmp_path: Path) -> None:
    app = new_app()
    app.command()(study_command)
    page = tmp_path / "page.html"
    words = [str(methods / "secretours"), str(methods / "secretother"), "--output", str(page)]
    done = CliRunner().invoke(app, [*words, "--question", "Which one?", "--clips", "2"])
    assert done.exit_code == 0, done.output
    assert f"{page}: 2 pairs, 1 questions of each" in done.stdout
    assert "warning: secretother lacks 1 clips" in done.stderr
    assert json.loads((tmp_path / "page_key.json").read_text())["questions"] == {"q1": "Which one?"}
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and "there already" in done.stderr


# What raters do


def answered(page: Page, count: int) -> None:
    expect(page.locator("#progress")).to_contain_text(f", {count} of 6 answers")


def save(page: Page, path: Path) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(path)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_keyboard_answers_and_the_answers_come_home(
    methods: Path, tmp_path: Path, browser: Browser
) -> None:
    made = written(methods, tmp_path / "a#b.html", questions=["Which moves better?", HOSTILE])
    with opened(browser, made.page.as_uri()) as page:
        page.keyboard.press("Escape")
        page.click("h1")
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#notice")).to_have_text("Write your name first.")
        page.fill("#rater", "=Ada")
        page.keyboard.press("Enter")
        for side in ("left", "right"):
            expect(page.locator(f"video#{side}")).to_have_js_property("readyState", 4)
        shown = page.locator("video#left").get_attribute("src")
        assert shown is not None and shown.endswith(made.key.comparisons[0].left_file)
        assert "secret" not in page.content() and "clip-" not in page.content()
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
        page.keyboard.press("2")
        expect(page.locator("#q2")).to_have_attribute("data-current", "")
        page.keyboard.press("ArrowRight")
        answered(page, 1)
        expect(page.locator("#q1")).to_have_attribute("data-current", "")
        page.keyboard.press("0")
        answered(page, 2)
        expect(page.locator("#progress")).to_contain_text("pair 2 of 3")
        page.keyboard.press("ArrowLeft")
        answered(page, 3)
        page.keyboard.press("p")
        expect(page.locator("#q1 [data-answer=tie]")).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("1")
        page.keyboard.press("ArrowLeft")  # another answer to the same
        answered(page, 3)
        page.reload()
        page.wait_for_selector("body[data-ready]")
        answered(page, 3)
        expect(page.locator("#rater")).to_have_value("=Ada")
        expect(page.locator("#progress")).to_contain_text("pair 2 of 3")
        expect(page.locator("#q2")).to_have_attribute("data-current", "")
        for key in ("ArrowRight", "ArrowRight", "0"):
            page.keyboard.press(key)
        answered(page, 6)
        expect(page.locator("#notice")).to_contain_text("All is answered")
        rows = save(page, tmp_path / "answers.csv")
        page.fill("#rater", "Bob")
        page.keyboard.press("Enter")
        answered(page, 0)
    ids = [one.id for one in made.key.comparisons]
    assert {row["rater"] for row in rows} == {"'=Ada"} and {row["study"] for row in rows} == {made.key.study}
    assert [(row["comparison"], row["question"], row["answer"]) for row in rows] == [
        *((ids[0], "q1", "left"), (ids[0], "q2", "right")),
        *((ids[1], "q1", "left"), (ids[1], "q2", "right")),
        *((ids[2], "q1", "right"), (ids[2], "q2", "tie")),
    ]
    counted = count_votes(made.key, [tmp_path / "answers.csv"])
    assert counted.votes == 6 and counted.raters == 1 and counted.sides == (2, 1, 3)


def test_clips_play_with_the_sound_of_one(methods: Path, tmp_path: Path, browser: Browser) -> None:
    made = written(methods, tmp_path / "page.html")
    with opened(browser, made.page.as_uri()) as page:
        page.fill("#rater", "Ada")
        page.keyboard.press("Enter")
        for key, muted in ((" ", [False, True]), ("d", [True, False]), ("a", [False, True])):
            page.keyboard.press(key)
            assert [
                page.evaluate(f"document.querySelector('#{side}').muted") for side in ("left", "right")
            ] == muted
        expect(page.locator("video#left")).to_have_js_property("ended", True)
        assert page.evaluate("document.querySelector('#left').duration") == pytest.approx(1, abs=0.15)


def test_a_missing_clip_is_said(methods: Path, tmp_path: Path, browser: Browser) -> None:
    made = written(methods, tmp_path / "page.html")
    gone = made.key.comparisons[0].right_file
    (tmp_path / "page_files" / gone).unlink()
    with opened(browser, made.page.as_uri(), lacks=gone) as page:
        expect(page.locator("figcaption").last).to_have_text("Right: this clip cannot be played")
