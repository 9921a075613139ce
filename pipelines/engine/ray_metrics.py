"""A run's figures as Prometheus metrics, through the exporter that every node of Ray has.

Ray puts `ray_` before each name and `_total` behind a counter's; `deploy/grafana.json` reads them. The
process that the run was started from tells them: gauges as long as it lives, counters until its node ends.
Ray forgets a gauge that is not set again for two of its intervals (10 s each).
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

from pipelines.engine.figures import Summary
from pipelines.engine.live import Live

RUN = ("pipeline", "run_id")


class RayMetrics:
    """Tells the Ray of this process what is due in one pass, and what committed parts did.

    Args:
        pipeline: name of what is computed.
        run_id: of the run.
    """

    def __init__(self, pipeline: str, run_id: str) -> None:
        self.run = {"pipeline": pipeline, "run_id": run_id}
        self.samples_due = Gauge("interavatar_samples_due", "Samples to compute in this pass.", RUN)
        self.samples_left = Gauge("interavatar_samples_left", "Those that no committed part has yet.", RUN)
        self.samples = Counter(
            "interavatar_samples", "Samples in committed parts: kept, dropped or error.", (*RUN, "outcome")
        )
        self.faults = Counter(
            "interavatar_faults", "Samples left due by a fault of the machine or of a service.", RUN
        )
        of_stage = (*RUN, "stage")
        self.stage_due = Gauge(
            "interavatar_stage_samples_due", "Samples on which a stage is due in this pass.", of_stage
        )
        self.stage_left = Gauge(
            "interavatar_stage_samples_left", "Those that no committed part has settled yet.", of_stage
        )
        self.stage_places = Gauge(
            "interavatar_stage_places", "Samples that a stage's workers can have in hand.", of_stage
        )
        self.stage_samples = Counter(
            "interavatar_stage_samples",
            "Samples in committed parts that a stage was due on: computed, error, or skipped where the "
            "sample had ended, or was put off, before it.",
            (*of_stage, "outcome"),
        )
        self.stage_seconds = Counter(
            "interavatar_stage_seconds",
            "Seconds of work in a stage, over all workers; `decode` is the reading of files.",
            of_stage,
        )

    def tell(self, live: Live) -> None:
        """How far the run is at the moment."""
        self.samples_due.set(live.due, self.run)
        self.samples_left.set(live.due - live.done, self.run)
        for name, figures in live.stages.items():
            self.stage_due.set(figures.due, self._of(name))
            self.stage_left.set(figures.left, self._of(name))
            self.stage_places.set(figures.places, self._of(name))

    def add(self, part: Summary) -> Summary:
        """Count a part that was committed; gives it back."""
        outcomes = {
            "kept": part.kept,
            "error": part.errors,
            "dropped": part.rows - part.kept - part.errors,
        }
        for outcome, count in outcomes.items():
            _add(self.samples, count, self.run | {"outcome": outcome})
        _add(self.faults, part.faults.total(), self.run)
        for name, due in part.due.items():
            computed, failed = part.computed[name], part.failed[name]
            settled = {"computed": computed, "error": failed, "skipped": due - computed - failed}
            for outcome, count in settled.items():
                _add(self.stage_samples, count, self._of(name) | {"outcome": outcome})
        for name, seconds in part.seconds.items():
            _add(self.stage_seconds, seconds, self._of(name))
        return part

    def _of(self, stage: str) -> dict[str, str]:
        return self.run | {"stage": stage}


def _add(counter: Counter, value: float, tags: dict[str, str]) -> None:
    if value > 0:  # Ray refuses 0
        counter.inc(value, tags)
