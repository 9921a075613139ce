"""A run's metrics at the exporter of a real Ray: what Prometheus would read there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.engine.record import read_run
from pipelines.engine.use import use_of
from tests.conftest import ROOT
from tests.support.cluster_nodes import Nodes, free_port, nodes, wait_until
from tests.support.helpers import make_files

pytestmark = pytest.mark.ray

RAYS_OWN = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"}
DASHBOARD = ROOT / "deploy" / "grafana.json"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="module")
def exporter() -> Iterator[tuple[Nodes, str]]:
    """A head, and the address of its exporter."""
    with nodes() as machines:
        port = free_port()
        machines.start("head", 4, 1, f"--metrics-export-port={port}")
        yield machines, f"http://127.0.0.1:{port}"


def scraped(address: str) -> Samples:
    """Samples by name and labels, those that Ray puts on all left out."""
    with urlopen(f"{address}/metrics", timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        (sample.name, _own(sample.labels)): sample.value for family in families for sample in family.samples
    }


def _own(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    mine = {name: value for name, value in labels.items() if name not in RAYS_OWN}
    return tuple(sorted((n, v) for n, v in mine.items() if not n.startswith("otel_")))


def names(address: str) -> set[str]:
    return {name for name, _ in scraped(address)}


def test_the_exporter_tells_what_a_run_does(exporter: tuple[Nodes, str], tmp_path: Path) -> None:
    machines, address = exporter
    files, out, stays_at = make_files(tmp_path / "in", 12), tmp_path / "out", tmp_path / "here"
    stage = {"stay_on": "clip0007.mp4", "stays_at": str(stays_at)}
    command = [sys.executable, "-m", "tests.support.run_cluster", str(files), str(out), json.dumps(stage)]
    run = subprocess.Popen(
        [*command, '{"workers": 1}'], cwd=ROOT, env=machines.environment | {"RAY_ADDRESS": machines.address}
    )
    try:
        wait_until(stays_at.exists, "the stage does not begin")
        run_id = read_run(out)["run_id"]
        mine = (("pipeline", "toy"), ("run_id", run_id))

        def value(name: str, **more: str) -> float | None:
            return scraped(address).get((f"ray_interavatar_{name}", tuple(sorted((*mine, *more.items())))))

        wait_until(lambda: value("samples_due") == 12, "no gauge")
        assert value("stage_samples_due", stage="cube") == 12 and value("stage_places", stage="cube") == 1
        wait_until(lambda: value("samples_left") == 5, "the samples before it are not counted")
        assert value("stage_samples_left", stage="half") == 5 and value("samples_total", outcome="kept") == 7
        wait_until(lambda: "ray_node_cpu_count" in names(address), "the machine is not measured")
        use = use_of([address])
        assert use is not None and use.machines == 1 and use.cpus == os.cpu_count() and 0 < use.cpu <= 1
        assert use.gpu is None  # the head only says that it has one
        _reads_what_is_exported(names(address))
    finally:
        run.kill()
        run.wait()
    wait_until(lambda: value("samples_left") is None, "gauges of a dead run stay")
    assert value("samples_total", outcome="kept") == 7


def test_counters_are_whole_when_the_run_has_ended(exporter: tuple[Nodes, str], tmp_path: Path) -> None:
    machines, address = exporter
    files, out = make_files(tmp_path / "in", 12), tmp_path / "out"
    command = [sys.executable, "-m", "tests.support.run_cluster", str(files), str(out), "{}", "{}"]
    environment = machines.environment | {"RAY_ADDRESS": machines.address}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=240)
    record = read_run(out)
    wait_until(lambda: record["run_id"] in str(scraped(address)), "nothing of this run")
    mine = {
        (name, *(v for k, v in labels if k in ("stage", "outcome"))): value
        for (name, labels), value in scraped(address).items()
        if ("run_id", record["run_id"]) in labels and name.endswith("_total")
    }
    assert mine.pop(("ray_interavatar_samples_total", "kept")) == record["counts"]["kept"] == 12
    for stage, figures in record["stages"].items():
        assert mine.pop(("ray_interavatar_stage_samples_total", "computed", stage)) == 12
        seconds = mine.pop(("ray_interavatar_stage_seconds_total", stage))
        assert seconds == pytest.approx(figures["seconds"], abs=1e-3)
    mine.pop(("ray_interavatar_stage_seconds_total", "decode"), None)
    assert mine == {}


def _reads_what_is_exported(found: set[str]) -> None:
    """The dashboard names what is there, and all of ours; a fault, and a GPU, there is none of now."""
    wanted = set(re.findall(r"ray_\w+", DASHBOARD.read_text()))
    assert wanted - found == {"ray_interavatar_faults_total", "ray_node_gpus_utilization"}
    ours = {name for name in found if name.startswith("ray_interavatar_")}
    assert ours - wanted == {"ray_interavatar_stage_samples_due"}
