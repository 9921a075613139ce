"""Touch in real videos: caption, people, interaction, region, point, prompt (InterAvatar §4.2)."""

from __future__ import annotations

from pydantic import Field

from backends.roles import Roles
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.settings import Settings
from stages.artifacts import Anatomy, Artifacts
from stages.attributes import Attributes
from stages.audio_features import AudioFeatures
from stages.caption import Caption
from stages.clip_start import ClipStart
from stages.consistency import Consistency
from stages.contacts import Contacts
from stages.faces import Faces
from stages.interaction import Interaction
from stages.motion import Motion
from stages.overlays import Overlays
from stages.people import People
from stages.people_count import PeopleCount
from stages.probe import Probe
from stages.quality import Quality
from stages.regions import Regions
from stages.shots import Shots
from stages.signature import Signature
from stages.touch_point import TouchPoint

# What the laptop's captions are made of here.
FACTS = ("num_people", "camera_motion")


class RealInteractionsSettings(Settings):
    """Settings of real_interactions; each stage's under its name."""

    max_seconds: float = Field(
        30.0, gt=0, description="A longer sample is an error instead of being scored, s."
    )
    probe: Probe.Config = Probe.Config()
    shots: Shots.Config = Shots.Config()
    faces: Faces.Config = Faces.Config()
    people: People.Config = People.Config()
    contacts: Contacts.Config = Contacts.Config()
    quality: Quality.Config = Quality.Config()
    motion: Motion.Config = Motion.Config()
    consistency: Consistency.Config = Consistency.Config()
    overlays: Overlays.Config = Overlays.Config()
    signature: Signature.Config = Signature.Config()
    attributes: Attributes.Config = Attributes.Config()
    caption: Caption.Config = Caption.Config()
    people_count: PeopleCount.Config = PeopleCount.Config()
    regions: Regions.Config = Regions.Config()
    clip_start: ClipStart.Config = ClipStart.Config()
    touch_point: TouchPoint.Config = TouchPoint.Config()


def real_interactions(models: Roles, settings: RealInteractionsSettings) -> Pipeline:
    """The pipeline: measurements first, in one decode, then the questions, dearest last."""
    s = settings
    vlm = models.vision_language_model
    people = People(models.face_detector, models.pose, models.hand_detector, config=s.people)
    regions = Regions(vlm, models.hair_segmenter, models.person_mask, config=s.regions)
    return Pipeline(
        name="real_interactions",
        stages=[
            Probe(config=s.probe),  # decodable, streams, true rate
            Shots(config=s.shots),  # cuts inside the clip
            Faces(models.face_detector, config=s.faces),  # faces, main face
            people,  # 133 keypoints of up to two people
            # hands against regions over time
            Contacts(models.hand_detector, models.person_mask, people.sees[0], config=s.contacts),
            Quality(models.image_quality, config=s.quality),  # luminance, blur
            Motion(models.point_tracker, models.person_mask, config=s.motion),  # subject, camera
            Consistency(models.image_embedder, models.face_embedder, config=s.consistency),  # time, identity
            Overlays(models.text_detector, config=s.overlays),  # subtitles, logos
            Signature(config=s.signature),  # by which copies are found
            Attributes(models.attribute_embedder, config=s.attributes),  # for training
            AudioFeatures(models.audio_embedder),  # for training
            Caption(vlm, config=s.caption, facts=FACTS),
            PeopleCount(vlm, config=s.people_count),  # at most two
            Interaction(vlm),  # type or none, region of 22, who acts
            regions,  # points on the first frame
            ClipStart(
                regions, people.sees[0], config=s.clip_start
            ),  # a later one, where that hides the region
            TouchPoint(vlm, config=s.touch_point),  # which person, where, the prompt
            Artifacts(vlm),  # §4.3: watermarks, subtitles, distortions
            Anatomy(vlm),
        ],
        screen="real_interactions",
        max_seconds=s.max_seconds,
    )
