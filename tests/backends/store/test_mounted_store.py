"""A store on a network mount: each node copies a model once where there is room, else reads it in place."""

from __future__ import annotations

import multiprocessing
import pickle
from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from backends.store import copied_weights, mounts
from backends.store.copied_weights import ModelStoreError
from backends.store.model_store import ModelStore
from backends.store.mounts import Mount, mount_of
from backends.store.weights import Weights

FILES = {"config.json": b"{}", "deep/model.safetensors": b"w" * 3000}
Usage = namedtuple("Usage", "total used free")


def table(path: Path, mounted: Mapping[Path | str, str]) -> Path:
    """A mount table as the kernel writes it."""
    lines = []
    for i, (point, kind) in enumerate(mounted.items()):
        name = str(point).replace(" ", r"\040")
        lines.append(f"{20 + i} 1 0:{i} / {name} rw,relatime shared:1 - {kind} host:/x rw\n")
    path.write_text("".join(lines))
    return path


def test_the_mount_of_a_path(tmp_path: Path) -> None:
    inner, spaced = tmp_path / "net" / "inner", tmp_path / "a b"
    for folder in (inner, spaced):
        folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(inner)
    made = table(
        tmp_path / "table",
        {"/": "ext4", tmp_path / "net": "nfs4", inner: "xfs", spaced: "fuse.s3fs", f"{tmp_path}/ne": "9p"},
    )
    for path, point, kind in (
        (tmp_path / "x", Path("/"), "ext4"),
        (tmp_path / "net" / "not" / "there", tmp_path / "net", "nfs4"),
        (tmp_path / "network", Path("/"), "ext4"),
        (tmp_path / "link" / "y", inner, "xfs"),
        (spaced / "y", spaced, "fuse.s3fs"),
    ):
        assert mount_of(path, made) == Mount(point, kind), path
    over = table(tmp_path / "over", {"/": "ext4"})
    over.write_text(over.read_text() + over.read_text().replace("ext4", "nfs"))
    assert mount_of(tmp_path, over) == Mount(Path("/"), "nfs")
    assert mount_of(tmp_path, tmp_path / "none") is None
    network = ("nfs", "cifs", "lustre", "ceph", "beegfs", "gpfs", "9p", "fuse", "fuse.sshfs", "fuse.gcsfuse")
    assert all(Mount(Path("/"), kind).is_network for kind in network)
    local = ("ext4", "xfs", "overlay", "tmpfs", "btrfs", "zfs", "fuseblk", "fuse.fuse-overlayfs")
    assert not any(Mount(Path("/"), kind).is_network for kind in local)


def test_this_machine_has_a_mount_table() -> None:
    root = mount_of(Path("/"))
    assert root is not None and root.point == Path("/") and root.kind


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Weights:
    """A model in a store on NFS; the cache lies on this machine's disk, which has room."""
    monkeypatch.setattr(mounts, "TABLE", table(tmp_path / "table", {"/": "ext4", tmp_path / "net": "nfs4"}))
    monkeypatch.setattr(copied_weights, "_said", set())
    monkeypatch.setattr(copied_weights.shutil, "disk_usage", lambda _: Usage(100_000, 0, 100_000))
    monkeypatch.setenv("INTERAVATAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INTERAVATAR_LOCAL_MODELS", raising=False)
    for name, content in FILES.items():
        path = tmp_path / "net" / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    store = ModelStore(tmp_path / "net")
    store.record(["mine"])
    return store.weights("mine")


def test_a_model_on_a_mount_is_copied_when_first_used(
    weights: Weights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sent = pickle.loads(pickle.dumps(weights))
    assert sent == weights and hash(sent) == hash(weights) and not (tmp_path / "cache").exists()
    assert sent.folder.is_relative_to(tmp_path / "cache" / "copies")
    for name, content in FILES.items():
        assert sent.file(name).read_bytes() == content
    (tmp_path / "net" / "mine" / "config.json").unlink()
    assert weights.file("config.json").read_bytes() == b"{}"  # not looked for again
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_no_list_names_is_copied_too(weights: Weights, tmp_path: Path) -> None:
    own = ModelStore(tmp_path / "elsewhere").weights(str(tmp_path / "net" / "mine"))
    assert own.folder.is_relative_to(tmp_path / "cache") and own.file("config.json").read_bytes() == b"{}"


def test_a_variable_names_the_folder_or_forbids_copies(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERAVATAR_LOCAL_MODELS", "")
    assert weights.folder == tmp_path / "net" / "mine"
    monkeypatch.setenv("INTERAVATAR_LOCAL_MODELS", str(tmp_path / "nvme"))
    assert weights.folder.is_relative_to(tmp_path / "nvme")
    # Whatever kind of mount the store is on, but not from a disk to itself.
    kinds = {"/": "ext4", tmp_path / "net": "unheard-of"}
    monkeypatch.setattr(mounts, "TABLE", table(tmp_path / "table", kinds))
    monkeypatch.setenv("INTERAVATAR_LOCAL_MODELS", str(tmp_path / "other"))
    assert weights.folder.is_relative_to(tmp_path / "other")
    monkeypatch.setattr(mounts, "TABLE", table(tmp_path / "table", {"/": "nfs4"}))
    assert weights.folder == tmp_path / "net" / "mine"


def test_a_store_on_a_disk_is_read_in_place(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kinds in ({"/": "ext4"}, {"/": "overlay", tmp_path / "net": "xfs"}):
        monkeypatch.setattr(mounts, "TABLE", table(tmp_path / "table", kinds))
        assert weights.folder == tmp_path / "net" / "mine"
    monkeypatch.setattr(mounts, "TABLE", tmp_path / "no-such-table")
    assert weights.folder == tmp_path / "net" / "mine"
    assert not (tmp_path / "cache").exists()


def test_without_room_it_is_read_in_place_and_said_once(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """3002 bytes, beside a tenth of the disk."""
    place = tmp_path / "net" / "mine"
    monkeypatch.setattr(copied_weights.shutil, "disk_usage", lambda _: Usage(10_000, 6_000, 4_001))
    assert [weights.folder, weights.folder, weights.file("config.json").parent] == [place] * 3
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"mine is read from its mount, {place}: 0.0 GB are to be copied from {place}")
    assert "10% of the disk" in line and line.endswith("INTERAVATAR_LOCAL_MODELS names another folder")
    assert [p.suffix for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [".lock"]
    monkeypatch.setattr(copied_weights.shutil, "disk_usage", lambda _: Usage(10_000, 5_998, 4_002))
    assert weights.folder != place  # a later worker finds room


def test_a_cache_on_a_mount_too_or_not_writable_is_said(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "net" / "mine"
    kinds = {"/": "ext4", tmp_path / "net": "nfs4", tmp_path / "cache": "cifs"}
    monkeypatch.setattr(mounts, "TABLE", table(tmp_path / "table", kinds))
    assert weights.folder == place
    assert "copies is on a network mount too (cifs); INTERAVATAR_LOCAL_MODELS names" in capfd.readouterr().err
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTERAVATAR_LOCAL_MODELS", str(tmp_path / "file"))
    assert weights.folder == place
    assert "mine: no copy can be made: " in capfd.readouterr().err


def test_another_file_than_the_recorded_one_is_refused(weights: Weights, tmp_path: Path) -> None:
    (tmp_path / "net" / "mine" / "deep" / "model.safetensors").write_bytes(b"v" * 3000)
    with pytest.raises(ModelStoreError, match=r"mine/deep/model\.safetensors is not the recorded file"):
        _ = weights.folder
    (tmp_path / "net" / "mine" / "config.json").unlink()
    with pytest.raises(ModelStoreError, match=r"mine/config\.json is missing"):
        _ = weights.folder
    assert [p.suffix for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [".lock"]


def ask(weights: Weights, mounted: Path, together: Any, answers: Any) -> None:
    """In another process: where the model lies, and how many files that one copied."""
    copied = []
    original = copied_weights._copy_file

    def counted(source: str, file: str, *more: Any) -> None:
        copied.append(file)
        original(source, file, *more)

    mounts.TABLE = mounted  # type: ignore[misc]
    copied_weights._copy_file = counted
    together.wait()
    answers.put((str(weights.folder), len(copied)))


def test_two_processes_at_once_copy_once(weights: Weights, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    together, answers = spawn.Barrier(2), spawn.Queue()
    started = [
        spawn.Process(target=ask, args=(weights, tmp_path / "table", together, answers)) for _ in range(2)
    ]
    for process in started:
        process.start()
    found = [answers.get(timeout=120) for _ in started]
    for process in started:
        process.join()
    assert len({folder for folder, _ in found}) == 1 and str(tmp_path / "cache") in found[0][0]
    assert sorted(count for _, count in found) == [0, len(FILES)]
