"""What a run did: counts of samples, errors, seconds."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests import store
from manifests.journal import run_of
from pipelines.engine.pipeline import RunError
from pipelines.engine.plan import Tally
from pipelines.engine.program import Program

# Errors that are told while a run goes on, and characters of a message.
LAST_ERRORS, LONGEST = 5, 300


@dataclass
class Summary:
    """What one committed part did; small, because it travels to the driver.

    Attributes:
        rows, kept, errors, stopped: how many are at their end, and how they ended.
        passed_on: rows that a later turn goes on with, or that a turn before has put off and counted.
        due: stage -> rows on which it was due.
        computed, failed: stage -> rows of which it was computed, and in which it ended in an error.
        faults: of the machine or of a service: what was said -> rows that are still due.
        last_errors: stage, message (cut) and source_uri of the last rows that ended in an error.
        seconds: stage, or "decode" -> seconds of work.
    """

    rows: int = 0
    kept: int = 0
    errors: int = 0
    stopped: int = 0
    passed_on: int = 0
    due: Counter[str] = field(default_factory=Counter)
    computed: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    last_errors: list[dict[str, str]] = field(default_factory=list)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, other: Summary) -> None:
        """Add another part's figures."""
        self.rows += other.rows
        self.kept += other.kept
        self.errors += other.errors
        self.stopped += other.stopped
        self.passed_on += other.passed_on
        self.due.update(other.due)
        self.computed.update(other.computed)
        self.failed.update(other.failed)
        self.faults.update(other.faults)
        self.last_errors = (self.last_errors + other.last_errors)[-LAST_ERRORS:]
        for name, seconds in other.seconds.items():
            self.seconds[name] += seconds

    def fail(self, row: Mapping[str, Any]) -> None:
        """Count a row that has ended in its `error` just now."""
        error = row["error"]
        self.failed[error["stage"]] += 1
        message = error["message"]
        cut = message if len(message) <= LONGEST else f"{message[:LONGEST]}..."
        told = {"stage": error["stage"], "message": cut, "source_uri": row["source_uri"]}
        self.last_errors = [*self.last_errors, told][-LAST_ERRORS:]

    def to_json(self) -> str:
        """As one line of text."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> Summary:
        """From that line."""
        values = json.loads(text)
        values |= {name: Counter(values[name]) for name in ("due", "computed", "failed", "faults")}
        values["seconds"] = defaultdict(float, values["seconds"])
        return cls(**values)


def both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The figures of two passes of one run: work is added, outcomes and reuse are the last and the first."""
    added = {name: first[name] + second[name] for name in ("seconds", "decode_seconds")}
    counts = second["counts"] | {"reused": first["counts"]["reused"]}
    counts["computed"] = first["counts"]["computed"] + second["counts"]["computed"]
    stages = {}
    for name, figures in second["stages"].items():
        before = first["stages"][name]
        work = {key: round(before[key] + figures[key], 3) for key in ("computed", "errors", "seconds")}
        stages[name] = figures | work | {"reused": before["reused"]}
    return second | added | {"counts": counts, "stages": stages}


def counts_of(listed: pa.ChunkedArray, manifest: Path) -> dict[str, int]:
    """Ids in against ids out, and the outcome of the input's samples.

    Args:
        listed: ids of the input's samples.
        manifest: the manifest's folder, merged.

    Raises:
        RunError: a sample is missing or doubled.
    """
    columns = ["sample_id", "keep", "stopped.stage", "error.stage"]
    table = pa.concat_tables([store.read_file(file, columns) for file in store.manifest_files(manifest)])
    ids = table["sample_id"]
    missing = listed.filter(pc.invert(pc.is_in(listed, value_set=ids)))
    doubled = sum(len(column) - pc.count_distinct(column).as_py() for column in (ids, listed))
    if len(missing) or doubled:
        raise RunError(
            f"audit failed: of {len(listed)} samples {len(missing)} are missing from the manifest and "
            f"{doubled} are doubled (first: {sorted(missing.to_pylist())[:3]}); run the same command again, "
            f"and if that changes nothing `interavatar repair {run_of(manifest)}`"
        )
    mine = table.filter(pc.is_in(ids, value_set=listed))
    kept = pc.sum(mine["keep"], min_count=0).as_py()
    return {
        "ids_in": len(listed),
        "ids_out": mine.num_rows,
        "kept": kept,
        "dropped": mine.num_rows - kept,
        "errors": mine.num_rows - mine["error"].null_count,
        "stopped": mine.num_rows - mine["stopped"].null_count,
    }


def stage_figures(program: Program, planned: Tally, total: Summary) -> dict[str, Any]:
    """Samples computed, reused and in error, and seconds, for each stage; as run.json has them."""
    return {
        name: what
        | {
            "computed": total.computed[name],
            "errors": total.failed[name],
            "reused": planned.reused_stages[name],
            "seconds": round(total.seconds[name], 3),
        }
        for name, what in program.describe().items()
    }
