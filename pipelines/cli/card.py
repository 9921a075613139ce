"""`interavatar card`: the data card of a collection."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.names import Runs


def card(
    runs: Runs,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="FILE.md", help="Write it there; without, it is printed."),
    ] = None,
) -> None:
    """Say in one page what a collection holds: sources, licences, copies, people, sides of the split, rules.

    Counted from the manifests as they are; the same manifests give the same card.

    Example: interavatar card out/hdtf out/celebv --output CARD.md
    """
    from pipelines.cli.console import out, readable_errors

    with readable_errors():
        from manifests import storage
        from pipelines.collection.card import card as text_of
        from pipelines.collection.runs import open_collection

        text = text_of(open_collection(runs))
        if output is None:
            out().print(text, end="")
            return
        storage.write_bytes(storage.folder_of(output), text.encode())
        out().print(f"card      {output}")
