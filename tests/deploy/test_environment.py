"""What is installed: run in the environment of each profile."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

import cv2
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

# The tag of a wheel that was compiled on the machine; an index takes manylinux. Ray's tag says it wrongly.
COMPILED_HERE = re.compile(r"^Tag: .*-linux_x86_64$", re.MULTILINE)


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


def test_what_has_no_wheel_finds_its_compiler_in_the_image_and_on_the_cluster() -> None:
    compiled = {
        canonicalize_name(package.metadata["Name"])
        for package in metadata.distributions()
        if COMPILED_HERE.search(package.read_text("WHEEL") or "")
    }
    locked = (ROOT / "deploy" / "locks" / "gpu.txt").read_text()
    assert {name for name in compiled if f"\n{name}==" in locked} == {"libsvm-official", "ray"}
    for file in ("deploy/Dockerfile", "ray_cluster.yaml"):
        text = (ROOT / file).read_text()
        assert 0 < text.index(" g++ ") < text.index("-r deploy/locks/gpu.txt")
