"""The Ray runner: same rows as inline, deaths of workers and of whole runs, placement."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from manifests import store
from pipelines.engine.deadlines import Deadlines
from pipelines.engine.pipeline import Resources, RunError
from pipelines.engine.plan import plan
from pipelines.engine.program import Program, compile_pipeline
from pipelines.engine.ray_runner import Stretch, part_size, run_ray, turns_here
from pipelines.engine.ray_session import ray_session
from tests.conftest import ROOT
from tests.support.file_server import file_server
from tests.support.helpers import execute, make_files, make_run, manifest, same_manifest, toy_stages
from tests.support.toys import Length, Weigh

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    """One local Ray for the tests of this file; its workers find the toy stages."""
    old = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    with ray_session():
        yield
    if old is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = old


def test_ray_and_inline_give_the_same_manifest(session: None, tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 40)
    stages = toy_stages(raise_on="clip0007.mp4", stop_on="clip0009.mp4")
    record = execute(stages, files, tmp_path / "ray", engine="ray")
    execute(stages, files, tmp_path / "inline")
    assert record["counts"]["ids_out"] == 40 and record["counts"]["errors"] == 1
    assert same_manifest(manifest(tmp_path / "ray"), manifest(tmp_path / "inline"))


def test_a_killed_worker_is_replaced_and_nothing_is_lost(session: None, tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 12)
    stages = toy_stages(kill_on="clip0005.mp4", kill_once=str(tmp_path / "once"))
    execute(stages, files, tmp_path / "out", engine="ray")
    assert (tmp_path / "once").exists()
    execute(stages, files, tmp_path / "calm")
    rows = manifest(tmp_path / "out")
    assert len(rows) == 12 and rows["error"].isna().all()
    assert same_manifest(rows, manifest(tmp_path / "calm"))


def test_a_sample_that_always_kills_its_worker_becomes_an_error(session: None, tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 12)
    record = execute(toy_stages(kill_on="clip0005.mp4"), files, tmp_path / "out", engine="ray")
    rows = manifest(tmp_path / "out").set_index("source_uri")
    assert len(rows) == 12 and record["counts"]["errors"] == 1
    error = rows.loc[str(files / "clip0005.mp4"), "error"]
    assert (
        error["kind"] == "WorkerDied" and error["stage"] == "square" and "--retry-errors" in error["message"]
    )
    assert not list((tmp_path / "out").glob("_attempts/*"))


@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_kill_9_of_the_whole_run_then_the_same_command(engine: str, tmp_path: Path) -> None:
    files, out, log = make_files(tmp_path / "in", 12), tmp_path / "out", tmp_path / "log"
    settings = {
        "log": str(log),
        "kill_on": "clip0007.mp4",
        "kill_once": str(tmp_path / "once"),
        "kill_pid": str(out / "pid"),
    }
    command = [
        sys.executable,
        "-m",
        "tests.support.run_toy",
        str(files),
        str(out),
        engine,
        json.dumps(settings),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run(command, cwd=ROOT, env=environment, timeout=240, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert json.loads((out / "run.json").read_text())["status"] == "running"
    merged = store.read(out / "manifest")
    assert merged.num_rows == len(set(merged["sample_id"].to_pylist()))
    committed = {i for part in store.part_files(out / "manifest") for i in store.sample_ids(part)}
    first = log.read_text().splitlines()
    again = subprocess.run(command, cwd=ROOT, env=environment, timeout=240, capture_output=True)
    assert again.returncode == 0, again.stderr.decode()
    second = log.read_text().splitlines()[len(first) :]
    assert committed and not {line.split()[1] for line in second} & committed
    assert Counter(line for line in second if line.startswith("root")).most_common(1)[0][1] == 1
    execute(toy_stages(**settings), files, tmp_path / "calm")
    assert same_manifest(manifest(out), manifest(tmp_path / "calm"))
    record = json.loads((out / "run.json").read_text())
    # A worker may commit one more part in the moment between the death of its run and its own.
    assert record["status"] == "finished" and record["counts"]["reused"] >= len(committed)


def _program() -> Program:
    return compile_pipeline("toy", toy_stages(), 30, 0)


def test_groups_with_different_resources_pass_rows_on(session: None, tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 8)
    stages = toy_stages(raise_on="clip0002.mp4", stop_on="clip0003.mp4")
    run = make_run(stages, files, tmp_path / "out")
    program = run.program()
    store.prepare(tmp_path / "out" / "manifest", program.schema)
    rows = [{**row, "pipeline": "toy", "media_uri": row["source_uri"]} for row in run.listing.rows]
    plan = tmp_path / "plan.parquet"
    known = store.pa.schema([f for f in program.schema if f.name in rows[0]])
    store.write_table(plan, store.conform(store.pa.Table.from_pylist(rows, schema=known), program.schema))
    groups = [(program.steps[:2], Resources(0.5)), (program.steps[2:], Resources(1.0, workers=1))]
    stretch = Stretch(0, 8, turns_here(groups, 8)[0].pools)
    parts = list(run_ray(program, plan, stretch, tmp_path / "out", "r", 4, Deadlines()))
    assert sum(p.rows for p in parts) == 8 and sum(p.errors for p in parts) == 1
    assert sum(p.computed["length"] for p in parts) == 8 and sum(p.computed["root"] for p in parts) == 6
    assert sum(p.failed["square"] for p in parts) == 1
    store.merge(tmp_path / "out" / "manifest", program.schema)
    execute(stages, files, tmp_path / "calm")
    assert same_manifest(manifest(tmp_path / "out"), manifest(tmp_path / "calm"))
    assert manifest(tmp_path / "out")["stopped"].notna().sum() == 1


def test_signatures_and_keys_reach_the_last_group_and_no_log(session: None, tmp_path: Path) -> None:
    files = make_files(tmp_path / "files", 1)
    (files / "clip0000.mp4").rename(files / "signed.mp4")
    out, listed = tmp_path / "out", tmp_path / "l.csv"
    with file_server(files) as address:
        listed.write_text(f"uri\n{address}/signed.mp4?sig=d0n0ttell\n")
        run = make_run([Length(), Weigh()], listed, out, sources={"schemes": ["http"]})
        program = run.program()
        schema = store.prepare(out / "manifest", program.schema)
        (piece,) = plan(run.listing, program, out / "manifest", schema)
        store.write_table(tmp_path / "plan.parquet", piece.todo)
        env = json.dumps({"env_vars": {"TOY_MODE": "m", "TOY_TOKEN": "d0n0tsay"}})
        last = Resources(1.0, workers=1, runtime_env=env)
        groups = [(program.steps[:1], Resources(0.5)), (program.steps[1:], last)]
        stretch = Stretch(0, 1, turns_here(groups, 1)[0].pools)
        (part,) = run_ray(program, tmp_path / "plan.parquet", stretch, out, "r", 4, Deadlines())
    assert part.errors == 0
    store.merge(out / "manifest", schema)
    (row,) = manifest(out).to_dict("records")
    assert (row["weight"], row["environment"], row["source_uri"]) == (1, "m 8", f"{address}/signed.mp4")
    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    said = b"".join(path.read_bytes() for path in [*logs.rglob("*"), *out.rglob("*")] if path.is_file())
    assert said and b"d0n0" not in said


def test_a_cluster_that_is_too_small_is_refused_at_once(session: None) -> None:
    steps = _program().steps
    with pytest.raises(RunError, match=r"need at least 1 CPUs and 2 GPUs; the cluster has .* and 0 GPUs"):
        turns_here([(steps, Resources(cpus=1, gpus=2))], 10)
    with pytest.raises(RunError, match="--set workers=N"):
        turns_here([(steps, Resources(cpus=1, workers=10_000))], 10)


def test_pools_take_all_cpus_but_one(session: None) -> None:
    cpus = int(ray.cluster_resources()["CPU"])
    assert [pool.size for pool in turns_here([(_program().steps, Resources())], 1000)[0].pools] == [cpus - 1]
    assert [pool.size for pool in turns_here([(_program().steps, Resources())], 1)[0].pools] == [1]


@pytest.mark.parametrize(
    ("rows", "workers", "largest", "expected"),
    [(160, 2, 8, 5), (48, 2, 8, 1), (3, 2, 8, 1), (10_000, 4, 8, 8)],
)
def test_parts_are_small_enough_to_share_and_to_lose(
    rows: int, workers: int, largest: int, expected: int
) -> None:
    assert part_size(rows, workers, largest) == expected
