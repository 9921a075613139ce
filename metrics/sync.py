"""Sync-C, Sync-D: whether lips and sound of made clips belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from backends.faces.face_detector import FaceDetector
from backends.sound.lip_sync import LipSyncScorer
from media.requests import Audio, Frames
from metrics.metric import ClipMetric, Number
from stages.clip import Clip
from stages.contract import Array, Column, Score
from stages.lip_sync import LipSync

_CONFIDENCE = "How surely lips and sound belong together."
_DISTANCE = "Distance of lips and sound at their best match."
_OFFSET = "How far apart they are at their best match, either way."


class Sync(ClipMetric):
    """SyncNet's confidence and distance (Chung and Zisserman 2016), as `LipSync` looks at a clip.

    Args:
        lip_sync: the scorer.
        face_detector: for a scorer that wants pictures.
        config: as of `LipSync`.

    Raises:
        ValueError: the scorer wants pictures, and there is no face detector.
    """

    Config = LipSync.Config
    figures = (
        Number("sync_c", "Sync-C", "scorer's own scale", "higher", _CONFIDENCE),
        Number("sync_d", "Sync-D", "0 and more", "lower", _DISTANCE),
        Number("sync_offset_s", "Sync offset", "s", "lower", _OFFSET),
    )
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "sync_c": Score("scorer's own scale", _CONFIDENCE),
        "sync_d": Score("0 and more", f"{_DISTANCE[:-1]}; null for a scorer without embeddings"),
        "sync_offset_s": Score("s", _OFFSET),
    }
    reads = LipSync.reads
    needs = "a face that speaks for some seconds (Sync-D: and SyncNet)"
    convention = (
        "As joonson/syncnet_python: 25 pictures a second, sound of 16 kHz in mono, windows of 5 pictures, "
        "shifts of up to 15 pictures either way; Sync-D is the least mean distance, Sync-C the median less "
        "that. The original scores tracks of more than 100 pictures with faces above 100 px, and shorter "
        "clips vanish; here a face is scored from 50 pictures (2 s, as in LatentSync's evaluation) and at "
        "any size, so set min_seconds of the scorer to 4.04 for the original's rule. It writes every track, "
        "others take the largest or the mean; here it is the main face, all its stretches together. A clip "
        "without sound, with less than a second of speech, or without a mouth has no value."
    )
    source = "InterAvatar Table 1 (Sync-C), EAI-Avatar Table 1 (SyncScore); joonson/syncnet_python."

    def __init__(
        self,
        lip_sync: LipSyncScorer,
        face_detector: FaceDetector | None = None,
        config: LipSync.Config | None = None,
    ) -> None:
        self.stage = LipSync(lip_sync, face_detector, config)
        super().__init__(*self.stage.models, network=lip_sync.network, config=self.stage.config)

    @property
    def sees(self) -> tuple[Frames | Audio, ...]:
        """As `LipSync`."""
        return self.stage.sees

    @property
    def needs_constant_rate(self) -> bool:
        """Wrong times of frames would read as a wrong offset."""
        return True

    def measure(self, clip: Clip) -> dict[str, Any]:
        """What the scorer finds; None where there is too little to compare."""
        found = self.stage.compared(clip)
        if found is None:
            return dict.fromkeys(self.scores)
        return {
            "sync_c": found.confidence,
            "sync_d": found.distance,
            "sync_offset_s": abs(found.offset_s),
        }
