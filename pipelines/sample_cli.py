"""`interavatar sample`: a portrait, a recording and a touch to a clip, by a trained checkpoint."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console

from backends.audio_embedder import RATE
from backends.roles import Roles
from manifests.buckets import Bucket, BucketConfig
from pipelines.doctor import settings_of
from pipelines.settings import SettingsError, load_profile, profile_roles
from prompts.vocabulary import INTERACTION_TYPES, InteractionType, interaction_sentence
from stages.attributes import Attributes
from stages.clip import Clip
from stages.faces import Faces
from stages.media import MediaError
from stages.picture import decode_picture, read_picture

if TYPE_CHECKING:  # torch takes seconds to import, which --help should not
    from trainer.batch import Batch
    from trainer.sample import Trained

SOUND_RATE: Final = 48000  # of the clip's sound track
# What one says, beside the participles themselves.
VERBS: Final[Mapping[str, InteractionType]] = {
    "kiss": "kissed",
    "caress": "caressed",
    "stroke": "stroked",
    "blow on": "blown on",
    "press": "pressed",
    "tap": "tapped",
    "punch": "punched",
    "poke": "poked",
    "kick": "kicked",
    "pinch": "pinched",
    "scratch": "scratched",
}
# Array of a clip to the role that makes it; the checkpoint names the embedder as `<role>`.
ROLES: Final[Mapping[str, str]] = {
    "identity": "face_embedder",
    "attributes": "attribute_embedder",
    "audio": "audio_embedder",
}

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Wish:
    """What the clip is to be."""

    image: Path
    audio: Path | None
    point: tuple[float, float] | None  # touched, in shares of the picture
    interaction: InteractionType | None
    prompt: str
    seconds: float | None


def sample(
    checkpoint: Annotated[
        Path, typer.Option("--checkpoint", help="A checkpoint, or the output of a training run: its newest.")
    ],
    image: Annotated[Path, typer.Option("--image", help="The portrait; the clip begins with it.")],
    output: Annotated[Path, typer.Option("--output", help="The clip, an .mp4.")],
    audio: Annotated[
        Path | None, typer.Option("--audio", help="What the person says: a recording, or a video's sound.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="X,Y", help="The touched point, shares of the picture, 0-1."),
    ] = None,
    interaction: Annotated[
        str | None, typer.Option("--interaction", help=f"One of: {', '.join(VERBS)}.")
    ] = None,
    prompt: Annotated[str, typer.Option("--prompt", help="What happens, in words.")] = "",
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", help="Length. Default: that of the audio, as far as training went."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Of the sampler. Default: 40.")] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", min=1, help="1: none, twice as fast. Default: 5.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, another clip.")] = 0,
    profile: Annotated[
        str, typer.Option("--profile", help="Whose embedders; those that the shards were made with.")
    ] = "laptop",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as models=/shared/models.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="The diffusers checkpoint that training began with, if it has moved."),
    ] = None,
) -> None:
    """Make a clip of a person who speaks, and reacts to a touch, with a trained checkpoint.

    Exit status: 0 made, 1 it could not be made, 2 wrong use.

    Example: interavatar sample --checkpoint out --image p.jpg --audio a.wav --at 0.4,0.3 --interaction poke
    --output clip.mp4
    """
    with _readable_errors():
        wish = Wish(image, audio, point_of(at), interaction_of(interaction), prompt, seconds)
        _check(wish, output)
        chosen = load_profile(profile)
        with tempfile.TemporaryDirectory(prefix="interavatar-") as answers:
            roles = profile_roles(chosen, settings_of(chosen, overrides or ()), Path(answers))
        _make(wish, output, checkpoint, model, roles, profile, steps, guidance, seed)


def interaction_of(text: str | None) -> InteractionType | None:
    """`poke`, `poked` or `Poked` to the word that prompts have (InterAvatar appendix B.1).

    Raises:
        SettingsError: none of the eleven.
    """
    if text is None:
        return None
    word = " ".join(text.lower().replace("-", " ").replace("_", " ").split())
    known: dict[str, InteractionType] = dict(VERBS) | {kind: kind for kind in INTERACTION_TYPES}
    if word not in known:
        raise SettingsError(f"--interaction {text}: choose one of {', '.join(VERBS)}")
    return known[word]


def point_of(text: str | None) -> tuple[float, float] | None:
    """`0.4,0.3` to a point in shares of the picture.

    Raises:
        SettingsError: it is no such point.
    """
    if text is None:
        return None
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise SettingsError(f"--at {text}: write X,Y as shares of the picture, for instance --at 0.4,0.3")
    return x, y


def frames_of(buckets: BucketConfig, seconds: float | None, heard: float | None) -> int:
    """How many frames the clip gets.

    Args:
        buckets: lengths that were trained.
        seconds: what was asked for.
        heard: length of the sound, s; decides where nothing was asked for. Without either the clip is as
            long as can be.

    Raises:
        SettingsError: `seconds` is not a length that was trained.
    """
    longest = buckets.frames_within(buckets.max_frames)
    shortest = -(-(buckets.min_frames - 1) // buckets.step) * buckets.step + 1
    if seconds is None:
        wanted = longest if heard is None else math.ceil(heard * buckets.fps)
        # The next length up: what is said is heard to its end.
        wanted = -(-(wanted - 1) // buckets.step) * buckets.step + 1
        return min(max(wanted, shortest), longest)
    frames = buckets.frames_within(math.floor(min(seconds, 3600) * buckets.fps + 1e-3))
    if frames < shortest or seconds > longest / buckets.fps + 1e-3:
        raise SettingsError(
            f"--seconds {seconds:g}: this checkpoint was trained on clips of {shortest / buckets.fps:.2f} to "
            f"{longest / buckets.fps:.2f} s"
        )
    return frames


def _check(wish: Wish, output: Path) -> None:
    if (wish.point is None) != (wish.interaction is None):
        raise SettingsError("--at and --interaction belong together: where the person is touched, and how")
    if wish.seconds is not None and not 0 < wish.seconds < math.inf:
        raise SettingsError(f"--seconds {wish.seconds:g}: more than 0")
    if output.suffix.lower() != ".mp4":
        raise SettingsError(f"--output {output}: the clip is an .mp4")
    for name, path in (("image", wish.image), ("audio", wish.audio)):
        if path is not None and not path.is_file():
            raise SettingsError(f"--{name} {path}: no such file")


def _make(
    wish: Wish,
    output: Path,
    checkpoint: Path,
    model: Path | None,
    roles: Roles,
    profile: str,
    steps: int | None,
    guidance: float | None,
    seed: int,
) -> None:
    import torch

    from trainer.encoders import encode
    from trainer.sample import GUIDANCE, STEPS, load_for_sampling, read_sound, write_clip

    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained = load_for_sampling(checkpoint, device, model)
    if trained.is_distilled and (steps is not None or guidance is not None):
        raise SettingsError("--steps, --guidance: a distilled checkpoint has its own steps, and no guidance")
    if trained.info.get("stand_in"):
        _warn(f"the checkpoint began with {trained.info['stand_in']}: the clip will show nothing of use")
    _check_embedders(trained, roles, profile)

    buckets = trained.config.data.buckets
    limit = buckets.max_frames / buckets.fps + 1
    heard = None if wish.audio is None else read_sound(wish.audio, RATE, limit)
    frames = frames_of(buckets, wish.seconds, None if heard is None else len(heard) / RATE)
    if heard is not None and len(heard) / RATE > frames / buckets.fps + 1 / buckets.fps:
        _warn(f"of the audio the first {frames / buckets.fps:.2f} s are used")
    batch = batch_of(wish, heard, frames, trained, roles)
    _, conditions = encode(batch, trained.encoders)
    video = trained.sample(conditions, frames, steps or STEPS, guidance or GUIDANCE, seed)[0]
    track = None if wish.audio is None else read_sound(wish.audio, SOUND_RATE, frames / buckets.fps)
    write_clip(output, video, buckets.fps, track, SOUND_RATE)
    _, count, height, width = video.shape
    out.print(
        f"{output}: {count} frames of {width}x{height}, {count / buckets.fps:.2f} s",
        markup=False,
        soft_wrap=True,
    )


def _check_embedders(trained: Trained, roles: Roles, profile: str) -> None:
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
) -> Batch:
    """The conditions of one clip, as training would have read them from a shard.

    Features are those of the stages that fill shards, at their default settings; an embedder that training
    did not see is not asked.

    Raises:
        MediaError: the picture cannot be read.
        ClipError: a feature has another width than in training.
    """
    import torch

    from trainer.batch import Batch
    from trainer.clip import features_at
    from trainer.dropout import prompt_of

    buckets = trained.config.data.buckets
    arrays = _features(wish.image, heard, trained.info.get("embedders", {}), roles)
    given = features_at(arrays, np.arange(frames) / buckets.fps, trained.config.model)
    picture, point = portrait_of(read_picture(wish.image), buckets, frames, wish.point)
    sentence = None if wish.interaction is None else interaction_sentence(wish.interaction)

    def flag(value: bool) -> torch.Tensor:
        return torch.tensor([value])

    return Batch(
        sample_ids=[wish.image.stem],
        runs=[""],
        slots=[0],
        video=torch.from_numpy(picture).permute(2, 0, 1)[None, :, None],
        prompts=[prompt_of(sentence, wish.prompt or None, frozenset())],
        points=torch.tensor([point or (0.0, 0.0)]),
        **{name: torch.from_numpy(values)[None] for name, (values, _) in given.items()},
        **{f"has_{name}": flag(present) for name, (_, present) in given.items()},
        has_points=flag(point is not None),
        has_reference=flag(True),
    )


def portrait_of(
    picture: npt.NDArray[np.uint8],
    buckets: BucketConfig,
    frames: int,
    point: tuple[float, float] | None,
) -> tuple[npt.NDArray[np.uint8], tuple[float, float] | None]:
    """The picture in the size of its bucket, cut as training cuts clips, and the point where it then is."""
    from trainer.decode import crop_of

    height, width = picture.shape[:2]
    bucket = Bucket(frames, *buckets.size_of(width / height))
    crop = crop_of(width, height, bucket, point)
    how = cv2.INTER_AREA if crop.width <= width else cv2.INTER_CUBIC
    scaled = np.asarray(cv2.resize(picture, (crop.width, crop.height), interpolation=how), np.uint8)
    cut = scaled[crop.top : crop.top + bucket.height, crop.left : crop.left + bucket.width]
    if point is not None:
        x, y = point[0] * crop.width - crop.left, point[1] * crop.height - crop.top
        point = x / bucket.width, y / bucket.height
    return np.ascontiguousarray(cut), point


def _features(
    image: Path, heard: npt.NDArray[np.float32] | None, embedders: Mapping[str, str], roles: Roles
) -> dict[str, npt.NDArray[Any]]:
    """Arrays as `manifests.shards.read_arrays` gives them, of what training saw too."""
    for name, role in ROLES.items():
        if role not in embedders and (name != "audio" or heard is not None):
            _warn(f"{name} is left out: no clip in training had it")
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
            _warn(f"{image}: no face found; identity is left out")
    if ROLES["attributes"] in embedders:
        attributes.setup()
        arrays["attributes"] = attributes.score(clip)["attribute_features"]
    if ROLES["audio"] in embedders and heard is not None:
        roles.audio_embedder.setup()
        arrays["audio"] = roles.audio_embedder.embed(heard, RATE).astype(np.float16)
        arrays["audio_hz"] = np.asarray(roles.audio_embedder.rate_hz, np.float32)
    return arrays


def _warn(text: str) -> None:
    err.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)


@contextmanager
def _readable_errors() -> Iterator[None]:
    """Exit 2 for wrong use, 1 for a clip that could not be made, each with one clear message."""
    try:
        yield
    except (SettingsError, MediaError, ValueError, OSError, ImportError) as error:
        err.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, SettingsError) else 1) from None
    except KeyboardInterrupt:
        err.print("interrupted; nothing was written", style="red")
        raise typer.Exit(1) from None
