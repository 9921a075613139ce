"""Ingest: is the file a clip at all, and what is in it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from media.decode import Decoded
from media.files import MediaError
from media.hdr import TRANSFERS
from media.requests import AudioPeak
from stages.clip import Clip
from stages.contract import Column, Score, Stage, StageConfig


class Probe(Stage):
    """Streams, true frame count and rate, sound, start offsets, and a hash of the content.

    Everything is measured on the decoded frames; the header's claims are only compared with them.

    Raises (as the sample's error):
        MediaError: the file is no clip: not decodable, no video, one frame, or cut short.
    """

    class Config(StageConfig):
        """Settings of Probe."""

        shortest_share: float = Field(
            0.9,
            gt=0,
            le=1,
            description="Less of the header's duration than this decodes: an error (truncated).",
        )
        jitter: float = Field(
            0.25, gt=0, description="An interval is odd that differs by more than this share from the median."
        )
        odd_share: float = Field(
            0.05,
            ge=0,
            description="More odd intervals than this share: variable frame rate, not a lost frame.",
        )

    version: ClassVar[int] = 3
    writes: ClassVar = {
        "duration_s": Score("s", "Duration of the decoded picture."),
        "fps": Score("frames/s", "Mean frame rate, measured on the decoded frames."),
        "header_fps": Score("frames/s", "Frame rate that the header claims; null if none."),
        "variable_frame_rate": Column("bool", "", "Many frame intervals differ from the median one."),
        "num_frames": Column("int", "frames", "Frames that decode."),
        "decoded_share": Score("0-1", "Decoded duration over the header's, at most 1; null without a claim."),
        "decode_errors": Column("int", "packets", "Packets that could not be decoded."),
        "width": Column("int", "px", "Width as displayed."),
        "height": Column("int", "px", "Height as displayed."),
        "short_side": Column("int", "px", "The shorter of width and height."),
        "mirrored": Column("bool", "", "Left and right of the stored frames change places to be shown."),
        "rotation": Column("int", "degrees", "Counter-clockwise turn that then shows them upright."),
        "container": Column("string", "", "Container format."),
        "video_codec": Column("string", "", "Video decoder."),
        "pixel_format": Column("string", "", "Pixel format of the stored frames."),
        "is_hdr": Column("bool", "", "PQ or HLG transfer function; pictures are mapped to BT.709."),
        "interlaced": Column("bool", "", "Most frames are interlaced; pictures show their upper field."),
        "size_changes": Column("int", "count", "How often the pictures change their size."),
        "num_parts": Column("int", "count", "Recordings joined in it: 1 + how often its times begin again."),
        "has_audio": Column("bool", "", "The file has an audio track."),
        "audio_codec": Column("string", "", "Audio decoder; null without audio."),
        "audio_rate": Column("int", "Hz", "Stored sample rate; null without audio."),
        "audio_channels": Column("int", "channels", "Stored channels; null without audio."),
        "audio_peak": Score("0-1", "Largest absolute sample; 0 is digital silence; null without audio."),
        "audio_changes": Column("int", "count", "How often the sound changes rate or channels; 0 without."),
        "audio_start_offset_s": Score("s", "First audio minus first video time stamp; null without audio."),
        "content_hash": Column("string", "SHA-256", "Hash of the compressed packets: same media, same hash."),
    }

    @property
    def sees(self) -> tuple[AudioPeak, ...]:
        """The sound track, so that silence is noticed and the hash covers it."""
        return (AudioPeak(),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Measure; see the class."""
        media = clip.media
        times = media.frame_times
        if len(times) < 2 or times[-1] <= times[0]:
            raise MediaError(f"no frame rate: {len(times)} frame(s) at one time stamp are no clip")
        intervals = np.diff(times)
        typical = float(np.median(intervals))
        odd = np.abs(intervals - typical) > self.config.jitter * typical
        fps = (len(times) - 1) / float(times[-1] - times[0])
        duration = float(times[-1] - times[0]) + 1 / fps
        share = self._decoded_share(media, duration, clip["start_s"] or 0.0, clip["end_s"])
        has_audio = media.audio_start_s is not None
        return {
            "duration_s": duration,
            "fps": fps,
            "header_fps": media.header_fps,
            "variable_frame_rate": bool(odd.mean() > self.config.odd_share),
            "num_frames": len(times),
            "decoded_share": share,
            "decode_errors": media.decode_errors,
            "width": media.width,
            "height": media.height,
            "short_side": min(media.width, media.height),
            "mirrored": media.orientation.mirrored,
            "rotation": media.orientation.degrees,
            "container": media.format,
            "video_codec": media.video_codec,
            "pixel_format": media.pixel_format,
            "is_hdr": media.color_transfer in TRANSFERS,
            "interlaced": media.interlaced_share > 0.5,
            "size_changes": media.size_changes,
            "num_parts": media.parts,
            "has_audio": has_audio,
            "audio_codec": media.audio_codec,
            "audio_rate": media.audio_rate,
            "audio_channels": media.audio_channels,
            "audio_peak": media.audio_peak,
            "audio_changes": media.sound_changes,
            "audio_start_offset_s": (
                media.audio_start_s - media.video_start_s if media.audio_start_s is not None else None
            ),
            "content_hash": media.content_hash,
        }

    def _decoded_share(
        self, media: Decoded, duration: float, start_s: float, end_s: float | None
    ) -> float | None:
        """Decoded duration over the expected one.

        A claim for the pictures is held against them, one for the whole file against what ends last.

        Raises:
            MediaError: too little of it decodes.
        """
        if media.goes_on:  # nothing is missing before a picture behind the range
            return 1.0
        claim, found = media.header_seconds, duration
        if claim is None:
            claim, found = media.file_seconds, max(duration, media.read_s - start_s)
        if claim is None:
            return None
        expected = min(claim, math.inf if end_s is None else end_s) - start_s
        if expected <= 0:
            raise MediaError(f"the range starts at {start_s:.2f} s, the file ends at {claim:.2f} s")
        share = found / expected
        # Half a second of slack: short clips lose a frame or two at their ends without being damaged.
        if share < self.config.shortest_share and expected - found > 0.5:
            raise MediaError(
                f"truncated or corrupt: {found:.2f} s of {expected:.2f} s decode "
                f"({len(media.frame_times)} frames, {media.decode_errors} corrupt packets)"
            )
        return min(1.0, share)
