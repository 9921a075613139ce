"""`interavatar evaluate`: measure made clips, or ask people about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.names import Engine, folder, profiles
from pipelines.cli.study import study, votes
from pipelines.cli.typer_app import new_app

if TYPE_CHECKING:
    from metrics.results import Results

app = new_app(
    "Measure made clips beside real ones, by the metrics of the papers; or ask people which they prefer.\n\n"
    "`interavatar evaluate DIR ...` measures: see `interavatar evaluate measure --help`.",
    has_default=True,
)
WHOLE = "A folder of clips, a list (.parquet, .csv, .tsv, .jsonl), or the folder of a finished run"


@app.command()
def measure(
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            parser=folder,
            metavar="DIR",
            help="Folder of the evaluation: manifest/, metrics.json, table.md, .tex and .csv, report.html.",
        ),
    ],
    generated: Annotated[
        str | None,
        typer.Argument(metavar="GENERATED", help=f"{WHOLE}: the made clips.", show_default=False),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", metavar="NAME=DIR", help="Clips of one of several methods; may be repeated."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", metavar="REAL", help=f"{WHOLE}: the real clips that they are compared with."
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="SET",
            help="interavatar, grounded or dyadic: the numbers of a paper's tables; or names of metrics with "
            "commas between them (docs/metrics.md).",
        ),
    ] = "interavatar",
    profile: Annotated[
        str, typer.Option("--profile", help="A profile's name, or a YAML file.", autocompletion=profiles)
    ] = "laptop",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, such as fid.frames=32 or draws=200; may be repeated."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only the first N clips of each place, by name.")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="ray, or inline: one process.")] = "ray",
    retry_errors: Annotated[
        str,
        typer.Option(
            "--retry-errors",
            metavar="WHICH",
            help="Measure clips again that ended in an error, as `run` does.",
        ),
    ] = "",
) -> None:
    """Measure made clips, beside real ones of the same names, and write the papers' tables.

    Clips are partners where their paths inside both folders are equal but for the ending, or the column
    `pair` of both lists. Without partners only distances of whole sets compare. The same command again
    computes only what is missing. A number of another network than the published one has that network in
    its name. docs/evaluation.md says how to read the numbers.

    Exit status: 0 measured; 1 it could not finish, or clips are still due; 2 wrong use.

    Example: interavatar evaluate --method ours=a/ --method theirs=b/ --reference real/ --output eval/
    """
    from pipelines.cli.console import err, out, readable_errors

    with readable_errors(
        f"interrupted. What was committed in {output} is safe; run the same command again to go on."
    ):
        from pipelines.cli.outcome import print_outcome, shortcoming
        from pipelines.engine.pipeline import RunError
        from pipelines.engine.progress import Progress, listing, numbering, picturing
        from pipelines.engine.signals import sigterm_interrupts
        from pipelines.evaluation.inputs import parse_methods
        from pipelines.evaluation.runs import prepare_evaluation
        from pipelines.review.report import STRIPS, write_report

        sigterm_interrupts()
        methods = parse_methods(generated, method or (), reference)
        words = [word.strip() for word in metrics.split(",") if word.strip()]
        with listing(err()) as found:
            evaluation = prepare_evaluation(
                methods, output, words, profile, overrides or (), engine, retry_errors, limit, found
            )
        for name, notes in evaluation.inputs.notes.items():
            for note in notes:
                err().print(f"{name}: {note}", style="yellow")
        record = evaluation.execute(Progress(err()))
        with numbering(err()) as told:
            results = evaluation.results(told)
        with picturing(err()) as pictured:
            write_report(output, STRIPS, pictured)
        print_outcome(record, output, evaluation.run.pipeline)
        _print(results, output)
        counts = record["counts"]
        if others := counts["manifest_rows"] - counts["ids_in"]:
            out().print(
                f"the manifest also has {others} rows of clips that are not among these; no number is of them"
            )
        if why := shortcoming(counts):
            raise RunError(why)


app.command()(study)
app.command()(votes)


def _print(results: Results, output: Path) -> None:
    """The table, and where the rest is."""
    from rich.table import Table

    from manifests.text import one_line
    from metrics.results import METRICS
    from metrics.tables import ARROWS, digits
    from pipelines.cli.console import out

    for dataset in results.datasets:
        # A line a number: a terminal is too narrow for a line a method.
        table = Table("number", box=None, title=dataset)
        for name in results.methods:
            table.add_column(one_line(name), justify="right", no_wrap=True)
        for figure in results.shown:
            values = [figure.values[dataset][name].value for name in results.methods]
            shown = ["-" if value is None else digits(value) for value in values]
            table.add_row(f"{figure.title} {ARROWS[figure.better]}", *shown)
        out().print(table)
    for name, why in results.not_measured.items():
        out().print(f"{name} is not measured: {why}")
    out().print(f"tables    {output / 'table.md'}, table.tex, table_intervals.tex, table.csv")
    out().print(f"numbers   {output / METRICS}")
