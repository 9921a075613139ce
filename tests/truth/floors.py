"""Floors that a run over the samples is held to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from manifests.screen import Screen
from pipelines.validate.labels import read_labels
from pipelines.validate.measures import Measure, below, read_floors
from pipelines.validate.validate import validate, wrong_first

FOLDER = Path(__file__).parent


def holds_floors(run: Path, labels: Sequence[str], floors: str, media: Path) -> list[Measure]:
    """Fails with a line for each floor that the run does not hold; gives what was measured."""
    known = [label for name in labels for label in read_labels(FOLDER / "labels" / f"{name}.csv")]
    screen = Screen.model_validate(json.loads((run / "run.json").read_text())["screen"])
    found = validate(run, screen, known, str(media))
    lines = below(found.measures, read_floors(str(FOLDER / "floors" / f"{floors}.yaml")))
    wrong = [f"{x.label.media} {x.label.claim} {x.label.value}: {x.said}" for x in wrong_first(found.judged)]
    assert not lines, "\n".join([*lines, *wrong])
    return found.measures
