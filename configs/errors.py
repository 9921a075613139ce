"""Errors that the user can put right: each command shows their message and ends with their exit code."""

from __future__ import annotations

from typing import ClassVar


class UserError(Exception):
    """What the user can put right; the message says what and how."""

    exit_code: ClassVar[int] = 1


class UsageError(UserError):
    """Wrong use: a setting, a name or an input that does not exist or does not fit."""

    exit_code: ClassVar[int] = 2
