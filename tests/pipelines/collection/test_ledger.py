"""The ledger tells of each kept sample what its row and the runs' records say, and of nothing more."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import Field
from typer.testing import CliRunner

from backends.store.model_catalogue import known_models
from manifests import collected, store
from manifests.screen import Rule, Screen
from manifests.shards import ShardError, ShardsFolder
from pipelines.cli import app as cli
from pipelines.collection.ledger import SCHEMA, write_ledger
from pipelines.engine.source import InputError
from pipelines.requests import Request, prepare
from pipelines.review.screening import screen_again
from prompts.prompt import Answer, Prompt
from stages.clip import Clip
from stages.constant_rate import ConstantRate
from stages.contract import Column, Stage, StageConfig
from stages.probe import Probe
from tests.support.clips import ffmpeg, make_clip
from tests.support.helpers import make_files, make_run, manifest, quiet
from tests.support.object_store import new_folder, s3_server
from tests.support.shard_runs import write

SCREEN = Screen(name="ledger", rules=[Rule(reason="short", column="duration_s", min=1, source="a toy")])


class Said(Answer):
    words: str = Field()


class Model:
    id = "a model 1"

    def setup(self) -> None:
        """Nothing to load."""


class Describe(Stage):
    """Asks a model in some words."""

    class Config(StageConfig):
        tone: str = "plain"

    prompts = (Prompt("caption", Said),)
    writes: ClassVar = {"words": Column("string", "", "")}

    def score(self, clip: Clip) -> dict[str, Any]:
        return {"words": self.config.tone}


WEIGHTS = {"id": "a model 1", "role": "pose", "implementation": "dwpose", "weights": {"w": "MIT", "v": None}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips, one of a variable rate, one a range, one too short; run twice, and shards."""
    folder = tmp_path_factory.mktemp("made")
    make_clip(folder / "steady.mp4", seconds=3, size="96x64")
    make_clip(folder / "short.mp4", seconds=0.5, size="96x64")
    variable = ("-vf", "select='not(mod(n,7))+not(mod(n,3))'", "-fps_mode", "vfr")
    ffmpeg("-i", make_clip(folder / "source.mp4", seconds=6, fps=20), *variable, folder / "variable.mp4")
    rows = pd.DataFrame(
        {
            "uri": ["steady.mp4", "variable.mp4", "short.mp4"],
            "start_s": [1.0, None, None],
            "end_s": [3.0, None, None],
            "licence": ["CC BY-NC 4.0", None, "MIT"],
        }
    )
    rows.to_csv(folder / "list.csv", index=False)

    def execute(tone: str) -> dict[str, Any]:
        stages = [Probe(), ConstantRate(), Describe(Model(), config=Describe.Config(tone=tone))]
        run = make_run(stages, folder / "list.csv", folder / "run", screen=SCREEN)
        return replace(run, models=[WEIGHTS]).execute(quiet())

    execute("plain")
    execute("loud")
    ids = manifest(folder / "run").sample_id
    known = [{"sample_id": name, "person_id": f"p-{name[:3]}", "split": "train"} for name in ids]
    screen_again(folder / "run", found=pa.Table.from_pylist(known, schema=collected.SCHEMA))
    write(folder / "run", folder / "shards")
    return folder


def ledger(output: Path, *places: Path) -> list[dict[str, Any]]:
    write_ledger([str(place) for place in places], output)
    rows: list[dict[str, Any]] = pq.read_table(output).to_pylist()
    return sorted(rows, key=lambda row: str(row["sample_id"]))


def test_what_it_says_of_a_run(made: Path, tmp_path: Path) -> None:
    steady, variable = ledger(tmp_path / "ledger.parquet", made / "run")
    rows = manifest(made / "run").set_index("sample_id")
    record = json.loads((made / "run" / "run.json").read_text())
    assert pq.read_schema(tmp_path / "ledger.parquet").names == SCHEMA.names
    for row in (steady, variable):
        mine = rows.loc[row["sample_id"]]
        assert row["content_hash"] == mine.content_hash and row["run_id"] == mine.run_id
        assert row["source_uri"] == mine.source_uri and row["pipeline"] == "toy" and row["run"] == "run"
        assert {s["stage"]: s["fingerprint"] for s in row["stages"]} == mine.stages
        assert (row["screen"], row["screen_hash"]) == ("ledger", SCREEN.hash)
        assert row["code_version"] == record["versions"]["interavatar"]
        assert row["split"] == "train" and row["person_id"] == f"p-{row['sample_id'][:3]}"
        assert row["shard"] is None and row["shard_key"] is None
        (model,) = row["models"]
        assert model == {
            **{"stage": "describe", "role": "pose", "implementation": "dwpose", "id": "a model 1"},
            **{"weights": "w, v", "licence": "MIT, unknown"},
        }
        (prompt,) = row["prompts"]
        assert prompt == {"stage": "describe", "file": "caption.md", "hash": Describe.prompts[0].hash}
    assert (steady["licence"], steady["commercial_use"]) == ("CC BY-NC 4.0", False)
    assert (variable["licence"], variable["commercial_use"]) == (None, None)
    assert steady["transforms"] == [{"by": "input", "what": "from 1 s to 3 s of the file"}]
    rate = rows.loc[variable["sample_id"]].constant_rate_fps
    assert variable["transforms"] == [{"by": "constant_rate", "what": f"brought to {rate:g} frames/s"}]


def test_shards_tell_it_themselves(made: Path, tmp_path: Path) -> None:
    of_run = ledger(tmp_path / "run.parquet", made / "run")
    of_shards = ledger(tmp_path / "shards.parquet", made / "shards")
    index = {row["sample_id"]: row for row in ShardsFolder(made / "shards").index.to_pylist()}
    for row, other in zip(of_run, of_shards, strict=True):
        entry = index[row["sample_id"]]
        assert other == row | {"shard": entry["shard"], "shard_key": entry["key"]}
    both = ledger(tmp_path / "both.parquet", made / "run", made / "shards")
    assert len(both) == 4 and sum(row["shard"] is not None for row in both) == 2


def test_a_stage_that_an_earlier_run_computed_is_told_by_its_record(made: Path, tmp_path: Path) -> None:
    """Rows that the last run reused: its stages are described by the run that had their fingerprints."""
    records = [json.loads(path.read_text()) for path in (made / "run" / "runs").iterdir()]
    prints = {record["fingerprints"]["describe"]["fingerprint"] for record in records}
    assert len(prints) == 2
    table = store.read(made / "run" / "manifest")
    stages = [
        [{**s, "fingerprint": p} if s["stage"] == "describe" else s for s in table["stages"][0].as_py()]
        for p in (min(prints), "0" * 16)
    ]
    run = tmp_path / "run"
    (run / "manifest").mkdir(parents=True)
    (run / "runs").mkdir()
    rows = store.with_values(table.filter(table["keep"]), "stages", stages)
    store.write_table(run / "manifest" / "manifest-00000.parquet", rows)
    (run / "run.json").write_text(
        json.dumps(next(r for r in records if r["run_id"] in rows["run_id"].to_pylist()))
    )
    for record in records:
        (run / "runs" / f"{record['run_id']}.json").write_text(json.dumps(record))
    (run / "runs" / "damaged.json").write_text("{")
    models = [row["models"] for row in ledger(tmp_path / "ledger.parquet", run)]
    assert sorted(map(len, models)) == [0, 1]  # of a fingerprint that no record names nothing is said


def test_other_endings_say_the_same(made: Path, tmp_path: Path) -> None:
    rows = ledger(tmp_path / "ledger.parquet", made / "run")
    assert write_ledger([str(made / "run")], tmp_path / "ledger.jsonl") == 2
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert sorted(lines, key=lambda row: str(row["sample_id"])) == rows
    done = CliRunner().invoke(cli.app, ["ledger", str(made / "run"), "--output", str(tmp_path / "l.csv")])
    assert done.exit_code == 0 and "2 samples" in done.output
    with (tmp_path / "l.csv").open(newline="") as file:
        first, _ = sorted(csv.DictReader(file), key=lambda row: row["sample_id"])
    assert list(first) == SCHEMA.names and first["commercial_use"] == "false" and first["end_s"] == "3.0"
    assert json.loads(first["models"]) == rows[0]["models"] and first["shard"] == ""


def test_what_cannot_be_told_is_refused_before_anything_is_written(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"end the file's name in \.parquet, \.csv or \.jsonl"):
        write_ledger([str(made / "run")], tmp_path / "ledger.xlsx")
    with pytest.raises(InputError, match=r"no run\.json"):
        write_ledger([str(made / "run"), str(tmp_path)], tmp_path / "ledger.csv")
    damaged = tmp_path / "shards"
    damaged.mkdir()
    for name in ("index.parquet", "index.json"):
        (damaged / name).write_bytes((made / "shards" / name).read_bytes())
    (damaged / "shard-000000.tar").write_bytes(bytes(100_000))
    with pytest.raises(ShardError, match="write the shards again"):
        write_ledger([str(damaged)], tmp_path / "ledger.csv")
    assert not [path for path in tmp_path.iterdir() if "ledger" in path.name]


def test_in_an_object_store(made: Path, tmp_path: Path) -> None:
    with s3_server():
        shards = new_folder()
        shards.fs.put(f"{made / 'shards'}/", shards.path, recursive=True)
        output = shards.parent / "ledger.parquet"
        assert write_ledger([str(shards)], output) == 2
        assert store.read_file(output).equals(
            pa.Table.from_pylist(ledger(tmp_path / "l.parquet", made / "shards"), schema=SCHEMA)
        )


def test_a_run_says_which_models_it_asks_and_under_which_licences(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 1)
    over = ("roles.lip_sync.use=syncnet", "roles.lip_sync.model=syncnet")
    (run,) = prepare(Request("talking_head", str(files), tmp_path / "out", overrides=over))
    models = {model["role"]: model for model in run.models}
    assert models["lip_sync"]["implementation"] == "syncnet"
    assert models["lip_sync"]["weights"] == {"syncnet": known_models()["syncnet"].licence}
    assert models["face_embedder"]["weights"] == {} and models["face_embedder"]["id"].startswith("dlib")
    assert "reaction_writer" not in models and "image_to_video" not in models
    asked = {id for stage in run.program().describe().values() for id in stage["models"]}
    assert asked == {model["id"] for model in run.models}
