"""Command lines whose `--help` shows every text as it is written."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup


class _Group(TyperGroup):
    """Summaries of the commands are not cut to one line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """One entry a command: the first sentence of its help."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, c.get_short_help_str(10**6)) for name, c in commands if c is not None])


def new_app(help: str | None = None) -> typer.Typer:
    """An app without commands yet. Rich's markup is off: it would swallow `[made/shards]` in a help text."""
    return typer.Typer(
        help=help,
        cls=_Group,
        no_args_is_help=help is not None,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
