"""What a run tells while it goes on is right, is written now and then, and never gets into its way."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from manifests import storage
from pipelines.engine import live
from pipelines.engine.figures import LAST_ERRORS, LONGEST, Summary
from pipelines.engine.live import FILE, Live, Publisher, StageFigures, read_live
from pipelines.engine.pipeline import RunError
from pipelines.engine.plan import Tally
from pipelines.engine.program import compile_pipeline
from pipelines.engine.record import read_run
from pipelines.engine.use import Use
from tests.support.helpers import execute, make_files, toy_stages

PROGRAM = compile_pipeline("toy", toy_stages(), 30, 0)
PLANNED = Tally(
    todo=10,
    reused=3,
    reused_stages=Counter(length=4),
    lacks=Counter({("length", "square", "root", "other"): 8, ("square", "root"): 2}),
)
USE = Use(machines=1, cpus=2, cpu=0.5, gpus=0, gpu=None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The publisher's clock, which stands still."""
    now = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    return now


def publisher(folder: Path, **options: Any) -> Publisher:
    """One that has begun."""
    made = Publisher(folder, "r", **{"check_lock": lambda: None, "measure": lambda: USE} | options)
    made.begin(PROGRAM, PLANNED)
    return made


def part(rows: int, **more: Any) -> Summary:
    return Summary(rows=rows, **more)


def test_the_figures_of_parts_add_up(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    made.placed({"square": 4})
    due = Counter(length=3, square=4, root=4, other=3)
    made.add(part(4, kept=2, errors=1, due=due, computed=Counter(square=3), failed=Counter(square=1)))
    made.add(part(1, kept=0, due=Counter(square=1), computed=Counter(square=1), faults=Counter({"full": 1})))
    told = made.live()
    assert (told.due, told.done, told.kept, told.dropped, told.errors, told.reused) == (10, 5, 2, 2, 1, 3)
    assert told.stages["square"] == StageFigures(due=10, left=5, computed=4, errors=1, places=4)
    assert told.stages["length"] == StageFigures(due=8, left=5, reused=4)
    assert told.faults == {"full": 1} and told.program == "toy" and told.doing == "computing"


def test_the_rate_is_that_of_the_last_minutes(tmp_path: Path, clock: list[float]) -> None:
    made = publisher(tmp_path)
    assert made.live().samples_per_s is None and made.live().left_s is None
    clock[0] += 60  # models are loaded, the first part comes
    made.add(part(1))
    assert made.live().samples_per_s == pytest.approx(1 / 60, abs=1e-3)
    clock[0] += 50
    made.add(part(5))
    assert made.live().samples_per_s == pytest.approx(6 / 110, abs=1e-3)
    clock[0] += 50  # as long again as the first part took: the loading of models counts no more
    told = made.live()
    assert told.samples_per_s == pytest.approx(5 / 100, abs=1e-3) and told.left_s == pytest.approx(80)
    assert told.seconds == 160
    clock[0] += 900  # nothing comes: what is left takes longer and longer
    assert made.live().samples_per_s == pytest.approx(5 / 1000, abs=1e-3)


def test_old_parts_count_no_more_where_there_are_enough(tmp_path: Path, clock: list[float]) -> None:
    made = publisher(tmp_path)
    for step in range(2 * live.WINDOW_PARTS):
        clock[0] += live.WINDOW_S / live.WINDOW_PARTS * (2 if step < live.WINDOW_PARTS else 1)
        made.add(part(1))
    assert made.live().samples_per_s == pytest.approx(live.WINDOW_PARTS / live.WINDOW_S, rel=0.1)


@pytest.mark.parametrize(
    ("seconds", "places", "slowest"),
    [
        ({}, {}, None),
        ({"length": 1.0, "square": 3.0}, {}, "square"),
        ({"length": 1.0, "square": 3.0, "decode": 4.0}, {}, "decode"),
        ({"length": 1.0, "square": 30.0}, {"length": 1, "square": 64}, "length"),
    ],
)
def test_the_slowest_stage_is_the_one_whose_workers_have_most_to_do(
    tmp_path: Path, seconds: dict[str, float], places: dict[str, int], slowest: str | None
) -> None:
    made = publisher(tmp_path)
    made.placed(places)
    done = part(4)
    done.seconds.update(seconds)
    made.add(done)
    assert made.live().slowest() == slowest


def test_the_last_errors_are_kept_and_cut() -> None:
    done = Summary()
    for number in range(LAST_ERRORS + 2):
        message = "x" * 1000 if number == 6 else str(number)
        done.fail({"error": {"stage": "square", "message": message}, "source_uri": f"{number}.mp4"})
    assert done.failed == {"square": LAST_ERRORS + 2}
    assert [error["source_uri"] for error in done.last_errors] == [f"{n}.mp4" for n in range(2, 7)]
    assert done.last_errors[-1]["message"] == "x" * LONGEST + "..."
    assert Summary.from_json(done.to_json()) == done
    total = Summary(last_errors=[{"stage": "a", "message": "b", "source_uri": "c"}])
    total.add(done)
    assert total.last_errors == done.last_errors


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_run_tells_what_it_does(engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages agree with run.json at the end, and what was told at the start of computing with the plan."""
    told: list[Live] = []
    original = Publisher.add

    def add(self: Publisher, done: Summary) -> None:
        told.append(self.live())
        original(self, done)
        told.append(self.live())

    monkeypatch.setattr(Publisher, "add", add)
    files, out = make_files(tmp_path / "in", 10), tmp_path / "out"
    stages = toy_stages(raise_on="clip0003.mp4", stop_on="clip0004.mp4")
    execute(stages, files, out, limit=2)
    told.clear()
    record = execute(stages, files, out, engine=engine, rows_per_part=3)
    first, last = told[0], told[-1]
    assert (first.due, first.done, first.reused) == (8, 0, 2) and last.done == 8
    assert {name: figures.left for name, figures in first.stages.items()} == dict.fromkeys(
        ("length", "square", "root", "other"), 8
    )
    for name, figures in last.stages.items():
        of_record = record["stages"][name]
        assert {k: of_record[k] for k in ("computed", "errors", "reused")} == {
            k: getattr(figures, k) for k in ("computed", "errors", "reused")
        }
        assert figures.left == 0 and figures.seconds == pytest.approx(of_record["seconds"], abs=0.01)
        assert figures.places == (1 if engine == "inline" else 2)
    assert (last.stages["root"].computed, last.stages["square"].errors) == (6, 1)
    assert [(error.stage, Path(error.source_uri).name) for error in last.last_errors] == [
        ("square", "clip0003.mp4")
    ]
    assert (last.kept, last.dropped, last.errors, last.run_id) == (6, 1, 1, record["run_id"])
    assert not (out / FILE).exists()  # a run that has finished leaves nothing


def test_a_run_that_fails_leaves_how_far_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, seen = Publisher.add, []

    def add(self: Publisher, done: Summary) -> None:
        original(self, done)
        seen.append(done)
        if len(seen) == 2:
            raise RunError("enough")

    monkeypatch.setattr(Publisher, "add", add)
    files, out = make_files(tmp_path / "in", 10), tmp_path / "out"
    with pytest.raises(RunError, match="enough"):
        execute(toy_stages(), files, out, rows_per_part=3)
    run_id = read_run(out)["run_id"]
    told = read_live(out, run_id)
    assert told is not None and (told.due, told.done, told.doing) == (10, 6, "merging")
    assert told.use is None and told.stages["root"].left == 4
    assert read_live(out, "another") is None
    monkeypatch.undo()
    execute(toy_stages(), files, out)
    assert read_live(out, run_id) is None and not (out / FILE).exists()


def test_it_writes_by_itself_until_its_block_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "WRITE_EVERY_S", 0.01)
    written = threading.Semaphore(0)
    original = storage.write_bytes

    def write(path: Path, data: bytes, **options: Any) -> None:
        original(path, data, **options)
        written.release()

    monkeypatch.setattr(live.storage, "write_bytes", write)
    with publisher(tmp_path) as made:
        assert written.acquire(timeout=60)
        made.add(part(4, kept=4))
        for _ in range(4):
            assert written.acquire(timeout=60)
        while (told := read_live(tmp_path, "r")) is None or told.use != USE:
            assert written.acquire(timeout=60)
        assert told.done == 4
    assert not made._thread.is_alive() and list(tmp_path.iterdir()) == []


def test_machines_that_do_not_answer_hold_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was last known of them is written, and they are asked once at a time."""
    monkeypatch.setattr(live, "WRITE_EVERY_S", 0.01)
    monkeypatch.setattr(live, "MEASURE_EVERY_S", 0.01)
    asked, answer, written = threading.Semaphore(0), threading.Event(), threading.Semaphore(0)
    times: list[bool] = []
    original = storage.write_bytes

    def measure() -> Use | None:
        times.append(True)
        if len(times) > 1:
            asked.release()
            answer.wait(60)
            return None
        return USE

    def write(path: Path, data: bytes, **options: Any) -> None:
        original(path, data, **options)
        written.release()

    monkeypatch.setattr(live.storage, "write_bytes", write)
    try:
        with publisher(tmp_path, measure=measure) as made:
            assert asked.acquire(timeout=60)
            made.add(part(4, kept=4))
            while written.acquire(blocking=False):
                pass
            for _ in range(5):
                assert written.acquire(timeout=60)
            told = read_live(tmp_path, "r")
            assert told is not None and (told.done, told.use) == (4, USE) and len(times) == 2
        assert list(tmp_path.iterdir()) == []
    finally:
        answer.set()


def test_what_cannot_be_written_or_measured_is_no_fault_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Semaphore(0)

    def fails(*_: Any, **__: Any) -> None:
        tried.release()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(live, "WRITE_EVERY_S", 0.01)
    original = storage.write_bytes

    def write(path: Path, data: bytes, **options: Any) -> None:
        (fails if path.name == FILE else original)(path, data, **options)

    monkeypatch.setattr(live.storage, "write_bytes", write)
    with publisher(tmp_path, measure=fails):
        for _ in range(5):
            assert tried.acquire(timeout=60)
    with pytest.raises(ValueError, match="the run's own"), publisher(tmp_path, measure=fails):
        raise ValueError("the run's own")
    record = execute(toy_stages(), make_files(tmp_path / "in", 3), tmp_path / "out")
    assert record["status"] == "finished"


def test_a_run_that_has_lost_its_folder_writes_no_more(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("another's")

    def lost() -> None:
        raise RunError("the lock was lost")

    with publisher(tmp_path, check_lock=lost) as made:
        made._thread.join(60)
        assert not made._thread.is_alive()
    with pytest.raises(RunError), publisher(tmp_path, check_lock=lost):
        raise RunError("the lock was lost")
    assert (tmp_path / FILE).read_text() == "another's"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run_id": "r", "due": "many"}', '{"run_id": "other"}'])
def test_a_file_that_is_none_of_this_run_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    assert read_live(tmp_path, "r") is None


def test_what_a_later_version_adds_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"run_id": "r", "due": 3, "colour": "red"}))
    told = read_live(tmp_path, "r")
    assert told is not None and told.due == 3
