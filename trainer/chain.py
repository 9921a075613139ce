"""Clips of any length, part after part (InterAvatar C.2): each begins with the last frames of the one before.

Every part has a length that was trained. The first one knows the reference picture as its first frame. Each
further one knows the last frames of what was made, as many as two latent steps hold, five for Wan; they are
not kept a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from configs.reading import SettingsError
from manifests.buckets import BucketConfig
from trainer.data.batch import MOTION_STEPS, Batch, Conditions
from trainer.generate import STEPS, Trained
from trainer.guidance import DEFAULT, Guidance
from trainer.networks.encoders import encode_conditions


@dataclass(frozen=True)
class Part:
    """A stretch of a long clip that is made at once; numbers are those of frames of the long clip."""

    first: int  # of its frames, known ones included
    frames: int  # that it is made of: a trained length
    begin: int  # the first that is taken from it
    end: int  # behind the last that is taken from it
    is_touched: bool


def parts_of(frames: int, buckets: BucketConfig, frame_step: int, touched: int | None = None) -> list[Part]:
    """Cut a clip into parts as long as were trained; what the last one has more is left out.

    Args:
        frames: of the whole clip.
        buckets: the lengths that were trained.
        frame_step: of the backbone.
        touched: the frame in which the person is touched: a part begins with it. It is the first frame where
            there are not frames enough before it to go on from.

    Raises:
        SettingsError: the longest trained part has nothing new to add.
    """
    motion = motion_frames(frame_step)
    longest = buckets.frames_within(buckets.max_frames)
    shortest = _trained(buckets.min_frames, buckets)
    if touched is not None and touched < motion:
        touched = 0
    parts: list[Part] = []
    begin = 0
    while begin < frames:
        first = begin - motion if begin else 0
        border = touched if touched is not None and begin < touched < frames else frames
        length = min(longest, max(shortest, _trained(border - first, buckets)))
        end = min(first + length, border)
        if end <= begin:
            raise SettingsError(
                f"{frames} frames: this checkpoint was trained on clips of {longest} frames, of which "
                f"{motion} are those of the clip before; train with a larger data.buckets.max_frames"
            )
        parts.append(Part(first, length, begin, end, begin == touched))
        begin = end
    return parts


def motion_frames(frame_step: int) -> int:
    """How many frames a part knows of the one before: Wan 5, LTX 9."""
    return (MOTION_STEPS - 1) * frame_step + 1


def _trained(frames: int, buckets: BucketConfig) -> int:
    """The next length step n + 1 up."""
    return -(-(frames - 1) // buckets.step) * buckets.step + 1


def rows_of(parts: Sequence[Part]) -> int:
    """Rows of sound that the parts hear: those of frames that are left out, too."""
    return max(part.first + part.frames for part in parts)


@torch.no_grad()
def make_parts(
    trained: Trained,
    batch: Batch,
    untouched: Batch,
    parts: Sequence[Part],
    steps: int = STEPS,
    guidance: Guidance = DEFAULT,
    seed: int = 0,
) -> Iterator[Tensor]:
    """The frames that each part adds, uint8 [3, F, H, W], one part after the other.

    Args:
        trained: not distilled: such a network goes on by itself.
        batch: of one clip: its video is the portrait, its audio has `rows_of(parts)` rows.
        untouched: the same without a touch.
        parts: see `parts_of`.
        steps, guidance, seed: see `trainer.generate.sample`; each part has noise of its own.
    """
    encoders = trained.encoders
    motion = motion_frames(encoders.backbone.frame_step)
    last = batch.video[0]  # frames of what was made, the portrait at first
    for number, part in enumerate(parts):

        def conditions_of(whole: Batch, part: Part = part, last: Tensor = last) -> Conditions:
            known = torch.tensor([MOTION_STEPS if part.begin else 1])
            audio = whole.audio[:, part.first : part.first + part.frames]
            return encode_conditions(replace(whole, video=last[None], known=known, audio=audio), encoders)

        calm = conditions_of(untouched)
        conditions = conditions_of(batch) if part.is_touched else calm
        video = trained.sample(conditions, part.frames, steps, guidance, seed, calm, number)[0]
        made = video[:, part.begin - part.first : part.end - part.first]
        last = (torch.cat([last, made], dim=1) if part.begin else made)[:, -motion:]
        yield made
