"""Who may write into an object store's folder when clocks differ, networks fail and processes die."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from manifests import storage, store
from manifests.screen import EVERYTHING
from pipelines.engine import lease as leases
from pipelines.engine.lease import FOLDER, Lease, is_leased, lease
from pipelines.engine.lock import lock
from pipelines.engine.pipeline import RunError
from pipelines.engine.record import read_run
from pipelines.engine.source import InputError
from stages.clip import Clip
from stages.contract import Score, Stage
from tests.support.helpers import execute, make_files
from tests.support.object_store import make_older, new_folder, s3_server


@pytest.fixture(scope="module")
def bucket() -> Iterator[Callable[[], Path]]:
    with s3_server():
        yield new_folder


@pytest.fixture
def run(bucket: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder; nobody has to wait long."""
    monkeypatch.setattr(leases, "BEAT_S", 0.05)
    return bucket()


def foreign(run: Path, ago: float = 0, **more: Any) -> Path:
    """A lease of another machine, renewed so many seconds ago by the store's clock, and now by its own."""
    said = {"host": "elsewhere", "pid": 7, "machine": "other", "started": 1, "since": "2026-01-01T00:00:00Z"}
    path = run / FOLDER / "0.json"
    storage.put(path, json.dumps(said | {"renewed": time.time(), "beats": 3} | more).encode())
    make_older(path, ago)
    return path


def held_by(run: Path) -> list[str]:
    return [path.name for path in storage.files(run / FOLDER)]


def test_one_holds_the_folder_and_gives_it_back(run: Path) -> None:
    assert not is_leased(run)
    with lease(run) as held:
        assert is_leased(run) and len(held_by(run)) == 1
        held()
        with pytest.raises(RunError, match=f"another run is writing to {run}"), lease(run):
            pass
        assert len(held_by(run)) == 1
    assert not is_leased(run) and not held_by(run)


def test_another_machine_s_lease_holds_while_it_is_renewed(run: Path) -> None:
    foreign(run, ago=50)
    with (
        pytest.raises(RunError, match=r"process 7 on elsewhere, since 2026-.*last sign of life 5\d s ago"),
        lease(run),
    ):
        pass
    assert is_leased(run) and held_by(run) == ["0.json"]


def test_one_that_was_not_renewed_ends(run: Path) -> None:
    foreign(run, ago=65)
    assert not is_leased(run)
    with lease(run):
        assert "0.json" not in held_by(run) and len(held_by(run)) == 1


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"{}", b'{"renewed": "now"}'])
def test_a_damaged_one_does_not_stay_for_ever(run: Path, text: bytes) -> None:
    storage.put(run / FOLDER / "0.json", text)
    assert is_leased(run)
    make_older(run / FOLDER / "0.json", 65)
    with lease(run):
        assert len(held_by(run)) == 1


@pytest.mark.parametrize("clock", [-86400, 86400])
def test_the_clock_of_another_machine_is_not_asked(run: Path, clock: float) -> None:
    foreign(run, renewed=time.time() + clock)
    assert is_leased(run)
    with pytest.raises(RunError, match=r"last sign of life \d s ago"), lease(run):
        pass
    foreign(run, ago=65, renewed=time.time() + clock)
    assert not is_leased(run)
    with lease(run):
        assert "0.json" not in held_by(run)


def test_without_the_store_s_time_a_lease_speaks_for_itself(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_modified", lambda entry: None)
    foreign(run)
    assert is_leased(run)
    foreign(run, renewed=time.time() - 65)
    assert not is_leased(run)
    with lease(run):
        assert "0.json" not in held_by(run)


def test_a_clock_that_is_behind_loses_no_lease(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_modified", lambda entry: None)  # a store that tells no times
    beats = iter(range(10**6))
    end = threading.Event()
    foreign(run, renewed=time.time() - 3600)

    def renew() -> None:
        while not end.wait(0.02):
            foreign(run, renewed=time.time() - 3600, beats=next(beats))

    other = threading.Thread(target=renew)
    other.start()
    try:
        with pytest.raises(RunError, match="elsewhere"), lease(run):
            pass
    finally:
        end.set()
        other.join()


def test_a_process_that_was_killed_here_holds_nothing(run: Path) -> None:
    code = "from manifests.storage import folder_of\nfrom pipelines.engine.lease import Lease\nimport os\n"
    code += f"Lease(folder_of({str(run)!r})).take()\nos.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    assert len(held_by(run)) == 1 and not is_leased(run)
    with lease(run):
        assert len(held_by(run)) == 1


def test_a_number_that_another_process_has_now_is_not_alive() -> None:
    me = {"pid": os.getpid(), "machine": leases._machine(), "started": leases._started(os.getpid())}
    assert leases.is_alive(me) is True
    assert leases.is_alive(me | {"started": me["started"] - 1}) is False
    assert leases.is_alive(me | {"pid": 2**22 + 1}) is False
    assert leases.is_alive(me | {"machine": "another"}) is None
    assert leases.is_alive({}) is None


def test_a_lease_that_was_taken_over_is_noticed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 3600.0)
    with lease(run) as held:
        storage.remove(storage.files(run / FOLDER))
        held()  # it was renewed a moment ago: nobody can have taken it
        monkeypatch.setattr(leases, "EXPIRES_S", 0.0)
        with pytest.raises(RunError, match="was lost"):
            held()
        with pytest.raises(RunError, match="was lost"):
            held()
    assert not held_by(run)


def test_one_that_comes_back_late_gives_way(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 3600.0)
    with lease(run) as held:
        foreign(run)
        monkeypatch.setattr(leases, "EXPIRES_S", 0.0)
        with pytest.raises(RunError, match="was lost"):
            held()
        assert held_by(run) == ["0.json"]


def test_of_many_at_once_never_two_hold_it(run: Path) -> None:
    inside, most, won, lost = 0, 0, [], []
    turn = threading.Lock()
    start = threading.Barrier(6)

    def go() -> None:
        nonlocal inside, most
        start.wait()
        for _ in range(3):
            try:
                with lease(run):
                    with turn:
                        inside += 1
                        most = max(most, inside)
                        won.append(1)
                    with turn:
                        inside -= 1
            except RunError as error:
                lost.append(error)

    threads = [threading.Thread(target=go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and len(won) + len(lost) == 18 and not held_by(run)


def test_a_lock_on_what_cannot_be_written_is_wrong_use(run: Path) -> None:
    missing = type(run)("s3://no-such-bucket/run")
    with pytest.raises(InputError, match="cannot write to s3://no-such-bucket/run"), lock(missing):
        pass


def test_the_heart_beats(run: Path) -> None:
    mine = Lease(run)
    mine.take()
    try:
        path = storage.files(run / FOLDER)[0]
        first = json.loads(storage.read_bytes(path))["beats"]
        deadline = time.monotonic() + 30
        while json.loads(storage.read_bytes(path))["beats"] < first + 3:
            assert time.monotonic() < deadline
    finally:
        mine.give_back()
    assert not held_by(run)


class Toy(Stage):
    writes: ClassVar = {"value": Score("", "")}

    def score(self, clip: Clip) -> dict[str, Any]:
        return {"value": 1.0}


def test_a_run_that_was_away_while_another_finished_writes_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, finished = make_files(tmp_path / "in", 3), []

    class Asleep(Toy):
        """Its machine sleeps until the lease has ended and another run is finished."""

        def score(self, clip: Clip) -> dict[str, Any]:
            if not finished and "0001" in clip["source_uri"]:
                storage.remove(storage.files(run / FOLDER))
                finished.append(execute([Toy()], files, run, screen=EVERYTHING))
                monkeypatch.setattr(leases, "EXPIRES_S", 0.0)
            return super().score(clip)

    monkeypatch.setattr(leases, "BEAT_S", 3600.0)
    with pytest.raises(RunError, match=rf"lock on {run} was lost.*Run the same command again"):
        execute([Asleep()], files, run, screen=EVERYTHING)
    assert read_run(run) == finished[0] and finished[0]["status"] == "finished"
    rows = store.read(run / "manifest")
    assert rows["run_id"].to_pylist() == [finished[0]["run_id"]] * 3
    assert not storage.files(run / FOLDER)


def test_a_file_that_another_run_replaced_says_that_the_lock_was_lost(run: Path) -> None:
    storage.put(run / "x", b"1")
    lost = rf"lock on {run} was lost: {run}/x was replaced by another writer.*Run the same command again"
    with pytest.raises(RunError, match=lost), lock(run):
        storage.put(run / "x", b"2", '"0"')
    assert storage.read_bytes(run / "x") == b"1" and not held_by(run)
