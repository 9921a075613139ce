"""Runs over lists and folders that hold rows which cannot be used, or secrets."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from manifests import store
from manifests.screen import EVERYTHING
from pipelines.engine import passes
from pipelines.engine.inline_runner import run_inline
from pipelines.engine.plan import BAD_ROW
from pipelines.engine.source import ADDRESS
from tests.support.file_server import file_server
from tests.support.helpers import execute, make_files, manifest, toy_stages
from tests.support.toys import Weigh


def counts(record: dict[str, Any]) -> tuple[int, ...]:
    return tuple(record["counts"][name] for name in ("ids_in", "computed", "reused", "errors"))


def messages(output: Path) -> list[str]:
    return sorted(error["message"] for error in manifest(output)["error"].dropna())


def test_a_bad_row_is_one_error_and_stays_so_until_it_changes(tmp_path: Path) -> None:
    make_files(tmp_path, 2)
    listed, out, log = tmp_path / "l.csv", tmp_path / "out", tmp_path / "log"
    lines = ["uri,start_s,end_s,note", "clip0000.mp4,,,x", "clip0001.mp4,soon,,y", "http://h/a.mp4,,,", ",,,"]
    listed.write_text("\n".join([*lines, "clip0001.mp4,,,z"]))
    assert counts(execute(toy_stages(log), listed, out)) == (5, 2, 0, 3)
    rows = manifest(out)
    errors = list(rows["error"].dropna())
    assert {(e["stage"], e["kind"]) for e in errors} == {("length", BAD_ROW)}
    assert messages(out) == [
        "row 2 has 'soon' as start_s, which is no number of seconds such as 1.5",
        "row 3: a list may not name http:// of 'http://h/a.mp4'; --set sources.schemes=[http] allows it",
        "row 4 has no uri",
    ]
    bad = rows[rows["error"].notna()]
    assert not bad["keep"].any() and set(bad["drop_reasons"].map(tuple)) == {("error:length",)}
    assert bad["run_id"].notna().all() and list(bad["note"].dropna()) == ["y"]
    ran = log.read_text()
    assert len({line.split()[1] for line in ran.splitlines()}) == 2

    for again in (False, True):
        assert counts(execute(toy_stages(log), listed, out, retry_errors=again)) == (5, 0, 5, 3)
    assert log.read_text() == ran and manifest(out)["sample_id"].equals(rows["sample_id"])

    listed.write_text(listed.read_text().replace("soon", "late"))
    assert counts(execute(toy_stages(log), listed, out)) == (5, 0, 4, 3)
    assert "row 2 has 'late' as start_s" in messages(out)[0] and len(manifest(out)) == 5

    allowed = {"sources": {"schemes": ["http"]}}
    assert counts(execute(toy_stages(log), listed, out, **allowed)) == (5, 1, 4, 2)
    done = manifest(out).set_index("source_uri").loc["http://h/a.mp4"]
    assert done["length"] == len("a.mp4") and done["error"] is None
    assert counts(execute(toy_stages(log), listed, out)) == (5, 0, 4, 3)
    refused = manifest(out).set_index("source_uri").loc["http://h/a.mp4"]
    assert refused["stages"] == {} and refused["error"]["kind"] == BAD_ROW and refused["length"] != 6


def test_a_link_out_of_the_folder_is_followed_when_asked_for(tmp_path: Path) -> None:
    far = make_files(tmp_path / "far", 1)
    files = make_files(tmp_path / "in", 1)
    (files / "more").symlink_to(far)
    (files / "one.mp4").symlink_to(far / "clip0000.mp4")
    out = tmp_path / "out"
    assert counts(execute(toy_stages(), files, out)) == (3, 1, 0, 2)
    assert all("--set sources.follow_links=true follows it" in said for said in messages(out))
    # The folder's own row is no sample any more, and stays as what is not in the input does.
    assert counts(execute(toy_stages(), files, out, sources={"follow_links": True})) == (3, 2, 1, 0)


def test_signatures_open_the_media_and_are_stored_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, out = tmp_path / "files", tmp_path / "out"
    files.mkdir()
    (files / "signed.mp4").write_bytes(b"x" * 7)
    listed = tmp_path / "l.csv"
    modes: list[int] = []

    def look(program: Any, plan: Path, *more: Any) -> Any:
        modes.append(stat.S_IMODE(plan.stat().st_mode))
        assert store.read_file(plan)[ADDRESS].to_pylist() == [f"{address}/signed.mp4?sig=d0n0ttell"]
        return run_inline(program, plan, *more)

    monkeypatch.setattr(passes, "run_inline", look)
    with file_server(files) as address:
        listed.write_text(f"uri\n{address}/signed.mp4?sig=d0n0ttell\n")
        allowed = {"sources": {"schemes": ["http"]}}
        assert counts(execute([Weigh()], listed, out, screen=EVERYTHING, **allowed)) == (1, 1, 0, 0)
        (row,) = manifest(out).to_dict("records")
        assert (row["weight"], row["source_uri"], row["media_uri"]) == (
            7,
            f"{address}/signed.mp4",
            f"{address}/signed.mp4",
        )
        listed.write_text(f"uri\n{address}/signed.mp4?sig=tomorrow\n")
        assert counts(execute([Weigh()], listed, out, screen=EVERYTHING, **allowed)) == (1, 0, 1, 0)
        # A stage that is new takes the address from the list.
        monkeypatch.setattr(Weigh, "version", 2)
        listed.write_text(f"uri\n{address}/signed.mp4?sig=d0n0ttell\n")
        assert counts(execute([Weigh()], listed, out, screen=EVERYTHING, **allowed)) == (1, 1, 0, 0)
    assert modes == [0o600, 0o600]
    for path in out.rglob("*"):
        assert not path.is_file() or b"d0n0ttell" not in path.read_bytes(), path
    assert ADDRESS not in store.column_names(out / "manifest")
    assert "d0n0ttell" not in json.dumps(manifest(out).astype(str).to_dict("records"))
