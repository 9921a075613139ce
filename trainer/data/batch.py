"""What moves through the trainer: a batch of clips, and what the network is conditioned on."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

import torch
from torch import Tensor

# A clip that continues another knows so many latent steps of it: for Wan the five frames of InterAvatar C.2,
# for LTX nine. Any other clip knows one, its first frame; one without reference knows none.
MOTION_STEPS: Final = 2


@dataclass(frozen=True)
class Batch:
    """B clips of one bucket, F frames of H x W pixels.

    A condition that a clip does not have, or that was dropped, is zero and its `has_` is False.
    """

    sample_ids: list[str]
    runs: list[str]  # names in the mixing table
    slots: list[int]  # places in the global batch: noise and dropout are drawn for (seed, step, slot)
    video: Tensor  # [B, 3, F, H, W] uint8; no frames with the cache; for sampling the known ones alone
    reference: Tensor  # [B, 3, H, W] uint8: the reference picture, without marker; no pixels with the cache
    prompts: list[str]  # after dropout; "" where the text was dropped
    points: Tensor  # [B, 2] float32, shares of the reference picture; (0, 0) without
    identity: Tensor  # [B, D_id] float32
    attributes: Tensor  # [B, N, D_att] float32
    audio: Tensor  # [B, F, D_audio] float32, one row a frame
    has_points: Tensor  # [B] bool: the marker and the position tokens
    has_identity: Tensor  # [B] bool
    has_attributes: Tensor  # [B] bool
    has_audio: Tensor  # [B] bool
    has_reference: Tensor  # [B] bool: reference latent and CLIP features
    known: Tensor  # [B] int64: latent steps of video that are known, from step 0 on; see MOTION_STEPS
    # What the latent cache has of the clips, all or none of it; see Conditions.
    latents: Tensor | None = None  # [B, C, T, h, w] float32
    image_latents: Tensor | None = None  # [B, C, T, h, w] float32
    reference_latent: Tensor | None = None  # [B, C, 1, h, w] float32
    image: Tensor | None = None  # [B, N_clip, D_clip] float32, of the marked picture where there is a point
    text: Tensor | None = None  # [B, L, D_text] of `prompts`, in the type that the text encoder computed in
    text_mask: Tensor | None = None  # [B, L] bool


@dataclass(frozen=True)
class Conditions:
    """What the network is conditioned on; T latent steps of h x w, C latent channels."""

    text: Tensor  # [B, L, D_text]; wan: L = 512, padded with zeros
    text_mask: Tensor  # [B, L] bool: the tokens that count (wan attends to all)
    image: Tensor  # [B, N_clip, D_clip]: penultimate CLIP features of the marked reference picture
    reference: Tensor  # [B, C, 1, h, w]: latent of the reference picture; zeros where dropped
    # [B, C, T, h, w]: z_img (§3.2), the latents of the known frames; behind them wan has those of grey ones,
    # ltx zeros; zeros where nothing is known
    image_latents: Tensor
    known: Tensor  # [B] int64: latent steps that are known, from step 0 on
    points: Tensor  # [B, 2]
    identity: Tensor  # [B, D_id]
    attributes: Tensor  # [B, N, D_att]
    audio: Tensor  # [B, F, D_audio]
    has_points: Tensor  # [B] bool
    has_identity: Tensor
    has_attributes: Tensor
    has_audio: Tensor
    has_reference: Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Conditions:
        """On a device; `dtype` for the tensors that hold floats, points excepted."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value: Tensor = getattr(self, field.name)
            floats = value.is_floating_point() and field.name != "points"
            moved[field.name] = value.to(device, dtype if floats else None)
        return replace(self, **moved)
