"""A clip of a portrait that reacts to a touch (InterAvatar §4.2, synthetic videos)."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from pydantic import Field

from backends.image_to_video import Animation, ImageToVideo
from manifests.storage import making
from stages.clip import Clip
from stages.contract import Column, Score, Stage, StageConfig
from stages.picture import MAX_PIXELS, read_picture

NEGATIVE_PROMPT = (
    "static picture, no motion, another person's face, changed identity, distorted face, deformed body, "
    "deformed hands, extra fingers, extra limbs, a second person, camera movement, cut, overexposed, "
    "blurred, low quality, text, subtitles, watermark, cartoon, painting"
)
BT709 = 1  # of primaries, transfer curve and matrix alike (ITU-T H.273)
LIMITED_RANGE = 1  # as FFmpeg numbers it


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
            image=read_picture(clip.local_path, self.config.max_pixels),
            prompt=clip["synthesis_prompt"],
            negative_prompt=self.config.negative_prompt,
            seed=clip.seed % 2**31,
            point=(float(clip["interaction_x"]), float(clip["interaction_y"])),
            interaction_type=clip["interaction_type"],
        )


def _digest(request: Animation, uses_point: bool) -> str:
    """8 hex digits of all that counts: a prompt that a language model words anew makes another clip."""
    digest = hashlib.sha256(np.ascontiguousarray(request.image).tobytes())
    said = [request.image.shape, request.prompt, request.negative_prompt, request.seed]
    digest.update(
        json.dumps([*said, *((request.point, request.interaction_type) if uses_point else ())]).encode()
    )
    return digest.hexdigest()[:8]


def write_video(path: Path, frames: npt.NDArray[np.uint8], fps: float, crf: int) -> None:
    """Write uint8 RGB frames [T, H, W, 3], H and W even, as H.264 in MP4, BT.709, without sound.

    Raises:
        ValueError: no frames, or they are not so.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ValueError(f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"H.264 in yuv420p needs even sides, got {width}x{height}")
    # Without bitexact the file holds the libraries' versions. The macroblock tree is off because x264's fast
    # code for it (core 165) reads memory that nothing has written: the same frames gave different files.
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    x264 = {"crf": str(crf), "preset": "medium", "x264-params": "mbtree=0"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options=x264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        codec = stream.codec_context
        codec.thread_count = 1  # x264 cuts pictures by the number of threads, so files would differ
        codec.color_primaries = codec.color_trc = codec.colorspace = BT709
        codec.color_range = LIMITED_RANGE
        for image in frames:
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range=LIMITED_RANGE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
