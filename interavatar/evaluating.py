"""Measuring made clips from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from interavatar.settings import overrides
from manifests.storage import folder_of
from pipelines.engine.progress import Progress, numbering
from pipelines.engine.run import Engine
from pipelines.evaluation.inputs import parse_methods
from pipelines.evaluation.runs import prepare_evaluation
from pipelines.review.report import write_report


def evaluate(
    methods: Mapping[str, str | Path] | str | Path,
    *,
    output: str | Path,
    reference: str | Path | None = None,
    metrics: str | Sequence[str] = "interavatar",
    profile: str = "laptop",
    settings: Mapping[str, Any] | None = None,
    limit: int | None = None,
    engine: Engine = "inline",
    retry_errors: str = "",
    progress: bool = True,
) -> pd.DataFrame:
    """Measure made clips beside real ones, as `interavatar evaluate` does.

    The same call again computes only what is missing.

    Args:
        methods: name -> folder of clips, list, or folder of a finished run; or one of these alone.
        output: folder of the evaluation; metrics.json, tables and report.html are written there.
        reference: likewise the real clips that they are compared with; None: there are none.
        metrics: interavatar, grounded or dyadic, or names of metrics (docs/metrics.md).
        profile: a profile's name, or a YAML file.
        settings: as after `--set`: `{"fid.frames": 32, "draws": 200}`.
        limit: only the first so many clips of each place, by name.
        engine: inline, in this process; ray, on all CPUs of this machine or on the cluster of `RAY_ADDRESS`.
        retry_errors: measure clips again that ended in an error, as of `run`.
        progress: show it, and what the numbers will lack.

    Returns:
        One row for each number of each method (and data set): method, dataset, number, title, unit, better,
        value, low, high, clips, note. A value is NaN where it could not be measured, and `note` says why;
        low and high are the ends of its 95% interval.

    Raises:
        SettingsError: a metric, a setting or the profile is wrong; said before anything is measured.
        InputError: the clips cannot be listed.
        RunError: the run could not start or finish; the same call again goes on.
    """
    folder = folder_of(str(output))
    several = methods if isinstance(methods, Mapping) else {}
    places = parse_methods(
        None if isinstance(methods, Mapping) else str(methods),
        [f"{name}={place}" for name, place in several.items()],
        None if reference is None else str(reference),
    )
    words = [metrics] if isinstance(metrics, str) else list(metrics)
    evaluation = prepare_evaluation(
        places, folder, words, profile, overrides(settings or {}), engine, retry_errors, limit
    )
    console = Console(stderr=True, highlight=False, markup=False, quiet=not progress)
    display = Progress(console)
    for name, notes in evaluation.inputs.notes.items():
        for note in notes:
            display.say(f"{name}: {note}")
    evaluation.execute(display)
    with numbering(console) as told:
        results = evaluation.results(told)
    write_report(folder)
    rows = [
        {
            **{"method": method, "dataset": dataset, "number": figure.name, "title": figure.title},
            **{"unit": figure.unit, "better": figure.better, "value": value.value},
            **{"low": value.low, "high": value.high, "clips": value.clips, "note": value.note},
        }
        for figure in results.figures
        for dataset, of in figure.values.items()
        for method, value in of.items()
    ]
    frame = pd.DataFrame(rows)
    return frame.astype(dict.fromkeys(("value", "low", "high"), "float64")) if rows else frame
