"""The faces of a collection: for each clip that shows one person its embedding and what is known of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import collected, store
from pipelines.collection.embeddings import read_vectors
from pipelines.collection.linkage import Floats, unit
from pipelines.collection.runs import CollectedRun
from pipelines.engine.source import InputError

STAGE, EMBEDDER = "consistency", "face_embedder"
ARRAYS = ("face_embedding_mean", "face_embedding")  # the second where an earlier version has no first
# By what the clips of a person are ranked: larger is better.
QUALITY = ("face_height_px", "blur_face", "duration_s")
# Why a clip has no person.
SEVERAL, ENDED, NOT_COMPUTED, NO_FACE = (
    "several people at once",
    "stopped or in error",
    "no face embedding computed",
    "no face found",
)


@dataclass(frozen=True)
class Faces:
    """The clips of a collection that show one person's face, one entry a sample, in the order of the ids.

    ids: of the samples. vectors: unit vectors of the faces, float32 [N, D]; a sample that is in several runs
    has the mean of its embeddings. persons: whom each was found to show before. identities: data set and
    name of the person as that gives it, or None. rows: where each is: number of the run, row in its table.
    in_two: how many were found to show another person in one run than in another.
    tables: of each run light columns of all rows, by sample_id. without: rows without a face, by the reason.
    embedder: the id of the embedder.
    """

    ids: Sequence[str]
    vectors: Floats
    persons: Sequence[str | None]
    identities: Sequence[tuple[str, str] | None]
    rows: Sequence[Sequence[tuple[int, int]]]
    in_two: int
    tables: Sequence[pa.Table]
    without: Mapping[str, int]
    embedder: str


def read_faces(
    runs: Sequence[CollectedRun], again: bool, told: Callable[[str], None] = lambda line: None
) -> Faces:
    """Read the faces of a collection.

    Args:
        runs: of the collection.
        again: take no notice of the people of before.
        told: is told how many faces each run has.

    Raises:
        InputError: there is no face embedding, or there are those of several embedders.
        ValueError, FileNotFoundError: stored arrays are damaged or gone.
    """
    tables, vectors, without = [], [], Counter[str]()
    for run in runs:
        table, of_run, missing = _read(run)
        tables.append(table)
        vectors.append(of_run)
        without.update(missing)
        told(f"{run.name}: {sum(v is not None for v in of_run)} of {table.num_rows} rows show one face")
    embedder = _one_embedder(runs, tables, vectors)
    return _by_sample(tables, vectors, {} if again else _known(runs), without, embedder)


def _read(run: CollectedRun) -> tuple[pa.Table, list[Floats | None], Counter[str]]:
    """Light columns of a run's rows, the unit vector of those with one face, and why others have none."""
    manifest = run.folder / "manifest"
    there = set(store.column_names(manifest))
    texts = ["source", "identity", "gender", EMBEDDER]
    light = ["sample_id", *texts, "num_people_max", "fps", "num_frames", *QUALITY]
    heavy = ["error", "stopped", "stages", "arrays"]
    names = [name for name in (*light, *heavy) if name in there]
    table = store.read(manifest, names).sort_by("sample_id")
    several = _flags(table, "num_people_max", lambda column: pc.greater(column, 1))
    ended = _flags(table, "error", pc.is_valid) | _flags(table, "stopped", pc.is_valid)
    alone = np.flatnonzero(~several & ~ended)
    of_alone = read_vectors(run.folder, table.take(pa.array(alone)), STAGE, ARRAYS)
    vectors: list[Floats | None] = [None] * table.num_rows
    for row, vector in zip(alone.tolist(), of_alone, strict=True):
        vectors[row] = vector
    computed = _flags(table, EMBEDDER, pc.is_valid)
    missing = +Counter({SEVERAL: int((several & ~ended).sum()), ENDED: int(ended.sum())})
    for row in alone.tolist():
        if vectors[row] is None:
            missing[NO_FACE if computed[row] else NOT_COMPUTED] += 1
    columns = {}
    for name in light:
        if name not in there:
            columns[name] = pa.nulls(table.num_rows, pa.string() if name in texts else pa.float64())
        else:
            columns[name] = table[name].cast(pa.string()) if name in texts else table[name]
    return pa.table(columns), vectors, missing


def _flags(table: pa.Table, name: str, judge: Callable[[pa.ChunkedArray], Any]) -> npt.NDArray[np.bool_]:
    if name not in table.column_names:
        return np.zeros(table.num_rows, bool)
    return np.asarray(pc.fill_null(judge(table[name]), False), bool)


def _one_embedder(
    runs: Sequence[CollectedRun], tables: Sequence[pa.Table], vectors: Sequence[Sequence[Floats | None]]
) -> str:
    """The id of the embedder of all faces.

    Raises:
        InputError: there is none, or more than one.
    """
    seen: dict[tuple[str, int], str] = {}
    for run, table, of_run in zip(runs, tables, vectors, strict=True):
        names = table[EMBEDDER].to_pylist()
        for name, vector in zip(names, of_run, strict=True):
            if vector is not None:
                seen.setdefault((name or "unknown", len(vector)), run.name)
    if not seen:
        raise InputError(
            f"no clip of {', '.join(run.name for run in runs)} has the embedding of one person's face, which "
            f"the stage {STAGE} stores"
        )
    if len(seen) > 1:
        (one, first), (other, second), *_ = ((name, run) for (name, _), run in seen.items())
        raise InputError(
            f"faces of {first} are embedded by {one}, of {second} by {other}, which do not compare: compute "
            "them with one profile, or give the runs of each by themselves"
        )
    [(name, _)] = seen
    return name


def _known(runs: Sequence[CollectedRun]) -> dict[str, set[str]]:
    """The people of before, by sample."""
    known: dict[str, set[str]] = {}
    for run in runs:
        table = collected.read(run.folder).select(["sample_id", "person_id"])
        table = table.filter(pc.is_valid(table["person_id"]))
        for sample, person in zip(*(column.to_pylist() for column in table.columns), strict=True):
            known.setdefault(sample, set()).add(person)
    return known


def _by_sample(
    tables: Sequence[pa.Table],
    vectors: Sequence[Sequence[Floats | None]],
    known: Mapping[str, set[str]],
    without: Mapping[str, int],
    embedder: str,
) -> Faces:
    rows: dict[str, list[tuple[int, int]]] = {}
    for number, (table, of_run) in enumerate(zip(tables, vectors, strict=True)):
        for row, (name, vector) in enumerate(zip(table["sample_id"].to_pylist(), of_run, strict=True)):
            if vector is not None:
                rows.setdefault(name, []).append((number, row))
    ids = sorted(rows)
    width = next(len(v) for of_run in vectors for v in of_run if v is not None)
    stacked = np.zeros((len(ids), width), np.float32)
    sources = [table["source"].to_pylist() for table in tables]
    identities = [table["identity"].to_pylist() for table in tables]
    of_persons: list[str | None] = []
    of_identities: list[tuple[str, str] | None] = []
    in_two = 0
    for place, name in enumerate(ids):
        own = [np.asarray(vectors[number][row]) for number, row in rows[name]]
        parts = sorted((v / np.linalg.norm(v) for v in own), key=lambda v: v.tobytes())
        stacked[place] = np.sum(parts, axis=0)  # in the same order, whatever that of the runs
        persons = known.get(name, set())
        in_two += len(persons) > 1
        of_persons.append(min(persons, default=None))
        said = {
            (str(sources[number][row]), identities[number][row])
            for number, row in rows[name]
            if identities[number][row] not in (None, "")
        }
        of_identities.append(min(said, default=None))
    places = [rows[name] for name in ids]
    return Faces(ids, unit(stacked), of_persons, of_identities, places, in_two, tables, without, embedder)
