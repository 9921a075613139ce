"""The files beside the code say the same as it does: version, licence, commands."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.conftest import PYPROJECT, ROOT

FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def test_the_citation_names_the_version_and_the_licence() -> None:
    citation = load("CITATION.cff")
    project = PYPROJECT["project"]
    assert citation["title"] == project["name"] and citation["version"] == project["version"]
    assert citation["license"] == project["license"] and citation["abstract"] == project["description"]
    assert {"cff-version", "message", "authors"} <= set(citation)


def test_the_changelog_has_the_version_below_what_is_unreleased() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[:2] == ["Unreleased", PYPROJECT["project"]["version"]]


def test_the_workflow_runs_what_a_clean_clone_must_pass() -> None:
    steps = load(".github/workflows/ci.yml")["jobs"]["test"]["steps"]
    assert steps[-1] == {"run": ".ci/run"} and (ROOT / ".ci" / "run").stat().st_mode & 0o111
    (python,) = [step["with"]["python-version"] for step in steps if "python-version" in step.get("with", {})]
    assert PYPROJECT["project"]["requires-python"].startswith(f">={python},")


def test_the_hooks_are_checks_of_the_makefile_by_its_environment() -> None:
    makefile = (ROOT / "Makefile").read_text()
    check = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.M)
    assert check is not None and "BIN := .venv/bin" in makefile
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        command = hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude")
        assert f"\t$(BIN)/{command}" in check[1], hook["id"]


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_something(form: Any) -> None:
    content = yaml.safe_load(form.read_text())
    assert content["name"] and content["description"]
    assert len({part["id"] for part in content["body"]}) == len(content["body"]) > 1
    assert any(part.get("validations", {}).get("required") for part in content["body"])
