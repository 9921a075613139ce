"""What becomes of samples when a process, or its GPU, is lost under several of them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipelines.engine.attempts import ATTEMPTS, Death, attempt
from pipelines.engine.pipeline import RunError
from pipelines.engine.run import Run
from pipelines.engine.worker import is_device_lost
from stages.clip import Clip
from stages.contract import Column, Stage
from tests.support.helpers import execute, make_files, make_run, manifest, quiet
from tests.support.toys import Length


class Device(Stage):
    """Loses its GPU on one clip, while a file exists."""

    broken: ClassVar[Path] = Path("/nowhere")
    writes: ClassVar = {"device": Column("string", "", "Where it ran.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        if self.broken.exists() and clip["source_uri"].endswith("clip0005.mp4"):
            raise RuntimeError("CUDA error: device-side assert triggered")
        return {"device": "gpu"}


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: out of memory"), False),
        (ValueError("cannot square clip"), False),
        (type("EngineDeadError", (Exception,), {})("the engine died"), True),
    ],
)
def test_a_lost_device_is_told_from_a_failing_sample(error: Exception, lost: bool) -> None:
    assert is_device_lost(error) is lost


def test_a_lost_gpu_makes_no_sample_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends instead of writing an error on everything that comes after; the next one goes on."""
    files, mark = make_files(tmp_path / "in", 8), tmp_path / "broken"
    mark.touch()
    monkeypatch.setattr(Device, "broken", mark)
    run: Run = make_run([Length(), Device()], files, tmp_path / "out")
    with pytest.raises(RunError, match="device: CUDA error: device-side assert triggered"):
        run.execute(quiet())
    assert len(manifest(tmp_path / "out")) == 4  # the part that was finished
    mark.unlink()
    record = execute([Length(), Device()], files, tmp_path / "out")
    assert record["counts"]["ids_out"] == 8 and record["counts"]["computed"] == 4
    rows = manifest(tmp_path / "out")
    assert rows["error"].isna().all() and set(rows["device"]) == {"gpu"}


def test_samples_that_a_process_died_on_are_tried_one_at_a_time(tmp_path: Path) -> None:
    """A death counts against all samples in hand; tried alone, only the one to blame dies again."""
    notes = tmp_path / ATTEMPTS
    notes.mkdir()
    for name in ("poison", "innocent"):
        (notes / name).write_text("run-1 decode")
    began = threading.Event()

    def other() -> None:
        with attempt(tmp_path, "innocent", "run-2") as note:
            assert note.deaths == [Death("decode", False)]
            began.set()

    with attempt(tmp_path, "fresh", "run-2"):  # has no death: waits for nobody
        with attempt(tmp_path, "poison", "run-2"):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join(0.5)
            assert thread.is_alive() and not began.is_set()
            assert (notes / "innocent").read_text() == "run-1 decode"  # its second attempt has not begun
        thread.join(30)
        assert began.is_set()
    assert list(notes.iterdir()) == []
