"""Whether anything of a collection is on several sides of its split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from pipelines.collection.runs import RUN, CollectedRun
from pipelines.collection.splits import LINKS, SIDES, SPLIT, Ints, Rows, groups_of, read_rows_to_split
from pipelines.engine.source import InputError

# The commands that find what keeps rows together.
FOUND_BY: Mapping[str, str] = {"people": "interavatar people", "duplicates": "interavatar duplicates"}


@dataclass(frozen=True)
class Leaks:
    """What is on several sides, by one link.

    link: of `LINKS`. known: rows with such a value. values: different ones. shared: of these, how many more
    than one row has. leaks: of these, how many are on several sides. examples: rows of some of them, of each
    its value, side, run and sample.
    """

    link: str
    known: int
    values: int
    shared: int
    leaks: int
    examples: Sequence[Sequence[tuple[str, str, str, str]]]


def leaks_of(rows: Rows, names: Sequence[str], examples: int = 3) -> list[Leaks]:
    """What is on several sides, by each link by itself, and by all together as `groups`.

    Left-out rows and rows without a side are on none.

    Args:
        rows: of the collection.
        names: of the runs.
        examples: leaks of each link that are shown.
    """
    coded = np.array([SIDES.index(side) if side in SIDES else -1 for side in rows.sides.tolist()], np.int64)
    groups = groups_of(rows.table.num_rows, rows.links.values())
    found = []
    for link, columns in {**rows.links, "groups": [groups]}.items():
        size = max((int(codes.max(initial=-1)) for codes in columns), default=-1) + 1
        on, members = np.zeros((size, len(SIDES)), bool), np.zeros(size, np.int64)
        known = np.zeros(rows.table.num_rows, bool)
        for codes in columns:
            known |= codes >= 0
            np.add.at(members, codes[codes >= 0], 1)
            placed = (codes >= 0) & (coded >= 0)
            on[codes[placed], coded[placed]] = True
        leaking = np.flatnonzero(on.sum(1) > 1)
        shown = [_members(rows, names, columns, int(value), link) for value in leaking[:examples]]
        found.append(
            Leaks(
                link=link,
                known=int(known.sum()),
                values=int((members > 0).sum()),
                shared=int((members > 1).sum()),
                leaks=len(leaking),
                examples=shown,
            )
        )
    return found


def _members(
    rows: Rows, names: Sequence[str], columns: Sequence[Ints], value: int, link: str
) -> list[tuple[str, str, str, str]]:
    """For each side one row with a value of a link: value, side, run and sample."""
    shown: dict[str, tuple[str, str, str, str]] = {}
    for number, codes in enumerate(columns):
        for row in np.flatnonzero(codes == value).tolist():
            side = rows.table[SPLIT][row].as_py()
            if side not in SIDES:
                continue
            text = rows.table[LINKS[link][number]][row].as_py() if link in LINKS else "a chain of these"
            run = names[rows.table[RUN][row].as_py()]
            shown.setdefault(
                side, (text.replace("\n", ": "), side, run, rows.table["sample_id"][row].as_py())
            )
    return [shown[side] for side in SIDES if side in shown]


def refuse_leaks(runs: Sequence[CollectedRun], side: str) -> None:
    """Make sure that the runs are split and nothing is on several sides.

    Args:
        runs: of the collection.
        side: that is wanted.

    Raises:
        InputError: there is no such side, a run is not split, or something is on several sides.
    """
    if side not in SIDES:
        raise InputError(f"--split {side}: one of {', '.join(SIDES)}")
    rows = read_rows_to_split(runs)
    for number, run in enumerate(runs):
        sides = rows.table.filter(pc.equal(rows.table[RUN], number))[SPLIT]
        if len(sides) and sides.null_count == len(sides):
            raise InputError(f"--split {side}: {run.folder} is not split; `interavatar split` splits it")
    for leaks in leaks_of(rows, [run.name for run in runs], 1):
        if leaks.leaks:
            raise InputError(
                f"--split {side}: {leaks.leaks} {leaks.link} are on several sides, such as "
                f"{in_words(leaks.examples[0])}; `interavatar split` of all runs together takes them apart"
            )


def in_words(example: Sequence[tuple[str, str, str, str]]) -> str:
    """A leak as one line."""
    where = " and ".join(f"{side} ({sample} of {run})" for _, side, run, sample in example)
    return f"{example[0][0]} on {where}"
