"""Whether a synthesised clip still shows the person of its portrait."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.faces.face_embedder import FaceEmbedder
from media.requests import Frames
from stages.clip import Clip, nearest
from stages.consistency import similarities
from stages.contract import Score, Stage, StageConfig


class Likeness(Stage):
    """Similarity of the clip's faces to the portrait's: a face that drifts slowly away stays consistent
    with its neighbours, but not with this.

    The cosine's scale is the embedder's own (see `backends/faces/face_embedder.py`), and the portrait's
    embedding must come from the same one.

    Raises (as the sample's error):
        ValueError: the portrait's embedding has another length than this embedder's.
    """

    class Config(StageConfig):
        """Sampling; with the rate and size of `Faces` the pictures are shared."""

        fps: float = Field(2.0, gt=0, le=60, description="frames a second to choose from")
        short_side: int = Field(480, ge=64, le=2160, description="their shorter side, px")
        max_samples: int = Field(20, ge=1, description="most faces that are compared")

    reads = ("face_times", "face_boxes", "face_landmarks", "portrait_face_embedding")
    writes: ClassVar = {
        "portrait_likeness": Score(
            "cosine", "mean similarity of the clip's faces to the portrait's; null without either"
        ),
        "portrait_likeness_min": Score("cosine", "least similarity of a face to the portrait's"),
    }

    def __init__(self, face_embedder: FaceEmbedder, config: StageConfig | None = None) -> None:
        super().__init__(face_embedder, config=config)
        self.face_embedder = face_embedder

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The pictures the faces were found in."""
        return (Frames(self.config.fps, self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Compare every sampled face with the portrait's."""
        given, marks = clip["portrait_face_embedding"], clip["face_landmarks"]
        if given is None or marks is None:
            return dict.fromkeys(self.writes)
        portrait = np.asarray(given, np.float32)
        seen = np.flatnonzero(np.isfinite(marks).all((1, 2)))
        if not len(seen) or not len(portrait) or not np.isfinite(portrait).all():
            return dict.fromkeys(self.writes)

        places = np.linspace(0, len(seen) - 1, min(self.config.max_samples, len(seen)))
        picked = seen[places.astype(int)]
        frames = clip.frames(self.sees[0])
        images = [frames.images[i] for i in nearest(frames.times, np.asarray(clip["face_times"])[picked])]
        faces = self.face_embedder.embed(images, np.asarray(marks, np.float32)[picked])
        found = [self._similarity(face, portrait) for face in faces]
        return {"portrait_likeness": float(np.mean(found)), "portrait_likeness_min": min(found)}

    def _similarity(self, face: npt.NDArray[np.float32], portrait: npt.NDArray[np.float32]) -> float:
        if face.shape != portrait.shape:
            raise ValueError(
                f"the portrait's embedding has {len(portrait)} numbers, those of {self.face_embedder.id} "
                f"have {len(face)}: they come from different embedders"
            )
        return similarities([face, portrait])[0]
