"""A clip of a portrait that reacts to a touch (InterAvatar §4.2, synthetic videos)."""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from backends.video.image_to_video import Animation, ImageToVideo
from manifests.storage import making
from media.crop import Crop
from media.picture import MAX_PIXELS, read_picture
from media.write import write_video
from stages.clip import Clip
from stages.contract import Column, Score, Stage, StageConfig

NEGATIVE_PROMPT = (
    "static picture, no motion, another person's face, changed identity, distorted face, deformed body, "
    "deformed hands, extra fingers, extra limbs, a second person, camera movement, cut, overexposed, "
    "blurred, low quality, text, subtitles, watermark, cartoon, painting"
)


class Synthesise(Stage):
    """Makes the clip that a portrait and its reaction call for, and makes it the sample's media.

    The clip is the expensive part of a run, so it is a checkpoint of its own: written in one step under a
    name made of the sample, the fingerprint and what was asked for, and taken as it is where it lies
    already. The same input gives the same file, byte for byte, if the backend's frames are the same.

    Raises (as the sample's error):
        MediaError: the portrait cannot be read.
        ValueError: the row names no interaction, point or prompt.
    """

    class Config(StageConfig):
        """Settings of Synthesise."""

        crf: int = Field(16, ge=0, le=51, description="x264 quality of the clip; lower is better")
        negative_prompt: str = Field(NEGATIVE_PROMPT, description="what the clip must not show")
        max_pixels: int = Field(MAX_PIXELS, gt=0, description="largest portrait that is read, pixels")

    writes: ClassVar = {
        "media_uri": Column("string", "path or URL", "The file that holds the sample's media now."),
        "synthesis_by": Column(
            "string", "", "what made the clip; stand_in_... is no generator and not for training"
        ),
        "synthesis_seed": Column("int", "", "seed of the clip's noise"),
        "synthesis_fps": Score("frames/s", "rate of the clip"),
    }

    def __init__(self, image_to_video: ImageToVideo, config: StageConfig | None = None) -> None:
        super().__init__(image_to_video, config=config)
        self.image_to_video = image_to_video

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """What changes the clip: a point that is found anew must not make a dear clip again for nothing."""
        point = ("interaction_type", "interaction_x", "interaction_y")
        return ("synthesis_prompt", *(point if self.image_to_video.uses_point else ()))

    @property
    def uses_vocabulary(self) -> bool:
        """The group, where it changes the clip."""
        return self.image_to_video.uses_point

    @property
    def sees(self) -> tuple[()]:
        """Nothing: the portrait is read as a picture, in full size."""
        return ()

    def score(self, clip: Clip) -> dict[str, Any]:
        """Make the clip where it does not exist."""
        request = self._request(clip)
        target = clip.new_media(f"-{_digest(request, self.image_to_video.uses_point)}.mp4")
        if not target.exists():
            frames = self.image_to_video.animate(request)
            with making(target) as path:
                write_video(path, frames, self.image_to_video.fps, self.config.crf)
        return {
            "media_uri": str(target),
            "synthesis_by": self.image_to_video.name,
            "synthesis_seed": request.seed,
            "synthesis_fps": self.image_to_video.fps,
        }

    def _request(self, clip: Clip) -> Animation:
        if clip.local_path is None:
            raise ValueError("there is no portrait to read")
        needed = ("interaction_type", "interaction_x", "interaction_y", "synthesis_prompt")
        missing = [name for name in needed if clip[name] is None]
        if missing:
            raise ValueError(f"nothing to synthesise: the row has no {', '.join(missing)}")
        return Animation(
            image=read_picture(clip.local_path, self.config.max_pixels, Crop.of(clip.row)),
            prompt=clip["synthesis_prompt"],
            negative_prompt=self.config.negative_prompt,
            seed=clip.seed % 2**31,
            point=(float(clip["interaction_x"]), float(clip["interaction_y"])),
            interaction_type=clip["interaction_type"],
            vocabulary=self.vocabulary,
        )


def _digest(request: Animation, uses_point: bool) -> str:
    """8 hex digits of all that counts: a prompt that a language model words anew makes another clip."""
    digest = hashlib.sha256(np.ascontiguousarray(request.image).tobytes())
    said = [request.image.shape, request.prompt, request.negative_prompt, request.seed]
    digest.update(
        json.dumps([*said, *((request.point, request.interaction_type) if uses_point else ())]).encode()
    )
    return digest.hexdigest()[:8]
