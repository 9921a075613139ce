"""A Ray cluster of several machines on one: every node is a `ray start` with processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import ROOT

# Ray's provider for tests knows its head by this name.
HEAD_ID = "f" * 51 + "00000"
TOKEN = "0123456789abcdef0123456789abcdef"
# A node whose connection is refused for 3 s is lost; with Ray's defaults that takes 15 s. A node that is only
# slow, on a machine with much to do, keeps its time.
QUICK = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "3",
}


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until(true: Callable[[], object], what: str, seconds: float = 240) -> None:
    """Look every tenth of a second until it is true.

    Raises:
        TimeoutError: it does not become true.
    """
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:g} s: {what}")
        time.sleep(0.1)


class Nodes:
    """The nodes by name; a worker finds the name of its node in the variable MACHINE.

    token: what every process must show; "" switches that off.
    """

    def __init__(self, folder: Path, token: str = TOKEN) -> None:
        self.folder, self.port = folder, free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
        ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        ours |= {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.environment = ours | auth | QUICK

    @property
    def address(self) -> str:
        """What a driver connects to (`RAY_ADDRESS`)."""
        return f"127.0.0.1:{self.port}"

    def start(self, name: str, cpus: int, gpus: int = 0, *options: str) -> None:
        """Begin a node; the first is the head."""
        ray = [str(Path(sys.executable).parent / "ray"), "start", "--block", f"--num-cpus={cpus}"]
        ray += [f"--num-gpus={gpus}", "--object-store-memory=100000000", "--disable-usage-stats"]
        ray += [f"--dashboard-agent-listen-port={free_port()}"]  # not that of another node or another Ray
        if not self.processes:
            ray += ["--head", f"--port={self.port}", f"--temp-dir={self.folder}"]
        else:
            ray += [f"--address={self.address}"]
        environment = self.environment | {"MACHINE": name}
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [*ray, *options], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        # Nodes that begin at the same moment would choose the same names for their sockets.
        wait_until(lambda: self._is_up(name), f"node {name} does not start")

    def _is_up(self, name: str) -> bool:
        text = (self.folder / f"{name}.log").read_text()
        assert self.processes[name].poll() is None, text
        return "Ray runtime started" in text

    def start_growing(self, most: int, cpus: int, gpus: int) -> None:
        """Begin a head without CPUs whose autoscaler adds machines: of CPUs alone, and with GPUs.

        Machines come from Ray's own provider for tests, which starts their processes here.
        """
        common = {"min_workers": 0, "max_workers": most, "node_config": {}}
        head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
        types = {
            "ray.head.default": head,
            "cpu_worker": {**common, "resources": {"CPU": cpus}},
            "gpu_worker": {**common, "resources": {"CPU": cpus, "GPU": gpus}},
        }
        provider = {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": self.address,
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        }
        lists = (
            "setup",
            "head_setup",
            "worker_setup",
            "initialization",
            "head_start_ray",
            "worker_start_ray",
        )
        config: dict[str, Any] = {f"{name}_commands": [] for name in lists}
        config |= {key: {} for key in ("auth", "docker", "file_mounts")} | {"cluster_synced_files": []}
        config |= {
            "cluster_name": "grows",
            "max_workers": 2 * most,
            "upscaling_speed": 1.0,
            "idle_timeout_minutes": 10,
            "provider": provider,
            "available_node_types": types,
            "head_node_type": "ray.head.default",
        }
        path = self.folder / "autoscaler.json"
        path.write_text(json.dumps(config))
        self.environment |= {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        }
        only_head = {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID}
        driver, self.environment = self.environment, self.environment | only_head
        self.start("head", 0, 0, f"--autoscaling-config={path}", "--include-dashboard=false")
        self.environment = driver

    def lose(self, name: str) -> None:
        """The machine is gone: all its processes are killed at once."""
        process = self.processes.pop(name)
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
            for one in (psutil.Process(process.pid), *family):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        process.wait()

    def stop(self) -> None:
        """End all nodes, the head last."""
        for name in reversed(list(self.processes)):
            self.lose(name)


@contextlib.contextmanager
def nodes(token: str = TOKEN) -> Iterator[Nodes]:
    """An empty cluster, whose files lie under a short path (Ray's sockets) and go at the end."""
    folder = Path(tempfile.mkdtemp(prefix="iavc-", dir="/tmp"))
    made = Nodes(folder, token)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
