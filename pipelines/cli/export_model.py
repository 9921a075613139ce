"""`interavatar export-model`: a checkpoint as a pipeline of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.names import Dtype


def export_model(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", help="A checkpoint, or the output of a training run: its newest."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder to make.")],
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Of the network's weights.")] = "float32",
    model: Annotated[
        Path | None,
        typer.Option("--model", help="The diffusers checkpoint that training began with, if it has moved."),
    ] = None,
) -> None:
    """Write a checkpoint as a folder that diffusers loads, with the encoders and a card.

    DIR/transformer is diffusers' own class, DIR/adapters has the new layers. `interavatar sample --checkpoint
    DIR` samples from it, and `init: DIR` trains it further; in float32 both give the same as the checkpoint.

    Exit status: 0 written, 1 it could not be written, 2 wrong use.

    Example: interavatar export-model training/wan_stage2 --output interavatar-wan --dtype bfloat16
    """
    from pipelines.cli.console import out, readable_errors

    with readable_errors("interrupted; nothing was written", "pip install 'interavatar[train]'"):
        import torch

        from trainer import export

        export.export_model(checkpoint, output, getattr(torch, dtype), model)
        size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
        out().print(f"{output}: {size / 1e9:.2f} GB")
