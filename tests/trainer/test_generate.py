"""Sampling: Euler steps on known flows, guidance, and the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from media.decode import decode
from media.files import MediaError
from media.requests import Audio
from media.sound import read_sound
from tests.support.memory import FILLS, filled
from trainer.data.batch import Conditions
from trainer.flow import noise_like
from trainer.generate import sample, write_clip
from trainer.guidance import Guidance
from trainer.networks.wan import BACKBONE

# Flows that are known


class Flat:
    """Encoders whose latents are pictures: sampling can be followed by hand."""

    backbone = BACKBONE
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.decoded = torch.empty(0)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self.decoded = latents
        return latents[:, :3].repeat_interleave(4, 2)[:, :, 3:]

    def text(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """One token more than the prompt has letters, each 9."""
        lengths = torch.tensor([[len(prompt)] for prompt in prompts])
        mask = torch.arange(6) <= lengths
        return 9.0 * mask[..., None], mask


def conditions_of(count: int = 1) -> Conditions:
    yes = torch.ones(count, dtype=torch.bool)
    return Conditions(
        text=torch.ones(count, 6, 1),
        text_mask=torch.ones((count, 6), dtype=torch.bool),
        image=torch.ones(count, 2, 5),
        reference=torch.ones(count, 4, 1, 2, 2),
        image_latents=torch.zeros(count, 4, 3, 2, 2),
        known=torch.zeros(count, dtype=torch.int64),
        points=torch.ones(count, 2),
        identity=torch.ones(count, 3),
        attributes=torch.ones(count, 2, 3),
        audio=torch.ones(count, 9, 3),
        has_points=yes,
        has_identity=yes,
        has_attributes=yes,
        has_audio=yes,
        has_reference=yes,
    )


def run(model: Callable[..., Any], count: int = 1, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    encoders: Any = Flat()
    conditions = settings.pop("conditions", conditions_of(count))
    guidance = Guidance(settings.pop("guidance", 1.0))
    video = sample(model, encoders, conditions, 9, guidance=guidance, **settings)  # type: ignore[arg-type]
    return encoders.decoded, video


NOISE = noise_like((4, 3, 2, 2), 0, 0, 0)


@pytest.mark.parametrize(("steps", "shift"), [(1, 1.0), (1, 5.0), (4, 1.0), (7, 5.0)])
def test_a_straight_flow_is_followed_exactly(steps: int, shift: float) -> None:
    goal = torch.linspace(-1, 1, 48).view(1, 4, 3, 2, 2)

    def straight(noisy: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        return (noisy - goal) / sigma.view(-1, 1, 1, 1, 1)  # eps - x, wherever on the line one is

    found, video = run(straight, steps=steps, shift=shift)
    torch.testing.assert_close(found, goal, atol=1e-5, rtol=0)
    assert video.shape == (1, 3, 9, 2, 2) and video.dtype == torch.uint8
    assert video[0, 0, 0, 0, 0] == 0  # -1


@pytest.mark.parametrize(("shift", "left"), [(1.0, 0.5 * 0.5), (3.0, 0.75 * 0.25)])
def test_two_euler_steps_by_hand(shift: float, left: float) -> None:
    """Velocity = where it is: each step takes off its share; the middle level is 0.5 or 3/4 (shifted)."""
    levels: list[float] = []

    def linear(noisy: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        levels.append(float(sigma[0]))
        return noisy

    found, _ = run(linear, steps=2, shift=shift)
    torch.testing.assert_close(found[0], NOISE * left)
    assert levels == pytest.approx([1.0, shift * 0.5 / (1 + (shift - 1) * 0.5)])


def test_guidance() -> None:
    """With conditions 2, without 1: guided by 3 it is 1 + 3 (2 - 1) = 4; by 1 the second pass is not run."""
    calls: list[bool] = []

    def two(noisy: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        calls.append(bool(conditions.has_audio.all()))
        return torch.full_like(noisy, 2.0 if calls[-1] else 1.0)

    found, _ = run(two, steps=3, guidance=3.0)
    torch.testing.assert_close(found[0], NOISE - 4)
    assert calls == [True, False] * 3
    calls.clear()
    found, _ = run(two, steps=3, guidance=1.0)
    torch.testing.assert_close(found[0], NOISE - 2)
    assert calls == [True] * 3


def test_known_steps_end_where_they_are_known_to_be() -> None:
    """Whatever the network and its guidance say; other steps are the network's."""

    def wild(noisy: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        return torch.full_like(noisy, 3.0 if conditions.has_audio.all() else -2.0)

    known = torch.linspace(-1, 1, 96).view(2, 4, 3, 2, 2)
    given = replace(conditions_of(2), image_latents=known, known=torch.tensor([1, 2]))
    found, _ = run(wild, count=2, conditions=given, steps=7, guidance=2.5)
    free, _ = run(wild, count=2, steps=7, guidance=2.5)
    torch.testing.assert_close(found[0, :, :1], known[0, :, :1])
    torch.testing.assert_close(found[1, :, :2], known[1, :, :2])
    assert torch.equal(found[0, :, 1:], free[0, :, 1:]) and torch.equal(found[1, :, 2:], free[1, :, 2:])


def test_each_part_of_a_long_clip_has_noise_of_its_own() -> None:
    def still(noisy: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        return torch.zeros_like(noisy)

    found = [run(still, part=part)[0] for part in (0, 1, 1)]
    assert torch.equal(found[0][0], NOISE) and torch.equal(found[1], found[2])
    assert not torch.equal(found[0], found[1])


def test_the_seed_decides() -> None:
    def still(noisy: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        return torch.zeros_like(noisy)

    first, _ = run(still, seed=3)
    again, _ = run(still, count=2, seed=3)
    other, _ = run(still, seed=4)
    assert torch.equal(again[:1], first) and not torch.equal(again[1:], first)
    assert not torch.equal(other, first)


def test_what_cannot_be_sampled() -> None:
    def broken(noisy: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        return noisy * torch.nan

    encoders: Any = Flat()
    with pytest.raises(ValueError, match=r"10 frames: wan makes 4 n \+ 1"):
        sample(broken, encoders, conditions_of(), 10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        sample(broken, encoders, conditions_of(), 9, steps=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not finite"):
        sample(broken, encoders, conditions_of(), 9, steps=1)  # type: ignore[arg-type]


# The file


def probe(path: Path) -> dict[str, Any]:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        shape = (video.width, video.height, float(video.average_rate or 0))
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
        sound = container.streams.audio[0].rate if container.streams.audio else None
    return {"shape": shape, "frames": np.stack(frames), "sound": sound}


def test_a_clip_is_written_whole(tmp_path: Path) -> None:
    video = torch.zeros((3, 9, 48, 80), dtype=torch.uint8)
    video[0, :5], video[2, 5:] = 220, 220  # red, then blue
    tone = np.sin(2 * np.pi * 440 * np.arange(48000) / 48000).astype(np.float32) * 0.5
    path = tmp_path / "new" / "clip.mp4"
    write_clip(path, video, 16.0, tone, 48000)
    found = probe(path)
    assert found["shape"] == (80, 48, 16.0) and found["sound"] == 48000
    assert found["frames"].shape == (9, 48, 80, 3)
    assert np.abs(found["frames"][0].mean((0, 1)) - (220, 0, 0)).max() < 8
    assert np.abs(found["frames"][8].mean((0, 1)) - (0, 0, 220)).max() < 8
    heard = read_sound(path, 16000, 10)
    assert abs(len(heard) / 16000 - 9 / 16) < 0.07  # cut where the pictures end; AAC's blocks last 21 ms
    spectrum = np.abs(np.fft.rfft(heard[:8000]))
    assert abs(int(spectrum.argmax()) * 2 - 440) <= 2
    assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]


def test_a_clip_does_not_depend_on_what_memory_held(tmp_path: Path) -> None:
    """In any even size the frames' own bytes decide, and what is read is the picture."""
    for width, height in [
        *((side, 16) for side in range(16, 66, 2)),
        *((34, side) for side in range(18, 66, 2)),
    ]:
        image = np.empty((height, width, 3), np.uint8)
        image[..., 0] = np.linspace(60, 200, width)
        image[..., 1] = np.linspace(60, 140, height)[:, None]
        image[..., 2] = 100
        video = torch.from_numpy(np.stack([image] * 2)).permute(3, 0, 1, 2)
        files = [tmp_path / f"{fill}.mp4" for fill in FILLS]
        for fill, path in zip(FILLS, files, strict=True):
            with filled(fill):
                write_clip(path, video, 10.0)
        assert files[0].read_bytes() == files[1].read_bytes()
        found = probe(files[0])["frames"].astype(int)
        assert np.abs(found - image).max() <= 12, (width, height)


def test_a_clip_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"older")
    with pytest.raises(ValueError, match="even sides, got 47x33"):
        write_clip(tmp_path / "clip.mp4", torch.zeros((3, 2, 33, 47), dtype=torch.uint8), 16.0)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    assert (tmp_path / "clip.mp4").read_bytes() == b"older"


def test_sound_is_read_as_the_data_engine_reads_it(samples: Path) -> None:
    source = samples / "videos" / "latentsync_man_en.mp4"
    expected = decode(source, [Audio(16000)], end_s=2.5).audio[Audio(16000)]
    assert expected is not None
    heard = read_sound(source, 16000, 2)
    np.testing.assert_allclose(heard, expected[: len(heard)], atol=1e-6)
    assert np.abs(heard).max() > 0.05


def test_stereo_becomes_its_mean(tmp_path: Path) -> None:
    import wave

    both = np.stack([np.full(16000, 0.5), np.full(16000, -0.1)], 1)
    with wave.open(str(tmp_path / "stereo.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((both * 32767).astype("<i2").tobytes())
    heard = read_sound(tmp_path / "stereo.wav", 16000, 1)
    np.testing.assert_allclose(heard, 0.2, atol=1e-3)


def test_sound_is_read_as_far_as_wanted(samples: Path, tmp_path: Path) -> None:
    source = samples / "audio" / "whisper_jfk_en.wav"
    heard = read_sound(source, 16000, 1.5)
    assert heard.shape == (24000,) and heard.dtype == np.float32
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(MediaError, match=r"text\.wav: not a readable media file"):
        read_sound(tmp_path / "text.wav", 16000, 1)
    write_clip(tmp_path / "mute.mp4", torch.zeros((3, 2, 32, 32), dtype=torch.uint8), 16.0)
    with pytest.raises(MediaError, match=r"mute\.mp4: no sound in it"):
        read_sound(tmp_path / "mute.mp4", 16000, 1)
