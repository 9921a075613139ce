"""The arrays of many samples, read in the order in which they lie on disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from manifests import features, packs

# The columns of a manifest that say where a row's arrays lie.
PLACES = ("sample_id", "stages", "arrays")


def arrays_of(
    folder: Path, rows: Sequence[Mapping[str, Any]], stage: str
) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]] | str]]:
    """The arrays that a stage stored for rows of a run; each row once, pack by pack.

    Args:
        folder: the run's.
        rows: as `manifests.schema.to_rows` gives them, with `PLACES`.
        stage: its name.

    Yields:
        The row's number, and its arrays, or why there are none.
    """
    in_packs: dict[str, list[tuple[int, packs.Place]]] = defaultdict(list)
    for number, row in enumerate(rows):
        place = features.place_of(row, stage)
        if place is not None:
            in_packs[place["file"]].append((number, place))
        elif stage in (row["stages"] or {}):
            yield number, _loaded(folder, row, stage)
        else:
            yield number, f"{stage} was not computed"
    for name, places in in_packs.items():
        try:
            with packs.opened(folder, name) as pack:
                for number, place in sorted(places, key=lambda entry: entry[1]["offset"]):
                    try:
                        yield number, features.arrays_of(packs.read_range(pack, place))
                    except ValueError as error:
                        yield number, f"the arrays of {stage} are damaged ({error})"
        except (FileNotFoundError, ValueError) as error:
            yield from ((number, f"the arrays of {stage} are gone ({error})") for number, _ in places)


def _loaded(folder: Path, row: Mapping[str, Any], stage: str) -> dict[str, npt.NDArray[Any]] | str:
    try:
        return features.load_features(folder, row, stage)
    except (KeyError, FileNotFoundError, ValueError) as error:
        return f"the arrays of {stage} are damaged or gone ({error})"
