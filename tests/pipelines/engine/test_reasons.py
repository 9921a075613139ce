"""A run says why each stage is due before it computes anything."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.engine.progress import Progress
from pipelines.engine.reasons import changed
from pipelines.engine.run import Run
from pipelines.estimate.earlier_runs import work_left
from stages.contract import Stage
from tests.support.helpers import make_files, make_run
from tests.support.toys import Length, Root, Square


def stages(length: int = 0, **square: Any) -> list[Stage]:
    return [
        Length(config=Length.Config(add=length)),
        Square(config=Square.Config(**square)),
        Root(),
    ]


def reasons_of(run: Run) -> list[str]:
    """What the run says; `plan` says the same."""
    planned = work_left(run.program(), run.listing, run.folder).reasons
    sink = io.StringIO()
    run.execute(Progress(Console(file=sink, width=300)))
    said = [line for line in sink.getvalue().splitlines() if line.startswith("due, ")]
    assert planned == said
    return said


def test_new_samples_alone_need_no_reason(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 3)
    assert reasons_of(make_run(stages(), files, tmp_path / "out")) == []
    assert reasons_of(make_run(stages(), files, tmp_path / "out")) == []


def test_a_changed_setting_is_named_with_what_follows_from_it(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 3)
    make_run(stages(), files, tmp_path / "out", limit=2).execute(Progress(Console(file=io.StringIO())))
    assert reasons_of(make_run(stages(length=5), files, tmp_path / "out")) == [
        "due, length.add 0 -> 5: length (2)",
        "due, new samples: length, square, root (1)",
        "due, something that it reads is computed anew: square, root (2)",
    ]
    assert reasons_of(make_run(stages(), files, tmp_path / "out"))[0] == "due, length.add 5 -> 0: length (3)"


def test_a_run_that_was_cut_short_is_compared_with_too(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 2)
    make_run(stages(length=1), files, tmp_path / "out").execute(Progress(Console(file=io.StringIO())))
    (record,) = (tmp_path / "out" / "runs").iterdir()
    before = json.loads(record.read_text())
    del before["stages"]
    record.write_text(json.dumps(before))
    assert reasons_of(make_run(stages(), files, tmp_path / "out"))[0] == "due, length.add 1 -> 0: length (2)"
    for record in (tmp_path / "out" / "runs").iterdir():
        record.unlink()
    assert reasons_of(make_run(stages(length=2), files, tmp_path / "out"))[0].startswith(
        "due, computed by a run whose record is gone: length, square, root (2)"
    )


def test_errors_and_other_files_are_named(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 3)
    broken = stages(raise_on="clip0001.mp4")
    make_run(broken, files, tmp_path / "out").execute(Progress(Console(file=io.StringIO())))
    assert reasons_of(make_run(broken, files, tmp_path / "out")) == []
    (files / "clip0000.mp4").write_bytes(b"another size")
    assert reasons_of(make_run(broken, files, tmp_path / "out")) == [
        "due, the file or the input list changed: length, square, root (1)"
    ]
    assert reasons_of(make_run(stages(), files, tmp_path / "out")) == [
        'due, square.raise_on "clip0001.mp4" -> "": square (2)',
        "due, not finished before: square, root (1)",
        "due, something that it reads is computed anew: root (2)",
    ]


def test_what_differs_between_two_fingerprints() -> None:
    before = {"version": 1, "config": {"fps": 2.0}, "models": ["a@1", "b"], "prompts": {"p": "0", "q": "1"}}
    now = {
        "version": 2,
        "config": {"fps": 4.0, "new": None},
        "models": ["a@2", "b"],
        "prompts": {"p": "9", "q": "1"},
    }
    assert changed(now, before, "s") == (
        "s.fps 2.0 -> 4.0, s's version 1 -> 2, model a@1 -> a@2, prompt p changed"
    )
    written = {"writes": ["a", "b"]}
    assert changed(before | written, before | {"writes": ["a"]}, "s") == "s writes none -> b"
    assert changed(before | written, before, "s") == "something that it reads is computed anew"
    assert changed(before, before, "s") == "something that it reads is computed anew"
