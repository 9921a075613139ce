"""The files that describe clusters: valid by their tools' own rules, and true to this project."""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from typer.testing import CliRunner

from configs.reading import parse, parse_overrides
from pipelines.cli.app import app
from pipelines.doctor.environments import WAYS_OUT
from pipelines.engine.pipeline import Resources
from pipelines.engine.placement import place
from pipelines.engine.settings import Settings
from tests.conftest import PACKAGES, ROOT
from tests.support.cluster_kuberay import Container, RayJob
from tests.support.object_store import s3_server


@pytest.fixture(scope="module")
def launcher() -> Any:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


@pytest.fixture(scope="module")
def job() -> Any:
    return yaml.safe_load((ROOT / "deploy" / "rayjob.yaml").read_text())


def test_the_launcher_file_is_valid_by_rays_own_schema(launcher: Any) -> None:
    validate_config(launcher)
    validate_config(prepare_config(launcher))
    with pytest.raises(Exception, match="setup_command"):
        validate_config(launcher | {"setup_command": []})


def test_the_launcher_file_makes_head_cpu_and_gpu_machines_that_show_a_token(launcher: Any) -> None:
    types = launcher["available_node_types"]
    assert set(types) == {"head", "cpu_worker", "gpu_worker"} and launcher["head_node_type"] == "head"
    assert types["head"]["resources"] == {"CPU": 0} and types["head"]["max_workers"] == 0
    assert sum(t["max_workers"] for t in types.values()) <= launcher["max_workers"]
    starts = launcher["head_start_ray_commands"] + launcher["worker_start_ray_commands"]
    for start in (command for command in starts if "ray start" in command):
        assert "RAY_AUTH_MODE=token" in start and "INTERAVATAR_MODELS=/shared/models" in start
        assert {"VLLM_USE_FLASHINFER_SAMPLER=0", "VLLM_USE_DEEP_GEMM=0"} <= set(start.split())
    assert "/home/ubuntu/.ray/auth_token" in launcher["file_mounts"]
    assert "cotracker @ git" in "\n".join(launcher["setup_commands"])  # the driver names its version
    setup = "\n".join(launcher["setup_commands"] + launcher["worker_setup_commands"])
    assert "cd /home/ubuntu/interavatar && ~/.local/bin/uv pip install" in setup and "/shared" in setup
    assert "cotracker @ git" in setup and setup.index("onnxruntime-gpu") > setup.index("deploy/locks")


def test_rays_launcher_makes_these_machines_on_aws(
    launcher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what the extra `aws` installs, against a server that speaks AWS's protocols."""
    import boto3
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    monkeypatch.setenv("HOME", str(tmp_path))  # a new key for ssh is put there
    (tmp_path / ".ssh").mkdir()
    with s3_server():
        ec2 = boto3.client("ec2", region_name=launcher["provider"]["region"])
        images = [image["ImageId"] for image in ec2.describe_images()["Images"][:2]]
        text = yaml.safe_dump(launcher).replace("GPU-AMI-ID", images[1]).replace("AMI-ID", images[0])
        filled = yaml.safe_load(text)
        made = boto3.client("iam").create_instance_profile(InstanceProfileName="ray")["InstanceProfile"]
        role = {"Arn": made["Arn"]}  # without one Ray makes it and waits 15 s
        filled["available_node_types"]["head"]["node_config"]["IamInstanceProfile"] = role
        config = bootstrap_aws(prepare_config(filled))
        types = config["available_node_types"]
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for name in types:
            provider.create_node(types[name]["node_config"], {"ray-node-type": name}, 1)
        found = [one for made in ec2.describe_instances()["Reservations"] for one in made["Instances"]]
    assert {one["InstanceType"]: one["ImageId"] for one in found} == {
        "m7i.xlarge": images[0],
        "m7i.8xlarge": images[0],
        "p5.48xlarge": images[1],
    }


def test_the_rayjob_is_valid(job: Any) -> None:
    made = RayJob.model_validate(job)
    with pytest.raises(ValidationError, match="minReplica"):
        spoilt = yaml.safe_load(yaml.safe_dump(job))
        spoilt["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 1
        RayJob.model_validate(spoilt)
    cluster = made.spec.rayClusterSpec
    assert cluster.rayVersion == version("ray")
    submitter = made.spec.submitterPodTemplate
    assert submitter is not None and cluster.autoscalerOptions is not None
    pods = [submitter, cluster.headGroupSpec.template, *(w.template for w in cluster.workerGroupSpecs)]
    containers: list[Container] = [one for pod in pods for one in pod.spec.containers]
    assert cluster.authOptions is not None and cluster.authOptions.mode == "token"
    assert not any(variable.name.startswith("RAY_AUTH") for one in containers for variable in one.env)
    assert len({one.image for one in containers}) == 1


def test_the_rayjobs_command_is_one_of_ours_and_says_how_far_its_cluster_grows(job: Any) -> None:
    python, dash_m, package, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert (python, dash_m, package) == ("python", "-m", "pipelines")
    help_text = CliRunner().invoke(app, [arguments[0], "--help"]).output
    assert all(option in help_text for option in arguments if option.startswith("--"))
    overrides = [value for option, value in pairwise(arguments) if option == "--set"]
    settings = parse(Settings, parse_overrides(overrides), "deploy/rayjob.yaml")
    cpus = gpus = 0
    for group in RayJob.model_validate(job).spec.rayClusterSpec.workerGroupSpecs:
        resources = group.template.spec.containers[0].resources
        assert resources is not None
        cpus += group.maxReplicas * int(resources.limits["cpu"])
        gpus += group.maxReplicas * int(resources.limits.get("nvidia.com/gpu", "0"))
    assert (settings.cluster.cpus, settings.cluster.gpus) == (cpus, gpus)
    pools = place([([], Resources(cpus=2, gpus=1))], 100_000, [{"CPU": 0.0}], cpus, gpus)
    assert [(pool.start, pool.size) for pool in pools] == [(1, gpus)]


def test_the_image_holds_what_the_job_and_the_profiles_name() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    for package in PACKAGES:
        assert f"COPY {package} {package}" in text
    assert text.index("onnxruntime-gpu") > text.index("-r deploy/locks/gpu.txt")
    (variables,) = re.findall(r"^ENV (.*)", text, re.MULTILINE)
    assert {"VLLM_USE_FLASHINFER_SAMPLER=0", "VLLM_USE_DEEP_GEMM=0"} <= set(variables.split())


def test_every_way_installs_the_same_cotracker_and_nothing_with_it() -> None:
    found = {}
    for file in ("deploy/Dockerfile", "ray_cluster.yaml", "docs/cluster.md"):
        text = (ROOT / file).read_text()
        (found[file],) = re.findall(r"cotracker @ git\+https://[^\s'\"]*", text)
    found["doctor"] = WAYS_OUT["cotracker"].partition("'")[2].rstrip("'")
    (source,) = set(found.values())
    assert re.fullmatch(r".*/facebookresearch/co-tracker\.git@[0-9a-f]{40}", source)
    assert "--no-deps" in WAYS_OUT["cotracker"]


def test_the_image_and_the_cluster_hold_what_their_programs_import() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {extra: {re.split(r"[^\w-]", line)[0] for line in lines} for extra, lines in extras.items()}
    assert "tensorboard" in names["train"]  # trainer/scalars.py writes with it
    assert "boto3" in names["aws"]  # Ray's launcher imports it
