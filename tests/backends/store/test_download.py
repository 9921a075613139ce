"""One download: it goes on where it stopped, and what arrives is the expected file or nothing."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.store.download import Download, DownloadError
from tests.support.model_server import ModelServer

BIG = bytes(range(256)) * 8000  # 2 MB, several pieces


class Counted:
    """The bytes that a download says it got."""

    def __init__(self) -> None:
        self.bytes = 0

    def advance(self, new: int) -> None:
        self.bytes += new


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer({"/big.onnx": BIG}) as made:
        yield made


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def get(server: ModelServer, target: Path, path: str = "/big.onnx", **more: Any) -> Download:
    return Download(f"{server.url}{path}", target, pause_s=0.0, **more)


def test_a_file_arrives_whole(server: ModelServer, tmp_path: Path) -> None:
    told = Counted()
    get(server, tmp_path / "a" / "big", sha256=sha(BIG), size=len(BIG), advance=told.advance).run()
    assert (tmp_path / "a" / "big").read_bytes() == BIG and told.bytes == len(BIG)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["big"]


@pytest.mark.parametrize("known", [True, False])
def test_a_connection_that_breaks_is_gone_on_with(server: ModelServer, tmp_path: Path, known: bool) -> None:
    server.breaks["/big.onnx"] = 3
    told = Counted()
    expected = {"sha256": sha(BIG), "size": len(BIG)} if known else {}
    get(server, tmp_path / "big", advance=told.advance, **expected).run()
    assert (tmp_path / "big").read_bytes() == BIG and told.bytes == len(BIG)
    starts = [int(part.removeprefix("bytes=").rstrip("-") or 0) for _, part in server.requests]
    assert len(starts) == 4 and starts == sorted(set(starts)) and starts[1] > len(BIG) // 3


def test_a_source_that_sends_no_parts_is_read_from_the_start(server: ModelServer, tmp_path: Path) -> None:
    server.ranges = False
    server.breaks["/big.onnx"] = 1
    told = Counted()
    get(server, tmp_path / "big", sha256=sha(BIG), advance=told.advance).run()
    assert (tmp_path / "big").read_bytes() == BIG and told.bytes == len(BIG)


def test_a_part_of_another_version_is_thrown_away(server: ModelServer, tmp_path: Path) -> None:
    (tmp_path / ".big.partial").write_bytes(b"x" * 1000)
    get(server, tmp_path / "big", sha256=sha(BIG)).run()
    assert (tmp_path / "big").read_bytes() == BIG
    # Without a hash the server's own mark of the version decides.
    (tmp_path / ".loose.partial").write_bytes(b"x" * 1000)
    (tmp_path / ".loose.etag").write_text('"older"')
    get(server, tmp_path / "loose").run()
    assert (tmp_path / "loose").read_bytes() == BIG


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server: ModelServer, tmp_path: Path) -> None:
    (tmp_path / ".big.partial").write_bytes(BIG + b"x")
    get(server, tmp_path / "big", sha256=sha(BIG), size=len(BIG)).run()
    assert (tmp_path / "big").read_bytes() == BIG


def test_a_whole_part_is_not_fetched_again(server: ModelServer, tmp_path: Path) -> None:
    (tmp_path / ".big.partial").write_bytes(BIG)
    get(server, tmp_path / "big", sha256=sha(BIG)).run()
    assert (tmp_path / "big").read_bytes() == BIG
    assert [part for _, part in server.requests] == [f"bytes={len(BIG)}-"]


def test_a_wrong_file_is_refused_and_leaves_nothing(server: ModelServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="SHA-256 differs"):
        get(server, tmp_path / "big", sha256=sha(b"other")).run()
    with pytest.raises(DownloadError, match=f"has {len(BIG)} bytes there, 5 are expected"):
        get(server, tmp_path / "big", size=5).run()
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_never_gets_further_is_given_up(server: ModelServer, tmp_path: Path) -> None:
    server.status["/big.onnx"] = 503
    with pytest.raises(DownloadError, match=r"broke off 5 times \(status 503\); the same command goes on"):
        get(server, tmp_path / "big").run()
    assert len(server.requests) == 5
    server.status["/big.onnx"] = 404
    with pytest.raises(DownloadError, match="status 404"):
        get(server, tmp_path / "big").run()
    assert len(server.requests) == 6


def test_other_addresses_are_read_and_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "origin").write_bytes(BIG)
    (tmp_path / ".copy.partial").write_bytes(BIG[:1000])
    told = Counted()
    Download(f"file://{tmp_path}/origin", tmp_path / "copy", sha(BIG), advance=told.advance).run()
    assert (tmp_path / "copy").read_bytes() == BIG and told.bytes == len(BIG)
    with pytest.raises(DownloadError, match="no such file"):
        Download(f"file://{tmp_path}/nothing", tmp_path / "copy2").run()


def test_a_download_that_is_stopped_goes_on_later(server: ModelServer, tmp_path: Path) -> None:
    server.hold = threading.Event()
    download = get(server, tmp_path / "big", sha256=sha(BIG))
    failed: list[BaseException] = []

    def run() -> None:
        try:
            download.run()
        except InterruptedError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert server.held.wait(30)
    download.stop.set()
    server.hold.set()
    thread.join(30)
    assert len(failed) == 1 and not (tmp_path / "big").exists()
    server.hold = None
    get(server, tmp_path / "big", sha256=sha(BIG)).run()
    assert (tmp_path / "big").read_bytes() == BIG
