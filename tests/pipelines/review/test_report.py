"""A report is written again when what it shows has changed."""

from __future__ import annotations

from pathlib import Path

from manifests import store
from manifests.screen import Screen
from pipelines.review.figures import figures_of
from pipelines.review.report import MADE_BY, is_current, write_report
from pipelines.review.strips import FOLDER
from tests.support.helpers import execute, make_files, toy_stages
from tests.support.random_runs import SCREEN, random_rows, random_run


def test_a_manifest_without_a_column_of_the_screen_has_its_report(tmp_path: Path) -> None:
    run = random_run(tmp_path, random_rows(20, seed=2))
    (file,) = store.manifest_files(run / "manifest")
    store.write_table(file, store.read_file(file).drop_columns(["odd"]))
    assert figures_of(run / "manifest", SCREEN).total == 20
    assert "talking_head" in write_report(run).read_text()


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


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = random_run(tmp_path, random_rows(60, seed=3), 25)
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_a_report_of_another_version_is_not_current(tmp_path: Path) -> None:
    execute(toy_stages(), make_files(tmp_path / "in", 1), tmp_path / "out")
    write_report(tmp_path / "out")
    assert is_current(tmp_path / "out")
    (tmp_path / "out" / MADE_BY).write_text("another")
    assert not is_current(tmp_path / "out")
    (tmp_path / "out" / MADE_BY).unlink()
    assert not is_current(tmp_path / "out")


def test_strips_of_media_that_has_changed_go(tmp_path: Path) -> None:
    run = random_run(tmp_path, random_rows(3, seed=2))
    (run / FOLDER).mkdir()
    (run / FOLDER / "0123-12.webp").write_bytes(b"")
    write_report(run)
    assert [path.name for path in (run / FOLDER).iterdir()] == ["made_by"]
