"""What nvidia-smi says, as its documentation describes it, and what follows from it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipelines.doctor import gpus
from pipelines.doctor.gpus import Card, NoGpuError, capability_results, cards, driver_of, driver_result
from pipelines.doctor.here import Asked, needs_of, this_machine
from pipelines.requests import load_profile, settings_of

H100 = "NVIDIA H100 80GB HBM3, 81559, 80994, {driver}, 9.0"
BUILT_FOR = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")  # torch 2.13 for CUDA 13.0

Smi = Callable[[str], None]


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    """Put a program called nvidia-smi, with this text of Python, on an otherwise empty PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(code: str) -> None:
        (folder / "nvidia-smi").write_text(f"#!{sys.executable}\nimport sys\n{code}\n")
        (folder / "nvidia-smi").chmod(0o755)

    return put


def card(capability: tuple[int, int]) -> Card:
    return Card("a card", 80 * 2**30, 80 * 2**30, "580.65.06", capability)


def said(results: Sequence[gpus.Result]) -> list[tuple[bool, str]]:
    return [(result.ok, result.said) for result in results]


def test_cards_are_read_with_their_memory_and_generation(smi: Smi) -> None:
    smi(f"print({H100.format(driver='580.65.06')!r}); print('NVIDIA GB10, [N/A], [N/A], 580.95.05, 12.1')")
    first, second = cards()
    assert first == Card("NVIDIA H100 80GB HBM3", 81559 << 20, 80994 << 20, "580.65.06", (9, 0))
    assert second == Card("NVIDIA GB10", None, None, "580.95.05", (12, 1))
    assert [result.said for result in gpus.card_results([first, second])] == [
        "NVIDIA H100 80GB HBM3, 79.1 of 79.6 GiB free, driver 580.65.06, compute capability 9.0",
        "NVIDIA GB10, ? of ? GiB free, driver 580.95.05, compute capability 12.1",
    ]


def test_a_driver_that_knows_no_compute_capability_is_asked_without(smi: Smi) -> None:
    smi(
        "if 'compute_cap' in sys.argv[1]:\n"
        "    sys.exit('Field \"compute_cap\" is not a valid field to query.')\n"
        "print('Tesla V100-SXM2-16GB, 16160, 16160, 450.80.02')"
    )
    assert cards() == [Card("Tesla V100-SXM2-16GB", 16160 << 20, 16160 << 20, "450.80.02", None)]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "print('Failed to initialize NVML: Driver/library version mismatch'); sys.exit(18)",
            "nvidia-smi: Failed to initialize NVML: Driver/library version mismatch",
        ),
        ("print('No devices were found')", "nvidia-smi lists none"),
        ("", "nvidia-smi lists none"),
    ],
)
def test_a_driver_without_an_answer_is_told_in_its_own_words(smi: Smi, code: str, words: str) -> None:
    smi(code)
    with pytest.raises(NoGpuError, match=words):
        cards()


def test_no_nvidia_smi_is_no_driver_unless_the_kernel_has_one(
    smi: Smi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoGpuError, match="nvidia-smi is not there; no NVIDIA driver"):
        cards()
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "version")
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)\n"
        "GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)\n"
    )
    with pytest.raises(NoGpuError, match=r"driver 580\.65\.06 is loaded but nvidia-smi is not on PATH"):
        cards()


def test_the_version_of_the_closed_kernel_module_is_read_too() -> None:
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"
    assert driver_of(text) == "535.104.05"
    assert driver_of("something else") is None


def test_the_driver_is_compared_with_the_cuda_of_torch() -> None:
    old = driver_result("570.86.15", "13.0")
    assert not old.ok and old.said == "570.86.15; torch's CUDA 13.0 needs 580 or newer"
    assert driver_result("580.65.06", "13.0").ok and driver_result("570.86.15", "12.9").ok
    assert driver_result("580.65.06", "14.0").note
    assert not driver_result("580.65.06", None).ok  # torch's build for a CPU


def test_cards_that_torch_has_no_kernels_for_are_refused() -> None:
    v100 = said(capability_results([card((7, 0))], BUILT_FOR, bfloat16=False, flashinfer=True))
    assert v100 == [(False, f"torch was built for {', '.join(BUILT_FOR)}")]
    ada = capability_results([card((8, 9))], BUILT_FOR, bfloat16=True, flashinfer=True)
    assert said(ada) == [(True, "torch has kernels for it")]
    later = capability_results([card((13, 0))], ("sm_120",), bfloat16=True, flashinfer=True)
    assert not later[0].ok
    assert capability_results([card((13, 0))], ("compute_120",), bfloat16=True, flashinfer=True)[0].ok


def test_cards_before_ampere_take_no_bfloat16() -> None:
    t4 = said(capability_results([card((7, 5)), card((7, 5))], BUILT_FOR, bfloat16=True, flashinfer=True))
    assert t4 == [(False, "models in bfloat16 need 8.0 (Ampere) or newer")]
    assert capability_results([card((7, 5))], BUILT_FOR, bfloat16=False, flashinfer=True)[0].ok


def test_blackwell_needs_kernels_of_flashinfer_for_vllm() -> None:
    results = capability_results([card((10, 0))], BUILT_FOR, bfloat16=True, flashinfer=False)
    assert not results[0].ok and "flashinfer-cubin" in results[0].said
    assert capability_results([card((10, 0))], BUILT_FOR, bfloat16=True, flashinfer=True)[0].ok
    assert capability_results([card((9, 0))], BUILT_FOR, bfloat16=True, flashinfer=False)[0].ok


def test_the_gpu_profile_meets_an_old_driver_first(smi: Smi, tmp_path: Path) -> None:
    """With the packages that are here: torch's build for CUDA 13, and ONNX Runtime's for a CPU."""
    profile = load_profile("gpu")
    asked = Asked(profile, settings_of(profile), wants_gpu=True)
    needs = needs_of(asked, tmp_path)
    bare = this_machine(asked, needs, None)
    assert [(r.what, r.ok) for r in bare if r.what == "gpu"] == [("gpu", False)]
    smi(f"print({H100.format(driver='570.86.15')!r})")
    results = {result.what: result for result in this_machine(asked, needs, None)}
    order = [what for what, result in results.items() if not result.ok]
    assert order[0] == "driver" and results["driver"].said.startswith("570.86.15; torch's CUDA 13")
    assert not results["torch on the GPU"].ok and results["torch on the GPU"].said.endswith("sees no GPU")
    assert "pip install onnxruntime-gpu" in results["onnxruntime on the GPU"].said
    assert not results["C compiler"].ok and "apt-get install gcc" in results["C compiler"].said
    assert results["compute capability 9.0"].ok
    vllm = results["on the GPU: qwen2.5-vl-7b-instruct and 2 more"]
    assert vllm.said == "weights 17.8 GB, 0.75 of a card is 64.1 GB, vLLM takes 0.6 of it all: 51.3 GB"
    wan = results["on the GPU: wan2.2-i2v-a14b"]
    assert wan.ok and "all of it stays on the card" in wan.said
