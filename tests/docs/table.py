"""What of the documentation's commands is not run as it stands: why, and what is checked instead."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli

from pipelines.cli.app import app
from tests.conftest import ROOT
from trainer.config import load_config

NO_GPU_PACKAGES = "profile gpu: the package insightface is not installed here"


@dataclass(frozen=True)
class NotRun:
    """A command that no test can run: the reason, and the check that is made with it instead."""

    reason: str
    instead: Callable[[str], None]


@dataclass(frozen=True)
class Ends:
    """A command that is run and ends with an error where there is no GPU and no weights: the reason, its exit
    status, and what it must say."""

    reason: str
    status: int
    says: tuple[str, ...]


def accepted_by_ray(command: str) -> None:
    """Ray's own command line takes these words; nothing is started."""
    name, *words = shlex.split(command.removesuffix("&"))
    assert name == "ray"
    _parse(ray_cli, name, words)


def _parse(command: Any, name: str, words: list[str]) -> None:
    context = command.make_context(name, list(words))
    if hasattr(command, "resolve_command"):
        below_name, below, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        _parse(below, below_name, rest)


def describes_a_cluster(command: str) -> None:
    """Ray takes the words, and the file in them is valid by Ray's own schema."""
    accepted_by_ray(command)
    text = yaml.safe_load((ROOT / shlex.split(command)[2]).read_text())
    validate_config(prepare_config(text))


def is_a_target(command: str) -> None:
    """The Makefile has it."""
    make, target = command.split()
    assert make == "make" and re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def installed_on_every_worker(command: str) -> None:
    """The same package is installed by the two files that describe clusters."""
    (wanted,) = [word for word in shlex.split(command)[3:] if not word.startswith("-")]
    assert Requirement(wanted).name in ("cotracker", "onnxruntime-gpu")
    for file in ("ray_cluster.yaml", "deploy/Dockerfile"):
        assert wanted in (ROOT / file).read_text(), file


def is_how_the_tests_start_vllm(command: str) -> None:
    """`tests/support/vllm_server.py` starts a tiny model of that kind with this module and these options."""
    started = (ROOT / "tests" / "support" / "vllm_server.py").read_text()
    _, dash_m, module, *words = shlex.split(command)
    options = [word for word in words if word.startswith("--")]
    assert dash_m == "-m" and options == ["--model", "--port"]
    assert all(f'"{word}"' in started for word in ("-m", module, *options))
    assert (
        "Qwen2_5_VL" in (ROOT / "tests" / "support" / "tiny_vlm.py").read_text() and "Qwen2.5-VL" in words[1]
    )


def is_a_command_of_ours(command: str) -> None:
    """Our own command line takes these words; nothing is started."""
    name, *words = shlex.split(command)
    assert name == "interavatar"
    _parse(typer.main.get_command(app), name, words)


def is_a_configuration(command: str) -> None:
    """The file is valid."""
    load_config(ROOT / shlex.split(command)[3])


NOT_RUN = {
    "make demo": NotRun("tests/pipelines/cli/test_terminal.py runs it on a terminal", is_a_target),
    "make test": NotRun("it would run itself", is_a_target),
    "make test-fast": NotRun("it sets up the environment that the tests run in", is_a_target),
    "make chaos": NotRun("tests/pipelines/engine/test_chaos.py disturbs fewer runs", is_a_target),
    "make corpus": NotRun("tests/media/test_corpus.py takes a sample of the same files", is_a_target),
    "make fuzz": NotRun("tests/media/test_fuzz.py breaks fewer files in the same way", is_a_target),
    "make check": NotRun("it sets up the environment that the tests run in", is_a_target),
    "make docs": NotRun("test_docs.py compares the pages that it writes", is_a_target),
    "ray start --head": NotRun(
        "it would outlive the tests; the head that they share is started by it, in the foreground",
        accepted_by_ray,
    ),
    "ray up ray_cluster.yaml": NotRun("starts machines in a cloud", describes_a_cluster),
    "ray dashboard ray_cluster.yaml &": NotRun("there is no such cluster", describes_a_cluster),
    "interavatar review out": NotRun(
        "it serves until it is stopped; tests/pipelines/cli/test_review.py starts and stops it",
        is_a_command_of_ours,
    ),
    "interavatar train --config configs/train/tiny.yaml --set stage=self_forcing --set init=tiny "
    "--set output=tiny_live": NotRun("tests/trainer/test_self_forcing.py distils one", is_a_configuration),
    "interavatar live --checkpoint tiny_live --image portrait.jpg": NotRun(
        "it serves until it is stopped; tests/pipelines/cli/test_live.py starts and stops it",
        is_a_command_of_ours,
    ),
    **{
        f"interavatar train --config configs/train/{name}.yaml": NotRun(
            "no weights of Wan", is_a_configuration
        )
        for name in ("wan_stage2", "wan_ode", "wan_stage3")
    },
    (
        "uv pip install --no-deps 'cotracker @ git+https://github.com/facebookresearch/co-tracker.git"
        "@82e02e8029753ad4ef13cf06be7f4fc5facdda4d'"
    ): NotRun("comes over the network", installed_on_every_worker),
    "uv pip install --reinstall --no-deps 'onnxruntime-gpu>=1.31,<1.32'": NotRun(
        "comes over the network, and would break this environment", installed_on_every_worker
    ),
    "python -m vllm.entrypoints.openai.api_server --model Qwen/Qwen2.5-VL-7B-Instruct --port 8000": NotRun(
        "16 GB of weights and a GPU; tests/pipelines/test_vllm_pipelines.py asks a server of a tiny model",
        is_how_the_tests_start_vllm,
    ),
}

ENDS = {
    "interavatar doctor --profile gpu": Ends(
        "no packages of the gpu profile here, and no GPU",
        1,
        ("no  insightface: not installed; ", "no  gpu: ", "ok  model dwpose: dwpose@"),
    ),
    "interavatar doctor --profile gpu --set models=/shared/models": Ends(
        "no packages of the gpu profile here, and no GPU",
        1,
        ("no  vllm: not installed; ", "ok  model syncnet: syncnet@"),
    ),
    "interavatar doctor --profile gpu --output /shared/first": Ends(
        "no packages of the gpu profile here, and no GPU",
        1,
        ("64 MiB written and made safe at", "no  gpu: ", "will not run; first gpu: "),
    ),
    "interavatar run talking_head --profile gpu --input /shared/videos --output /shared/first "
    "--limit 20": Ends("a model's id names its package's version", 2, (NO_GPU_PACKAGES,)),
    "interavatar plan talking_head --profile gpu --input /shared/videos --set cluster.gpus=8": Ends(
        "a model's id names its package's version", 2, (NO_GPU_PACKAGES,)
    ),
    "interavatar run synthetic_interactions --input portraits/ --output out --profile gpu "
    "--set reaction_writer.endpoint=https://api.openai.com/v1 --set reaction_writer.model=gpt-5-mini": Ends(
        "a model's id names its package's version; tests/models/test_profile.py runs it",
        2,
        (NO_GPU_PACKAGES,),
    ),
    "interavatar models list --models /shared/models": Ends(
        "the store is empty", 1, ("2 of 2 files missing or wrong", "yolox_l.onnx is missing; place: ")
    ),
    "ray job submit --working-dir . -- python -m pipelines run talking_head --profile gpu "
    "--input /shared/videos --output /shared/out --set cluster.cpus=1088 --set cluster.gpus=32": Ends(
        "submitted in earnest; the job has no packages of the gpu profile",
        1,
        ("submitted", NO_GPU_PACKAGES, "failed"),
    ),
    "interavatar models fetch --for train-wan": Ends(
        "the files that are served are some bytes each",
        1,
        ("wan2.1-encoders: fetched", "not an image-to-video transformer of Wan 2.1"),
    ),
    "interavatar models fetch --for train-ltx": Ends(
        "the files that are served are some bytes each",
        1,
        ("ltx-video-2b: fetched", "transformer/config.json: not readable"),
    ),
    "interavatar train --config configs/train/wan_stage1.yaml": Ends(
        "the shards are of toys, whose features are narrower than a face embedder's",
        2,
        ("error: identity of toy face is 4 wide, model.identity_dim is 512: set it to",),
    ),
    **{
        command: Ends(
            "as for the command above",
            2,
            ("error: identity of toy face is 4 wide, model.identity_dim is 512: set it to",),
        )
        for command in (
            "interavatar latents --config wan_stage1 --output latents --set data.windows=4 --batch 4",
            "interavatar train --config configs/train/wan_stage1.yaml --set data.latents=latents "
            "--set data.windows=4",
        )
    },
    "interavatar export-model training/wan_stage2 --output interavatar-wan --dtype bfloat16": Ends(
        "nothing was trained", 2, ("error: training/wan_stage2: no complete checkpoint here",)
    ),
    "interavatar sample --checkpoint training/wan_stage2 --image face.png --audio voice.wav --at 0.5,0.4 "
    "--interaction poke --output clip.mp4": Ends(
        "nothing was trained", 2, ("error: --checkpoint training/wan_stage2: nothing there",)
    ),
    "interavatar sample --checkpoint training/wan_stage2 --cases test/cases.jsonl --skip-guidance 1 "
    "--output ours": Ends(
        "nothing was trained; tests/pipelines/cli/test_sample.py makes clips of cases",
        2,
        ("error: --checkpoint training/wan_stage2: nothing there",),
    ),
    "interavatar live --checkpoint training/wan_stage3 --image face.png": Ends(
        "nothing was trained", 2, ("error: --checkpoint training/wan_stage3: nothing there",)
    ),
}
