"""Fixtures: a tiny vision-language model, and a vLLM server of it.

vLLM wants another PyTorch than the laptop's models, so it runs in the gpu profile's environment.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAME = "tiny-qwen-vl"
START_S = 600  # the longest wait for the server; 70 s on two idle cores
ENVIRONMENT = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GB
    "OMP_NUM_THREADS": "2",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """Python of the environment of the gpu profile's models, which `make setup-models` makes."""
    python = ROOT / ".venv" / "models" / "bin" / "python"
    if not python.exists():
        pytest.fail("the environment with vLLM is missing: run `make setup-models`", pytrace=False)
    return python


def vllm_environment() -> dict[str, str]:
    """Variables for a process of vLLM: ours, without what the tests' own environment sets for Python."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "VIRTUAL_ENV")}
    return {**inherited, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def tiny_vlm(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Qwen2.5-VL."""
    folder = tmp_path_factory.mktemp("model") / NAME
    command = [str(vllm_python), "-m", "tests.support.tiny_vlm", str(folder)]
    done = subprocess.run(
        command, env=vllm_environment(), cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@dataclass(frozen=True)
class VllmServer:
    """A server that runs.

    Attributes:
        url: of the API, with /v1.
        model: as the server calls it.
    """

    url: str
    model: str

    def requests(self) -> int:
        """Chat completions asked for so far, valid ones and refused ones, as the server counts them."""
        return self._sum(r'http_requests_total\{handler="/v1/chat/completions".*\}')

    def cached_tokens(self) -> tuple[int, int]:
        """Tokens of prompts so far that the server had in its cache of prefixes, and that it looked for."""
        return self._sum(r"vllm:prefix_cache_hits_total.*"), self._sum(r"vllm:prefix_cache_queries_total.*")

    def _sum(self, metric: str) -> int:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/metrics", timeout=30) as reply:
            text = reply.read().decode()
        return int(sum(map(float, re.findall(rf"^{metric} (\S+)$", text, re.M))))


@dataclass(frozen=True)
class StartedServer:
    """A server's process, which may not answer yet."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path


@pytest.fixture(scope="session")
def started_server(
    vllm_python: Path, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartedServer]:
    """A server of the tiny model on a free port of this machine; stopped at the end.

    It takes a minute to load, in which a test that does not ask it may run.
    """
    log = tmp_path_factory.mktemp("server") / "server.log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # `vllm serve` does not work here: it looks for a package of the name vllm.
    command = [str(vllm_python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny_vlm)]
    command += ["--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "16384", "--max-num-seqs", "8"]
    command += ["--limit-mm-per-prompt", '{"image": 8, "video": 1}']
    # A random model would write blanks for ever.
    command += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, env=vllm_environment(), cwd=ROOT, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield StartedServer(server, port, log)
    finally:
        _stop(server)


@pytest.fixture(scope="session")
def vllm_server(started_server: StartedServer) -> VllmServer:
    """The server, once it answers; fails with the end of its log when it dies or takes too long."""
    server, address = started_server.process, f"http://127.0.0.1:{started_server.port}"
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return VllmServer(f"{address}/v1", NAME)
        except (urllib.error.URLError, OSError):
            pass
        try:
            server.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            if time.monotonic() < deadline:
                continue
        tail = started_server.log.read_text(errors="replace")[-5000:]
        pytest.fail(f"vLLM's server did not start (exit status {server.poll()}):\n{tail}")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """The server and the processes that it started, which are all of its own process group."""
    for how, seconds in ((signal.SIGTERM, 30), (signal.SIGKILL, 30)):
        try:
            os.killpg(server.pid, how)
            server.wait(timeout=seconds)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
    server.wait(timeout=30)
