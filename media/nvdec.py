"""Decoding by the decoder of an NVIDIA GPU (NVDEC), through FFmpeg.

The standards of the streams that it is given say each pixel to the bit, so the pictures are the same; they
come as NV12 or P010, which hold what yuv420p and yuv420p10le hold in another order.
"""

from __future__ import annotations

import functools
import sys
from typing import Literal

import av
from av.codec import Codec
from av.codec.hwaccel import HWAccel

from media.files import ffmpeg_reason

Decoder = Literal["cpu", "cuda"]
CODECS = frozenset({"h264", "hevc", "vp9"})  # FFmpeg's decoders
STORED = frozenset({"yuv420p", "yuvj420p", "yuv420p10le"})
GIVEN = frozenset({"nv12", "p010le"})
_HELD: list[HWAccel] = []  # so that the GPU's context does not end with each file


@functools.cache
def gpu() -> HWAccel | None:
    """What files are opened with; None where no GPU can be had, which is said once.

    The first GPU that the process sees; its context is the one that models use there.
    """
    wanted = HWAccel("cuda", options={"primary_ctx": "1"})
    try:
        _HELD.append(wanted.create(Codec("h264")))
    except (av.FFmpegError, NotImplementedError) as error:
        print(f"video is decoded on the CPU: no GPU decodes here ({ffmpeg_reason(error)})", file=sys.stderr)
        return None
    return wanted


def is_fit(codec: str, pixel_format: str) -> bool:
    """Whether a stream may go to the GPU; what that refuses for its profile or size FFmpeg decodes itself."""
    return codec in CODECS and pixel_format in STORED
