"""Evaluation: made clips beside real ones (InterAvatar §5, InteractAvatar §4.2, EAI-Avatar §4.1)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pydantic import Field, field_validator

from backends.roles import Roles
from manifests.screen import EVERYTHING
from metrics.ase import Ase
from metrics.catalogue import figures_of, metrics_of
from metrics.clip_re import ClipRe
from metrics.clip_text import ClipText
from metrics.compared import ComparedConfig
from metrics.contact import Contact
from metrics.dino import Dino
from metrics.dynamic_degree import DynamicDegree
from metrics.face_ratios import FaceRatios
from metrics.fid import Fid
from metrics.flow_error import FlowError
from metrics.fvd import Fvd
from metrics.hand_quality import HandQuality
from metrics.idc import IdcDino
from metrics.idc_face import IdcFace
from metrics.lpips import Lpips
from metrics.metric import Metric
from metrics.object_quality import ObjectQuality
from metrics.psnr import Psnr
from metrics.sid import Sid
from metrics.ssim import Ssim
from metrics.sync import Sync
from metrics.temporal_consistency import TemporalConsistency
from metrics.variance import Variance
from metrics.vlm_qa import VlmQa
from pipelines.engine.pipeline import MEDIA, Pipeline
from pipelines.engine.settings import Settings
from stages.body import Body
from stages.caption import Caption
from stages.constant_rate import ConstantRate
from stages.contract import Stage
from stages.faces import Faces
from stages.head import Head
from stages.lip_sync import LipSync
from stages.probe import Probe
from stages.speech import Speech


class FacesOfAll(Faces.Config):
    """Settings of `Faces`; a clip without a face has all numbers that need none."""

    stop_without_face: bool = Field(False, description="compute nothing more for a clip without any face")


class EvaluateSettings(Settings):
    """Settings of an evaluation; those of each stage and metric under its name."""

    metrics: list[str] = Field(
        ["interavatar"], min_length=1, description="Sets, metrics and single numbers (docs/metrics.md)."
    )
    draws: int = Field(1000, ge=0, description="Draws of clips for the intervals; 0: no intervals.")
    max_seconds: float = Field(120.0, gt=0, description="A longer clip is an error, s.")
    probe: Probe.Config = Probe.Config()
    faces: FacesOfAll = FacesOfAll()
    head: Head.Config = Head.Config()
    body: Body.Config = Body.Config()
    speech: Speech.Config = Speech.Config()
    face_ratios: FaceRatios.Config = FaceRatios.Config()
    caption: Caption.Config = Caption.Config()
    constant_rate: ConstantRate.Config = ConstantRate.Config()
    fid: Fid.Config = Fid.Config()
    fvd: Fvd.Config = Fvd.Config()
    idc_dino: IdcDino.Config = IdcDino.Config()
    idc_face: IdcFace.Config = IdcFace.Config()
    ase: Ase.Config = Ase.Config()
    sync: LipSync.Config = LipSync.Config()
    hand_quality: HandQuality.Config = HandQuality.Config()
    object_quality: ObjectQuality.Config = ObjectQuality.Config()
    clip_text: ClipText.Config = ClipText.Config()
    dino: Dino.Config = Dino.Config()
    temporal_consistency: TemporalConsistency.Config = TemporalConsistency.Config()
    dynamic_degree: DynamicDegree.Config = DynamicDegree.Config()
    ssim: ComparedConfig = ComparedConfig()
    psnr: ComparedConfig = ComparedConfig()
    lpips: ComparedConfig = ComparedConfig()
    flow_error: FlowError.Config = FlowError.Config()
    sid: Sid.Config = Sid.Config()

    @field_validator("metrics")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        figures_of(value)
        return value


def evaluate(models: Roles, settings: EvaluateSettings) -> Pipeline:
    """The pipeline: the metrics that are asked for, and the stages whose columns they read."""
    wanted = {kind.name for kind in metrics_of(figures_of(settings.metrics))}
    return Pipeline(
        name="evaluate",
        stages=needed(candidates(models, settings), wanted),
        screen=EVERYTHING,
        max_seconds=settings.max_seconds,
    )


def candidates(models: Roles, settings: EvaluateSettings) -> list[Stage]:
    """All metrics, and the stages that some of them read, in their order."""
    s, vlm = settings, models.vision_language_model
    return [
        Probe(config=s.probe),  # decodable, true rate, size, sound
        Fid(models.frame_features, config=s.fid),
        Fvd(models.clip_features, config=s.fvd),
        Ase(models.aesthetic_scorer, config=s.ase),
        ClipText(models.text_image_embedder, config=s.clip_text),
        ObjectQuality(models.subject_embedder, config=s.object_quality),
        Dino(models.subject_embedder, models.person_mask, config=s.dino),
        TemporalConsistency(models.text_image_embedder, config=s.temporal_consistency),
        DynamicDegree(models.optical_flow, config=s.dynamic_degree),
        Ssim(config=s.ssim),
        Psnr(config=s.psnr),
        Lpips(models.perceptual_distance, config=s.lpips),
        FlowError(models.optical_flow, config=s.flow_error),
        # What follows is about the main person.
        Faces(models.face_detector, config=s.faces),
        Body(models.pose, config=s.body),  # hands
        HandQuality(models.pose, config=s.hand_quality),
        Contact(models.pose),
        IdcDino(models.subject_embedder, config=s.idc_dino),
        IdcFace(models.face_embedder, config=s.idc_face),
        Head(models.face_mesh, config=s.head),  # mouth, pose
        FaceRatios(models.face_mesh, config=s.face_ratios),  # what the face does
        Sid(config=s.sid),
        Variance(),
        Speech(models.voice_activity, models.diarizer, config=s.speech),
        # A model may refuse a clip, which ends what is measured of it: those that ask come late.
        Caption(vlm, config=s.caption, facts=()),  # for CLIP_re
        ClipRe(models.text_image_embedder),
        VlmQa(vlm),
        ConstantRate(config=s.constant_rate),  # wrong times of pictures would read as a wrong offset
        Sync(models.lip_sync, models.face_detector, config=s.sync),
    ]


def needed(stages: Sequence[Stage], wanted: Collection[str]) -> list[Stage]:
    """Of stages in order the metrics that are wanted and can be measured, and all that they read.

    Args:
        stages: the first is always kept.
        wanted: names of metrics.
    """
    kept: list[Stage] = []
    read: set[str] = set()
    for stage in reversed(stages[1:]):
        if isinstance(stage, Metric):
            is_kept = stage.name in wanted and stage.cannot is None
        elif MEDIA in stage.writes:  # made anew for those that need it so
            is_kept = any(later.needs_constant_rate for later in kept)
        else:
            is_kept = bool(read & set(stage.writes))
        if is_kept:
            kept.append(stage)
            read |= set(stage.reads)
    return [stages[0], *reversed(kept)]
