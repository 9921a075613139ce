"""Finished runs whose clips show the faces that their list says, for the tests of people and splits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from manifests import store
from manifests.screen import Rule, Screen
from stages.clip import Clip
from stages.contract import Array, Column, Score, Stage
from tests.support.helpers import execute

SCREEN = Screen(name="toy", rules=[Rule(reason="too_short", column="duration_s", min=1, source="a toy")])
RANKED = Screen(
    name="ranked",
    rules=[*SCREEN.rules, Rule(reason="too_often", column="person_rank", max=2, missing="pass")],
)
LISTED = {
    "vector": pa.string(),
    "people": pa.int64(),
    "tall": pa.float64(),
    "seconds": pa.float64(),
    "embedder": pa.string(),
    "identity": pa.string(),
    "gender": pa.string(),
    "emotion": pa.string(),
    "source": pa.string(),
}


class Consistency(Stage):
    """What the list says of a clip's face; one that is less than 0 tall fails."""

    reads = ("vector", "people", "tall", "seconds", "embedder")
    writes: ClassVar = {
        "face_embedding": Array("[D]", "", ""),
        "face_embedder": Column("string", "", ""),
        "num_people_max": Column("int", "", ""),
        "face_height_px": Score("pixels", ""),
        "duration_s": Score("s", ""),
    }

    def score(self, clip: Clip) -> dict[str, Any]:
        if (clip["tall"] or 0) < 0:
            raise ValueError("cannot be decoded")
        face = clip["vector"]
        return {
            "face_embedding": np.array(json.loads(face) if face else [np.nan], np.float32),
            "face_embedder": clip["embedder"] or "toy",
            "num_people_max": 1 if clip["people"] is None else clip["people"],
            "face_height_px": clip["tall"],
            "duration_s": 2.0 if clip["seconds"] is None else clip["seconds"],
        }


def people_run(folder: Path, clips: Mapping[str, Mapping[str, Any]], screen: Screen = SCREEN) -> Path:
    """A run of these clips, by the name of their file; the same folder again adds rows to it.

    Args:
        folder: of the run; media and list lie beside it.
        clips: of each the columns of `LISTED` that it has; `vector` as a sequence of numbers.
        screen: of the run.
    """
    media = folder.parent / "media"
    media.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, clip in clips.items():
        path = media / f"{name}.mp4"
        path.write_bytes(name.encode())
        row: dict[str, Any] = dict.fromkeys(LISTED) | {"source": "toys"} | dict(clip) | {"uri": str(path)}
        row["vector"] = None if row["vector"] is None else json.dumps([float(v) for v in row["vector"]])
        rows.append(row)
    listed = folder.parent / f"{folder.name}.parquet"
    store.write_table(listed, pa.Table.from_pylist(rows, pa.schema([("uri", pa.string()), *LISTED.items()])))
    execute([Consistency()], listed, folder, screen=screen)
    return folder


def rows_of(run: Path, *columns: str) -> dict[str, Any]:
    """One column, or a tuple of several, of a run's rows, by the name of the file."""
    table = store.read(run / "manifest", ["source_uri", *columns]).to_pylist()
    return {
        Path(row["source_uri"]).stem: row[columns[0]] if len(columns) == 1 else tuple(row[c] for c in columns)
        for row in table
    }


def vectors(people: int, clips: int, seed: int = 0, noise: float = 0.05, width: int = 32) -> np.ndarray:
    """Unit vectors around one direction a person, float32 [people * clips, width], person by person."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(people, 1, width))
    middle /= np.linalg.norm(middle, axis=-1, keepdims=True)
    found = (middle + noise * rng.normal(size=(people, clips, width))).reshape(-1, width)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def partition(of: Iterable[object], names: Iterable[object] | None = None) -> set[frozenset[object]]:
    """The groups, as sets of the numbers of their members, or of their names."""
    groups: dict[object, set[object]] = {}
    of = list(of)
    for group, member in zip(of, range(len(of)) if names is None else names, strict=True):
        groups.setdefault(group, set()).add(member)
    return {frozenset(members) for members in groups.values()}


def pair_figures(found: Sequence[object], true: Sequence[object]) -> tuple[float, float]:
    """Of all pairs that are together: the share that should be; and of those that should be: that are."""
    labels = [np.unique([str(label) for label in of], return_inverse=True)[1] for of in (found, true)]
    together, should = ((of[:, None] == of)[np.triu_indices(len(of), 1)] for of in labels)
    both = (together & should).sum()
    return float(both / together.sum()), float(both / should.sum())
