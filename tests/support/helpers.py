"""Running toy pipelines in tests."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from rich.console import Console

from manifests.schema import stage_dict
from manifests.screen import Rule, Screen
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.program import stage_columns
from pipelines.engine.progress import Progress
from pipelines.engine.run import Run
from pipelines.engine.settings import Profile, Settings
from pipelines.engine.source import list_input
from stages.contract import Stage
from tests.support.toys import Length, Other, Root, Square

SCREEN = Screen(
    name="toy", rules=[Rule(reason="too_long", column="length", max=12, source="a toy has no better reason")]
)


def toy_stages(log: Path | str = "", **square: Any) -> list[Stage]:
    """Length, Square, Root and Other, noting in `log` what they compute."""
    log = str(log)
    return [
        Length(config=Length.Config(log=log)),
        Square(config=Square.Config(log=log, **square)),
        Root(config=Root.Config(log=log)),
        Other(config=Other.Config(log=log)),
    ]


def make_files(folder: Path, count: int) -> Path:
    """`count` small files that are listed as videos."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"clip{i:04d}.mp4").write_bytes(b"x" * (i + 1))
    return folder


def make_run(
    stages: list[Stage],
    input: Path | str,
    output: Path,
    engine: Literal["ray", "inline"] = "inline",
    limit: int | None = None,
    retry_errors: str = "",
    screen: Screen = SCREEN,
    **settings: Any,
) -> Run:
    """A run of toy stages over an input."""
    pipeline = Pipeline("toy", stages, "toy", max_seconds=30)
    made = Settings(**{"rows_per_part": 4, **settings})
    owned = frozenset(stage_columns(stages))
    listing = list_input(str(input), owned=owned, sources=made.sources, limit=limit)
    profile = Profile(name="toy", roles={})
    return Run(pipeline, listing, output, profile, made, screen, engine, retry_errors, str(input))


def linked(folder: Path, files: list[Path]) -> Path:
    """A new folder with these files: hard links, or copies where they lie on another disk."""
    folder.mkdir(parents=True)
    for file in files:
        try:
            (folder / file.name).hardlink_to(file.resolve())
        except OSError:
            shutil.copy(file, folder)
    return folder


def pointing(folder: Path, files: list[Path]) -> Path:
    """A new folder with symbolic links, which a run follows by `sources.follow_links=true`."""
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).symlink_to(file)
    return folder


def quiet() -> Progress:
    """A display that nobody sees."""
    return Progress(Console(file=io.StringIO()))


def execute(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """`make_run` and run it without a word."""
    return make_run(*args, **kwargs).execute(quiet())


def manifest(output: Path) -> pd.DataFrame:
    """The manifest as a user reads it, sorted, with `stages` and `error` as dicts."""
    frame = pd.read_parquet(f"{output}/manifest").sort_values("sample_id").reset_index(drop=True)
    frame["stages"] = frame["stages"].map(stage_dict)
    return frame


def same_manifest(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Equal in everything but the run's id, tracebacks, and where arrays lie."""
    a, b = (_comparable(frame) for frame in (one, other))
    return a.equals(b)


def _comparable(frame: pd.DataFrame) -> pd.DataFrame:
    kept = frame.drop(columns=["run_id", "error"])
    stored = kept["arrays"].map(lambda places: [] if places is None else [p["stage"] for p in places])
    return kept.assign(arrays=stored).astype(str)
