"""Clips of variable frame rate, re-encoded at a constant one for stages that need it."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from manifests.storage import making
from media.constant_rate import write_constant_rate
from media.crop import Crop
from stages.clip import Clip
from stages.contract import Column, Score, Stage, StageConfig

STANDARD_RATES = (10.0, 12.0, 12.5, 15.0, 20.0, 24.0, 25.0, 30.0, 48.0, 50.0, 60.0)


class ConstantRate(Stage):
    """Writes a constant-rate copy of a clip whose frame intervals vary; others pass untouched.

    The copy is written under a name made of sample and fingerprint, in one step, so that it is made once.

    Raises (as the sample's error):
        MediaError: no picture can be decoded any more.
    """

    class Config(StageConfig):
        """Settings of ConstantRate."""

        crf: int = Field(16, ge=0, le=51, description="x264 quality of the copy; lower is better.")

    version: ClassVar[int] = 2
    reads = ("variable_frame_rate", "fps", "content_hash", "width", "height", "start_s", "end_s")
    writes: ClassVar = {
        "media_uri": Column("string", "path or URL", "The file that holds the sample's media now."),
        "constant_rate_fps": Score("frames/s", "Rate of the copy; null where none was needed."),
    }

    @property
    def sees(self) -> tuple[()]:
        """Nothing: the file is read once more, as a whole."""
        return ()

    def score(self, clip: Clip) -> dict[str, Any]:
        """Make the copy where it is needed."""
        source_uri = clip["source_uri"]
        if not clip["variable_frame_rate"]:
            return {"media_uri": source_uri, "constant_rate_fps": None}
        fps = min(STANDARD_RATES, key=lambda rate: abs(rate - clip["fps"]))
        target = clip.new_media(f"-{clip['content_hash'][:8]}.mp4")
        if not target.exists():
            if clip.local_path is None:
                raise ValueError("there is no file to convert")
            with making(target) as path:
                write_constant_rate(
                    clip.local_path,
                    path,
                    fps,
                    self.config.crf,
                    clip["start_s"],
                    clip["end_s"],
                    (clip["width"], clip["height"]) if clip["width"] and clip["height"] else None,
                    crop=Crop.of(clip.row),
                )
        return {"media_uri": str(target), "constant_rate_fps": fps}
