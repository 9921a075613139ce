"""Sides of a collection, train, validation and test: by person and source video, and never across.

docs/collections.md says what is kept together and how sides are chosen.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import collected, store
from pipelines.collection.runs import RUN, CollectedRun
from pipelines.engine.source import InputError

SIDES = ("train", "validation", "test")  # a later one is the stronger
NONE = "none"  # the side of a row that is left out
SPLIT = "split"
SHARES: Mapping[str, float] = {"train": 0.9, "validation": 0.05, "test": 0.05}
UNKNOWN = "not known"  # a column's value where there is none

# What keeps rows together: a name, and its columns. Those of one name have values of one kind: rows are
# together by a value in any of them.
LINKS: Mapping[str, Sequence[str]] = {
    "samples": ("sample_id", "parent_id"),
    "source videos": ("source_uri",),
    "content hashes": ("content_hash",),
    "identities": ("identity",),
    "people": ("person_id",),
    "duplicates": ("duplicate_group",),
}
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """The rows of a collection, in the order of the runs.

    table: `sample_id`, `RUN`, `keep`, `split`, the columns of `LINKS` (`identity` with its source's name) and
    those to balance, as text.
    links: for each of `LINKS` and each of its columns, a number for each row, equal where the values are;
    -1 without a value.
    """

    table: pa.Table
    links: Mapping[str, Sequence[Ints]]

    @property
    def sides(self) -> npt.NDArray[np.object_]:
        """The side of each row, or None."""
        return np.asarray(self.table[SPLIT].to_pylist(), object)


@dataclass(frozen=True)
class Split:
    """A split of a collection.

    found: `sample_id`, `RUN` and `split` of every row. rows: the same rows. groups: of each row its number.
    new: how many rows had no side before. left_out: how many leave their side, because their group has
    come to be on a stronger one, too.
    """

    found: pa.Table
    rows: Rows
    groups: Ints
    new: int
    left_out: int


def read_rows_to_split(runs: Sequence[CollectedRun], balance: Sequence[str] = ()) -> Rows:
    """The rows of a collection with all that keeps them together.

    Args:
        runs: of the collection.
        balance: columns of which each side shall have its share of every value.

    Raises:
        InputError: no run has such a column, or one holds lists.
    """
    own = [name for columns in LINKS.values() for name in columns if name not in collected.SCHEMA.names[1:]]
    found = [name for columns in LINKS.values() for name in columns if name in collected.SCHEMA.names[1:]]
    tables, seen = [], set[str]()
    for number, run in enumerate(runs):
        manifest = run.folder / "manifest"
        there = set(store.column_names(manifest))
        seen |= there
        wanted = dict.fromkeys(["sample_id", "keep", "source", *own, *balance])
        table = store.read(manifest, [name for name in wanted if name in there]).sort_by("sample_id")
        known = collected.read(run.folder)
        places = pc.index_in(
            table["sample_id"], value_set=known["sample_id"].combine_chunks()
        ).combine_chunks()
        columns = {}
        for name in wanted:
            column = table[name] if name in there else pa.nulls(table.num_rows, pa.string())
            columns[name] = column if name == "keep" else _as_text(name, column)
        for name in (*found, SPLIT):
            columns[name] = known[name].combine_chunks().take(places)
        columns[RUN] = pa.array([number] * table.num_rows, pa.int32())
        tables.append(pa.table(columns))
    for name in balance:
        if name not in seen:
            raise InputError(f"--balance {name}: no run of the collection has such a column")
    table = pa.concat_tables(tables, promote_options="permissive")
    named = pc.binary_join_element_wise(table["source"], table["identity"], "\n")
    table = table.set_column(table.schema.get_field_index("identity"), "identity", named)
    links = {link: numbered([table[name] for name in columns]) for link, columns in LINKS.items()}
    return Rows(table, links)


def _as_text(name: str, column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    try:
        return pc.cast(column, pa.string())
    except pa.ArrowException:
        raise InputError(f"--balance {name}: its values are {column.type}, not texts or numbers") from None


def numbered(columns: Sequence[pa.ChunkedArray]) -> list[Ints]:
    """The values of columns as numbers; a value has the same in all of them, no value and "" have -1."""
    texts = [column.cast(pa.string()) for column in columns]
    values = pa.chunked_array([chunk for column in texts for chunk in column.chunks], pa.string())
    values = pc.if_else(pc.equal(values, ""), None, values)
    codes = pc.fill_null(values.combine_chunks().dictionary_encode().indices, -1).to_numpy()
    return np.split(np.asarray(codes, np.int64), np.cumsum([len(column) for column in texts])[:-1])


def groups_of(count: int, links: Iterable[Sequence[Ints]]) -> Ints:
    """Which rows are together, directly or by way of others: of each row the first row of its group.

    Args:
        count: of rows.
        links: numbers of each row, as `Rows.links` has them.
    """
    of = np.arange(count)
    while True:
        before = of.copy()
        for columns in links:
            least = np.full(max((int(codes.max(initial=-1)) for codes in columns), default=-1) + 1, count)
            for codes in columns:
                known = codes >= 0
                np.minimum.at(least, codes[known], of[known])
            for codes in columns:
                known = codes >= 0
                of[known] = np.minimum(of[known], least[codes[known]])
        while (of[of] != of).any():
            of = of[of]
        if (of == before).all():
            return of


def parse_shares(text: str) -> dict[str, float]:
    """Shares by side, of `train=0.9,validation=0.05,test=0.05`; a side that is not named gets none.

    Raises:
        InputError: it is not written so, or the shares do not add up to 1.
    """
    shares = dict.fromkeys(SIDES, 0.0)
    for part in text.split(","):
        side, _, number = (word.strip() for word in part.partition("="))
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if side not in SIDES or not 0 <= share <= 1:
            raise InputError(
                f"--shares {part.strip() or text}: write SIDE=SHARE, the side one of {', '.join(SIDES)}, the "
                "share 0 to 1"
            )
        shares[side] = share
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(f"--shares {text}: they add up to {sum(shares.values()):g}, not to 1")
    return shares


def split_rows(
    rows: Rows,
    shares: Mapping[str, float] = SHARES,
    seed: int = 0,
    balance: Sequence[str] = (),
    again: bool = False,
) -> Split:
    """A side for every row; writes nothing.

    Rows that are together are on one side. A row that has a side keeps it. Where a group has come to be on
    several sides, the strongest one (test, then validation) keeps its rows, and the others' are left out for
    good. Only kept rows count for the shares. The same whatever the order of runs and rows.

    Args:
        rows: of the collection.
        shares: of each side, which add up to 1.
        seed: of the order in which groups get their sides.
        balance: columns of which each side shall have its share of every value.
        again: take no notice of the sides of before.
    """
    count = rows.table.num_rows
    groups = groups_of(count, rows.links.values())
    before = np.full(count, None, object) if again else rows.sides
    codes = {None: -2, NONE: -1} | {side: number for number, side in enumerate(SIDES)}
    coded = np.array([codes[side] for side in before.tolist()], np.int64)
    strongest = np.full(count, -2)
    np.maximum.at(strongest, groups, coded)
    side = strongest[groups]
    side[side == -1] = -2  # only left-out rows: the others of their group are new
    left_out = (coded >= 0) & (coded != side)
    result = np.where((coded == -1) | left_out, -1, side)

    keep = np.asarray(pc.fill_null(rows.table["keep"], False), bool)
    strata = _strata(rows.table, balance)
    order = _hashed_order(rows.table, groups, side, seed)
    chosen = _choose(order, groups, result, keep, strata, [shares[name] for name in SIDES])
    is_new = result == -2
    result[is_new] = chosen[groups[is_new]]
    names = pa.array([*SIDES, NONE], pa.string()).take(pa.array(np.where(result < 0, len(SIDES), result)))
    return Split(
        found=pa.table({"sample_id": rows.table["sample_id"], RUN: rows.table[RUN], SPLIT: names}),
        rows=rows,
        groups=groups,
        new=int((coded == -2).sum()),
        left_out=int(left_out.sum()),
    )


def _strata(table: pa.Table, balance: Sequence[str]) -> list[Ints]:
    """For each column to balance the number of each row's value; the first is one for all rows."""
    columns = [pc.fill_null(table[name], UNKNOWN).combine_chunks() for name in balance]
    numbered = [np.asarray(column.dictionary_encode().indices, np.int64) for column in columns]
    return [np.zeros(table.num_rows, np.int64), *numbered]


def _hashed_order(table: pa.Table, groups: Ints, side: Ints, seed: int) -> list[tuple[bytes, int]]:
    """The groups without a side, by a hash of the least id of their rows: hash and number of each."""
    least: dict[int, str] = {}
    new = np.flatnonzero(side == -2)
    ids = table["sample_id"].take(pa.array(new)).to_pylist()
    for group, name in zip(groups[new].tolist(), ids, strict=True):
        least[group] = min(least.get(group, name), name)
    return sorted(
        (hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest(), group)
        for group, name in least.items()
    )


def _choose(
    order: Sequence[tuple[bytes, int]],
    groups: Ints,
    result: Ints,
    keep: npt.NDArray[np.bool_],
    strata: Sequence[Ints],
    shares: Sequence[float],
) -> Ints:
    """A side for each group of `order`: the one that lacks most of what the group has.

    What a side lacks of a stratum is the share of its rows there that it does not have yet. A group goes only
    to a side that it does not overfill by more than half of the group, if there is one.
    """
    # Rows of each stratum that each side shall have and has.
    wanted, has = [], []
    for of_row in strata:
        counts = np.bincount(of_row[keep], minlength=int(of_row.max(initial=-1)) + 1)
        wanted.append((counts[:, None] * np.array(shares)).tolist())
        mine = np.zeros((len(counts), len(shares)))
        placed = keep & (result >= 0)
        np.add.at(mine, (of_row[placed], result[placed]), 1)
        has.append(mine.tolist())
    members: dict[int, list[int]] = {group: [] for _, group in order}
    for row in np.flatnonzero(keep & (result == -2)).tolist():
        members[int(groups[row])].append(row)
    chosen = np.full(len(groups), -2)
    open_sides = [side for side, share in enumerate(shares) if share > 0]
    for digest, group in order:
        own = members[group]
        if not own:
            chosen[group] = _drawn(digest, shares)
            continue
        held = [
            (k, value, number)
            for k, of_row in enumerate(strata)
            for value, number in Counter(of_row[own].tolist()).items()
        ]

        def lacks(side: int, held: Sequence[tuple[int, int, int]] = held) -> float:
            terms = (n * (1 - has[k][value][side] / wanted[k][value][side]) for k, value, n in held)
            return math.fsum(terms)  # the same in whatever order they come

        room = [wanted[0][0][side] - has[0][0][side] for side in range(len(shares))]
        fits = [side for side in open_sides if room[side] >= len(own) / 2]
        best = max(fits, key=lacks) if fits else max(open_sides, key=lambda side: room[side] / shares[side])
        chosen[group] = best
        for k, value, number in held:
            has[k][value][best] += number
    return chosen


def _drawn(digest: bytes, shares: Sequence[float]) -> int:
    """A side drawn by a hash: of groups without a kept row, which count for no share."""
    point = int.from_bytes(digest[:8]) / 2**64
    ends = np.cumsum(shares)
    side = int(np.searchsorted(ends, point, "right"))
    return min(side, max(number for number, share in enumerate(shares) if share > 0))
