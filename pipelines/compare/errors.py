"""Which errors two runs do not share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import storage, store
from pipelines.compare.matched import Manifest, Matched, Positions


@dataclass(frozen=True)
class ErrorChange:
    """An error that samples have in one run alone; a sample may have another one in the other run.

    Attributes:
        stage, message: of the error.
        new, gone: how many samples have it in B alone, and in A alone.
        sample: one of them.
    """

    stage: str
    message: str
    new: int
    gone: int
    sample: str


def errors_of(manifest: Manifest) -> pa.ChunkedArray:
    """Stage and message of each row's error; null where there is none."""
    kind = pa.struct([("stage", pa.string()), ("message", pa.string())])

    def of_file(number: int) -> pa.Array:
        # Not the traceback, which is long.
        table = store.read_file(manifest.files[number].path, ["error.stage", "error.message"])
        if "error" not in table.column_names:
            return pa.nulls(int(manifest.starts[number + 1] - manifest.starts[number]), kind)
        return table["error"].combine_chunks().cast(kind)

    remote = any(storage.is_remote(file.path) for file in manifest.files)
    return pa.chunked_array(storage.each(of_file, range(len(manifest.files)), remote), kind)


def compare_errors(rows: Matched, a: pa.ChunkedArray, b: pa.ChunkedArray) -> list[ErrorChange]:
    """The errors that samples of both runs have in one of them alone, the most frequent first.

    Args:
        rows: of the two runs.
        a, b: `errors_of` each.
    """
    counts: dict[tuple[str, str], list[int]] = {}
    samples: dict[tuple[str, str], str] = {}
    for number, errors in _of_some(rows, a, b):
        if errors[0] == errors[1]:
            continue
        for at, error in enumerate(errors):
            if error is not None:
                key = (error["stage"] or "", error["message"] or "")
                counts.setdefault(key, [0, 0])[at] += 1
                samples.setdefault(key, rows.id_at(number))
    found = [
        ErrorChange(stage, message, new, gone, samples[stage, message])
        for (stage, message), (gone, new) in counts.items()
    ]
    return sorted(found, key=lambda one: (-one.new - one.gone, one.stage, one.message))


def _of_some(
    rows: Matched, a: pa.ChunkedArray, b: pa.ChunkedArray
) -> Iterator[tuple[int, list[dict[str, Any] | None]]]:
    """The samples that have an error in a run: their number among those of both, and the error in each."""
    taken = [errors.take(pa.array(at)) for errors, at in ((a, rows.rows_a), (b, rows.rows_b))]
    some: Positions = np.flatnonzero(
        np.asarray(pc.is_valid(taken[0]), bool) | np.asarray(pc.is_valid(taken[1]), bool)
    )
    of_a, of_b = (errors.take(pa.array(some)).to_pylist() for errors in taken)
    for number, *errors in zip(some.tolist(), of_a, of_b, strict=True):
        yield number, errors
