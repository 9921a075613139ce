"""Checkpoints of random weights: their layout, that they load, learn and are small."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainer.backbones import BACKBONES
from trainer.config import ModelConfig
from trainer.data.batch import Conditions
from trainer.networks.load import WeightsError, backbone_of, load_backbone
from trainer.networks.tiny import model_folder, save_random_model

CONFIG = {"identity_dim": 8, "attribute_dim": 6, "audio_dim": 7, "gradient_checkpointing": False}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("random")
    return {name: save_random_model(base / name, name) for name in BACKBONES}


def conditions_of(backbone: str, count: int, frames: int, height: int, width: int) -> Conditions:
    drawn = torch.Generator().manual_seed(0)
    yes = torch.ones(count, dtype=torch.bool)
    mask = torch.arange(backbone_of(backbone).text_tokens).expand(count, -1) < 9

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn((count, *shape), generator=drawn)

    return Conditions(
        text=normal(mask.shape[1], 32) * mask[..., None],
        text_mask=mask,
        image=normal(17, 32),
        reference=normal(16, 1, height, width),
        image_latents=normal(16, (frames - 1) // backbone_of(backbone).frame_step + 1, height, width),
        known=torch.ones(count, dtype=torch.int64),
        points=torch.full((count, 2), 0.25),
        identity=normal(8),
        attributes=normal(5, 6),
        audio=normal(frames, 7),
        has_points=yes,
        has_identity=yes,
        has_attributes=yes,
        has_audio=yes,
        has_reference=yes,
    )


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_layout_is_the_published_one(folders: dict[str, Path], backbone: str) -> None:
    files = {str(p.relative_to(folders[backbone])) for p in folders[backbone].rglob("*") if p.is_file()}
    for part in ("transformer", "vae"):
        assert {f"{part}/config.json", f"{part}/diffusion_pytorch_model.safetensors"} <= files
    for part in ("text_encoder", "image_encoder"):
        assert {f"{part}/config.json", f"{part}/model.safetensors"} <= files
    assert {"tokenizer/tokenizer.json", "image_processor/preprocessor_config.json"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert sum((folders[backbone] / name).stat().st_size for name in files) < 1_000_000


def test_wan_is_image_to_video_with_a_clip_branch(folders: dict[str, Path]) -> None:
    config = json.loads((folders["wan"] / "transformer" / "config.json").read_text())
    assert (config["in_channels"], config["out_channels"], config["image_dim"]) == (36, 16, 32)
    assert config["added_kv_proj_dim"] == config["num_attention_heads"] * config["attention_head_dim"]


def test_the_seed_decides_and_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    same = [
        save_random_model(tmp_path / name, "wan", seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert torch.equal(torch.rand(3), expected)
    weights: list[dict[str, Any]] = [
        load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors") for folder in same
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_the_folder_of_a_run(folders: dict[str, Path], tmp_path: Path) -> None:
    assert model_folder(ModelConfig(folder=str(folders["wan"])), tmp_path) == folders["wan"]
    assert not list(tmp_path.iterdir())
    made = model_folder(ModelConfig(random="tiny"), tmp_path)
    assert (made / "transformer" / "config.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [made.name]  # nothing half written beside it
    stamp = (made / "transformer" / "config.json").stat().st_mtime_ns
    assert model_folder(ModelConfig(random="tiny"), tmp_path) == made
    assert (made / "transformer" / "config.json").stat().st_mtime_ns == stamp


def test_another_process_may_have_been_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trainer.networks.tiny as module

    save = module.save_random_model

    def slow(folder: Path, backbone: str, size: str) -> Path:
        save(tmp_path / "random-tiny-wan", backbone, size)  # the other one
        return save(folder, backbone, size)

    monkeypatch.setattr(module, "save_random_model", slow)
    made = model_folder(ModelConfig(random="tiny"), tmp_path)
    assert made == tmp_path / "random-tiny-wan"
    assert [path.name for path in tmp_path.iterdir()] == ["random-tiny-wan"]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_training_step_takes_less_than_a_second(folders: dict[str, Path], backbone: str) -> None:
    config = ModelConfig(backbone=backbone, random="tiny", **CONFIG)
    network = load_backbone(config, folders[backbone])
    steps = 8 // network.frame_step + 1
    height = width = 8
    conditions = conditions_of(backbone, 1, 9, height, width)
    noisy = torch.randn(1, 16, steps, height, width)
    spent = []
    for _ in range(2):  # the first one warms up
        begin = time.process_time()
        velocity = network(noisy, torch.tensor([0.5]), conditions)
        velocity.square().mean().backward()
        spent.append(time.process_time() - begin)
    assert velocity.shape == noisy.shape and torch.isfinite(velocity).all()
    assert min(spent) < 1


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_transformers_weights_are_those_of_the_folder(folders: dict[str, Path], backbone: str) -> None:
    network: Any = load_backbone(ModelConfig(backbone=backbone, random="tiny", **CONFIG), folders[backbone])
    saved = load_file(folders[backbone] / "transformer" / "diffusion_pytorch_model.safetensors")
    state = network.transformer.state_dict()
    assert set(state) == set(saved) and all(torch.equal(state[name], saved[name]) for name in saved)


def test_a_text_to_video_transformer_is_widened(folders: dict[str, Path], tmp_path: Path) -> None:
    from diffusers import WanTransformer3DModel

    narrow = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=32,
        ffn_dim=48,
        num_layers=1,
    )
    narrow.save_pretrained(tmp_path / "transformer")
    with pytest.raises(WeightsError, match=r"no CLIP image encoder .* model\.image_encoder"):
        load_backbone(ModelConfig(random="tiny"), tmp_path)
    (tmp_path / "image_encoder").symlink_to(folders["wan"] / "image_encoder")
    network: Any = load_backbone(ModelConfig(random="tiny", **CONFIG), tmp_path)
    assert network.transformer.patch_embedding.weight.shape[1] == 36
    assert not network.transformer.patch_embedding.weight[:, 16:].any()
    assert network.transformer.config.image_dim == 32


def test_another_transformer_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"transformer: no config\.json of WanTransformer3DModel"):
        load_backbone(ModelConfig(random="tiny"), tmp_path)
    from transformers import CLIPVisionConfig, CLIPVisionModel

    wide = CLIPVisionConfig(hidden_size=48, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    CLIPVisionModel(wide).save_pretrained(tmp_path / "clip")
    other = ModelConfig(random="tiny", image_encoder=str(tmp_path / "clip"))
    with pytest.raises(WeightsError, match="CLIP features 32 wide, the image encoder gives 48"):
        load_backbone(other, folders["wan"])
    with pytest.raises(WeightsError, match=r"holds a LTX.*needed is Wan"):
        load_backbone(ModelConfig(backbone="wan", random="tiny"), folders["ltx"])
