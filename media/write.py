"""Writing H.264: the same pictures give the same bytes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

BT709 = 1  # of primaries, transfer curve and matrix alike (ITU-T H.273)
LIMITED_RANGE = 1  # as FFmpeg numbers it


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
