"""The page of an avatar in a real browser: frames arrive, touches and voices are answered."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from backends.sound.audio_embedder import RATE
from media.decode import decode
from media.requests import Audio
from pipelines.live.session import Avatar
from pipelines.live.site import Site
from tests.support.browser import opened
from tests.support.live_avatars import avatar_of, served
from tests.trainer.test_generate import probe

KINDS = {"poked": "poke", "kissed": "kiss"}
MILLISECONDS = re.compile(r"^\d+ ms$")


@pytest.fixture(scope="module")
def avatar(tmp_path_factory: pytest.TempPathFactory) -> Avatar:
    return avatar_of(tmp_path_factory.mktemp("avatar"))


def picture(page: Page) -> str:
    return str(page.evaluate("document.querySelector('#picture').toDataURL()"))


def begin(page: Page) -> None:
    page.click("#begin")
    expect(page.locator("#first")).to_have_text(MILLISECONDS)


def watch(page: Page, count: int) -> None:
    """Until this many further frames have come."""
    begin = now = int(page.inner_text("#frames"))
    while now < begin + count:
        expect(page.locator("#frames")).not_to_have_text(str(now))
        now = int(page.inner_text("#frames"))


def record(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "0001.jsonl").read_text().splitlines()]


def test_frames_come_and_a_click_is_answered(avatar: Avatar, browser: Browser, tmp_path: Path) -> None:
    site = Site(avatar, KINDS, ["random weights: it shows nothing"], None, tmp_path, True)
    with served(site) as address, opened(browser, address) as page:
        portrait = picture(page)
        begin(page)
        expect(page.locator("#shown")).to_have_text(re.compile(r"^\d+\.\d$"))
        assert picture(page) != portrait
        page.check("text=kiss")
        page.click("#picture", position={"x": 30, "y": 60})
        expect(page.locator("#reaction")).to_have_text(MILLISECONDS)
        expect(page.locator("#status")).to_have_text("The avatar knows of the touch.")
        made = int(page.inner_text("#frames"))
        expect(page.locator("#frames")).not_to_have_text(str(made))  # it goes on
        page.click("#end")
        expect(page.locator("#status")).to_have_text("Ended.")
        box = page.locator("#picture").bounding_box()
    assert box is not None
    lines = record(tmp_path)
    (touch,) = [line for line in lines if line["event"] == "touch"]
    assert (touch["kind"], touch["number"]) == ("kissed", 1)
    assert touch["x"] == pytest.approx(30 / box["width"], abs=0.01)
    assert touch["y"] == pytest.approx(60 / box["height"], abs=0.01)
    blocks = [line for line in lines if line["event"] == "block"]
    reacting = next(line for line in blocks if line["touches"])
    assert reacting["reaction_s"] > 0 and blocks[0]["reaction_s"] is None  # type: ignore[operator]
    # It counts from the first block that begins after it.
    after = blocks[blocks.index(reacting) - 1]
    assert float(str(touch["s"])) <= float(str(reacting["s"])) and not after["touches"]
    seen = [line for line in lines if line["event"] == "seen"]
    assert seen[0]["frame"] == 0 and seen[0]["first_ms"] > 0  # type: ignore[operator]
    (shown,) = [line for line in seen if "reaction_ms" in line]
    assert shown["touch"] == 1 and shown["frame"] == reacting["first"]
    assert lines[-1]["event"] == "ended"
    clip = probe(tmp_path / "0001.mp4")
    assert len(clip["frames"]) == lines[-1]["frames"] and clip["shape"][2] == 25


def test_the_keyboard_touches(avatar: Avatar, browser: Browser, tmp_path: Path) -> None:
    with served(Site(avatar, KINDS, [], None, tmp_path)) as address, opened(browser, address) as page:
        page.locator("#begin").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#first")).to_have_text(MILLISECONDS)
        page.locator("#picture").focus()
        for key in ("ArrowLeft", "ArrowLeft", "ArrowDown"):
            page.keyboard.press(key)
        expect(page.locator("#cross")).to_be_visible()
        page.keyboard.press("Enter")
        expect(page.locator("#reaction")).to_have_text(MILLISECONDS)
        (touch,) = [line for line in record(tmp_path) if line["event"] == "touch"]
    assert (touch["x"], touch["y"], touch["kind"]) == (pytest.approx(0.46), pytest.approx(0.52), "poked")


def test_one_page_at_a_time(avatar: Avatar, browser: Browser) -> None:
    with served(Site(avatar, KINDS, [])) as address, opened(browser, address) as first:
        begin(first)
        with opened(browser, address, lacks="begin") as second:
            second.click("#begin")
            expect(second.locator("#status")).to_have_text(re.compile("^the avatar is with another page"))
            expect(second.locator("#begin")).to_be_enabled()
            first.click("#end")
            expect(first.locator("#status")).to_have_text("Ended.")
            while not MILLISECONDS.match(second.inner_text("#first")):  # as soon as the first has gone
                if second.is_enabled("#begin"):
                    second.click("#begin")


def test_a_recording_is_heard_by_the_avatar_and_kept(
    avatar: Avatar, browser: Browser, tmp_path: Path
) -> None:
    tone = (0.5 * np.sin(np.arange(RATE) * (2 * np.pi * 440 / RATE))).astype(np.float32)
    with (
        served(Site(avatar, KINDS, [], tone, tmp_path, True)) as address,
        opened(browser, address) as page,
    ):
        begin(page)
        watch(page, 50)
        page.click("#end")
        expect(page.locator("#status")).to_have_text("Ended.")
    kept = decode(tmp_path / "0001.mp4", [Audio(RATE)]).audio[Audio(RATE)]
    loud = np.flatnonzero(np.abs(kept) > 0.25)
    assert (loud[-1] - loud[0]) / RATE == pytest.approx(1, abs=0.1)


def test_the_microphone_is_heard(avatar: Avatar, browser: Browser, tmp_path: Path) -> None:
    """Chromium's own stands in for one: it beeps once a second."""
    with (
        served(Site(avatar, KINDS, [], None, tmp_path, True)) as address,
        opened(browser, address) as page,
    ):
        page.context.grant_permissions(["microphone"])
        begin(page)
        page.click("#microphone")
        expect(page.locator("#microphone")).to_have_attribute("aria-pressed", "true")
        watch(page, 60)
        page.click("#microphone")
        expect(page.locator("#microphone")).to_have_attribute("aria-pressed", "false")
        page.click("#end")
        expect(page.locator("#status")).to_have_text("Ended.")
    kept = decode(tmp_path / "0001.mp4", [Audio(RATE)]).audio[Audio(RATE)]
    assert np.abs(kept).max() > 0.1


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1200, True)])
def test_it_is_accessible_and_fits(avatar: Avatar, browser: Browser, width: int, dark: bool) -> None:
    with (
        served(Site(avatar, KINDS, ["random weights: it shows nothing"])) as address,
        opened(browser, address, width=width, dark=dark) as page,
    ):
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
