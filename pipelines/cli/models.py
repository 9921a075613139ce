"""`interavatar models`: list what the model store holds, fetch what is missing, record what was put there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.names import TrainingStart, profiles
from pipelines.cli.typer_app import new_app

if TYPE_CHECKING:
    from backends.store.model_catalogue import ModelEntry
    from backends.store.model_store import Problem

app = new_app("Weights of the gpu profile's models: list, fetch, record.")

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Of models. Default: those of the profile.")
]
ProfileName = Annotated[
    str,
    typer.Option("--profile", help="Whose models, where no name is given.", autocompletion=profiles),
]
Models = Annotated[
    str | None,
    typer.Option(
        "--models",
        help="The model store. Default: $INTERAVATAR_MODELS, else ~/.cache/interavatar/models.",
    ),
]
PACKAGES = "`interavatar doctor` says what is missing"
INTERRUPTED = "interrupted; the same command goes on where this one stopped"


def _chosen(models: Sequence[str] | None, profile: str) -> list[str]:
    from pipelines.engine.settings import Settings
    from pipelines.requests import load_profile, profile_weights

    return list(models) if models else profile_weights(load_profile(profile), Settings())


@app.command("list")
def list_command(
    names: Names = None,
    profile: ProfileName = "gpu",
    models: Models = None,
    check: Annotated[bool, typer.Option("--check", help="Compare the contents with their hashes.")] = False,
) -> None:
    """Show each model with its size, licence and what the store has of it; exit 1 if something is missing."""
    from pipelines.cli.console import err, out, readable_errors

    with readable_errors():
        from rich.filesize import decimal
        from rich.table import Table

        from backends.store.copied_weights import shown
        from backends.store.model_store import ModelStore, say_problems

        store = ModelStore(models)
        chosen = _chosen(names, profile)
        problems = store.problems(chosen, hashes=check, say=err().print)
        view = Table("model", "roles", "size", "licence", "commercial use", "in the store")
        for name in chosen:
            entry = store.entry(name)
            allowed = {True: "yes", False: "no", None: "not stated"}[entry.commercial]
            licence = f"{entry.licence or 'not stated'}{', gated' if entry.gated else ''}"
            state = _state(entry, [p for p in problems if p.model == name], store.weights(name).digest)
            view.add_row(
                name,
                ", ".join(entry.roles),
                "?" if entry.size is None else decimal(entry.size),
                licence,
                allowed,
                state,
            )
        out().print(f"store  {shown(store.location)}")
        out().print(view)
        if problems:
            out().print(say_problems(problems))
            raise typer.Exit(1)


def _state(entry: ModelEntry, problems: Sequence[Problem], digest: str) -> str:
    if problems:
        return f"{len(problems)} of {len(entry.files)} files missing or wrong"
    return f"{'random stand-in' if entry.random_weights else 'complete'} @{digest}"


@app.command("fetch")
def fetch_command(
    names: Names = None,
    profile: ProfileName = "gpu",
    models: Models = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Downloads at once.")] = 4,
    training: Annotated[
        TrainingStart | None,
        typer.Option(
            "--for",
            help="Instead of a profile's models: what training begins with, put together in one folder.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            help="That folder. Default: the one that configs/train names, such as models/Wan2.1-1.3B.",
        ),
    ] = None,
) -> None:
    """Fetch what is missing, compare it with its hashes, write down what came; the same command goes on.

    Hugging Face repositories that ask for consent need HF_TOKEN. HF_ENDPOINT names a mirror.

    Example: interavatar models fetch dwpose --models /shared/models
    """
    from pipelines.cli.console import err, out, readable_errors

    with readable_errors(INTERRUPTED, "pip install 'interavatar[train]'" if training else PACKAGES):
        from backends.store.copied_weights import shown
        from backends.store.model_fetch import fetch
        from backends.store.model_store import ModelStore
        from configs.errors import UsageError
        from pipelines.cli.fetch_progress import ShownProgress
        from pipelines.engine.signals import sigterm_interrupts

        sigterm_interrupts()
        store = ModelStore(models)
        if (folder is not None and training is None) or (names and training is not None):
            raise UsageError("--for takes no names of models, and --folder belongs to it")
        if training is None:
            chosen = _chosen(names, profile)
        else:
            from backends.store.training_starts import STARTS
            from pipelines.training_weights import assemble  # before hours of fetching

            start = STARTS[training]
            chosen = start.models
        for name in chosen:
            entry = store.entry(name)
            if entry.commercial is not True:
                limit = "its licence does not allow commercial use"
                limit = limit if entry.commercial is False else "no licence"
                err().print(f"{name}: {limit} ({entry.licence or 'not stated'})")
        progress = ShownProgress(err())
        try:
            fetch(store, chosen, progress, workers)
        finally:
            progress.stop()
        out().print(f"store  {shown(store.location)}")
        if training is not None:
            made = folder or Path(start.folder)
            weights = assemble(store, start, made, err().print)
            out().print(f"{training}  {made}: {weights / 1e9:.2f} billion weights, each in its place")


@app.command("record")
def record_command(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Of models or folders in the store.")],
    models: Models = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="They are stand-ins; what they make is named `stand_in_...`."),
    ] = False,
) -> None:
    """Take models put into the store by hand: compare them with the pins, write down their hashes."""
    from pipelines.cli.console import out, readable_errors

    with readable_errors():
        from backends.store import model_catalogue
        from backends.store.model_store import ModelStore

        store = ModelStore(models)
        for name in names:
            if name not in model_catalogue.known_models() and not (store.folder / name).is_dir():
                store.entry(name)
        store.record(names, random_weights)
        for name in names:
            out().print(f"{store.weights(name)} recorded")
