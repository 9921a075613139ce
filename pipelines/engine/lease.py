"""One run at a time in an object store, which has no locks: a lease is an object that its run renews.

Each run puts an object of its own under `_lock/` and then looks for others. A listing shows what was put
before, so of two runs at least one sees the other and steps back; a tie lets both step back and try again. A
lease counts as dead when its process is known to have died (on this machine), or when it was not renewed for
EXPIRES_S and does not change while one looks: no difference of clocks lets a living one be taken. When it was
renewed the store's own clock says; where the store does not tell it, the lease itself.
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests import storage
from manifests.text import clean_text
from pipelines.engine.pipeline import RunError

FOLDER = "_lock"
BEAT_S = 5.0  # between two renewals
EXPIRES_S = 60.0
LOOKS = 3  # a lease that seems dead must stay as it is for so many beats
TRIES = 4


@dataclass(frozen=True)
class _Found:
    """A lease: where it lies, what it says, and seconds since it was renewed."""

    path: Path
    claim: dict[str, Any]
    age: float


class Lease:
    """A run's claim on a folder.

    Args:
        folder: the run's, in an object store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / FOLDER / f"{uuid.uuid4().hex}.json"
        self._claim = {"host": socket.gethostname(), **_me(), "since": _utc(), "beats": 0}
        self._renewed = 0.0
        self._is_lost = False
        self._turn = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def take(self) -> None:
        """Claim the folder, and renew the claim from now on.

        Raises:
            RunError: another run holds the folder.
        """
        for left in reversed(range(TRIES)):
            self._put()
            try:
                living = [other for other in self._others() if not self._is_dead(other)]
            except BaseException:
                self._remove()
                raise
            if not living:
                self._thread.start()
                return
            self._remove()
            if left:
                time.sleep(random.uniform(0.1, 0.5))
        raise RunError(self._refusal(living[0]))

    def held(self) -> None:
        """Make sure that the folder is still this run's.

        Raises:
            RunError: it was taken over, because this run could not renew its lease.
        """
        if time.time() - self._renewed > EXPIRES_S / 2:
            self._renew()
        if self._is_lost:
            raise RunError(
                f"the lock on {self.folder} was lost: it could not be renewed for {EXPIRES_S:g} s, or was "
                "removed. Run the same command again to go on"
            )

    def give_back(self) -> None:
        """Let others have the folder."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        self._remove()

    def _beat(self) -> None:
        while not self._end.wait(BEAT_S) and not self._is_lost:
            with suppress(Exception):  # a network that is away for a moment; `held` says so if it stays away
                self._renew()

    def _renew(self) -> None:
        with self._turn:
            if self._is_lost or self._end.is_set():
                return
            if not self._path.exists():
                self._is_lost = True
                return
            late = time.time() - self._renewed > EXPIRES_S  # somebody may have thought this run dead
            self._put()
            if late and self._others():
                self._is_lost = True
                self._remove()

    def _put(self) -> None:
        self._claim["beats"] += 1
        self._claim["renewed"] = time.time()
        storage.put(self._path, json.dumps(self._claim).encode())
        self._renewed = self._claim["renewed"]

    def _remove(self) -> None:
        with suppress(Exception):
            storage.remove([self._path])

    def _others(self) -> list[_Found]:
        """The leases of others; their ages are since this run's own lease was put, by one clock."""
        entries = storage.listed(self.folder / FOLDER, ".json")
        mine = [entry.modified for entry in entries if entry.path.name == self._path.name]
        others = [entry for entry in entries if entry.path.name != self._path.name]
        return _found(others, mine[0] if mine else None)

    def _is_dead(self, other: _Found) -> bool:
        """Whether another's lease is dead; if so it is removed."""
        alive = is_alive(other.claim)
        if alive is None and other.age < EXPIRES_S:
            alive = True
        for _ in range(LOOKS if alive is None else 0):
            time.sleep(BEAT_S)
            if _read(other.path) != other.claim:
                alive = True
                break
        if not alive:
            storage.remove([other.path])
        return not alive

    def _refusal(self, other: _Found) -> str:
        claim = other.claim
        place = clean_text(f"process {claim.get('pid')} on {claim.get('host')}")
        return (
            f"another run is writing to {self.folder} ({place}, since {claim.get('since')}, last sign of "
            f"life {other.age:.0f} s ago); wait for it, or choose another --output. If it died, its lock "
            f"ends {EXPIRES_S:g} s after that sign, or when you remove {self.folder / FOLDER}"
        )


@contextmanager
def lease(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold a folder of an object store for one run; gives `Lease.held`.

    Raises:
        RunError: another run holds it.
    """
    mine = Lease(folder)
    mine.take()
    try:
        yield mine.held
    finally:
        mine.give_back()


def is_leased(folder: Path) -> bool:
    """Whether a run is writing to the folder now."""
    for other in _found(storage.listed(folder / FOLDER, ".json"), time.time()):
        alive = is_alive(other.claim)
        if alive or (alive is None and other.age < EXPIRES_S):
            return True
    return False


def is_alive(claim: Mapping[str, Any]) -> bool | None:
    """Whether the process that a lease names lives; None: it is of another machine or container."""
    machine = _machine()
    if machine is None or claim.get("machine") != machine:
        return None
    return claim.get("started") == _started(claim.get("pid", 0))


def _me() -> dict[str, Any]:
    return {"pid": os.getpid(), "machine": _machine(), "started": _started(os.getpid())}


def _machine() -> str | None:
    """This boot of this machine and the process numbers' namespace; None where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(pid: int) -> int | None:
    """When a process began, clock ticks since boot; None: there is none of that number, or it is a zombie."""
    try:
        fields = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _found(entries: Sequence[storage.Listed], now: float | None) -> list[_Found]:
    """The leases; `now` is the time by the clock that the entries' times are of, None where it is unknown."""
    found = []
    for entry in entries:
        claim = _read(entry.path)
        if claim is not None:
            told = None if now is None or entry.modified is None else now - entry.modified
            found.append(_Found(entry.path, claim, _age(claim) if told is None else max(0.0, told)))
    return found


def _read(path: Path) -> dict[str, Any] | None:
    """What a lease says; None: it is gone."""
    try:
        return dict(json.loads(storage.read_bytes(path)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return {}  # not ours to judge: it counts as one that was never renewed


def _age(claim: Mapping[str, Any]) -> float:
    """Seconds since a lease was renewed by its own words, which are those of another machine's clock."""
    renewed = claim.get("renewed")
    return max(0.0, time.time() - renewed) if isinstance(renewed, int | float) else EXPIRES_S


def _utc() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
