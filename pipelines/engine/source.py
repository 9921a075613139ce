"""The input: a folder, a glob, a single file or a list, turned into samples with stable ids."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import UsageError
from manifests import storage
from manifests.schema import ARROW_TYPES, SOURCE_COLUMNS, input_column_name
from manifests.text import clean_text, holds_secret, public_message, public_text, public_url, without_secrets
from media.files import VIDEO_SUFFIXES, local_copy
from pipelines.engine.lists import LIST_SUFFIXES, OWN, URI, read_list, shown_value
from pipelines.engine.settings import SourceSettings

# Keys of a listed row that never reach the manifest: the address with its user or signature where it has
# one, and why the row is an error whatever its media hold.
ADDRESS, PROBLEM = "_address", "_problem"
# Linux's limits on a name and a path, bytes; servers take addresses of 8 KB.
LONGEST_NAME, LONGEST_PATH, LONGEST_ADDRESS = 255, 4095, 8192
DEFAULT = SourceSettings()
# Of a media file: name of its source, path inside that, address, size in bytes, and why it is not opened.
Found = tuple[str, str, str, int | None, str | None]
_HERE = frozenset({"file", "local"})


class InputError(UsageError):
    """The input cannot be listed; the message names it and the way out."""


# Source columns that a listing gives; `pipeline` and `media_uri` follow from them.
LISTED = {
    name: ARROW_TYPES[column.type]
    for name, column in SOURCE_COLUMNS.items()
    if name not in ("pipeline", "media_uri")
}


@dataclass(frozen=True)
class Listing:
    """All samples of an input, in order.

    table: one row a sample: the columns `LISTED`, those of `input_fields`, and for the run alone `ADDRESS`,
        the address to open where it has a user or a signature, and `PROBLEM`, why the row can only be an
        error; null where there is none.
    input_fields: Arrow fields of the further columns.
    ignored: how many files of other types were passed over, by suffix.
    """

    table: pa.Table
    input_fields: Sequence[pa.Field] = ()
    ignored: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(
        cls,
        rows: Sequence[Mapping[str, Any]],
        input_fields: Sequence[pa.Field] = (),
        ignored: Counter[str] | None = None,
    ) -> Listing:
        """From rows as dicts; absent values are null."""
        schema = pa.schema(LISTED | dict.fromkeys((ADDRESS, PROBLEM), pa.string()))
        for further in input_fields:
            schema = schema.append(further)
        return cls(pa.Table.from_pylist(list(rows), schema=schema), input_fields, ignored or Counter())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows as dicts, for short listings; `ADDRESS` and `PROBLEM` only where there is one."""
        rows: list[dict[str, Any]] = self.table.to_pylist()
        for row in rows:
            for name in (ADDRESS, PROBLEM):
                if row[name] is None:
                    del row[name]
        return rows

    @property
    def ids(self) -> pa.ChunkedArray:
        """The samples' ids."""
        return self.table["sample_id"]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def first(self, count: int | None) -> Listing:
        """The first so many samples; None: all."""
        return self if count is None else replace(self, table=self.table.slice(0, count))

    def only(self, ids: pa.Array | pa.ChunkedArray) -> Listing:
        """The samples of these ids."""
        return replace(self, table=self.table.filter(pc.is_in(self.ids, value_set=ids)))


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
    sources: SourceSettings = DEFAULT,
) -> Listing:
    """List a folder, a glob, a single media file, or a Parquet/CSV/TSV/JSONL list with a `uri` column.

    Args:
        path: local path or any fsspec URL.
        source: name of the data set; by default the folder's or the list's name.
        suffixes: file name endings of media, lower case with the dot.
        owned: names of columns that the pipeline writes; a list's column of that name becomes `input_<name>`.
        sources: what a list or a folder may lead to.

    Raises:
        InputError: nothing is there, the list cannot be read or has no `uri` column, or no media is found.
    """
    if _list_suffix(path) in LIST_SUFFIXES and not _is_glob(path):
        rows, fields = _from_list(path, source, owned, sources)
        _number_copies(rows)
        return Listing.of(rows, fields)
    ignored: Counter[str] = Counter()
    if "://" in path:
        files = _walk_url(path, suffixes, ignored)
    else:
        files = _walk_local(path, suffixes, ignored, sources.follow_links)
    rows = [_row(source or name, inside, uri, size, problem) for name, inside, uri, size, problem in files]
    if not rows:
        seen = f"; it holds {sum(ignored.values())} other files" if ignored else ""
        raise InputError(f"no media in {path} (looked for {' '.join(sorted(suffixes))}){seen}")
    _number_copies(rows)
    return Listing.of(rows, ignored=ignored)


def _is_glob(path: str) -> bool:
    if "://" in path:  # a ? begins the query of an address
        return any(c in path for c in "*[")
    try:
        return any(c in path for c in "*?[") and not Path(path).exists()
    except OSError:  # too long for a file name, so no file
        return True


def _row(source: str, inside: str, uri: str, size: int | None, problem: str | None = None) -> dict[str, Any]:
    public = public_text(uri) if holds_secret(uri) else uri
    row = {
        "source": clean_text(source),
        "source_uri": public,
        "start_s": None,
        "end_s": None,
        "source_size": size,
        "_inside": inside,
    }
    if public != uri:
        row[ADDRESS] = uri
    if problem is not None:
        row[PROBLEM] = problem
    return row


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


class _Links:
    """Says of files below a folder whether a symbolic link leads out of it.

    Args:
        root: the folder, which may itself be a link.
        follow: links may lead anywhere.
    """

    def __init__(self, root: str | Path, follow: bool) -> None:
        self.root, self.follow = os.path.realpath(root), follow
        self.folders: dict[str, bool] = {}

    def leave(self, path: str) -> bool:
        """Whether the path, links followed, lies outside, and that was not asked for."""
        real = os.path.realpath(path)
        return not self.follow and real != self.root and not real.startswith(self.root.rstrip("/") + "/")

    def looked_at(self, item: Path) -> tuple[int | None, str | None]:
        """Size of a file in bytes, and why it is not opened."""
        try:
            status = os.lstat(item)
        except OSError:
            return None, None  # unreadable: said by the stage that opens it
        if not stat.S_ISLNK(status.st_mode):
            return status.st_size, None
        return (None, self.problem(item)) if self.leave(str(item)) else (_size(item), None)

    def below(self, item: Path) -> bool:
        """Whether the item's folder lies inside."""
        folder = str(item.parent)
        if folder not in self.folders:
            self.folders[folder] = not self.leave(folder)
        return self.folders[folder]

    def problem(self, item: Path) -> str:
        """The error of what leads outside."""
        return (
            f"{shown_value(item.name)} is reached by a symbolic link that leads out of the input folder; "
            "--set sources.follow_links=true follows it"
        )


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
    path: str, suffixes: frozenset[str], ignored: Counter[str], follow_links: bool
) -> Iterator[Found]:
    """Each media file below a folder or glob."""
    if _is_glob(path):
        fixed = Path(re.split(r"[*?\[]", path)[0] + "x").parent
        if not fixed.is_dir():
            raise InputError(f"no such folder: {fixed} (from the glob {path})")
        pattern = str(Path(path).absolute().relative_to(fixed.absolute()))
        candidates = sorted(p for p in fixed.absolute().glob(pattern) if p.name)
        base, links = fixed.resolve(), _Links(fixed, follow_links)
        for item in candidates:
            if _wanted(item.name, suffixes, ignored):
                found = links.looked_at(item) if links.below(item) else (None, links.problem(item))
                yield base.name, item.relative_to(fixed.absolute()).as_posix(), local_uri(item), *found
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
        yield root.parent.resolve().name, root.name, local_uri(root), _size(root), None
        return
    name_of_root, links = root.resolve().name, _Links(root, follow_links)
    seen = set()
    unreadable: list[OSError] = []
    for folder, folders, files in os.walk(root, followlinks=True, onerror=unreadable.append):
        real = os.path.realpath(folder)
        if real in seen:  # a link back to a folder already listed
            folders.clear()
            continue
        seen.add(real)
        if links.leave(real):
            folders.clear()
            item = Path(folder)
            if item.suffix.lower() not in suffixes:  # else it is a row already
                inside = item.relative_to(root).as_posix()
                yield name_of_root, inside, local_uri(item), None, links.problem(item)
            continue
        folders.sort()
        # A folder named like a video is a mistake that should be seen, not skipped.
        names = [n for n in folders if PurePosixPath(n).suffix.lower() in suffixes]
        for name in sorted([*files, *names]):
            if _wanted(name, suffixes, ignored):
                item = Path(folder) / name
                inside = item.relative_to(root).as_posix()
                yield name_of_root, inside, local_uri(item), *links.looked_at(item)
    for problem in unreadable:  # becomes a row that ends with this error, so that nothing is lost in silence
        item = Path(problem.filename)
        yield name_of_root, item.relative_to(root).as_posix(), local_uri(item), None, None


def _walk_url(path: str, suffixes: frozenset[str], ignored: Counter[str]) -> Iterator[Found]:
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
        raise InputError(f"no such file or folder, or nothing in it: {public_text(path)}")
    shown = public_text(base)
    for name in sorted(infos):
        info = infos[name]
        if info.get("type") == "file" and _wanted(PurePosixPath(name).name, suffixes, ignored):
            yield (
                PurePosixPath(shown).name or shown,
                name[len(base) :].lstrip("/"),
                fs.unstrip_protocol(name),
                info.get("size"),
                None,
            )


def _read_list(path: str) -> tuple[pa.Table, dict[int, str]]:
    """The table of a list anywhere, and what is wrong with single rows.

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


def _from_list(
    path: str, source: str | None, owned: frozenset[str], sources: SourceSettings
) -> tuple[list[dict[str, Any]], list[pa.Field]]:
    table, problems = _read_list(path)
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
    names, licences, starts, ends = (
        columns.get(name, missing) for name in ("source", "licence", "start_s", "end_s")
    )
    rows = []
    default = source or PurePosixPath(_without_query(path)).stem
    folder = str(Path(path).absolute().parent)
    allowed = _Allowed(path, sources)
    for at, given in enumerate(columns[URI]):
        number = at + 1
        broken = problems.get(number) or _broken(given, number)
        if broken is None:
            uri, inside = _resolve(given, path, folder)
            broken = _too_long(uri, number)
        problem = broken or _wrong_range(starts[at], ends[at], number) or allowed.problem(uri, number)
        if broken is not None:  # nothing else tells such rows apart
            uri, inside = "", f"row {number}"
        size = None if "://" in uri or problem else _size(uri)
        row = _row(names[at] or default, inside, uri, size, problem)
        row |= {"start_s": starts[at], "end_s": ends[at], "licence": licences[at]}
        row |= {name: values[at] for name, values in further}
        rows.append(row)
    return rows, fields


def _broken(uri: str | None, number: int) -> str | None:
    """Why what stands in a row can be no address; None: it can."""
    if uri is None or not uri.strip():
        return f"row {number} has no {URI}"
    if "\0" in uri:
        return f"row {number} has a {URI} with a NUL character: {shown_value(uri)}"
    if "://" in uri:
        try:
            holds_secret(uri)
        except ValueError as error:
            reason = clean_text(str(error))
            return f"row {number} has a {URI} that is no address: {shown_value(uri)} ({reason})"
    return None


def _too_long(address: str, number: int) -> str | None:
    """Why no system takes an address; None: it is not too long."""
    if len(address) * 4 <= LONGEST_NAME:
        return None
    if "://" in address:
        fits = len(address) <= LONGEST_ADDRESS
    else:
        path = os.fsencode(address)
        fits = len(path) <= LONGEST_PATH and max(map(len, path.split(b"/"))) <= LONGEST_NAME
    return None if fits else f"row {number} has a {URI} that is too long: {shown_value(address)}"


def _wrong_range(start_s: float | None, end_s: float | None, number: int) -> str | None:
    """Why there is nothing between start and end of a row; None: there may be."""
    start = start_s or 0.0
    if start < 0:
        return f"row {number} has the start_s {start:g}: a file begins at 0"
    if end_s is not None and end_s <= start:
        return f"row {number} has the end_s {end_s:g}, which is not after its start, {start:g}"
    return None


class _Allowed:
    """Which addresses the rows of a list may name: files of this machine, and what is like its own address.

    Args:
        path: of the list.
        sources: what else is allowed.
    """

    def __init__(self, path: str, sources: SourceSettings) -> None:
        own = _parts(path) if "://" in path else []
        self.sources = sources
        self.schemes = _HERE | {s.lower() for s in sources.schemes} | {scheme for scheme, _ in own}
        self.hosts = {host.lower() for host in sources.hosts or ()} | {host for _, host in own}

    def problem(self, address: str, number: int) -> str | None:
        """Why a row may not name an address, and the setting that allows it; None: it may."""
        if "://" not in address:
            return None
        parts = _parts(address)
        schemes = {scheme for scheme, _ in parts} - self.schemes
        if schemes:
            more = ",".join(sorted(schemes | set(self.sources.schemes)))
            what = f"{' and '.join(sorted(schemes))}:// of {shown_value(address)}"
            return f"row {number}: a list may not name {what}; --set sources.schemes=[{more}] allows it"
        for scheme, host in parts:
            if scheme not in _HERE and host and host not in self.hosts and self._is_closed(host):
                more = ",".join(sorted({host, *(self.sources.hosts or ())}))
                what = f"the host {shown_value(host)} of {shown_value(address)}"
                return f"row {number}: a list may not name {what}; --set sources.hosts=[{more}] allows it"
        return None

    def _is_closed(self, host: str) -> bool:
        if self.sources.hosts is not None:
            return True
        try:
            return ipaddress.ip_address(host).is_link_local
        except ValueError:
            return False


def _parts(address: str) -> list[tuple[str, str]]:
    """Scheme and host of each of the addresses that are chained in one, lower case."""
    parts = []
    for part in address.split("::"):
        scheme, mark, _ = part.partition("://")
        parts.append((scheme.lower(), urlsplit(part).hostname or "" if mark else ""))
    return parts


def _without_query(path: str) -> str:
    """The path; of an address without what follows a question mark, such as a signature."""
    return path.partition("?")[0] if path.startswith(("http://", "https://")) else path


def _list_suffix(path: str) -> str:
    """The ending of the path, lower case with the dot."""
    return PurePosixPath(_without_query(path)).suffix.lower()


def _resolve(uri: str, path: str, folder: str) -> tuple[str, str]:
    """The address to open and what identifies the file: as written, or relative to the list's folder."""
    if "://" in uri:
        return uri, public_url(uri)
    if "://" in path:
        beside = _without_query(path).rpartition("/")[0]
        return (uri, uri) if uri.startswith("/") else (f"{beside}/{uri}", uri)
    full = os.path.normpath(os.path.join(folder, uri))  # noqa: PTH118 - pathlib takes ten times as long
    below = folder.rstrip("/") + "/"
    return full, full.removeprefix(below) if full.startswith(below) else uri
