"""`interavatar benchmark`: test cases that generated clips are measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.names import SOURCES
from pipelines.cli.typer_app import new_app

app = new_app("Test cases that generated clips are measured on.")


@app.callback()
def _group() -> None:
    """Keeps the command's name where there is one alone; the app has its help."""


@app.command()
def talking(
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            help="Where the clips come from; may be repeated. NAME:DIR, the folder of a data set (NAME is "
            f"one of {', '.join(SOURCES)}), or a folder, a glob or a list as `interavatar run` takes them.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", metavar="DIR", help="Folder of the test set: cases.jsonl, real/, images/, audio/."
        ),
    ],
    sample: Annotated[int, typer.Option("--sample", min=1, help="Cases of each input.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw; another seed, other clips.")] = 0,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", help="Of all cases. Default: InterAvatar's, the person is talking."),
    ] = None,
    min_seconds: Annotated[
        float, typer.Option("--min-seconds", min=0, help="Shorter clips are passed over.")
    ] = 1.0,
    max_seconds: Annotated[
        float | None,
        typer.Option("--max-seconds", min=0.1, help="Only the beginning of each clip. Default: all of it."),
    ] = None,
) -> None:
    """Draw clips of real data sets and write what avatars are tested with: a picture, a recording, the truth.

    The draw hangs on each clip's id and the seed alone, so it stays when files are added. Clips without
    sound, silent or sung ones are passed over, and another one is drawn in the place of one that cannot be
    read; both are said. The same command again goes on where it stopped.

    Exit status: 0 written, with fewer cases where there are no more (it is said); 1 it could not finish, 2
    wrong use.

    Example: interavatar benchmark talking --input hdtf:HDTF --input ravdess:RAVDESS --output test
    """
    from pipelines.cli.console import err, out, readable_errors, warn

    with readable_errors("interrupted; cases that are made stay, the same command goes on"):
        from pipelines.engine.progress import counting
        from pipelines.engine.signals import sigterm_interrupts
        from pipelines.evaluation.cases import LIST, PROMPT
        from pipelines.evaluation.make_cases import TestSet, make_cases

        sigterm_interrupts()
        asked = TestSet(
            inputs=inputs,
            sample=sample,
            seed=seed,
            prompt=PROMPT if prompt is None else prompt,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
        )
        with counting(err(), "test cases") as told:
            made = make_cases(asked, output, told=told)
        for note in made.notes:
            warn(note)
        out().print(f"{output / LIST}: {len(made.cases)} cases, {made.new} of them new")
