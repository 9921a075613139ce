"""Clips of a run that look like a picture, like another clip, or like what a sentence says."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from backends.pictures.image_embedder import ImageEmbedder, ReadsTexts
from configs.errors import UserError
from manifests import storage, store
from media.decode import decode
from media.files import PICTURE_SUFFIXES, local_copy
from media.picture import read_picture
from media.requests import Frames
from pipelines.collection.arrays import PLACES, arrays_of
from pipelines.collection.runs import CollectedRun, read_rows
from pipelines.engine.settings import Profile
from pipelines.requests import profile_roles, settings_of
from stages.consistency import Consistency, mean_embedding

STAGE: Final = "consistency"
ARRAY: Final = "image_embedding"
SIMILARITY: Final = "similarity"
Vector = npt.NDArray[np.float32]


class SearchError(UserError):
    """What was asked for cannot be looked for in this run; the message says what can."""


def embedder_of(run: CollectedRun, overrides: Sequence[str] = ()) -> ImageEmbedder:
    """The image embedder of a run, from what its record says of its profile.

    Args:
        run: it.
        overrides: settings in the words of `--set`, such as `models=DIR` and `device=cpu`.

    Raises:
        SettingsError: the profile cannot be used here.
    """
    profile = Profile.model_validate(run.record["profile"])
    stored = run.record["settings"]
    given = [f"{key}={stored[key]}" for key in ("device", "models") if stored.get(key)]
    settings = settings_of(profile, [*given, *overrides])
    with tempfile.TemporaryDirectory() as answers:
        roles: Any = profile_roles(profile, settings, Path(answers))
    embedder: ImageEmbedder = roles.image_embedder
    return embedder


def of_text(embedder: ImageEmbedder, text: str) -> Vector:
    """The unit vector of a sentence.

    Raises:
        SearchError: the embedder knows no words.
    """
    if not isinstance(embedder, ReadsTexts):
        raise SearchError(
            f"the pictures of this run were embedded by {embedder.id}, which knows no words: look for clips "
            "that are like one, --like FILE, or run with --profile gpu, whose CLIP reads sentences"
        )
    return np.asarray(embedder.embed_texts([text])[0])


def of_media(embedder: ImageEmbedder, path: str) -> Vector:
    """The unit vector of a picture or a clip, of whose pictures one a second is looked at.

    Raises:
        MediaError: it cannot be decoded.
        FileNotFoundError: there is no such file.
    """
    embedder.setup()
    with local_copy(path) as file:
        if Path(path).suffix.lower() in PICTURE_SUFFIXES:
            return mean_embedding(embedder.embed([read_picture(file)]))
        config: Any = Consistency.Config()
        asked = Frames(1 / config.image_every_s, config.short_side)
        _, images = decode(file, [asked]).frames[asked]
        return mean_embedding(embedder.embed(list(images)))


def find(
    run: CollectedRun,
    wanted: Vector,
    embedder_id: str,
    count: int,
    told: Callable[[str], None] = lambda line: None,
) -> pa.Table:
    """The samples of a run whose pictures are nearest to a vector, the nearest first.

    Args:
        run: a finished one.
        wanted: a unit vector.
        embedder_id: what it was made by.
        count: how many at most.
        told: is told what could not be looked at.

    Returns:
        All columns of the manifest, and `SIMILARITY`, the cosine.

    Raises:
        SearchError: no sample has an embedding of that embedder.
    """
    rows = read_rows([run], [*PLACES, "image_embedder"])
    cosines = np.full(rows.num_rows, -np.inf)
    missing: dict[str, int] = defaultdict(int)
    embedders = rows["image_embedder"].to_pylist()
    for number, arrays in arrays_of(run.folder, rows, STAGE):
        by = embedders[number]
        if not isinstance(arrays, dict):
            missing[arrays or f"{STAGE} was not computed"] += 1
        elif by != embedder_id:
            missing[f"embedded by {by}, not by {embedder_id}"] += 1
        elif ARRAY not in arrays:
            missing["computed before embeddings were kept: run again"] += 1
        else:
            cosines[number] = float(arrays[ARRAY] @ wanted)
    reasons = [f"{number} samples were not looked at: {reason}" for reason, number in missing.items()]
    found = np.argsort(-cosines, kind="stable")[: min(count, int(np.isfinite(cosines).sum()))]
    if not len(found):
        raise SearchError("; ".join([f"nothing to look for in {run.folder}", *reasons]))
    for line in reasons:
        told(line)
    ids = rows["sample_id"].take(pa.array(found)).combine_chunks()
    table = store.at_one_moment(run.folder / "manifest", lambda files: _rows_of(files, ids))
    table = table.take(pc.index_in(ids, value_set=table["sample_id"].combine_chunks()))
    meaning = {"unit": "cosine", "meaning": "How like it is to what was looked for."}
    field = pa.field(SIMILARITY, pa.float64(), metadata=meaning)
    return table.append_column(field, pa.array(cosines[found]))


def _rows_of(files: Sequence[storage.Listed], ids: pa.Array) -> pa.Table:
    """The rows with these ids; a file of a manifest is read at a time."""
    tables = []
    for file in files:
        table = store.read_file(file.path)
        tables.append(table.filter(pc.is_in(table["sample_id"], value_set=ids)))
    return pa.concat_tables(tables, promote_options="permissive")
