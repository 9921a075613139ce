"""What metrics of an evaluation cost beside their bare networks, and decoding beside bare decoding.

    python -m benchmarks.evaluation [--input DIR]

The first 4 s of each clip at 360p, each the partner of itself. A metric's bare network is the same calls of
its model, or of scikit-image, once more with the same pictures in memory. CPU time of one process, what is
compared in turn, the least of several rounds: other work on the machine then hardly shows in the ratios.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import skimage.metrics
from rich.console import Console
from rich.table import Table

from benchmarks.media import real_clips
from benchmarks.moved_clips import real
from benchmarks.throughput import decoding, duration
from media.decode import decode
from media.files import VIDEO_SUFFIXES
from metrics.catalogue import METRICS, SETS
from metrics.metric import REFERENCE, REFERENCE_IMAGE
from pipelines.engine.settings import Settings
from pipelines.evaluate import EvaluateSettings, candidates, evaluate, needed
from pipelines.requests import load_profile, profile_roles
from stages.clip import Clip
from stages.constant_rate import ConstantRate
from stages.contract import Array, Stage

ROUNDS = 3
LEAST_S = 1e-4  # a model's calls that take less are none
# Roles that metrics ask themselves; what other stages ask is not compared.
ASKED = (
    *("frame_features", "clip_features", "perceptual_distance", "aesthetic_scorer", "optical_flow"),
    *("subject_embedder", "text_image_embedder", "face_embedder", "person_mask", "lip_sync"),
)
OF_MODELS = ("features", "distances", "scores", "flow", "embed", "mask", "score")


class Calls:
    """What a stage has asked its models, to be asked again."""

    def __init__(self) -> None:
        self.made: list[Callable[[], object]] = []

    def noting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose calls are kept."""

        def noted(*values: Any, **named: Any) -> Any:
            self.made.append(lambda: call(*values, **named))
            return call(*values, **named)

        return noted

    def again(self) -> None:
        """Ask the same once more."""
        for call in self.made:
            call()


class Noted:
    """A model whose calls are kept."""

    def __init__(self, model: Any, calls: Calls) -> None:
        self._model, self._calls = model, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        return self._calls.noting(found) if name in OF_MODELS else found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, help="folder of clips with sound; default: the samples")
    parser.add_argument("--clips", type=int, default=6, help="at most so many of them, by name")
    options = parser.parse_args(arguments)
    files = real_clips()
    if options.input is not None:
        files = sorted(p for p in options.input.glob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        clips = real(files, Path(name), options.clips)
        show_decoding(console, clips)
        calls = Calls()
        with noting_scikit_image(calls):
            show_stages(console, clips, all_stages(calls), calls)
        console.print(f"{len(clips)} clips, {sum(map(duration, clips)):.0f} s of video")


def show_decoding(console: Console, clips: Sequence[Path]) -> None:
    """Print what decoding costs, bare and with all that the metrics of each set see."""
    models = profile_roles(load_profile("laptop"), Settings(), Path())
    view = Table("metrics", "decoding, one core", "ms of CPU a clip", "of bare")
    for name in SETS:
        stages = evaluate(models, EvaluateSettings(metrics=[name])).stages
        costs = decoding(clips, [request for stage in stages for request in stage.sees])
        for way, cost in costs.items():
            view.add_row(name, way, f"{1000 * cost / len(clips):.1f}", f"{cost / costs['bare']:.2f}")
    console.print(view)


def show_stages(console: Console, clips: Sequence[Path], stages: Sequence[Stage], calls: Calls) -> None:
    """Print what each stage costs, and what the models of metrics cost alone."""
    spent = [seconds(clip, stages, calls) for clip in clips]
    totals = {
        stage.name: tuple(sum(of[stage.name][i] for of in spent) / len(clips) for i in (0, 1))
        for stage in stages
    }
    view = Table("stage", "ms of CPU a clip", "its bare network", "of the bare one")
    of_metrics = {metric.name for metric in METRICS}
    for name, (whole, bare) in sorted(totals.items(), key=lambda item: -item[1][0]):
        is_known = name in of_metrics and bare > LEAST_S
        beside = (f"{1000 * bare:.1f}", f"{whole / bare:.2f}") if is_known else ("-", "-")
        view.add_row(name, f"{1000 * whole:.1f}", *beside)
    console.print(view)


@contextmanager
def noting_scikit_image(calls: Calls) -> Iterator[None]:
    """Keep the calls of its SSIM, too."""
    own = skimage.metrics.structural_similarity
    skimage.metrics.structural_similarity = calls.noting(own)
    try:
        yield
    finally:
        skimage.metrics.structural_similarity = own


def all_stages(calls: Calls) -> list[Stage]:
    """All metrics that the laptop measures, and what they read, with models whose calls are kept."""
    models = profile_roles(load_profile("laptop"), Settings(), Path())
    noted: Any = {role: Noted(getattr(models, role), calls) for role in ASKED}
    all_of_them = candidates(dataclasses.replace(models, **noted), EvaluateSettings())
    stages = needed(all_of_them, {metric.name for metric in METRICS})
    return [stage for stage in stages if not isinstance(stage, ConstantRate)]


def seconds(path: Path, stages: Sequence[Stage], calls: Calls) -> dict[str, tuple[float, float]]:
    """Of each stage what a clip takes, and what its models' calls take alone, s of CPU."""
    row: dict[str, Any] = dict.fromkeys(("prompt", "objects", "contact_spans"))
    boxes = [
        {"name": "thing", "t": t / 4, "box": [0.4 + t / 100, 0.7, 0.6 + t / 100, 0.9]} for t in range(16)
    ]
    row |= {"sample_id": path.stem, "source_uri": str(path), "object_boxes": json.dumps(boxes)}
    clip = Clip(row, decode(path, [r for stage in stages for r in stage.sees]), {}, seed=0, local_path=path)
    for column in (REFERENCE, REFERENCE_IMAGE):
        wanted = [b.request for stage in stages for b in stage.sees_beside if b.column == column]
        clip.beside[column] = decode(path, wanted)
    spent = {}
    for stage in stages:
        stage.setup()
        rounds = []
        for _ in range(ROUNDS):
            calls.made.clear()
            started = time.process_time()
            written = stage.score(clip)
            between = time.process_time()
            calls.again()
            rounds.append((between - started, time.process_time() - between))
        for name, value in written.items():
            (clip.arrays if isinstance(stage.writes[name], Array) else row)[name] = value
        spent[stage.name] = (min(whole for whole, _ in rounds), min(bare for _, bare in rounds))
    return spent


if __name__ == "__main__":
    main()
