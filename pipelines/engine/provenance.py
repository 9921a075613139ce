"""How the samples of a run were made, as its records say it: stages, models and their licences, prompts.

A row names its stages and their fingerprints. Of each that a run into the folder has had, its record
(run.json and those in `runs/`) says what it stands for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from manifests import storage
from manifests.screen import Screen
from pipelines.engine.pipeline import MEDIA
from pipelines.engine.record import parse_run

UNKNOWN: Final = "unknown"  # the licence of weights of which none is stated


def provenance_of(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """What the records of a run's folder say, as JSON has it.

    Args:
        folder: of the run.
        record: what its run.json holds.

    Returns:
        `pipeline`, `run_id`, `screen` and `screen_hash`. `versions`: of this program, by run id. `stages`: of
        each stage and fingerprint `version`, `models` (`id`, and as far as the record says it
        `role`, `implementation`, and `weights`: name and licence of each), `prompts` (file and hash) and
        `makes_media`.
    """
    screen = Screen.model_validate(record["screen"])
    stages: dict[str, dict[str, Any]] = {}
    versions: dict[str, str | None] = {}
    for run in (*_earlier(folder), record):
        versions[run["run_id"]] = run.get("versions", {}).get("interavatar")
        videos = run.get("videos") or {}
        for name, said in {**(videos.get("fingerprints") or {}), **run.get("fingerprints", {})}.items():
            stages.setdefault(name, {})[said["fingerprint"]] = {
                "version": said["version"],
                "models": [_model(id, run.get("models", ())) for id in said["models"]],
                "prompts": {f"{prompt}.md": hashed for prompt, hashed in said["prompts"].items()},
                "makes_media": MEDIA in said.get("writes", ()),
            }
    return {
        "pipeline": record["pipeline"],
        "run_id": record["run_id"],
        "screen": screen.name,
        "screen_hash": screen.hash,
        "versions": versions,
        "stages": stages,
    }


def _earlier(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The records of all runs into the folder that can be read, the oldest first."""
    for path in storage.files(folder / "runs", ".json"):
        try:
            yield parse_run(storage.read_bytes(path))
        except (ValueError, FileNotFoundError):
            continue


def _model(id: str, models: Collection[Mapping[str, Any]]) -> dict[str, Any]:
    """A model by its id; what a record of an earlier version does not say of it is not known."""
    known = next((model for model in models if model["id"] == id), None)
    if known is None:
        return {"id": id, "role": None, "implementation": None, "weights": {}}
    return {name: known[name] for name in ("id", "role", "implementation", "weights")}
