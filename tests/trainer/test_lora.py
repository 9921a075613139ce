"""Low-rank additions: nothing at first, learned alone, merged exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.reading import SettingsError
from tests.support.checkpoints import average_of, tensors_of, weights_of
from tests.support.shard_toys import toy_shards
from tests.trainer.networks.test_causal import conditions_of
from tests.trainer.test_train import DATA, FRAMES
from trainer.checkpoint import read_info
from trainer.config import LoraConfig, TrainConfig
from trainer.generate import load_for_sampling
from trainer.lora import add_lora, lora_weights, merge_lora
from trainer.networks.load import load_backbone
from trainer.networks.tiny import model_folder
from trainer.start import initial_network, load_merged
from trainer.train import train

Configure = Callable[..., TrainConfig]
WIDTHS = {"identity_dim": 8, "attribute_dim": 6, "audio_dim": 10}  # those of conditions_of


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture()
def configure(tmp_path: Path) -> Configure:
    shards = toy_shards(tmp_path / "shards", clips=4, seconds=FRAMES / 16, interactions=2, **WIDTHS)

    def make(name: str = "toy", trainable: str = "lora", **changes: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "name": name,
            "output": str(tmp_path / name),
            "steps": 2,
            "batch": 2,
            "precision": "fp32",
            "data": DATA | {"shards": [str(shards)]},
            "model": {"random": "tiny", **WIDTHS},
            "optimiser": {"warmup_steps": 0, "learning_rate": 1e-2, "trainable": trainable},
            "lora": {"rank": 4, "alpha": 8},
        }
        return TrainConfig.model_validate(values | changes)

    return make


def network_of(config: TrainConfig) -> Any:
    torch.manual_seed(0)
    return initial_network(config, model_folder(config.model, Path(config.output)), None)


@torch.no_grad()
def answer(network: Any) -> Tensor:
    conditions = conditions_of(3)
    noisy = torch.randn((2, 16, 3, 4, 4), generator=torch.Generator().manual_seed(3))
    result: Tensor = network(noisy, torch.tensor([0.3, 0.8]), conditions)
    return result


def test_additions_change_nothing_at_first_and_are_merged_exactly(configure: Configure) -> None:
    config = configure()
    torch.manual_seed(0)
    plain = load_backbone(config.model, model_folder(config.model, Path(config.output)))
    names = plain.state_dict().keys()
    before = answer(plain)
    add_lora(plain, LoraConfig(rank=4, alpha=8))
    torch.testing.assert_close(answer(plain), before)
    additions = {n: p for n, p in plain.named_parameters() if ".lora_" in n}
    # Two matrices for each of four layers of two attentions, in two blocks.
    assert len(additions) == 2 * 4 * 2 * 2 and all(4 in p.shape for p in additions.values())
    with torch.no_grad():
        for parameter in additions.values():
            parameter.normal_(std=0.5)
    learned = answer(plain)
    assert (learned - before).abs().max() > 1e-2
    assert set(lora_weights(plain)) == {f"{name}".replace(".default.", ".") for name in additions}
    merge_lora(plain)
    assert plain.state_dict().keys() == names
    torch.testing.assert_close(answer(plain), learned, atol=1e-5, rtol=1e-4)


def test_one_addition_by_hand(configure: Configure) -> None:
    """W + alpha / rank B A."""
    network = network_of(configure(trainable="all"))
    layer = network.transformer.blocks[0].attn1.to_q
    weight = layer.weight.detach().clone()
    add_lora(network, LoraConfig(rank=4, alpha=8, layers=["attn1.to_q"]))
    wrapped = network.transformer.blocks[0].attn1.to_q
    a, b = wrapped.lora_A["default"].weight, wrapped.lora_B["default"].weight
    with torch.no_grad():
        b.normal_()
        a.normal_()
    expected = weight + 8 / 4 * b.detach() @ a.detach()
    merge_lora(network)
    torch.testing.assert_close(network.transformer.blocks[0].attn1.to_q.weight, expected)


def test_a_run_trains_additions_and_new_layers_alone(configure: Configure) -> None:
    config = configure()
    made = train(config)
    before, after = network_of(config).state_dict(), weights_of(made)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved and all(".lora_" in name or not name.startswith("transformer.") for name in moved)
    assert any(".lora_B" in name for name in moved)
    assert all(".lora_" in name or not name.startswith("transformer.") for name in average_of(made))
    states = {name for name in tensors_of(made) if name.startswith("network.optimiser.")}
    assert states and not any("base_layer" in name for name in states)

    # The same command goes on; sampling and the next stage take the merged weights.
    trained = load_for_sampling(made)
    assert not any(".lora_" in name for name in trained.model.state_dict())
    whole = train(configure("next", trainable="all", steps=1, init=config.output))
    assert not any(".lora_" in name for name in weights_of(whole))
    merged = network_of(configure("other", trainable="all"))
    load_merged(made, merged)
    torch.testing.assert_close(answer(merged), answer(trained.model))
    again = train(configure("again", init=config.output, steps=1))
    assert read_info(again)["step"] == 1 and any(".lora_A" in name for name in weights_of(again))


def test_layers_that_are_not_there(configure: Configure) -> None:
    network = network_of(configure(trainable="all"))
    with pytest.raises(SettingsError, match=r"lora\.layers \['nothing'\]: Target modules"):
        add_lora(network, LoraConfig(layers=["nothing"]))
