"""Whether the main face's mouth moves with the sound track."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.faces.face_detector import FaceDetector
from backends.sound.lip_sync import LipSyncScore, LipSyncScorer, MouthTrack
from media.requests import Audio, Frames
from stages.clip import Clip
from stages.contract import Array, Column, Score, Stage, StageConfig
from stages.faces import boxes_at

# Least overlap (intersection over union) of a detection with where the main face is expected. Between two
# sampled frames a face may move by half of its width: overlap 1/3.
_SAME_FACE = 0.3


class LipSync(Stage):
    """Lip synchrony (InterAvatar B.2: Chung & Zisserman 2016, SyncNet).

    `lip_sync_by` names the scorer, and so the scale of the confidence: SyncNet's is its own, the mouth
    envelope's is in standard deviations above chance (see the scorer for what it can tell). Without
    speech or without a mouth there is nothing to compare, and all but the name is null.

    A scorer that wants pictures gets the main face's box in each of them, found in that picture as SyncNet's
    public program does it: of the faces detected there, the one that overlaps most with the box between the
    frames that `Faces` sampled. Where there is none, the box lies between those before and after.

    Args:
        lip_sync: the scorer.
        face_detector: for a scorer that wants pictures; any other does not use it.
        config: settings.

    Raises:
        ValueError: the scorer wants pictures, and there is no face detector.
    """

    class Config(StageConfig):
        """Settings of `LipSync`."""

        rate: int = Field(16000, ge=8000, le=48000, description="samples of sound a second")
        min_speech_s: float = Field(1.0, ge=0, description="less speech than this is not scored, seconds")
        short_side: int = Field(
            720,
            ge=64,
            description="shorter side of the frames, pixels; only for a scorer that wants pictures",
        )
        max_gap_s: float = Field(
            0.75, gt=0, description="a face box holds for so long without another, seconds; as short_side"
        )

    reads = ("mouth_times", "mouth_opening", "speech_times", "face_times", "face_boxes")
    writes: ClassVar[Mapping[str, Column | Array]] = {
        "av_offset_s": Score("seconds", "how much later the sound is than the picture, at the best match"),
        "lip_sync_confidence": Score(
            "see lip_sync_by",
            "how surely mouth and sound belong together; mouth_envelope_correlation: standard deviations of "
            "the correlation above that of shifted sound; syncnet: median less least distance (Sync-C)",
        ),
        "lip_sync_correlation": Score("-1 to 1", "correlation of mouth and sound at av_offset_s"),
        "mouth_moves_in_speech": Score(
            "share of face height", "standard deviation of the mouth's opening during speech"
        ),
        "lip_sync_by": Column("string", "", "the method that gave offset and confidence"),
    }

    def __init__(
        self,
        lip_sync: LipSyncScorer,
        face_detector: FaceDetector | None = None,
        config: Config | None = None,
    ) -> None:
        detector = None if lip_sync.picture_fps is None else face_detector
        super().__init__(lip_sync, *([] if detector is None else [detector]), config=config)
        if lip_sync.picture_fps is not None and detector is None:
            raise ValueError(f"{lip_sync.method} looks at faces: give LipSync a face detector")
        self.lip_sync = lip_sync
        self.detector = detector

    @property
    def sees(self) -> tuple[Frames | Audio, ...]:
        """The sound track, and frames if the scorer wants them."""
        sound = Audio(self.config.rate)
        fps = self.lip_sync.picture_fps
        return (sound,) if fps is None else (sound, Frames(fps, self.config.short_side))

    @property
    def needs_constant_rate(self) -> bool:
        """Wrong times of frames would read as a wrong offset."""
        return True

    def score(self, clip: Clip) -> dict[str, Any]:
        """Offset, confidence, correlation and mouth motion; None where there is too little to compare."""
        out: dict[str, Any] = dict.fromkeys(self.writes)
        out["lip_sync_by"] = self.lip_sync.method
        if not self._is_talk(clip):
            return out
        times, opening = clip["mouth_times"], clip["mouth_opening"]
        speaking = np.any([(times >= start) & (times <= end) for start, end in clip["speech_times"]], axis=0)
        spoken = opening[speaking & np.isfinite(opening)]
        if len(spoken) > 1:
            out["mouth_moves_in_speech"] = float(np.std(spoken))
        found = self.compared(clip)
        if found is not None:
            out |= {
                "av_offset_s": found.offset_s,
                "lip_sync_confidence": found.confidence,
                "lip_sync_correlation": found.correlation,
            }
        return out

    def compared(self, clip: Clip) -> LipSyncScore | None:
        """What the scorer finds; None where there is too little to compare."""
        samples = clip.audio(Audio(self.config.rate))
        if samples is None or not self._is_talk(clip):
            return None
        track = self._track(clip, clip["mouth_times"], clip["mouth_opening"])
        return self.lip_sync.score(track, samples, self.config.rate)

    def _is_talk(self, clip: Clip) -> bool:
        """Whether there is sound, enough speech in it, and a mouth."""
        opening, speech = clip["mouth_opening"], clip["speech_times"]
        if clip.audio(Audio(self.config.rate)) is None or clip["mouth_times"] is None:
            return False
        if opening is None or speech is None or not np.isfinite(opening).any():
            return False
        return bool(np.diff(speech, axis=1).sum() >= self.config.min_speech_s)

    def _track(
        self, clip: Clip, times: npt.NDArray[np.float64], opening: npt.NDArray[np.float32]
    ) -> MouthTrack:
        """The mouth at its own times, or at those of the frames the scorer wants."""
        if self.lip_sync.picture_fps is None:
            return MouthTrack(times, opening)
        frames = clip.frames(Frames(self.lip_sync.picture_fps, self.config.short_side))
        boxes = np.full((len(frames), 4), np.nan, np.float32)
        if clip["face_boxes"] is not None:
            expected = boxes_at(frames.times, clip["face_times"], clip["face_boxes"], self.config.max_gap_s)
            boxes = self._detected(frames.times, frames.images, expected)
        at = np.interp(frames.times, times, opening).astype(np.float32)  # NaN beside a NaN
        return MouthTrack(frames.times, at, frames.images, boxes)

    def _detected(
        self,
        times: npt.NDArray[np.float64],
        images: Sequence[npt.NDArray[np.uint8]],
        expected: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """The box of the main face in each frame, [T, 4], where one is expected; NaN elsewhere."""
        assert self.detector is not None
        found = np.full_like(expected, np.nan)
        is_expected = np.isfinite(expected).all(1)
        for i in np.flatnonzero(is_expected).tolist():
            boxes = self.detector.detect(images[i]).boxes
            overlap = _overlap(boxes, expected[i])
            if len(boxes) and overlap.max() >= _SAME_FACE:
                found[i] = boxes[overlap.argmax()]
        out = boxes_at(times, times, found, self.config.max_gap_s)
        out[~is_expected] = np.nan
        return out


def _overlap(boxes: npt.NDArray[np.float32], one: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Intersection over union of [K, 4] boxes with one, [K]."""
    size = np.maximum(np.minimum(boxes[:, 2:], one[2:]) - np.maximum(boxes[:, :2], one[:2]), 0)
    both = size.prod(1)
    either = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (one[2:] - one[:2]).prod() - both
    return np.asarray(both / np.maximum(either, 1e-12), np.float32)
