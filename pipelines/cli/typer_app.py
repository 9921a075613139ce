"""Command lines whose `--help` shows every text as it is written, under headings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from manifests.text import printable, public_message


class _Group(TyperGroup):
    """Commands under the headings given as `rich_help_panel`; their summaries are not cut to one line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """One entry a command: the first sentence of its help."""
        headings: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            heading = getattr(command, "rich_help_panel", None)
            headings.setdefault(heading if isinstance(heading, str) else "Commands", []).append(
                (name, command.get_short_help_str(10**6))
            )
        for heading, entries in headings.items():
            with formatter.section(heading):
                formatter.write_dl(entries)

    def make_context(self, *args: Any, **options: Any) -> Any:
        """As typer's; what is wrong with the group's own options is said without secrets."""
        with _public_usage_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """As typer's; what is wrong with a command's words is said without secrets."""
        with _public_usage_errors():
            return super().invoke(ctx)


class _DefaultGroup(_Group):
    """A group whose first command need not be named: `evaluate DIR` is `evaluate measure DIR`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer's, with the first command's name in front of words that begin with no command."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)


@contextmanager
def _public_usage_errors() -> Iterator[None]:
    try:
        yield
    except typer.TyperException as error:
        error.message = printable(public_message(error.message))
        raise


def new_app(help: str | None = None, completion: bool = False, has_default: bool = False) -> typer.Typer:
    """An app without commands yet. Rich's markup is off: it would swallow `[made/shards]` in a help text.

    Args:
        help: what it is for; without it the app is that of one command.
        completion: whether it has --install-completion and --show-completion.
        has_default: its first command is meant where none is named.
    """
    return typer.Typer(
        help=help,
        cls=_DefaultGroup if has_default else _Group,
        no_args_is_help=help is not None,
        add_completion=completion,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
