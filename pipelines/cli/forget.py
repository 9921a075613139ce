"""`interavatar forget`: samples of a person, a source or a list leave runs and shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.collection.forget import Wanted
    from pipelines.collection.forget_run import Removed


def forget(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Folders of runs (their --output), local or any fsspec URL."),
    ],
    person: Annotated[
        list[str] | None, typer.Option("--person", metavar="ID", help="A `person_id`; may be repeated.")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option("--source", metavar="NAME", help="A `source`; may be repeated.")
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            "--list",
            metavar="FILE",
            help="A .csv, .tsv, .jsonl or .parquet with a column sample_id, source_uri or uri, or a text "
            "with one id, path or URL a line.",
        ),
    ] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="A `sample_id`, or a `source_uri`; may be repeated."),
    ] = None,
    shards: Annotated[
        list[str] | None,
        typer.Option("--shards", metavar="DIR", help="Shards made of these runs; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed; change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before anything is removed.")] = False,
    print_media: Annotated[
        bool, typer.Option("--print-media", help="Name the source media of the samples, a line each.")
    ] = False,
) -> None:
    """Remove samples from runs and shards, and all that names or shows them; it cannot be undone.

    Rows, arrays, media that the run made, pictures of the report, reviews, answers of language models, and
    records that name a sample go; shards of --shards are written anew. What stays is RUN/forgotten.parquet,
    salted hashes by which the next run over the same input leaves these samples out. Your own media are not
    touched: --print-media names them. Killed on the way, give the command again. Without --person, --source,
    --list and --id it removes from --shards what the runs have forgotten before.

    docs/consent.md says what else may hold a copy: exports, latents, checkpoints, backups.

    Example: interavatar forget out/ --person 3fd1c02a --shards shards/
    """
    from pipelines.cli.console import err, out, readable_errors

    with readable_errors("interrupted; give the same command again: it goes on where it stood"):
        from manifests import forgotten
        from manifests.storage import folder_of
        from pipelines.collection.forget import Wanted, copies_left, find, read_names, runs_at
        from pipelines.collection.forget_run import forget_in_run
        from pipelines.collection.forget_shards import forget_in_shards, held_in
        from pipelines.engine.source import InputError

        named = frozenset(sample or ()) | (read_names(names) if names else frozenset())
        wanted = Wanted(frozenset(person or ()), frozenset(source or ()), named)
        if not wanted and not shards:
            raise InputError("say what to forget: --person, --source, --list or --id")
        folders = [run for address in runs for run in runs_at(folder_of(address))]
        found = find(folders, wanted)
        places = [folder_of(address) for address in shards or ()]
        planned = {run: forget_in_run(run, found, writes=False) for run in folders}
        known = [
            forgotten.read(run).with_samples(row for table in found.values() for row in table.to_pylist())
            for run in folders
        ]
        in_shards = {place: held_in(place, known) for place in places}
        for line in _plan_lines(planned, found, wanted):
            out().print(line)
        for place, held in in_shards.items():
            out().print(f"{place}: {_of_shards(held.samples, held.names)}")
        if copies := copies_left(folders, found):
            out().print(f"{copies} rows that stay are copies of these: name them too if they show the same")
        if print_media:
            for uri in _media(found):
                out().print(uri, soft_wrap=True)
        nothing = not any(removed.counts.total() for removed in planned.values())
        if dry_run or (nothing and not any(held.samples for held in in_shards.values())):
            return
        if not yes:
            _ask()
        for run in folders:
            removed = forget_in_run(run, found)
            for path in removed.others:
                err().print(f"{path} names a forgotten sample and is not this program's: see to it yourself")
        for place in places:
            forget_in_shards(place, [forgotten.read(run) for run in folders])
        out().print("forgotten")
        if not places:
            out().print("shards that were made of these runs still hold them: name each with --shards")


def _plan_lines(planned: dict[Path, Removed], found: dict[Path, pa.Table], wanted: Wanted) -> Sequence[str]:
    lines = []
    for run, removed in planned.items():
        counts = [f"{count} {what}" for what, count in removed.counts.items() if count]
        nothing = "nothing of it is here" if wanted else "nothing is left to remove"
        lines.append(f"{run}: {'; '.join(counts) or nothing}")
    if media := _media(found):
        lines.append(f"{len(media)} source media are yours and stay where they are (--print-media)")
    return lines


def _media(found: dict[Path, pa.Table]) -> Sequence[str]:
    return sorted({uri for table in found.values() for uri in table["source_uri"].to_pylist() if uri})


def _of_shards(samples: int, names: Sequence[str]) -> str:
    if not samples:
        return "no sample of these"
    return f"{samples} samples; to be written anew: {', '.join(names) or 'the index alone'}"


def _ask() -> None:
    """Ask whether to go on.

    Raises:
        InputError: nobody can be asked.
    """
    import sys

    from pipelines.engine.source import InputError

    if not sys.stdin.isatty():
        raise InputError("nothing was removed: there is no terminal to ask in; --yes removes without asking")
    typer.confirm("Remove all this? It cannot be undone.", abort=True)
