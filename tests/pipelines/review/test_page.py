"""The report in a browser: its numbers are those of the screen, and nothing in it runs but its own script."""

from __future__ import annotations

import json
import random
import re
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from manifests import store
from manifests.screen import Rule, Screen, load_screen
from pipelines.review import report
from pipelines.review.report import write_report
from pipelines.review.strips import FOLDER, READS, strip_name
from tests.support.browser import opened
from tests.support.random_runs import SCREEN, random_rows, random_run


def judged_run(folder: Path, rows: list[dict[str, object]], per_file: int = 10**6) -> Path:
    """A run of these rows, some of them reviewed, judged by the screen of its record."""
    for number, row in enumerate(rows):
        row["review"] = (None, None, None, "keep", None, "drop")[number % 6]
    run = random_run(folder, rows, per_file)
    for path in store.manifest_files(run / "manifest"):
        store.write_table(path, SCREEN.apply(store.read_file(path)))
    return run


def rows_of(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "manifest")


def address(run: Path) -> str:
    return (run / "report.html").as_uri()


def first_card(page: Page) -> Locator:
    """The first clip; cards are made when they come near the screen."""
    page.evaluate("document.querySelector('#clips').scrollIntoView()")
    return page.locator(".card").first


def kept_ids(page: Page) -> list[str]:
    """What the contact sheet shows as kept, all of it."""
    page.select_option("#filter-verdict", "kept")
    return shown_ids(page)


def shown_ids(page: Page) -> list[str]:
    count = int(re.sub(r"\D", "", page.inner_text("#found").split(" of ")[0]))
    found: dict[int, str] = {}
    while len(found) < count:
        expect(page.locator(".card:not(:has(.name))")).to_have_count(0)
        for card in page.query_selector_all(".card"):
            place = int(card.get_attribute("aria-posinset") or 0)
            name = card.query_selector(".name")
            assert name is not None
            found[place] = name.inner_text()
        page.evaluate("scrollBy(0, 500)")
        page.wait_for_timeout(30)  # a frame, for the cards of the new place
    page.evaluate("scrollTo(0, 0)")
    return [found[place] for place in sorted(found)]


def set_bound(page: Page, rule: int, bound: str, value: float) -> None:
    box = page.locator(f"#card-{rule} .bound", has=page.locator(f"#{bound}-{rule}")).locator(
        "input[type=number]"
    )
    box.fill(repr(value))
    box.dispatch_event("change")


def status(page: Page) -> str:
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
    return page.inner_text("#now")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_moved_thresholds_give_the_numbers_of_the_command(
    seed: int, browser: Browser, tmp_path: Path
) -> None:
    run = judged_run(tmp_path / "run", random_rows(90, seed), 40)
    write_report(run)
    rows, dice = rows_of(run), random.Random(seed)
    with opened(browser, address(run)) as page:
        assert status(page).startswith(f"{rows['keep'].sum()} of 90 kept")
        for _ in range(6):
            rule = dice.randrange(len(SCREEN.rules))
            bound = "min" if SCREEN.rules[rule].min is not None else "max"
            if dice.random() < 0.3:
                page.locator(f"#on-{rule}").click()
            else:
                some = [x for x in (0.5, 0.1, dice.random(), -1.0, 1e-7, 640.0) if x is not None]
                set_bound(page, rule, bound, dice.choice(some))
            said = status(page)
            page.fill("#screen-name", "moved") if page.locator("#screen-name").is_visible() else None
            with page.expect_download() as download:
                page.click("#export")
            file = tmp_path / "screen.yaml"
            download.value.save_as(file)
            screen = load_screen(str(file))
            judged = screen.judge(rows)
            entered = (judged["keep"] & ~rows["keep"]).sum()
            left = (rows["keep"] & ~judged["keep"]).sum()
            assert said.startswith(f"{judged['keep'].sum()} of 90 kept"), (seed, screen)
            if "would" in said:
                assert f"{entered} would enter, {left} would leave" in said
            assert kept_ids(page) == rows.loc[judged["keep"], "sample_id"].tolist()
            page.click("#clear-filters")
        page.locator("#reset").click() if page.locator("#reset").is_visible() else None
        assert status(page).startswith(f"{rows['keep'].sum()} of 90 kept")


def test_a_screen_that_was_not_moved_is_exported_as_it_is(browser: Browser, tmp_path: Path) -> None:
    run = judged_run(tmp_path / "run", random_rows(5, 1))
    record = json.loads((run / "run.json").read_text())
    odd = Screen.model_validate(record["screen"]).with_rule(
        "codec", "video_codec", none_of=["a: b, {c}", "x*\u2028'\"#"], source="said: \"so\" - #1, 'and' é\\n"
    )
    record["screen"] = odd.model_dump(mode="json", exclude_none=True)
    (run / "run.json").write_text(json.dumps(record))
    write_report(run)
    with opened(browser, address(run)) as page:
        with page.expect_download() as download:
            page.click("#export")
        download.value.save_as(tmp_path / "screen.yaml")
    assert load_screen(str(tmp_path / "screen.yaml")).rules == odd.rules


def test_filters_and_order_are_those_of_pandas(browser: Browser, tmp_path: Path) -> None:
    run = judged_run(tmp_path / "run", random_rows(120, 7))
    write_report(run)
    rows = rows_of(run)
    with opened(browser, address(run)) as page:
        page.select_option("#filter-verdict", "error")
        assert shown_ids(page) == rows.loc[rows["error"].notna(), "sample_id"].tolist()
        page.select_option("#filter-verdict", "dropped")
        dropped = ~rows["keep"] & rows["error"].isna()
        assert shown_ids(page) == rows.loc[dropped, "sample_id"].tolist()
        page.select_option("#filter-reason", "high")
        high = rows["drop_reasons"].map(lambda reasons: "high" in reasons)
        assert shown_ids(page) == rows.loc[dropped & high, "sample_id"].tolist()
        page.click("#clear-filters")
        page.select_option("#filter-score", "odd")
        page.fill("#filter-least", "0.5")
        page.select_option("#sort", "even")
        page.select_option("#sort-order", "up")
        wanted = rows[rows["odd"] >= 0.5].sort_values("even", kind="stable", na_position="last")
        assert shown_ids(page) == wanted["sample_id"].tolist()
        page.click("#clear-filters")
        page.select_option("#sort", "")
        page.fill("#filter-words", "ÉÉ")
        expect(page.locator("#found")).not_to_have_text(re.compile("^120 "))
        has = rows["caption"].fillna("").str.contains("éé")
        assert shown_ids(page) == rows.loc[has, "sample_id"].tolist()


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e'\"&<!--"


def test_what_models_and_files_say_is_text(browser: Browser, tmp_path: Path) -> None:
    rows = random_rows(6, 3)
    for row in rows:
        row |= {"caption": HOSTILE, "source": HOSTILE, "source_uri": f"/in/{HOSTILE}.mp4", "error": None}
    rows[0]["error"] = {
        "stage": "s",
        "kind": "K",
        "message": HOSTILE,
        "traceback": HOSTILE,
        "fingerprint": "",
    }
    run = judged_run(tmp_path / "run", rows)
    record = json.loads((run / "run.json").read_text()) | {"input": HOSTILE}
    record["screen"]["rules"][0]["source"] = HOSTILE
    (run / "run.json").write_text(json.dumps(record))
    write_report(run)
    with opened(browser, address(run)) as page:
        assert HOSTILE in page.inner_text("header")
        assert page.locator("#rules").inner_text().count("alert(1)") == 1
        first_card(page).locator(".open").click()
        page.wait_for_selector("#clip-said p")
        assert HOSTILE.replace("\u202e", "") in page.inner_text("#clip-said").replace("\u202e", "")
        assert page.evaluate("document.querySelectorAll('script').length") == page.evaluate(
            "document.querySelectorAll('script[type], script:last-of-type').length"
        )
        assert page.locator("img[src=x]").count() == 0
    policy = re.search(
        r'http-equiv="Content-Security-Policy" content="([^"]+)"', (run / "report.html").read_text()
    )
    assert policy is not None and "unsafe" not in policy[1] and "default-src 'none'" in policy[1]


def barriers(page: Page) -> list[tuple[str, str]]:
    """What axe-core finds serious, and the first part of the page that has it."""
    found = Axe().run(page).response["violations"]
    return [(o["id"], o["nodes"][0]["html"]) for o in found if o["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 360])
def test_everybody_can_use_it(width: int, dark: bool, browser: Browser, tmp_path: Path) -> None:
    rows = random_rows(30, 5)
    for row in rows:
        row |= {"interaction_region": "left_hand", "interaction_type": "poke"}
    run = judged_run(tmp_path / "run", rows)
    write_report(run)
    with opened(browser, address(run), width, dark=dark) as page:
        found = Axe().run(page).response["violations"]
        assert [
            (one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")
        ] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        first_card(page).locator(".open").click()
        page.wait_for_selector("#clip-rules table")
        found = Axe().run(page).response["violations"]
        assert [
            (one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")
        ] == []


def waits_for_clip(page: Page, name: str) -> None:
    expect(page.locator("#clip-title")).to_have_text(name)


def test_the_keyboard_alone_goes_through_the_clips(browser: Browser, tmp_path: Path) -> None:
    run = judged_run(tmp_path / "run", random_rows(12, 6))
    write_report(run)
    names = rows_of(run)["sample_id"].tolist()
    with opened(browser, address(run)) as page:
        first_card(page).locator(".open").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        expect(page.locator("#clip-title")).to_have_text(names[2])
        page.keyboard.press("n")
        expect(page.locator("#clip-title")).to_have_text(names[3])
        page.keyboard.press("p")
        page.keyboard.press("p")
        expect(page.locator("#clip-title")).to_have_text(names[1])
        page.keyboard.press("Escape")
        expect(page.locator(".card:has(:focus)")).to_have_attribute("aria-posinset", "2")


def test_a_clip_shows_its_pictures_and_the_point_touched(browser: Browser, tmp_path: Path) -> None:
    rows = random_rows(3, 8)
    for row in rows:
        row |= {"interaction_x": 0.25, "interaction_y": 0.5}
    run = judged_run(tmp_path / "run", rows)
    first = rows_of(run).iloc[0]
    (run / FOLDER).mkdir()
    row = store.read(run / "manifest").slice(0, 1).to_pylist()[0]
    picture = Image.fromarray(np.zeros((120, 160 * 12, 3), np.uint8))
    row |= {"duration_s": None, "clip_start_s": None}
    picture.save(run / FOLDER / strip_name({name: row[name] for name in READS}))
    write_report(run, strips=0)
    with opened(browser, address(run)) as page:
        card = first_card(page)
        card.locator(".marker").wait_for(state="visible")
        assert card.locator(".name").inner_text() == first["sample_id"]
        expect(card.locator("img")).to_have_attribute("style", re.compile("width"))
        strip, marker = card.locator(".strip").bounding_box(), card.locator(".marker").bounding_box()
        assert strip is not None and marker is not None
        assert strip["width"] == pytest.approx(160, abs=1) and strip["height"] == pytest.approx(120, abs=1)
        assert marker["x"] + marker["width"] / 2 == pytest.approx(strip["x"] + 40, abs=1)
        assert marker["y"] + marker["height"] / 2 == pytest.approx(strip["y"] + 60, abs=1)
        page.mouse.move(strip["x"] + 159, strip["y"] + 60)
        assert card.locator(".strip").get_attribute("data-picture") == "11"
        assert page.locator(".card .none").count() == 2


def test_of_many_rows_a_fair_sample_is_shown_beside_exact_totals(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = judged_run(tmp_path / "run", random_rows(900, 9), 250)
    monkeypatch.setattr(report, "WHOLE", 800)
    monkeypatch.setattr(report, "SAMPLE", 300)
    write_report(run)
    kept = int(rows_of(run)["keep"].sum())
    with opened(browser, address(run)) as page:
        assert status(page).startswith(f"{kept} of 900 kept")
        assert "This page holds 300 of 900 samples" in page.inner_text("main")
        assert page.inner_text("#found") == "300 of 300 samples of this page"
        page.locator("#on-0").click()
        assert status(page).startswith("≈ ")
        estimate = int(status(page).split()[1])
        without = SCREEN.model_copy(update={"rules": SCREEN.rules[1:]})
        exact = int(without.judge(rows_of(run))["keep"].sum())
        assert (
            abs(estimate - exact) < 4 * np.sqrt(300 * 0.25) * 3
        )  # four standard deviations of such a sample


@pytest.mark.parametrize("count", [0, 1])
def test_a_run_of_next_to_nothing_has_a_page(count: int, browser: Browser, tmp_path: Path) -> None:
    run = judged_run(tmp_path / "run", random_rows(count, 1))
    record = json.loads((run / "run.json").read_text())
    record["screen"]["rules"] = []
    (run / "run.json").write_text(json.dumps(record | {"status": "running"}))
    write_report(run)
    with opened(browser, address(run)) as page:
        assert f"of {count} kept" in status(page)
        assert page.inner_text("#found") == f"{count} of {count} samples"
        assert "no rules" in page.inner_text("#thresholds")
        assert "has not finished a pass yet" in page.inner_text("#time")


DATES = pa.array([date(2024, 1, 2), date(2023, 1, 2), None] * 4)


def test_a_rule_on_any_column_counts_as_the_screen_does(browser: Browser, tmp_path: Path) -> None:
    """Dates, numbers with a list of texts beside, reasons shared by rules, an input list's own `review`."""
    run = random_run(tmp_path, [row | {"error": None, "stopped": None} for row in random_rows(12, 4)])
    (path,) = store.manifest_files(run / "manifest")
    table = store.read_file(path)
    table = table.set_column(table.schema.get_field_index("width"), "width", pa.array([1, 7, 9] * 4))
    own = pa.field("review", pa.string(), metadata={"from": "input list"})
    table = table.set_column(table.schema.get_field_index("review"), own, pa.array(["keep", "drop"] * 6))
    table = table.append_column("day", DATES)
    screen = Screen(
        name="s",
        rules=[
            Rule(reason="old", column="day", one_of=["2024*"]),
            Rule(reason="narrow", column="width", min=2, none_of=["7"]),
            Rule(reason="narrow", column="odd", max=0.5, missing="pass"),
        ],
    )
    store.write_table(path, screen.apply(table))
    record = json.loads((run / "run.json").read_text())
    record["screen"] = screen.model_dump(mode="json", exclude_none=True)
    (run / "run.json").write_text(json.dumps(record))
    write_report(run)
    rows = rows_of(run)
    with opened(browser, address(run)) as page:
        assert page.locator("#card-1 input[type=range]").count() == 0  # bounds texts, too
        assert kept_ids(page) == rows.loc[rows["keep"], "sample_id"].tolist()
        page.click("#clear-filters")
        page.locator("#on-0").click()
        judged = screen.without("old").judge(rows.drop(columns="review"))
        assert kept_ids(page) == judged.loc[judged["keep"], "sample_id"].tolist()
        alone = judged["drop_reasons"].map(lambda reasons: reasons == ["narrow"]).sum()
        cells = page.locator("#reasons tr", has_text="narrow").locator("td").all_inner_texts()
        assert cells[-2] == str(alone) and cells[-3] == str((~judged["keep"] & ~made_up(judged)).sum())


def made_up(rows: pd.DataFrame) -> pd.Series:
    """Rows that are dropped as made by a stand-in and for nothing else."""
    return rows["drop_reasons"].map(lambda reasons: list(reasons) == ["stand_in"])


def test_what_is_said_of_a_clip_is_shown_and_found(browser: Browser, tmp_path: Path) -> None:
    rows = random_rows(3, 8)
    for row in rows:
        row["interaction_prompt"] = "Someone strokes a hand."
    run = judged_run(tmp_path / "run", rows)
    write_report(run)
    with opened(browser, address(run)) as page:
        page.fill("#filter-words", "strokes")
        expect(page.locator("#found")).to_have_text("3 of 3 samples")
        first_card(page).locator(".open").click()
        expect(page.locator("#clip-said")).to_contain_text("Prompt: Someone strokes a hand.")
