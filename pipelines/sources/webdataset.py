"""A folder of tar files in the WebDataset format.

Facts, of the documentation (https://huggingface.co/docs/hub/datasets-webdataset) and of webdataset itself:

- Members that follow each other and share the name up to its first dot are one sample: `a/0001.mp4`,
  `a/0001.json`, `a/0001.txt`. Labels and metadata stand in `.json`, captions in `.txt`.

A sample is a member that is media. Its address is `tar://MEMBER::file://TAR`, which opens it inside the
archive: for the time of the work it is copied out, and the archive's directory is read each time. The caption
is the text of `.txt`, or else what a JSON object calls caption, text, prompt or description; the whole JSON
is kept as text. Archives are not compressed (`.tar`); a sample with several media is several samples.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.schema import Field
from pipelines.engine.addresses import INSIDE, PROBLEM
from pipelines.engine.input_error import InputError
from pipelines.sources.huggingface import CAPTIONS
from pipelines.sources.reader import CAPTION, Reader, Row, Tree, folders_in, names_in, table_of

LARGEST_TEXT = 1 << 20  # bytes of a member that is read as text
COLUMNS = {
    "caption": CAPTION,
    "key": Field("string", "", "Name of the sample in its archive."),
    "shard": Field("string", "", "The archive, relative to the data set's folder."),
    "metadata": Field("string", "JSON", "The sample's JSON."),
}


def looks_like(root: Path) -> bool:
    """Whether there is a tar file in it, or in one of its folders."""
    folders = [root, *folders_in(root)[:200]]
    return any(name.endswith(".tar") for folder in folders for name in names_in(folder))


def read(tree: Tree) -> pa.Table:
    """The media in the archives.

    Raises:
        InputError: one cannot be read.
    """
    rows: list[Row] = []
    for name in tree.files:
        if name.endswith(".tar"):
            rows += _samples(tree, name)
    return table_of(rows, COLUMNS)


def _samples(tree: Tree, shard: str) -> Iterator[Row]:
    try:
        with tarfile.open(tree.path(shard), "r:") as archive:
            members = [member for member in archive if member.isfile()]
            texts = {m.name: _text(archive, m) for m in members if m.name.endswith((".txt", ".json"))}
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"cannot read {tree.path(shard)}: {error}") from None
    for member in members:
        if not member.name.lower().endswith(tuple(tree.suffixes)):
            continue
        folder, slash, base = member.name.rpartition("/")
        key = folder + slash + base.partition(".")[0]
        about = texts.get(f"{key}.json")
        yield {
            "uri": f"tar://{member.name}::file://{tree.path(shard).absolute()}",
            INSIDE: f"{shard}/{member.name}".encode("utf-8", "surrogateescape"),
            "source_size": member.size,
            PROBLEM: _problem(member.name),
            "caption": texts.get(f"{key}.txt") or _said(about),
            "key": key,
            "shard": shard,
            "metadata": about,
        }


def _problem(name: str) -> str | None:
    """Why a member has no address; None: it has one."""
    if any(mark in name for mark in ("::", "://")):
        return f"the member {name!r} cannot be addressed: :: and :// part addresses"
    return None


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    file = archive.extractfile(member) if member.size <= LARGEST_TEXT else None
    return None if file is None else file.read().decode("utf-8", "replace").strip() or None


def _said(about: str | None) -> str | None:
    """The caption in a sample's JSON."""
    try:
        given: Any = json.loads(about or "null")
    except ValueError:
        return None
    if not isinstance(given, dict):
        return None
    return next((given[name] for name in CAPTIONS if isinstance(given.get(name), str)), None)


READER = Reader(
    title="",
    looks_for="tar files whose members share their names, such as 0001.mp4, 0001.txt and 0001.json",
    looks_like=looks_like,
    read=read,
    licence="",
    columns=COLUMNS,
    kind="any",
)
