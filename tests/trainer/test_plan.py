"""What a run would take: memory by arithmetic, and what shipped configurations come to."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from configs.reading import SettingsError
from manifests.buckets import Bucket
from trainer.config import TrainConfig, load_config
from trainer.cost import (
    _ATTENTION,
    activation_bytes,
    empty_inputs,
    forward_flops,
    parameters_of,
    peak_bytes,
    sizes_of,
)
from trainer.networks.load import load_backbone
from trainer.networks.tiny import model_folder
from trainer.plan import GIB, DoesNotFit, Plan, longest_bucket, plan

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(p.stem for p in (ROOT / "configs" / "train").glob("*.yaml") if p.stem != "tiny")
WIDTHS = {"identity_dim": 16, "attribute_dim": 24, "audio_dim": 20}


def tiny(tmp_path: Path, **changes: object) -> TrainConfig:
    values = {
        "name": "toy",
        "output": str(tmp_path),
        "steps": 10,
        "batch": 4,
        "precision": "fp32",
        "data": {"shards": ["s"], "buckets": {"min_frames": 9, "max_frames": 9, "area": 64 * 64}},
        "model": {"random": "tiny", "gradient_checkpointing": False, **WIDTHS},
    }
    return TrainConfig.model_validate(values | changes)


def test_the_peak_of_a_chain_of_layers_by_hand() -> None:
    """x [1000, 256] through linear, ReLU, linear, ReLU: the second ReLU runs with two results held and makes
    a third; in the backward pass the gradient of a weight comes on top of three."""
    network = nn.Sequential(
        nn.Linear(256, 256, bias=False), nn.ReLU(), nn.Linear(256, 256, bias=False), nn.ReLU()
    )
    x = torch.zeros(1000, 256)
    one, weight = 1000 * 256 * 4, 256 * 256 * 4
    assert peak_bytes(network, lambda: network(x).sum().backward()) == pytest.approx(
        3 * one + weight, rel=0.01
    )
    with torch.no_grad():
        assert peak_bytes(network, lambda: network(x)) == pytest.approx(2 * one, rel=0.01)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_operations_are_those_of_the_real_network(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    folder, bucket = model_folder(config.model, tmp_path), Bucket(9, 64, 64)
    network = load_backbone(config.model, folder)
    noisy, conditions = empty_inputs(network, config, bucket)
    counter = FlopCounterMode(display=False, custom_mapping=_ATTENTION)
    with torch.no_grad(), counter:
        network(noisy, torch.zeros(1), conditions)
    assert forward_flops(config, folder, bucket) == counter.get_total_flops()
    assert sizes_of(config, folder).all == parameters_of(network)


def test_attention_by_hand() -> None:
    """Two products of [L, d] and [d, M] for each head: 2 x 2 L M d."""
    query, other = torch.zeros(1, 3, 50, 8), torch.zeros(1, 3, 70, 8)
    counter = FlopCounterMode(display=False, custom_mapping=_ATTENTION)
    with torch.no_grad(), counter:
        torch.nn.functional.scaled_dot_product_attention(query, other, other)
    assert counter.get_total_flops() == 3 * 4 * 50 * 70 * 8


def test_keeping_activations_takes_more(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    folder = model_folder(config.model, tmp_path)
    again = config.model.model_copy(update={"gradient_checkpointing": True})
    kept = activation_bytes(config, folder, Bucket(9, 64, 64))
    assert activation_bytes(config.model_copy(update={"model": again}), folder, Bucket(9, 64, 64)) < kept
    two = config.model_copy(update={"micro_batch": 2})
    assert 1.8 * kept < activation_bytes(two, folder, Bucket(9, 64, 64)) < 2.4 * kept


def test_what_is_trained_takes_gradients_and_moments(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    folder = model_folder(config.model, tmp_path)
    whole = plan(config, 1, folder=folder)
    count = whole.parameters["network"]
    assert {k: whole.memory[k] for k in ("weights", "gradients", "optimiser", "average")} == {
        "weights": 4 * count,
        "gradients": 4 * count,
        "optimiser": 8 * count,
        "average": 4 * count,
    }
    assert "gathered" not in whole.memory and whole.micro_batches == 4
    shared = plan(config, 4, folder=folder)
    assert shared.memory["optimiser"] == 2 * count and shared.micro_batches == 1
    assert shared.days == pytest.approx(whole.days / 4)
    adapters = config.optimiser.model_copy(update={"trainable": "adapters"})
    part = plan(config.model_copy(update={"optimiser": adapters}), 1, folder=folder)
    assert part.memory["weights"] == 4 * count and part.memory["gradients"] < 3 * count
    with pytest.raises(SettingsError, match="batch 4 cannot be shared by 3 processes"):
        plan(config, 3, folder=folder)


def test_beside_the_latent_cache_the_vae_alone_is_loaded(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    folder = model_folder(config.model, tmp_path)
    whole = plan(config, 1, folder=folder)
    data = config.data.model_copy(update={"latents": "latents"})
    beside = plan(config.model_copy(update={"data": data}), 1, folder=folder)
    assert {"vae", "image_encoder", "text_encoder"} < whole.parameters.keys()
    assert whole.parameters.keys() - beside.parameters.keys() == {"image_encoder", "text_encoder"}
    assert whole.memory["encoders"] == 4 * sum(
        whole.parameters[name] for name in ("vae", "image_encoder", "text_encoder")
    )
    assert beside.memory["encoders"] == 4 * beside.parameters["vae"]
    assert whole.memory.keys() - beside.memory.keys() == {"encoding"}


def test_what_does_not_fit_is_refused_with_what_takes_it() -> None:
    memory = {"weights": 20 * GIB, "activations": 70 * GIB, "encoders": 1 * GIB, "average": 2.0 * GIB}
    found = Plan(8, {}, memory, 1, 1.0, 1.0, 350)
    with pytest.raises(DoesNotFit, match=r"^93.0 GiB on each of 8 GPUs of 80 GiB: activations 70.0, w"):
        found.check(80 * GIB)
    found.check(94 * GIB)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("gpus", [8, 64])
def test_every_shipped_configuration_fits_80_gib(name: str, gpus: int) -> None:
    config = load_config(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = plan(config, gpus)
    found.check(80 * GIB)
    assert found.total < 60 * GIB  # with room for what is not counted
    billions = {"wan": 2.17, "ltx": 3.00}[config.model.backbone]
    assert found.parameters["network"] / 1e9 == pytest.approx(billions, abs=0.01)
    assert longest_bucket(config).frames == config.data.buckets.frames_within(config.data.buckets.max_frames)
