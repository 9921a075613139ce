"""`interavatar shards`: kept samples of finished runs to WebDataset shards for training."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Literal

import pyarrow as pa
import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from manifests.shards import INDEX
from manifests.storage import StorageError, folder_of, is_client_error, is_remote
from manifests.text import clean_text, without_secrets
from pipelines.engine.pipeline import RunError
from pipelines.engine.progress import PLAIN_EVERY_S
from pipelines.engine.signals import sigterm_interrupts
from pipelines.engine.source import InputError
from pipelines.shards.plan import RunOfSamples, make_plan, open_runs
from pipelines.shards.tasks import Engine
from pipelines.shards.trainer_lists import Trainer, export
from pipelines.shards.write import ShardDone, write_shards

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
MIN_SIZE, MAX_SIZE = 1_000_000, 10**12

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def parse_size(text: str) -> int:
    """Bytes of `1GB`, `500 MB`, `256MiB` or a number of bytes.

    Raises:
        InputError: it is none of these, or no sensible size of a shard.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", text.upper())
    if found is None or found[2] not in UNITS:
        raise InputError(f"--size {text}: write a size such as 1GB, 500MB or 256MiB")
    size = float(found[1]) * UNITS[found[2]]
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise InputError(f"--size {text}: a shard has {decimal(MIN_SIZE)} to {decimal(MAX_SIZE)}")
    return int(size)


def parse_weights(texts: Sequence[str]) -> dict[str, float]:
    """Weights by run name, of NAME=2.0.

    Raises:
        InputError: one is not written so, negative, or given twice.
    """
    weights: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not equals or not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"--weight {text}: write NAME=NUMBER, the number 0 or more")
        if name in weights:
            raise InputError(f"--weight: {name} is given twice")
        weights[name] = weight
    return weights


class _Shown:
    """Progress over shards: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.total = self.done = self.samples = 0
        self.last_line = time.monotonic()
        columns = (TextColumn("shards"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self.bar = Bar(*columns, console=err, transient=True) if err.is_terminal else None

    def start(self, total: int, finished: int) -> None:
        """Begin; `finished` of `total` shards are there already."""
        self.total, self.done = total, finished
        if finished:
            err.print(f"{finished} of {total} shards are finished already")
        if self.bar is not None and finished < total:
            self.bar.add_task("", total=total, completed=finished)
            self.bar.start()

    def update(self, shard: ShardDone) -> None:
        """One more."""
        self.done += 1
        self.samples += shard.samples
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.done, description=f"{self.samples} samples")
        elif time.monotonic() - self.last_line >= PLAIN_EVERY_S:
            self.last_line = time.monotonic()
            err.print(f"{self.done}/{self.total} shards, {self.samples} samples")

    def stop(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            with suppress(Exception):
                self.bar.stop()


@contextmanager
def _readable_errors(output: str) -> Iterator[None]:
    """Exit 2 for wrong use, 1 for what could not be finished, each with one clear message."""
    message, code = "", 0
    try:
        yield
    except (InputError, StorageError, FileNotFoundError) as error:
        message, code = f"error: {error}", 2
    except (RunError, ValueError, OSError, pa.ArrowException) as error:
        message, code = f"error: {error}", 1
    except Exception as error:
        if not is_client_error(error):
            raise
        message, code = f"error: {output}: {error}; run the same command again to go on", 1
    except KeyboardInterrupt:
        message, code = f"interrupted. Finished shards stay; run the same command again to go on: {output}", 1
    if code:
        err.print(clean_text(without_secrets(message)), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(code)


def shards(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Folders of finished runs (their --output), local or any fsspec URL. NAME=RUN gives a run "
            "another name in the mixing table than its folder's.",
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", metavar="DIR", help="Folder for the shards; local or any fsspec URL.")
    ],
    size: Annotated[str, typer.Option("--size", help="Size of a shard: 1GB, 500MB, 256MiB.")] = "1GB",
    weight: Annotated[
        list[str] | None,
        typer.Option(
            "--weight",
            metavar="NAME=NUMBER",
            help="How often a run's samples are drawn in training, against the others' 1; 0 leaves it out. "
            "May be repeated.",
        ),
    ] = None,
    allow_preview: Annotated[
        bool,
        typer.Option(
            "--allow-preview",
            help="Also take clips that only fell because a stand-in made them, marked as previews.",
        ),
    ] = False,
    trainers: Annotated[
        list[Trainer] | None,
        typer.Option("--for", help="Also write plain videos and the list that this trainer reads."),
    ] = None,
    format: Annotated[
        Literal["webdataset"], typer.Option(help="Of the shards; there is this one.")
    ] = "webdataset",
    engine: Annotated[Engine, typer.Option(help="ray, or inline: one process.")] = "ray",
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Write shards again in which samples failed.")
    ] = False,
) -> None:
    """Write the kept samples of finished runs as WebDataset shards, with an index and a mixing table.

    The same command again goes on where it stood. Of synthetic_interactions the clips are taken.

    Exit status: 0 finished (samples that failed are counted and shown), 1 could not finish, 2 wrong use.

    Example: interavatar shards out made touched=real/out --output shards --weight made=2
    """
    with _readable_errors(output):
        sigterm_interrupts()
        bytes_each, weights = parse_size(size), parse_weights(weight or ())
        folder = folder_of(output)
        folder = folder if is_remote(folder) else folder.absolute()  # workers may run elsewhere
        opened = open_runs(runs, weights, allow_preview)
        for run in opened:
            _say_run(run)
        shown = _Shown()
        try:
            summary = write_shards(
                make_plan(opened, bytes_each), folder, engine, retry_errors, shown.start, shown.update
            )
        finally:
            shown.stop()
        _print(summary, output)
        for trainer in dict.fromkeys(trainers or ()):
            if summary["samples"]:
                _line(f"{trainer:<9} {export(folder, trainer, engine)}")


def _line(text: str) -> None:
    out.print(clean_text(text), markup=False, soft_wrap=True)


def _say_run(run: RunOfSamples) -> None:
    left = [f"{run.left_out['dropped']} dropped"]
    if run.left_out["previews"]:
        left.append(f"{run.left_out['previews']} previews (--allow-preview takes them)")
    previews = f", {sum(run.preview)} of them previews" if any(run.preview) else ""
    _line(f"{run.name}: {run.table.num_rows} samples{previews}; left out: {', '.join(left)}")


def _print(summary: dict[str, Any], output: str) -> None:
    _line(f"shards: {summary['samples']} samples in {summary['shards']} shards, errors {summary['errors']}")
    if summary["errors"]:
        _line(f"errors are rows of {INDEX} (column `error`) and in no shard; --retry-errors tries them again")
    short = summary["buckets"].get("none", 0)
    if short:
        _line(f"{short} samples are in no bucket of the default configuration: too short to train on")
    _line(f"index     {output.rstrip('/')}/{INDEX}")
