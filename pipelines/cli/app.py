"""The command line: run, screen, status, report, plan, doctor, models; shards, train, latents, sample."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import pyarrow as pa
import typer
from rich.console import Console
from rich.table import Table

from backends.language.vision_language_model import AnswerError
from configs.reading import SettingsError
from manifests import store
from manifests.schema import ERROR
from manifests.screen import Screen, compare, load_screen, rescreen
from manifests.storage import StorageError, folder_of, is_client_error
from manifests.text import clean_text
from pipelines.catalogue import PIPELINES
from pipelines.cli import doctor as checks
from pipelines.cli.models import app as models_app
from pipelines.cli.sample import sample
from pipelines.cli.shards import shards
from pipelines.cli.train import latents, train
from pipelines.cli.typer_app import new_app
from pipelines.engine.lock import is_locked, lock
from pipelines.engine.pipeline import RunError
from pipelines.engine.progress import Progress, duration
from pipelines.engine.record import read_run, write_run, write_screen
from pipelines.engine.run import Engine
from pipelines.engine.signals import sigterm_interrupts
from pipelines.engine.source import InputError
from pipelines.estimate.cost import Gpu, estimates
from pipelines.estimate.text import print_estimates
from pipelines.requests import Request, load_profile, prepare, settings_of
from pipelines.review.report import write_report
from pipelines.review.verdicts import difference_lines
from pipelines.synthetic_interactions import CLIPS, PORTRAITS

OUTCOME = pa.schema([("keep", pa.bool_()), ("error", ERROR)])

app = new_app(
    "Data engine for interactive avatars: videos in, a Parquet manifest of scored, "
    "screened clips out; shards of them, and a trainer."
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Name = Annotated[
    str, typer.Argument(metavar="PIPELINE", help=f"One of: {', '.join(PIPELINES)}; or FILE.py:NAME.")
]
Input = Annotated[
    str,
    typer.Option(
        "--input",
        help="A folder, a glob, a media file, or a .parquet/.csv/.jsonl list with a `uri` column; "
        "local or any fsspec URL (s3://...).",
    ),
]


def _folder(text: str) -> Path:
    try:
        return folder_of(text)
    except StorageError as error:
        raise typer.BadParameter(str(error)) from None


Output = Annotated[
    Path,
    typer.Option(
        "--output",
        parser=_folder,
        metavar="DIR",
        help="Folder of the run: manifest/, run.json, report.html; local or any fsspec URL.",
    ),
]
ProfileName = Annotated[str, typer.Option("--profile", help="A profile's name, or a YAML file.")]
ScreenName = Annotated[
    str | None, typer.Option("--screen", help="A screen's name, or a YAML file. Default: the pipeline's.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, such as quality.fps=4 or split=true; may be repeated."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N samples of the input.")]
Folder = Annotated[
    Path, typer.Argument(parser=_folder, metavar="DIR", help="Folder of a run (its --output).")
]


def _stop(message: str, code: int) -> NoReturn:
    err.print(message, style="red" if code else None, markup=False, soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def _readable_errors(output: Path | None = None) -> Iterator[None]:
    """Exit 2 for wrong use, 1 for a run that could not finish, each with one clear message."""
    try:
        yield
    except (InputError, SettingsError) as error:
        _stop(f"error: {error}", 2)
    except FileNotFoundError as error:
        _stop(f"error: {error}", 2)
    except (RunError, AnswerError, ValueError, OSError, pa.ArrowException) as error:
        _stop(f"error: {error}", 1)
    except Exception as error:
        if not is_client_error(error):
            raise
        _stop(f"error: {output}: {error}; run the same command again to go on", 1)
    except KeyboardInterrupt:
        _stop(f"interrupted. What was committed in {output} is safe; run the same command again to go on.", 1)


@app.command()
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
        bool, typer.Option("--retry-errors", help="Compute samples again that ended in an error.")
    ] = False,
) -> None:
    """Run a pipeline. The same command again goes on where a run stopped and computes only what is missing.

    synthetic_interactions makes two manifests: OUTPUT/portraits, then OUTPUT/clips.

    Exit status: 0 the run finished (samples with errors are counted and shown), 1 it could not finish,
    2 wrong use.

    Example: interavatar run talking_head --input videos/ --output out/ --limit 20
    """
    with _readable_errors(output):
        sigterm_interrupts()
        request = Request(
            pipeline, input, output, profile, screen, overrides or [], limit, engine, retry_errors
        )
        runs = prepare(request)
        while True:
            with err.status("listing the input") if err.is_terminal else nullcontext():
                this = next(runs, None)
            if this is None:
                break
            progress = Progress(err)
            record = this.execute(progress)
            progress.say("writing the report")
            write_report(this.folder)
            shown = output / this.folder.name if this.folder != output.absolute() else output
            _print_outcome(record, shown)


def _print_outcome(record: dict[str, Any], output: Path) -> None:
    counts = record["counts"]
    out.print(
        f"{record['pipeline']}: {counts['ids_in']} samples in, {counts['ids_out']} out: kept "
        f"{counts['kept']}, dropped {counts['dropped'] - counts['errors']}, errors {counts['errors']} "
        f"(computed {counts['computed']}, reused {counts['reused']}, {duration(record['seconds'])})",
        soft_wrap=True,
    )
    if not counts["ids_in"]:
        out.print("no kept portrait has a visible region with a reaction, so no clip could be made")
    elif record["pipeline"] == "synthetic_interactions" and counts["ids_in"] < record["settings"]["clips"]:
        out.print(
            f"{record['settings']['clips']} clips were asked for; the kept portraits give no more than "
            f"{counts['ids_in']}"
        )
    if record["ignored_files"]:
        said = ", ".join(f"{n} {suffix}" for suffix, n in sorted(record["ignored_files"].items()))
        out.print(f"not media, passed over: {clean_text(said)}", soft_wrap=True, markup=False)
    if counts["errors"]:
        out.print("errors are rows of the manifest (column `error`); --retry-errors computes them again")
    out.print(f"manifest  {output / 'manifest'}", soft_wrap=True, markup=False)
    out.print(f"report    {output / 'report.html'}", soft_wrap=True, markup=False)


def _read_record(folder: Path) -> dict[str, Any]:
    record = read_run(folder)
    if record is None:
        inside = " and ".join(str(f) for f in _steps_in(folder))
        hint = f"it holds the runs {inside}; name one of them" if inside else "no run.json in it"
        raise InputError(f"{folder} is not the folder of a run ({hint})")
    return record


def _steps_in(folder: Path) -> list[Path]:
    """The runs that synthetic_interactions put below its output, as far as they have begun."""
    return [folder / name for name in (PORTRAITS, CLIPS) if (folder / name / "run.json").is_file()]


@app.command("screen")
def screen_command(
    folder: Folder,
    screen: ScreenName = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which verdicts would change and why; write nothing.")
    ] = False,
) -> None:
    """Judge a finished run anew: a pure function of the stored scores, decodes nothing.

    Without --screen the run's own screen is applied. The report is written again; the screen that was
    there before is kept as screens/NNNN.yaml.
    """
    with _readable_errors(folder):
        record = _read_record(folder)
        judge = load_screen(screen) if screen else Screen.model_validate(record["screen"])
        if dry_run:
            try:
                for line in difference_lines(judge.name, compare(folder / "manifest", judge)):
                    out.print(line, soft_wrap=True, markup=False)
            except ValueError as error:
                raise SettingsError(str(error)) from None
            return
        with lock(folder):
            try:
                counts = rescreen(folder / "manifest", judge)
            except ValueError as error:
                raise SettingsError(str(error)) from None
            record["screen"] = judge.model_dump(mode="json", exclude_none=True)
            if "counts" in record:  # a run that did not finish has none
                record["counts"] |= {"kept": counts["kept"], "dropped": counts["dropped"]}
            write_run(folder, record)
            write_screen(folder, judge)
            write_report(folder)
    out.print(
        f"screen {judge.name}: kept {counts['kept']} of {counts['rows']}, "
        f"{counts['changed']} verdicts changed"
    )


@app.command()
def status(folder: Folder) -> None:
    """Say how far a run is: what is merged, what is committed and waiting, verdicts and errors."""
    steps = [] if (folder / "run.json").exists() else _steps_in(folder)
    for step in steps or [folder]:
        _print_status(step)


def _print_status(folder: Path) -> None:
    with _readable_errors(folder):
        record = _read_record(folder)
        manifest = folder / "manifest"
        started = bool(store.manifest_files(manifest))  # not while videos are still being cut
        table = store.read(manifest, ["keep", "error"]) if started else OUTCOME.empty_table()
        waiting = store.waiting_rows(manifest)
    running = is_locked(folder)
    state = "running" if running else record["status"]
    if state == "running" and not running:
        state = "killed; run the same command again to go on"
    errors = table.num_rows - table["error"].null_count
    kept = sum(bool(k) for k in table["keep"].to_pylist())
    out.print(f"{record['pipeline']}, run {record['run_id']}: {state}", markup=False)
    out.print(
        f"in the manifest: {table.num_rows} (kept {kept}, dropped {table.num_rows - kept - errors}, "
        f"errors {errors}); committed and not merged yet: {waiting}"
    )
    stages = record.get("stages")
    if stages:
        view = Table("stage", "computed", "reused", "errors", "seconds")
        for name, figures in stages.items():
            view.add_row(name, *(str(figures[k]) for k in ("computed", "reused", "errors", "seconds")))
        out.print(view)


@app.command()
def report(folder: Folder) -> None:
    """Write report.html again: funnel, reasons, one row a clip with a preview."""
    with _readable_errors(folder):
        _read_record(folder)
        path = write_report(folder)
    out.print(f"report    {path}", soft_wrap=True, markup=False)


@app.command()
def plan(
    pipeline: Name,
    input: Input,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            parser=_folder,
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
            parser=_folder,
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
    with _readable_errors():
        request = Request(pipeline, input, output, profile, None, overrides or [], limit)
        made = estimates(request, like, gpu)
    print_estimates(made, out)


@app.command()
def doctor(profile: ProfileName = "laptop", overrides: Overrides = None) -> None:
    """Check that this machine can run a profile: packages, weights, GPUs, ffmpeg, Ray, memory, disk.

    Example: interavatar doctor --profile gpu --set models=/shared/models
    """
    with _readable_errors():
        chosen = load_profile(profile)
        results = checks.examine(chosen, settings_of(chosen, overrides or ()), err.print)
    for result in results:
        mark = "[red]no [/]" if not result.ok else "[yellow]-- [/]" if result.note else "[green]ok [/]"
        out.print(mark, end=" ")
        out.print(f"{result.what}: {result.said}", markup=False, soft_wrap=True)
    if not all(result.ok for result in results):
        raise typer.Exit(1)


app.add_typer(models_app, name="models")
for command in (shards, train, latents, sample):
    app.command()(command)


def main() -> None:
    """The program."""
    app(prog_name="interavatar")
