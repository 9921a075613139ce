"""Why samples failed: grouped by stage and message, the most frequent first, bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from manifests.screen import EVERYTHING
from pipelines.review.failures import LONGEST, NAMED, Failure, failure_lines, failures
from stages.clip import Clip
from stages.contract import Score, Stage
from tests.support.helpers import execute, make_files


class Strict(Stage):
    """Two files in three are refused, of these every second with a message of its own."""

    writes: ClassVar = {"strict": Score("", "Nothing.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        number = int(Path(clip["source_uri"]).stem[-4:])
        if number % 3 == 1:
            raise ValueError("too strict\nfor words")
        if number % 3 == 2:
            raise ValueError(f"number {number}")
        return {"strict": 1.0}


def test_errors_are_counted_by_stage_and_message(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 21)
    execute([Strict()], files, tmp_path / "out", screen=EVERYTHING)
    found = failures(tmp_path / "out" / "manifest")
    assert (found[0].stage, found[0].message, found[0].count) == ("strict", "too strict\nfor words", 7)
    assert Path(found[0].first).name.startswith("clip") and len(found) == 1 + 7
    assert sum(failure.count for failure in found) == 14
    lines = list(failure_lines(found))
    assert lines[0] == f"  7 in strict: too strict for words (such as {found[0].first})"
    assert lines[1] == f"  1 in strict: {found[1].message} ({found[1].first})"
    assert len(lines) == NAMED + 1 and lines[-1] == "  3 with 3 other messages"


def test_a_long_message_is_cut() -> None:
    (line,) = failure_lines([Failure("probe", "x" * 1000, 2, "a.mp4")])
    assert line == f"  2 in probe: {'x' * LONGEST}... (such as a.mp4)"


def test_without_errors_nothing_is_said(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 1)
    execute([Strict()], files, tmp_path / "out", screen=EVERYTHING)
    assert failures(tmp_path / "out" / "manifest") == [] and list(failure_lines([])) == []
