"""`interavatar repair`: a damaged run's folder is put in order."""

from __future__ import annotations

from typing import Annotated

import typer


def repair(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a run (its --output).")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is wrong and what would be done; change nothing.")
    ] = False,
    arrays: Annotated[
        bool, typer.Option("--arrays", help="Also read the arrays of every row, which takes long.")
    ] = False,
) -> None:
    """Put a run's folder in order after a disk, a copy or a person has damaged it.

    Looks for manifest files and committed parts that cannot be read, Parquet files that are not the
    manifest's own (backup copies), rows that are doubled or without an id, a screen that was cut short, a
    damaged run.json, damaged reviews and half-written files. What is damaged is moved to DIR/quarantine/,
    never deleted; of doubled rows the newest stays; run.json comes back from runs/; committed rows are
    merged. Rows that are lost are counted: the `interavatar run` of before, given again, computes them and
    only them. So it does with arrays that --arrays finds damaged or missing: their rows are named and marked.

    Exit status: 0 all is well or was mended, 1 something is still wrong (with --dry-run: something was
    found), 2 wrong use.

    Example: interavatar repair out/ --dry-run
    """
    from pipelines.cli.console import out, readable_errors

    with readable_errors():
        from manifests.storage import folder_of
        from pipelines.catalogue import STEPS
        from pipelines.engine.repair import Repair, is_run

        place = folder_of(folder)
        below = [place / name for steps in STEPS.values() for name in steps]
        runs = [] if is_run(place) else [step for step in below if is_run(step)]
        is_well = True
        for run in runs or [place]:
            findings = Repair(run, not dry_run, arrays).execute()
            for found in findings:
                done = f"would be {found.done}" if dry_run and found.done else found.done
                out().print(f"{found.what}: {'; '.join(said for said in (done, found.then) if said)}")
            is_well = is_well and not any(dry_run or not found.is_mended for found in findings)
            out().print(f"{run}: {_summary(len(findings), dry_run)}")
        if not is_well:
            raise typer.Exit(1)


def _summary(count: int, dry_run: bool) -> str:
    if not count:
        return "nothing is damaged"
    return f"{count} found{'; nothing was changed' if dry_run else ''}"
