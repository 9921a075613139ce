"""A real Chromium without a window: the machine's own, or the one that Playwright has fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

# Nothing may leave the machine, and containers have no name spaces for a sandbox.
OPTIONS = (
    *("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"),
    "--use-fake-device-for-media-stream",  # a microphone that beeps
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; the test is skipped where there is none."""
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = own if Path(own).exists() else shutil.which("chromium") or shutil.which("google-chrome")
        if path is None:
            pytest.skip("no Chromium here: apt-get install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=path, args=[*OPTIONS])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, address: str, width: int = 1200, height: int = 900, dark: bool = False, lacks: str = ""
) -> Iterator[Page]:
    """A page that is ready, and at the end what it said of errors: nothing.

    Only what lies on this machine may be asked for; `lacks` may be missing.
    """
    page = browser.new_page(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    page.set_default_timeout(20_000)
    wrong: list[str] = []

    def complain(message: ConsoleMessage) -> None:
        if message.type == "error" and not (lacks and lacks in str(message.location)):
            wrong.append(message.text)

    page.on("console", complain)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
    here = ("file:", "data:", "blob:", "http://127.0.0.1")
    page.on("request", lambda request: None if request.url.startswith(here) else wrong.append(request.url))
    try:
        page.goto(address)
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        yield page
        assert not wrong, wrong
    finally:
        page.close()
