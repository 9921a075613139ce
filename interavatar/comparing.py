"""Two runs side by side."""

from __future__ import annotations

from pathlib import Path

from manifests.storage import folder_of
from pipelines.compare.compare import SAMPLES, Comparison, compare_runs


def compare(a: str | Path, b: str | Path, *, samples: int = SAMPLES) -> Comparison:
    """What differs between two runs, as `interavatar compare` says it; samples are matched by sample_id.

    `verdicts.table`, `added` and `removed` are Arrow tables with a row for each sample (`.to_pandas()`);
    `scores`, `columns`, `errors` and `conditions` are lists of dataclasses: `pandas.DataFrame(found.scores)`.

    Args:
        a, b: each a run's `--output`; local or any fsspec URL.
        samples: of how many changed verdicts of each kind the scores are read (`verdicts.examples`).

    Raises:
        InputError: there is no run; of a pipeline of two steps the folder of one of them is to be named.
        DamagedError: a file of a run cannot be read.
    """
    return compare_runs(folder_of(str(a)), folder_of(str(b)), samples)
