"""What names a sample anywhere below some folders: in names, raw bytes, tables, archives and arrays."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import storage


def traces(folders: Iterable[Path], needles: Sequence[str | bytes]) -> list[str]:
    """File and needle of each find; nothing is found where nothing names a sample."""
    wanted = [n.encode() if isinstance(n, str) else n for n in needles]
    assert all(wanted)
    found = []
    for folder in folders:
        for path in storage.below(folder):
            name = "/".join(path.parts[len(folder.parts) :])
            for where, data in _contents(name, storage.read_bytes(path)):
                found += [f"{where}: {needle[:40]!r}" for needle in wanted if needle in data]
    return found


def _contents(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """A file's name, its bytes, and those of all that is packed in it."""
    yield f"name of {name}", name.encode()
    yield name, data
    if data[:4] == b"PAR1":
        yield name, _values(pq.read_table(pa.BufferReader(data)))
    elif data[:6] == b"ARROW1":
        yield name, _values(pa.ipc.open_file(pa.BufferReader(data)).read_all())
    elif data[:2] == b"\x1f\x8b":
        yield from _contents(f"{name}!gz", gzip.decompress(data))
    elif name.endswith(".tar"):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                yield from _contents(f"{name}!{member.name}", file.read())
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield from _contents(f"{name}!{member}", archive.read(member))


def _values(table: pa.Table) -> bytes:
    return repr((table.schema.metadata, table.to_pylist())).encode()
