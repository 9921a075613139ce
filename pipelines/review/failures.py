"""Why samples of a run ended in errors: what `run` and `status` say of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from manifests import store
from manifests.text import one_line

NAMED = 5  # kinds of failure that are shown
LONGEST = 200  # characters of a message that are shown


@dataclass(frozen=True)
class Failure:
    """Samples that ended in the same error.

    Attributes:
        stage: where.
        message: of the error.
        count: of samples.
        first: address of one of them, the first in the manifest's order.
    """

    stage: str
    message: str
    count: int
    first: str


def failures(manifest: Path) -> list[Failure]:
    """The errors of a manifest, the most frequent first."""
    table = store.read(manifest, ["error", "source_uri"])
    table = table.filter(pc.is_valid(table["error"]))
    what = (pc.struct_field(table["error"], name).to_pylist() for name in ("stage", "message"))
    counts, first = Counter[tuple[str, str]](), dict[tuple[str, str], str]()
    for stage, message, uri in zip(*what, table["source_uri"].to_pylist(), strict=True):
        counts[stage, message] += 1
        first.setdefault((stage, message), uri)
    listed = (Failure(*error, count, first[error]) for error, count in counts.items())
    return sorted(listed, key=lambda failure: (-failure.count, failure.stage, failure.message))


def failure_lines(found: Sequence[Failure]) -> Iterator[str]:
    """A line for each of the most frequent errors: how many samples, the stage, the message, one file."""
    for failure in found[:NAMED]:
        message = " ".join(failure.message.split())
        if len(message) > LONGEST:
            message = f"{message[:LONGEST]}..."
        yield f"  {failure.count} in {failure.stage}: {message} ({_such_as(failure)})"
    if len(found) > NAMED:
        rest = sum(failure.count for failure in found[NAMED:])
        yield f"  {rest} with {len(found) - NAMED} other messages"


def _such_as(failure: Failure) -> str:
    first = one_line(failure.first)
    return first if failure.count == 1 else f"such as {first}"
