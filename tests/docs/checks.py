"""What pages promise of their commands and snippets is asked right after each: the table of checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tests.docs.pages import Done, Reader
from tests.support.misbehaving_server import MisbehavingServer

NOTHING = Done(0, "")


@dataclass(frozen=True)
class At:
    """Where a check is asked.

    Attributes:
        reader: who works through the page.
        done: what the command said.
        names, values: of a snippet.
        shown: the block.
        server: the language model that is asked.
    """

    reader: Reader
    server: MisbehavingServer
    done: Done = NOTHING
    names: Mapping[str, Any] = field(default_factory=dict)
    values: tuple[Any, ...] = ()
    shown: str = ""

    @property
    def folder(self) -> Path:
        return self.reader.folder

    def record(self, run: str) -> dict[str, Any]:
        return json.loads((self.folder / run / "run.json").read_text())

    def rows(self, run: str) -> pd.DataFrame:
        return pd.read_parquet(self.folder / run / "manifest")


Check = Callable[[At], None]
# (page, command or language and number of its block) -> check.
CHECKS: dict[tuple[str, str], Check] = {}


def after(page: str, what: str) -> Callable[[Check], Check]:
    def keep(check: Check) -> Check:
        assert (page, what) not in CHECKS
        CHECKS[page, what] = check
        return check

    return keep


def asks_once(page: str, command: str, run: str) -> None:
    """The command asks the server; the same command again asks nothing."""

    @after(page, command)
    def _(at: At) -> None:
        asked = len(at.server.chats())
        assert asked and set(at.rows(run).people_count_by.dropna()) == set(at.server.models)
        assert at.reader.type(command).status == 0
        assert len(at.server.chats()) == asked and at.record(run)["vlm"]["requests"] == 0


def finished_job(at: At) -> None:
    assert "submitted successfully" in at.done.said and "succeeded" in at.done.said
    assert "talking_head: 2 samples in, 2 out: " in at.done.said
    assert len(at.rows("shared/out")) == 2
