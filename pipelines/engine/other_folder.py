"""Two folders of one name must not overwrite each other's samples; one that was moved or copied may."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from manifests import storage, store
from manifests.text import one_line, public_text
from pipelines.engine.source import ADDRESS, InputError, Listing

# Of a folder that lies elsewhere now so many files are looked at, evenly spread: each may be a request.
LOOKS = 16
# Compared of two files at either end, bytes.
PIECE = 1 << 16


def refuse_other_folder(listing: Listing, manifest: Path) -> None:
    """Refuse an input whose samples have the ids of other files that the manifest holds.

    A sample's id holds no absolute path, so that a folder keeps its results when it is moved. Its files are
    then gone from the old place, or are the same there.

    Raises:
        InputError: a file of the same id is still there, or may be, and is another one.
    """
    elsewhere: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for before, uri in _that_differ(listing, store.read(manifest, ["sample_id", "source_uri"])):
        if before and uri and public_text(uri) != public_text(before):
            elsewhere[_folders(before, uri)].append((before, uri))
    looks = [pair for pairs in elsewhere.values() for pair in _spread(pairs)]
    is_remote = any("://" in before + uri for before, uri in looks)
    for (before, uri), other in zip(looks, storage.each(_is_other, looks, is_remote), strict=True):
        if other:
            old, new = (one_line(public_text(address)) for address in (before, uri))
            raise InputError(
                f"the output already holds {old}, which is still there (or cannot be looked at) and is not "
                f"the same file as {new}: two folders of one name; name this one with --set source=NAME, or "
                "choose another --output"
            )


def _that_differ(listing: Listing, held: pa.Table) -> Iterable[tuple[str, str]]:
    """Addresses of the samples that a manifest holds, in its order: its own and another one as listed."""
    listed = pc.coalesce(listing.table[ADDRESS], listing.table["source_uri"])
    listed = listed.take(pc.index_in(held["sample_id"], value_set=listing.ids))
    differs = pc.not_equal(held["source_uri"], listed)  # null, which is no difference, where one is missing
    columns = (column.filter(differs).to_pylist() for column in (held["source_uri"], listed))
    return zip(*columns, strict=True)


def _folders(one: str, other: str) -> tuple[str, str]:
    """What is left of two addresses without the path that they share at their ends."""
    first, second = one.split("/"), other.split("/")
    while len(first) > 1 and len(second) > 1 and first[-1] == second[-1]:
        first.pop()
        second.pop()
    return "/".join(first), "/".join(second)


def _spread(pairs: list[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """At most `LOOKS` of them, the first and the last among them."""
    last = len(pairs) - 1
    return [pairs[i] for i in sorted({round(k * last / (LOOKS - 1)) for k in range(LOOKS)})]


def _is_other(pair: tuple[str, str]) -> bool:
    """Whether both files are there and differ; True where that cannot be found out."""
    before, now = pair
    if not storage.exists(before):
        return False
    try:
        return _ends(before) != _ends(now)
    except Exception:  # a store's client without a network, a key or such a file raises what it likes
        return True


def _ends(address: str) -> tuple[int, bytes, bytes]:
    """Size of a file, and its first and last bytes."""
    if "://" not in address or address.startswith("file://"):
        opened = storage.folder_of(address).open("rb")
    else:
        fs, inside = fsspec.url_to_fs(address)
        opened = fs.open(inside, "rb", block_size=PIECE)
    with opened as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(PIECE)
        file.seek(max(0, size - PIECE))
        return size, head, file.read(PIECE)
