"""Whose fault a failure is: the sample's, the machine's, or a service's.

An error of the sample is kept in its row. A fault of the machine (a full disk, a mount that is gone) or of a
service (a server, a store, a key, a budget) says nothing about the sample, which stays due.
"""

from __future__ import annotations

import errno
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from backends.language.vision_language_model import ServiceError
from manifests import storage
from manifests.text import clean_text, without_secrets
from media.files import local_path
from pipelines.engine.figures import Summary
from pipelines.engine.pipeline import RunError

MACHINE, SERVICE = "machine", "service"
MACHINE_ERRORS = storage.NO_ROOM | {
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE),
    *(errno.ENOTCONN, errno.ENODEV, errno.EHOSTDOWN, errno.EHOSTUNREACH),
}
# So many samples one after the other with the same fault, and the run stops: others would fare no better.
IN_A_ROW = 20


def fault_of(error: BaseException, media: str = "", was_there: bool = False) -> str | None:
    """`machine` or `service`; None: it is the sample's own error.

    Args:
        error: what a stage, or the reading of its media, raised.
        media: path or URL of the sample's file.
        was_there: the file was seen when the input was listed.
    """
    for each in _causes(error):
        if isinstance(each, FileNotFoundError):  # a store's client says the same in other words
            break
        if isinstance(each, ServiceError | ConnectionError) or storage.is_client_error(each):
            return SERVICE
        if isinstance(each, storage.OutputError | MemoryError) or _is_of_machine(each):
            return MACHINE
    path = local_path(media)
    if path is not None:
        return MACHINE if _is_out_of_reach(path, was_there) else None
    is_service = isinstance(error, TimeoutError) or (_is_store(media) and _is_of_store(error))
    return SERVICE if is_service else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_of_machine(error: BaseException) -> bool:
    # FFmpeg's errors have numbers, too: a file cut short is an input/output error to it.
    is_ffmpeg = type(error).__module__.partition(".")[0] == "av"
    return isinstance(error, OSError) and not is_ffmpeg and error.errno in MACHINE_ERRORS


def _is_store(media: str) -> bool:
    return media.partition("://")[0] in storage.OBJECT_STORES


def _is_of_store(error: BaseException) -> bool:
    """An error of an object store that is not about this object alone."""
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError | IsADirectoryError)


def _is_out_of_reach(path: Path, was_there: bool) -> bool:
    """Whether a file cannot be read because of what it lies on: its disk fails, or its mount is gone.

    One that is missing alone was deleted; where all its neighbours are missing, too, a mount is gone.
    """
    try:
        if stat.S_ISREG(path.stat().st_mode):  # reading from a pipe would wait for ever
            with path.open("rb") as file:
                file.read(1)
        return False
    except FileNotFoundError:
        if not was_there:
            return False
        try:
            return not any(path.parent.iterdir())
        except OSError:
            return True
    except OSError as error:
        return error.errno in MACHINE_ERRORS or error.errno == errno.EIO
    except ValueError:  # no path at all
        return False


def shown(error: BaseException) -> str:
    """The first line of an error, for people."""
    said = getattr(error, "strerror", None) or str(error)
    lines = clean_text(without_secrets(str(said))).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


class Breaker:
    """Stops a run in which one cause spoils one sample after the other.

    A cause is a kind of fault in one stage; a success of that stage begins its count anew.
    """

    def __init__(self) -> None:
        self._in_a_row: Counter[str] = Counter()
        self._said: dict[str, str] = {}

    def add(self, part: Summary) -> None:
        """Another committed part.

        Raises:
            RunError: `IN_A_ROW` samples in a row met the same fault.
        """
        for cause in list(self._in_a_row):
            if part.computed[cause.partition(" in ")[2]]:
                del self._in_a_row[cause]
        for fault, count in part.faults.items():
            cause, _, self._said[cause] = fault.partition(": ")
            self._in_a_row[cause] += count
        for cause, count in self._in_a_row.items():
            if count >= IN_A_ROW:
                raise RunError(
                    f"stopped: {count} samples in a row met a {cause}: {self._said[cause]}; {WAY_OUT}"
                )


WAY_OUT = "these samples are still due: mend it, then run the same command again"


def fault_lines(faults: Counter[str]) -> Iterator[str]:
    """A line for each kind of fault that samples met: `3 x service fault in caption: HTTP 503`."""
    for fault, count in faults.most_common():
        yield f"  {count} x {fault}"
