"""How busy machines are, as the kernel, NVIDIA's tool and Ray's exporters say it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.engine import use
from pipelines.engine.use import RayMachines, ThisMachine, Use, use_of
from tests.support.cluster_nodes import free_port
from tests.support.file_server import file_server

# user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice
BEFORE = "cpu  100 0 50 800 50 0 0 0 70 0\ncpu0 1 2 3\ncpu1 1 2 3\ncpu2 4 5 6\ncpu3 4 5 6\nintr 1\n"
AFTER = "cpu  160 5 60 810 60 2 3 0 90 0\ncpu0 1 2 3\ncpu1 1 2 3\ncpu2 4 5 6\ncpu3 4 5 6\nintr 1\n"


def exporter(cpus: float, cpu: float, gpus: list[float]) -> str:
    """What Ray's exporter says of a machine, among much else."""
    lines = [
        "# HELP ray_node_cpu_count Total CPUs available on a ray node",
        "# TYPE ray_node_cpu_count gauge",
        f'ray_node_cpu_count{{ip="10.0.0.1",Version="2.60.0"}} {cpus}',
        f'ray_node_cpu_utilization{{ip="10.0.0.1",Version="2.60.0"}} {cpu}',
        'ray_node_mem_used{ip="10.0.0.1"} 1e+09',
    ]
    lines += [f'ray_node_gpus_utilization{{ip="10.0.0.1",GpuIndex="{i}"}} {g}' for i, g in enumerate(gpus)]
    return "\n".join(lines) + "\n"


@pytest.fixture
def nvidia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is the whole PATH, for a tool of that name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    yield folder / "nvidia-smi"


@pytest.fixture
def stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "stat"
    file.write_text(BEFORE)
    monkeypatch.setattr(use, "STAT", file)
    return file


def test_cpus_are_busy_by_the_ticks_since_the_last_look(stat: Path, nvidia: Path) -> None:
    machine = ThisMachine()
    stat.write_text(AFTER)
    found = machine()
    assert found == Use(machines=1, cpus=4, cpu=80 / 100, gpus=0, gpu=None)
    assert str(found) == "CPU 80% of 4, no GPU"
    again = machine()
    assert again is not None and again.cpu == 0.0  # no tick has passed


def test_gpus_are_those_that_the_drivers_tool_names(stat: Path, nvidia: Path) -> None:
    nvidia.write_text("#!/bin/sh\n[ \"$1\" = --query-gpu=utilization.gpu ] && printf '90\\n30\\n[N/A]\\n'\n")
    nvidia.chmod(0o755)
    found = ThisMachine()()
    assert found is not None and found.gpus == 3 and found.gpu == pytest.approx(0.4)
    assert str(found) == "CPU 0% of 4, GPU 40% of 3"
    nvidia.write_text("#!/bin/sh\necho 'Failed to initialize NVML'\nexit 9\n")
    found = ThisMachine()()
    assert found is not None and (found.gpus, found.gpu) == (0, None)


def test_a_kernel_that_does_not_say_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(use, "STAT", tmp_path / "none")
    assert ThisMachine()() is None


def test_this_machine_is_measured() -> None:
    found = ThisMachine()()
    assert found is not None and found.cpus == os.cpu_count() and 0 <= found.cpu <= 1


def test_a_clusters_use_is_that_of_the_machines_that_answer(tmp_path: Path) -> None:
    for name, text in {
        "a": exporter(8, 50.0, [100.0, 0.0]),
        "b": exporter(24, 90.0, [80.0]),
        "c": "ray_tasks 1\n",  # has not measured yet
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics").write_text(text)
    with file_server(tmp_path) as address:
        machines = [f"{address}/{name}" for name in ("a", "b", "c", "missing")]
        found = use_of([*machines, f"http://127.0.0.1:{free_port()}"])
    assert found is not None and (found.machines, found.cpus, found.gpus) == (2, 32, 3)
    assert (found.cpu, found.gpu) == (pytest.approx(0.8), pytest.approx(0.6))
    assert str(found) == "CPU 80% of 32, GPU 60% of 3 on 2 machines"
    assert use_of([f"http://127.0.0.1:{free_port()}"]) is None and use_of([]) is None


def test_without_a_ray_nothing_is_started_to_ask_it() -> None:
    import ray

    assert not ray.is_initialized() and RayMachines()() is None and not ray.is_initialized()
