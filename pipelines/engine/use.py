"""How busy a run's machines are: CPUs by the kernel, GPUs by NVIDIA's tool, those of a cluster by Ray."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from pydantic import BaseModel

STAT = Path("/proc/stat")
ANSWERS_S = 3.0  # a machine that does not answer in time is left out
ASKED_AT_ONCE = 32
# What Ray's exporter says of its machine: percent of all CPUs, their number, percent of each GPU.
_METRIC = re.compile(
    r"^ray_(node_cpu_utilization|node_cpu_count|node_gpus_utilization)\{[^\n]*\} ([-+.\deE]+)$", re.MULTILINE
)


class Use(BaseModel):
    """How busy machines were.

    Attributes:
        machines: that are counted.
        cpus: of them all.
        cpu: share of these that was busy, 0-1; all processes of the machines count.
        gpus: of them all.
        gpu: mean share of time in which a GPU computed anything, 0-1; None without GPUs.
    """

    machines: int
    cpus: float
    cpu: float
    gpus: int
    gpu: float | None

    def __str__(self) -> str:
        gpu = "no GPU" if self.gpu is None else f"GPU {self.gpu:.0%} of {self.gpus}"
        where = f" on {self.machines} machines" if self.machines > 1 else ""
        return f"CPU {self.cpu:.0%} of {self.cpus:g}, {gpu}{where}"


class ThisMachine:
    """Measures the machine that this process runs on, since the last time it was asked."""

    def __init__(self) -> None:
        self._before = _ticks()

    def __call__(self) -> Use | None:
        """Its use; None where the kernel does not say."""
        before, self._before = self._before, _ticks()
        if before is None or self._before is None:
            return None
        (busy_0, all_0, _), (busy, everything, cpus) = before, self._before
        passed = everything - all_0
        gpus = _gpus()
        return Use(
            machines=1,
            cpus=cpus,
            cpu=min(1.0, max(0.0, (busy - busy_0) / passed)) if passed > 0 else 0.0,
            gpus=len(gpus),
            gpu=sum(gpus) / len(gpus) if gpus else None,
        )


def _ticks() -> tuple[int, int, int] | None:
    """Clock ticks of all CPUs in which they were busy, all ticks, and how many CPUs there are."""
    try:
        lines = STAT.read_text().splitlines()
    except OSError:
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user.
    ticks = [int(field) for field in lines[0].split()[1:9]]
    cpus = sum(re.match(r"cpu\d", line) is not None for line in lines)
    return sum(ticks) - sum(ticks[3:5]), sum(ticks), cpus


def _gpus() -> list[float]:
    """Share of time in which each GPU of this machine was busy; none without the driver's tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    asked = [tool, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(
            asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWERS_S, check=True
        ).stdout
        # A GPU that is split into instances says `[N/A]`.
        return [float(line) / 100 if _is_number(line) else 0.0 for line in said.splitlines() if line.strip()]
    return []


def _is_number(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdigit()


class RayMachines:
    """Measures the machines that the Ray of this process has at the moment."""

    def __init__(self) -> None:
        self._here = ThisMachine()

    def __call__(self) -> Use | None:
        """Their use; None before they have told any, and where Ray has ended."""
        import ray

        if not ray.is_initialized():
            return None
        nodes = [node for node in ray.nodes() if node["Alive"]]
        exporters = {node["NodeManagerAddress"]: node["MetricsExportPort"] for node in nodes}
        if set(exporters) <= {ray.util.get_node_ip_address()}:
            return self._here()
        return use_of([f"http://{_host(host)}:{port}" for host, port in exporters.items()])


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def use_of(exporters: Sequence[str]) -> Use | None:
    """What the metrics exporters of Ray's nodes tell of their machines.

    Args:
        exporters: their addresses, one a machine.

    Returns:
        The use of those that answered; None where none did.
    """
    with ThreadPoolExecutor(min(ASKED_AT_ONCE, max(1, len(exporters)))) as pool:
        told = [found for found in pool.map(_told, exporters) if found["node_cpu_count"]]
    if not told:
        return None
    cpus = [found["node_cpu_count"][0] for found in told]
    busy = sum(
        n * found["node_cpu_utilization"][0] / 100
        for n, found in zip(cpus, told, strict=True)
        if found["node_cpu_utilization"]
    )
    gpus = [percent / 100 for found in told for percent in found["node_gpus_utilization"]]
    return Use(
        machines=len(told),
        cpus=sum(cpus),
        cpu=min(1.0, busy / sum(cpus)),
        gpus=len(gpus),
        gpu=sum(gpus) / len(gpus) if gpus else None,
    )


def _told(exporter: str) -> dict[str, list[float]]:
    """The values of the wanted metrics at one exporter; empty lists where it does not answer."""
    values: dict[str, list[float]] = {
        name: [] for name in ("node_cpu_utilization", "node_cpu_count", "node_gpus_utilization")
    }
    # Machines of a cluster are not asked through a proxy.
    opener = build_opener(ProxyHandler({}))
    with suppress(OSError), opener.open(f"{exporter}/metrics", timeout=ANSWERS_S) as answer:
        for name, value in _METRIC.findall(answer.read().decode("utf-8", "replace")):
            values[name].append(float(value))
    return values
