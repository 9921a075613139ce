"""`--input NAME:PATH`: which data set is meant, or that it is a path."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from pipelines.engine.input_error import InputError

# Not one letter: a drive of Windows.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]+", re.ASCII)


def split_name(text: str, known: Collection[str]) -> tuple[str, str] | None:
    """Name of the data set and path of its folder; None: the whole is a path or an address.

    What exists under the whole name is a path, and so is what has a slash, a dot or a pattern before the
    colon. `s3://...` and `simplecache::s3://...` are addresses, `C:\\clips` is a drive.

    Args:
        text: of `--input`.
        known: names of data sets.

    Raises:
        InputError: there is no such data set, or no path.
    """
    name, colon, path = text.partition(":")
    if not colon or not _NAME.fullmatch(name) or path.startswith(("//", ":")) or _exists(text):
        return None
    if name.lower() in known:
        if not path:
            raise InputError(f"--input {text} names no folder: --input {text}PATH")
        return name.lower(), path
    close = get_close_matches(name.lower(), known, 3)
    like = f"; did you mean {' or '.join(f'{near}:{path}' for near in close)}?" if close else ""
    raise InputError(
        f"{text}: no such file, and no data set is called {name}{like} (known: {', '.join(known)})"
    )


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long for a file name, or with a NUL character
        return False
