"""The input: a folder, a glob, a single file or a list, turned into samples with stable ids."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa

from configs.errors import UsageError
from manifests import storage
from manifests.schema import input_column_name
from manifests.text import clean_text, public_message, public_text, public_url, without_secrets
from media.files import VIDEO_SUFFIXES, local_copy
from pipelines.engine.lists import LIST_SUFFIXES, OWN, URI, read_list


class InputError(UsageError):
    """The input cannot be listed; the message names it and the way out."""


@dataclass
class Listing:
    """All samples of an input, in order.

    rows: source columns and the list's further columns, one dict a sample.
    input_fields: Arrow fields of the further columns.
    ignored: how many files of other types were passed over, by suffix.
    """

    rows: list[dict[str, Any]]
    input_fields: list[pa.Field] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def sample_id(source: str, path: str, start_s: float | None, end_s: float | None, copy: int = 0) -> str:
    """A readable, stable id: a slug of the file's name and 16 hex digits of what identifies the sample.

    Args:
        source: name of the data set.
        path: path of the file inside it.
        start_s: start of the time range, s; None: from the beginning.
        end_s: end of the time range, s; None: to the end.
        copy: 0 for the first row that names this range of this file, 1 for the second, and so on.
    """
    identity = "\0".join([source, path, _seconds(start_s), _seconds(end_s), str(copy)])
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    slug = re.sub(r"[^a-z0-9]+", "-", PurePosixPath(path).stem.lower()).strip("-")[:40] or "sample"
    return f"{slug}-{digest}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def list_input(
    path: str,
    source: str | None = None,
    suffixes: frozenset[str] = VIDEO_SUFFIXES,
    owned: frozenset[str] = frozenset(),
) -> Listing:
    """List a folder, a glob, a single media file, or a Parquet/CSV/TSV/JSONL list with a `uri` column.

    Args:
        path: local path or any fsspec URL.
        source: name of the data set; by default the folder's or the list's name.
        suffixes: file name endings of media, lower case with the dot.
        owned: names of columns that the pipeline writes; a list's column of that name becomes `input_<name>`.

    Raises:
        InputError: nothing is there, the list cannot be read or has no `uri` column, or no media is found.
    """
    if _list_suffix(path) in LIST_SUFFIXES and not _is_glob(path):
        listing = _from_list(path, source, owned)
    else:
        ignored: Counter[str] = Counter()
        files = list(
            _walk_local(path, suffixes, ignored) if "://" not in path else _walk_url(path, suffixes, ignored)
        )
        rows = [_row(source or name, inside, uri, size) for name, inside, uri, size in files]
        listing = Listing(rows, ignored=ignored)
        if not rows:
            seen = f"; it holds {sum(ignored.values())} other files" if ignored else ""
            raise InputError(f"no media in {path} (looked for {' '.join(sorted(suffixes))}){seen}")
    _number_copies(listing.rows)
    return listing


def _is_glob(path: str) -> bool:
    if "://" in path:  # a ? begins the query of an address
        return any(c in path for c in "*[")
    try:
        return any(c in path for c in "*?[") and not Path(path).exists()
    except OSError:  # too long for a file name, so no file
        return True


def _row(source: str, inside: str, uri: str, size: int | None) -> dict[str, Any]:
    return {
        "source": clean_text(source),
        "source_uri": uri,
        "media_uri": uri,
        "start_s": None,
        "end_s": None,
        "source_size": size,
        "_inside": inside,
    }


def _number_copies(rows: list[dict[str, Any]]) -> None:
    """Give each row its id; a range listed twice stays two rows."""
    seen: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        identity = (row["source"], row.pop("_inside"), row["start_s"], row["end_s"])
        key = (*identity[:2], _seconds(identity[2]), _seconds(identity[3]))
        row["sample_id"] = sample_id(*identity, copy=seen[key])
        seen[key] += 1


def local_uri(path: Path) -> str:
    """The path as text; a file:// URL where its bytes are not valid UTF-8 (Parquet could not store it)."""
    text = str(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return path.as_uri()
    return text


def _size(path: str | Path) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a list has a million of them
    except (OSError, ValueError):
        return None  # unreadable: said by the stage that opens it


def _wanted(name: str, suffixes: frozenset[str], ignored: Counter[str]) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    if name.startswith(".") or suffix not in suffixes:
        ignored[suffix or "none"] += 1
        return False
    return True


def _walk_local(
    path: str, suffixes: frozenset[str], ignored: Counter[str]
) -> Iterator[tuple[str, str, str, int | None]]:
    """(source name, path inside it, uri, size in bytes) of each media file below a folder or glob."""
    if _is_glob(path):
        fixed = Path(re.split(r"[*?\[]", path)[0] + "x").parent
        if not fixed.is_dir():
            raise InputError(f"no such folder: {fixed} (from the glob {path})")
        pattern = str(Path(path).absolute().relative_to(fixed.absolute()))
        candidates = sorted(p for p in fixed.absolute().glob(pattern) if p.name)
        base = fixed.resolve()
        for item in candidates:
            if _wanted(item.name, suffixes, ignored):
                yield base.name, item.relative_to(fixed.absolute()).as_posix(), local_uri(item), _size(item)
        return
    root = Path(path)
    try:
        is_dir, exists = root.is_dir(), root.exists()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if not exists:
        raise InputError(f"no such file or folder: {path}")
    root = Path(os.path.normpath(root.absolute()))  # without resolving links
    if not is_dir:
        if root.suffix.lower() not in suffixes:
            raise InputError(
                f"{path} is not media of this pipeline, whose files end in {' '.join(sorted(suffixes))}, nor "
                f"a list ({' '.join(sorted(LIST_SUFFIXES))}), which may name files of any ending"
            )
        yield root.parent.resolve().name, root.name, local_uri(root), _size(root)
        return
    seen = set()
    unreadable: list[OSError] = []
    for folder, folders, files in os.walk(root, followlinks=True, onerror=unreadable.append):
        real = os.path.realpath(folder)
        if real in seen:  # a link back to a folder already listed
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        # A folder named like a video is a mistake that should be seen, not skipped.
        names = [n for n in folders if PurePosixPath(n).suffix.lower() in suffixes]
        for name in sorted([*files, *names]):
            if _wanted(name, suffixes, ignored):
                item = Path(folder) / name
                yield root.resolve().name, item.relative_to(root).as_posix(), local_uri(item), _size(item)
    for problem in unreadable:  # becomes a row that ends with this error, so that nothing is lost in silence
        item = Path(problem.filename)
        yield root.resolve().name, item.relative_to(root).as_posix(), local_uri(item), None


def _walk_url(
    path: str, suffixes: frozenset[str], ignored: Counter[str]
) -> Iterator[tuple[str, str, str, int | None]]:
    try:
        fs, inside = fsspec.url_to_fs(path)
        if _is_glob(path) and not fs.exists(inside):
            base = re.split(r"[*?\[]", inside)[0].rpartition("/")[0]
            infos = fs.glob(inside, detail=True)
        elif fs.isfile(inside):
            base = inside.rpartition("/")[0]
            infos = {inside: fs.info(inside)}
        else:
            base = inside.rstrip("/")
            infos = fs.find(inside, detail=True)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(without_secrets(f"cannot list {path}: {error}")) from error
    if not infos:
        raise InputError(f"no such file or folder, or nothing in it: {path}")
    for name in sorted(infos):
        info = infos[name]
        if info.get("type") == "file" and _wanted(PurePosixPath(name).name, suffixes, ignored):
            yield (
                PurePosixPath(base).name or base,
                name[len(base) :].lstrip("/"),
                fs.unstrip_protocol(name),
                info.get("size"),
            )


def _read_list(path: str) -> pa.Table:
    """The table of a list anywhere.

    Raises:
        InputError: it cannot be had or read.
    """
    try:
        with local_copy(path) as file:
            return read_list(file, _list_suffix(path))
    except FileNotFoundError:
        raise InputError(f"no such file: {public_text(path)}") from None
    except Exception as error:
        if isinstance(error, OSError | ValueError | ImportError) or storage.is_client_error(error):
            reason = public_message(str(error))
            raise InputError(f"cannot read the list {public_text(path)}: {reason}") from error
        raise


def _from_list(path: str, source: str | None, owned: frozenset[str]) -> Listing:
    table = _read_list(path)
    fields: list[pa.Field] = []
    for f in table.schema:
        if f.name not in OWN:
            name = input_column_name(f.name, owned)
            meaning = {"unit": "", "meaning": f"Column `{f.name}` of the input list.", "from": "input list"}
            if name in {other.name for other in fields}:
                shown = public_text(path)
                raise InputError(f"{shown}: two columns would both be {name} in the manifest; rename one")
            fields.append(pa.field(name, f.type, metadata=meaning))
    columns = {name: table[name].to_pylist() for name in table.column_names}
    further = [(input_column_name(name, owned), columns[name]) for name in columns if name not in OWN]
    missing = [None] * table.num_rows
    sources, licences, starts, ends = (
        columns.get(name, missing) for name in ("source", "licence", "start_s", "end_s")
    )
    rows = []
    default = source or PurePosixPath(_without_query(path)).stem
    folder = str(Path(path).absolute().parent)
    for at, given in enumerate(columns[URI]):
        uri, inside = _resolve(given, path, folder, at + 1)
        row = _row(sources[at] or default, inside, uri, None if "://" in uri else _size(uri))
        row |= {"start_s": starts[at], "end_s": ends[at], "licence": licences[at]}
        row |= {name: values[at] for name, values in further}
        rows.append(row)
    return Listing(rows, fields)


def _without_query(path: str) -> str:
    """The path; of an address without what follows a question mark, such as a signature."""
    return path.partition("?")[0] if path.startswith(("http://", "https://")) else path


def _list_suffix(path: str) -> str:
    """The ending of the path, lower case with the dot."""
    return PurePosixPath(_without_query(path)).suffix.lower()


def _resolve(uri: str | None, path: str, folder: str, number: int) -> tuple[str, str]:
    """The address to open and what identifies the file: as written, or relative to the list's folder."""
    if uri is None or not uri.strip():
        return "", f"row {number}"  # ends as an error of that row
    if "://" in uri:
        return uri, public_url(uri)
    if "://" in path:
        beside = _without_query(path).rpartition("/")[0]
        return (uri, uri) if uri.startswith("/") else (f"{beside}/{uri}", uri)
    full = os.path.normpath(os.path.join(folder, uri))  # noqa: PTH118 - pathlib takes ten times as long
    below = folder.rstrip("/") + "/"
    return full, full.removeprefix(below) if full.startswith(below) else uri
