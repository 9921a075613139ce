"""Commands on a pseudo terminal, as a person's shell starts them: leader of a session, in the foreground."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

CTRL_C = b"\x03"
# What a library may start on import: it reads standard input and sets the terminal's modes.
NOSY = '#!/bin/sh\nhead -c 1 >/dev/null\nstty "$(stty -g </dev/tty)" </dev/tty\n'


class Terminal:
    """A program on a terminal of its own; everything it shows is in `shown`."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process, self.master = process, master
        self.shown = ""

    def read_until(self, text: str | None, seconds: float) -> None:
        """Read until a text is shown; None: until the program and all that it started have ended.

        Raises:
            AssertionError: that did not come in time; says what was shown and in which state processes are.
        """
        deadline = time.monotonic() + seconds
        while text is None or text not in self.shown:
            left = deadline - time.monotonic()
            assert left > 0, (
                f"not in {seconds:g} s: {text or 'the end'}\n{self.states()}\n{self.shown[-2000:]}"
            )
            if not select.select([self.master], [], [], left)[0]:
                continue
            try:
                data = os.read(self.master, 1 << 16)
            except OSError:  # the last process has closed the terminal
                data = b""
            if not data:
                assert text is None, f"ended without {text!r}:\n{self.shown[-2000:]}"
                return
            self.shown += data.decode("utf-8", "replace")

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self.master, keys)

    def end(self, seconds: float) -> int:
        """Exit status, once everything has ended."""
        self.read_until(None, seconds)
        return self.process.wait(seconds)

    def processes(self) -> list[psutil.Process]:
        """What lives in the program's session; what is dead and only not fetched by its parent does not."""
        mine = [p for p in psutil.process_iter() if _session(p.pid) == self.process.pid]
        return [p for p in mine if _status(p) not in (psutil.STATUS_ZOMBIE, None)]

    def states(self) -> str:
        """One line a process; `stopped` is one that the terminal halted."""
        lines = []
        for process in self.processes():
            with suppress(psutil.Error):  # gone meanwhile
                lines.append(f"{process.pid} {process.status()} {process.name()}")
        return "\n".join(lines)


def _status(process: psutil.Process) -> str | None:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return None


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


@contextmanager
def on_terminal(command: Sequence[str | Path], cwd: Path, **environment: str) -> Iterator[Terminal]:
    """Start a program on a new terminal; whatever is left of it is killed afterwards."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "150"} | environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(slave)
    terminal = Terminal(process, master)
    try:
        yield terminal
        assert termios.tcgetattr(master) == before, "the terminal's modes were changed"
    finally:
        for left in terminal.processes():
            left.kill()
        process.wait(60)
        os.close(master)


def _own_terminal() -> Any:
    return fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def nosy_ffmpeg(folder: Path) -> str:
    """A PATH whose first `ffmpeg` wants to talk to the terminal."""
    folder.mkdir(parents=True)
    (folder / "ffmpeg").write_text(NOSY)
    (folder / "ffmpeg").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"
