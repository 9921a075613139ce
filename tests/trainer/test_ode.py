"""The causal student learns the teacher's ODE: its way by hand, and tiny runs on toy shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from configs.reading import SettingsError
from tests.support.checkpoints import tensors_of, weights_of
from tests.support.two_processes import train_in_two_processes
from tests.trainer.networks.test_causal import conditions_of
from tests.trainer.test_self_forcing import (  # noqa: F401  # fixtures
    Normal,
    configure,
    shards,
    stage2,
)
from tests.trainer.test_train import assert_same_bits
from trainer import ode
from trainer.checkpoint import newest, read_info
from trainer.data.source import ClipSource
from trainer.guidance import Pass
from trainer.networks.causal import load_causal
from trainer.networks.tiny import model_folder
from trainer.ode import SameEachTime, draw_levels, regress, trajectory
from trainer.self_forcing import distill
from trainer.start import load_merged

SIGMAS = [1.0, 0.9375, 0.8333333333, 0.625]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Field(nn.Module):
    """The exact velocity of clips drawn from N(2, 1), as `Normal` has it."""

    def __init__(self) -> None:
        super().__init__()
        self.normal, self.levels = Normal(2.0), []

    def forward(self, noisy: Tensor, sigma: Tensor, conditions: Any) -> Tensor:
        self.levels.append(sigma[0].item())
        return self.normal(noisy, sigma, conditions)


def test_the_way_of_a_noise_in_closed_form() -> None:
    """Of normal clips the ODE leads noise e to (1 - s) m + sqrt((1 - s)^2 + s^2) e."""
    conditions = conditions_of(3)
    conditions = type(conditions)(**(vars(conditions) | {"known": torch.zeros(2, dtype=torch.int64)}))
    noise = torch.randn((2, 16, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    field = Field()
    way = trajectory(field, noise, [Pass(1.0, conditions)], conditions, SIGMAS, 400)
    assert way.shape == (2, 5, 16, 3, 4, 4) and torch.equal(way[:, 0], noise)
    for index, level in enumerate([*SIGMAS, 0.0]):
        expected = (1 - level) * 2 + ((1 - level) ** 2 + level**2) ** 0.5 * noise
        assert (way[:, index] - expected).abs().max() < 0.03
    # Every level of the student is one of the solver's, and no step goes back.
    assert field.levels == sorted(field.levels, reverse=True)
    assert all(min(abs(level - one) for one in field.levels) < 1e-6 for level in SIGMAS)
    # Known steps come to what is known of them.
    known = type(conditions)(**(vars(conditions) | {"known": torch.tensor([1, 2])}))
    way = trajectory(Field(), noise, [Pass(1.0, known)], known, SIGMAS, 20)
    torch.testing.assert_close(way[0, -1, :, :1], known.image_latents[0, :, :1])
    torch.testing.assert_close(way[1, -1, :, :2], known.image_latents[1, :, :2])


def test_levels_are_drawn_for_each_block_of_each_clip(configure: Any) -> None:  # noqa: F811
    config = configure(stage="ode")
    drawn = draw_levels(4, 9, config, 3, range(500))
    assert drawn.shape == (500, 5)  # blocks of two in nine latent steps
    counts = torch.bincount(drawn.flatten(), minlength=4)
    assert all(count == pytest.approx(625, abs=90) for count in counts.tolist())
    assert torch.equal(draw_levels(4, 9, config, 3, [7])[0], drawn[7])
    assert not torch.equal(draw_levels(4, 9, config, 4, range(500)), drawn)


def test_blocks_see_clean_blocks_before_them_and_nothing_after(configure: Any, stage2: Path) -> None:  # noqa: F811
    """As the rollout does: the last step's prediction, with the same past, is that of `denoise`."""
    config = configure(stage="ode")
    folder = model_folder(config.model, Path(config.output))
    student: Any = load_causal(config, folder)
    load_merged(stage2, student)
    _, conditions = encoded(config, folder)
    clean = torch.randn((1, 16, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    noisy = torch.randn((1, 2, 16, 3, 8, 8), generator=torch.Generator().manual_seed(2))
    levels = torch.tensor([[1, 0]])
    with torch.no_grad():
        found = student.regress(noisy, clean, [1.0, 0.5], levels, conditions)
        memory, given = student.begin(conditions, steps=2), student.given(conditions)
        first = student.velocity(noisy[:, 1, :, :2], torch.tensor([0.5]), given.steps(0, 2), 0, memory)
        torch.testing.assert_close(found[:, :, :2], noisy[:, 1, :, :2] - 0.5 * first)
        student.remember(clean[:, :, :2], given.steps(0, 2), 0, memory)
        last = student.velocity(noisy[:, 0, :, 2:], torch.tensor([1.0]), given.steps(2, 1), 2, memory)
        torch.testing.assert_close(found[:, :, 2:], noisy[:, 0, :, 2:] - last)
        later = clean.clone()
        later[:, :, 2:] += 1
        assert torch.equal(student.regress(noisy, later, [1.0, 0.5], levels, conditions), found)
        earlier = clean.clone()
        earlier[:, :, :1] += 1
        moved = student.regress(noisy, earlier, [1.0, 0.5], levels, conditions)
        assert torch.equal(moved[:, :, :2], found[:, :, :2])
        assert not torch.equal(moved[:, :, 2:], found[:, :, 2:])


def encoded(config: Any, folder: Path) -> Any:
    from trainer.networks.encoders import Encoders, encode_conditions

    encoders, source = Encoders.load(config.model, folder), ClipSource(config)
    batch = source.load(source.plan(0)[0])
    return batch, encode_conditions(batch, encoders)


# --- runs


def ode_run(configure: Any, name: str = "ode", **changes: Any) -> Any:  # noqa: F811
    optimiser = {"warmup_steps": 0, "learning_rate": 1e-3}
    return configure(
        name, stage="ode", **({"steps": 4, "ode": {"steps": 3}, "optimiser": optimiser} | changes)
    )


def test_a_run_computes_each_way_once_and_goes_on_bit_for_bit(
    configure: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, calls = ode_run(configure), []
    real = ode.trajectory

    def counting(*given: Any) -> Tensor:
        calls.append(given[1].shape[0])
        return real(*given)

    monkeypatch.setattr(ode, "trajectory", counting)
    made = regress(config)
    files = list((Path(config.output) / "trajectories").rglob("*.safetensors"))
    assert len(files) == len(calls) == 4  # clips; eight were asked for
    info = read_info(made)
    assert (info["stage"], info["step"], info["networks"]) == ("ode", 4, ["student"])
    # A run that is cut and goes on, with some ways from its files, ends the same.
    other = ode_run(configure, "other", checkpoint_every=2)
    regress(other)
    last = newest(Path(other.output))
    assert last is not None
    assert_same_bits(made, last)
    import shutil

    shutil.rmtree(last)
    assert_same_bits(made, regress(other))


def test_the_clips_are_the_same_each_time(configure: Any) -> None:  # noqa: F811
    config = ode_run(configure, dropout={"each": 0.5, "all": 0.1, "interaction_captions": 0.5})
    plain, same = ClipSource(config), SameEachTime(config)
    picks = [pick for step in range(12) for pick in plain.plan(step)]
    seen: dict[str, set[str]] = {}
    for pick in picks:
        batch = same.load(pick)
        assert batch.slots == [pick.slot]
        seen.setdefault(pick.sample_id, set()).add(f"{batch.prompts}{batch.has_audio}{batch.has_reference}")
    assert {len(kinds) for kinds in seen.values()} == {1}


def test_stage_3_begins_with_it_and_keeps_its_teacher(configure: Any, stage2: Path) -> None:  # noqa: F811
    made = regress(ode_run(configure))
    begun = weights_of(made, "student")
    assert any(not torch.equal(value, weights_of(stage2)[name]) for name, value in begun.items())
    config = configure(init=str(made), distil={"teacher": str(stage2)}, steps=1)
    from trainer.self_forcing import load_networks

    student, critic, teacher = load_networks(config, model_folder(config.model, Path(config.output)))
    average = {n.removeprefix("average."): v for n, v in tensors_of(made).items() if n.startswith("average.")}
    assert all(torch.equal(student.state_dict()[name], value) for name, value in average.items())
    assert all(torch.equal(critic.state_dict()[n], v) for n, v in teacher.state_dict().items())
    assert any(not torch.equal(student.state_dict()[n], v) for n, v in teacher.state_dict().items())
    assert read_info(distill(config))["step"] == 1


def test_two_processes_are_one(configure: Any, tmp_path: Path) -> None:  # noqa: F811
    one = regress(ode_run(configure, "one", steps=2))
    config = ode_run(configure, "two", steps=2)
    train_in_two_processes(config, tmp_path)
    two = newest(Path(config.output))
    assert two is not None
    a, b = tensors_of(one), tensors_of(two)
    moments = [name for name in a if name.endswith(".exp_avg")]
    assert moments and a.keys() == b.keys()
    for name in moments:
        torch.testing.assert_close(b[name], a[name], atol=1e-5, rtol=1e-2)


def test_settings_that_cannot_be(configure: Any) -> None:  # noqa: F811
    with pytest.raises(SettingsError, match=r"distill\.steps: timesteps \[500\]: expected to fall from 1000"):
        regress(ode_run(configure, distil={"steps": [500]}))
