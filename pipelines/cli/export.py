"""`interavatar export`: a finished run as files that other tools open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.names import Engine, Tool

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.export.clips import Clips
    from pipelines.export.rows import ExportedRun

# Where the clips of a tool lie below its folder, for those tools that show clips.
CLIPS = {Tool.LABELSTUDIO: "clips", Tool.FIFTYONE: "data"}
NAMED = 10  # clips that could not be written, on the terminal; clips.csv has all


class ClipProgress:
    """Progress over clips.

    Args:
        console: where to print.
    """

    def __init__(self, console: Console) -> None:
        from pipelines.engine.progress import Meter

        self.meter = Meter(console)
        self.total = self.done = 0

    def start(self, total: int, finished: int) -> None:
        """Begin; `finished` of `total` clips are there already."""
        self.total, self.done = total, finished
        if finished:
            self.meter.say(f"{finished} of {total} clips are there already")
        if finished < total:
            self.meter.start("clips", total, finished)

    def update(self, count: int) -> None:
        """So many more."""
        self.done += count
        self.meter.update(self.done, f"{self.done}/{self.total} clips")

    def stop(self) -> None:
        """Take the bar away."""
        self.meter.stop()


def export(
    run: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="Folder of a finished run (its --output); local or any fsspec URL."
        ),
    ],
    tool: Annotated[
        Tool | None, typer.Option("--to", help="The tool that is to open it; needs --output.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="FOLDER", help="Folder for --to; local or any fsspec URL."),
    ] = None,
    clips: Annotated[
        str | None,
        typer.Option(
            "--clips",
            metavar="FOLDER",
            help="Write the clips as MP4 files, with clips.csv. With --to they must lie below --output; "
            "labelstudio and fiftyone always get them (OUTPUT/clips, OUTPUT/data).",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All rows. Default: those that the screen keeps.")
    ] = False,
    engine: Annotated[Engine, typer.Option(help="ray, or inline: one process.")] = "ray",
) -> None:
    """Write a finished run in the form of another tool, its clips as files, or both.

    The same command again writes only the clips that are missing. Clips in an object store or on the web are
    downloaded, one at a time. Of synthetic_interactions the clips are taken.

    Exit status: 0 all is written, 1 some clips could not be written (they are named) or it could not finish,
    2 wrong use.

    Example: interavatar export out --to huggingface --output dataset --clips dataset/clips
    """
    from pipelines.cli.console import err, out, readable_errors

    with readable_errors("interrupted. Clips that are written stay; run the same command again to go on."):
        from pipelines.engine.pipeline import RunError
        from pipelines.engine.signals import sigterm_interrupts
        from pipelines.export.clips import write_clips
        from pipelines.export.rows import open_run

        sigterm_interrupts()
        folder, place, below = _places(tool, output, clips)
        opened = open_run(run, everything)
        if folder is not None and tool is Tool.HUGGINGFACE:
            from pipelines.export.huggingface import check_folder

            check_folder(folder, with_clips=place is not None)  # not after hours of clips
        made: Clips | None = None
        if place is not None:
            progress = ClipProgress(err())
            try:
                made = write_clips(opened, place, engine, progress.start, progress.update)
            finally:
                progress.stop()
            out().print(f"clips     {place}: {len(made.files)} files, {made.written} of them new")
        if folder is not None and tool is not None:
            files = None if made is None else {n: f"{below}/{f}" for n, f in made.files.items()}
            count = _write(tool, opened, folder, files)
            out().print(f"{tool}  {folder}: {count} rows of {opened.record['counts']['ids_out']}")
        if made is not None and made.errors:
            for name, why in list(made.errors.items())[:NAMED]:
                err().print(f"{name}: {why}")
            raise RunError(
                f"{len(made.errors)} clips could not be written, as said above and in {place}/clips.csv; the "
                "same command again tries them again"
            )


def _places(tool: Tool | None, output: str | None, clips: str | None) -> tuple[Path | None, Path | None, str]:
    """The tool's folder, the folder for clips, and this one as a path relative to that.

    Raises:
        InputError: the options do not fit together.
    """
    from manifests.storage import folder_of, is_remote
    from pipelines.engine.source import InputError

    if tool is None and clips is None:
        raise InputError("say what to write: --to TOOL --output FOLDER, --clips FOLDER, or both")
    if (tool is None) != (output is None):
        raise InputError("--to and --output belong together: --to TOOL --output FOLDER")

    def placed(address: str) -> Path:
        folder = folder_of(address)
        return folder if is_remote(folder) else folder.absolute()  # workers may run elsewhere

    folder = None if output is None else placed(output)
    if clips is None and folder is not None and tool in CLIPS:
        return folder, folder / CLIPS[tool], CLIPS[tool]
    if clips is None:
        return folder, None, ""
    place = placed(clips)
    if folder is None or tool is None:
        return None, place, ""
    if tool is Tool.CROISSANT:
        raise InputError("croissant describes rows, no clips: leave --clips out, or give it without --to")
    within = folder / CLIPS.get(tool, "clips")
    if tool is Tool.FIFTYONE and place != within:
        raise InputError(f"fiftyone looks for clips in {within}: leave --clips out")
    if folder not in place.parents:
        raise InputError(f"--clips {clips} must lie below --output {output}: give --clips {within}")
    return folder, place, place.relative_to(folder).as_posix()


def _write(tool: Tool, run: ExportedRun, folder: Path, clips: dict[str, str] | None) -> int:
    if tool is Tool.HUGGINGFACE:
        from pipelines.export.huggingface import write_huggingface

        return write_huggingface(run, folder, clips)
    if tool is Tool.CROISSANT:
        from pipelines.export.croissant import write_croissant

        return write_croissant(run, folder)
    assert clips is not None  # `_places` has made sure
    if tool is Tool.LABELSTUDIO:
        from pipelines.export.labelstudio import write_labelstudio

        return write_labelstudio(run, folder, clips)
    from pipelines.export.fiftyone import write_fiftyone

    return write_fiftyone(run, folder, clips)
