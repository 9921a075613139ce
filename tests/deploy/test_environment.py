"""What is installed: run in the environment of each profile."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

import cv2

from tests.conftest import ROOT


def test_one_opencv_whatever_else_asks_for_it() -> None:
    assert set(metadata.packages_distributions()["cv2"]) == {"opencv-python-headless"}
    installed = metadata.version("opencv-python-headless")
    assert installed.startswith(cv2.__version__), "another wheel's files lie in cv2/"


def test_every_opencv_that_packages_ask_for_is_overridden() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["override-dependencies"]
    overridden = {line.partition(";")[0] for line in settings}
    asked = {
        match[0].lower()
        for package in metadata.distributions()
        for line in package.requires or ()
        if (match := re.match(r"opencv[-\w]*", line, re.IGNORECASE))
    }
    assert "opencv-python-headless" in asked and asked - overridden == {"opencv-python-headless"}
