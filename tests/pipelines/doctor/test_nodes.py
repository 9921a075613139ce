"""Doctor on a cluster: machines of each kind are looked at, and the head need not have a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.cluster_nodes import Nodes

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

SMI = """#!/bin/sh
echo 'NVIDIA H100 80GB HBM3, 81559, 80994, 570.86.15, 9.0'
"""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """A head without CPUs; one machine of CPUs alone, and two alike with a GPU and an old driver."""
    with tempfile.TemporaryDirectory(prefix="dr-", dir="/tmp") as short:
        cluster = Nodes(Path(short))
        try:
            cluster.start("head", 0, 0, "--include-dashboard=false")
            cluster.start("plain", 2)
            (tmp_path / "nvidia-smi").write_text(SMI)
            (tmp_path / "nvidia-smi").chmod(0o755)
            cluster.environment["PATH"] = f"{tmp_path}{os.pathsep}{cluster.environment['PATH']}"
            cluster.start("first", 3, 1)
            cluster.start("second", 3, 1)
            yield cluster
        finally:
            cluster.stop()


def test_one_machine_of_each_kind_is_looked_at(nodes: Nodes, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "doctor", "--profile", "gpu", "--output", str(tmp_path)]
    environment = nodes.environment | {"RAY_ADDRESS": nodes.address, "COLUMNS": "400", "NO_COLOR": "1"}
    environment["PATH"] = environment["PATH"].partition(os.pathsep)[2]  # this machine has no nvidia-smi
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stderr
    assert lines[0].startswith("ok  machine: ") and lines[0].endswith(", which asks the cluster")
    assert not any(line.startswith(("ok  gpu", "no  gpu:")) and " on " not in line for line in lines)
    kinds = [line for line in lines if line.startswith("ok  memory on ")]
    assert sorted(line.partition("(")[2].partition(")")[0] for line in kinds) == [
        "2 CPUs, 0 GPUs",
        "3 CPUs, 1 GPUs",
    ], done.stdout
    [driver] = [line for line in lines if " driver on " in line]
    assert driver.startswith("no  driver on ") and "(3 CPUs, 1 GPUs): 570.86.15; torch's CUDA 13" in driver
    assert sum(" output on " in line for line in lines) == 2
    assert any("not loaded" in line for line in lines)
