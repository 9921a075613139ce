"""The figures of a report say what a plain look at its rows says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from manifests import store
from manifests.schema import to_rows
from manifests.screen import Rule, Screen
from pipelines.review.figures import OUTCOMES, Coverage, figures_of
from tests.support.random_runs import SCREEN, random_rows, random_run


def outcome(row: Mapping[str, Any]) -> str:
    if row["error"] is not None:
        return "error"
    return "kept" if row["keep"] else "dropped"


def seconds(rows: Sequence[Mapping[str, Any]]) -> float:
    # A start that is NaN is none, as the null is.
    return sum(
        r["end_s"] - (0.0 if r["start_s"] is None or math.isnan(r["start_s"]) else r["start_s"])
        for r in rows
        if r["end_s"]
    )


def funnel(rows: Sequence[Mapping[str, Any]], screen: Screen) -> list[tuple[str, int]]:
    """Rows fall one after the other for what each step asks."""
    steps = [("listed", lambda reason: False)]
    steps.append(("decodable", lambda reason: reason in ("error:probe", "error:portrait")))
    steps.append(("without error", lambda reason: reason.startswith("error:")))
    steps.append(("not stopped by a gate", lambda reason: reason.startswith("stopped:")))
    steps.append(("not made by a stand-in", lambda reason: reason == "stand_in"))
    taken: set[str] = set()
    for name in dict.fromkeys(rule.reason for rule in screen.rules):
        needed = {r.column for r in screen.rules if r.reason == name and r.missing == "drop"} - taken
        taken |= needed
        asked = {name, *(f"missing:{column}" for column in needed)}
        steps.append((f"not {name}", lambda reason, asked=asked: reason in asked))
    left, found = list(rows), []
    for name, falls in steps:
        left = [r for r in left if r["keep"] or not any(falls(x or "") for x in r["drop_reasons"] or [])]
        found.append((name, len(left)))
    return [*found, ("kept", sum(bool(r["keep"]) for r in left))]


@pytest.mark.parametrize(("count", "rows_per_file"), [(1200, 10**6), (1200, 170), (30, 7), (1, 1), (0, 1)])
def test_they_are_those_of_the_rows(tmp_path: Path, count: int, rows_per_file: int) -> None:
    run = random_run(tmp_path, random_rows(count, seed=count), rows_per_file)
    for path in store.manifest_files(run / "manifest"):
        store.write_table(path, SCREEN.apply(store.read_file(path)))
    rows = to_rows(store.read(run / "manifest"))
    found = figures_of(run / "manifest", SCREEN)
    assert found.total == len(rows) == count
    assert found.counts == {name: sum(outcome(r) == name for r in rows) for name in OUTCOMES}
    assert [(step.name, step.left) for step in found.funnel] == funnel(rows, SCREEN)
    assert found.funnel[0].seconds == pytest.approx(seconds(rows))
    assert found.funnel[-1].seconds == pytest.approx(seconds([r for r in rows if outcome(r) == "kept"]))
    assert found.has_seconds == any(r["end_s"] is not None for r in rows)
    assert found.reasons == Counter(reason for r in rows for reason in r["drop_reasons"] or []).most_common()


def test_whatever_a_manifest_says_the_funnel_ends_with_what_is_kept(tmp_path: Path) -> None:
    """Verdicts of another screen, of none, and reasons that are null."""
    run = random_run(tmp_path, random_rows(500, seed=4))
    rows = to_rows(store.read(run / "manifest"))
    found = figures_of(run / "manifest", SCREEN)
    left = [step.left for step in found.funnel]
    assert left[0] == 500 and left == sorted(left, reverse=True)
    assert left[-1] == found.counts["kept"] == sum(outcome(r) == "kept" for r in rows)


def test_what_cannot_be_decoded_falls_first(tmp_path: Path) -> None:
    rows = [row | {"error": None, "stopped": None} for row in random_rows(4, seed=5)]
    for row, stage in zip(rows, ("probe", "portrait", "faces"), strict=False):
        row["error"] = {"stage": stage, "kind": "K", "message": "", "traceback": "", "fingerprint": ""}
    run = random_run(tmp_path, rows)
    (path,) = store.manifest_files(run / "manifest")
    store.write_table(path, SCREEN.apply(store.read_file(path)))
    steps = {step.name: step.left for step in figures_of(run / "manifest", SCREEN).funnel}
    assert (steps["listed"], steps["decodable"], steps["without error"]) == (4, 2, 1)


def test_coverage_counts_touches_of_clips_and_reactions_of_portraits(tmp_path: Path) -> None:
    rows = [row | {"keep": True, "error": None} for row in random_rows(4, seed=6)]
    for row, touch in zip(rows, ("poke", "poke", "hug", None), strict=True):
        row |= {"interaction_region": "left_hand", "interaction_type": touch}
    rows[1]["keep"] = False
    run = random_run(tmp_path / "clips", rows)
    assert figures_of(run / "manifest", SCREEN).coverage == [
        Coverage("left_hand", "hug", 1, 1),
        Coverage("left_hand", "poke", 2, 1),
    ]


def test_rules_are_told_from_outcomes_of_the_same_name(tmp_path: Path) -> None:
    """Screens of the gpu profile have rules whose reason is stand_in; rows here have no synthesis_by."""
    rows = [row | {"error": None, "stopped": None} for row in random_rows(3, seed=7)]
    for row, codec in zip(rows, ("stand_in_x", "h264", "h264"), strict=True):
        row |= {"video_codec": codec, "width": 5}
    run = random_run(tmp_path, rows)
    (path,) = store.manifest_files(run / "manifest")
    screen = Screen(
        name="s",
        rules=[
            Rule(reason="stopped", column="width", min=6),
            Rule(reason="stand_in", column="video_codec", none_of=["stand_in*"]),
        ],
    )
    store.write_table(path, screen.apply(store.read_file(path).drop_columns(["synthesis_by"])))
    found = figures_of(run / "manifest", screen)
    assert [(step.name, step.left) for step in found.funnel][3:] == [
        ("not stopped by a gate", 3),
        ("not stopped", 0),
        ("not stand_in", 0),
        ("kept", 0),
    ]
    assert found.rule_steps == ["not stopped", "not stand_in"]
