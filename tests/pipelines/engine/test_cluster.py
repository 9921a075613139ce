"""Several machines: where stages run, a machine that is lost, a cluster that grows, submitted jobs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PACKAGES, ROOT
from tests.support.cluster_nodes import TOKEN, Nodes, free_port, nodes, wait_until
from tests.support.cluster_toys import three_groups
from tests.support.helpers import execute, linked, make_files, manifest, same_manifest

pytestmark = pytest.mark.ray

CLIPS = 24


Driver = subprocess.Popen[str]


def start_run(machines: Nodes, files: Path, out: Path, stage: dict[str, Any], **settings: Any) -> Driver:
    """A driver of its own that runs the toy pipeline on the cluster."""
    command = [sys.executable, "-m", "tests.support.run_cluster", str(files), str(out), json.dumps(stage)]
    environment = machines.environment | {"RAY_ADDRESS": machines.address}
    return subprocess.Popen(
        [*command, json.dumps(settings)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(run: Driver) -> str:
    """Wait for a driver; what it said."""
    try:
        said, _ = run.communicate(timeout=400)
    finally:
        run.kill()
    assert run.returncode == 0, said
    return said


def lines(log: Path, stage: str) -> list[list[str]]:
    """What a stage noted: name, machine, GPUs."""
    return [line.split()[1:] for line in log.read_text().splitlines() if line.split()[0] == stage]


@pytest.fixture
def machines() -> Iterator[Nodes]:
    """A head and two machines with one GPU each, which is not there: Ray takes the number's word for it."""
    with nodes() as cluster:
        cluster.start("head", 5, 0, "--include-dashboard=false")
        cluster.start("gpu0", 1, 1)
        cluster.start("gpu1", 1, 1)
        yield cluster


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_stages_with_a_gpu_run_where_gpus_are_and_a_lost_machine_loses_nothing(
    machines: Nodes, tmp_path: Path
) -> None:
    files, out, log = make_files(tmp_path / "in", CLIPS), tmp_path / "out", tmp_path / "log"
    stage = {"log": str(log), "stay_on": "clip0011.mp4", "stays_at": str(tmp_path / "stays")}
    run = start_run(machines, files, out, stage)
    wait_until(lambda: (tmp_path / "stays").exists() or run.poll() is not None, "the clip is not reached")
    lost = (tmp_path / "stays").read_text()
    machines.lose(lost)
    finish(run)

    other = {"gpu0": "gpu1", "gpu1": "gpu0"}[lost]
    cubes = lines(log, "cube")
    assert {machine for _, machine, _ in cubes} == {"gpu0", "gpu1"}
    assert {gpus for *_, gpus in cubes} == {"0"}
    assert [machine for name, machine, _ in cubes if name == "clip0011.mp4"] == [lost, other]
    # On the head as long as a CPU is free there at that moment (docs/cluster.md); never with a GPU.
    assert {gpus for *_, gpus in lines(log, "half")} == {"-"}

    execute(three_groups(**stage), files, tmp_path / "calm")
    rows = manifest(out)
    assert len(rows) == CLIPS and rows["sample_id"].is_unique and rows["error"].isna().all()
    assert same_manifest(rows, manifest(tmp_path / "calm"))
    counts = json.loads((out / "run.json").read_text())["counts"]
    assert (counts["ids_in"], counts["ids_out"], counts["computed"]) == (CLIPS, CLIPS, CLIPS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_that_begins_without_a_cpu_grows_as_far_as_the_run_may(tmp_path: Path) -> None:
    files, out, log = make_files(tmp_path / "in", 8), tmp_path / "out", tmp_path / "log"
    stage = {"log": str(log)}
    with nodes() as growing:
        growing.start_growing(most=2, cpus=2, gpus=1)
        too_small = start_run(growing, files, tmp_path / "no", stage)
        said, _ = too_small.communicate(timeout=400)
        assert too_small.returncode == 1 and "--set cluster.cpus=N" in said, said
        finish(start_run(growing, files, out, stage, cluster={"cpus": 4, "gpus": 1}))
    assert {gpus for *_, gpus in lines(log, "cube")} == {"0"}
    execute(three_groups(**stage), files, tmp_path / "calm")
    assert same_manifest(manifest(out), manifest(tmp_path / "calm"))


def submit(cluster: Nodes, port: int, folder: Path, token: str, *command: str) -> tuple[int, str]:
    """`ray job submit --working-dir . -- COMMAND` in a folder: its exit status and what it printed."""
    ray = Path(sys.executable).parent / "ray"
    for _ in range(20):
        done = subprocess.run(
            [
                str(ray),
                "job",
                "submit",
                f"--address=http://127.0.0.1:{port}",
                "--working-dir=.",
                "--",
                *command,
            ],
            cwd=folder,
            env=cluster.environment | {"RAY_AUTH_TOKEN": token},
            capture_output=True,
            text=True,
            timeout=280,
        )
        if "No available agent to submit job" not in done.stderr:  # the head has only just begun
            break
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_submitted_job_shows_its_progress_and_needs_the_token(samples: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    worker = project / "pipelines" / "engine" / "worker.py"
    where = tmp_path / "where"
    worker.write_text(
        f"{worker.read_text()}\nwith open({str(where)!r}, 'a') as f:\n    print(__file__, file=f)\n"
    )
    clips = sorted((samples / "videos").rglob("*.mp4"), key=lambda path: path.stat().st_size)[:2]
    files, out, port = linked(tmp_path / "in", clips), tmp_path / "out", free_port()
    run = ("python", "-m", "pipelines", "run", "talking_head", "--input", str(files), "--output", str(out))
    with nodes() as cluster:
        del cluster.environment["PYTHONPATH"]  # the job's code comes with it
        cluster.start("head", 3, 0, f"--dashboard-port={port}", "--include-dashboard=true")
        status, said = submit(cluster, port, project, "f" * 32, *run)
        assert status != 0 and "Invalid authentication token" in said and not out.exists(), said
        status, said = submit(cluster, port, project, TOKEN, *run)
    assert status == 0, said
    assert "connecting to Ray at" in said and "succeeded" in said
    assert "talking_head: 2 samples to compute, 0 reused" in said
    assert "2/2 samples, " in said and "\x1b[?25l" not in said  # lines, no bar that is painted over
    assert "talking_head: 2 samples in, 2 out: " in said
    assert f"manifest  {out / 'manifest'}" in said
    assert len(manifest(out)) == 2
    # Driver and workers ran the code that was sent, not what is installed.
    assert all("working_dir_files" in line for line in where.read_text().splitlines())
