"""docs/notebook.ipynb runs from its first cell to its last on a run of small clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

import interavatar as ia
from tests.conftest import ROOT
from tests.docs.sandbox import astronaut
from tests.support.clips import ffmpeg, make_clip

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of the same media: a face that moves, a dark test picture, a file that is no video."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "videos").mkdir()
    move = "scale=340:340,crop=320:320:x=t*8:y=0,format=yuv420p"
    person = folder / "videos" / "a_person.mp4"
    ffmpeg("-loop", "1", "-i", astronaut(), "-t", "3", "-r", "10", "-vf", move, person)
    dark = ("-vf", "eq=brightness=-0.3")
    make_clip(folder / "videos" / "clip.mp4", seconds=2, size="160x120", options=dark)
    (folder / "videos" / "broken.mp4").write_bytes(b"no video")
    strict = ia.load_screen("visual").with_rule("dim", "luminance", min=250)
    for name, screen in (("one", ia.load_screen("visual").changed("frozen", max=1)), ("other", strict)):
        options: dict[str, Any] = {"engine": "inline", "progress": False, "screen": screen}
        ia.run("talking_head", input=folder / "videos", output=folder / name, **options)
    return folder / "one", folder / "other"


def executed(monkeypatch: pytest.MonkeyPatch, **environment: Path) -> Any:
    for name in ("INTERAVATAR_RUN", "INTERAVATAR_OTHER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    return book


def outputs(book: Any) -> Iterator[Any]:
    return (output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs)


def shown(book: Any) -> str:
    """All that it shows as text."""
    return "\n".join(
        output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs(book)
    )


@pytest.mark.slow
def test_the_notebook_shows_a_run(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    book = executed(monkeypatch, INTERAVATAR_RUN=runs[0])
    rows = ia.read_manifest(runs[0])
    assert rows.keep.sum() == 1
    finished = int((rows.error.isna() & rows.stopped.isna()).sum())
    data = [output.data for output in outputs(book) if "data" in output]
    assert sum("image/png" in each for each in data) == 2
    videos = [each["text/html"] for each in data if "<video" in each.get("text/html", "")]
    assert len(videos) == min(2, finished) > 0 and all("data:video/mp4;base64," in each for each in videos)
    funnel = f"{{'listed': 3, 'no error': 2, 'to the end': {finished}, 'kept': {int(rows.keep.sum())}}}"
    assert funnel in shown(book)


@pytest.mark.slow
def test_the_notebook_compares_two_runs(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    book = executed(monkeypatch, INTERAVATAR_RUN=runs[0], INTERAVATAR_OTHER=runs[1])
    one, other = map(ia.read_manifest, runs)
    both = one.merge(other, on="sample_id", suffixes=("", "_other"))
    assert str(pd.crosstab(both.keep, both.keep_other)) in shown(book)
    changed = both[both.keep != both.keep_other]
    assert len(changed) == 1 and changed.sample_id.iloc[0] in shown(book)


def test_the_notebook_is_committed_without_outputs() -> None:
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    assert not list(outputs(book))
    assert all(cell.execution_count is None for cell in book.cells if cell.cell_type == "code")
    assert set(book.metadata) == {"kernelspec", "language_info"}
    assert book.metadata.kernelspec.name == "python3"
