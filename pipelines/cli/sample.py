"""`interavatar sample`: a portrait, a recording and a touch to a clip, by a trained checkpoint; or many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.names import profiles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from pipelines.generation import Wish
    from pipelines.sampling import Sampler
    from prompts.vocabulary import Vocabulary

NAMED = 10  # cases without a clip that the last line names

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
    output: Annotated[
        Path, typer.Option("--output", help="The clip, an .mp4; with --cases the folder of all clips.")
    ],
    image: Annotated[
        Path | None, typer.Option("--image", help="The portrait; the clip begins with it.")
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(
            "--cases",
            metavar="FILE.jsonl",
            help="Instead of a portrait, test cases as `interavatar benchmark` writes them: a clip of each, "
            "as long as its audio.",
        ),
    ] = None,
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

    What is longer than the clips in training is made part after part, each of which begins with the last
    frames of the one before. With --cases clips that are there are not made again, and a case that fails does
    not stop the others.

    Exit status: 0 made, 1 it, or one of the cases, could not be made, 2 wrong use.

    Example: interavatar sample --checkpoint out --image p.jpg --audio a.wav --at 0.4,0.3 --interaction poke
    --output clip.mp4
    """
    from pipelines.cli.console import out, readable_errors, warn

    told = "nothing was written" if cases is None else "clips that are made stay; the same command goes on"
    with readable_errors(f"interrupted; {told}", "pip install 'interavatar[train]'"):
        from media.temporary import temporary_folder
        from pipelines.generation import Wish
        from pipelines.requests import load_profile, profile_roles, settings_of
        from prompts.vocabulary import load_vocabulary
        from trainer.guidance import SCALE, Guidance

        chosen = load_profile(profile)
        settings = settings_of(chosen, overrides or ())
        kind = interaction_of(interaction, load_vocabulary(settings.vocabulary))
        touch = point_of(at)
        wish = None if image is None else Wish(image, audio, touch, kind, prompt, seconds, at_s)
        words: dict[str, object] = {
            "image": image,
            "audio": audio,
            "at": at,
            "interaction": kind,
            "at-s": at_s or None,
        }
        words |= {"prompt": prompt or None, "seconds": seconds}
        guided = Guidance(
            SCALE if guidance is None else guidance,
            text_guidance,
            interaction_guidance,
            audio_guidance,
            skip_guidance,
            layers_of(skip_layers),
            negative_prompt,
        )
        if cases is not None:
            _check_cases(cases, words, output)
        _check(wish, cases, output, checkpoint)
        with temporary_folder() as answers:
            roles = profile_roles(chosen, settings, answers)
        from pipelines.sampling import Sampler

        sampler = Sampler.load(checkpoint, roles, profile, steps, guided, seed, warn, model)
        if cases is not None:
            _make_all(cases, output, sampler)
        elif wish is not None:
            made = sampler.make(wish, output, _parts)
            shape = f"{made.width}x{made.height}"
            out().print(f"{output}: {made.frames} frames of {shape}, {made.seconds:.2f} s")


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


def _check(wish: Wish | None, cases: Path | None, output: Path, checkpoint: Path) -> None:
    import math

    from configs.reading import SettingsError

    if wish is None and cases is None:
        raise SettingsError("give the portrait, --image, or test cases, --cases")
    missing = []
    if wish is not None:
        from pipelines.sampling import MAX_SECONDS

        if (wish.point is None) != (wish.interaction is None):
            raise SettingsError(
                "--at and --interaction belong together: where the person is touched, and how"
            )
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


def _check_cases(cases: Path, words: dict[str, object], output: Path) -> None:
    from configs.reading import SettingsError

    if given := [f"--{name}" for name, value in words.items() if value is not None]:
        raise SettingsError(f"--cases says what each clip is to be: leave out {', '.join(given)}")
    if not cases.is_file():
        raise SettingsError(f"--cases {cases}: no such file")
    if output.suffix.lower() == ".mp4" or output.is_file():
        raise SettingsError(f"--output {output}: with --cases the folder of all clips")


def _make_all(file: Path, output: Path, sampler: Sampler) -> None:
    """A clip of each case.

    Raises:
        RunError: not of all.
    """
    from pipelines.cli.console import err, out
    from pipelines.engine.pipeline import RunError
    from pipelines.engine.signals import sigterm_interrupts
    from pipelines.evaluation.cases import read_cases
    from pipelines.evaluation.generate import generate_cases

    sigterm_interrupts()
    cases = read_cases(file)
    done = generate_cases(cases, file.parent, output, sampler, err().print, _parts)
    out().print(f"{output}: {done.made} clips made, {done.there} were there, of {len(cases)} cases")
    if done.errors:
        named = "; ".join(f"{name}: {why}" for name, why in list(done.errors.items())[:NAMED])
        more = f"; and {len(done.errors) - NAMED} more, as said above" if len(done.errors) > NAMED else ""
        raise RunError(f"{len(done.errors)} cases have no clip: {named}{more}")


def _parts(made: Iterable[Tensor], count: int) -> Iterable[Tensor]:
    """The parts of a clip, with a bar on a terminal."""
    from rich.progress import track

    from pipelines.cli.console import err

    console = err()
    hidden = not console.is_terminal
    return track(made, "parts", count, console=console, transient=True, disable=hidden)
