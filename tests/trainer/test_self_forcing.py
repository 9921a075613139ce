"""Distillation: its formulas by hand, and tiny runs on toy shards."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers")

from configs.reading import SettingsError
from tests.support.checkpoints import average_of, part_of, weights_of
from tests.support.shard_toys import toy_shards
from tests.support.two_processes import train_in_two_processes
from tests.trainer.networks.test_causal import conditions_of
from trainer import self_forcing
from trainer.checkpoint import load_weights, newest, path_of, read_info
from trainer.config import TrainConfig
from trainer.data.source import ClipSource
from trainer.networks.causal import CausalWan, generate, load_causal, rollout_noise
from trainer.networks.encoders import Encoders
from trainer.networks.load import load_backbone
from trainer.networks.tiny import model_folder
from trainer.networks.wan import InterAvatarWan
from trainer.optimiser import NonFiniteLoss
from trainer.self_forcing import (
    distill,
    disturb,
    dmd_gradient,
    dmd_loss,
    draw_sigmas,
    exit_step,
    load_networks,
    predict_clean,
)
from trainer.train import train

WIDTHS = {"identity_dim": 16, "attribute_dim": 24, "audio_dim": 20}
FRAMES = 9  # 3 latent steps: blocks of 2 and 1
NOTHING = {"each": 0, "all": 0, "interaction_captions": 0}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distil") / "shards"
    return toy_shards(folder, clips=4, seconds=FRAMES / 16, interactions=2, **WIDTHS)


def values_of(shards: Path, output: Path) -> dict[str, Any]:
    return {
        "name": "toy",
        "output": str(output),
        "steps": 2,
        "batch": 2,
        "precision": "fp32",
        "checkpoint_every": 100,
        "log_every": 1,
        "dropout": NOTHING,
        "data": {
            "shards": [str(shards)],
            "workers": 0,
            "buckets": {"min_frames": FRAMES, "max_frames": FRAMES, "area": 64 * 64},
        },
        "model": {"random": "tiny", "gradient_checkpointing": False, **WIDTHS},
        "optimiser": {"warmup_steps": 0, "learning_rate": 1e-2},
    }


@pytest.fixture(scope="module")
def stage2(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a network that has been trained for two steps, so that its adapters count."""
    values = values_of(shards, tmp_path_factory.mktemp("stage2") / "out")
    return train(TrainConfig.model_validate(values))


Configure = Callable[..., TrainConfig]


@pytest.fixture()
def configure(shards: Path, stage2: Path, tmp_path: Path) -> Configure:
    def make(name: str = "toy", distil: dict[str, Any] | None = None, **changes: Any) -> TrainConfig:
        rates = {"learning_rate": 1e-3, "critic_learning_rate": 1e-3}
        values = values_of(shards, tmp_path / name) | {
            "stage": "self_forcing",
            "init": str(stage2),
            "distill": {"steps": [1000, 500], "block": 2, "critic_steps": 1, **rates, **(distil or {})},
        }
        return TrainConfig.model_validate(values | changes)

    return make


def files(checkpoint: Path) -> dict[str, dict[str, Tensor]]:
    """Student, critic, the student's average, and what both optimisers hold."""
    names = {
        "student": "student.weights.",
        "critic": "critic.weights.",
        "average": "average.",
        "optimizer": "student.optimiser.",
        "optimizer_1": "critic.optimiser.",
    }
    return {key: part_of(checkpoint, prefix) for key, prefix in names.items()}


def begin_of(checkpoint: Path) -> dict[str, Tensor]:
    """What the next stage begins with: averages, and weights where there are none."""
    return weights_of(checkpoint) | average_of(checkpoint)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


# --- formulas


def test_the_gradient_of_dmd_by_hand() -> None:
    clean = torch.tensor([[1.0, 2.0], [0.0, 4.0]], requires_grad=True)
    real = torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    fake = torch.tensor([[3.0, 1.0], [1.0, 1.0]])
    # mean |clean - real|: (1 + 2) / 2 = 1.5 and (0 + 4) / 2 = 2; fake - real: (3, -3) and (1, 1).
    gradient = dmd_gradient(clean, real, fake)
    assert gradient.tolist() == [[2.0, -2.0], [0.5, 0.5]]
    assert not gradient.requires_grad
    loss = dmd_loss(clean, gradient)
    assert loss.tolist() == [2.0, 0.125]  # half of (4 + 4) / 2, half of (0.25 + 0.25) / 2
    loss.sum().backward()
    assert clean.grad is not None
    torch.testing.assert_close(clean.grad, gradient / 2)


def test_equal_clips_and_networks_give_no_gradient() -> None:
    clean = torch.ones(1, 4)
    assert dmd_gradient(clean, clean, clean).tolist() == [[0.0] * 4]


class Normal(nn.Module):
    """The velocity of clips whose numbers are all drawn from N(mean, 1), exactly."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, noisy: Tensor, sigma: Tensor, conditions: Any) -> Tensor:
        """With conditions "free" the mean is 0."""
        mean = 0.0 if conditions == "free" else self.mean
        s = sigma.view(-1, 1, 1, 1, 1)
        clean = mean + (1 - s) / ((1 - s) ** 2 + s**2) * (noisy - (1 - s) * mean)
        return (noisy - clean) / s


def test_what_networks_see_in_noisy_clips() -> None:
    noisy = torch.full((2, 1, 1, 1, 1), 3.0)
    sigma = torch.tensor([0.5, 0.25])
    # sigma 0.5: 2 + 0.5 / 0.5 (3 - 1) = 4; sigma 0.25: 2 + 0.75 / 0.625 (3 - 1.5) = 3.8.
    seen: Any = predict_clean(Normal(2), noisy, sigma, "given")
    assert seen.flatten().tolist() == pytest.approx([4.0, 3.8])
    # Without conditions 3 and 3.6; guided by 2: v moves as far again, to 5 and 4.
    guided = predict_clean(Normal(2), noisy, sigma, "given", "free", 2.0)
    assert guided.flatten().tolist() == pytest.approx([5.0, 4.0])
    assert predict_clean(Normal(2), noisy, sigma, "given", "free", 1.0).flatten().tolist() == pytest.approx(
        [4.0, 3.8]
    )


def test_dmd_leads_the_student_to_where_the_teacher_sees_real_clips(configure: Configure) -> None:
    """A student of N(mean, 1), a critic that knows it, a teacher of N(2, 1): the mean goes to 2."""
    config, mean = configure(), torch.tensor(-1.0, requires_grad=True)
    optimiser = torch.optim.SGD([mean], lr=0.5)
    slots = range(64)
    for step in range(30):
        clean = mean + torch.randn((64, 1, 1, 4, 4), generator=torch.Generator().manual_seed(step))
        noisy, _, sigma = disturb("dmd", clean, config, step, slots)
        fake = predict_clean(Normal(mean.item()), noisy, sigma, "given")
        real = predict_clean(Normal(2), noisy, sigma, "given")
        gradient = dmd_gradient(clean, real, fake)
        if not step:  # (fake - real) = (mean - 2) s^2 / ((1 - s)^2 + s^2) in closed form
            share = sigma**2 / ((1 - sigma) ** 2 + sigma**2)
            scale = (clean.detach() - real).abs().flatten(1).mean(1)
            expected = (-3 * share / scale).view(-1, 1, 1, 1, 1).expand_as(gradient)
            torch.testing.assert_close(gradient, expected)
        optimiser.zero_grad()
        dmd_loss(clean, gradient).mean().backward()
        optimiser.step()
    assert mean.item() == pytest.approx(2, abs=0.05)


def test_noise_levels(configure: Configure) -> None:
    config = configure()
    levels = draw_sigmas("dmd", config, 3, range(4000))
    assert levels.min() >= 0.02
    assert levels.max() <= 0.98
    # Shifted by 5: below s lies s / (5 - 4 s) of what is drawn; half of it below 5 / 6.
    assert (levels < 5 / 6).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert (levels == 0.98).float().mean().item() == pytest.approx(1 - 0.98 / (5 - 4 * 0.98), abs=0.02)
    assert draw_sigmas("dmd", config, 3, [7]) == levels[7]
    assert draw_sigmas("critic", config, 3, [7]) != levels[7]
    clean = torch.ones(2, 3, 1, 2, 2)
    noisy, noise, sigma = disturb("dmd", clean, config, 3, [7, 8])
    torch.testing.assert_close(noisy[0], (1 - sigma[0]) * clean[0] + sigma[0] * noise[0])
    assert sigma.tolist() == levels[7:9].tolist()
    assert torch.equal(disturb("dmd", clean[:1], config, 3, [8])[1][0], noise[1])


def test_every_step_of_the_rollout_is_trained() -> None:
    drawn = [exit_step(4, 0, step) for step in range(400)]
    assert all(drawn.count(step) == pytest.approx(100, abs=35) for step in range(4))
    assert drawn[:20] == [exit_step(4, 0, step) for step in range(20)]
    assert drawn != [exit_step(4, 1, step) for step in range(400)]


# --- runs


def test_a_run(configure: Configure, stage2: Path) -> None:
    config = configure(steps=3, distil={"critic_steps": 2}, checkpoint_every=1, samples={"every": 3})
    last = distill(config)
    assert last == path_of(Path(config.output), 3)
    first, second, third = (files(path_of(Path(config.output), step)) for step in (1, 2, 3))
    begin = begin_of(stage2)

    # The critic moves in every step, the student in every second; each optimiser has steps of its own.
    assert same(first["student"], begin)
    assert not same(second["student"], begin)
    assert same(third["student"], second["student"])
    for before, after in ((begin, first["critic"]), (first["critic"], second["critic"])):
        assert not same(before, after)
    assert first["optimizer"] == {}
    assert {v.item() for k, v in third["optimizer"].items() if k.endswith(".step")} == {1.0}
    assert {v.item() for k, v in third["optimizer_1"].items() if k.endswith(".step")} == {3.0}
    # Everything in the student learns: no weight was cut off.
    moved = {name for name in begin if not torch.equal(begin[name], second["student"][name])}
    fixed = {"position.frequencies"}
    assert begin.keys() - moved <= fixed
    # The first update of an average is of the share 0.9.
    name = "adapters.0.audio.proj.weight"
    expected = torch.lerp(begin[name], second["student"][name], 0.9)
    torch.testing.assert_close(second["average"][name], expected)
    assert same(third["average"], second["average"])

    # What it leaves is loaded like any checkpoint, causal or not, and generates.
    info = read_info(last)
    assert (info["stage"], info["step"]) == ("self_forcing", 3)
    folder = model_folder(config.model, Path(config.output))
    plain = load_backbone(config.model, folder)
    load_weights(last, plain)
    assert type(plain) is InterAvatarWan
    student: Any = load_causal(config, folder)
    load_weights(last, student)
    encoders = Encoders.load(config.model, folder)
    source = ClipSource(config)
    conditions = self_forcing.conditions_of(source.load(source.plan(0)[0]), encoders)
    clip = generate(student, encoders, conditions, config.distill, config.seed)
    assert (clip.shape, clip.dtype) == ((1, 3, FRAMES, 64, 64), torch.uint8)
    assert torch.equal(clip, generate(student, encoders, conditions, config.distill, config.seed))
    assert not torch.equal(clip, generate(student, encoders, conditions, config.distill, 1))
    assert [path.name for path in (Path(config.output) / "samples").iterdir()] == ["step-00000003"]


def test_an_interrupted_run_ends_as_if_nothing_had_happened(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"steps": 3, "distil": {"critic_steps": 2}}
    whole = distill(configure("whole", **changes))
    config = configure("stopped", **changes)

    def stopping(count: int, seed: int, step: int) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return exit_step(count, seed, step)

    with monkeypatch.context() as patch:
        patch.setattr(self_forcing, "exit_step", stopping)
        assert distill(config) == path_of(Path(config.output), 1)
    one, other = files(whole), files(distill(config))
    assert [name for name in one if not same(one[name], other[name])] == []
    assert distill(config) == newest(Path(config.output))  # a finished run is left alone


def test_accumulation_and_bf16(configure: Configure) -> None:
    whole = files(distill(configure("whole", steps=1, micro_batch=2)))
    parts = files(distill(configure("parts", steps=1, micro_batch=1)))
    # Adam's first average is the gradient's tenth: compared before its size is lost.
    for name in ("optimizer", "optimizer_1"):
        for key, value in whole[name].items():
            if key.endswith(".exp_avg"):
                torch.testing.assert_close(parts[name][key], value, atol=1e-6, rtol=1e-3)
    rounded = files(distill(configure("bf16", steps=1, precision="bf16")))
    total, apart = 0.0, 0.0
    for key, value in whole["optimizer"].items():
        if key.endswith(".exp_avg"):
            total += value.square().sum().item()
            apart += (rounded["optimizer"][key] - value).square().sum().item()
    assert 0 < apart < 0.05 * total


def test_two_processes_are_one(configure: Configure, tmp_path: Path) -> None:
    whole = files(distill(configure("one")))
    config = configure("two")
    train_in_two_processes(config, tmp_path)
    found = newest(Path(config.output))
    assert found is not None
    two = files(found)
    for name in ("optimizer", "optimizer_1"):
        for key, value in whole[name].items():
            if key.endswith(".exp_avg"):
                torch.testing.assert_close(two[name][key], value, atol=1e-5, rtol=1e-2)
    assert two["student"].keys() == whole["student"].keys()


def test_the_teacher_and_the_critic_begin_as_stage_2(configure: Configure, tmp_path: Path) -> None:
    config = configure()
    folder = model_folder(config.model, tmp_path)
    student, critic, teacher = load_networks(config, folder)
    assert isinstance(student, CausalWan)
    assert type(critic) is type(teacher) is InterAvatarWan
    assert student.latent_block == 2
    begin = begin_of(Path(str(config.init)))
    for network in (student, critic, teacher):
        assert same(dict(network.state_dict()), begin)
    storages = {
        network.state_dict()["audio.linear.weight"].data_ptr() for network in (student, critic, teacher)
    }
    assert len(storages) == 3
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())


def test_a_number_that_is_not_finite_stops_it(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, stage2: Path
) -> None:
    config = configure(checkpoint_every=1, non_finite={"skip": 0, "back": 0})

    def broken(*given: Any) -> Tensor:
        clean = predict_clean(*given)
        return clean * (math.nan if len(given) > 4 else 1)  # the teacher's alone

    with monkeypatch.context() as patch:
        patch.setattr(self_forcing, "predict_clean", broken)
        with pytest.raises(NonFiniteLoss, match=r"step 0: the loss is not finite; samples: toy-\d{4}, toy-"):
            distill(config)
    assert newest(Path(config.output)) is None


def test_settings_that_cannot_be(configure: Configure) -> None:
    with pytest.raises(SettingsError, match="steps 2: the student would never be updated"):
        distill(configure(distil={"critic_steps": 3}))
    with pytest.raises(SettingsError, match=r"distill.steps: timesteps \[500\]: expected to fall from 1000"):
        distill(configure(distil={"steps": [500]}))


def test_tiny_conditions_fit_the_shapes_that_noise_is_drawn_for() -> None:
    noise = rollout_noise(conditions_of(5), 4, 0, 2, [3, 9])
    assert noise.shape == (4, 2, 16, 5, 4, 4)
    assert torch.equal(rollout_noise(conditions_of(5, 1), 4, 0, 2, [9])[:, 0], noise[:, 1])
    assert not torch.equal(noise[0], noise[1])
