"""Why samples of a run ended in errors: what `run` and `status` say of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
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
    return store.at_one_moment(manifest, lambda files: together(failures_in(file.path) for file in files))


def failures_in(file: Path) -> list[Failure]:
    """Those of one of its files."""
    table = store.read_file(file, ["error.stage", "error.message", "source_uri"])
    table = table.filter(pc.is_valid(table["error"]))
    what = {name: pc.struct_field(table["error"], name) for name in ("stage", "message")}
    errors = pa.table({**what, "uri": table["source_uri"]})
    found = errors.group_by(["stage", "message"], use_threads=False).aggregate(
        [("uri", "first"), ([], "count_all")]
    )
    columns = (found[name].to_pylist() for name in ("stage", "message", "count_all", "uri_first"))
    return [Failure(*values) for values in zip(*columns, strict=True)]


def together(found: Iterable[Sequence[Failure]]) -> list[Failure]:
    """The same errors of several files counted as one, the most frequent first."""
    counts, first = Counter[tuple[str, str]](), dict[tuple[str, str], str]()
    for failure in (failure for some in found for failure in some):
        what = (failure.stage, failure.message)
        counts[what] += failure.count
        first.setdefault(what, failure.first)
    listed = (Failure(*what, count, first[what]) for what, count in counts.items())
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
