"""Stages that wait: answers that come in a later pass, and many questions in flight in one worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from backends.language.vision_language_model import Deferred
from manifests import store
from manifests.schema import stage_dict, to_rows
from pipelines.engine.ray_session import ray_session
from pipelines.engine.worker import Worker
from stages.clip import Clip
from stages.contract import Column, Stage, StageConfig
from tests.support.helpers import SCREEN, execute, make_files, make_run, manifest
from tests.support.toys import Length

pytestmark = pytest.mark.ray

WAITS = {"stage": "ask", "reason": "waits for a batch of requests", "waits": True}
CLOSED = {"stage": "gate", "reason": "closed", "waits": False}


class Model:
    """Answers for the files in `folder`; notes how many are inside at once."""

    concurrency = 4
    is_remote = True

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.id = "model-1"

    def setup(self) -> None:
        """Nothing to load."""

    def ask(self, name: str) -> str:
        """The answer; deferred until there is one. Returns once 4 are in flight, or after a while."""
        answer = Path(self.folder) / f"{name}.txt"
        if not answer.exists():
            raise Deferred("waits for a batch of requests")
        inside = Path(self.folder) / f"inside-{threading.get_ident()}-{name}"
        inside.touch()
        deadline = time.monotonic() + 20
        try:
            while time.monotonic() < deadline:
                if len(list(Path(self.folder).glob("inside-*"))) >= self.concurrency:
                    (Path(self.folder) / "peak").touch()
                if (Path(self.folder) / "peak").exists() or not (Path(self.folder) / "together").exists():
                    break
                time.sleep(0.01)
        finally:
            inside.unlink()
        return answer.read_text()


class Ask(Stage):
    """Asks for each sample."""

    class Config(StageConfig):
        """No settings."""

    reads = ("length",)
    writes: ClassVar = {"said": Column("string", "", "The answer.")}

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.model = model

    def score(self, clip: Clip) -> dict[str, Any]:
        """Ask."""
        return {"said": self.model.ask(Path(clip["source_uri"]).name)}


class After(Stage):
    """Reads the answer; has resources of its own, so it runs in another group."""

    reads = ("said",)
    writes: ClassVar = {"loud": Column("string", "", "The answer in capitals.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        """Shout."""
        return {"loud": clip["said"].upper()}


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with ray_session():
        yield


@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_a_sample_that_waits_is_neither_done_nor_an_error(
    session: None, engine: Literal["inline", "ray"], tmp_path: Path
) -> None:
    files = make_files(tmp_path / "in", 6)
    answers = tmp_path / "answers"
    answers.mkdir()
    for i in range(3):
        (answers / f"clip{i:04d}.mp4.txt").write_text(f"hello {i}")
    stages = [Length(), Ask(Model(answers)), After()]
    record = execute(stages, files, tmp_path / "out", engine=engine, screen=SCREEN)
    rows = manifest(tmp_path / "out").sort_values("source_uri").reset_index(drop=True)
    assert record["counts"]["errors"] == 0 and record["counts"]["ids_out"] == 6
    assert rows["loud"].tolist()[:3] == ["HELLO 0", "HELLO 1", "HELLO 2"]
    assert rows["loud"].isna().tolist() == [False] * 3 + [True] * 3
    assert rows["stopped"].tolist()[3:] == [WAITS] * 3
    assert rows["drop_reasons"].map(list).tolist()[3:] == [["stopped:ask"]] * 3
    assert ["ask" in stage_dict(s) for s in rows["stages"]] == [True] * 3 + [False] * 3

    for i in range(3, 6):
        (answers / f"clip{i:04d}.mp4.txt").write_text(f"hello {i}")
    record = execute(stages, files, tmp_path / "out", engine=engine, screen=SCREEN)
    rows = manifest(tmp_path / "out")
    assert record["counts"]["computed"] == 3 and record["stages"]["length"]["computed"] == 0
    assert rows["loud"].notna().all() and rows["stopped"].isna().all()


class Gate(Stage):
    """Stops every sample."""

    reads = ("length",)
    writes: ClassVar = {"gate": Column("bool", "", "Always false.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        """Close."""
        return {"gate": False}

    def stop(self, row: Any) -> str | None:
        """Always."""
        return "closed"


def test_a_wait_does_not_open_a_gate_that_was_closed(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 2)
    answers = tmp_path / "answers"
    answers.mkdir()
    for i in range(2):
        (answers / f"clip{i:04d}.mp4.txt").write_text("hello")
    execute([Length(), Ask(Model(answers)), Gate(), After()], files, tmp_path / "out")
    other = tmp_path / "none"
    other.mkdir()
    asks_anew = Ask(Model(other))
    asks_anew.model.id = "model-2"
    execute([Length(), asks_anew, Gate(), After()], files, tmp_path / "out")
    rows = manifest(tmp_path / "out")
    assert rows["stopped"].tolist() == [CLOSED] * 2 and rows["loud"].isna().all()
    for i in range(2):
        (other / f"clip{i:04d}.mp4.txt").write_text("again")
    record = execute([Length(), asks_anew, Gate(), After()], files, tmp_path / "out")
    rows = manifest(tmp_path / "out")
    assert rows["said"].tolist() == ["again"] * 2 and rows["stopped"].tolist() == [CLOSED] * 2
    assert record["stages"]["after"]["computed"] == 0


def test_a_later_group_does_not_go_on_from_an_answer_that_waits(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 1), tmp_path / "out"
    answers, none = tmp_path / "answers", tmp_path / "none"
    answers.mkdir()
    none.mkdir()
    (answers / "clip0000.mp4.txt").write_text("hello")
    execute([Length(), Ask(Model(answers)), After(), Gate()], files, out)
    asks_anew = Ask(Model(none))
    asks_anew.model.id = "model-2"
    run = make_run([Length(), asks_anew, After(), Gate()], files, out)
    program = run.program()
    rows = to_rows(store.read(out / "manifest"))
    assert rows[0]["loud"] == "HELLO" and rows[0]["stopped"] == CLOSED
    for group in (program.steps[:2], program.steps[2:]):
        rows, done = Worker(program, group, out, "a-run").run(rows)
        assert not done.computed
    assert rows[0]["stages"]["after"] != program.fingerprints["after"] and rows[0]["stopped"] == CLOSED


def test_one_worker_has_many_questions_in_flight(session: None, tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 12)
    answers = tmp_path / "answers"
    answers.mkdir()
    (answers / "together").touch()  # the model waits until four are inside
    for i in range(12):
        (answers / f"clip{i:04d}.mp4.txt").write_text(f"hello {i}")
    record = execute([Length(), Ask(Model(answers)), After()], files, tmp_path / "out", engine="ray")
    assert (answers / "peak").exists(), "never four at once"
    assert record["counts"]["ids_out"] == 12 and record["counts"]["errors"] == 0
    rows = manifest(tmp_path / "out").sort_values("source_uri")
    assert rows["loud"].tolist() == [f"HELLO {i}" for i in range(12)]
    assert record["stages"]["ask"]["computed"] == 12
