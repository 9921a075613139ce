"""Rectified flow in numbers worked out by hand, and draws that no process count changes."""

from itertools import pairwise

import pytest
import torch

from trainer import flow

CLEAN = torch.tensor([[2.0, -1.0], [4.0, 0.0]])
NOISE = torch.tensor([[0.0, 3.0], [-2.0, 1.0]])


@pytest.mark.parametrize(
    ("sigma", "noisy"),
    [
        (0.0, [[2.0, -1.0], [4.0, 0.0]]),
        (0.5, [[1.0, 1.0], [1.0, 0.5]]),
        (1.0, [[0.0, 3.0], [-2.0, 1.0]]),
    ],
)
def test_noise_levels(sigma: float, noisy: list[list[float]]) -> None:
    level = torch.full((2,), sigma)
    mixed = flow.add_noise(CLEAN, NOISE, level)
    assert mixed.tolist() == noisy
    target = flow.velocity(CLEAN, NOISE)
    assert target.tolist() == [[-2.0, 4.0], [-6.0, 1.0]]
    # From any level, going back along the velocity ends at the data.
    assert flow.velocity_to_clean(mixed, target, level).tolist() == CLEAN.tolist()


def test_each_sample_has_its_level() -> None:
    mixed = flow.add_noise(CLEAN, NOISE, torch.tensor([0.25, 1.0]))
    assert mixed.tolist() == [[1.5, 0.0], [-2.0, 1.0]]
    video = torch.ones(2, 3, 4, 5, 6)
    mixed = flow.add_noise(video, torch.zeros_like(video), torch.tensor([0.25, 1.0]))
    assert mixed[0].unique().tolist() == [0.75]
    assert mixed[1].unique().tolist() == [0.0]


def test_half_precision_latents_are_mixed_in_float32() -> None:
    mixed = flow.add_noise(CLEAN.bfloat16(), NOISE.bfloat16(), torch.tensor([0.3, 0.3]))
    assert mixed.dtype == torch.float32
    assert torch.allclose(mixed, flow.add_noise(CLEAN, NOISE, torch.tensor([0.3, 0.3])))


def test_paper_convention() -> None:
    """X_t = (1 - t) X_0 + t X_1 with noise X_0 and data X_1, and X_1 - X_0 to be predicted (eq. 3)."""
    sigma = torch.tensor([0.25, 0.75])
    t = flow.paper_time(sigma)
    assert t.tolist() == [0.75, 0.25]
    paper = (1 - t)[:, None] * NOISE + t[:, None] * CLEAN
    assert torch.allclose(flow.add_noise(CLEAN, NOISE, sigma), paper)
    assert flow.paper_velocity(flow.velocity(CLEAN, NOISE)).tolist() == (CLEAN - NOISE).tolist()


def test_timesteps() -> None:
    assert flow.timesteps(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0.0, 500.0, 1000.0]
    assert flow.timesteps(torch.tensor([0.3], dtype=torch.float64)).dtype == torch.float32


def test_loss_is_per_sample() -> None:
    predicted = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    loss = flow.flow_loss(predicted.bfloat16(), torch.tensor([[0.0, 0.0], [0.0, 4.0]]))
    assert loss.tolist() == [2.5, 8.0]
    assert loss.dtype == torch.float32


def test_shift() -> None:
    s = torch.tensor([0.0, 0.25, 0.5, 1.0])
    assert flow.shift_sigma(s, 1.0).tolist() == s.tolist()
    # 5 x 0.5 / (1 + 4 x 0.5) = 5/6; 5 x 0.25 / (1 + 4 x 0.25) = 5/8.
    assert flow.shift_sigma(s, 5.0).tolist() == pytest.approx([0.0, 5 / 8, 5 / 6, 1.0])


def test_sampling_schedule() -> None:
    assert flow.sampling_sigmas(4, 1.0).tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert flow.sampling_sigmas(2, 5.0).tolist() == pytest.approx([1, 5 / 6, 0])


def test_euler_along_the_true_velocity_ends_at_the_data() -> None:
    at = NOISE.clone()
    levels = flow.sampling_sigmas(7, 5.0)
    for now, after in pairwise(levels):
        at = at + (after - now) * flow.velocity(CLEAN, NOISE)
    assert torch.allclose(at, CLEAN, atol=1e-5)


def test_draws_belong_to_seed_step_and_slot() -> None:
    whole = flow.draw_noise(torch.zeros(4, 2, 3), seed=1, step=7, slots=[0, 1, 2, 3])
    parts = [flow.draw_noise(torch.zeros(2, 2, 3), seed=1, step=7, slots=s) for s in ([0, 1], [2, 3])]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole[2], flow.noise_like((2, 3), 1, 7, 2))
    sigmas = flow.draw_sigmas(1, 7, [0, 1, 2, 3], 5.0)
    assert torch.equal(sigmas[2:], flow.draw_sigmas(1, 7, [2, 3], 5.0))
    others = [flow.noise_like((2, 3), *at) for at in ((1, 7, 2), (2, 7, 2), (1, 8, 2), (1, 7, 3))]
    assert len({tuple(other.flatten().tolist()) for other in others}) == 4


def test_a_purpose_has_its_own_stream() -> None:
    drawn = [torch.rand((), generator=flow.generator_for(name, 0, 0, 0)) for name in ("sigma", "noise")]
    assert drawn[0] != drawn[1]


def test_draws_do_not_touch_the_global_generator() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    flow.draw_sigmas(0, 0, [0, 1], 5.0)
    flow.noise_like((2,), 0, 0, 0)
    assert torch.equal(torch.rand(3), expected)


def test_distributions() -> None:
    uniform = flow.draw_sigmas(0, 0, range(4000), 1.0)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.02)
    assert uniform.std() == pytest.approx(12**-0.5, abs=0.01)
    # The mean of 5 s / (1 + 4 s) over s in [0, 1] is 5/4 (1 - ln 5 / 4).
    assert flow.draw_sigmas(0, 0, range(4000), 5.0).mean() == pytest.approx(0.747, abs=0.02)
    noise = flow.noise_like((200, 200), 0, 0, 0)
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
