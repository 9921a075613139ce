"""A folder in the layout that Hugging Face's `datasets` reads as a VideoFolder or ImageFolder.

Facts, of the documentation (https://huggingface.co/docs/datasets/video_dataset and /docs/hub/datasets-video):

- A file `metadata.csv`, `metadata.jsonl` or `metadata.parquet` lies beside the media, or in each folder of a
  split. Its column `file_name`, or one that ends in `_file_name`, is the path of the media relative to it.
- The card README.md begins with YAML between `---`, whose `license` is an id such as `cc-by-4.0`.

The first of the columns `caption`, `text`, `prompt` and `description` is the caption. All others are kept as
they are. A folder called train, validation or test above a file is its split. Media inside Parquet files are
not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from pipelines.engine.lists import LIST_SUFFIXES, URI
from pipelines.sources.reader import CAPTION, SPLIT, Reader, Tree, described, folders_in
from pipelines.sources.tables import read_tables, texts

CAPTIONS = ("caption", "text", "prompt", "description")
MOST_FOLDERS = 5000
SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing")
COLUMNS = {"caption": CAPTION, "source_split": SPLIT}


def looks_like(root: Path) -> bool:
    """Whether there is a metadata file, in the folder or up to two folders below."""
    return next(_lists(root), None) is not None


def _lists(root: Path) -> Iterator[Path]:
    """The metadata files whose header names media."""
    for folder in _folders(root):
        for suffix in sorted(LIST_SUFFIXES - {".tsv"}):
            file = folder / f"metadata{suffix}"
            if file.is_file() and _key(file) is not None:
                yield file


def _folders(root: Path) -> Iterator[Path]:
    """The folder, those in it, and those in these: so many that a look at a wrong folder ends."""
    level, left = [root], MOST_FOLDERS
    for _ in range(3):
        yield from level
        left -= len(level)
        level = [inner for folder in level for inner in folders_in(folder)][: max(left, 0)]


def _key(file: Path) -> str | None:
    """The column that names the media."""
    try:
        if file.suffix == ".parquet":
            names = pq.read_schema(file).names
        else:
            with file.open("rb") as raw:
                head = raw.readline(1 << 20).decode("utf-8-sig", "replace").strip()
            names = [name.strip().strip('"') for name in head.split(",")]
            if file.suffix == ".jsonl":
                names = list(yaml.safe_load(head))
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return None
    return next((n for n in names if n == "file_name" or str(n).endswith("_file_name")), None)


def read(tree: Tree) -> pa.Table:
    """The media of the metadata files."""
    licence = _licence(tree.root / "README.md")
    tables = []
    for file in _lists(tree.root):
        key = _key(file)
        assert key is not None, "it was looked for"
        (table,) = read_tables([file], key)
        tables.append(_media(table, file.parent.relative_to(tree.root).as_posix(), licence))
    return pa.concat_tables(tables, promote_options="default")


def _media(table: pa.Table, folder: str, licence: str | None) -> pa.Table:
    below = "" if folder == "." else f"{folder}/"
    uri = pc.binary_join_element_wise(below, table[URI], "")
    own = {pa.field(URI, pa.string()): uri}
    if licence is not None and "licence" not in table.column_names:
        own[pa.field("licence", pa.string())] = pa.chunked_array([pa.repeat(licence, table.num_rows)])
    said = next((name for name in CAPTIONS if name in table.column_names), None)
    if said is not None:
        own[described("caption", CAPTION)] = texts(table, said)
    split = pc.struct_field(pc.extract_regex(uri, f"(?:^|/)(?P<split>{'|'.join(SPLITS)})/"), "split")
    if split.null_count < len(split):
        own[described("source_split", SPLIT)] = split
    for field, column in zip(table.schema, table.columns, strict=True):
        if field.name not in (URI, said) and field.name not in {f.name for f in own}:
            own[field] = column
    return pa.table(list(own.values()), schema=pa.schema(list(own)))


def _licence(card: Path) -> str | None:
    """The licence that a card gives; None: it gives none."""
    try:
        mark, _, rest = card.read_text("utf-8").partition("\n")
        about: Any = yaml.safe_load(rest.partition("\n---")[0]) if mark.strip() == "---" else None
    except (OSError, UnicodeError, yaml.YAMLError):
        return None
    said = about.get("license") if isinstance(about, dict) else None
    return None if said is None else ", ".join(map(str, said)) if isinstance(said, list) else str(said)


READER = Reader(
    title="",
    looks_for="metadata.csv, metadata.jsonl or metadata.parquet with a column file_name, beside the media",
    looks_like=looks_like,
    read=read,
    licence="",
    columns=COLUMNS,
    kind="any",
)
