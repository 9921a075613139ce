"""Lock files: current, used wherever an environment is made, and what is installed is what they name."""

from __future__ import annotations

import re
import sys
import sysconfig
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.lock import ENVIRONMENTS, LOCKS, first_line
from tests.conftest import PYPROJECT, ROOT


def pins(name: str) -> dict[str, Requirement]:
    """Packages of a lock that this machine gets, by name."""
    lines = (LOCKS / f"{name}.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(r.name): r for r in wanted if r.marker is None or r.marker.evaluate()}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_lock_is_current(name: str) -> None:
    text = (LOCKS / f"{name}.txt").read_text()
    assert text.splitlines()[0] == first_line(ENVIRONMENTS[name]), "run `make lock`"
    assert "://" not in text and "/" not in text.split("\n", 1)[1]  # from whatever index there is


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_lock_names_one_version_of_all_that_is_asked_for(name: str) -> None:
    project, locked = PYPROJECT["project"], pins(name)
    asked = project["dependencies"] + [
        line for extra in ENVIRONMENTS[name].extras for line in project["optional-dependencies"][extra]
    ]
    assert all(re.fullmatch(r"===?[^,*]+", str(requirement.specifier)) for requirement in locked.values())
    for requirement in map(Requirement, asked):
        version = next(iter(locked[canonicalize_name(requirement.name)].specifier)).version
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_what_is_installed_is_what_the_lock_names() -> None:
    name = "models" if sys.prefix.endswith("models") else "laptop"
    # One folder, not sys.path: setuptools adds the copies of packages that it brings for itself.
    folder = [sysconfig.get_path("purelib")]
    found = metadata.distributions(path=folder)
    installed = {canonicalize_name(d.metadata["Name"]): d.version for d in found}
    differs = {
        package: (installed.get(package), str(requirement.specifier))
        for package, requirement in pins(name).items()
        if not requirement.specifier.contains(installed.get(package, "0"), prereleases=True)
    }
    assert differs == {}, "run `make setup setup-models`"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_lock_has_one_opencv(name: str) -> None:
    """All of its wheels fill the folder cv2/; of the others the lock says that they are never installed."""
    asked = [line for line in PYPROJECT["tool"]["uv"]["override-dependencies"] if "opencv" in line]
    refused = {Requirement(line).name for line in asked}
    assert {package for package in pins(name) if "opencv" in package} == {"opencv-python-headless"}
    assert "opencv-python-headless" not in refused
    for line in (LOCKS / f"{name}.txt").read_text().splitlines():
        if line.startswith("opencv") and not line.startswith("opencv-python-headless="):
            assert Requirement(line).name in refused and line.endswith("; sys_platform == 'never'")


def test_no_step_of_a_machine_resolves_packages_anew() -> None:
    """What would bring other versions, and other wheels of OpenCV, than the lock's."""
    for file in ("deploy/Dockerfile", "ray_cluster.yaml"):
        lines = [line for line in (ROOT / file).read_text().splitlines() if not line.lstrip().startswith("#")]
        text = "\n".join(lines)
        assert text.count("uv pip install") == text.count("--no-deps") == 3, file


def test_every_environment_is_made_from_its_lock() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "-r deploy/locks/laptop.txt -e ." in makefile and "-r deploy/locks/models.txt -e ." in makefile
    for file in ("deploy/Dockerfile", "ray_cluster.yaml"):
        text = (ROOT / file).read_text()
        assert "--no-deps -r deploy/locks/gpu.txt ." in text and "pip install '." not in text
