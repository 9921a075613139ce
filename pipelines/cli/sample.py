"""`interavatar sample`: a portrait, a recording and a touch to a clip, by a trained checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.names import profiles

if TYPE_CHECKING:
    from backends.roles import Roles
    from pipelines.generation import Wish
    from prompts.vocabulary import Vocabulary


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
        str | None,
        typer.Option("--interaction", help="How, such as poke or poked; a type of touch of the vocabulary."),
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
        str,
        typer.Option(
            "--profile",
            help="Whose embedders; those that the shards were made with.",
            autocompletion=profiles,
        ),
    ] = "laptop",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as vocabulary=my_types.yaml.")
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
    from pipelines.cli.console import readable_errors

    with readable_errors("interrupted; nothing was written", "pip install 'interavatar[train]'"):
        from media.temporary import temporary_folder
        from pipelines.generation import Wish
        from pipelines.requests import load_profile, profile_roles, settings_of
        from prompts.vocabulary import load_vocabulary

        chosen = load_profile(profile)
        settings = settings_of(chosen, overrides or ())
        kind = interaction_of(interaction, load_vocabulary(settings.vocabulary))
        wish = Wish(image, audio, point_of(at), kind, prompt, seconds)
        _check(wish, output, checkpoint)
        with temporary_folder() as answers:
            roles = profile_roles(chosen, settings, answers)
        _make(wish, output, checkpoint, model, roles, profile, steps, guidance, seed)


def interaction_of(text: str | None, vocabulary: Vocabulary) -> str | None:
    """`poke`, `poked` or `Poked` to the type of touch, the word that prompts have.

    Raises:
        SettingsError: the vocabulary has no such type.
    """
    if text is None:
        return None
    from configs.reading import SettingsError

    word = " ".join(text.lower().replace("-", " ").replace("_", " ").split())
    for kind in vocabulary.types:
        if word in (kind, vocabulary.verbs.get(kind)):
            return kind
    choices = ", ".join(vocabulary.verbs.get(kind, kind) for kind in vocabulary.types)
    raise SettingsError(
        f"--interaction {text}: choose one of {choices}, or add your own by --set vocabulary=FILE"
    )


def point_of(text: str | None) -> tuple[float, float] | None:
    """`0.4,0.3` to a point in shares of the picture.

    Raises:
        SettingsError: it is no such point.
    """
    if text is None:
        return None
    import math

    from configs.reading import SettingsError

    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise SettingsError(f"--at {text}: write X,Y as shares of the picture, for instance --at 0.4,0.3")
    return x, y


def _check(wish: Wish, output: Path, checkpoint: Path) -> None:
    import math

    from configs.reading import SettingsError

    if (wish.point is None) != (wish.interaction is None):
        raise SettingsError("--at and --interaction belong together: where the person is touched, and how")
    if wish.seconds is not None and not 0 < wish.seconds < math.inf:
        raise SettingsError(f"--seconds {wish.seconds:g}: more than 0")
    if output.suffix.lower() != ".mp4":
        raise SettingsError(f"--output {output}: the clip is an .mp4")
    given = (("--image", wish.image), ("--audio", wish.audio))
    missing = [f"{name} {path}: no such file" for name, path in given if path and not path.is_file()]
    if not checkpoint.exists():
        missing.append(f"--checkpoint {checkpoint}: nothing there")
    if missing:
        raise SettingsError("; ".join(missing))


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

    from backends.sound.audio_embedder import RATE
    from configs.reading import SettingsError
    from media.sound import read_sound
    from pipelines.cli.console import out, warn
    from pipelines.generation import SOUND_RATE, batch_of, check_embedders, frames_of
    from trainer.generate import GUIDANCE, STEPS, load_for_sampling, write_clip
    from trainer.networks.encoders import encode

    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained = load_for_sampling(checkpoint, device, model)
    if trained.is_distilled and (steps is not None or guidance is not None):
        raise SettingsError("--steps, --guidance: a distilled checkpoint has its own steps, and no guidance")
    if trained.info.get("stand_in"):
        began = trained.info["stand_in"]
        warn(f"the checkpoint began with {began}: it knows at best the clips that it was trained on")
    check_embedders(trained, roles, profile)

    buckets = trained.config.data.buckets
    limit = buckets.max_frames / buckets.fps + 1
    heard = None if wish.audio is None else read_sound(wish.audio, RATE, limit)
    frames = frames_of(buckets, wish.seconds, None if heard is None else len(heard) / RATE)
    if heard is not None and len(heard) / RATE > frames / buckets.fps + 1 / buckets.fps:
        warn(f"of the audio the first {frames / buckets.fps:.2f} s are used")
    batch = batch_of(wish, heard, frames, trained, roles, warn)
    _, conditions = encode(batch, trained.encoders)
    video = trained.sample(conditions, frames, steps or STEPS, guidance or GUIDANCE, seed)[0]
    track = None if wish.audio is None else read_sound(wish.audio, SOUND_RATE, frames / buckets.fps)
    write_clip(output, video, buckets.fps, track, SOUND_RATE)
    _, count, height, width = video.shape
    out().print(f"{output}: {count} frames of {width}x{height}, {count / buckets.fps:.2f} s")
