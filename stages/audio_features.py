"""What a clip's sound track says, as vectors for training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from backends.sound.audio_embedder import RATE, AudioEmbedder
from media.requests import Audio
from stages.clip import Clip
from stages.contract import Array, Column, Score, Stage, StageConfig


class AudioFeatures(Stage):
    """Sound as the model is conditioned on it (InterAvatar B.2: Wav2Vec2, Baevski et al. 2020).

    Row i of `audio_features` begins at i / audio_features_hz seconds of the clip and spans 25 ms. Sound after
    the last picture has gone is left out. Sound that ends before gives fewer rows than the video lasts: the
    trainer interpolates to its frames by time, not by count. Without a sound track there are no rows,
    [0, D], and `audio_features_hz` is null; a silent track has rows like any other.
    """

    writes: ClassVar[Mapping[str, Column | Array]] = {
        "audio_features": Array(
            "[T, D]", "", "float16; embedding of the sound over time, no rows without a track"
        ),
        "audio_features_hz": Score("Hz", "rows of audio_features a second; null without a track"),
        "audio_embedder": Column("string", "", "the implementation behind audio_features"),
    }

    def __init__(self, audio_embedder: AudioEmbedder, config: StageConfig | None = None) -> None:
        super().__init__(audio_embedder, config=config)
        self.audio_embedder = audio_embedder

    @property
    def sees(self) -> tuple[Audio, ...]:
        """The sound track at the rate that the embedders hear."""
        return (Audio(RATE),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """All of `writes`; see the class."""
        samples = clip.audio(self.sees[0])
        if samples is not None and len(clip.media.frame_times) > 1:
            samples = samples[: max(0, round(clip.media.end_s * RATE))]
        heard = np.zeros(0, np.float32) if samples is None else samples
        return {
            "audio_features": self.audio_embedder.embed(heard, RATE).astype(np.float16),
            "audio_features_hz": None if samples is None else self.audio_embedder.rate_hz,
            "audio_embedder": self.audio_embedder.id,
        }
