"""Nothing here reads a terminal, so nothing that a library starts may: it could wait for ever."""

from __future__ import annotations

import fcntl
import os
import termios
from contextlib import suppress
from pathlib import Path


def leave_terminal() -> None:
    """From now on this process and its children read an empty standard input and have no `/dev/tty`.

    Without it the kernel stops a background process as soon as it, or a child that a library starts on
    import, so much as sets the terminal's modes. Ray's workers are such, and so is `interavatar ... &`.

    What is shown on the terminal stays, and Ctrl-C still arrives: the terminal sends it to its foreground
    processes, whatever they have open. A session's leader (`script`, `docker run -t`) keeps `/dev/tty`: to
    leave it would hang up on the whole session.
    """
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    if nowhere:
        os.close(nowhere)
    if os.getsid(0) == os.getpid():
        return
    # There may be none to leave.
    with suppress(OSError), Path("/dev/tty").open("rb", buffering=0) as terminal:
        fcntl.ioctl(terminal, termios.TIOCNOTTY)
