"""Folders of one name: another one is refused, the same one moved or copied keeps its results."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest

from manifests.screen import EVERYTHING
from pipelines.engine import other_folder
from pipelines.engine.other_folder import LOOKS, refuse_other_folder
from pipelines.engine.source import InputError, list_input
from stages.clip import Clip
from stages.contract import Column, Stage
from tests.support.helpers import execute, make_files, manifest, toy_stages
from tests.support.object_store import BUCKET, s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with s3_server():
        yield


class Size(Stage):
    """Bytes of the file; where it lies is nothing to it."""

    reads = ("source_size",)
    writes: ClassVar = {"bytes": Column("int", "bytes", "Size of the file.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        return {"bytes": clip["source_size"]}


def put(folder: str, files: dict[str, bytes]) -> str:
    """Files at an address in the bucket."""
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    for name, data in files.items():
        fs.pipe_file(f"{BUCKET}/{folder}/{name}", data)
    return f"s3://{BUCKET}/{folder}"


def of(output: Path) -> dict[str, Any]:
    """Sample -> where it is from."""
    rows = manifest(output)
    return dict(zip(rows["sample_id"], rows["source_uri"], strict=True))


A, B = {f"{i}.mp4": b"a" * (i + 1) for i in range(5)}, {f"{i}.mp4": b"b" * (i + 1) for i in range(5)}


def test_two_remote_folders_of_one_name_do_not_overwrite_each_other(server: None, tmp_path: Path) -> None:
    a, b = put("customer-a/videos", A), put("customer-b/videos", B)  # of the same names and sizes
    execute(toy_stages(), a, tmp_path / "out")
    before = of(tmp_path / "out")
    with pytest.raises(InputError, match=r"holds s3://data/customer-a/videos/0.mp4.*--set source=NAME"):
        execute(toy_stages(), b, tmp_path / "out")
    assert of(tmp_path / "out") == before and len(before) == 5
    assert execute(toy_stages(), a, tmp_path / "out")["counts"]["reused"] == 5


def test_a_local_and_a_remote_folder_of_one_name_neither(server: None, tmp_path: Path) -> None:
    there = put("mixed/videos", A)
    here = tmp_path / "videos"
    here.mkdir()
    for name, data in B.items():
        (here / name).write_bytes(data)
    execute(toy_stages(), here, tmp_path / "out")
    with pytest.raises(InputError, match=f"holds {here}/0.mp4"):
        execute(toy_stages(), there, tmp_path / "out")
    assert len(manifest(tmp_path / "out")) == 5


@pytest.mark.parametrize("how", ["moved", "copied", "uploaded"])
def test_the_same_folder_elsewhere_keeps_its_results(server: None, tmp_path: Path, how: str) -> None:
    first = make_files(tmp_path / "a" / "videos", 5)
    execute([Size()], first, tmp_path / "out", screen=EVERYTHING)
    if how == "uploaded":
        second: Path | str = put("c/videos", {p.name: p.read_bytes() for p in first.iterdir()})
    else:
        second = tmp_path / "b" / "videos"
        shutil.copytree(first, second)
    if how == "moved":
        shutil.rmtree(first)
    ids = set(of(tmp_path / "out"))
    record = execute([Size()], second, tmp_path / "out", screen=EVERYTHING)
    assert record["counts"]["reused"] == 5 and set(of(tmp_path / "out")) == ids
    assert all(uri.startswith(str(second)) for uri in of(tmp_path / "out").values())


def test_a_file_far_into_the_folder_is_enough_to_refuse(tmp_path: Path) -> None:
    """The first files are gone from the old place; one look at them would say `moved`."""
    first, second = make_files(tmp_path / "a" / "in", 40), make_files(tmp_path / "b" / "in", 40)
    execute(toy_stages(), first, tmp_path / "out")
    for file in sorted(first.iterdir())[:30]:
        file.unlink()
    for file in second.iterdir():
        file.write_bytes(b"y" * file.stat().st_size)
    with pytest.raises(InputError, match=r"a/in/clip00[3]\d.mp4"):
        execute(toy_stages(), second, tmp_path / "out")
    assert len(manifest(tmp_path / "out")) == 40


def test_what_cannot_be_looked_at_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(toy_stages(), make_files(tmp_path / "a" / "in", 2), tmp_path / "out")
    listing = list_input(str(make_files(tmp_path / "b" / "in", 2)))

    def denied(address: str) -> Any:
        raise PermissionError(13, "Permission denied", address)

    monkeypatch.setattr(other_folder, "_ends", denied)
    with pytest.raises(InputError, match="or cannot be looked at"):
        refuse_other_folder(listing, tmp_path / "out" / "manifest")


def test_a_few_files_of_each_folder_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(toy_stages(), make_files(tmp_path / "a" / "in", 100), tmp_path / "out")
    listing = list_input(str(make_files(tmp_path / "b" / "in", 100)))
    looks: list[tuple[str, str]] = []
    monkeypatch.setattr(other_folder, "_is_other", looks.append)
    refuse_other_folder(listing, tmp_path / "out" / "manifest")
    assert len(looks) == len(set(looks)) == LOOKS
    assert all(Path(one).name == Path(other).name for one, other in looks)
    assert {Path(looks[0][0]).name, Path(looks[-1][0]).name} == {"clip0000.mp4", "clip0099.mp4"}


def write_list(path: Path, uris: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["uri", *uris]))
    return path


def test_lists_of_one_name_do_not_overwrite_each_other(server: None, tmp_path: Path) -> None:
    """Paths relative to two lists are of one id, addresses in two places of a store are not."""
    lists = []
    for name, data in (("a", b"a"), ("b", b"b")):
        uri = f"{put(f'lists-{name}/videos', {'0.mp4': data})}/0.mp4"
        lists.append(write_list(tmp_path / name / "list.csv", ["0.mp4", uri]))
        (tmp_path / name / "0.mp4").write_bytes(data)
    execute([Size()], lists[0], tmp_path / "out", screen=EVERYTHING)
    before = of(tmp_path / "out")
    with pytest.raises(InputError, match=f"holds {tmp_path}/a/0.mp4.*--set source=NAME"):
        execute([Size()], lists[1], tmp_path / "out", screen=EVERYTHING)
    assert of(tmp_path / "out") == before and len(before) == 2
    write_list(lists[1], [f"s3://{BUCKET}/lists-{name}/videos/0.mp4" for name in "ab"])
    execute([Size()], lists[1], tmp_path / "out", screen=EVERYTHING)
    assert before.items() <= of(tmp_path / "out").items() and len(of(tmp_path / "out")) == 3
