"""What a command says of a run that has ended."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.engine.pipeline import Pipeline


def print_outcome(record: dict[str, Any], output: Path, pipeline: Pipeline) -> None:
    """Say what became of a run's samples, and where they are."""
    from manifests.text import one_line
    from pipelines.cli.console import out
    from pipelines.engine.faults import fault_lines
    from pipelines.engine.progress import duration
    from pipelines.review.failures import failure_lines, failures

    counts = record["counts"]
    lines = [
        f"{record['pipeline']}: {counts['ids_in']} samples in, {counts['ids_out']} out: kept "
        f"{counts['kept']}, dropped {counts['dropped'] - counts['errors']}, errors {counts['errors']} "
        f"(computed {counts['computed']}, reused {counts['reused']}, {duration(record['seconds'])})"
    ]
    if pipeline.follows is not None and (shortfall := pipeline.follows.shortfall(counts["ids_in"])):
        lines.append(shortfall)
    if record["ignored_files"]:
        suffixes = ", ".join(
            f"{n} {one_line(suffix)}" for suffix, n in sorted(record["ignored_files"].items())
        )
        lines.append(f"not media, passed over: {suffixes}")
    if counts["errors"]:
        lines += ["errors, rows of the manifest as all others; --retry-errors all computes them again:"]
        lines += failure_lines(failures(output / "manifest"))
    if counts["due"]:
        lines += ["faults of the machine or of a service; the samples that met them are still due:"]
        lines += fault_lines(Counter(record["faults"]))
    lines += [f"manifest  {output / 'manifest'}", f"report    {output / 'report.html'}"]
    for line in lines:
        out().print(line)


def shortcoming(counts: dict[str, int]) -> str:
    """Why a finished run is no success; "" where it is one."""
    if counts["due"]:
        return (
            f"{counts['due']} samples are still due: mend what is said above, then run the same command again"
        )
    if 2 * counts["errors"] > counts["ids_in"]:
        return f"most samples ended in errors: {counts['errors']} of {counts['ids_in']}, as said above"
    return ""
