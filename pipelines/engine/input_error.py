"""The error of an input that cannot be listed."""

from __future__ import annotations

from configs.errors import UsageError


class InputError(UsageError):
    """The input cannot be listed; the message names it and the way out."""
