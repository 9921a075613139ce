"""What finished runs into a folder say of the next one: how far samples come, how long stages take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests import storage
from pipelines.engine.program import Step


@dataclass(frozen=True)
class Earlier:
    """Runs of the same pipeline that are over, oldest first, and the folder they wrote into."""

    folder: Path | None = None
    records: Sequence[Mapping[str, Any]] = ()

    def last(self, step: Step) -> Mapping[str, Any] | None:
        """The last run that computed the stage with the same models; if there is one, with its settings."""
        models = [m.id for m in step.stage.models]
        config = step.stage.config.model_dump(mode="json")
        done = [r for r in reversed(self.records) if computed(r, step.name)]
        done = [r for r in done if r["stages"][step.name]["models"] == models]
        same = [r for r in done if r["stages"][step.name]["config"] == config]
        return next(iter([*same, *done]), None)

    def reach(self) -> dict[str, float]:
        """Share of the samples that come as far as each stage, 0-1, in the last run of any samples."""
        for record in reversed(self.records):
            rows = record["counts"]["ids_in"]
            if rows:
                return {
                    name: min(1.0, (figures["computed"] + figures["errors"] + figures["reused"]) / rows)
                    for name, figures in record["stages"].items()
                }
        return {}

    def decoded(self, names: Sequence[str]) -> tuple[Mapping[str, Any], float] | None:
        """The run that decoded for most of the named stages, and its seconds for one sample."""
        best = None
        for record in self.records:
            counts = [n for name in names if (n := computed(record, name))]
            if record["decode_seconds"] and counts and (best is None or len(counts) >= best[0]):
                best = (len(counts), record, record["decode_seconds"] / max(counts))
        return None if best is None else (best[1], best[2])


def computed(record: Mapping[str, Any], stage: str) -> int:
    """Samples of a run on which a stage worked, with those it failed on."""
    figures = record["stages"].get(stage, {"computed": 0, "errors": 0})
    return int(figures["computed"] + figures["errors"])


def read_earlier(folder: Path, pipeline: str, device: str | None, profile: str | None) -> Earlier:
    """The finished runs of a pipeline into a folder, on the same device.

    Args:
        folder: of the runs.
        pipeline: its name.
        device: as the settings have it.
        profile: only runs of the profile of this name; None: of any.
    """
    records = []
    for file in storage.files(folder / "runs", ".json"):
        record = json.loads(file.read_text())
        fits = record["pipeline"] == pipeline and record["status"] == "finished"
        fits = fits and record["settings"].get("device") == device
        if fits and profile in (None, record["profile"]["name"]):
            records.append(record)
    return Earlier(folder, records)
