"""Portraits to synthesise from: one real person, visible regions, reactions (InterAvatar §4.2 and B.1)."""

from __future__ import annotations

from backends.roles import Roles
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.settings import Settings
from stages.consistency import Consistency
from stages.depiction import Depiction
from stages.faces import Faces
from stages.head import Head
from stages.people import People
from stages.portrait import Portrait, PortraitKind
from stages.quality import Quality
from stages.reactions import Reactions
from stages.regions import Regions


class PortraitsSettings(Settings):
    """Settings of portraits; each stage's under its name."""

    faces: Faces.Config = Faces.Config()
    depiction: Depiction.Config = Depiction.Config()
    portrait_kind: PortraitKind.Config = PortraitKind.Config()
    head: Head.Config = Head.Config()
    quality: Quality.Config = Quality.Config()
    consistency: Consistency.Config = Consistency.Config()
    people: People.Config = People.Config()
    regions: Regions.Config = Regions.Config()
    reactions: Reactions.Config = Reactions.Config()


def portraits(models: Roles, settings: PortraitsSettings) -> Pipeline:
    """The pipeline; what cannot be kept is stopped before the reactions, which cost most."""
    s = settings
    vlm = models.vision_language_model
    return Pipeline(
        name="portraits",
        stages=[
            Portrait(),  # readable, size
            Faces(models.face_detector, config=s.faces),  # faces, main face
            Depiction(models.image_classifier, config=s.depiction),  # evidence: animal, painting
            Head(models.face_mesh, config=s.head),  # frontal enough
            Quality(models.image_quality, config=s.quality),  # luminance, sharpness
            Consistency(models.image_embedder, models.face_embedder, config=s.consistency),  # identity
            People(models.face_detector, models.pose, models.hand_detector, config=s.people),  # 133 keypoints
            PortraitKind(vlm, config=s.portrait_kind),  # a photograph of one person
            Regions(
                vlm, models.hair_segmenter, models.person_mask, config=s.regions
            ),  # visible regions with points
            Reactions(
                models.reaction_writer, config=s.reactions
            ),  # action and emotion for each region and type
        ],
        screen="portraits",
        max_seconds=1.0,
        media="picture",
    )
