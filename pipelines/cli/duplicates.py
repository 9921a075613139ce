"""`interavatar duplicates`: copies among the samples of a collection."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.names import Runs


def duplicates(
    runs: Runs,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be found; write nothing.")
    ] = False,
) -> None:
    """Find clips that show the same, within a run and across runs, and judge the runs anew.

    Copies are found whether they are the same file, encoded anew, resized, trimmed, mirrored, sped up a
    little, or have a logo or black borders. The columns duplicate_of, duplicate_kind and duplicate_distance
    say of each copy what it is a copy of, how, and how unlike; the screen's rule on duplicate_distance drops
    it. Of copies the best stays: kept by the other rules, larger, longer, with more bits a pixel. Run it
    again after more samples were added; killed, the same command goes on. docs/collections.md says how it is
    measured.

    Example: interavatar duplicates out/hdtf out/celebv
    """
    from pipelines.cli.console import err, out, readable_errors

    with readable_errors("interrupted; the same command goes on"):
        from collections import Counter

        from rich.table import Table

        from manifests import storage
        from pipelines.collection.duplicates import COMPARED, KINDS, find_duplicates
        from pipelines.collection.runs import open_collection, write_found

        opened = open_collection(runs)
        done = opened[0].folder / COMPARED
        found = find_duplicates(opened, None if dry_run else done, err().print)
        kinds = Counter(found.table["duplicate_kind"].drop_null().to_pylist())
        view = Table("kind", "copies", "what")
        for kind, what in KINDS.items():
            view.add_row(kind, str(kinds[kind]), what)
        out().print(view)
        for reason, count in found.unseen.items():
            out().print(f"not compared: {count} samples: {reason}")
        if not dry_run:
            write_found(opened, found.table, out().print)
            storage.remove_tree(done)
