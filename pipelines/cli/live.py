"""`interavatar live`: an avatar in the browser that answers touch and voice while one watches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.sample import EmbeddersOf, Overrides, TrainedFrom

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from backends.roles import Roles
    from pipelines.live.session import Avatar

SOUND_S = 120  # of --audio that is played


def live(
    checkpoint: Annotated[
        Path,
        typer.Option("--checkpoint", help="A distilled checkpoint (stage 3), or the output of its run."),
    ],
    image: Annotated[Path, typer.Option("--image", help="The portrait; the avatar begins with it.")],
    audio: Annotated[
        Path | None, typer.Option("--audio", help="A recording that the avatar speaks when one begins.")
    ] = None,
    prompt: Annotated[str, typer.Option("--prompt", help="What happens, in words.")] = "",
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other frames.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", help="A folder for a record of each session, 0001.jsonl.")
    ] = None,
    keep_clips: Annotated[
        bool, typer.Option("--keep-clips", help="What was seen and heard, too: 0001.mp4 in --output.")
    ] = False,
    profile: EmbeddersOf = "laptop",
    overrides: Overrides = None,
    model: TrainedFrom = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0: any port that is free.")
    ] = 8440,
) -> None:
    """Watch, touch and talk to an avatar in a browser while it is generated; until Ctrl-C.

    Prints the page's address. It holds a token, and only this machine can come; from another one:
    ssh -L 8440:127.0.0.1:8440 HOST. One page at a time has the avatar.

    Example: interavatar live --checkpoint training/wan_stage3 --image p.jpg
    """
    from pipelines.cli.console import out, readable_errors

    with readable_errors("interrupted", "pip install 'interavatar[train]'"):
        from configs.reading import SettingsError
        from media.temporary import temporary_folder
        from pipelines.engine.signals import sigterm_interrupts
        from pipelines.live.site import Site
        from pipelines.requests import load_profile, profile_roles, settings_of
        from pipelines.review.server import Guard, listening, new_token, serving
        from prompts.vocabulary import load_vocabulary

        given = (("--image", image), ("--audio", audio))
        missing = [f"{name} {path}: no such file" for name, path in given if path and not path.is_file()]
        if not checkpoint.exists():
            missing.append(f"--checkpoint {checkpoint}: nothing there")
        if keep_clips and output is None:
            missing.append("--keep-clips: say with --output where to")
        if missing:
            raise SettingsError("; ".join(missing))
        chosen = load_profile(profile)
        settings = settings_of(chosen, overrides or ())
        vocabulary = load_vocabulary(settings.vocabulary)
        kinds = {kind: vocabulary.verbs.get(kind, kind) for kind in vocabulary.types}
        with listening("127.0.0.1", port) as at:
            with temporary_folder() as answers:
                roles = profile_roles(chosen, settings, answers)
            notes: list[str] = []
            avatar = _avatar(image, prompt, checkpoint, model, roles, profile, seed, notes)
            sound = None if audio is None else _sound(audio, avatar, notes)
            token = new_token()
            site = Site(avatar, kinds, notes, sound, output, keep_clips)
            server = serving(Guard(site.app(), token))
            site.is_over = lambda: server.should_exit
            sigterm_interrupts()
            out().print(f"live      http://127.0.0.1:{at.getsockname()[1]}/{token}/; Ctrl-C ends it")
            try:
                server.run(sockets=[at])
            except KeyboardInterrupt:  # what was under way has ended
                out().print("ended" if output is None else f"ended; the records are in {output}")


def _avatar(
    image: Path,
    prompt: str,
    checkpoint: Path,
    model: Path | None,
    roles: Roles,
    profile: str,
    seed: int,
    notes: list[str],
) -> Avatar:
    import torch

    from pipelines.cli.console import warn
    from pipelines.generation import ROLES, Wish, batch_of, check_embedders
    from pipelines.live.session import Avatar
    from trainer.generate import load_for_sampling
    from trainer.stream import Stream

    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained = load_for_sampling(checkpoint, device, model)

    def note(text: str) -> None:
        warn(text)
        notes.append(text)

    if trained.info.get("stand_in"):
        note(f"the checkpoint began with {trained.info['stand_in']}: the avatar will show nothing of use")
    check_embedders(trained, roles, profile)
    wish = Wish(image, None, None, None, prompt, None)
    batch = batch_of(wish, None, 1, trained, roles, note)
    embedder = None
    if ROLES["audio"] in trained.info.get("embedders", {}):
        embedder = roles.audio_embedder
        embedder.setup()
    else:
        note("the avatar hears nothing: no clip in training had sound")
    next(Stream(trained, batch, seed))  # what a first block alone costs is not for who watches
    return Avatar(trained, batch, seed, embedder)


def _sound(audio: Path, avatar: Avatar, notes: list[str]) -> npt.NDArray[np.float32] | None:
    from backends.sound.audio_embedder import RATE
    from media.sound import read_sound
    from pipelines.cli.console import warn

    if avatar.embedder is None:
        return None
    sound = read_sound(audio, RATE, SOUND_S + 1)
    if len(sound) > SOUND_S * RATE:
        text = f"of the audio the first {SOUND_S} s are played"
        warn(text)
        notes.append(text)
    return sound[: SOUND_S * RATE]
