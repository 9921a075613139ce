"""Settings given in Python as `--set` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def overrides(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Nested or dotted settings as `key=value`: `{"quality": {"fps": 4}}` and `{"quality.fps": 4}` alike.

    Two ways of saying the same may stand beside each other; the last value of a key counts.
    """
    said: list[str] = []
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            said += overrides(value, f"{key}.")
        else:
            said.append(f"{key}={_text(value)}")
    return said


def _text(value: Any) -> str:
    """YAML on one line."""
    plain = list(value) if isinstance(value, tuple | set | frozenset) else value
    if plain is not None and not isinstance(plain, bool | int | float | str | list):
        plain = str(plain)  # a path
    return yaml.safe_dump(plain, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
