"""A whole evaluation: the list of clips, the run over it, the numbers, the tables and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UsageError
from configs.reading import SettingsError, merged, parse, parse_overrides
from manifests.storage import is_remote
from metrics.catalogue import figures_of
from metrics.metric import NEEDED, Metric
from metrics.results import Results, write_results
from metrics.tables import write_tables
from pipelines.engine.pipeline import Engine
from pipelines.engine.progress import Progress
from pipelines.engine.run import Run
from pipelines.evaluate import EvaluateSettings, candidates
from pipelines.evaluation.inputs import Inputs, Methods, gather, write_inputs
from pipelines.evaluation.numbers import Told, measured
from pipelines.requests import Request, load_profile, prepare, resolve


@dataclass(frozen=True)
class Evaluation:
    """An evaluation that is ready to be executed.

    Attributes:
        run: measures the clips.
        inputs: all clips.
        figures: names of the numbers that were asked for.
        not_measured: number -> why these models do not give it.
        settings: of the pipeline.
    """

    run: Run
    inputs: Inputs
    figures: Sequence[str]
    not_measured: Mapping[str, str]
    settings: EvaluateSettings

    def execute(self, progress: Progress) -> dict[str, Any]:
        """Measure all clips; returns the run's record. The same call again computes only what is missing.

        Raises:
            RunError: as of `Run.execute`.
        """
        return self.run.execute(progress)

    def results(self, told: Told = lambda metric, done, draws: None) -> Results:
        """The numbers of the measured clips, written as `metrics.json` and as tables.

        Args:
            told: is told which metric is at work, and how many of how many draws are done.
        """
        found = measured(
            self.run.folder,
            self.run.samples.ids,
            self.run.pipeline.stages,
            self.figures,
            self.not_measured,
            self.inputs.notes,
            self.settings.draws,
            self.settings.seed,
            self.run.profile.name,
            told,
        )
        write_results(found, self.run.folder)
        write_tables(found, self.run.folder)
        return found


def prepare_evaluation(
    methods: Methods,
    output: Path,
    metrics: Sequence[str],
    profile: str = "laptop",
    overrides: Sequence[str] = (),
    engine: Engine = "inline",
    retry_errors: str = "",
    limit: int | None = None,
    found: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Read what is to be measured and with what; nothing is computed yet.

    Args:
        methods: where the clips are.
        output: folder of the evaluation; `clips.parquet` is written there.
        metrics: sets, metrics and numbers.
        profile, overrides, engine, retry_errors: as of `pipelines.requests.Request`.
        limit: of each method, and of the real clips, the first so many by name.
        found: is told how many clips were found.

    Raises:
        SettingsError: a setting, a metric or the profile is wrong.
        InputError: the clips cannot be listed.
    """
    _check(output, methods, metrics)
    own = [f"metrics=[{','.join(metrics)}]", *overrides]
    settings = parse(EvaluateSettings, merged(load_profile(profile).settings, parse_overrides(own)), "--set")
    inputs = gather(methods, settings.sources, limit)
    schemes = sorted({*settings.sources.schemes, *inputs.schemes})
    if schemes:
        own.append(f"sources.schemes=[{','.join(schemes)}]")
    listed = write_inputs(inputs, output)
    request = Request("evaluate", str(listed), output, profile, None, own, None, engine, retry_errors)
    figures = figures_of(settings.metrics)
    not_measured = _not_measured(request, inputs, figures, metrics)
    (run,) = prepare(request, found)
    return Evaluation(run, inputs, figures, not_measured, settings)


def _check(output: Path, methods: Methods, metrics: Sequence[str]) -> None:
    """Refuse what cannot be, before anything is read.

    Raises:
        SettingsError: the output is a file, lies in a folder of clips, or there is no such metric.
    """
    if not metrics:
        raise SettingsError("no metric is named: give a set, such as interavatar, or names of metrics")
    try:
        figures_of(metrics)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if is_remote(output):
        return
    if output.is_file():
        raise SettingsError(
            f"{output} is a file: name a folder for the evaluation, which need not be there yet"
        )
    for place in filter(None, (*methods.places.values(), methods.reference)):
        if Path(place).is_dir() and output.resolve().is_relative_to(Path(place).resolve()):
            raise SettingsError(
                f"{output} lies in {place}: clips made beside the evaluation would be measured"
            )


def _not_measured(
    request: Request, inputs: Inputs, figures: Sequence[str], words: Sequence[str]
) -> dict[str, str]:
    """Numbers that the profile's models, or what is told of the clips, do not give -> why.

    Raises:
        UsageError: one was asked for by its own name, or none is left.
    """
    _, settings, roles, _ = resolve(request)
    assert isinstance(settings, EvaluateSettings)
    why: dict[str, str] = {}
    for stage in candidates(roles, settings):
        if isinstance(stage, Metric) and (reason := stage.cannot or _lacks(stage, inputs)) is not None:
            mine = [figure.name for figure in stage.figures if figure.name in figures]
            why |= dict.fromkeys(mine, reason)
            for word in words:
                if word in (*mine, stage.name):
                    raise UsageError(f"{word} cannot be measured: {reason}")
    if len(why) == len(figures):
        raise UsageError(f"nothing can be measured: {next(iter(why.values()))}")
    return why


def _lacks(metric: Metric, inputs: Inputs) -> str | None:
    """What no clip has of all that a metric requires; None: nothing."""
    lacking = [NEEDED[name] for name in metric.requires if not inputs.table[name].drop_null().length()]
    return f"each clip needs {' and '.join(lacking)}" if lacking else None
