"""Resume: seconds of rerunning a finished run of 10,000 synthetic rows, and of screening it again."""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from rich.console import Console

from manifests.screen import Rule, Screen, rescreen
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.progress import Progress
from pipelines.engine.run import Run
from pipelines.engine.settings import Profile, Settings
from pipelines.engine.source import list_input
from stages.clip import Clip
from stages.contract import Score, Stage


class Cheap(Stage):
    """A stage that costs nothing, with as many columns as a real pipeline."""

    writes: ClassVar = {f"score_{i}": Score("", "Benchmark.") for i in range(80)}

    def score(self, clip: Clip) -> dict[str, Any]:
        """Seeded numbers."""
        rng = clip.rng()
        return {name: float(rng.random()) for name in self.writes}


def main() -> None:
    """Print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    arguments = parser.parse_args()
    rules = [Rule(reason=f"low_{i}", column=f"score_{i}", min=0.05, source="a benchmark") for i in range(20)]
    screen = Screen(name="benchmark", rules=rules)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        uris = [f"memory://none/{i}.mp4" for i in range(arguments.rows)]
        pd.DataFrame({"uri": uris, "note": "x"}).to_parquet(work / "list.parquet")

        def run() -> float:
            started = time.perf_counter()
            listing = list_input(str(work / "list.parquet"))
            pipeline = Pipeline("benchmark", [Cheap()], "none", max_seconds=60)
            settings, profile = Settings(rows_per_part=100), Profile(name="benchmark", roles={})
            this = Run(pipeline, listing, work / "out", profile, settings, screen, "inline")
            record = this.execute(Progress(Console(file=io.StringIO())))
            assert record["counts"]["ids_out"] == arguments.rows
            print(f"  computed {record['counts']['computed']}, reused {record['counts']['reused']}")
            return time.perf_counter() - started

        print(f"first run of {arguments.rows} rows: {run():.1f} s")
        print(f"the same command again: {run():.1f} s")
        started = time.perf_counter()
        counts = rescreen(work / "out" / "manifest", screen)
        print(f"screening {counts['rows']} rows again: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
