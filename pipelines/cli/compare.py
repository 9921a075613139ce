"""`interavatar compare`: two runs side by side."""

from __future__ import annotations

from typing import Annotated

import typer


def compare(
    a: Annotated[str, typer.Argument(metavar="RUN_A", help="Folder of a run (its --output).")],
    b: Annotated[str, typer.Argument(metavar="RUN_B", help="Folder of another run over the same media.")],
    page: Annotated[
        str | None,
        typer.Option("--page", metavar="FILE.html", help="Write it as a page, too; local or any fsspec URL."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    samples: Annotated[
        int,
        typer.Option(
            "--samples", min=0, help="How many samples of each kind the page and the JSON object name."
        ),
    ] = 100,
) -> None:
    """Say what differs between two runs, and why: samples, verdicts, scores, errors, settings and versions.

    Samples are matched by sample_id. Of each verdict that changed it says whether the scores, the rules or
    both changed it: the scores of each run are judged by the rules of the other. Scores are sorted by how
    much they shifted: the difference of the means by the standard deviation of RUN_A. Of two folders of
    synthetic_interactions the steps of the same name are compared. docs/compare.md says what is meant by each
    figure.

    Exit status: 0 compared, 1 a run is damaged, 2 wrong use.

    Example: interavatar compare out/ out2/ --page compared.html
    """
    from pipelines.cli.console import out, readable_errors

    with readable_errors():
        from json import dumps

        from manifests.storage import folder_of, written
        from pipelines.compare.compare import compare_runs, steps
        from pipelines.compare.page import write_page
        from pipelines.compare.text import lines

        target = folder_of(page) if page is not None else None
        found = {
            name: compare_runs(one, other, samples) for name, one, other in steps(folder_of(a), folder_of(b))
        }
        if json:
            figures = [{"step": name} | one.figures(samples) for name, one in found.items()]
            out().print(dumps({"comparisons": figures}, indent=1))
        for name, one in found.items() if not json else ():
            if name:
                out().print(f"== {name}")
            for line in lines(one):
                out().print(line)
        if target is not None:
            with written(target.parent):
                write_page(found, target, samples)
            if not json:
                out().print(f"\npage      {target}")
