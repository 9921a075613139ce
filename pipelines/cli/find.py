"""`interavatar find`: samples that look like something."""

from __future__ import annotations

from typing import Annotated

import typer


def find(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a finished run (its --output).")],
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT", help="What is to be seen, as a sentence; of a run whose embedder knows words."
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option("--like", metavar="FILE", help="A picture or a clip that they are to be like."),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many samples at most.")] = 20,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="FILE.parquet", help="Write their rows, the nearest first."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, such as models=DIR or device=cpu; may be repeated."),
    ] = None,
) -> None:
    """Find samples by what they show, among the embeddings that the run has stored.

    Give a sentence or --like FILE. Prints the nearest samples and writes found.html into the run's folder, a
    report of these alone. The laptop profile's embedder compares pictures; the gpu profile's CLIP also reads
    sentences. Nothing of the run is decoded but for the pictures of that page.

    Example: interavatar find out "a woman laughs and covers her mouth"
    """
    from pipelines.cli.console import err, out, readable_errors

    with readable_errors():
        from rich.table import Table

        from manifests.storage import folder_of
        from manifests.store import write_table
        from pipelines.collection.runs import open_collection
        from pipelines.collection.search import SIMILARITY, embedder_of, of_media, of_text
        from pipelines.collection.search import find as nearest
        from pipelines.engine.source import InputError
        from pipelines.review.report import write_found_page

        if (text is None) == (like is None):
            raise InputError("give a sentence or --like FILE, one of the two")
        (run,) = open_collection([folder])
        embedder = embedder_of(run, overrides or ())
        wanted = of_media(embedder, like) if like is not None else of_text(embedder, text or "")
        rows = nearest(run, wanted, embedder.id, count, err().print)
        view = Table("similarity", "kept", "sample", "source")
        for row in rows.select([SIMILARITY, "keep", "sample_id", "source_uri"]).to_pylist():
            kept = "yes" if row["keep"] else "no"
            view.add_row(f"{row[SIMILARITY]:.3f}", kept, row["sample_id"], row["source_uri"])
        out().print(view)
        if output is not None:
            write_table(folder_of(output), rows)
            out().print(f"rows      {output}")
        out().print(f"report    {write_found_page(run.folder, rows)}")
