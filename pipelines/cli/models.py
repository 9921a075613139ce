"""`interavatar models`: list what the model store holds, fetch what is missing, record what was put there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn
from rich.table import Table

from backends.store.copied_weights import shown
from backends.store.model_catalogue import ModelEntry, known_models
from backends.store.model_fetch import FetchProgress, fetch
from backends.store.model_store import ModelStore, ModelStoreError, Problem, say_problems
from configs.reading import SettingsError
from pipelines.cli.typer_app import new_app
from pipelines.engine.progress import PLAIN_EVERY_S
from pipelines.engine.settings import Settings
from pipelines.engine.signals import sigterm_interrupts
from pipelines.requests import load_profile, profile_weights

app = new_app("Weights of the gpu profile's models: list, fetch, record.")
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Of models. Default: those of the profile.")
]
ProfileName = Annotated[str, typer.Option("--profile", help="Whose models, where no name is given.")]
Models = Annotated[
    str | None,
    typer.Option(
        "--models",
        help="The model store. Default: $INTERAVATAR_MODELS, else ~/.cache/interavatar/models.",
    ),
]


class ShownProgress(FetchProgress):
    """A bar on a terminal, plain lines elsewhere.

    Args:
        console: where to print.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.lock = threading.Lock()
        self.done, self.total, self.last_line = 0, 0, time.monotonic()
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self.bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def start(self, total: int | None) -> None:
        """Show a bar, or how much there is to fetch."""
        self.total = total or 0
        if self.bar is not None:
            self.bar.add_task("", total=total)
            self.bar.start()
        elif total is not None:
            self.say(f"{decimal(total)} to fetch")

    def advance(self, new: int) -> None:
        """Move the bar, or print a line every few seconds."""
        with self.lock:
            self.done += new
            if self.bar is not None:
                self.bar.update(self.bar.task_ids[0], completed=self.done)
            elif time.monotonic() - self.last_line >= PLAIN_EVERY_S:
                self.last_line = time.monotonic()
                self.say(f"{decimal(self.done)}" + (f" of {decimal(self.total)}" if self.total else ""))

    def stop(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()


@contextmanager
def _readable_errors() -> Iterator[None]:
    """Exit 2 for wrong use, 1 for what could not be done, each with a clear message."""
    code, message = 0, ""
    try:
        yield
    except (SettingsError, ValueError) as error:
        code, message = 2, f"error: {error}"
    except (ModelStoreError, OSError, ImportError) as error:
        code, message = 1, f"error: {error}"
    except KeyboardInterrupt:
        code, message = 1, "interrupted; the same command goes on where this one stopped"
    if message:
        err.print(message, style="red", markup=False, soft_wrap=True)
        raise typer.Exit(code)


def _chosen(names: Sequence[str] | None, profile: str) -> list[str]:
    return list(names) if names else profile_weights(load_profile(profile), Settings())


@app.command("list")
def list_command(
    names: Names = None,
    profile: ProfileName = "gpu",
    models: Models = None,
    check: Annotated[bool, typer.Option("--check", help="Compare the contents with their hashes.")] = False,
) -> None:
    """Show each model with its size, licence and what the store has of it; exit 1 if something is missing."""
    with _readable_errors():
        store = ModelStore(models)
        chosen = _chosen(names, profile)
        problems = store.problems(chosen, hashes=check, say=err.print)
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
        out.print(f"store  {shown(store.location)}", markup=False, soft_wrap=True)
        out.print(view)
        if problems:
            out.print(say_problems(problems), markup=False, soft_wrap=True)
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
) -> None:
    """Fetch what is missing, compare it with its hashes, write down what came; the same command goes on.

    Hugging Face repositories that ask for consent need HF_TOKEN. HF_ENDPOINT names a mirror.

    Example: interavatar models fetch dwpose --models /shared/models
    """
    with _readable_errors():
        sigterm_interrupts()
        store = ModelStore(models)
        chosen = _chosen(names, profile)
        for name in chosen:
            entry = store.entry(name)
            if entry.commercial is not True:
                said = (
                    "its licence does not allow commercial use" if entry.commercial is False else "no licence"
                )
                err.print(f"{name}: {said} ({entry.licence or 'not stated'})", markup=False, soft_wrap=True)
        progress = ShownProgress(err)
        try:
            fetch(store, chosen, progress, workers)
        finally:
            progress.stop()
    out.print(f"store  {shown(store.location)}", markup=False, soft_wrap=True)


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
    with _readable_errors():
        store = ModelStore(models)
        for name in names:
            if name not in known_models() and not (store.folder / name).is_dir():
                store.entry(name)
        store.record(names, random_weights)
        for name in names:
            out.print(f"{store.weights(name)} recorded", markup=False, soft_wrap=True)
