"""Running a pipeline from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from configs.reading import SettingsError
from interavatar.manifest import read_manifest
from interavatar.settings import overrides
from manifests.storage import folder_of
from pipelines.engine.progress import Progress
from pipelines.engine.run import Engine
from pipelines.requests import Request, prepare
from pipelines.review.report import is_current, write_report


def run(
    pipeline: str,
    *,
    input: str | Path,
    output: str | Path,
    profile: str = "laptop",
    screen: str | None = None,
    settings: Mapping[str, Any] | None = None,
    limit: int | None = None,
    engine: Engine = "inline",
    retry_errors: str = "",
    progress: bool = True,
) -> pd.DataFrame:
    """Run a pipeline, as `interavatar run` does, and read its manifest.

    The same call again goes on where a run stopped and computes only what is missing.

    Args:
        pipeline: a pipeline's name.
        input: a folder, a glob, a media file, or a .parquet/.csv/.tsv/.jsonl list with a `uri` column; local
            or any fsspec URL. Or `NAME:DIR`, the folder of a data set (docs/sources.md).
        output: folder of the run.
        profile: a profile's name, or a YAML file.
        screen: a screen's name, or a YAML file; None: the pipeline's.
        settings: as after `--set`, nested or dotted: `{"quality.fps": 4}`, `{"quality": {"fps": 4}}`.
        limit: only the first so many samples of the input.
        engine: inline, in this process; ray, on all CPUs of this machine or on the cluster of `RAY_ADDRESS`.
        retry_errors: compute samples again that ended in an error: `all`, or those of a kind, of a stage, or
            with this text in the message.
        progress: show it: a bar in a terminal, lines elsewhere.

    Returns:
        The manifest's rows of this input, as `read_manifest` gives them; of synthetic_interactions the clips.
        A sample that failed is a row with its `error`.

    Raises:
        SettingsError: a name, setting, profile or screen is wrong; said before anything runs.
        InputError: the input cannot be listed, or the folder holds another pipeline's run.
        RunError: the run could not start or finish; the same call again goes on.
    """
    if not isinstance(pipeline, str):
        raise SettingsError(
            "give the pipeline by its name; one of your own as 'FILE.py:NAME', so that workers find it, too"
        )
    request = Request(
        pipeline,
        str(input),
        folder_of(str(output)),
        profile,
        screen,
        overrides(settings or {}),
        limit,
        engine,
        retry_errors,
    )
    display = Progress(Console(stderr=True, highlight=False, quiet=not progress))
    for step in prepare(request):
        step.execute(display)
        if not is_current(step.folder):
            write_report(step.folder)
    listed = step.samples.ids.to_pylist()
    rows = read_manifest(step.folder)
    # A video that was cut is there as its clips.
    mine = rows["sample_id"].isin(listed) | rows["parent_id"].isin(listed)
    return rows[mine].reset_index(drop=True)
