"""From a wish (a portrait, a recording, a touch) to the conditions of a clip."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from backends.roles import Roles
from backends.sound.audio_embedder import RATE
from configs.reading import SettingsError
from manifests.buckets import Bucket, BucketConfig
from media.picture import decode_picture, read_picture
from prompts.vocabulary import interaction_sentence
from stages.attributes import Attributes
from stages.clip import Clip
from stages.faces import Faces
from trainer.data.batch import Batch
from trainer.generate import Trained

SOUND_RATE: Final = 48000  # of the clip's sound track
# Array of a clip to the role that makes it; the checkpoint names the embedder as `<role>`.
ROLES: Final[Mapping[str, str]] = {
    "identity": "face_embedder",
    "attributes": "attribute_embedder",
    "audio": "audio_embedder",
}


@dataclass(frozen=True)
class Wish:
    """What the clip is to be."""

    image: Path
    audio: Path | None
    point: tuple[float, float] | None  # touched, in shares of the picture
    interaction: str | None  # type of touch
    prompt: str
    seconds: float | None
    at_s: float = 0.0  # when the touch happens, s


def frames_of(buckets: BucketConfig, seconds: float | None, heard: float | None) -> int:
    """How many frames the clip gets: its seconds times the rate, rounded up.

    Args:
        buckets: lengths that were trained.
        seconds: what was asked for.
        heard: length of the sound, s; decides where nothing was asked for. Without either the clip is as
            long as the longest in training.
    """
    wanted = heard if seconds is None else seconds
    if wanted is None:
        return buckets.frames_within(buckets.max_frames)
    return max(1, math.ceil(wanted * buckets.fps - 1e-3))


def touched_frame(wish: Wish, buckets: BucketConfig, frames: int) -> int | None:
    """The frame in which the person is touched; None: there is no touch.

    Raises:
        SettingsError: it is not in the clip.
    """
    if wish.point is None:
        return None
    frame = round(wish.at_s * buckets.fps)
    if not frame < frames:
        raise SettingsError(
            f"--at-s {wish.at_s:g}: the clip ends at {frames / buckets.fps:.2f} s; touch it earlier"
        )
    return frame


def check_embedders(trained: Trained, roles: Roles, profile: str) -> None:
    """Features of another embedder than in training would be noise to the network."""
    for role, name in trained.info.get("embedders", {}).items():
        mine = getattr(roles, role).id
        if mine != name:
            raise SettingsError(
                f"--profile {profile}: its {role} is {mine}, the checkpoint was trained with {name}; choose "
                "the profile that the shards were made with"
            )


def batch_of(
    wish: Wish,
    heard: npt.NDArray[np.float32] | None,
    frames: int,
    trained: Trained,
    roles: Roles,
    warn: Callable[[str], None],
) -> Batch:
    """The conditions of one clip of so many frames, as training would have read them from a shard.

    Features are those of the stages that fill shards, at their default settings; an embedder that training
    did not see is not asked. What is left out is said by `warn`.

    Raises:
        MediaError: the picture cannot be read.
        ClipError: a feature has another width than in training.
    """
    import torch

    from trainer.data.batch import Batch
    from trainer.data.clip import features_at
    from trainer.data.dropout import prompt_of

    buckets = trained.config.data.buckets
    arrays = _features(wish.image, heard, trained.info.get("embedders", {}), roles, warn)
    given = features_at(arrays, np.arange(frames) / buckets.fps, trained.config.model)
    picture, point = portrait_of(read_picture(wish.image), buckets, frames, wish.point)
    shown = torch.from_numpy(picture).permute(2, 0, 1)[None]
    sentence = None if wish.interaction is None else interaction_sentence(wish.interaction)

    def flag(value: bool) -> torch.Tensor:
        return torch.tensor([value])

    return Batch(
        sample_ids=[wish.image.stem],
        runs=[""],
        slots=[0],
        video=shown.unsqueeze(2),
        reference=shown,
        prompts=[prompt_of(sentence, wish.prompt or None, frozenset())],
        points=torch.tensor([point or (0.0, 0.0)]),
        **{name: torch.from_numpy(values)[None] for name, (values, _) in given.items()},
        **{f"has_{name}": flag(present) for name, (_, present) in given.items()},
        has_points=flag(point is not None),
        has_reference=flag(True),
        known=torch.tensor([1]),
    )


def untouched(batch: Batch, wish: Wish) -> Batch:
    """The same without the touch: no point, marker and sentence."""
    from trainer.data.dropout import prompt_of

    return replace(
        batch,
        prompts=[prompt_of(None, wish.prompt or None, frozenset())],
        points=batch.points * 0,
        has_points=batch.has_points & False,
    )


def portrait_of(
    picture: npt.NDArray[np.uint8],
    buckets: BucketConfig,
    frames: int,
    point: tuple[float, float] | None,
) -> tuple[npt.NDArray[np.uint8], tuple[float, float] | None]:
    """The picture in the size of its bucket, cut as training cuts clips, and the point where it then is."""
    from trainer.data.decode import crop_of

    height, width = picture.shape[:2]
    bucket = Bucket(frames, *buckets.size_of(width / height))
    crop = crop_of(width, height, bucket, point)
    how = cv2.INTER_AREA if crop.width <= width else cv2.INTER_CUBIC
    scaled = np.asarray(cv2.resize(picture, (crop.width, crop.height), interpolation=how), np.uint8)
    cut = scaled[crop.top : crop.top + bucket.height, crop.left : crop.left + bucket.width]
    return np.ascontiguousarray(cut), None if point is None else crop.moved(point, bucket)


def _features(
    image: Path,
    heard: npt.NDArray[np.float32] | None,
    embedders: Mapping[str, str],
    roles: Roles,
    warn: Callable[[str], None],
) -> dict[str, npt.NDArray[Any]]:
    """Arrays as `manifests.shards.read_arrays` gives them, of what training saw too."""
    for name, role in ROLES.items():
        if role not in embedders and (name != "audio" or heard is not None):
            warn(f"{name} is left out: no clip in training had it")
    arrays: dict[str, npt.NDArray[Any]] = {}
    faces, attributes = Faces(roles.face_detector), Attributes(roles.attribute_embedder)
    clip = Clip({}, decode_picture(image, [*faces.sees, *attributes.sees]))
    if ROLES["identity"] in embedders:
        faces.setup()
        marks = faces.score(clip)["face_landmarks"]
        if np.isfinite(marks).all():
            roles.face_embedder.setup()
            arrays["identity"] = roles.face_embedder.embed(clip.frames(faces.sees[0]).images, marks)[0]
        else:
            warn(f"{image}: no face found; identity is left out")
    if ROLES["attributes"] in embedders:
        attributes.setup()
        arrays["attributes"] = attributes.score(clip)["attribute_features"]
    if ROLES["audio"] in embedders and heard is not None:
        roles.audio_embedder.setup()
        arrays["audio"] = roles.audio_embedder.embed(heard, RATE).astype(np.float16)
        arrays["audio_hz"] = np.asarray(roles.audio_embedder.rate_hz, np.float32)
    return arrays
