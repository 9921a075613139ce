"""Arrays of a run: few files for many clips, none that no row needs, and folders of before packs go on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from interavatar import load_arrays, read_manifest
from manifests import store
from manifests.packs import PackFiles
from pipelines.engine.pipeline import RunError
from pipelines.engine.worker import Worker
from stages.clip import Clip
from stages.contract import Array, Stage
from tests.conftest import ROOT
from tests.manifests.test_packs import largest_file
from tests.pipelines.engine.test_engine import computed
from tests.support.files_of_arrays import make_files_of_arrays
from tests.support.helpers import execute, make_files, make_run, manifest, quiet, same_manifest, toy_stages
from tests.support.toys import Length, Root, Square


class Stores(Stage):
    """Stores the length of the name so many times."""

    reads = ("length",)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.writes = {f"of_{name}": Array("[9]", "", "The length.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        return {f"of_{self.name}": np.full(9, clip["length"])}


def packs_of(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in (run / "features").rglob("*") if path.is_file()}


def places_of(run: Path) -> Iterator[dict[str, Any]]:
    """Every entry of the manifest; each must have its stage in `stages`, with that fingerprint."""
    for row in manifest(run).to_dict("records"):
        for place in row["arrays"] if row["arrays"] is not None else ():
            assert place["file"].startswith(f"features/{place['stage']}/{row['stages'][place['stage']]}/")
            yield place


def used_of(run: Path) -> set[str]:
    return {place["file"] for place in places_of(run)}


def powers(run: Path) -> list[list[float]]:
    rows = read_manifest(run)
    return [load_arrays(run, row, "square")["powers"].tolist() for _, row in rows.iterrows()]


@pytest.fixture
def other_root() -> Iterator[None]:
    """A new version of the stage that reads the arrays of Square."""
    Root.version += 1
    yield
    Root.version -= 1


def test_a_thousand_clips_are_few_files(tmp_path: Path) -> None:
    stages = [Length(), *(Stores(f"stage{number}") for number in range(7))]
    execute(stages, make_files(tmp_path / "in", 1000), tmp_path / "out", rows_per_part=50)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) <= 20, files
    rows = read_manifest(tmp_path / "out")
    assert len(rows) == 1000 and rows["arrays"].map(len).eq(7).all()
    for _, row in rows.iloc[::97].iterrows():
        for number in range(7):
            found = load_arrays(tmp_path / "out", row, f"stage{number}")
            assert found[f"of_stage{number}"].tolist() == [row["length"]] * 9


def test_a_pack_is_read_without_this_project(tmp_path: Path) -> None:
    import io

    execute(toy_stages(), make_files(tmp_path / "in", 3), tmp_path / "out")
    row = pd.read_parquet(tmp_path / "out" / "manifest").iloc[2]
    place = row["arrays"][0]
    with (tmp_path / "out" / place["file"]).open("rb") as pack:
        pack.seek(place["offset"])
        arrays = np.load(io.BytesIO(pack.read(place["size"])))
    assert arrays["powers"].tolist() == [12, 144, 1728]


@pytest.mark.usefixtures("other_root")
def test_a_folder_of_before_packs_goes_on(tmp_path: Path) -> None:
    """Its arrays are read where they are; what is computed anew is packed, and the old file goes."""
    log, files, out = tmp_path / "log", make_files(tmp_path / "in", 4), tmp_path / "out"
    Root.version -= 1
    execute(toy_stages(log), files, out)
    Root.version += 1
    before = powers(out)
    old = make_files_of_arrays(out)
    assert len(old) == 4 and "arrays" not in pd.read_parquet(out / "manifest") and powers(out) == before
    computed(log)
    record = execute(toy_stages(log), files, out)  # a stage that reads them
    assert computed(log) == {"root": 4} and record["counts"]["errors"] == 0
    assert packs_of(out) == {str(path.relative_to(out)) for path in old} and powers(out) == before
    # One is lost: its stage is computed again by the run after the one that misses it.
    old[0].write_bytes(b"PK")
    Root.version += 1
    assert execute(toy_stages(log), files, out)["counts"]["errors"] == 1
    assert not old[0].exists()
    assert execute(toy_stages(log), files, out)["counts"]["errors"] == 0
    Root.version -= 1
    assert powers(out) == before and len(used_of(out)) == 1
    assert packs_of(out) == {str(path.relative_to(out)) for path in old[1:]} | used_of(out)
    # Another file of the same name: the same fingerprint, computed anew.
    (files / "clip0001.mp4").write_bytes(b"another file")
    execute(toy_stages(log), files, out)
    assert not old[1].exists() and old[2].exists() and len(list(places_of(out))) == 2
    execute(toy_stages(log, stop_on="none"), files, out)
    assert powers(out) == before and packs_of(out) == used_of(out) and len(list(places_of(out))) == 4


def test_rows_that_are_replaced_or_removed_leave_no_packs(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 6), tmp_path / "out"
    execute(toy_stages(), files, out)
    first = packs_of(out)
    # Another file: only this row's arrays are computed anew, and the pack stays for the others.
    (files / "clip0003.mp4").write_bytes(b"another file")
    execute(toy_stages(), files, out)
    assert first < packs_of(out) == used_of(out) and len(packs_of(out)) == 2
    execute(toy_stages(stop_on="none"), files, out)  # another configuration
    assert packs_of(out) == used_of(out) and not first & packs_of(out) and len(packs_of(out)) == 1
    execute([toy_stages()[0]], files, out)  # the stage is gone
    assert packs_of(out) == set() and list(places_of(out)) == []
    assert not [path for path in (out / "features").rglob("*") if path.parent != out / "features"]


def test_rows_that_are_not_computed_have_no_entries(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 4), tmp_path / "out"
    execute(toy_stages(), files, out)
    execute(toy_stages(raise_on="clip0001.mp4"), files, out)
    assert manifest(out)["arrays"].map(len).tolist() == [1, 0, 1, 1] and packs_of(out) == used_of(out)

    class Plain(Square):
        """Stores no arrays any more."""

        name = "square"
        writes = {"square": Square.writes["square"]}

        def score(self, clip: Clip) -> dict[str, Any]:
            return {"square": super().score(clip)["square"]}

    execute([Length(), Plain()], files, out)
    assert manifest(out)["square"].notna().all() and list(places_of(out)) == [] and not packs_of(out)


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_killed_run_leaves_packs_that_the_next_one_keeps_or_deletes(engine: str, tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 9), tmp_path / "out"
    own = {"kill_on": "clip0005.mp4", "kill_once": str(tmp_path / "once"), "kill_pid": str(out / "pid")}
    command = [sys.executable, "-m", "tests.support.run_toy", str(files), str(out), engine, json.dumps(own)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=240)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    store.prepare(out / "manifest", pq.read_schema(out / "manifest" / "manifest-00000.parquet"))
    committed = store.used_packs(out / "manifest")
    dead = out / "features" / "square" / "0123456789abcdef" / "a-killed-run-01234567.pack"
    dead.parent.mkdir(parents=True)
    dead.write_bytes(b"of rows that were never committed")
    assert committed <= packs_of(out) and (committed or engine == "ray")  # where several work at once
    record = execute(toy_stages(**own), files, out)
    said = [error["message"] for error in manifest(out)["error"].dropna()]
    assert record["counts"]["errors"] == 0, said
    assert not dead.exists() and committed < packs_of(out) == used_of(out)  # two processes, two packs
    execute(toy_stages(**own), files, tmp_path / "calm")
    assert same_manifest(manifest(out), manifest(tmp_path / "calm"))
    assert powers(out) == powers(tmp_path / "calm")


def test_no_pack_is_deleted_while_rows_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are merged in the middle of a run; rows that are in work refer to packs that no file names."""
    files, out = make_files(tmp_path / "in", 6), tmp_path / "out"
    monkeypatch.setattr("pipelines.engine.passes.MERGE_PARTS", 1)
    monkeypatch.setattr("pipelines.engine.passes.MERGE_SECONDS", 0.0)
    seen: list[int] = []
    original = Root.score

    def looks(self: Root, clip: Clip) -> dict[str, Any]:
        seen.append(len(packs_of(out)))
        return original(self, clip)

    monkeypatch.setattr(Root, "score", looks)
    execute(toy_stages(), files, out, rows_per_part=2)
    assert seen == [1] * 6
    seen.clear()
    execute(toy_stages(stop_on="none"), files, out, rows_per_part=2)
    assert seen == [2] * 6 and len(packs_of(out)) == 1


def test_arrays_are_safe_before_their_rows_are_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    add, sync, commit = PackFiles.add, PackFiles.sync, Worker.commit

    def adds(*args: Any) -> Any:
        order.append("add")
        return add(*args)

    def syncs(self: PackFiles) -> None:
        order.append("sync")
        sync(self)

    def commits(*args: Any) -> Any:
        order.append("commit")
        return commit(*args)

    monkeypatch.setattr(PackFiles, "add", adds)
    monkeypatch.setattr(PackFiles, "sync", syncs)
    monkeypatch.setattr(Worker, "commit", commits)
    execute(toy_stages(), make_files(tmp_path / "in", 5), tmp_path / "out", rows_per_part=3)
    assert order == ["add"] * 3 + ["sync", "commit"] + ["add"] * 2 + ["sync", "commit"]


def test_a_disk_that_fills_up_leaves_samples_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write of arrays that is cut off in the middle spoils neither what is before it nor what follows."""
    files, out = make_files(tmp_path / "in", 6), tmp_path / "out"
    add, count = PackFiles.add, 0

    def fills(self: PackFiles, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count != 3:
            return add(self, *args)
        (pack,) = (out / "features").rglob("*.pack")
        try:
            with largest_file(pack.stat().st_size + 40):
                return add(self, *args)
        except OSError as error:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error

    monkeypatch.setattr(PackFiles, "add", fills)
    record = execute(toy_stages(), files, out)
    assert record["counts"]["errors"] == 0 and record["counts"]["due"] == 1
    assert record["faults"] == {
        f"machine fault in square: cannot write into {out}: No space left on device": 1
    }
    assert len(packs_of(out)) == 2 and len(list(places_of(out))) == 5
    assert execute(toy_stages(), files, out)["counts"]["due"] == 0
    assert powers(out) == [[12, 144, 1728]] * 6


def test_arrays_that_cannot_be_made_safe_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, out = make_files(tmp_path / "in", 6), tmp_path / "out"

    def fails(self: PackFiles) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(PackFiles, "sync", fails)
        said = f"cannot write into {out}: Disk quota exceeded; run the same command again to go on"
        with pytest.raises(RunError, match=said):
            make_run(toy_stages(), files, out).execute(quiet())
    assert len(manifest(out)) == 0
    execute(toy_stages(), files, out)
    assert powers(out) == [[12, 144, 1728]] * 6 and packs_of(out) == used_of(out)
