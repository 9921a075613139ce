"""Clips are played and reviewed in a browser, by the keyboard; what was said lies in the run's folder."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from manifests.screen import Rule, Screen
from pipelines.review.screening import screen_again
from tests.support.browser import opened
from tests.support.review_runs import ids_of, served


def open_clip(page: Page, name: str) -> None:
    """By its card, which a search for its id has brought up."""
    page.fill("#filter-words", name)
    expect(page.locator("#found")).to_have_text(re.compile("^1 of "))
    page.evaluate("document.querySelector('#clips').scrollIntoView()")
    page.locator(".card .open").click()
    expect(page.locator("#clip-title")).to_have_text(name)


def video_at(page: Page, seconds: float) -> None:
    """Wait until the film stands near this time."""
    expect(page.locator("video")).to_have_js_property("seeking", False)
    assert page.evaluate("document.querySelector('video').currentTime") == pytest.approx(seconds, abs=0.02)


@pytest.mark.parametrize(("kind", "length"), [("clip.mp4", 3.0), ("other.mkv", 2.0), ("range", 1.0)])
def test_a_clip_plays_and_seeks(
    kind: str, length: float, run: Path, browser: Browser, tmp_path: Path
) -> None:
    with served(run, tmp_path / "copies") as site, opened(browser, site) as page:
        open_clip(page, ids_of(run)[kind])
        video = page.locator("video")
        expect(video).to_have_js_property("readyState", 4)
        assert page.evaluate("document.querySelector('video').duration") == pytest.approx(length, abs=0.15)
        page.locator("#clip-close").focus()  # Space is for the clip, whatever has the focus
        was_paused = page.evaluate("document.querySelector('video').paused")
        page.keyboard.press(" ")
        expect(video).to_have_js_property("paused", not was_paused)
        expect(page.locator("#clip-title")).to_have_text(ids_of(run)[kind])
        page.evaluate("document.querySelector('video').pause()")
        page.evaluate("document.querySelector('video').currentTime = 0.4")
        video_at(page, 0.4)
        fps = pd.read_parquet(run / "manifest").get("fps")
        step = 1 / 25 if fps is None or fps.isna().all() else 1 / fps.dropna().iloc[0]
        page.keyboard.press(".")
        video_at(page, 0.4 + step)
        page.keyboard.press(",")
        page.keyboard.press(",")
        video_at(page, 0.4 - step)
        assert page.evaluate("document.querySelector('video').loop")
        page.keyboard.press("l")
        assert not page.evaluate("document.querySelector('video').loop")


def test_a_picture_is_shown(run: Path, browser: Browser, tmp_path: Path) -> None:
    with served(run, tmp_path / "copies") as site, opened(browser, site) as page:
        for kind in ("picture.png", "picture.tif"):
            open_clip(page, ids_of(run)[kind])
            expect(page.locator("#clip-view img")).to_have_js_property("naturalWidth", 256)
            page.keyboard.press("Escape")


def test_the_keyboard_reviews_and_the_reviews_decide(run: Path, browser: Browser, tmp_path: Path) -> None:
    before = pd.read_parquet(run / "manifest").set_index("sample_id")
    order = before.index.tolist()
    assert before["keep"].sum() > 2
    with served(run, tmp_path / "copies") as site, opened(browser, site, lacks="clip/gone-") as page:
        expect(page.locator("#reviewer")).to_have_value("Ada")
        page.evaluate("document.querySelector('#clips').scrollIntoView()")
        page.locator(".card .open").first.focus()
        page.keyboard.press("Enter")
        for number, key in enumerate("kddfk"):
            expect(page.locator("#clip-title")).to_have_text(order[number])
            expect(page.locator("#clip-review button").first).to_be_visible()
            if key == "d":
                page.keyboard.press("t")
                page.keyboard.type(f"not {number}: k d f")
                page.keyboard.press("Enter")
            page.keyboard.press(key)
            if key == "f":  # for others to look at: one may go on to say more
                expect(page.locator("#clip-saved")).to_have_text(f"saved: flag {order[number]}")
                expect(page.locator("#clip-title")).to_have_text(order[number])
                page.keyboard.press("n")
        expect(page.locator("#clip-title")).to_have_text(order[5])
        page.keyboard.press("Escape")
        expect(page.locator("#review-figures")).to_contain_text("4 samples are decided by reviews")
        page.select_option("#filter-verdict", "flagged")
        expect(page.locator("#found")).to_have_text(re.compile("^1 of "))
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    said = pd.read_parquet(run / "reviews.parquet").sort_values("at")
    assert said["sample_id"].tolist() == order[:5]
    assert said["verdict"].tolist() == ["keep", "drop", "drop", "flag", "keep"]
    assert said["note"].tolist() == ["", "not 1: k d f", "not 2: k d f", "", ""]
    assert set(said["reviewer"]) == {"Ada"}
    assert said["keep"].tolist() == before.loc[order[:5], "keep"].tolist()
    assert [list(r) for r in said["drop_reasons"]] == [list(r) for r in before.loc[order[:5], "drop_reasons"]]
    assert said["screen"].tolist() == ["toy"] * 5 and said["screen_hash"].nunique() == 1
    screen_again(run, Screen(name="none", rules=[Rule(reason="all", column="start_s", max=-1.0)]))
    after = pd.read_parquet(run / "manifest").set_index("sample_id")
    assert after.loc[[order[0], order[4]], "keep"].all()  # people's word goes before the rule
    assert not after.drop(index=[order[0], order[4]])["keep"].any()


def test_what_a_moved_threshold_says_of_the_reviews(run: Path, browser: Browser, tmp_path: Path) -> None:
    names = ids_of(run)
    with served(run, tmp_path / "copies") as site, opened(browser, site) as page:
        for kind, key in (("clip.mp4", "k"), ("range", "d")):
            open_clip(page, names[kind])
            expect(page.locator("#clip-review button").first).to_be_visible()
            page.keyboard.press(key)
            expect(page.locator("#said")).to_contain_text("Ada")
            page.keyboard.press("Escape")
        figures = page.locator("#review-figures")
        expect(figures).to_contain_text("2 samples are decided by reviews")
        rows = pd.read_parquet(run / "manifest").set_index("sample_id")
        kept = int(rows.loc[[names["clip.mp4"], names["range"]], "keep"].sum())
        expect(figures).to_contain_text(f"of {kept})")


def test_notes_are_kept_and_others_are_seen_by_those_who_have_spoken(
    run: Path, browser: Browser, tmp_path: Path
) -> None:
    name = ids_of(run)["clip.mp4"]
    with served(run, tmp_path / "copies") as site, opened(browser, f"{site}?reviewer=Bob") as page:
        page.fill("#reviewer", "Grace")
        page.keyboard.press("Tab")
        open_clip(page, name)
        page.keyboard.press("k")
        expect(page.locator("#said")).to_contain_text("Grace: keep")
        page.keyboard.press("t")
        page.keyboard.type("well lit")
        page.keyboard.press("Enter")
        expect(page.locator("#said")).to_contain_text("Grace: keep (well lit)")
        page.keyboard.press("Escape")
        page.fill("#reviewer", "Edith")
        page.keyboard.press("Tab")
        page.locator(".card .open").click()
        expect(page.locator("#clip-title")).to_have_text(name)
        expect(page.locator("#clip-review button").first).to_be_visible()
        assert page.inner_text("#said") == ""  # not before one has a word of one's own
        page.keyboard.press("t")
        page.keyboard.type("too dark")
        page.keyboard.press("Escape")  # leaves the note, not the clip
        page.keyboard.press("d")
        expect(page.locator("#said")).to_contain_text("Edith: drop (too dark)")
        expect(page.locator("#said")).to_contain_text("Grace: keep (well lit)")
    said = pd.read_parquet(run / "reviews.parquet").sort_values("at")
    assert said[["reviewer", "verdict", "note"]].values.tolist() == [
        ["Grace", "keep", ""],
        ["Grace", "keep", "well lit"],
        ["Edith", "drop", "too dark"],
    ]
