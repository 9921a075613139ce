"""A run and its reviews: screening applies them, and so does a run that goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from manifests import reviews, storage, store
from manifests.journal import DamagedError
from manifests.reviews import Review, ReviewLog
from manifests.screen import Screen
from pipelines.cli.app import app
from pipelines.engine.lock import lock
from pipelines.engine.passes import rescreen
from pipelines.engine.pipeline import RunError
from pipelines.engine.repair import Repair
from pipelines.review.screening import screen_again
from tests.support.helpers import SCREEN, execute, make_files, manifest, toy_stages
from tests.support.object_store import new_folder, s3_server

STAGES = toy_stages(stop_on="clip0002.mp4", raise_on="clip0003.mp4")
STRICT = Screen.model_validate(SCREEN.model_dump() | {"name": "strict"}).changed("too_long", max=5)


def say(run: Path, **words: Any) -> None:
    """Ada's words by the names of files."""
    by_name = {Path(uri).stem: sample for sample, uri in names(run).items()}
    log = ReviewLog(run)
    log.append([Review(sample_id=by_name[n], reviewer="Ada", verdict=v) for n, v in words.items()])


def names(run: Path) -> dict[str, str]:
    table = store.read(run / "manifest", ["sample_id", "source_uri"])
    return dict(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))


def verdicts(run: Path) -> dict[str, tuple[list[str], str | None]]:
    rows = store.read(run / "manifest", ["source_uri", "keep", "drop_reasons", "review"]).to_pylist()
    assert all(row["keep"] == (not row["drop_reasons"]) for row in rows)
    return {Path(row["source_uri"]).stem: (row["drop_reasons"], row["review"]) for row in rows}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    execute(STAGES, make_files(tmp_path / "in", 5), tmp_path / "out")
    return tmp_path / "out"


REVIEWED = {
    "clip0000": (["review"], "drop"),
    "clip0001": ([], "keep"),
    "clip0002": (["stopped:square"], "keep"),
    "clip0003": (["error:square"], "keep"),
    "clip0004": ([], None),
}


def review(run: Path) -> None:
    say(run, clip0000="drop", clip0001="keep", clip0002="keep", clip0003="keep", clip0004="flag")


def test_screening_applies_the_reviews_and_writes_them_down(run: Path) -> None:
    assert {why for _, why in verdicts(run).values()} == {None}
    review(run)
    counts, replaced = screen_again(run, SCREEN)
    assert counts == {"rows": 5, "kept": 2, "dropped": 3, "changed": 1, "reviewed": 4} and replaced is None
    assert verdicts(run) == REVIEWED
    record = json.loads((run / "run.json").read_text())
    assert (record["reviews"], record["counts"]["kept"]) == (5, 2)
    screen_again(run, STRICT)
    strict = {"clip0000": (["review", "too_long"], "drop"), "clip0004": (["too_long"], None)}
    strict["clip0002"] = (["stopped:square"], "keep")
    assert verdicts(run) == REVIEWED | strict


def test_a_run_with_new_reviews_applies_them_and_one_without_writes_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    review(run)
    record = execute(STAGES, run.parent / "in", run)
    assert record["counts"]["computed"] == 0 and record["counts"]["kept"] == 2 and record["reviews"] == 5
    assert verdicts(run) == REVIEWED
    monkeypatch.setattr("pipelines.engine.passes.rescreen", lambda *_: pytest.fail("judged again"))
    before = {path: path.stat().st_mtime_ns for path in (run / "manifest").glob("*.parquet")}
    assert execute(STAGES, run.parent / "in", run)["counts"]["kept"] == 2
    assert {path: path.stat().st_mtime_ns for path in (run / "manifest").glob("*.parquet")} == before


def test_rows_that_are_computed_again_keep_what_was_decided(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    review(run)
    screen_again(run, SCREEN)
    seen = []

    def before_the_last_step(folder: Path, *given: Any, **more: Any) -> Any:
        seen.append(verdicts(run))
        return rescreen(folder, *given, **more)

    monkeypatch.setattr("pipelines.engine.passes.rescreen", before_the_last_step)
    stages = toy_stages(stop_on="clip0002.mp4", raise_on="clip0003.mp4")
    stages[1].version = 7
    record = execute(stages, make_files(run.parent / "in", 6), run)
    assert record["counts"]["computed"] == 6
    assert seen == [REVIEWED | {"clip0005": ([], None)}] and verdicts(run) == seen[0]


def test_a_manifest_of_before_gets_the_column_with_the_first_review(run: Path) -> None:
    before = manifest(run)
    for file in store.manifest_files(run / "manifest"):
        store.write_table(file, store.read_file(file).drop_columns(["review"]))
    screen_again(run, SCREEN)
    assert "review" not in manifest(run).columns
    review(run)
    screen_again(run, SCREEN)
    assert manifest(run).columns.tolist() == before.columns.tolist() and verdicts(run) == REVIEWED
    assert execute(STAGES, run.parent / "in", run)["counts"]["computed"] == 0


def test_a_review_is_possible_while_a_run_holds_the_folder(run: Path) -> None:
    with lock(run):
        review(run)
    assert len(pd.read_parquet(run / "reviews.parquet")) == 5


def test_the_command_says_what_reviews_change(run: Path) -> None:
    def said(*words: str) -> str:
        done = CliRunner().invoke(app, ["screen", str(run), *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert said() == "screen toy: kept 3 of 5, 0 verdicts changed\n"
    review(run)
    dry = said("--dry-run")
    assert "would keep 2 of 5 (3 are kept): drop 1 that are kept, keep 0" in dry and "+ review: 1 (" in dry
    assert said() == "screen toy: kept 2 of 5, 1 verdicts changed, 4 samples decided by reviews\n"
    assert "no verdict would change" in said("--dry-run")


def test_repair_moves_damaged_reviews_away(run: Path) -> None:
    review(run)
    say(run, clip0000="keep")
    newest = reviews.files(run)[-1]
    newest.write_bytes(newest.read_bytes()[:-9])
    (found,) = Repair(run, True).execute()
    assert found.what == f"reviews.parquet/{newest.name} cannot be read as reviews"
    assert found.done == f"moved to quarantine/reviews.parquet/{newest.name}" and found.is_mended
    screen_again(run, SCREEN)
    assert verdicts(run) == REVIEWED


def test_in_an_object_store(tmp_path: Path) -> None:
    with s3_server():
        run = new_folder()
        execute(STAGES, make_files(tmp_path / "in", 5), run)
        review(run)
        assert screen_again(run, SCREEN)[0]["changed"] == 1
        assert verdicts(run) == REVIEWED and len(storage.files(run / "reviews.parquet")) == 1
        assert len(pd.read_parquet(str(run / "reviews.parquet"))) == 5


def test_a_damaged_review_is_told_before_anything_is_computed(run: Path) -> None:
    review(run)
    (run / "reviews.parquet" / "other.parquet").write_bytes(b"PAR1")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    log = run.parent / "log"
    stages = toy_stages(log)
    stages[1].version = 7
    with pytest.raises(DamagedError, match=rf"other.parquet cannot be read as reviews .* repair {run}"):
        execute(stages, make_files(run.parent / "in", 6), run)
    assert not log.exists() and {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_a_run_that_has_lost_its_folder_does_not_judge_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = []

    @contextmanager
    def held(folder: Path) -> Iterator[Callable[[], None]]:
        def check() -> None:
            if lost:
                raise RunError("the lock was lost")

        yield check

    def after_the_lock_is_lost(*given: Any, **more: Any) -> Any:
        lost.append(True)
        return rescreen(*given, **more)

    review(run)
    before = verdicts(run)
    monkeypatch.setattr("pipelines.engine.run.lock", held)
    monkeypatch.setattr("pipelines.engine.passes.rescreen", after_the_lock_is_lost)
    with pytest.raises(RunError, match="the lock was lost"):
        execute(STAGES, run.parent / "in", run)
    assert verdicts(run) == before and not (run / "verdicts").exists()
