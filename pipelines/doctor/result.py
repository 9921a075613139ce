"""What a check of `interavatar doctor` says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One check. `note`: nothing is wrong, but somebody should know."""

    what: str
    ok: bool
    said: str
    note: bool = False


def check(what: str, probe: Callable[[], str]) -> Result:
    """What `probe` says, or what it raises."""
    try:
        return Result(what, True, probe())
    except ImportError as error:
        return Result(what, False, f"{error}; install the profile's packages (make setup)")
    except Exception as error:
        return Result(what, False, f"{type(error).__name__}: {error}")


def verdict(results: Sequence[Result]) -> str:
    """The last line: `will run`, or what to do first."""
    wrong = [result for result in results if not result.ok]
    if not wrong:
        return "will run"
    first = wrong[0]
    more = f" ({len(wrong) - 1} more above)" if wrong[1:] else ""
    return f"will not run; first {first.what}: {first.said.splitlines()[0]}{more}"
