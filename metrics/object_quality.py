"""OQ: whether objects move, and stay what they are all the same."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.pictures.subject_embedder import SubjectEmbedder
from media.requests import Frames
from metrics.metric import ClipMetric, Number
from metrics.objects import OBJECT_BOXES, apart, boxes_at, object_boxes, tracks
from stages.clip import Clip, FrameSequence
from stages.contract import Array, Column, Score, StageConfig

Image = npt.NDArray[np.uint8]
Track = Mapping[int, npt.NDArray[np.float64]]


class ObjectQuality(ClipMetric):
    """Object dynamics times object consistency (InteractAvatar §4.2), of the objects that the input names.

    Boxes come from the input's column `object_boxes`, JSON such as
    `[{"name": "cup", "t": 0.5, "box": [0.1, 0.2, 0.3, 0.4]}]` with seconds and shares of the frame; no model
    of the project finds objects, so a clip without the column has no score. Boxes of one object are linked to
    a track first: the surest box of each picture jumps between things of one kind.

    Dynamics: how fast a track's middle moves, mean over its steps, in frame diagonals per second.
    Consistency: mean over its crops from the second on of the cosines, cut at 0, with the previous and with
    the first crop (VBench's subject consistency, of crops). Both, and their product, are means over tracks of
    two boxes and more.
    """

    class Config(StageConfig):
        """Which pictures."""

        fps: float = Field(4.0, gt=0, le=60, description="pictures a second")
        short_side: int = Field(480, ge=64, le=2160, description="their shorter side at most, px")

    figures = (
        Number("oq", "OQ", "diagonals/s", "higher", "Object dynamics times object consistency."),
        Number("oq_motion", "OQ motion", "diagonals/s", "higher", "How fast objects move."),
        Number("oq_consistency", "OQ consistency", "0-1", "higher", "How alike crops of one object are."),
    )
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "oq": Score("diagonals/s", "object dynamics times consistency; null without an object's track"),
        "oq_motion": Score("diagonals/s", "mean speed of objects; null without a track"),
        "oq_consistency": Score("0-1", "likeness of one object's crops; null without a track"),
    }
    convention = (
        "The paper publishes no formula. Speeds are not normalised, and a moving camera moves objects, too. "
        "An object seen once has no track; one that vanishes for over a second begins a new one. Boxes are "
        "those nearest to the pictures, so a detector that trembles from frame to frame adds little."
    )
    source = "InteractAvatar §4.2: object dynamics (SpeakerVid-5M) x object DINO consistency."
    reads = (OBJECT_BOXES,)

    def __init__(self, subject_embedder: SubjectEmbedder, config: Config | None = None) -> None:
        super().__init__(subject_embedder, network=subject_embedder.network, config=config)
        self.subject_embedder = subject_embedder

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Pictures at `fps`."""
        return (Frames(self.config.fps, self.config.short_side),)

    def measure(self, clip: Clip) -> dict[str, Any]:
        """Both factors and their product, means over tracks.

        Raises:
            ValueError: the column is malformed.
        """
        boxes = object_boxes(clip.row)
        frames = clip.frames(self.sees[0])
        seen = boxes_at(boxes or [], frames.times, apart(boxes or [], frames.times))
        found = [track for track in tracks(seen, frames.times) if len(track) > 1]
        if not found:
            return dict.fromkeys(self.scores)
        motions = [speed(track, frames) for track in found]
        alike = [self._consistency(track, frames) for track in found]
        return {
            "oq": float(np.mean([a * b for a, b in zip(motions, alike, strict=True)])),
            "oq_motion": float(np.mean(motions)),
            "oq_consistency": float(np.mean(alike)),
        }

    def _consistency(self, track: Track, frames: FrameSequence) -> float:
        vectors = self.subject_embedder.embed([crop(frames.images[i], box) for i, box in track.items()])
        previous = np.sum(vectors[1:] * vectors[:-1], axis=1)
        return float(np.mean([np.maximum(0, previous), np.maximum(0, vectors[1:] @ vectors[0])]))


def speed(track: Track, frames: FrameSequence) -> float:
    """Mean speed of a track's middle, frame diagonals per second."""
    height, width = frames.images[0].shape[:2]
    middles = {i: (box[:2] + box[2:]) / 2 * (width, height) for i, box in track.items()}
    away = sum(float(np.hypot(*(middles[b] - middles[a]))) for a, b in pairwise(middles))
    seconds = float(frames.times[max(track)] - frames.times[min(track)])
    return away / float(np.hypot(width, height)) / seconds


def crop(image: Image, box: npt.NDArray[np.float64]) -> Image:
    """The part of a picture in a box of shares; one pixel at least."""
    height, width = image.shape[:2]
    x0, y0 = np.clip(np.round(box[:2] * (width, height)).astype(int), 0, (width - 1, height - 1))
    x1, y1 = np.clip(np.round(box[2:] * (width, height)).astype(int), (x0 + 1, y0 + 1), (width, height))
    return np.ascontiguousarray(image[y0:y1, x0:x1])
