"""The command line: run, screen, status, report, plan, doctor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import pyarrow as pa
import typer
from rich.console import Console
from rich.table import Table

from backends.vision_language_model import AnswerError
from manifests import store
from manifests.report import write_report
from manifests.schema import ERROR
from manifests.screen import Screen, rescreen
from manifests.text import clean_text
from pipelines import doctor as checks
from pipelines.catalogue import CLIPS, PIPELINES, PORTRAITS, Request, clips_before_choice, prepare
from pipelines.pipeline import RunError
from pipelines.plan import make_plan
from pipelines.preview import preview
from pipelines.progress import Progress, duration
from pipelines.record import is_locked, lock, read_run, write_run, write_screen
from pipelines.run import Engine, Run
from pipelines.settings import SettingsError, load_profile, load_screen
from pipelines.signals import sigterm_interrupts
from pipelines.source import InputError

OUTCOME = pa.schema([("keep", pa.bool_()), ("error", ERROR)])

app = typer.Typer(
    help="Data engine for interactive avatars: videos in, a Parquet manifest of scored, screened clips out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Name = Annotated[str, typer.Argument(metavar="PIPELINE", help=f"One of: {', '.join(PIPELINES)}.")]
Input = Annotated[
    str,
    typer.Option(
        "--input",
        help="A folder, a glob, a media file, or a .parquet/.csv/.jsonl list with a `uri` column; "
        "local or any fsspec URL (s3://...).",
    ),
]
Output = Annotated[
    Path, typer.Option("--output", help="Folder of the run: manifest/, run.json, report.html.")
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
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run (its --output).")]


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
        if Path(input).is_dir() and output.resolve().is_relative_to(Path(input).resolve()):
            raise SettingsError(
                f"--output {output} lies inside --input {input}: its clips would become input"
            )
        request = Request(
            pipeline, input, output, profile, screen, overrides or [], limit, engine, retry_errors
        )
        runs = prepare(request)
        while True:
            with err.status("listing the input") if err.is_terminal else nullcontext():
                this = next(runs, None)
            if this is None:
                break
            record = this.execute(Progress(err))
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
def screen_command(folder: Folder, screen: ScreenName = None) -> None:
    """Judge a finished run anew: a pure function of the stored scores, decodes nothing.

    Without --screen the run's own screen is applied. The report is written again.
    """
    with _readable_errors(folder):
        record = _read_record(folder)
        judge = load_screen(screen) if screen else Screen.model_validate(record["screen"])
        with lock(folder):
            try:
                counts = rescreen(folder / "manifest", judge)
            except ValueError as error:
                raise SettingsError(str(error)) from None
            record["screen"] = judge.model_dump(mode="json", exclude_none=True)
            record["counts"] = {
                **record.get("counts", {}),
                "kept": counts["kept"],
                "dropped": counts["dropped"],
            }
            write_run(folder, record)
            write_screen(folder, judge)
            write_report(folder, preview)
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
        waiting = sum(store.num_rows(part) for part in store.part_files(manifest))
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
        path = write_report(folder, preview)
    out.print(f"report    {path}", soft_wrap=True, markup=False)


@app.command()
def plan(
    pipeline: Name,
    input: Input,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="A run's folder: what it has already is not counted again."),
    ] = None,
    profile: ProfileName = "laptop",
    overrides: Overrides = None,
    limit: Limit = None,
) -> None:
    """Say what a run would do, before anything is spent: samples, stages, models, resources, time."""
    with _readable_errors():
        request = Request(pipeline, input, output, profile, None, overrides or [], limit)
        run_ = next(prepare(request))
        program = run_.program()
        then = clips_before_choice(request)
        output = run_.folder if output is not None else None
        todo, reused = len(run_.listing.rows), 0
        seconds: dict[str, float] = {}
        if output is not None and (output / "manifest").is_dir():
            schema = store.merged_schema(output / "manifest", program.schema)
            made = make_plan(run_.listing, program, output / "manifest", schema)
            # Parts of a killed run, which the next one merges first.
            parts = store.part_files(output / "manifest")
            waiting = {i for part in parts for i in store.sample_ids(part)} & set(made.todo_ids())
            todo, reused = made.todo.num_rows - len(waiting), made.reused + len(waiting)
            seconds = _seconds_per_sample(output)
    _print_plan(run_, todo, reused, seconds)
    if then is not None:
        asked = then.settings.model_dump()["clips"]
        made_before = output is not None and (then.folder / "manifest").is_dir()
        _print_plan(then, asked, 0, _seconds_per_sample(then.folder) if made_before else {})


def _print_plan(run_: Run, todo: int, reused: int, seconds: Mapping[str, float]) -> None:
    """A run's stages, and its time where earlier runs measured it."""
    program = run_.program()
    out.print(
        f"{program.name}, profile {run_.profile.name}: {todo} samples to compute, {reused} reused",
        markup=False,
    )
    view = Table("stage", "models", "resources", "s/sample")
    for step in program.steps:
        given = run_.resources_of(step)
        takes = f"{given.cpus:g} CPU" + (f", {given.gpus:g} GPU" if given.gpus else "")
        models = ", ".join(m.id for m in step.stage.models) or "-"
        view.add_row(step.name, models, takes, f"{seconds[step.name]:.2f}" if step.name in seconds else "?")
    out.print(view)
    if seconds:
        total = sum(seconds.values())
        out.print(
            f"{total:.2f} CPU-seconds a sample (measured by earlier runs in {run_.folder}): "
            f"{duration(total * todo)} CPU time for {todo} samples"
        )
    else:
        out.print("no measured seconds yet: run a few samples (--limit 20) into --output, then plan again")


def _seconds_per_sample(folder: Path) -> dict[str, float]:
    """Mean seconds a sample of each stage over all earlier runs in the folder, and of decoding."""
    spent: dict[str, float] = {}
    count: dict[str, int] = {}
    for file in sorted((folder / "runs").glob("*.json")):
        record = json.loads(file.read_text())
        for name, figures in record.get("stages", {}).items():
            spent[name] = spent.get(name, 0.0) + figures["seconds"]
            count[name] = count.get(name, 0) + figures["computed"] + figures["errors"]
        spent["decode"] = spent.get("decode", 0.0) + record.get("decode_seconds", 0.0)
        count["decode"] = max(count.values(), default=0)
    return {name: spent[name] / count[name] for name in spent if count[name]}


@app.command()
def doctor(profile: ProfileName = "laptop") -> None:
    """Check that this machine can run a profile: packages, weights, ffmpeg, Ray, memory, disk."""
    with _readable_errors():
        results = checks.examine(load_profile(profile))
    for result in results:
        mark = "[green]ok [/]" if result.ok else "[red]no [/]"
        out.print(mark, end=" ")
        out.print(f"{result.what}: {result.said}", markup=False, soft_wrap=True)
    if not all(result.ok for result in results):
        raise typer.Exit(1)


def main() -> None:
    """Entry point of `interavatar` and `python -m pipelines`."""
    app(prog_name="interavatar")
