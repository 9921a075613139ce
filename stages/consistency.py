"""Whether a clip keeps showing the same scene and the same person, and an embedding of that person."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.faces.face_embedder import FaceEmbedder
from backends.pictures.image_embedder import ImageEmbedder
from media.requests import Frames
from stages.clip import Clip, nearest
from stages.contract import Array, Column, Score, Stage, StageConfig


class Consistency(Stage):
    """Temporal and identity consistency (InterAvatar §4.3: CLIP and InsightFace similarity of frames).

    Both are cosines of embeddings of neighbouring sampled frames, not of neighbours in the file: about
    `image_every_s` and `face_every_s` apart, the first and the last picture (or face) among them. Cosines
    of different embedders do not compare; the embedders are named beside them. One frame drawn at random
    gives the face embedding that training takes as identity (appendix B.2). The mean of all of them says
    better who the person is.
    """

    class Config(StageConfig):
        """Sampling."""

        fps: float = Field(2.0, gt=0, le=60, description="frames a second to choose from")
        short_side: int = Field(480, ge=64, le=2160, description="their shorter side, px")
        image_every_s: float = Field(1.0, gt=0, description="time between embedded frames, s")
        face_every_s: float = Field(2.0, gt=0, description="time between embedded faces, s")
        min_samples: int = Field(2, ge=2, description="fewest of each in a short clip, if there are so many")
        max_samples: int = Field(20, ge=2, description="most of each in a long clip")

    version: ClassVar[int] = 3
    reads = ("face_times", "face_boxes", "face_landmarks")
    writes = {
        "temporal_consistency": Score("cosine", "mean similarity of neighbouring frames' image embeddings"),
        "temporal_consistency_min": Score("cosine", "least similarity of two neighbouring frames"),
        "identity_consistency": Score(
            "cosine", "mean similarity of neighbouring face embeddings; null with fewer than two faces"
        ),
        "identity_consistency_min": Score("cosine", "least similarity of two neighbouring faces"),
        "face_embedding": Array("[D]", "", "embedding of the main face in one random frame; NaN without one"),
        "face_embedding_mean": Array(
            "[D]", "", "mean of the main face's embeddings, of length 1; NaN without a face"
        ),
        "image_embedding": Array("[D]", "", "mean of the pictures' embeddings, of length 1"),
        "face_embedding_time_s": Score("s", "time of that frame; null without a face"),
        "image_embedder": Column("string", "", "the implementation behind temporal_consistency"),
        "face_embedder": Column("string", "", "the implementation behind identity_consistency"),
    }

    def __init__(
        self, image_embedder: ImageEmbedder, face_embedder: FaceEmbedder, config: StageConfig | None = None
    ) -> None:
        super().__init__(image_embedder, face_embedder, config=config)
        self.image_embedder = image_embedder
        self.face_embedder = face_embedder

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The pictures the faces were found in."""
        return (Frames(self.config.fps, self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Similarities of frames and faces, and one face's embedding."""
        frames = clip.frames(self.sees[0])
        picked = self._spread(frames.times, list(range(len(frames))), self.config.image_every_s)
        images = self.image_embedder.embed([frames.images[i] for i in picked])

        marks = self._landmarks(clip, frames.times)
        seen = [i for i, points in enumerate(marks) if np.isfinite(points).all()]
        faces: dict[int, npt.NDArray[np.float32]] = {}
        drawn = None
        if seen:
            drawn = seen[int(clip.rng().integers(len(seen)))]
            chosen = self._spread(frames.times, seen, self.config.face_every_s)
            if drawn not in chosen:
                if inner := chosen[1:-1]:  # in the place of one that is no end: one face less to embed
                    chosen.remove(min(inner, key=lambda i: abs(i - drawn)))
                chosen.append(drawn)
            order = sorted(set(chosen))
            vectors = self.face_embedder.embed([frames.images[i] for i in order], marks[order])
            faces = dict(zip(order, vectors, strict=True))

        nobody = np.full(1, np.nan, np.float32)
        scene, person = similarities(list(images)), similarities(list(faces.values()))
        return {
            "temporal_consistency": float(np.mean(scene)) if scene else None,
            "temporal_consistency_min": min(scene, default=None),
            "identity_consistency": float(np.mean(person)) if person else None,
            "identity_consistency_min": min(person, default=None),
            "face_embedding": nobody if drawn is None else faces[drawn],
            "face_embedding_mean": nobody
            if drawn is None
            else mean_embedding(np.stack(_unit([*faces.values()]))),
            "image_embedding": mean_embedding(images),
            "face_embedding_time_s": None if drawn is None else float(frames.times[drawn]),
            "image_embedder": self.image_embedder.id,
            "face_embedder": self.face_embedder.id,
        }

    def _spread(self, times: npt.NDArray[np.float64], indices: Sequence[int], every_s: float) -> list[int]:
        """Some of `indices`, about `every_s` apart, first and last among them."""
        span = float(times[indices[-1]] - times[indices[0]])
        count = np.clip(1 + round(span / every_s), self.config.min_samples, self.config.max_samples)
        places = np.linspace(0, len(indices) - 1, min(int(count), len(indices)))
        return [indices[int(place)] for place in places]

    def _landmarks(self, clip: Clip, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """The main face's points in each frame, float32 [T, 5, 2]; NaN where there is none."""
        marks, marked = clip["face_landmarks"], clip["face_times"]
        if marks is None or marked is None or not len(marked):
            return np.full((len(times), 5, 2), np.nan, np.float32)
        return np.asarray(marks, np.float32)[nearest(np.asarray(marked), times)]


def mean_embedding(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mean of unit vectors [N, D], of length 1."""
    mean = vectors.mean(0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)


def similarities(vectors: Sequence[npt.NDArray[np.float32]]) -> list[float]:
    """Cosine of each vector with the next."""
    return [float(a @ b) for a, b in pairwise(_unit(vectors))]


def _unit(vectors: Sequence[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
    return [v / max(float(np.linalg.norm(v)), 1e-12) for v in vectors]
