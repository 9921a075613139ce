"""Clips out of a trained network: Euler steps along the flow, and the file they end in."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from media.write import write_video
from trainer.checkpoint import CONFIG, find, read_info
from trainer.config import TrainConfig, load_config
from trainer.data.batch import Conditions
from trainer.data.decode import to_bytes
from trainer.exported import base_folder
from trainer.flow import noise_like, sampling_sigmas, velocity_towards
from trainer.guidance import DEFAULT, Guidance, guided_velocity, passes_of
from trainer.networks.causal import generate, load_causal
from trainer.networks.conditions import known_steps
from trainer.networks.encoders import Encoders
from trainer.networks.load import load_backbone
from trainer.networks.protocol import Network
from trainer.start import load_merged

STEPS: Final = 40
CRF: Final = 17  # of x264; its guide calls 17-18 visually lossless


@dataclass(frozen=True)
class Trained:
    """A checkpoint, ready to sample from."""

    model: Network
    encoders: Encoders
    config: TrainConfig
    info: dict[str, Any]  # what trainer.json says

    @property
    def is_distilled(self) -> bool:
        """Whether it generates block by block in few steps."""
        return self.config.is_causal

    def sample(
        self,
        conditions: Conditions,
        frames: int,
        steps: int = STEPS,
        guidance: Guidance = DEFAULT,
        seed: int = 0,
        untouched: Conditions | None = None,
        part: int = 0,
    ) -> Tensor:
        """As the function `sample`; a distilled network takes its own few steps, and no guidance."""
        if self.is_distilled:
            return generate(self.model, self.encoders, conditions, self.config.distill, seed)
        shift = self.config.shift
        network = self.model, self.encoders
        return sample(*network, conditions, frames, steps, guidance, seed, shift, untouched, part)


def load_for_sampling(
    checkpoint: Path, device: torch.device | str = "cpu", folder: Path | None = None
) -> Trained:
    """The network with a checkpoint's averaged weights, and its encoders.

    Args:
        checkpoint: its folder, or that of its run: then the newest.
        device: where to put them; on CUDA the text encoder is bfloat16.
        folder: the diffusers checkpoint that training began with, where it has moved.

    Raises:
        CheckpointError: no complete checkpoint there.
        WeightsError: the diffusers checkpoint is not there or does not fit.
    """
    checkpoint = find(checkpoint).absolute()
    info = read_info(checkpoint)
    config = load_config(checkpoint / CONFIG)
    folder = folder or base_folder(checkpoint, info, config)
    device = torch.device(device)
    model: Network
    if config.is_causal:
        model = load_causal(config, folder)
    else:
        model = load_backbone(config.model, folder, config.data.buckets.fps)
    load_merged(checkpoint, model)
    half = torch.bfloat16 if device.type == "cuda" else torch.float32
    encoders = Encoders.load(config.model, folder, device, half)
    return Trained(model.to(device).eval().requires_grad_(False), encoders, config, info)


@torch.no_grad()
def sample(
    model: nn.Module,
    encoders: Encoders,
    conditions: Conditions,
    frames: int,
    steps: int = STEPS,
    guidance: Guidance = DEFAULT,
    seed: int = 0,
    shift: float = 5.0,
    untouched: Conditions | None = None,
    part: int = 0,
) -> Tensor:
    """Videos for conditions, uint8 [B, 3, F, H, W], on the CPU.

    Euler steps from noise (sigma 1) to 0. The noise is drawn on the CPU for seed, part and place in the
    batch: the same on every device, and for a clip alone as for the first of a batch. Known latent steps go
    straight to what is known of them, so that the rest is decoded behind just that.

    Args:
        model: (noisy, sigma, conditions) -> velocity eps - x.
        encoders: decode the latents, and encode the negative prompt.
        conditions: of B clips; `audio` has `frames` rows.
        frames: frame_step n + 1, frame_step that of the backbone.
        steps: of the sampler.
        guidance: see `trainer.guidance`.
        seed: of the noise.
        shift: of the noise levels; as in training.
        untouched: the conditions without a touch; see `passes_of`.
        part: number of the clip in one that is longer.

    Raises:
        ValueError: that number of frames does not exist, or the network gave no numbers.
    """
    if steps < 1:
        raise ValueError(f"{steps} steps: at least 1")
    shape = _latent_shape(encoders, conditions, frames)
    device, count = encoders.device, shape[0]
    conditions = conditions.to(device)
    calm = None if untouched is None else untouched.to(device)
    passes = passes_of(conditions, encoders, guidance, calm)
    is_known = known_steps(conditions.known, shape[2])
    noisy = torch.stack([noise_like(shape[1:], seed, part, slot) for slot in range(count)]).to(device)
    sigmas = sampling_sigmas(steps, shift).to(device)
    for now, then in pairwise(sigmas):
        level = now.expand(count)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):  # as in training
            velocity = guided_velocity(model, noisy, level, passes)
        velocity = torch.where(is_known, velocity_towards(conditions.image_latents, noisy, level), velocity)
        noisy = noisy + (then - now) * velocity
    if not torch.isfinite(noisy).all():
        raise ValueError("the network gave numbers that are not finite; use an older checkpoint")
    return to_bytes(encoders.decode(noisy)).cpu()


def _latent_shape(encoders: Encoders, conditions: Conditions, frames: int) -> tuple[int, int, int, int, int]:
    step = encoders.backbone.frame_step
    if frames < 1 or (frames - 1) % step:
        raise ValueError(f"{frames} frames: {encoders.backbone.name} makes {step} n + 1")
    count, channels, _, height, width = conditions.reference.shape
    return count, channels, (frames - 1) // step + 1, height, width


def write_clip(
    path: Path,
    video: Tensor,
    fps: float,
    sound: npt.NDArray[np.float32] | None = None,
    rate: int = 48000,
) -> None:
    """Write an MP4 (H.264, BT.709; AAC), which appears whole under its name.

    Args:
        path: where.
        video: uint8 [3, F, H, W]; H and W even.
        fps: frames a second.
        sound: mono float32 [N] in [-1, 1]; what lasts longer than the pictures is left out.
        rate: its samples a second.

    Raises:
        ValueError: no frames, or odd sides.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f".{path.stem}-{uuid4().hex[:8]}.mp4")
    frames = video.permute(1, 2, 3, 0).contiguous().numpy()
    try:
        write_video(making, frames, fps, CRF, sound, rate)
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)
