"""Arrays as the bytes of a `.npz`: they come back as they were, and whatever harms them is a ValueError."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from manifests.features import arrays_of, load, npz_of
from manifests.shards import ShardError, read_arrays

ARRAYS = {
    "few": np.linspace(0, 1, 30, dtype=np.float32).reshape(6, 5),
    "one": np.float32(3),
    "none": np.zeros((0, 4)),
    "words": np.array(["a", "bc"]),
}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    (tmp_path / "a.npz").write_bytes(npz_of(ARRAYS))
    return tmp_path / "a.npz"


def are_whole(arrays: dict[str, np.ndarray]) -> bool:
    same = (np.array_equal(arrays[name], right) for name, right in ARRAYS.items() if name in arrays)
    return arrays.keys() == ARRAYS.keys() and all(same)


def test_arrays_come_back(stored: Path) -> None:
    arrays = load(stored)
    assert are_whole(arrays) and arrays["few"].dtype == np.float32 and arrays["few"].flags.writeable
    with pytest.raises(FileNotFoundError):
        load(stored.with_name("b.npz"))


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_is_harmed_anywhere_is_whole_or_a_value_error(stored: Path) -> None:
    """Each byte in turn, and many lengths; the kinds of error below are many (zlib.error, KeyError, ...)."""
    whole, found = stored.read_bytes(), 0
    rng = random.Random(7)
    harmed = [whole[:size] for size in range(0, len(whole), 5)]
    for place in range(len(whole)):
        for mask in (0xFF, 1 << rng.randrange(8)):
            harmed.append(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
    for data in harmed:
        try:
            assert are_whole(arrays_of(data))
        except ValueError:
            found += 1
    assert found > len(harmed) / 2


def member(header: bytes, data: bytes = b"") -> bytes:
    """A `.npz` of one member whose header says anything."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        text = header.ljust(117) + b"\n"
        archive.writestr("few.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)
    return sink.getvalue()


def pickled() -> bytes:
    sink = io.BytesIO()
    np.savez(sink, few=np.array([{}, None], object))
    return sink.getvalue()


def bare() -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.zeros(3))
    return sink.getvalue()


def foreign() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("few.txt", "no array")
    return sink.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 1000,
        b"PK\x05\x06",
        bare(),
        foreign(),
        pickled(),
        member(b"{'descr': '<f8', 'fortran_order': False, 'shape': (2000000000, 2000000000)}", b"\0" * 64),
        member(b"{'descr': '<f8', 'fortran_order': False, 'shape': (2000000000,)}", b"\0" * 64),
        member(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}", b"\0" * 64),
        member(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"\0" * 64),
        member(b"{'descr': 'x', 'shape': 3}"),
        member(b"(" * 60),
    ],
)
def test_what_no_arrays_are_names_the_file_and_the_way_out(stored: Path, data: bytes) -> None:
    stored.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.npz is damaged \(.+\); delete it and run again"):
        load(stored)
    with pytest.raises(ShardError, match="arrays of a sample are damaged"):
        read_arrays(data)
