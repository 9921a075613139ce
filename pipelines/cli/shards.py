"""`interavatar shards`: kept samples of finished runs to WebDataset shards for training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipelines.cli.names import Engine, Trainer

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.shards.plan import RunOfSamples
    from pipelines.shards.write import ShardDone

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
MIN_SIZE, MAX_SIZE = 1_000_000, 10**12


def parse_size(text: str) -> int:
    """Bytes of `1GB`, `500 MB`, `256MiB` or a number of bytes.

    Raises:
        InputError: it is none of these, or no sensible size of a shard.
    """
    import re

    from rich.filesize import decimal

    from pipelines.engine.source import InputError

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", text.upper())
    if match is None or match[2] not in UNITS:
        raise InputError(f"--size {text}: write a size such as 1GB, 500MB or 256MiB")
    size = float(match[1]) * UNITS[match[2]]
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise InputError(f"--size {text}: a shard has {decimal(MIN_SIZE)} to {decimal(MAX_SIZE)}")
    return int(size)


def parse_weights(texts: Sequence[str]) -> dict[str, float]:
    """Weights by run name, of NAME=2.0.

    Raises:
        InputError: one is not written so, negative, or given twice.
    """
    import math

    from pipelines.engine.source import InputError

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


class ShardProgress:
    """Progress over shards.

    Args:
        console: where to print.
    """

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

        from pipelines.engine.progress import Meter

        columns = (TextColumn("shards"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[line]}"))
        self.meter = Meter(console, *columns)
        self.total = self.done = self.samples = 0

    def start(self, total: int, finished: int) -> None:
        """Begin; `finished` of `total` shards are there already."""
        self.total, self.done = total, finished
        if finished:
            self.meter.say(f"{finished} of {total} shards are finished already")
        if finished < total:
            self.meter.start("shards", total, finished)

    def update(self, shard: ShardDone) -> None:
        """One more."""
        self.done += 1
        self.samples += shard.samples
        self.meter.update(self.done, f"{self.done}/{self.total} shards, {self.samples} samples")

    def stop(self) -> None:
        """Take the bar away."""
        self.meter.stop()


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
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="SIDE",
            help="Take one side of the split alone: train, validation or test. Refused where anything is on "
            "several sides.",
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
    from pipelines.cli.console import err, out, readable_errors

    with readable_errors(f"interrupted. Finished shards stay; run the same command again to go on: {output}"):
        from manifests.storage import folder_of, is_remote
        from pipelines.engine.signals import sigterm_interrupts
        from pipelines.shards import trainer_lists
        from pipelines.shards.plan import make_plan, open_runs
        from pipelines.shards.write import write_shards

        sigterm_interrupts()
        bytes_each, weights = parse_size(size), parse_weights(weight or ())
        folder = folder_of(output)
        folder = folder if is_remote(folder) else folder.absolute()  # workers may run elsewhere
        if split is not None:
            from pipelines.collection.leaks import refuse_leaks
            from pipelines.collection.runs import open_collection

            refuse_leaks(open_collection(runs), split)
        opened = open_runs(runs, weights, allow_preview, split)
        for run in opened:
            out().print(_left_out(run))
        progress = ShardProgress(err())
        try:
            plan = make_plan(opened, bytes_each, split)
            summary = write_shards(plan, folder, engine, retry_errors, progress.start, progress.update)
        finally:
            progress.stop()
        _print(summary, output)
        for trainer in dict.fromkeys(trainers or ()):
            if summary["samples"]:
                written = trainer_lists.export(folder, trainer_lists.Trainer(trainer), engine)
                out().print(f"{trainer:<9} {written}")


def _left_out(run: RunOfSamples) -> str:
    left = [f"{run.left_out['dropped']} dropped"]
    if run.left_out["previews"]:
        left.append(f"{run.left_out['previews']} previews (--allow-preview takes them)")
    previews = f", {run.preview.sum()} of them previews" if run.preview.any() else ""
    if run.left_out["of other sides"]:
        left.append(f"{run.left_out['of other sides']} of other sides")
    return f"{run.name}: {len(run.ids)} samples{previews}; left out: {', '.join(left)}"


def _print(summary: dict[str, Any], output: str) -> None:
    from manifests.shards import INDEX
    from pipelines.cli.console import out

    lines = [
        f"shards: {summary['samples']} samples in {summary['shards']} shards, errors {summary['errors']}"
    ]
    if summary["errors"]:
        lines.append(
            f"errors are rows of {INDEX} (column `error`) and in no shard; --retry-errors tries them again"
        )
    short = summary["buckets"].get("none", 0)
    if short:
        lines.append(f"{short} samples are in no bucket of the default configuration: too short to train on")
    lines.append(f"index     {output.rstrip('/')}/{INDEX}")
    for line in lines:
        out().print(line)
