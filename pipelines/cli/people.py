"""`interavatar people`: who is in the clips of a collection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.names import Runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.collection.people import People

MOST = 10  # people and pairs that are shown


def people(
    runs: Runs,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=-1,
            max=1,
            help="Least mean cosine of the faces of one person. Default: what is known of the embedder.",
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Form all people anew; else a clip that has a person keeps it."),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", metavar="FILE.parquet", help="Write one row a person, too; local or any fsspec URL."
        ),
    ] = None,
) -> None:
    """Find who is in the clips of finished runs, by their faces, and how often.

    Clips with one person get `person_id`, `person_similarity` and `person_rank`, in RUN/collection.parquet
    and in the manifest; the screens are applied again. Give all runs of the collection: a clip that has a
    person keeps it when runs and rows are added. docs/collections.md says how they are found and how true
    that is.

    Exit status: 0 found, 1 could not finish, 2 wrong use.

    Example: interavatar people out/ more/ --output people.parquet
    """
    from pipelines.cli.console import err, out, readable_errors

    with readable_errors("interrupted; runs that were told of are written, the same command goes on"):
        from manifests.storage import folder_of, written
        from manifests.store import write_table
        from pipelines.collection.people import find_people
        from pipelines.collection.runs import open_collection, write_found

        target = folder_of(output) if output is not None else None
        opened = open_collection(runs)
        found = find_people(opened, threshold, again, err().print)
        _print(found)
        write_found(opened, found.found, out().print)
        if target is not None:
            with written(target.parent):
                write_table(target, found.people)
            out().print(f"people    {target}")


def _print(found: People) -> None:
    from rich.table import Table

    from pipelines.cli.console import out

    clips = found.people["clips"].to_numpy()
    missing = sum(found.without.values())
    reasons = ", ".join(f"{count} {why}" for why, count in found.without.items() if count)
    quality = found.quality
    lines = [
        f"{len(clips)} people in {clips.sum()} clips; of {found.rows} rows {missing} have none"
        + (f": {reasons}" if reasons else ""),
        f"clips of a person: median {_median(clips):g}, most {clips.max()}",
        f"one person: mean cosine of {found.threshold.cosine:g} and more ({found.threshold.source})",
        f"a clip and the others of its person, 5th percentile: {_figure(quality.within)}; a clip and the "
        f"nearest other person, 95th percentile: {_figure(quality.between)}; nearer to another person: "
        f"{quality.astray}",
    ]
    for line in lines:
        out().print(line)
    table = Table("person", "clips", "kept", "minutes", "gender", "data sets", box=None)
    for row in found.people.slice(0, MOST).to_pylist():
        figures = (str(row["clips"]), str(row["kept"]), f"{row['seconds'] / 60:.1f}")
        table.add_row(row["person_id"], *figures, row["gender"] or "not known", ", ".join(row["sources"]))
    out().print(table)
    pairs = [f"{one} and {other}" for one, other in found.alike]
    _warn("could be one person", "--again forms all people anew", pairs)
    pairs = [f"{one} and {other}" for one, other in found.said_to_differ]
    _warn("look like one person, but have two names in a data set", "they stay two", pairs)
    names = [f"{name} of {source}" for source, name in found.unlike]
    _warn("do not look like one person, but have one name in a data set", "they are one", names)
    names = [f"{name} of {source}" for source, name in found.torn]
    _warn("have one name in a data set and are several people", "--again joins them", names)
    _warn("are one person with several names of a data set", "--again parts them", found.mixed)
    if found.in_two:
        _warn("are other people in another run", "the first by name is taken", [f"{found.in_two} samples"])


def _warn(what: str, then: str, which: Sequence[str]) -> None:
    from pipelines.cli.console import warn

    if which:
        more = f" and {len(which) - MOST} more" if len(which) > MOST else ""
        warn(f"{what} ({then}): {'; '.join(which[:MOST])}{more}")


def _median(values: object) -> float:
    import numpy as np

    return float(np.median(np.asarray(values)))


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
