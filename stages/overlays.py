"""Burned-in text: subtitles, logos, watermarks, timers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from pydantic import Field

from backends.pictures.text_detector import TextDetector, TextLine
from media.requests import Frames
from stages.clip import Clip
from stages.contract import Column, Score, Stage, StageConfig


class Overlays(Stage):
    """Text laid over the picture (InterAvatar §4.3: watermarks and subtitles are artifacts).

    Text of the scene (clothing, signs) counts in `text_area` alone. An overlay lies straight and
    does not travel: a line whose words turn up elsewhere in another frame belongs to the scene.

    - persistent: the same words (digits may count on) in the same place in nearly all frames, and not
      in the middle of the picture, where what people wear is.
    - subtitle-like: in the lower part or at the top, wide or centred, and not in nearly all frames.

    A sign near the border, before a camera that stands still, cannot be told from a logo.
    """

    class Config(StageConfig):
        """Sampling and what counts as what."""

        fps: float = Field(1.0, gt=0, le=10, description="frames a second to choose from")
        short_side: int = Field(720, ge=240, le=2160, description="their shorter side, px")
        every_s: float = Field(3.0, gt=0, description="time between frames read, s")
        max_frames: int = Field(6, ge=2, description="frames read at most")
        max_tilt: float = Field(3.0, ge=0, le=45, description="greatest tilt of an overlay, degrees")
        same_place: float = Field(0.5, gt=0, le=1, description="least overlap (IoU) of boxes in one place")
        persistent_share: float = Field(
            0.8, gt=0, le=1, description="share of frames a persistent line is in"
        )

    writes = {
        "text_area": Score("0-1", "share of the frame under text of any kind, median over frames"),
        "text_area_max": Score("0-1", "the same in the frame with most text"),
        "num_text_boxes": Score("count", "lines of text, median over frames"),
        "subtitle_share": Score("0-1", "share of frames with a subtitle-like line"),
        "persistent_text": Column(
            "bool", "", "a straight line stays in one place, near the border; null with a single frame"
        ),
        "overlay_text": Column("strings", "", "up to 20 distinct lines read, each of at most 80 characters"),
        "text_detector": Column("string", "", "the implementation that read the text"),
    }

    def __init__(self, text_detector: TextDetector, config: StageConfig | None = None) -> None:
        super().__init__(text_detector, config=config)
        self.text_detector = text_detector

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Few frames, large enough to read."""
        return (Frames(self.config.fps, self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Area, count and kind of text."""
        frames = clip.frames(self.sees[0])
        span = float(frames.times[-1] - frames.times[0])
        count = min(len(frames), max(2, min(self.config.max_frames, 1 + round(span / self.config.every_s))))
        picked = np.linspace(0, len(frames) - 1, count).astype(int)
        read = [self.text_detector.read(frames.images[i]) for i in picked]

        areas = [min(1.0, sum((line.area for line in lines), 0.0)) for lines in read]
        persistent, subtitles = self._sort(read)
        said = dict.fromkeys(line.text[:80] for lines in read for line in lines)
        return {
            "text_area": float(np.median(areas)),
            "text_area_max": max(areas),
            "num_text_boxes": float(np.median([len(lines) for lines in read])),
            "subtitle_share": float(np.mean([bool(lines) for lines in subtitles])),
            "persistent_text": any(persistent) if len(read) > 1 else None,
            "overlay_text": list(said)[:20],
            "text_detector": self.text_detector.id,
        }

    def _sort(self, read: Sequence[Sequence[TextLine]]) -> tuple[list[list[TextLine]], list[list[TextLine]]]:
        """The persistent and the subtitle-like lines of each frame."""
        persistent: list[list[TextLine]] = []
        subtitles: list[list[TextLine]] = []
        for number, lines in enumerate(read):
            others = [other for i, other in enumerate(read) if i != number]
            persistent.append([])
            subtitles.append([])
            for line in lines:
                if abs(line.tilt) > self.config.max_tilt:
                    continue
                twins = [[other for other in frame if _same_words(line, other)] for frame in others]
                stays = [any(overlap(line, t) >= self.config.same_place for t in found) for found in twins]
                # Found again, but elsewhere: it travels with the scene.
                travels = any(found and not stay for found, stay in zip(twins, stays, strict=True))
                lasting = (1 + sum(stays)) / len(read) >= self.config.persistent_share and len(read) > 1
                if lasting and not _central(line):
                    persistent[-1].append(line)
                elif not lasting and not travels and _where_subtitles_are(line):
                    subtitles[-1].append(line)
        return persistent, subtitles


def overlap(first: TextLine, second: TextLine) -> float:
    """Intersection over union of two boxes, 0-1."""
    a, b = first.box, second.box
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, wide) * max(0.0, high)
    return shared / max(first.area + second.area - shared, 1e-12)


def _same_words(first: TextLine, second: TextLine) -> bool:
    """Alike but for reading errors; digits stand for each other, so that a running clock is the same."""
    a, b = (re.sub(r"\d", "0", line.text.lower()) for line in (first, second))
    return SequenceMatcher(None, a, b, autojunk=False).ratio() >= 0.6


def _central(line: TextLine) -> bool:
    """In the middle of the picture, where an overlay would hide the person."""
    x, y = (line.box[0] + line.box[2]) / 2, (line.box[1] + line.box[3]) / 2
    return 0.25 < x < 0.75 and 0.25 < y < 0.75


def _where_subtitles_are(line: TextLine) -> bool:
    """In the lowest third or the top sixth, wide or centred, and of a line's height; a word at least."""
    x0, y0, x1, y1 = line.box
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    letters = sum(2 if ord(c) > 0x2E7F else 1 for c in line.text if c.isalnum())  # ideographs are words
    placed = y > 2 / 3 or y < 1 / 6
    shaped = x1 - x0 >= 0.3 or abs(x - 0.5) <= 0.15
    return placed and shaped and y1 - y0 <= 0.15 and letters >= 4
