"""Curate a folder of videos: what is kept, what fell and why, and shards of the rest.

python examples/curate_folder.py /your/videos out

It runs talking_head on the laptop profile, in this process, and judges by the screen beside this file.
The same command again goes on where it stood; after a change of the screen it only judges again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

import interavatar as ia
from pipelines.shards.plan import make_plan, open_runs
from pipelines.shards.write import write_shards

SCREEN = Path(__file__).with_name("clear_faces.yaml")
SHARD_BYTES = 500_000_000


def curate(videos: str, folder: Path) -> pd.DataFrame:
    """Score and judge every clip; long videos are cut into shots first. One row is one clip."""
    return ia.run("talking_head", input=videos, output=folder, screen=str(SCREEN), settings={"split": True})


def show(clips: pd.DataFrame) -> None:
    """Print how many fell for each reason, and which."""
    dropped = clips[~clips.keep]
    print(f"{clips.keep.sum()} of {len(clips)} clips are kept")
    print(dropped.drop_reasons.explode().value_counts().to_string())
    for clip in dropped.itertuples():
        print(f"{clip.source_uri}: {', '.join(clip.drop_reasons)}")


def main(videos: str, output: str) -> None:
    """Curate, show, and write shards of what is kept."""
    folder = Path(output)
    clips = curate(videos, folder / "run")
    show(clips)
    if clips.keep.any():
        plan = make_plan(open_runs([str(folder / "run")], weights={}, allow_preview=False), SHARD_BYTES)
        index = write_shards(plan, folder / "shards", engine="inline")
        print(f"{index['samples']} clips in {index['shards']} shards: {folder / 'shards'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
