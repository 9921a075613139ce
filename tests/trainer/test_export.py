"""A checkpoint as a folder of diffusers and back: the same weights, the same clip, a start for training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from PIL import Image
from safetensors.torch import load_file, save_file

from configs.errors import UsageError
from configs.reading import SettingsError
from tests.support.checkpoints import save, state_of
from tests.support.tiny_networks import conditions_of, config_of, frames_of
from trainer.backbones import BACKBONES
from trainer.checkpoint import CheckpointError, MissingCheckpoint, find, load_weights, read_info
from trainer.config import TrainConfig, load_config
from trainer.export import export_model
from trainer.flow import sampling_sigmas
from trainer.generate import load_for_sampling
from trainer.guidance import Guidance
from trainer.networks.causal import load_causal
from trainer.networks.load import WeightsError, backbone_of, load_backbone
from trainer.networks.tiny import model_folder
from trainer.start import starting_checkpoint


def config_for(output: Path, backbone: str, **more: Any) -> TrainConfig:
    step = BACKBONES[backbone].frame_step
    buckets = {"fps": 25, "step": step, "min_frames": step + 1, "max_frames": 4 * step + 1, "multiple": 32}
    return TrainConfig.model_validate(
        {
            "name": f"tiny-{backbone}",
            "output": str(output),
            "steps": 1,
            "shift": 3.0,
            "data": {"shards": ["none"], "buckets": buckets},
            "model": config_of(backbone).model_dump(),
        }
        | more
    )


def saved(config: TrainConfig) -> Path:
    """A checkpoint whose adapters are not zero."""
    folder = model_folder(config.model, Path(config.output))
    torch.manual_seed(0)
    causal = config.stage == "self_forcing"
    network: Any = load_causal(config, folder) if causal else load_backbone(config.model, folder, 25)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return save(config, 1, state_of(network), {"embedders": {"face_embedding": "arcface@1"}})


@pytest.fixture(scope="module", params=BACKBONES)
def backbone(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(config_for(tmp_path_factory.mktemp(backbone) / "run", backbone))


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = export_model(checkpoint.parents[1], tmp_path_factory.mktemp("made") / "model")
    return made.rename(made.with_name("moved"))  # it stands by itself


def test_diffusers_loads_it(backbone: str, checkpoint: Path, exported: Path) -> None:
    kinds = backbone_of(backbone)
    trained = load_for_sampling(checkpoint)
    transformer = kinds.transformer.from_pretrained(exported, subfolder="transformer")
    mine = trained.model.transformer.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in transformer.state_dict().items())
    pipeline: Any = DiffusionPipeline.from_pretrained(exported)
    assert type(pipeline).__name__ == kinds.pipeline
    assert all(torch.equal(mine[name], value) for name, value in pipeline.transformer.state_dict().items())
    # Its scheduler goes where sampling goes.
    scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / 4, 4).tolist())
    assert torch.allclose(scheduler.sigmas, sampling_sigmas(4, 3.0).float(), atol=1e-6)
    pipeline.set_progress_bar_config(disable=True)
    picture = Image.new("RGB", (64, 64), (200, 100, 50))
    size = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 1, "guidance_scale": 1.0}
    words = {"image": picture, "prompt": "She laughs.", "output_type": "np"} | size
    frames = pipeline(**words, max_sequence_length=16).frames
    assert frames.shape == (1, 9, 64, 64, 3) and (frames == frames).all()


def test_the_trainer_takes_it_back_bit_for_bit(backbone: str, checkpoint: Path, exported: Path) -> None:
    one, other = load_for_sampling(checkpoint), load_for_sampling(exported)
    before, after = one.model.state_dict(), other.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    assert one.encoders.id == other.encoders.id and other.info["embedders"] == {"face_embedding": "arcface@1"}
    given = conditions_of(backbone)
    clips = [t.sample(given, frames_of(backbone), steps=2, guidance=Guidance(2.0)) for t in (one, other)]
    assert torch.equal(*clips) and clips[0].float().std() > 1
    assert other.config.shift == 3.0 and find(exported) == exported
    assert read_info(exported)["step"] == 1


def test_training_begins_with_it(backbone: str, checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    config = config_for(tmp_path, backbone, init=str(exported))
    assert starting_checkpoint(config) == exported
    folder = model_folder(config.model, tmp_path)
    networks = [load_backbone(config.model, folder, 25) for _ in range(2)]
    for network, source in zip(networks, (checkpoint, exported), strict=True):
        load_weights(source, network)
    before, after = (network.state_dict() for network in networks)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_half_the_bytes_on_demand(backbone: str, checkpoint: Path, tmp_path: Path) -> None:
    made = export_model(checkpoint, tmp_path / "half", torch.bfloat16)
    files = [*(made / "transformer").glob("*.safetensors"), *(made / "adapters").glob("*.safetensors")]
    weights = {n: w for file in files for n, w in load_file(file).items()}
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    whole, half = load_for_sampling(checkpoint).model, load_for_sampling(made).model
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight.bfloat16().float(), half.state_dict()[name]), name
    assert "bfloat16" in (made / "README.md").read_text()
    vae = load_file(next((made / "vae").glob("*.safetensors")))
    assert {weight.dtype for weight in vae.values()} == {torch.float32}  # the encoders stay as they are


def test_the_card_says_what_it_is_made_of(backbone: str, exported: Path, tmp_path: Path) -> None:
    card = (exported / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head == {"library_name": "diffusers", "pipeline_tag": "image-to-video", "license": "other"}
    assert "It began with random weights" in card and "- face_embedding: arcface@1" in card
    assert f"# {backbone_of(backbone).pipeline}" in card and "its licence is not known here" in card
    said = json.loads((exported / "adapters" / "config.json").read_text())
    assert said["backbone"] == backbone and said["identity_dim"] == 10 and said["fps"] == 25
    # With a folder that was fetched.
    source = {"model": "w@1", "repository": "who/what", "revision": "abc", "licence": "Apache-2.0"}
    base = tmp_path / "base"
    base.symlink_to(exported)
    again = export_model(exported, tmp_path / "again", folder=base)
    assert read_info(again)["embedders"] == {"face_embedding": "arcface@1"}
    (again / "sources.yaml").write_text(yaml.safe_dump({"vae": source, "transformer": source}))
    (again / "README.md").write_text("A card of one's own.")
    named = export_model(again, tmp_path / "named")
    card = (named / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "apache-2.0" and head["base_model"] == ["who/what"]
    assert "| vae | who/what @ abc | Apache-2.0  |" in card and (named / "sources.yaml").is_file()


def test_what_cannot_be_used_is_said(backbone: str, checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is there already"):
        export_model(checkpoint, exported)
    with pytest.raises(CheckpointError, match="no complete checkpoint here"):
        export_model(tmp_path, tmp_path / "new")
    with pytest.raises(WeightsError, match=r"transformer: no config\.json of"):
        export_model(checkpoint, tmp_path / "new", folder=tmp_path)
    assert not any(tmp_path.iterdir())
    copy = export_model(checkpoint, tmp_path / "copy")
    file = copy / "adapters" / "adapters.safetensors"
    weights = load_file(file)
    weights.pop(min(weights))
    save_file(weights, file)
    with pytest.raises(CheckpointError, match=r"adapters.safetensors has \d+ of \d+ bytes"):
        load_for_sampling(copy)
    info = read_info(exported) | {"files": {}}
    (copy / "trainer.json").write_text(json.dumps(info))
    with pytest.raises(WeightsError, match="is of another network than the configuration's"):
        load_for_sampling(copy)


def test_a_distilled_network_too(tmp_path: Path) -> None:
    more = {"stage": "self_forcing", "init": "stage2", "distill": {"shift": 4.0}}
    checkpoint = saved(config_for(tmp_path / "run", "wan", **more))
    made = export_model(checkpoint, tmp_path / "made")
    one, other = load_for_sampling(checkpoint), load_for_sampling(made)
    assert other.is_distilled
    given = conditions_of("wan")
    assert torch.equal(*(t.sample(given, frames_of("wan")) for t in (one, other)))
    assert json.loads((made / "scheduler" / "scheduler_config.json").read_text())["shift"] == 4.0


def test_a_stage_before_that_is_missing_is_said(tmp_path: Path) -> None:
    config = load_config("wan_stage2", [f"init={tmp_path / 'stage1'}"])
    with pytest.raises(MissingCheckpoint, match=r"init: .*stage1: no complete checkpoint here; this stage"):
        starting_checkpoint(config)
    other = saved(config_for(tmp_path / "run", "ltx"))
    with pytest.raises(SettingsError, match=r"is of backbone ltx, model.backbone is wan"):
        starting_checkpoint(config.model_copy(update={"init": str(other)}))
    assert starting_checkpoint(config.model_copy(update={"init": None})) is None
