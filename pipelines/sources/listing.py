"""A published data set as a listing: what its reader gives, with its files, and what is told of the rest."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.engine.addresses import MEDIA
from pipelines.engine.input_error import InputError
from pipelines.engine.lists import URI
from pipelines.engine.settings import SourceSettings
from pipelines.engine.source import Listing, Told, list_table
from pipelines.sources.names import split_name
from pipelines.sources.reader import Reader, Tree, folders_in
from pipelines.sources.table import READERS

UNLISTED = " not in the data set's list"


def named(text: str) -> tuple[str, str] | None:
    """Name of the data set and path of its folder that an `--input` gives; None: it is a path or an address.

    Raises:
        InputError: there is no such data set.
    """
    return split_name(text, READERS)


def list_source(
    name: str,
    path: str,
    source: str | None,
    suffixes: frozenset[str],
    owned: frozenset[str],
    sources: SourceSettings,
    limit: int | None,
    told: Told,
) -> Listing:
    """The samples of a data set.

    Args:
        name: of the data set, a key of `READERS`.
        path: of its folder, on this machine.
        source, suffixes, owned, sources, limit, told: as of `pipelines.engine.source.list_input`.

    Raises:
        InputError: the folder is not there, is not one of this data set, or holds no sample.
    """
    reader = READERS[name]
    if reader.kind == "video" and ".mp4" not in suffixes:
        raise InputError(f"{reader.title} holds videos, and this pipeline takes pictures")
    if "://" in path:
        raise InputError(f"{name} is read from a folder of this machine or a mounted one, not from {path}")
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"no such folder: {path} (of --input {name}:{path})")
    if not reader.looks_like(root):
        raise InputError(_not_this(name, reader, root, path))
    tree = Tree(root.absolute(), suffixes)
    table = reader.read(tree)
    if not table.num_rows:
        raise InputError(f"{path} holds no sample of {reader.title or name}; looked for {reader.looks_for}")
    if name == "webdataset":
        sources = sources.model_copy(update={"schemes": [*sources.schemes, "tar"]})
    ignored = _ignored(tree, table) if limit is None else Counter[str]()
    title = source or reader.title or tree.root.resolve().name
    beside = str(tree.root / "list")  # what addresses of the table are relative to
    found = [name for name in MEDIA.names if name in table.column_names]
    return list_table(table.slice(0, limit), {}, beside, title, owned, sources, told, ignored, found)


def _not_this(name: str, reader: Reader, root: Path, path: str) -> str:
    """The error of a folder that is not one of this data set."""
    said = f"{path} does not look like {reader.title or name}: looked for {reader.looks_for}"
    for inner in folders_in(root)[:200]:
        if reader.looks_like(inner):
            return f"{said}; {inner} does: --input {name}:{inner}"
    for other, theirs in READERS.items():
        if other != name and theirs.looks_like(root):
            return f"{said}; this looks like {theirs.title or other}: --input {other}:{path}"
    if reader.looks_like(root.absolute().parent):
        return f"{said}; the folder above does: --input {name}:{root.absolute().parent}"
    return said


def _ignored(tree: Tree, table: pa.Table) -> Counter[str]:
    """How many files are passed over: media that no row names, and files of other types, by suffix."""
    listed = set(pc.unique(table[URI]).to_pylist())
    if "shard" in table.column_names:
        listed |= set(pc.unique(table["shard"]).to_pylist())
    media = set(tree.media)
    ignored: Counter[str] = Counter()
    for name in tree.files:
        suffix = Path(name).suffix.lower() or "none"
        if name not in listed:
            ignored[suffix + UNLISTED if name in media else suffix] += 1
    return ignored
