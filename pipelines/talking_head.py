"""Talking-head curation: single speaker, motion, pose, camera, lip sync (InterAvatar §4.3, appendix B.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from backends.roles import Roles
from pipelines.engine.pipeline import Pipeline, Span, Split
from pipelines.engine.settings import Settings
from stages.attributes import Attributes
from stages.audio_features import AudioFeatures
from stages.body import Body
from stages.caption import Caption
from stages.consistency import Consistency
from stages.constant_rate import ConstantRate
from stages.faces import Faces
from stages.head import Head
from stages.lip_sync import LipSync
from stages.motion import Motion
from stages.overlays import Overlays
from stages.probe import Probe
from stages.quality import Quality
from stages.shots import Shots, split
from stages.signature import Signature
from stages.speech import Speech
from stages.talkvid_ratio import TalkvidRatio

# A whole video is held as 27-pixel thumbnails and mono sound while it is cut: about 1.5 GB for four hours.
LONGEST_VIDEO_S = 4 * 3600.0


class TalkingHeadSettings(Settings):
    """Settings of talking_head; each stage's under its name."""

    split: bool = Field(False, description="Cut videos longer than clip_seconds into shot-pure clips first.")
    clip_seconds: tuple[float, float] = Field(
        (2.0, 20.0),
        description="Shortest and longest clip that a video is cut into, s (OpenHumanVid: 2-20 s).",
    )
    max_seconds: float = Field(
        30.0, gt=0, description="A longer sample is an error instead of being scored, s."
    )
    probe: Probe.Config = Probe.Config()
    constant_rate: ConstantRate.Config = ConstantRate.Config()
    shots: Shots.Config = Shots.Config()
    faces: Faces.Config = Faces.Config()
    head: Head.Config = Head.Config()
    body: Body.Config = Body.Config()
    quality: Quality.Config = Quality.Config()
    motion: Motion.Config = Motion.Config()
    talkvid_ratio: TalkvidRatio.Config = TalkvidRatio.Config()
    consistency: Consistency.Config = Consistency.Config()
    speech: Speech.Config = Speech.Config()
    lip_sync: LipSync.Config = LipSync.Config()
    overlays: Overlays.Config = Overlays.Config()
    signature: Signature.Config = Signature.Config()
    attributes: Attributes.Config = Attributes.Config()
    caption: Caption.Config = Caption.Config()

    @field_validator("clip_seconds")
    @classmethod
    def _can_be_cut(cls, value: Span) -> Span:
        if not 0 < 2 * value[0] <= value[1]:
            raise ValueError("the longest clip must be at least twice the shortest")
        return value


def talking_head(models: Roles, settings: TalkingHeadSettings) -> Pipeline:
    """The pipeline: every score is stored, the screen decides."""
    s = settings
    probe = Probe(config=s.probe)  # decodable, streams, true rate, sound
    shots = Shots(config=s.shots)  # cuts inside the clip
    scores = [
        shots,
        Faces(models.face_detector, config=s.faces),  # people, largest face
        Head(models.face_mesh, config=s.head),  # yaw, pitch, roll, mouth opening
        Body(models.pose, config=s.body),  # 133 keypoints, hands, occlusion
        Quality(models.image_quality, config=s.quality),  # luminance, blur, bitrate per pixel
        Motion(models.point_tracker, models.person_mask, config=s.motion),  # subject, camera
        TalkvidRatio(models.point_tracker, config=s.talkvid_ratio),  # visible points by CoTracker
        Consistency(models.image_embedder, models.face_embedder, config=s.consistency),  # time, identity
        Speech(models.voice_activity, models.diarizer, config=s.speech),  # speech ratio, speakers
        LipSync(models.lip_sync, models.face_detector, config=s.lip_sync),  # offset and confidence
        Overlays(models.text_detector, config=s.overlays),  # subtitles, logos
        Signature(config=s.signature),  # by which copies are found
        Attributes(models.attribute_embedder, config=s.attributes),  # for training
        AudioFeatures(models.audio_embedder),  # for training
        Caption(models.vision_language_model, config=s.caption),
    ]
    if any(stage.needs_constant_rate for stage in scores):
        scores.insert(0, ConstantRate(config=s.constant_rate))
    return Pipeline(
        name="talking_head",
        stages=[probe, *scores],
        screen="talking_head",
        max_seconds=s.max_seconds,
        split=Split([probe, shots], lambda row: clip_ranges(row, s.clip_seconds), LONGEST_VIDEO_S)
        if s.split
        else None,
    )


def clip_ranges(video: Mapping[str, Any], clip_seconds: Span) -> list[Span]:
    """Shot-pure ranges of a probed video, s; empty for one that is short enough or could not be read."""
    duration, starts, ends = (video[name] for name in ("duration_s", "shot_starts", "shot_ends"))
    if duration is None or starts is None or duration <= clip_seconds[1]:
        return []
    return split(zip(starts, ends, strict=True), *clip_seconds)
