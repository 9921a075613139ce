"""Copies of remote files: whole from any server, or an error that gives no key away."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from media.files import local_copy
from tests.support.file_server import file_server

# More than fsspec asks for at once (5 MB), no two blocks alike.
BIG = b"".join(i.to_bytes(8, "big") for i in range(1_500_000))
KEY = "?X-Amz-Signature=d0n0ttell&token=d0n0ttell"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    (folder / "big.mp4").write_bytes(BIG)
    (folder / "broken.mp4").write_bytes(BIG)
    (folder / "100% ä #1.mp4").write_bytes(b"odd")
    (folder / "empty.mp4").write_bytes(b"")
    with zipfile.ZipFile(folder / "small.zip", "w") as archive:
        archive.writestr("inside.mp4", b"in a zip")
    return folder


@pytest.fixture(scope="module")
def address(served: Path) -> Iterator[str]:
    with file_server(served) as address:
        yield address


@pytest.mark.parametrize("chain", ["", "simplecache::"])
def test_a_large_file_of_a_server_without_ranges_is_copied(address: str, chain: str) -> None:
    with local_copy(f"{chain}{address}/big.mp4") as path:
        assert path.read_bytes() == BIG and path.is_relative_to(tempfile.gettempdir())
    assert not path.exists()


def test_small_odd_and_packed_files_are_copied(address: str, served: Path) -> None:
    expected = {
        f"{address}/100%25%20%C3%A4%20%231.mp4": b"odd",
        f"{address}/empty.mp4": b"",
        f"zip://inside.mp4::simplecache::{address}/small.zip": b"in a zip",
        f"zip://inside.mp4::{served}/small.zip": b"in a zip",
    }
    for uri, content in expected.items():
        with local_copy(uri) as path:
            assert path.read_bytes() == content, uri


@pytest.mark.parametrize("chain", ["", "simplecache::"])
def test_a_server_that_breaks_off_is_an_error_every_time(address: str, chain: str) -> None:
    for _ in range(2):
        with (
            pytest.raises(ConnectionError, match=r"broke off|6000000 of 12000000 bytes"),
            local_copy(f"{chain}{address}/broken.mp4"),
        ):
            pass


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("missing.mp4", FileNotFoundError, "no such file"),
        ("secret.mp4", PermissionError, "403"),
        ("broken.mp4", ConnectionError, "broke off"),
    ],
)
def test_no_key_of_an_address_is_told(address: str, name: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught, local_copy(f"{address}/{name}{KEY}"):
        pass
    assert "d0n0ttell" not in str(caught.value) and caught.value.__suppress_context__


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files lie."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("uri", "limits", "kind", "message"),
    [
        ("{}/endless.mp4", (10**7, 60.0), OSError, "{}/endless.mp4 is larger than 10000000 bytes"),
        ("{}/vast.mp4", (10**7, 60.0), OSError, "{}/vast.mp4 is larger than 10000000 bytes"),
        ("{}/big.mp4", (len(BIG) - 1, 60.0), OSError, "{}/big.mp4 is larger than 11999999 bytes"),
        ("simplecache::{}/vast.mp4", (10**7, 60.0), OSError, "simplecache::{}/vast.mp4 is larger than"),
        ("zip://inside.mp4::{}", (7, 60.0), OSError, "zip://inside.mp4::{} is larger than 7 bytes"),
        ("memory://entrances/big.mp4", (99, 60.0), OSError, "memory://entrances/big.mp4 is larger than 99"),
        ("{}/trickle.mp4", (10**7, 0.3), TimeoutError, "{}/trickle.mp4 was not downloaded within 0.3 s"),
        ("{}/endless.mp4", (10**15, 0.3), TimeoutError, "{}/endless.mp4 was not downloaded within 0.3 s"),
        ("memory://entrances/big.mp4", (10**7, 0.0), TimeoutError, "big.mp4 was not downloaded within 0 s"),
    ],
)
def test_a_download_has_an_end(
    address: str,
    served: Path,
    temporary: Path,
    uri: str,
    limits: tuple[int, float],
    kind: type[Exception],
    message: str,
) -> None:
    """Its error names the address without its key, and the limit; nothing of it stays on the disk."""
    with fsspec.open("memory://entrances/big.mp4", "wb") as file:
        file.write(bytes(100))
    place, key = (str(served / "small.zip"), "") if uri.startswith("zip") else (address, KEY)
    key = "" if uri.startswith("memory") else key
    with pytest.raises(kind) as caught, local_copy(uri.format(place) + key, *limits):
        pass
    assert message.format(place) in str(caught.value)
    assert "d0n0ttell" not in str(caught.value)
    assert not [path for path in temporary.rglob("*") if path.is_file()]


def test_a_silent_server_is_an_error_that_says_so(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("media.files.SILENCE_S", 0.01)
    with pytest.raises(TimeoutError, match="the server was silent for"), local_copy(f"{address}/trickle.mp4"):
        pass


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError), local_copy(f"http://127.0.0.1:9/a.mp4{KEY}"):
        pass
