"""Reading and filling in a prompt."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """Base of every answer's schema: unknown keys are errors, every key must be given."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Prompt:
    """`prompts/<name>.md`, with `$placeholders`, and the schema of its answer.

    Attributes:
        name: of the file, without its ending.
        answer: what an answer must be; a model made per question (see `reactions.py`) derives from it.
        own_text: of the user, in place of the file; None: the file.
    """

    name: str
    answer: type[BaseModel]
    own_text: str | None = None

    @property
    def text(self) -> str:
        """The user's text, or the file as it is."""
        return _read(self.name) if self.own_text is None else self.own_text

    def with_text(self, text: str) -> Prompt:
        """The same question in other words.

        Raises:
            ValueError: its placeholders are not those of the file.
        """
        wanted, given = (set(Template(t).get_identifiers()) for t in (_read(self.name), text))
        for which, names in (
            ("has no placeholder", wanted - given),
            ("has an unknown placeholder", given - wanted),
        ):
            if names:
                raise ValueError(f"{self.name}.md {which} {', '.join(f'${n}' for n in sorted(names))}")
        return replace(self, own_text=text)

    @cached_property
    def hash(self) -> str:
        """16 hex digits of text and schema; part of the fingerprint of each stage that asks it."""
        said = [self.text, self.answer.model_json_schema()]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    def fill(self, **values: Any) -> str:
        """The prompt with its placeholders replaced, once: a `$name` inside a value stays as it is.

        Raises:
            KeyError: a placeholder got no value.
            ValueError: a value has no placeholder.
        """
        template = Template(self.text)
        if unknown := set(values) - set(template.get_identifiers()):
            raise ValueError(f"{self.name}.md has no placeholder {', '.join(sorted(unknown))}")
        return template.substitute(values).strip()


def quoted(text: str) -> str:
    """Foreign text (a caption, words on the screen) as one JSON string, so that it cannot pose as prompt."""
    line = json.dumps(text, ensure_ascii=False)
    for separator in ("\x85", "\u2028", "\u2029"):  # JSON leaves these line ends as they are
        line = line.replace(separator, f"\\u{ord(separator):04x}")
    return line


@cache
def _read(name: str) -> str:
    return (resources.files("prompts") / f"{name}.md").read_text(encoding="utf-8")


def own_texts(folder: Path) -> dict[str, str]:
    """The prompts in a user's folder, by name.

    Raises:
        OSError: the folder or a file cannot be read.
        ValueError: a file is named as none of ours, or is not UTF-8.
    """
    known = sorted(
        p.name.removesuffix(".md") for p in resources.files("prompts").iterdir() if p.name.endswith(".md")
    )
    texts: dict[str, str] = {}
    for file in sorted(p for p in folder.iterdir() if p.suffix == ".md"):
        if file.stem not in known:
            raise ValueError(f"there is no prompt {file.stem}; there are: {', '.join(known)}")
        try:
            texts[file.stem] = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{file.name} is not UTF-8") from None
    return texts
