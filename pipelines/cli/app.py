"""The command line: curation from run to review, doctor; shards, trainer, samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.benchmark import app as benchmark_app
from pipelines.cli.card import card
from pipelines.cli.compare import compare
from pipelines.cli.duplicates import duplicates
from pipelines.cli.evaluate import app as evaluate_app
from pipelines.cli.export import export
from pipelines.cli.export_model import export_model
from pipelines.cli.find import find
from pipelines.cli.forget import forget
from pipelines.cli.ledger import ledger
from pipelines.cli.live import live
from pipelines.cli.models import app as models_app
from pipelines.cli.names import PIPELINES, SOURCES, Engine, Gpu, folder, pipelines, profiles, screens
from pipelines.cli.people import people
from pipelines.cli.repair import repair
from pipelines.cli.review import review
from pipelines.cli.sample import sample
from pipelines.cli.shards import shards
from pipelines.cli.split import split
from pipelines.cli.train import latents, train
from pipelines.cli.typer_app import new_app
from pipelines.cli.validate import validate

app = new_app(
    "Data engine for interactive avatars: videos in, a Parquet manifest of scored, "
    "screened clips out; shards of them, and a trainer.",
    completion=True,
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="PIPELINE",
        help=f"One of: {', '.join(PIPELINES)}; or FILE.py:NAME.",
        autocompletion=pipelines,
    ),
]
Input = Annotated[
    str,
    typer.Option(
        "--input",
        help="A folder, a glob, a media file, or a .parquet/.csv/.tsv/.jsonl list with a `uri` column; "
        "local or any fsspec URL (s3://...). Or NAME:DIR, the folder of a data set; NAME is one of "
        f"{', '.join(SOURCES)} (docs/sources.md).",
    ),
]


Output = Annotated[
    Path,
    typer.Option(
        "--output",
        parser=folder,
        metavar="DIR",
        help="Folder of the run: manifest/, run.json, report.html; local or any fsspec URL.",
    ),
]
ProfileName = Annotated[
    str,
    typer.Option("--profile", help="A profile's name, or a YAML file.", autocompletion=profiles),
]
ScreenName = Annotated[
    str | None,
    typer.Option(
        "--screen",
        help="A screen's name, or a YAML file. Default: the pipeline's.",
        autocompletion=screens,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, such as quality.fps=4 or split=true; may be repeated."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N samples of the input.")]
Folder = Annotated[Path, typer.Argument(parser=folder, metavar="DIR", help="Folder of a run (its --output).")]


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        try:
            version = metadata.version("interavatar")
        except metadata.PackageNotFoundError:  # run from its source folder, as `ray job submit` does
            version = "of an unknown version: it is not installed as a package"
        typer.echo(f"interavatar {version}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Options of the program itself; the app has its help."""


def run(
    pipeline: Name,
    input: Input,
    output: Output,
    profile: ProfileName = "laptop",
    screen: ScreenName = None,
    overrides: Overrides = None,
    limit: Limit = None,
    engine: Annotated[Engine, typer.Option(help="ray, or inline: one process.")] = "ray",
    retry_errors: Annotated[
        str,
        typer.Option(
            "--retry-errors",
            metavar="WHICH",
            help="Compute samples again that ended in an error: all, or those of a kind (WorkerDied), of a "
            "stage, or with this text in the message.",
        ),
    ] = "",
) -> None:
    """Run a pipeline. The same command again goes on where a run stopped and computes only what is missing.

    synthetic_interactions makes two manifests: OUTPUT/portraits, then OUTPUT/clips.

    Exit status: 0 the run finished (samples with errors are counted and shown); 1 it could not finish, a
    fault of the machine or of a service left samples due, or most samples ended in errors; 2 wrong use.

    Example: interavatar run talking_head --input videos/ --output out/ --limit 20
    """
    from pipelines.cli.console import err, readable_errors

    with readable_errors(
        f"interrupted. What was committed in {output} is safe; run the same command again to go on."
    ):
        from pipelines.cli.outcome import print_outcome, shortcoming
        from pipelines.engine.pipeline import RunError
        from pipelines.engine.progress import Progress, listing, picturing
        from pipelines.engine.signals import sigterm_interrupts
        from pipelines.requests import Request, prepare
        from pipelines.review.report import STRIPS, is_current, write_report

        sigterm_interrupts()
        request = Request(
            pipeline, input, output, profile, screen, overrides or [], limit, engine, retry_errors
        )
        console = err()
        with listing(console) as told:
            runs = prepare(request, told)
        for each in runs:
            progress = Progress(console)
            record = each.execute(progress)
            if not is_current(each.folder):
                with picturing(console) as told:
                    write_report(each.folder, STRIPS, told)
            print_outcome(record, output if len(runs) == 1 else output / each.folder.name, each.pipeline)
            if why := shortcoming(record["counts"]):
                raise RunError(why)


def screen_command(
    folder: Folder,
    screen: Annotated[
        str | None,
        typer.Option(
            "--screen",
            help="A screen's name, or a YAML file. Default: the run's own.",
            autocompletion=screens,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which verdicts would change and why; write nothing.")
    ] = False,
) -> None:
    """Judge a finished run anew: a pure function of the stored scores and the reviews, decodes nothing.

    Without --screen the run's own screen is applied. What reviewers decided goes before its rules. The
    report is written again; the screen that was there before is kept as screens/NNNN.yaml. Killed on the
    way, all verdicts are the old ones or all the new ones; the next run or screen ends what was begun.
    """
    from pipelines.cli.console import err, out, readable_errors

    with readable_errors():
        from configs.errors import UserError
        from configs.reading import SettingsError
        from manifests import collected, reviews
        from manifests.screen import Screen, compare, load_screen
        from pipelines.cli.status import read_record
        from pipelines.engine.progress import picturing
        from pipelines.review.report import write_report
        from pipelines.review.screening import screen_again
        from pipelines.review.verdicts import difference_lines

        record = read_record(folder)
        judge = load_screen(screen) if screen else Screen.model_validate(record["screen"])
        try:
            if dry_run:
                known = reviews.decided(reviews.read(folder)), collected.read(folder)
                for line in difference_lines(judge.name, compare(folder / "manifest", judge, known)):
                    out().print(line)
                return
            counts, replaced = screen_again(folder, judge)
        except UserError:
            raise
        except ValueError as error:
            raise SettingsError(str(error)) from None
        out().print(
            f"screen {judge.name}: kept {counts['kept']} of {counts['rows']}, "
            f"{counts['changed']} verdicts changed"
            + (f", {counts['reviewed']} samples decided by reviews" if counts["reviewed"] else "")
        )
        if replaced is not None:
            out().print(f"the screen of before is kept: {replaced}")
        with picturing(err()) as told:
            write_report(folder, strips=0, told=told)


def status(
    folder: Folder,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look every few seconds until the run has ended, or until Ctrl-C.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Say how far a run is: what is done and left, how fast, with what, where it is slow, what went wrong.

    DIR is all that is read, so the run may be on another machine, and DIR in an object store. Rates and the
    use of CPUs and GPUs are what the run has told in the last seconds (DIR/progress.json).

    Exit status with --watch: 0 the run finished, or Ctrl-C; 1 it was killed, failed or was interrupted, or
    samples are still due.

    With --json: {"runs": [...]}, one entry for each run in DIR (synthetic_interactions has two), with
    folder, pipeline, run_id, state (running, finished, failed, interrupted or killed), message (why it
    failed), started and finished (UTC), rows (of the manifest), kept, dropped, errors, unmerged (rows
    committed and not merged yet), due (samples that a finished run left due), stages (for each stage
    computed, left, errors, reused and seconds), failures (stage, message, count and first, one file of them),
    longest_running (sample_id, stage and seconds of what is in work for longest, or null) and progress, null
    where the run finished or has told nothing: written (when, seconds since 1970), silent_s (seconds since
    then), program and doing (what it is at), due, done, kept, dropped, errors and reused (samples of this
    time), seconds, samples_per_s, left_s, decode_seconds, slowest (a stage, or decode), use (machines, cpus,
    cpu and gpu as shares from 0 to 1, gpus), faults and last_errors (at, stage, message and source_uri).

    Example: interavatar status s3://bucket/run --watch
    """
    from pipelines.cli.console import out, readable_errors

    if watch and json:
        raise typer.BadParameter("--watch shows, --json says it once: give one of them")
    with readable_errors():
        from pipelines.cli.status import Reader, print_json, print_text
        from pipelines.cli.watch import watch as watch_until_the_end

        if watch:
            if not watch_until_the_end(folder, out()):
                raise typer.Exit(1)
            return
        (print_json if json else print_text)(Reader().statuses(folder))


def report(
    folder: Folder,
    strips: Annotated[
        int,
        typer.Option(
            min=0, help="How many samples get pictures on the page, beside those that have them already."
        ),
    ] = 100,
) -> None:
    """Write report.html again: what was kept and why the rest fell, thresholds to move, a contact sheet.

    The page opens without a network. Pictures of clips lie beside it in report/: of 100 samples with a run,
    of more with --strips; media in an object store has none. Copy both to take the page along.

    Example: interavatar report out/ --strips 5000
    """
    from pipelines.cli.console import err, out, readable_errors

    with readable_errors("interrupted; pictures that were made stay, the report is the one of before"):
        from pipelines.cli.status import read_record
        from pipelines.engine.progress import picturing
        from pipelines.review.report import write_report

        read_record(folder)
        with picturing(err()) as told:
            path = write_report(folder, strips, told)
        out().print(f"report    {path}")


def plan(
    pipeline: Name,
    input: Input,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            parser=folder,
            metavar="DIR",
            help="A run's folder: what it has already is not counted again.",
        ),
    ] = None,
    profile: ProfileName = "laptop",
    overrides: Overrides = None,
    limit: Limit = None,
    like: Annotated[
        Path | None,
        typer.Option(
            "--like",
            parser=folder,
            metavar="DIR",
            help="A run's folder: its times count instead of those in --output.",
        ),
    ] = None,
    gpu: Annotated[
        Gpu, typer.Option("--gpu", help="Whose published times count where no run measured any.")
    ] = "H100",
) -> None:
    """Say what a run would do, before anything is spent: samples, stages, models, hours, bytes, requests.

    Times are those of earlier runs of the same profile in --output, or of the run in --like. For a cluster
    that is not there yet: --set cluster.cpus=64 --set cluster.gpus=8.
    """
    from pipelines.cli.console import out, readable_errors

    with readable_errors():
        from pipelines.estimate.cost import estimates
        from pipelines.estimate.text import print_estimates
        from pipelines.requests import Request

        request = Request(pipeline, input, output, profile, None, overrides or [], limit)
        print_estimates(estimates(request, like, gpu), out())


def doctor(
    profile: ProfileName = "laptop",
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", parser=folder, metavar="DIR", help="Folder of runs: try how fast it is written."
        ),
    ] = None,
) -> None:
    """Check that this machine can run a profile: driver, GPUs, memory, packages, weights, ffmpeg, Ray, disk.

    The last line is `will run`, or what to do first. With RAY_ADDRESS set, a machine of each kind that the
    cluster has is looked at too.

    Example: interavatar doctor --profile gpu --set models=/shared/models --output /shared/out
    """
    from pipelines.cli.console import err, out, readable_errors

    with readable_errors():
        from pipelines.doctor.examine import examine
        from pipelines.doctor.result import verdict
        from pipelines.requests import load_profile, settings_of

        chosen = load_profile(profile)
        results = examine(chosen, settings_of(chosen, overrides or ()), err().print, output)
        for result in results:
            mark, colour = ("--", "yellow") if result.note else ("ok", "green")
            mark, colour = (mark, colour) if result.ok else ("no", "red")
            out().print(mark, style=colour, end="  ")
            out().print(f"{result.what}: {result.said}")
        out().print(verdict(results))
        if not all(result.ok for result in results):
            raise typer.Exit(1)


COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Curation": {
        "run": run,
        "plan": plan,
        "screen": screen_command,
        "status": status,
        "report": report,
        "compare": compare,
        "review": review,
        "repair": repair,
        "validate": validate,
    },
    "Collections": {
        "duplicates": duplicates,
        "people": people,
        "split": split,
        "find": find,
        "card": card,
    },
    "Data for training": {"shards": shards, "latents": latents},
    "Other tools": {"export": export},
    "Consent and provenance": {"forget": forget, "ledger": ledger},
    "Training": {"train": train, "sample": sample, "live": live, "export-model": export_model},
    "The machine": {"doctor": doctor},
}
for heading, commands in COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=heading)(command)
app.add_typer(evaluate_app, name="evaluate", rich_help_panel="Measuring what was made")
app.add_typer(benchmark_app, name="benchmark", rich_help_panel="Measuring what was made")
app.add_typer(models_app, name="models", rich_help_panel="The machine")


def main() -> None:
    """The program."""
    app(prog_name="interavatar")
