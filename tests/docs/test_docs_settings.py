"""Every default of the documented settings, typed after `--set`, is accepted and changes nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from backends.roles import FILLED_BY, IMPLEMENTATIONS
from configs.reading import parse, parse_overrides
from pipelines.catalogue import EVALUATIONS, PIPELINES
from pipelines.engine.settings import Settings
from pipelines.requests import load_profile
from tests.conftest import ROOT
from trainer.config import TrainConfig, load_config

ALL = {**PIPELINES, **EVALUATIONS}
TABLE = re.compile(r"^## (.+)$|^\| `([\w.]+)` \| (required|`.*?`) \| ", re.MULTILINE)
NEEDED = {"name": "a", "output": "b", "steps": 1, "data": {"shards": ["c"]}}


def documented(page: str) -> dict[str, str | None]:
    """Key -> default as it is shown (None: required), in all chapters but the roles and the screens."""
    shown: dict[str, str | None] = {}
    chapter = ""
    for heading, key, default in TABLE.findall((ROOT / "docs" / "settings" / f"{page}.md").read_text()):
        chapter = heading or chapter
        if heading or chapter.startswith(("Screen ", "Roles ")):
            continue
        assert key not in shown, f"{page}: {key} is shown twice"
        shown[key] = None if default == "required" else default.strip("`")
    return shown


def documented_of(pipeline: str) -> dict[str, str | None]:
    """What the page of a pipeline shows, over the pages that it leads to for the rest."""
    rest = [other for other in ("common", *PIPELINES) if f"]({other}.md)" in page_text(pipeline)]
    shown: dict[str, str | None] = {}
    for page in (*rest, pipeline):
        shown |= documented(page)
    return shown


def page_text(pipeline: str) -> str:
    return (ROOT / "docs" / "settings" / f"{pipeline}.md").read_text()


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Keys of a model and of the models in it."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def typed(key: str, default: str) -> str:
    """What the program gets where someone types the default in quotes."""
    _, override = shlex.split(f'--set "{key}={default}"')
    assert " " in default or shlex.split(f"--set {key}={default}")[1] == override
    return override


@pytest.mark.parametrize("pipeline", sorted(ALL))
def test_every_documented_default_is_what_set_takes(pipeline: str) -> None:
    model: type[Settings] = ALL[pipeline][0]
    shown = documented_of(pipeline)
    own = list(leaves(model))
    assert [key for key in own if key not in shown] == []
    for key in own:
        default = shown[key]
        assert default is not None, key
        assert parse(model, parse_overrides([typed(key, default)]), key) == model(), key


@pytest.mark.parametrize("pipeline", sorted(ALL))
def test_no_setting_is_documented_that_the_pipeline_has_not(pipeline: str) -> None:
    assert set(documented_of(pipeline)) <= set(leaves(ALL[pipeline][0]))


def test_every_screen_and_role_is_on_one_page() -> None:
    pages = {path.stem: path.read_text() for path in (ROOT / "docs" / "settings").glob("*.md")}
    shown = [name for text in pages.values() for name in re.findall(r"^## Screen (\w+)$", text, re.M)]
    assert sorted(shown) == sorted(path.stem for path in (ROOT / "configs" / "screens").glob("*.yaml"))
    assert "## Screen visual" in pages["common"] and "## Screen portraits_gpu" in pages["portraits"]
    roles, laptop = pages["common"].partition("## Roles")[2], load_profile("laptop").roles
    assert re.findall(r"^\| `(\w+)` \| `\w+`.*\| `(\w+)` \| `\w+` \|$", roles, re.M) == [
        (role, laptop[role].use if role in laptop else FILLED_BY[role]) for role in IMPLEMENTATIONS
    ]


def of_training(path: Path, overrides: list[str], **model: Any) -> TrainConfig:
    path.write_text(yaml.safe_dump(NEEDED | {"model": model}))
    return load_config(path, overrides)


def test_every_documented_default_of_training_is_what_set_takes(tmp_path: Path) -> None:
    shown = documented("training")
    assert list(shown) == sorted(leaves(TrainConfig), key=list(shown).index)
    assert {key for key, default in shown.items() if default is None} == {
        "name",
        "output",
        "steps",
        "data.shards",
    }
    for key, default in shown.items():
        if default is None:
            continue
        # One of the two is needed, whose default is to be absent.
        model = {"folder": "d"} if key == "model.random" else {"random": "tiny"}
        plain = of_training(tmp_path / "c.yaml", [], **model)
        assert of_training(tmp_path / "c.yaml", [typed(key, default)], **model) == plain, key
