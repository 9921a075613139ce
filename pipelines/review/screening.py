"""A finished run judged anew, by a screen and by its reviewers: all that this changes changes in one step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests import collected, journal, reviews
from manifests.history import history_files
from manifests.screen import Screen, replaced_screen, rescreen, screen_files
from pipelines.engine.lock import lock
from pipelines.engine.record import read_run, run_files
from pipelines.engine.source import InputError


def screen_again(
    folder: Path, screen: Screen | None = None, found: pa.Table | None = None
) -> tuple[dict[str, Any], Path | None]:
    """Apply a screen and the reviews to the run in a folder.

    Its report is of before then: `write_report` writes it again.

    Args:
        folder: the run's.
        screen: the rules; None: the run's own.
        found: what was found of its samples beside those of their collection (`collected.updated`); None:
            what is known stays.

    Returns:
        The counts of `rescreen`, with `reviewed`, on how many samples reviewers decided; and where the
        screen of before is kept, None where it was the same.

    Raises:
        ValueError: as `rescreen`; nothing is written then.
        InputError: there is no run.
        RunError: another run holds the folder, or has taken it over meanwhile.
    """
    with lock(folder) as check_lock:
        journal.complete(folder / "manifest")
        record = read_run(folder)
        if record is None:
            raise InputError(f"{folder} is not the folder of a run (no run.json in it)")
        screen = screen or Screen.model_validate(record["screen"])
        screens = screen_files(screen, folder)
        log = reviews.read(folder)
        decided, known = reviews.decided(log), collected.read(folder)
        if found is not None:
            known = collected.updated(known, found)
            screens |= collected.files(folder, known)

        def also(counts: Mapping[str, Any], changed: pa.Table) -> dict[Path, bytes]:
            after = record | {"screen": screen.model_dump(mode="json", exclude_none=True)}
            after["reviews"] = log.num_rows
            if "counts" in record:  # a run that did not finish has none
                after["counts"] = record["counts"] | {n: counts[n] for n in ("kept", "dropped")}
            return run_files(folder, after) | screens | history_files(folder, screen.name, changed)

        counts = rescreen(folder / "manifest", screen, also, check_lock, (decided, known))
    return counts | {"reviewed": decided.num_rows}, replaced_screen(screens)
