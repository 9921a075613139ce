"""Several files that change as one: whoever dies and when, readers see all of it or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import journal, storage, store
from manifests.journal import Change, DamagedError
from manifests.schema import ERROR, STAGES, STOPPED
from manifests.screen import Rule, Screen, rescreen
from manifests.storage import ReplacedError, folder_of
from tests.support.mortal import Died, Mortal

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("score", pa.float64()),
        ("keep", pa.bool_()),
        ("drop_reasons", pa.list_(pa.string())),
        ("stopped", STOPPED),
        ("error", ERROR),
        ("media_uri", pa.string()),
        ("stages", STAGES),
    ]
)
LENIENT, STRICT = (
    Screen(name=name, rules=[Rule(reason="low", column="score", min=least)])
    for name, least in (("lenient", 0), ("strict", 9))
)


def make(manifest: Path) -> None:
    """Six kept rows in three files, and a file beside that says so."""
    store.prepare(manifest, SCHEMA)
    rows = [{"sample_id": f"s{i}", "score": float(i)} for i in range(6)]
    store.commit(manifest, LENIENT.apply(pa.Table.from_pylist(rows, schema=SCHEMA)))
    store.merge(manifest, SCHEMA)
    storage.write_bytes(manifest.parent / "run.json", b"kept 6")


def screen(manifest: Path) -> None:
    def also(counts: Any, changed: pa.Table) -> dict[Path, bytes]:
        folder = manifest.parent
        return {
            folder / "screens" / "0001.yaml": b"lenient",
            folder / "run.json": b"kept %d" % counts["kept"],
        }

    rescreen(manifest, STRICT, also)


def kept(manifest: Path) -> int:
    """How many samples are kept, by our readers, which agree; to pandas each row is there once."""
    if not storage.is_remote(manifest):
        assert sorted(pd.read_parquet(manifest)["sample_id"]) == [f"s{i}" for i in range(6)]
    verdicts = store.read(manifest, ["keep"])["keep"].to_pylist()
    assert verdicts in ([True] * 6, [False] * 6)
    assert [
        v for f in store.manifest_files(manifest) for v in store.read_file(f)["keep"].to_pylist()
    ] == verdicts
    assert journal.read(manifest.parent, "run.json") == b"kept %d" % sum(verdicts)
    return sum(verdicts)


def test_a_screen_that_dies_after_any_step_is_made_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROWS_PER_FILE", 3)
    make(tmp_path / "made" / "manifest")
    mortal = Mortal(monkeypatch, lambda: None)
    seen = []
    for left in range(60):
        manifest = tmp_path / str(left) / "manifest"
        shutil.copytree(tmp_path / "made", manifest.parent)
        if not mortal.run(left, True, lambda m=manifest: screen(m)):
            break
        seen.append(kept(manifest))
        journal.complete(manifest)
        assert kept(manifest) == seen[-1] and not (manifest / journal.FOLDER).exists()
        assert (manifest.parent / "run.json").read_bytes() == b"kept %d" % seen[-1]
        assert (manifest.parent / "screens" / "0001.yaml").exists() == (seen[-1] == 0)
    assert kept(manifest) == 0
    assert set(seen) == {0, 6} and seen == sorted(seen, reverse=True) and len(seen) > 15


def test_a_screen_in_a_store_that_dies_at_any_request_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROWS_PER_FILE", 2)
    left = 0

    def mortal(original: Callable[..., Any]) -> Callable[..., Any]:
        def request(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Died
            return original(*args)

        return request

    seen = []
    for number in range(40):
        manifest = folder_of(f"memory://journal-{number}/run/manifest")
        make(manifest)
        with monkeypatch.context() as patch:
            left = number
            for name in ("put", "_remove", "remove_tree"):
                patch.setattr(storage, name, mortal(getattr(storage, name)))
            try:
                screen(manifest)
                break
            except Died:
                seen.append(kept(manifest))
        store.prepare(manifest, SCHEMA)
        assert kept(manifest) == seen[-1] and not journal.pending(manifest)
        fs, inside = storage.filesystem(manifest / journal.FOLDER)
        assert not fs.find(inside)
    assert set(seen) == {0, 6} and seen == sorted(seen, reverse=True)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.dictionaries(st.sampled_from(["a", "b/c", "b/d"]), st.binary(max_size=3)), st.booleans())
def test_a_change_replaces_all_its_files(files: dict[str, bytes], is_cut_short: bool) -> None:
    folder = folder_of("memory://journal-property/run")
    storage.remove_tree(folder)
    change = Change(folder / "manifest")
    for name, data in files.items():
        change.write(folder / name, data)
    with pytest.MonkeyPatch.context() as patch:
        if is_cut_short:
            patch.setattr(journal, "_put_in_place", lambda *_: None)
        change.commit(lambda: None)
    assert {name: journal.read(folder, name) for name in files} == files
    journal.complete(folder / "manifest")
    assert {name: storage.read_bytes(folder / name) for name in files} == files
    assert not journal.pending(folder / "manifest")


def test_a_lock_that_is_lost_before_the_change_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path / "manifest")

    def lost() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        rescreen(tmp_path / "manifest", STRICT, check_lock=lost)
    assert kept(tmp_path / "manifest") == 6


def test_a_change_of_files_that_another_has_replaced_since_is_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "manifest")

    def replaced(source: Path, target: Path, replaces: str | None = None) -> None:
        raise ReplacedError(f"{target} was replaced by another writer")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "move", replaced)
        with pytest.raises(ReplacedError):
            screen(tmp_path / "manifest")
    assert kept(tmp_path / "manifest") == 6 and not journal.pending(tmp_path / "manifest")


@pytest.mark.parametrize("text", ["", "[1]", '{"../x": null}', '{"/x": null}', '{"": null}', '{"a": 1}'])
def test_a_damaged_journal_is_named(tmp_path: Path, text: str) -> None:
    make(tmp_path / "manifest")
    path = tmp_path / "manifest" / "_next" / "journal.json"
    storage.write_bytes(path, text.encode())
    for work in (store.read, journal.complete, lambda m: journal.read(m.parent, "run.json")):
        with pytest.raises(DamagedError, match=f"{path} is damaged; `interavatar repair {tmp_path}`"):
            work(tmp_path / "manifest")


def test_a_reader_takes_files_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen that begins and ends between two files is seen as a whole, too."""
    monkeypatch.setattr(store, "ROWS_PER_FILE", 2)
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    manifest = tmp_path / "manifest"
    make(manifest)
    original, calls = store.read_file, []

    def meanwhile(*args: Any) -> Any:
        table = original(*args)
        calls.append(1)
        if len(calls) == 2:
            monkeypatch.setattr(store, "read_file", original)
            screen(manifest)
            monkeypatch.setattr(store, "read_file", meanwhile)
        return table

    monkeypatch.setattr(store, "read_file", meanwhile)
    assert store.read(manifest)["keep"].to_pylist() == [False] * 6 and len(calls) == 2 * 3
