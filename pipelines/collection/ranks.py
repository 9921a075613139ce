"""The rank of each clip among the clips of its person that the screens keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import collected, reviews, store
from manifests.screen import Screen, compare
from pipelines.collection.faces import QUALITY, Faces
from pipelines.collection.runs import RUN, CollectedRun

RANK = "person_rank"


def with_ranks(runs: Sequence[CollectedRun], faces: Faces, found: pa.Table) -> pa.Table:
    """What was found, with `person_rank` in the place of `row`: 1 for the best clip of each person.

    A clip's score is the mean of its places in `QUALITY` among all kept clips of the collection, from 0 to 1;
    a column without a value counts as the last place. Of equal ones the first by sample_id and by the name of
    the run is the better one. Judged are the rows as they will be, by all rules but those on the rank itself;
    so a rule that drops by rank does not change the ranks when they are found again.

    Args:
        runs: of the collection.
        faces: of these runs.
        found: `sample_id`, `RUN`, `person_id`, `person_similarity`, and `row`, its number in the run's table.
    """
    run_of, row_of = found[RUN].to_numpy(), found["row"].to_numpy()
    keep = np.zeros(found.num_rows, bool)
    values = np.full((len(QUALITY), found.num_rows), np.nan)
    for number, (run, table) in enumerate(zip(runs, faces.tables, strict=True)):
        mine = np.flatnonzero(run_of == number)
        kept = _kept(run, found.take(pa.array(mine)).drop_columns([RUN, "row"]))
        keep[mine] = np.asarray(pc.is_in(found["sample_id"].take(pa.array(mine)), value_set=kept))
        for column, name in zip(values, QUALITY, strict=True):
            column[mine] = table[name].cast(pa.float64()).to_numpy()[row_of[mine]]
    score = np.zeros(found.num_rows)
    for column in values:
        there = keep & ~np.isnan(column)
        own = column[there]
        score[there] += np.searchsorted(np.sort(own), own, "right") / max(len(own), 1)
    persons = np.asarray(found["person_id"].combine_chunks().dictionary_encode().indices, np.int64)
    ids, names = found["sample_id"].to_pylist(), [run.name for run in runs]
    order = np.array(
        sorted(np.flatnonzero(keep), key=lambda i: (persons[i], -score[i], ids[i], names[run_of[i]])),
        np.int64,
    )
    begins = np.flatnonzero(np.diff(persons[order], prepend=-1))
    ranks = np.zeros(found.num_rows, np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order))) + 1
    return found.drop_columns(["row"]).append_column(RANK, pa.array(ranks, mask=~keep))


def _kept(run: CollectedRun, found: pa.Table) -> pa.Array:
    """Ids of the rows that a run's screen would keep with what is found, without its rules on the rank."""
    screen = Screen.model_validate(run.record["screen"])
    screen = screen.model_copy(update={"rules": [rule for rule in screen.rules if rule.column != RANK]})
    found = found.append_column(RANK, pa.nulls(found.num_rows, pa.int64()))
    known = collected.updated(collected.read(run.folder), found)
    change = compare(run.folder / "manifest", screen, (reviews.decided(reviews.read(run.folder)), known))
    rows = store.read(run.folder / "manifest", ["sample_id", "keep"])
    before = set(rows.filter(pc.fill_null(rows["keep"], False))["sample_id"].to_pylist())
    return pa.array(sorted((before - {*change.to_drop}) | {*change.to_keep}), pa.string())
