"""`interavatar validate`: a run against labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.validate.measures import Measure


def validate(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a run (its --output) over labelled media.")
    ],
    labels: Annotated[
        list[Path],
        typer.Option(
            "--labels",
            help="A CSV of labels (media, claim, value, ...), or reviews.parquet; may be repeated.",
        ),
    ],
    media: Annotated[
        str | None,
        typer.Option(
            "--media",
            help="Folder or URL that paths in the labels start from. Default: that of the first label file.",
        ),
    ] = None,
    floors: Annotated[
        str | None,
        typer.Option("--floors", help="A YAML file of floors; exit status 1 when one is not held."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="DIR",
            help="Another run over the same media, such as of another profile: where the two differ.",
        ),
    ] = None,
) -> None:
    """Say how true a run's manifest is: precision, recall and error of each claim that people labelled.

    Writes validation.html (with what is wrong in pictures) and validation.parquet into DIR. docs/truth.md has
    the format of labels.

    Exit status: 0 validated, 1 a floor is not held, 2 wrong use.

    Example: interavatar run real_interactions --input clips/ --output out/ &&
    interavatar validate out/ --labels clips/labels.csv
    """
    from pipelines.cli.console import err, out, readable_errors

    with readable_errors():
        from manifests.screen import Screen
        from pipelines.cli.status import read_record
        from pipelines.validate.labels import read_labels
        from pipelines.validate.measures import below, read_floors
        from pipelines.validate.page import write_page
        from pipelines.validate.validate import Validation, disagreements, write_answers
        from pipelines.validate.validate import validate as judge

        limits = read_floors(floors) if floors else None
        known = [label for path in labels for label in read_labels(path)]
        start = media if media is not None else str(labels[0].parent)

        def judged(run: Path) -> tuple[Validation, dict[str, Any]]:
            record = read_record(run)
            return judge(run, Screen.model_validate(record["screen"]), known, start), record

        found, record = judged(folder)
        title = f"{record['pipeline']}, profile {record['profile']['name']}"
        differ, other = [], ""
        if against is not None:
            there, its = judged(against)
            differ = disagreements(found.judged, there.judged)
            other = f"{its['pipeline']}, profile {its['profile']['name']}"
        write_answers(found.judged, folder / "validation.parquet")
        write_page(found, folder / "validation.html", title, other, differ)
        out().print(_table(found.measures))
        if found.absent:
            err().print(f"{len(found.absent)} labelled files are not in the run, such as {found.absent[0]}")
        if found.outside:
            err().print(
                f"{len(found.outside)} labels are of times that no clip holds, "
                f"such as {found.outside[0].where}"
            )
        if against is not None:
            out().print(f"{len(differ)} labels are answered otherwise by {against}; the page lists them")
        out().print(f"answers   {folder / 'validation.parquet'}")
        out().print(f"page      {folder / 'validation.html'}")
        if limits is not None and (lines := below(found.measures, limits)):
            err().print("\n".join(["below the floors:", *lines]))
            raise typer.Exit(1)


def _table(measures: Sequence[Measure]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("claim", "of", "measure"):
        table.add_column(name)
    for name in ("value", "95 %", "labels", "sources"):
        table.add_column(name, justify="right")
    for m in measures:
        if m.metric == "unanswered" and m.value == 0:
            continue
        table.add_row(
            m.claim,
            m.group or "all",
            m.metric,
            f"{m.value:.3g}",
            f"{m.low:.3g} to {m.high:.3g}",
            str(m.labels),
            str(m.sources),
        )
    return table
