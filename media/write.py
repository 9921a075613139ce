"""Writing H.264 in MP4, with or without sound: the same pictures give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

PIXELS = "yuv420p"
# Of primaries, transfer curve and matrix alike (ITU-T H.273).
BT709 = 1
BT601 = 6
LIMITED_RANGE = 1  # as FFmpeg numbers it


def open_mp4(sink: Path | BinaryIO, options: dict[str, str] | None = None) -> Any:
    """A new MP4, to be closed by the caller; `options` of FFmpeg's muxer.

    Without bitexact a file holds the libraries' versions.
    """
    target = str(sink) if isinstance(sink, Path) else sink
    return av.open(target, "w", format="mp4", options={"fflags": "+bitexact"} | (options or {}))


def add_h264(container: Any, size: tuple[int, int], rate: Fraction, crf: int, preset: str) -> Any:
    """A stream of H.264 in yuv420p and limited range; what colours its values mean is the caller's to say.

    Args:
        container: from `open_mp4`.
        size: width and height, both even.
        rate: pictures a second.
        crf, preset: of x264.
    """
    # The macroblock tree is off because x264's fast code for it (core 165) reads memory that nothing has
    # written: the same frames gave different files.
    x264 = {"crf": str(crf), "preset": preset, "x264-params": "mbtree=0"}
    stream = container.add_stream("libx264", rate=rate, options=x264)
    stream.width, stream.height = size
    stream.pix_fmt = PIXELS
    stream.codec_context.thread_count = (
        1  # x264 cuts pictures by the number of threads, so files would differ
    )
    stream.codec_context.color_range = LIMITED_RANGE
    return stream


def write_video(
    path: Path,
    frames: npt.NDArray[np.uint8],
    fps: float,
    crf: int,
    sound: npt.NDArray[np.float32] | None = None,
    sound_rate: int = 48000,
) -> None:
    """Write an MP4: H.264 in BT.709, and AAC where there is sound.

    Args:
        path: where.
        frames: RGB, uint8 [T, H, W, 3]; H and W even.
        fps: frames a second.
        crf: of x264; lower is better.
        sound: mono float32 [N] in [-1, 1]; what lasts longer than the pictures is left out.
        sound_rate: its samples a second.

    Raises:
        ValueError: no frames, or they are not so.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ValueError(f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"H.264 in yuv420p needs even sides, got {width}x{height}")
    with VideoWriter(path, (width, height), fps, crf, None if sound is None else sound_rate) as writer:
        for image in frames:
            writer.add(image)
        if sound is not None:
            writer.sound = sound[: round(len(frames) / fps * sound_rate)]


class VideoWriter:
    """Writes an MP4 picture by picture: H.264 in BT.709, and AAC where there is sound."""

    def __init__(
        self, path: Path, size: tuple[int, int], fps: float, crf: int, sound_rate: int | None = None
    ) -> None:
        """As `write_video`; size: width and height; sound_rate: of `sound`, to be set; None: no sound."""
        self._container = open_mp4(path, {"movflags": "+faststart"})
        self._stream = add_h264(self._container, size, _fraction(fps), crf, "medium")
        codec = self._stream.codec_context
        codec.color_primaries = codec.color_trc = codec.colorspace = BT709
        self._track = None if sound_rate is None else add_aac(self._container, sound_rate)
        self.sound = np.zeros(0, np.float32)  # mono, from 0 s on

    def add(self, image: npt.NDArray[np.uint8]) -> None:
        """The next picture: RGB, uint8 [H, W, 3]."""
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format=PIXELS, dst_colorspace="ITU709", dst_color_range=LIMITED_RANGE)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write the rest, and the sound."""
        with self._container as container:
            container.mux(self._stream.encode())
            if self._track is not None:
                write_sound(container, self._track, self.sound)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            self._container.close()


def add_aac(container: Any, rate: int) -> Any:
    """A stream of mono AAC of a rate, Hz."""
    return container.add_stream("aac", rate=rate, layout="mono")


def write_sound(container: Any, track: Any, sound: npt.NDArray[np.float32]) -> None:
    """Encode all of a sound, mono float32 [N] in [-1, 1] at the track's rate, from 0 s on."""
    if len(sound):
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(sound)[None], format="fltp", layout="mono")
        frame.sample_rate = track.codec_context.sample_rate
        frame.pts = 0
        container.mux(track.encode(frame))
    container.mux(track.encode())


def write_with_sound(path: Path, mp4: bytes, sound: npt.NDArray[np.float32], rate: int) -> None:
    """Write an MP4 of pictures with mono AAC from 0 s on; the packets of the pictures stay as they are.

    It can be played while it loads.

    Args:
        path: where.
        mp4: as `open_mp4` and `copy_packets` make it.
        sound: float32 [N] in [-1, 1].
        rate: its samples a second.
    """
    options = {"movflags": "+faststart"}
    with av.open(io.BytesIO(mp4), "r") as pictures, open_mp4(path, options) as container:
        (video,) = pictures.streams.video
        stream = container.add_stream_from_template(video)
        stream.time_base = video.time_base
        track = add_aac(container, rate) if len(sound) else None
        for packet in pictures.demux(video):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
        if track is not None:
            write_sound(container, track, sound)


def question_video(images: Sequence[npt.NDArray[np.uint8]], fps: float, crf: int) -> bytes:
    """RGB uint8 [H, W, 3] of one size as a small MP4 at a constant rate, for a model to look at.

    H.264 as every server decodes it wants even sides: an odd one repeats its last row or column. The colours
    are BT.601 at every size, and say so.
    """
    rate = _fraction(fps)
    height, width = (side + side % 2 for side in images[0].shape[:2])
    sink = io.BytesIO()
    with open_mp4(sink) as container:
        stream = add_h264(container, (width, height), rate, crf, "veryfast")
        stream.codec_context.colorspace = BT601  # as the conversion makes it that is told nothing
        for number, image in enumerate(images):
            below, right = height - image.shape[0], width - image.shape[1]
            padded = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return sink.getvalue()


def copy_packets(video: Any, packets: Sequence[Any]) -> bytes:
    """A stream's packets, as they are, in a new MP4 whose first picture is at 0 s.

    Args:
        video: the stream; its file must be open.
        packets: all of them with their times, in the order of decoding; they are changed.

    Raises:
        ValueError: they do not fit into an MP4.
    """
    zero = min(packet.pts for packet in packets)
    sink = io.BytesIO()
    try:
        with open_mp4(sink) as container:
            stream = container.add_stream_from_template(video)
            stream.metadata.clear()  # untrusted, and of no use
            stream.time_base = video.time_base
            for packet in packets:
                packet.pts -= zero
                packet.dts = None if packet.dts is None else packet.dts - zero
                packet.stream = stream
                container.mux(packet)
    except av.FFmpegError as error:
        raise ValueError(f"the packets do not fit into an MP4: {error}") from error
    return sink.getvalue()


def _fraction(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)
