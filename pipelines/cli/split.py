"""`interavatar split`: train, validation and test of a collection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.names import Runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.collection.runs import CollectedRun
    from pipelines.collection.splits import Rows, Split

SHOWN = 20  # values of a balanced column


def split(
    runs: Runs,
    shares: Annotated[
        str, typer.Option("--shares", help="Share of the kept rows of each side.")
    ] = "train=0.9,validation=0.05,test=0.05",
    seed: Annotated[int, typer.Option("--seed", help="Which new groups come to which side.")] = 0,
    balance: Annotated[
        str,
        typer.Option(
            "--balance",
            metavar="COLUMN,...",
            help="Columns of which each side shall have its share of every value, such as source,emotion.",
        ),
    ] = "",
    again: Annotated[
        bool, typer.Option("--again", help="Split anew; else a row that has a side keeps it.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: say whether anything is on several sides.")
    ] = False,
) -> None:
    """Split a collection into train, validation and test: by person and source video, never across.

    Rows of one sample, source video, content, identity, person or group of duplicates, also by way of others,
    are on one side. Every row gets one, in `split`. Give all runs of the collection, after `interavatar
    duplicates` and `interavatar people`. docs/collections.md says how sides are chosen.

    Exit status: 0 split, or nothing is on several sides; 1 something is, or it could not finish; 2 wrong use.

    Example: interavatar split out/ more/ --balance source
    """
    from pipelines.cli.console import out, readable_errors

    with readable_errors("interrupted; runs that were told of are written, the same command goes on"):
        from pipelines.collection.runs import open_collection, write_found
        from pipelines.collection.splits import parse_shares, read_rows_to_split, split_rows

        wanted = parse_shares(shares)
        columns = [name.strip() for name in balance.split(",") if name.strip()]
        opened = open_collection(runs)
        rows = read_rows_to_split(opened, columns)
        if not check:
            found = split_rows(rows, wanted, seed, columns, again)
            _print(found, opened, columns)
            write_found(opened, found.found, out().print)
            rows = read_rows_to_split(opened)
        if not _is_clean(rows, opened):
            raise typer.Exit(1)


def _print(found: Split, runs: Sequence[CollectedRun], columns: Sequence[str]) -> None:
    from collections import Counter

    import numpy as np
    import pyarrow.compute as pc
    from rich.table import Table

    from pipelines.cli.console import out, warn
    from pipelines.collection.splits import NONE, SIDES, SPLIT, UNKNOWN

    keep = np.asarray(pc.fill_null(found.rows.table["keep"], False), bool)
    sides = found.found[SPLIT].to_pylist()
    sizes = np.bincount(found.groups)
    kept = int(keep.sum())
    out().print(
        f"{len(sides)} rows, {kept} kept, in {int((sizes > 0).sum())} groups, the largest of "
        f"{sizes.max(initial=0)} rows; {found.new} rows are new"
    )
    table = Table("side", "rows", "kept", "share of kept", "groups", box=None)
    for side in (*SIDES, NONE):
        mine = np.array([one == side for one in sides])
        if side == NONE and not mine.any():
            continue
        figures = (int(mine.sum()), int((mine & keep).sum()), len(np.unique(found.groups[mine])))
        share = f"{figures[1] / max(kept, 1):.3f}"
        table.add_row(side, str(figures[0]), str(figures[1]), share, str(figures[2]))
    out().print(table)
    for name in columns:
        values = pc.fill_null(found.rows.table[name], UNKNOWN).to_pylist()
        counts = Counter(
            pair for pair, is_kept in zip(zip(values, sides, strict=True), keep, strict=True) if is_kept
        )
        most = Counter(value for value, is_kept in zip(values, keep, strict=True) if is_kept).most_common(
            SHOWN
        )
        table = Table(name, "kept", *SIDES, box=None)
        for value, number in most:
            table.add_row(value, str(number), *(f"{counts[value, side] / number:.3f}" for side in SIDES))
        out().print(table)
    if found.left_out:
        warn(
            f"{found.left_out} rows are left out: their group has come to be on a stronger side, too (test, "
            "then validation, then train)"
        )
    for side in SIDES:
        if kept and not any(is_kept and one == side for one, is_kept in zip(sides, keep, strict=True)):
            warn(f"{side} has no kept rows: its share is 0, or smaller than half of any group that is left")


def _is_clean(rows: Rows, runs: Sequence[CollectedRun]) -> bool:
    """Print what is on several sides by each link; whether nothing is."""
    from rich.table import Table

    from pipelines.cli.console import err, out, warn
    from pipelines.collection.leaks import FOUND_BY, in_words, leaks_of

    found = leaks_of(rows, [run.name for run in runs])
    table = Table(
        "kept together", "rows that have one", "different", "of several rows", "on several sides", box=None
    )
    for leaks in found:
        figures = (leaks.known, leaks.values, leaks.shared, leaks.leaks)
        table.add_row(leaks.link, *(str(figure) for figure in figures))
    out().print(table)
    for leaks in found:
        if not leaks.known and leaks.link in FOUND_BY:
            warn(f"{leaks.link} are not known: `{FOUND_BY[leaks.link]}` finds them")
        for example in leaks.examples:
            err().print(f"leak of {leaks.link}: {in_words(example)}", style="red")
    return not any(leaks.leaks for leaks in found)
