"""The driver and the cards of this machine, and whether the packages can use them."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.doctor.result import Result

FIELDS = ("name", "memory.total", "memory.free", "driver_version", "compute_cap")
DRIVER = Path("/proc/driver/nvidia/version")
OTHERWISE = "run this on a machine with a GPU, or give --set device=cpu"
# The oldest driver, by the CUDA that a package was built for: "CUDA Toolkit and Minimum Required Driver
# Version for CUDA Minor Version Compatibility" in NVIDIA's release notes of the CUDA Toolkit.
OLDEST_DRIVER: Mapping[int, int] = {11: 450, 12: 525, 13: 580}
# bfloat16 came with Ampere; Wan is loaded in it, and vLLM refuses a model that is in it on older cards.
BFLOAT16 = (8, 0)
# vLLM prefers FlashInfer's attention there, which is compiled when it starts.
BLACKWELL = 10
# Prints, as JSON, what torch was built for and what it sees.
TORCH = """
import json, torch
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "sees": torch.cuda.is_available(),
    "built_for": torch._C._cuda_getArchFlags().split() if torch.version.cuda else [],
    "cards": torch.cuda.device_count(),
}))
"""
# Runs a network of one node on the GPU, with the libraries of CUDA and cuDNN that PyTorch's packages carry.
ONNX = """
import json, onnxruntime as o
there, used = "CUDAExecutionProvider" in o.get_available_providers(), []
if there:
    from onnx import TensorProto, helper as h
    ends = [h.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = h.make_graph([h.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    o.preload_dlls()
    options = o.SessionOptions()
    options.log_severity_level = 3
    session = o.InferenceSession(model.SerializeToString(), options, providers=["CUDAExecutionProvider"])
    used = session.get_providers()
print(json.dumps({"there": there, "used": used}))
"""


@dataclass(frozen=True)
class Card:
    """One GPU. total, free: bytes of its memory, None where it shares the computer's. capability: (8, 0)."""

    name: str
    total: int | None
    free: int | None
    driver: str
    capability: tuple[int, int] | None


class NoGpuError(RuntimeError):
    """There is none, or its driver does not answer; the message says how that was found."""


def cards() -> list[Card]:
    """What nvidia-smi lists.

    Raises:
        NoGpuError: it lists none, fails, or is not there.
    """
    try:
        said = _ask(FIELDS)
    except subprocess.CalledProcessError:  # a driver of before 470 knows no compute_cap
        said = _ask(FIELDS[:-1])
    found = [card for row in csv.reader(said.splitlines(), skipinitialspace=True) if (card := _card(row))]
    if not found:
        raise NoGpuError("nvidia-smi lists none")
    return found


def _ask(names: Sequence[str]) -> str:
    command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except subprocess.CalledProcessError as error:
        if len(names) == len(FIELDS):
            raise
        words = f"{error.stdout}\n{error.stderr}".strip().splitlines() or [f"exit status {error.returncode}"]
        raise NoGpuError(f"nvidia-smi: {words[0]}") from None
    except FileNotFoundError:
        version = driver_of(DRIVER.read_text()) if DRIVER.is_file() else None
        raise NoGpuError(
            "nvidia-smi is not there; no NVIDIA driver?"
            if version is None
            else f"driver {version} is loaded but nvidia-smi is not on PATH; a container needs the NVIDIA "
            "Container Toolkit with the capability `utility`"
        ) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise NoGpuError(f"nvidia-smi: {type(error).__name__}") from None


def _card(row: Sequence[str]) -> Card | None:
    """A line of nvidia-smi; what a card does not tell is "[N/A]" or "[Not Supported]"."""
    if len(row) < len(FIELDS) - 1:
        return None
    name, total, free, driver, capability = (*row, "")[: len(FIELDS)]
    version = re.fullmatch(r"(\d+)\.(\d+)", capability.strip())
    return Card(
        name.strip(),
        int(total) * 2**20 if total.strip().isdigit() else None,
        int(free) * 2**20 if free.strip().isdigit() else None,
        driver.strip(),
        (int(version[1]), int(version[2])) if version else None,
    )


def driver_of(text: str) -> str | None:
    """The version in /proc/driver/nvidia/version."""
    found = re.search(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", text, re.MULTILINE)
    return found[1] if found else None


def card_results(found: Sequence[Card]) -> list[Result]:
    """One for each card."""
    return [
        Result(
            f"gpu {number}",
            True,
            f"{card.name}, {_gib(card.free)} of {_gib(card.total)} GiB free, driver {card.driver}"
            + (f", compute capability {card.capability[0]}.{card.capability[1]}" if card.capability else ""),
        )
        for number, card in enumerate(found)
    ]


def _gib(size: int | None) -> str:
    return "?" if size is None else f"{size / 2**30:.1f}"


def driver_result(driver: str, cuda: str | None) -> Result:
    """Whether the driver is new enough for the CUDA that torch was built for ("13.0")."""
    if cuda is None:
        return Result("driver", False, "torch is built for the CPU alone; install its CUDA build from PyPI")
    oldest = OLDEST_DRIVER.get(int(cuda.partition(".")[0]))
    release = driver.partition(".")[0]
    if oldest is None or not release.isdigit():
        return Result("driver", True, f"{driver}; not known what CUDA {cuda} needs", note=True)
    said = f"{driver}; torch's CUDA {cuda} needs {oldest} or newer"
    return Result("driver", int(release) >= oldest, said)


def capability_results(
    found: Sequence[Card], built_for: Sequence[str], bfloat16: bool, flashinfer: bool
) -> list[Result]:
    """What speaks against cards of these generations.

    Args:
        found: the cards.
        built_for: what torch's kernels were compiled for, such as sm_90 (and compute_90, which the driver
            compiles for later ones).
        bfloat16: a model is loaded in it.
        flashinfer: vLLM may compile or find FlashInfer's kernels, or is not used.
    """
    results = []
    for capability in sorted({card.capability for card in found if card.capability}):
        what, said = f"compute capability {capability[0]}.{capability[1]}", "torch has kernels for it"
        problem = None
        if built_for and not _runs(capability, built_for):
            problem = f"torch was built for {', '.join(built_for)}"
        elif bfloat16 and capability < BFLOAT16:
            problem = "models in bfloat16 need 8.0 (Ampere) or newer"
        elif capability[0] == BLACKWELL and not flashinfer:
            problem = (
                "vLLM takes FlashInfer's attention here, which it compiles when it starts: install "
                "flashinfer-cubin, or CUDA's nvcc with CUDA_HOME and ninja on PATH"
            )
        results.append(Result(what, problem is None, problem or said))
    return results


def _runs(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Kernels run on their generation's cards of the same or a later minor version; PTX on all later ones."""
    for one in built_for:
        kind, _, number = one.partition("_")
        digits = re.match(r"\d+", number)
        if not digits:
            continue
        major, minor = int(digits[0][:-1]), int(digits[0][-1])
        if kind == "sm" and major == capability[0] and minor <= capability[1]:
            return True
        if kind == "compute" and (major, minor) <= capability:
            return True
    return False


def nvcc() -> str | None:
    """Where FlashInfer would find CUDA's compiler: CUDA_HOME, CUDA_PATH, PATH or /usr/local/cuda."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    found = None if home else shutil.which("nvcc")
    return found or shutil.which(str(Path(home or "/usr/local/cuda") / "bin" / "nvcc"))


def _probe(python: str, code: str, environment: Mapping[str, str] | None) -> dict[str, Any]:
    """What a script says of itself in an interpreter.

    Raises:
        RuntimeError: it fails; the message has its last words.
    """
    command = [python, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from None
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(words[-1])
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def torch_there(python: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What torch of an interpreter was built for and sees: version, cuda, sees, built_for, cards.

    Raises:
        RuntimeError: it does not import.
    """
    return _probe(python, TORCH, environment)


def torch_result(there: Mapping[str, Any]) -> Result:
    """Whether torch can use the GPU."""
    seen = f"{there['cards']} GPUs" if there["sees"] else "no GPU"
    said = f"torch {there['version']} (CUDA {there['cuda']}) sees {seen}"
    return Result("torch on the GPU", bool(there["sees"]), said)


def onnx_result(python: str, environment: Mapping[str, str] | None = None) -> Result:
    """Whether ONNX Runtime runs a network on the GPU."""
    what = "onnxruntime on the GPU"
    try:
        there = _probe(python, ONNX, environment)
    except RuntimeError as error:
        return Result(what, False, str(error))
    if not there["there"]:
        return Result(
            what,
            False,
            "this build runs on the CPU alone; pip uninstall onnxruntime, then pip install onnxruntime-gpu",
        )
    if "CUDAExecutionProvider" not in there["used"]:
        return Result(what, False, "it falls back to the CPU: it finds no GPU, or not CUDA's libraries")
    return Result(what, True, "it runs a network there")
