"""What every command says and how it ends: two consoles, and errors as one clear message."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from configs.errors import UserError
from manifests.storage import is_client_error
from manifests.text import printable, public_message


class PlainConsole(Console):
    """Prints text as it is, but never a password or key, nor what would steer the terminal: no markup, no
    line broken.

    A table fits into a terminal's width; in a pipe or a file it is as wide as it needs to be.

    Args:
        stderr: print to standard error.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if not self.is_terminal:
            self.width = 10_000  # nothing is that wide

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's, see there."""
        if all(isinstance(item, str) for item in objects):
            objects = tuple(public_message(item) for item in objects)
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """As rich's: all that is printed passes here, the cells of tables and the texts of bars, too."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def out() -> Console:
    """Standard output, as wide as it is at this moment."""
    return PlainConsole()


def err() -> Console:
    """Standard error, likewise."""
    return PlainConsole(stderr=True)


def warn(text: str) -> None:
    """Say on standard error what the result will lack."""
    err().print(f"warning: {text}", style="yellow")


@contextmanager
def readable_errors(
    interrupted: str = "interrupted", packages: str = "`interavatar doctor` says what is missing"
) -> Iterator[None]:
    """End the command with one clear message: exit 2 for wrong use, 1 for what could not be finished.

    What no one foresaw, an error of this program, shows its traceback.

    Args:
        interrupted: what to say after Ctrl-C and SIGTERM.
        packages: the way out where a package is not installed.
    """
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        _end(interrupted, 1)
    except UserError as error:
        _end(f"error: {error}", error.exit_code)
    except ImportError as error:
        _end(f"error: {error}; {packages}", 1)
    except Exception as error:
        if is_client_error(error):
            _end(f"error: object store: {error}; {_way_out(error)}", 1)
        if isinstance(error, (ValueError, ArithmeticError, OSError)) or _is_of_arrow(error):
            _end(f"error: {error}", 1)
        _end(traceback.format_exc().rstrip(), 1)


def _way_out(error: Exception) -> str:
    if "credentials" in str(error).lower():
        return (
            "give them in the environment, as the store's client reads them: for S3, AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    return "run the same command again to go on"


def _is_of_arrow(error: Exception) -> bool:
    pyarrow = sys.modules.get("pyarrow")
    return pyarrow is not None and isinstance(error, pyarrow.ArrowException)


def _end(message: str, code: int) -> NoReturn:
    err().print(message, style="red")
    raise typer.Exit(code) from None
