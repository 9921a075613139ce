"""Clips of variable frame rate, re-encoded at a constant one for stages that need it (ffmpeg)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import ffmpeg
import imageio_ffmpeg
from pydantic import Field

from manifests.storage import making
from media.files import MediaError
from stages.clip import Clip
from stages.contract import Column, Score, Stage, StageConfig

STANDARD_RATES = (10.0, 12.0, 12.5, 15.0, 20.0, 24.0, 25.0, 30.0, 48.0, 50.0, 60.0)


class ConstantRate(Stage):
    """Writes a constant-rate copy of a clip whose frame intervals vary; others pass untouched.

    Sound is resampled to follow the picture's clock. The copy is written under a name made of sample
    and fingerprint, in one step, so that it is made once.

    Raises (as the sample's error):
        MediaError: ffmpeg could not convert the clip.
    """

    class Config(StageConfig):
        """Settings of ConstantRate."""

        crf: int = Field(16, ge=0, le=51, description="x264 quality of the copy; lower is better.")

    reads = ("variable_frame_rate", "fps", "content_hash", "has_audio", "start_s", "end_s")
    writes: ClassVar = {
        "media_uri": Column("string", "path or URL", "The file that holds the sample's media now."),
        "constant_rate_fps": Score("frames/s", "Rate of the copy; null where none was needed."),
    }

    @property
    def sees(self) -> tuple[()]:
        """Nothing: ffmpeg reads the file."""
        return ()

    def score(self, clip: Clip) -> dict[str, Any]:
        """Make the copy where it is needed."""
        source_uri = clip["source_uri"]
        if not clip["variable_frame_rate"]:
            return {"media_uri": source_uri, "constant_rate_fps": None}
        fps = min(STANDARD_RATES, key=lambda rate: abs(rate - clip["fps"]))
        target = clip.new_media(f"-{clip['content_hash'][:8]}.mp4")
        if not target.exists():
            with making(target) as path:
                self._convert(clip, fps, path)
        return {"media_uri": str(target), "constant_rate_fps": fps}

    def _convert(self, clip: Clip, fps: float, path: Path) -> None:
        span = {"ss": clip["start_s"], "to": clip["end_s"]}
        options = {name: value for name, value in span.items() if value is not None}
        output = {
            "vcodec": "libx264",
            "crf": self.config.crf,
            "pix_fmt": "yuv420p",
            "r": fps,
            "fps_mode": "cfr",
        }
        if clip["has_audio"]:
            output |= {"acodec": "aac", "af": "aresample=async=1:first_pts=0"}
        try:
            (
                ffmpeg.input(f"file:{clip.local_path}", protocol_whitelist="file", **options)
                .output(str(path), vf="scale=trunc(iw/2)*2:trunc(ih/2)*2", threads=1, **output)
                .run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), quiet=True, overwrite_output=True)
            )
        except ffmpeg.Error as error:
            said = error.stderr.decode("utf-8", "replace").strip().splitlines()[-3:]
            raise MediaError(f"cannot convert to {fps:g} fps: {' / '.join(said)}") from error
