"""A run and shards with all that can name a sample, and what is asked of them when one is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from typer.testing import CliRunner

from manifests import collected, packs, storage, store
from manifests.reviews import Review, ReviewLog
from manifests.shards import ShardsFolder
from pipelines.cli import app as cli
from pipelines.review.report import write_found_page, write_report
from pipelines.review.screening import screen_again
from pipelines.shards.trainer_lists import Trainer, export
from tests.support.clips import make_clip
from tests.support.helpers import manifest
from tests.support.shard_runs import SENTENCE, finished_run, write

NAMES = ("ada", "bert", "carl", "dora", "emil")


def make_everything(folder: Path) -> None:
    """A run over five clips with all that a run's folder can hold, and shards of it."""
    (folder / "media").mkdir()
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(NAMES):
        size = "96x64" if number % 2 else "64x48"
        clip = make_clip(folder / "media" / f"{name}.mp4", seconds=2 + number / 5, fps=8, size=size)
        words = {"caption": f"{name} smiles.", "interaction_prompt": SENTENCE, "interaction_x": 0.5}
        rows.append({"uri": str(clip), "note": f"of {name}", "interaction_y": 0.5, **words})
    run = finished_run(folder / "run", rows)
    ids = ids_of(run)
    log = ReviewLog(run)
    for name in NAMES:
        log.append([Review(sample_id=ids[name], reviewer="R", verdict="keep", note=f"it is {name}")])
    log.append([Review(sample_id=ids["carl"], reviewer="R", verdict="drop")])
    log.append([Review(sample_id=ids["ada"], reviewer="R", verdict="drop")])
    copy = {"duplicate_of": ids["bert"], "duplicate_group": ids["bert"], "duplicate_distance": 0.1}
    found = [{"sample_id": ids[name], "person_id": f"person-{name[0]}"} for name in NAMES]
    found[4] |= copy  # emil is a copy of bert
    found[1] |= {"duplicate_group": ids["bert"]}
    screen_again(run, found=pa.Table.from_pylist(found, schema=collected.SCHEMA))
    log.append([Review(sample_id=ids["ada"], reviewer="R", verdict="clear")])
    screen_again(run)  # two files of changed verdicts
    write_report(run)
    write_found_page(run, store.read(run / "manifest"))
    shards = folder / "shards"
    assert write(run, shards, size=200_000)["shards"] > 1
    for trainer in Trainer:
        export(shards, trainer, "inline")


def ids_of(run: Path) -> dict[str, str]:
    """Name of the media -> id of the sample."""
    rows = store.read(run / "manifest", ["sample_id", "source_uri"]).to_pylist()
    return {row["source_uri"].rpartition("/")[2].partition(".")[0]: row["sample_id"] for row in rows}


def needles(run: Path, name: str) -> list[str | bytes]:
    """All that would tell of a sample: its id, address, hash and words, and the bytes of its arrays."""
    (row,) = [r for r in store.read(run / "manifest").to_pylist() if f"/{name}." in r["source_uri"]]
    arrays = [packs.read(run, place) for place in row["arrays"]]
    own = [a for a in arrays if sum(a in packs.read(run, p) for p in places_of(run)) == 1]
    words = [f"{name}.mp4", row["content_hash"], row["sample_id"], row["source_uri"], f"{name} smiles."]
    return [*words, f"of {name}", f"it is {name}", f"person-{name[0]}", *own]


def places_of(run: Path) -> list[dict[str, Any]]:
    """Where all arrays of a run lie."""
    return [
        place for places in store.read(run / "manifest", ["arrays"])["arrays"].to_pylist() for place in places
    ]


def arrays(run: Path) -> dict[str, dict[str, bytes]]:
    """Sample -> stage -> bytes of its arrays."""
    rows = store.read(run / "manifest", ["sample_id", "arrays"]).to_pylist()
    return {r["sample_id"]: {p["stage"]: packs.read(run, p) for p in r["arrays"]} for r in rows}


def rows_but(run: Path, *ids: str) -> pd.DataFrame:
    """The manifest without some rows and without the places of arrays, as text."""
    rows = manifest(run)
    return rows[~rows.sample_id.isin(ids)].drop(columns="arrays").astype(str).reset_index(drop=True)


def members(shards: Path) -> dict[str, dict[str, bytes]]:
    """Sample -> members, read by the index."""
    folder = ShardsFolder(shards)
    return {row["sample_id"]: folder.read(row) for row in folder.index.to_pylist()}


def state(*folders: Path) -> dict[str, bytes]:
    """All files but locks, by path."""
    files = [path for folder in folders for path in storage.below(folder)]
    return {str(p): storage.read_bytes(p) for p in files if p.name != ".lock"}


def tell(*words: str | Path) -> str:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["forget", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output
