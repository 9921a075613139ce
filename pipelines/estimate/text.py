"""What `plan` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from rich.console import Console
from rich.table import Table

from backends.video.image_to_video import Gpu
from pipelines.engine.pipeline import Resources
from pipelines.engine.progress import duration
from pipelines.estimate.cost import Asked, Estimate


def print_estimates(estimates: Sequence[Estimate], out: Console) -> None:
    """One block for each run, and all of them together."""
    for part in estimates:
        _print_estimate(part, out)
    if len(estimates) > 1:
        walls = [part.wall_seconds for part in estimates if part.wall_seconds is not None]
        out.print("both runs together:")
        _print_time(
            sum(part.cpu_seconds for part in estimates),
            sum(part.gpu_seconds for part in estimates),
            sum(walls) if len(walls) == len(estimates) else None,
            estimates,
            out,
        )


def _print_estimate(estimate: Estimate, out: Console) -> None:
    out.print(
        f"{estimate.pipeline}, profile {estimate.profile}: {estimate.todo} samples to compute, "
        f"{estimate.reused} reused",
        markup=False,
    )
    for reason in estimate.reasons:
        out.print(reason, markup=False, soft_wrap=True)
    view = Table("stage", "models", "resources", "samples", "s/sample", "measured by")
    for stage in [*estimate.stages, *([estimate.decode] if estimate.decode else [])]:
        given = stage.resources
        takes = f"{given.cpus:g} CPU" + (f", {given.gpus:g} GPU" if given.gpus else "")
        seconds = "?" if stage.seconds is None else f"{stage.seconds:.2f}"
        models, takes = ("", "") if stage is estimate.decode else (", ".join(stage.models) or "-", takes)
        view.add_row(stage.name, models, takes, f"{stage.samples:,.0f}", seconds, stage.source or "?")
    out.print(view)
    _print_time(estimate.cpu_seconds, estimate.gpu_seconds, estimate.wall_seconds, [estimate], out)
    _print_placement(estimate, out)
    for source in sorted(estimate.published):
        out.print(f"published: {source} (--gpu names another)", markup=False, soft_wrap=True)
    size = f"{_bytes(estimate.read_bytes)} of input" if estimate.read_bytes else "?"
    if estimate.read_bytes and estimate.unknown_sizes:
        size = f"at least {size}; the sizes of {estimate.unknown_sizes} samples are not known"
    written = "?" if estimate.written_bytes is None else f"about {_bytes(estimate.written_bytes)}"
    out.print(f"reads      {size}", markup=False)
    out.print(f"writes     {written}", markup=False)
    for asked in estimate.asked:
        _print_asked(asked, out)
    for note in estimate.notes:
        out.print(f"note: {note}", markup=False, soft_wrap=True)


def _print_time(cpu: float, gpu: float, wall: float | None, parts: Sequence[Estimate], out: Console) -> None:
    """Hours; nothing where nobody measured anything."""
    unknown = [name for part in parts for name in part.unknown]
    if not cpu and not gpu and unknown:
        out.print("no measured seconds yet: run a few samples (--limit 20) into --output, then plan again")
        return
    least = "at least " if unknown else ""
    todo = sum(part.todo for part in parts)
    each = f": {cpu / todo:.2f} CPU-seconds a sample" if todo and len(parts) == 1 else ""
    out.print(f"CPU time   {least}{_hours(cpu, 'CPU')}{each}", markup=False)
    if gpu:
        stages = [s for part in parts for s in part.stages if s.resources.gpus and s.seconds and s.samples]
        sources = {stage.source.removeprefix("published, ") for stage in stages}
        kind = next((name for name in get_args(Gpu) if sources == {name}), "GPU")
        out.print(f"GPU time   {least}{_hours(gpu, kind)}", markup=False)
    first = parts[0]
    there = f"{first.cpus:g} CPUs and {first.gpus:g} GPUs" + (" of this machine" if first.machine else "")
    if wall is None:
        out.print(
            "wall time  ?: the stages need a GPU, and there is none (--set cluster.gpus=N)", markup=False
        )
    else:
        out.print(f"wall time  at least {duration(wall)} on {there}, all busy", markup=False)
    if unknown:
        names = ", ".join(dict.fromkeys(unknown))
        out.print(f"lower bounds: nobody measured {names}", markup=False, soft_wrap=True)


def _print_placement(estimate: Estimate, out: Console) -> None:
    """Which workers there would be, how idle they are, and what all GPUs cost for that time."""
    for number, turn in enumerate(estimate.turns):
        name = "placement" if len(estimate.turns) == 1 else f"turn {number + 1}"
        for pool in turn.pools:
            share = "" if pool.busy is None else f", idle {1 - pool.busy:.0%}"
            takes = _takes(pool.resources)
            out.print(
                f"{name:10} {pool.size} x {takes} for {pool.name}{share}", markup=False, highlight=False
            )
            name = ""
    if estimate.placed_seconds is None:
        return
    took = f"about {duration(estimate.placed_seconds)} so placed"
    if estimate.gpus and any(pool.resources.gpus for turn in estimate.turns for pool in turn.pools):
        paid = estimate.placed_seconds * estimate.gpus
        idle = 1 - min(1.0, estimate.gpu_seconds / paid) if paid else 0.0
        took += f": {_hours(paid, 'GPU')}, of which {idle:.0%} idle"
        took += "" if estimate.gpus_usd is None else f", {estimate.gpus_usd:,.2f} US dollars"
    out.print(f"bill       {took}", markup=False)


def _takes(resources: Resources) -> str:
    gpu = f", {resources.gpus:g} GPU" if resources.gpus else ""
    return f"({resources.cpus:g} CPU{gpu})"


def _print_asked(asked: Asked, out: Console) -> None:
    text = f"about {asked.requests:,.0f} to {asked.model}"
    if asked.prompt_tokens is None or asked.completion_tokens is None:
        text += "; tokens and cost are not known before a first run"
    else:
        text += f", {asked.prompt_tokens:,.0f} prompt and {asked.completion_tokens:,.0f} answer tokens"
        priced = f"{asked.key}.input_price and {asked.key}.output_price are not set"
        text += f", {priced}" if asked.usd is None else f", {asked.usd:,.2f} US dollars"
    out.print(f"requests   {text}", markup=False, soft_wrap=True)


def _hours(seconds: float, kind: str) -> str:
    """Seconds as hours of a kind; three digits, but all of large ones."""
    hours = seconds / 3600
    if hours < 1:
        return f"{seconds:.3g} {kind}-seconds"
    return f"{hours:,.0f} {kind}-hours" if hours >= 100 else f"{hours:.3g} {kind}-hours"


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
