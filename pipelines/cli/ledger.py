"""`interavatar ledger`: where every kept sample comes from and what has become of it."""

from __future__ import annotations

from typing import Annotated

import typer


def ledger(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_OR_SHARDS...",
            help="Folders of finished runs (NAME=RUN gives one another name) and of shards.",
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", metavar="FILE", help="A .parquet, .csv or .jsonl file to write.")
    ],
) -> None:
    """Write one row for each kept sample: source, licence, stages, models, prompts, screen, shard.

    Of shards it is made of what they hold themselves: the run need not be there. docs/consent.md has the
    columns.

    Example: interavatar ledger shards/ --output ledger.parquet
    """
    from pipelines.cli.console import out, readable_errors

    with readable_errors():
        from manifests.storage import folder_of
        from pipelines.collection.ledger import write_ledger

        count = write_ledger(places, folder_of(output))
        out().print(f"ledger    {output}: {count} samples")
