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
    from trainer.generate import Trained
    from trainer.guidance import Guidance

MAX_SECONDS = 600.0  # the frames of a clip wait in memory for its end


# What `sample` and `live` ask for alike.
EmbeddersOf = Annotated[
    str,
    typer.Option(
        "--profile", help="Whose embedders; those that the shards were made with.", autocompletion=profiles
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, such as vocabulary=my_types.yaml.")
]
TrainedFrom = Annotated[
    Path | None,
    typer.Option("--model", help="The diffusers checkpoint that training began with, if it has moved."),
]


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
    at_s: Annotated[float, typer.Option("--at-s", min=0, help="When, in seconds.")] = 0.0,
    prompt: Annotated[str, typer.Option("--prompt", help="What happens, in words.")] = "",
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            help="Length, up to ten minutes. Default: that of the audio, else of training's longest clips.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Of the sampler. Default: 40.")] = None,
    guidance: Annotated[
        float | None,
        typer.Option("--guidance", min=1, help="Towards all conditions; 1: none, twice as fast. Default: 5."),
    ] = None,
    text_guidance: Annotated[
        float | None,
        typer.Option("--text-guidance", min=0, help="Towards the prompt alone. Default: --guidance."),
    ] = None,
    audio_guidance: Annotated[
        float | None,
        typer.Option("--audio-guidance", min=0, help="Towards the audio alone. Default: --guidance."),
    ] = None,
    interaction_guidance: Annotated[
        float | None,
        typer.Option("--interaction-guidance", min=0, help="Towards the touch alone. Default: --guidance."),
    ] = None,
    negative_prompt: Annotated[
        str, typer.Option("--negative-prompt", help="Guidance leads away from it; else from no words.")
    ] = "",
    skip_guidance: Annotated[
        float,
        typer.Option(
            "--skip-guidance",
            min=0,
            help="Away from the network without some of its blocks; the usual scale is 1. Default: none.",
        ),
    ] = 0.0,
    skip_layers: Annotated[
        str | None,
        typer.Option("--skip-layers", metavar="N,N", help="Which blocks. Default: 8 for Wan, 19 for LTX."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, another clip.")] = 0,
    profile: EmbeddersOf = "laptop",
    overrides: Overrides = None,
    model: TrainedFrom = None,
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
        from trainer.guidance import SCALE, Guidance

        chosen = load_profile(profile)
        settings = settings_of(chosen, overrides or ())
        kind = interaction_of(interaction, load_vocabulary(settings.vocabulary))
        wish = Wish(image, audio, point_of(at), kind, prompt, seconds, at_s)
        guided = Guidance(
            SCALE if guidance is None else guidance,
            text_guidance,
            interaction_guidance,
            audio_guidance,
            skip_guidance,
            layers_of(skip_layers),
            negative_prompt,
        )
        _check(wish, output, checkpoint)
        with temporary_folder() as answers:
            roles = profile_roles(chosen, settings, answers)
        _make(wish, output, checkpoint, model, roles, profile, steps, guided, seed)


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


def layers_of(text: str | None) -> tuple[int, ...] | None:
    """`8,16` to the numbers of blocks.

    Raises:
        SettingsError: they are no such numbers.
    """
    if text is None:
        return None
    from configs.reading import SettingsError

    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise SettingsError(
            f"--skip-layers {text}: write numbers of blocks from 0 on, for instance --skip-layers 8,16"
        ) from None


def _check(wish: Wish, output: Path, checkpoint: Path) -> None:
    import math

    from configs.reading import SettingsError

    if (wish.point is None) != (wish.interaction is None):
        raise SettingsError("--at and --interaction belong together: where the person is touched, and how")
    if wish.seconds is not None and not 0 < wish.seconds < math.inf:
        raise SettingsError(f"--seconds {wish.seconds:g}: more than 0")
    if wish.seconds is not None and wish.seconds > MAX_SECONDS:
        raise SettingsError(f"--seconds {wish.seconds:g}: at most {MAX_SECONDS:g}")
    if wish.at_s and wish.point is None:
        raise SettingsError("--at-s says when the person is touched: give --at and --interaction, too")
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
    guidance: Guidance,
    seed: int,
) -> None:
    import torch
    from rich.progress import track

    from backends.sound.audio_embedder import RATE
    from configs.reading import SettingsError
    from media.sound import read_sound
    from pipelines.cli.console import err, out, warn
    from pipelines.generation import SOUND_RATE, batch_of, check_embedders, frames_of, touched_frame
    from pipelines.generation import untouched as without_touch
    from trainer.chain import make_parts, parts_of, rows_of
    from trainer.generate import STEPS, load_for_sampling, write_clip
    from trainer.guidance import DEFAULT
    from trainer.networks.encoders import encode_conditions

    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained = load_for_sampling(checkpoint, device, model)
    if trained.is_distilled and (steps is not None or guidance != DEFAULT):
        raise SettingsError("--steps, --guidance: a distilled checkpoint has its own steps, and no guidance")
    if trained.is_distilled and wish.at_s:
        raise SettingsError("--at-s: a distilled checkpoint is touched when its clip begins")
    if trained.info.get("stand_in"):
        began = trained.info["stand_in"]
        warn(f"the checkpoint began with {began}: it knows at best the clips that it was trained on")
    check_embedders(trained, roles, profile)
    _check_layers(guidance, trained)

    buckets, step = trained.config.data.buckets, trained.encoders.backbone.frame_step
    limit = MAX_SECONDS if wish.seconds is None else wish.seconds
    heard = None if wish.audio is None else read_sound(wish.audio, RATE, limit + 1)
    frames = frames_of(buckets, wish.seconds, None if heard is None else min(len(heard) / RATE, limit))
    if heard is not None and len(heard) / RATE > frames / buckets.fps + 1 / buckets.fps:
        warn(f"of the audio the first {frames / buckets.fps:.2f} s are used")
    touched = touched_frame(wish, buckets, frames)
    if trained.is_distilled:
        rows = -(-(frames - 1) // step) * step + 1
        conditions = encode_conditions(batch_of(wish, heard, rows, trained, roles, warn), trained.encoders)
        video = trained.sample(conditions, rows, seed=seed)[0, :, :frames]
    else:
        parts = parts_of(frames, buckets, step, touched)
        batch = batch_of(wish, heard, rows_of(parts), trained, roles, warn)
        calm = without_touch(batch, wish)
        made = make_parts(trained, batch, calm, parts, steps or STEPS, guidance, seed)
        console = err()
        hidden = not console.is_terminal
        shown = track(made, "parts", len(parts), console=console, transient=True, disable=hidden)
        video = torch.cat(list(shown), dim=1)
    sound = None if wish.audio is None else read_sound(wish.audio, SOUND_RATE, frames / buckets.fps)
    write_clip(output, video, buckets.fps, sound, SOUND_RATE)
    _, count, height, width = video.shape
    out().print(f"{output}: {count} frames of {width}x{height}, {count / buckets.fps:.2f} s")


def _check_layers(guidance: Guidance, trained: Trained) -> None:
    from configs.reading import SettingsError

    wanted = guidance.skipped or trained.encoders.backbone.skipped_blocks
    count = len(trained.model.adapters)
    if guidance.skip and not all(0 <= index < count for index in wanted):
        raise SettingsError(
            f"--skip-guidance leaves out block {', '.join(map(str, wanted))}, the network has 0 to "
            f"{count - 1}: choose by --skip-layers"
        )
