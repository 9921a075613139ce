"""A run with real media of several kinds to be reviewed, and its server in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from PIL import Image

from manifests import store
from pipelines.review.report import write_report
from pipelines.review.server import Guard, listening, serving
from pipelines.review.site import Site
from tests.support.clips import make_clip
from tests.support.helpers import execute, toy_stages

TOKEN = "a-token-of-the-tests"


def make_media(folder: Path) -> Path:
    """A list of a clip, a range of it, one in Matroska, pictures, a text, and a file that is not there."""
    folder.mkdir(parents=True)
    make_clip(folder / "clip.mp4", seconds=3)
    make_clip(folder / "other.mkv", seconds=2)
    (folder / "text.mp4").write_text("root:x:0:0")
    picture = Image.linear_gradient("L").convert("RGB")
    for name in ("picture.png", "picture.tif"):
        picture.save(folder / name)
    files = ["clip.mp4", "clip.mp4", "other.mkv", "text.mp4", "picture.png", "picture.tif", "gone.mp4"]
    rows = pd.DataFrame(
        {"uri": files, "start_s": [None, 1.0, *[None] * 5], "end_s": [None, 2.0, *[None] * 5]}
    )
    rows.to_csv(folder / "list.csv", index=False)
    return folder / "list.csv"


def make_reviewed_run(media: Path, run: Path) -> Path:
    """A finished run over such a list."""
    execute(toy_stages(), media, run)
    write_report(run)
    return run


def ids_of(run: Path) -> dict[str, str]:
    """Name of the file -> id of its sample; of the range `range`."""
    rows = store.read(run / "manifest", ["sample_id", "source_uri", "start_s"]).to_pylist()
    return {
        "range" if row["start_s"] else row["source_uri"].rpartition("/")[2]: row["sample_id"] for row in rows
    }


@contextmanager
def served(run: Path, copies: Path) -> Iterator[str]:
    """The address of the run's page while it is served."""
    copies.mkdir(parents=True, exist_ok=True)
    app = Guard(Site(run, copies, "Ada").app(), TOKEN, ["reviews.example.org"])
    with listening("127.0.0.1", 0) as at:
        server = serving(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [at]})
        thread.start()  # it listens already: who comes early waits
        try:
            yield f"http://127.0.0.1:{at.getsockname()[1]}/{TOKEN}/"
        finally:
            server.should_exit = True
            thread.join()
