"""The report's page: how long it takes to write, to open, to move a threshold and to filter, by rows.

    python -m benchmarks.report --rows 1000 100000 1000000

The run is that of benchmarks.scale (135 columns, no media), opened by a Chromium without a window.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from playwright.sync_api import Page

from benchmarks.scale import Place, make_run
from pipelines.review.report import write_report
from tests.support.browser import chromium, opened

ROUNDS = 7
# Until the page has drawn what an action changed.
DRAWN = (
    "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
)


def milliseconds(page: Page, action: Callable[[int], object]) -> float:
    """Median time of an action, which takes the round's number, until the page has drawn what it changed."""
    times = []
    for number in range(ROUNDS):
        started = time.perf_counter()
        action(number)
        page.evaluate(DRAWN)
        times.append(1000 * (time.perf_counter() - started))
    return median(times)


def measure(rows: int, folder: Path) -> str:
    """A line of the table."""
    place = Place(folder / str(rows), rows, merged=0)
    make_run(place)
    started = time.perf_counter()
    path = write_report(place.run)
    wrote = time.perf_counter() - started
    with chromium() as browser:
        started = time.perf_counter()
        with opened(browser, path.as_uri()) as page:
            ready = time.perf_counter() - started
            still = milliseconds(page, lambda number: None)
            slider = page.locator(".bound input[type=range]").first
            move = milliseconds(page, lambda number: slider.fill(str(300 + 40 * number)))
            choice = page.locator("#filter-verdict")
            verdicts = ("kept", "dropped", "error", "changed", "kept", "dropped", "")
            filters = milliseconds(page, lambda number: choice.select_option(verdicts[number]))
            order = page.locator("#sort-order")
            page.locator("#sort").select_option(index=3)
            sort = milliseconds(page, lambda number: order.select_option(("up", "down")[number % 2]))
    return (
        f"{rows:9d} rows: written in {wrote:5.1f} s, {path.stat().st_size / 1e6:5.1f} MB; "
        f"open {ready:4.1f} s, "
        f"threshold {move:4.0f} ms, filter {filters:4.0f} ms, sort {sort:4.0f} ms (nothing: {still:.0f} ms)"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    given = words.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for rows in given.rows:
            print(measure(rows, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
