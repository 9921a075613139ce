"""`interavatar evaluate study` and `interavatar evaluate votes`: clips of methods, blind before people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def study(
    methods: Annotated[
        list[str],
        typer.Argument(
            metavar="METHOD...",
            help="Folders of clips, each FOLDER or NAME=FOLDER; a clip's name is its file's.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE.html", help="The page; its clips lie in FILE_files/.")
    ],
    questions: Annotated[
        list[str] | None,
        typer.Option(
            "--question",
            help="What is asked of each pair; may be repeated, up to nine times. Default: whose movement is "
            "more natural, whose lips fit better, and which clip is better altogether.",
        ),
    ] = None,
    clips: Annotated[
        int | None, typer.Option("--clips", min=1, help="So many clips, drawn. Default: all.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Of order, sides and names; another seed, another page.")
    ] = 0,
) -> None:
    """Write a page on which people compare clips of methods without knowing whose they are.

    Give raters FILE.html and FILE_files/ alone: FILE_key.json says whose clips they are. They save their
    answers as a CSV and send it; `interavatar evaluate votes` counts. Clips that a method lacks are named and
    left out.

    Exit status: 0 written, 1 it could not be written, 2 wrong use.

    Example: interavatar evaluate study ours=out/clips sadtalker=other/ --output page.html --clips 50
    """
    from pipelines.cli.console import err, out, readable_errors, warn

    with readable_errors("interrupted; nothing was written"):
        from pipelines.engine.progress import counting
        from pipelines.engine.signals import sigterm_interrupts
        from pipelines.evaluation.study import QUESTIONS, write_study

        sigterm_interrupts()
        with counting(err(), "clips") as told:
            made = write_study(methods, output, questions or QUESTIONS, seed, clips, told)
        for line in made.left_out:
            warn(line)
        pairs = len(made.key.comparisons)
        out().print(f"page      {made.page}: {pairs} pairs, {len(made.key.questions)} questions of each")
        out().print(f"key       {made.key_file}: keep it from raters")


def votes(
    key: Annotated[Path, typer.Argument(metavar="KEY", help="The study's FILE_key.json.")],
    answers: Annotated[list[Path], typer.Argument(metavar="ANSWERS.csv...", help="What raters saved.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write it as .md or .csv, too; local."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws of the intervals.")] = 0,
) -> None:
    """Count the answers of a study: how often each method was preferred, with 95 % intervals.

    The intervals draw clips and raters anew. Answers of another study are refused; of a rater's answers to
    the same question the last one counts.

    Exit status: 0 counted, 1 a file cannot be read, 2 wrong use.

    Example: interavatar evaluate votes page_key.json answers-*.csv --output votes.md
    """
    from pipelines.cli.console import out, readable_errors

    with readable_errors():
        from manifests import storage
        from pipelines.evaluation.study_key import StudyError, read_key
        from pipelines.evaluation.votes import count_votes
        from pipelines.evaluation.votes_text import as_csv, markdown

        if output is not None and output.suffix.lower() not in (".md", ".csv"):
            raise StudyError(f"--output {output}: an .md or a .csv")
        counted = count_votes(read_key(key), answers, seed)
        out().print(markdown(counted), end="")
        if output is not None:
            text = as_csv(counted) if output.suffix.lower() == ".csv" else markdown(counted)
            storage.write_bytes(output, text.encode("utf-8", "replace"))
            out().print(f"\nwritten   {output}")
