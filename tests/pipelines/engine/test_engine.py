"""The contract of a run: errors are data, ids in = ids out, resume, and what a change recomputes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from manifests.features import load_features
from manifests.screen import Rule, Screen
from manifests.store import commit, merge
from pipelines.engine.lock import lock
from pipelines.engine.pipeline import RunError
from pipelines.engine.program import compile_pipeline
from stages.contract import Column, Stage
from tests.support.helpers import SCREEN, execute, make_files, make_run, manifest, same_manifest, toy_stages
from tests.support.toys import Length, Other, Root, Square


def computed(log: Path) -> Counter[str]:
    """Stage -> how often it ran, and forget the log."""
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return Counter(line.split()[0] for line in lines)


def test_a_clip_that_raises_is_one_row_with_its_error(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 40)
    record = execute(toy_stages(raise_on="clip0007.mp4"), files, tmp_path / "out")
    rows = manifest(tmp_path / "out")
    assert len(rows) == 40
    bad = rows[rows["error"].notna()]
    assert list(bad["source_uri"]) == [str(files / "clip0007.mp4")]
    error = bad.iloc[0]["error"]
    assert (error["stage"], error["kind"]) == ("square", "RuntimeError")
    assert error["message"] == "cannot square clip0007.mp4"
    assert "raise RuntimeError" in error["traceback"]
    assert bad.iloc[0]["length"] == 12 and pd.isna(bad.iloc[0]["square"]) and pd.isna(bad.iloc[0]["root"])
    assert list(bad.iloc[0]["drop_reasons"]) == ["error:square"]
    good = rows[rows["error"].isna()]
    assert (good["square"] == good["length"] ** 2).all() and good["keep"].all()
    assert record["counts"] == {
        "ids_in": 40, "ids_out": 40, "computed": 40, "reused": 0, "kept": 39, "dropped": 1,
        "errors": 1, "stopped": 0, "due": 0, "superseded": 0, "manifest_rows": 40,
    }  # fmt: skip
    assert record["stages"]["square"]["errors"] == 1 and record["stages"]["root"]["computed"] == 39


def test_a_finished_run_is_reused_whole_and_errors_only_on_request(tmp_path: Path) -> None:
    log, files = tmp_path / "log", make_files(tmp_path / "in", 10)
    stages = toy_stages(log, raise_on="clip0003.mp4")
    execute(stages, files, tmp_path / "out")
    before = manifest(tmp_path / "out")
    computed(log)
    again = execute(stages, files, tmp_path / "out")
    assert computed(log) == Counter()
    assert again["counts"]["reused"] == 10 and again["counts"]["computed"] == 0
    assert manifest(tmp_path / "out").astype(str).equals(before.astype(str))
    retried = execute(stages, files, tmp_path / "out", retry_errors="all")
    assert computed(log) == {"square": 1} and retried["counts"]["errors"] == 1
    execute(toy_stages(log), files, tmp_path / "out")
    assert computed(log) == {"square": 10, "root": 10, "other": 1}
    assert manifest(tmp_path / "out")["error"].isna().all()


def test_a_changed_stage_recomputes_itself_and_its_readers_only(tmp_path: Path) -> None:
    log, files = tmp_path / "log", make_files(tmp_path / "in", 10)
    execute(toy_stages(log), files, tmp_path / "out")
    computed(log)
    changed = toy_stages(log)
    changed[1] = Square(config=Square.Config(log=str(log), raise_on="nothing"))
    record = execute(changed, files, tmp_path / "out")
    assert computed(log) == {"square": 10, "root": 10}
    assert record["stages"]["length"] | {"seconds": 0} == record["stages"]["length"] | {"seconds": 0}
    assert record["stages"]["length"]["reused"] == 10 and record["stages"]["square"]["reused"] == 0
    changed[0] = Length(config=Length.Config(log=str(log), add=1))
    execute(changed, files, tmp_path / "out")
    assert computed(log) == {"length": 10, "square": 10, "root": 10}
    rows = manifest(tmp_path / "out")
    assert (rows["length"] == 13).all() and (rows["square"] == 169).all()


def test_a_raised_version_recomputes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, files = tmp_path / "log", make_files(tmp_path / "in", 3)
    execute(toy_stages(log), files, tmp_path / "out")
    computed(log)
    monkeypatch.setattr(Other, "version", 2)
    execute(toy_stages(log), files, tmp_path / "out")
    assert computed(log) == {"other": 3}


def test_limit_then_the_full_run_does_not_repeat_work(tmp_path: Path) -> None:
    log, files = tmp_path / "log", make_files(tmp_path / "in", 10)
    first = execute(toy_stages(log), files, tmp_path / "out", limit=4)
    assert first["counts"]["ids_in"] == 4 and len(manifest(tmp_path / "out")) == 4
    full = execute(toy_stages(log), files, tmp_path / "out")
    assert computed(log)["length"] == 10 and full["counts"]["reused"] == 4
    whole = execute(toy_stages(log), files, tmp_path / "other")
    assert whole["counts"]["reused"] == 0
    assert same_manifest(manifest(tmp_path / "out"), manifest(tmp_path / "other"))


def test_a_replaced_file_is_computed_anew_and_new_files_join(tmp_path: Path) -> None:
    log, files = tmp_path / "log", make_files(tmp_path / "in", 5)
    execute(toy_stages(log), files, tmp_path / "out")
    computed(log)
    (files / "clip0002.mp4").write_bytes(b"longer than before")
    (files / "new.mp4").write_bytes(b"new")
    record = execute(toy_stages(log), files, tmp_path / "out")
    assert computed(log)["length"] == 2 and record["counts"]["ids_in"] == 6


def test_a_gate_stops_a_sample_and_says_why(tmp_path: Path) -> None:
    log, files = tmp_path / "log", make_files(tmp_path / "in", 5)
    stages = toy_stages(log, stop_on="clip0001.mp4")
    record = execute(stages, files, tmp_path / "out")
    row = manifest(tmp_path / "out").set_index("source_uri").loc[str(files / "clip0001.mp4")]
    assert row["stopped"] == {"stage": "square", "reason": "told to", "waits": False}
    assert row["square"] == 144.0 and pd.isna(row["root"])
    assert list(row["drop_reasons"]) == ["stopped:square"] and row["error"] is None
    assert record["counts"]["stopped"] == 1
    computed(log)
    execute(stages, files, tmp_path / "out")
    assert computed(log) == Counter()


def test_columns_of_the_input_list_are_kept_and_a_change_recomputes_their_readers(tmp_path: Path) -> None:
    log, files = tmp_path / "log", make_files(tmp_path / "in", 3)
    names = sorted(p.name for p in files.iterdir())
    frame = pd.DataFrame({"uri": names, "note": ["a", "b", None], "keep": [1, 2, 3], "licence": "CC0"})
    frame.to_csv(files / "list.csv", index=False)
    execute(toy_stages(log), files / "list.csv", tmp_path / "out")
    rows = manifest(tmp_path / "out").sort_values("source_uri")
    assert list(rows["input_keep"]) == [1, 2, 3] and set(rows["licence"]) == {"CC0"}
    assert list(rows["note"].fillna("-")) == ["a", "b", "-"]
    computed(log)
    frame.assign(keep=[1, 2, 9]).to_csv(files / "list.csv", index=False)
    record = execute(toy_stages(log), files / "list.csv", tmp_path / "out")
    assert computed(log) == Counter() and record["counts"]["reused"] == 3
    assert list(manifest(tmp_path / "out").sort_values("source_uri")["input_keep"]) == [1, 2, 9]
    # A later input without those columns keeps them.
    execute(toy_stages(log), make_files(tmp_path / "more", 2), tmp_path / "out")
    assert set(manifest(tmp_path / "out")["input_keep"].dropna()) == {1, 2, 9}


def test_a_changed_column_that_a_stage_reads_recomputes_that_stage(tmp_path: Path) -> None:
    class Reader(Other):
        reads = ("input_other",)

        def score(self, clip: Any) -> dict[str, Any]:
            super().score(clip)
            return {"other": clip["input_other"].upper()}

    log, files = tmp_path / "log", make_files(tmp_path / "in", 2)
    stages = [Length(config=Length.Config(log=str(log))), Reader(config=Other.Config(log=str(log)))]
    frame = pd.DataFrame({"uri": ["clip0000.mp4", "clip0001.mp4"], "other": ["a", "b"]})
    frame.to_json(files / "l.jsonl", orient="records", lines=True)
    execute(stages, files / "l.jsonl", tmp_path / "out")
    assert sorted(manifest(tmp_path / "out")["other"]) == ["A", "B"]
    computed(log)
    frame.assign(other=["a", "c"]).to_json(files / "l.jsonl", orient="records", lines=True)
    execute(stages, files / "l.jsonl", tmp_path / "out")
    assert computed(log) == {"other": 1}
    assert sorted(manifest(tmp_path / "out")["other"]) == ["A", "C"]


def test_arrays_lie_beside_the_manifest_and_old_ones_go(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 3)
    execute(toy_stages(), files, tmp_path / "out")
    row = manifest(tmp_path / "out").iloc[0]
    assert load_features(tmp_path / "out", row, "square")["powers"].tolist() == [12, 144, 1728]
    with pytest.raises(KeyError):
        load_features(tmp_path / "out", row, "nothing")
    (first,) = (tmp_path / "out" / "features").rglob("*.*")
    execute(toy_stages(raise_on="clip0000.mp4"), files, tmp_path / "out")
    (second,) = (tmp_path / "out" / "features").rglob("*.*")
    assert first.parent != second.parent and first.suffix == second.suffix == ".pack"
    rows = manifest(tmp_path / "out")
    assert rows["arrays"].map(len).tolist() == [0, 1, 1]
    assert second.stat().st_size == sum(places[0]["size"] for places in rows["arrays"][1:])


def test_a_stage_that_breaks_its_contract_is_an_error_of_the_sample(tmp_path: Path) -> None:
    class Liar(Stage):
        writes = {"honest": Column("int", "", "")}

        def score(self, clip: Any) -> dict[str, Any]:
            small = clip["source_uri"].endswith("clip0000.mp4")
            return {"honest": 1} if small else {"honest": "one"}

    execute(
        [Length(), Liar()],
        make_files(tmp_path / "in", 2),
        tmp_path / "out",
        screen=Screen(name="s", rules=[]),
    )
    rows = manifest(tmp_path / "out").sort_values("source_uri")
    assert rows["error"].iloc[0] is None
    assert rows["error"].iloc[1]["message"] == "column honest must be int, got str"


def test_stages_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="root reads powers, which no earlier stage writes"):
        compile_pipeline("p", [Length(), Root()], 30, 0)
    with pytest.raises(ValueError, match="length and length both write length"):
        compile_pipeline("p", [Length(), Length()], 30, 0)


def test_an_unknown_type_of_a_column_is_refused_where_it_is_written() -> None:
    kind: Any = "str"
    with pytest.raises(ValueError, match=r"no column type 'str'; choose one of float, int, bool, string, "):
        Column(kind, "", "A name.")


def test_a_screen_on_an_unknown_column_is_refused(tmp_path: Path) -> None:
    screen = Screen(name="s", rules=[Rule(reason="r", column="nowhere", min=1, source="none")])
    run = make_run(toy_stages(), make_files(tmp_path / "in", 1), tmp_path / "out", screen=screen)
    with pytest.raises(ValueError, match="rule r reads nowhere"):
        run.program()


def test_two_runs_cannot_write_to_one_folder(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 1)
    with lock(tmp_path / "out"), pytest.raises(RunError, match="another run is writing"):
        execute(toy_stages(), files, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest").exists()


def test_seeded_draws_are_the_same_in_any_order_and_engine_batch(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 6)
    execute(toy_stages(), files, tmp_path / "one", rows_per_part=1)
    execute(toy_stages(), files, tmp_path / "two", rows_per_part=6)
    execute(toy_stages(), files, tmp_path / "three", seed=1)
    one, two, three = (manifest(tmp_path / n)["draw"] for n in ("one", "two", "three"))
    assert one.equals(two) and one.nunique() == 6 and not one.equals(three)


def test_an_interrupted_run_keeps_what_was_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, files = tmp_path / "log", make_files(tmp_path / "in", 10)
    seen = 0

    def stop_at_seven(self: Square, clip: Any) -> dict[str, Any]:
        nonlocal seen
        seen += 1
        if seen == 7:
            raise KeyboardInterrupt
        return original(self, clip)

    original = Square.score
    monkeypatch.setattr(Square, "score", stop_at_seven)
    with pytest.raises(KeyboardInterrupt):
        execute(toy_stages(log), files, tmp_path / "out", rows_per_part=3)
    assert len(manifest(tmp_path / "out")) == 6
    monkeypatch.setattr(Square, "score", original)
    computed(log)
    record = execute(toy_stages(log), files, tmp_path / "out", rows_per_part=3)
    assert record["counts"]["computed"] == 4 and computed(log)["square"] == 4
    execute(toy_stages(log), files, tmp_path / "whole")
    assert same_manifest(manifest(tmp_path / "out"), manifest(tmp_path / "whole"))


def test_leftover_parts_are_merged_first_and_merging_twice_changes_nothing(tmp_path: Path) -> None:
    log, files = tmp_path / "log", make_files(tmp_path / "in", 4)
    run = make_run(toy_stages(log), files, tmp_path / "out")
    execute(toy_stages(log), files, tmp_path / "done")
    schema = run.program().schema
    from manifests import store

    folder = tmp_path / "out" / "manifest"
    store.prepare(folder, schema)
    finished = store.read(tmp_path / "done" / "manifest")
    commit(folder, finished.slice(0, 3))
    computed(log)
    record = execute(toy_stages(log), files, tmp_path / "out")
    assert record["counts"]["reused"] == 3 and computed(log)["length"] == 1
    commit(folder, finished)
    assert merge(folder, schema) == 4 and merge(folder, schema) == 0
    assert len(manifest(tmp_path / "out")) == 4


def test_screening_is_part_of_the_run_and_changes_with_the_screen(tmp_path: Path) -> None:
    log, files = tmp_path / "log", make_files(tmp_path / "in", 2)
    execute(toy_stages(log), files, tmp_path / "out")
    assert manifest(tmp_path / "out")["keep"].all()
    strict = Screen(name="s", rules=[SCREEN.rules[0].model_copy(update={"max": 3.0})])
    computed(log)
    execute(toy_stages(log), files, tmp_path / "out", screen=strict)
    rows = manifest(tmp_path / "out")
    assert not rows["keep"].any() and list(rows["drop_reasons"].iloc[0]) == ["too_long"]
    assert computed(log) == Counter()
