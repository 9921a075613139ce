"""`interavatar evaluate`: measure clips, or ask people about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pipelines.cli.names import Engine, profiles
from pipelines.cli.typer_app import new_app

if TYPE_CHECKING:
    from pipelines.evaluation.results import Results
