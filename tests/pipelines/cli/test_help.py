"""`--help` shows every text of every command whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pipelines.cli import app as cli
from pipelines.cli import demo
from pipelines.cli.typer_app import new_app

BOX = str.maketrans("", "", "─│╭╮╰╯")


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it, with the words that lead there."""
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*words, name))


ALL = dict(commands(typer.main.get_command(cli.app)))


def plain(text: str) -> str:
    """Without blanks, line breaks and boxes."""
    return "".join(text.translate(BOX).split())


def shown(app: typer.Typer, *words: str, columns: int = 80) -> str:
    done = CliRunner(env={"COLUMNS": str(columns), "TERMINAL_WIDTH": str(columns)}).invoke(
        app, [*words, "--help"]
    )
    assert done.exit_code == 0, done.output
    return plain(done.output)


def texts(command: Any) -> Iterator[str]:
    yield command.help
    for parameter in command.params:
        yield parameter.help
        if parameter.metavar:
            yield parameter.metavar
    for below in getattr(command, "commands", {}).values():
        yield below.help.split("\n\n")[0].partition(". ")[0]


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_the_help_shows_every_text_whole(words: tuple[str, ...], columns: int) -> None:
    said = shown(cli.app, *words, columns=columns)
    for text in texts(ALL[words]):
        assert plain(text) in said, text


def test_what_looks_like_markup_is_shown() -> None:
    app = new_app("All [of] it.")

    @app.command()
    def one(
        path: str = typer.Option("[x/y]", help="Such as [made/shards], [bold]not bold[/bold], :smile:."),
    ) -> None:
        """Give [made/shards] or [/red]."""

    @app.command()
    def two() -> None:
        """Nothing."""

    assert "All[of]it." in shown(app) and "Give[made/shards]or[/red]." in shown(app)
    said = shown(app, "one")
    assert "Give[made/shards]or[/red]." in said and "[default:[x/y]]" in said
    assert "Suchas[made/shards],[bold]notbold[/bold],:smile:." in said


def test_the_demo_and_its_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli.demo", "--help"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and plain(demo.demo.__doc__ or "") in plain(done.stdout)
