"""Whether the numbers of an evaluation move as their definitions say, on real clips that were changed.

    python -m benchmarks.metric_moves --input DIR

DIR holds clips of people who speak; the first 4 s of each are taken. Versions of them are made, in which one
thing is changed, and measured beside them. Prints one table of Markdown: numbers by versions, and whether
each number moved as `EXPECTED` says, in how many of the clips. A metric that needs a model that the profile
has not is named.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.metric_expectations import EXPECTED, GROUPS, Expected, Group
from benchmarks.moved_clips import make, real
from manifests import store
from media.files import VIDEO_SUFFIXES
from metrics.catalogue import METRICS, figures_of
from metrics.metric import Metric
from metrics.tables import digits
from pipelines.engine.pipeline import Engine
from pipelines.engine.progress import Progress
from pipelines.engine.ray_session import ray_session
from pipelines.engine.settings import Settings
from pipelines.evaluate import EvaluateSettings, candidates
from pipelines.evaluation.inputs import Methods
from pipelines.evaluation.runs import prepare_evaluation
from pipelines.requests import load_profile, profile_roles


@dataclass
class Found:
    """What was measured.

    Attributes:
        titles: number -> its title, which names the network.
        values: number -> version -> value over all clips.
        clips: number -> version -> clip -> value, of numbers that are means over clips.
        not_measured: number -> why.
    """

    titles: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    clips: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, required=True, help="folder of clips of people who speak")
    parser.add_argument("--clips", type=int, default=10, help="at most so many of them, by name")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--engine", choices=("ray", "inline"), default="ray")
    parser.add_argument("--metrics", nargs="+", help="only these, as `interavatar evaluate` names them")
    options = parser.parse_args(arguments)
    files = sorted(p for p in options.input.glob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    found = Found(not_measured=cannot(options.profile))
    asked = figures_of(options.metrics or [metric.name for metric in METRICS])
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as name,
        ray_session() if options.engine == "ray" else nullcontext(),
    ):
        work = Path(name)
        clips = real(files, work / "real", options.clips)
        if not clips:
            sys.exit(f"no clip with sound in {options.input}")
        for group in GROUPS:
            words = [word for word in group.numbers if word in asked and word not in found.not_measured]
            if words:
                measure(group, words, clips, work, options.profile, options.engine, found)
                print(f"{group.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    found.not_measured = {number: why for number, why in found.not_measured.items() if number in asked}
    measured = {*asked, *found.values}
    moved = [judged(expected, found) for expected in EXPECTED if expected.number in measured]
    print(table(found, moved, len(clips), options.profile))


def cannot(profile: str) -> dict[str, str]:
    """Numbers that a profile's models do not give -> why."""
    models = profile_roles(load_profile(profile), Settings(), Path())
    stages = [stage for stage in candidates(models, EvaluateSettings()) if isinstance(stage, Metric)]
    return {number.name: stage.cannot for stage in stages if stage.cannot for number in stage.figures}


def measure(
    group: Group,
    words: Sequence[str],
    clips: Sequence[Path],
    work: Path,
    profile: str,
    engine: Engine,
    found: Found,
) -> None:
    """Make the versions of a group, measure them, and add to what was found."""
    places = {version: str(make(version, clips, work)) for version in group.versions}
    methods = Methods(places, str(work / "real") if group.has_real else None)
    output = work / f"evaluation_{group.name}"
    evaluation = prepare_evaluation(methods, output, words, profile, ["draws=0", *group.settings], engine)
    evaluation.execute(Progress(Console(file=io.StringIO())))
    results = evaluation.results()
    rows = store.read(output / "manifest").to_pylist()
    plain = {
        full.name: short.name
        for stage in evaluation.run.pipeline.stages
        if isinstance(stage, Metric)
        for full, short in zip(stage.numbers, stage.figures, strict=True)
    }
    found.not_measured |= {plain.get(name, name): why for name, why in results.not_measured.items()}
    for figure in results.figures:
        number = plain[figure.name]
        known = {version: value.value for version, value in figure.values[""].items()}
        found.titles[number] = figure.title
        found.values.setdefault(number, {}).update({v: x for v, x in known.items() if x is not None})
        for row in rows:
            if row.get(figure.name) is not None:
                of_version = found.clips.setdefault(number, {}).setdefault(row["method"], {})
                of_version[row["pair"]] = float(row[figure.name])


@dataclass(frozen=True)
class Judged:
    """Whether a number moved as it must.

    Attributes:
        expected: how.
        as_expected: None: it was not measured on both versions.
        clips, of: in so many of so many clips; `of` 0: the number is one of whole sets.
    """

    expected: Expected
    as_expected: bool | None
    clips: int = 0
    of: int = 0

    def __str__(self) -> str:
        known = {True: "yes", False: "**no**", None: "not measured"}[self.as_expected]
        count = f", {self.clips} of {self.of} clips" if self.of else ""
        than = "" if self.expected.than == "copy" else f" beside {self.expected.than}"
        return f"{self.expected.moves} on {self.expected.version}{than}: {known}{count}"


def judged(expected: Expected, found: Found) -> Judged:
    """Compare the number on both versions, and on each clip where it has a value of its own."""
    values = found.values.get(expected.number, {})
    if expected.version not in values or expected.than not in values:
        return Judged(expected, None)
    of_clips = found.clips.get(expected.number, {})
    made, other = (of_clips.get(version, {}) for version in (expected.version, expected.than))
    both = [expected.holds(made[clip], other[clip]) for clip in made if clip in other]
    is_so = expected.holds(values[expected.version], values[expected.than])
    return Judged(expected, is_so, sum(both), len(both))


def table(found: Found, moved: Sequence[Judged], clips: int, profile: str) -> str:
    """Markdown: numbers by versions, what did not move as it must, and what was not measured."""
    versions = list(dict.fromkeys(v for group in GROUPS for v in group.versions))
    versions = [v for v in ("reference", *versions) if any(v in of for of in found.values.values())]
    lines = [
        f"{clips} clips, profile {profile}; a dash: not measured on this version.",
        "",
        f"| number | {' | '.join(versions)} | must move |",
        f"| --- |{' ---: |' * len(versions)} --- |",
    ]
    for number, of in found.values.items():
        cells = [digits(of[version]) if version in of else "-" for version in versions]
        said = "<br>".join(str(each) for each in moved if each.expected.number == number)
        lines.append(f"| {found.titles[number]} | {' | '.join(cells)} | {said} |")
    wrong = [each for each in moved if each.as_expected is False]
    lines += ["", f"{sum(each.as_expected is True for each in moved)} moves as expected, {len(wrong)} not."]
    lines += [f"- {each.expected.number} {each}: {each.expected.why}" for each in wrong]
    lines += [f"- {number} is not measured: {why}" for number, why in _reasons(found).items()]
    return "\n".join(lines)


def _reasons(found: Found) -> Mapping[str, str]:
    return {number: why for number, why in found.not_measured.items() if number not in found.values}


if __name__ == "__main__":
    main()
