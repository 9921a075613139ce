"""The report of a manifest says what a plain look at its rows says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from manifests import store
from manifests.schema import to_rows
from manifests.screen import Screen
from pipelines.review.report import SHOWN, figures_of, is_current, write_report
from tests.support.helpers import execute, make_files, toy_stages
from tests.support.random_runs import SCREEN, random_rows, random_run


def outcome(row: Mapping[str, Any]) -> str:
    if row["error"] is not None:
        return "error"
    return "kept" if row["keep"] else "dropped"


def first_of_each(rows: Sequence[dict[str, Any]]) -> list[str]:
    shown = [[r["sample_id"] for r in rows if outcome(r) == name][:count] for name, count in SHOWN.items()]
    return [name for names in shown for name in names]


def funnel(rows: Sequence[Mapping[str, Any]], screen: Screen) -> list[tuple[str, int]]:
    left = list(rows)
    steps = [("listed", len(left))]
    left = [r for r in left if r["error"] is None]
    steps.append(("without error", len(left)))
    left = [r for r in left if r["stopped"] is None]
    steps.append(("not stopped by a gate", len(left)))
    for rule in screen.rules:
        fallen = {rule.reason, f"missing:{rule.column}"}
        left = [r for r in left if not fallen & set(r["drop_reasons"] or [])]
        steps.append((f"not {rule.reason}", len(left)))
    return steps


@pytest.mark.parametrize(("count", "rows_per_file"), [(1200, 10**6), (1200, 170), (30, 7), (1, 1), (0, 1)])
def test_the_figures_are_those_of_the_rows(tmp_path: Path, count: int, rows_per_file: int) -> None:
    run = random_run(tmp_path, random_rows(count, seed=count), rows_per_file)
    rows = to_rows(store.read(run / "manifest"))
    found = figures_of(run / "manifest", SCREEN)
    assert found.total == len(rows) == count
    assert found.counts == {name: sum(outcome(r) == name for r in rows) for name in SHOWN}
    assert found.funnel == funnel(rows, SCREEN)
    assert found.reasons == Counter(reason for r in rows for reason in r["drop_reasons"] or []).most_common()
    assert [row["sample_id"] for row in found.clips] == first_of_each(rows)
    by_id = {row["sample_id"]: row for row in rows}
    for clip in found.clips:
        row = by_id[clip["sample_id"]]
        assert clip["odd"] == row["odd"] or clip["odd"] != clip["odd"]
        names = ("caption", "width", "stopped", "error", "drop_reasons", "media_uri")
        assert [clip[name] for name in names] == [row[name] for name in names]


def test_enough_rows_of_each_outcome_are_shown_and_no_more(tmp_path: Path) -> None:
    run = random_run(tmp_path, random_rows(1500, seed=1), 400)
    found = figures_of(run / "manifest", SCREEN)
    assert found.counts["kept"] > SHOWN["kept"] and found.counts["dropped"] > SHOWN["dropped"]
    assert 0 < found.counts["error"] < SHOWN["error"]
    assert len(found.clips) == SHOWN["kept"] + SHOWN["dropped"] + found.counts["error"]
    html = write_report(run).read_text()
    assert html.count("<code>/in/") + html.count("<code>None</code>") == len(found.clips)


def test_a_manifest_without_a_column_of_the_screen_has_its_report(tmp_path: Path) -> None:
    run = random_run(tmp_path, random_rows(20, seed=2))
    (file,) = store.manifest_files(run / "manifest")
    store.write_table(file, store.read_file(file).drop_columns(["odd"]))
    found = figures_of(run / "manifest", SCREEN)
    assert found.total == 20 and "odd" not in found.clips[0]
    assert write_report(run).exists()


def test_a_report_is_current_until_the_manifest_or_the_screen_changes(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 3), tmp_path / "out"
    execute(toy_stages(), files, out)
    assert not is_current(out)
    write_report(out)
    assert is_current(out)
    execute(toy_stages(), files, out)
    assert is_current(out)
    renamed = Screen(name="renamed", rules=[])
    execute(toy_stages(), files, out, screen=renamed)  # no verdict is another one
    assert not is_current(out)
    write_report(out)
    assert is_current(out)
    execute(toy_stages(), make_files(tmp_path / "in", 4), out, screen=renamed)
    assert not is_current(out)
