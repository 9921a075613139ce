"""What an input names: the media of each row as an address, without secrets, checked and with its size.

Of a list's rows nearly all are plain: nothing in their addresses is normalised, hidden or refused, which
Arrow sees for many rows at once. Each of the others passes through Python functions that say what is meant.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.text import clean_text, holds_secret, public_text, public_url
from pipelines.engine.list_values import shown_value
from pipelines.engine.lists import URI
from pipelines.engine.looking import at_each, file_size
from pipelines.engine.settings import SourceSettings

# Columns that never reach the manifest: the address with its user or signature where it has one, why the row
# is an error whatever its media hold, and as bytes what identifies the file inside its source.
ADDRESS, PROBLEM, INSIDE = "_address", "_problem", "_inside"
MEDIA = pa.schema(
    {
        INSIDE: pa.binary(),
        "source_uri": pa.string(),
        ADDRESS: pa.string(),
        "source_size": pa.int64(),
        PROBLEM: pa.string(),
    }
)
# Linux's limits on a name and a path, bytes; servers take addresses of 8 KB.
LONGEST_NAME, LONGEST_PATH, LONGEST_ADDRESS = 255, 4095, 8192
_HERE = frozenset({"file", "local"})
# An address that taking apart and putting together again leaves as it is, without a user and a query, if it
# holds no `::`; and an absolute path that normalising does.
_PLAIN_URL = (
    r"^(?:[a-z][a-z0-9+.-]*://[A-Za-z0-9._-]+(?::[0-9]+)?(?:/[^?#\x00-\x1f\x7f]*)?"
    r"|file:///[^/?#\x00-\x1f\x7f][^?#\x00-\x1f\x7f]*)\z"
)
_PLAIN_PATH = r"^(?:/(?:[^./\x00][^/\x00]*|\.[^./\x00][^/\x00]*|\.\.[^/\x00]+))+\z"
_PLACE = r"^(?P<place>[^/]*//[^/]*)"
_NOT_BLANK = "[!-~]"


def media(opened: pa.Array, inside: pa.Array, size: pa.Array, problem: pa.Array) -> pa.RecordBatch:
    """Rows of `MEDIA`.

    Args:
        opened: (rows,) addresses to open.
        inside: (rows,) what identifies the files, as bytes.
        size: (rows,) bytes; null: unknown.
        problem: (rows,) why a row can only be an error; null: it need not.

    Raises:
        ValueError: an address cannot be taken apart.
    """
    public, address = opened, pa.nulls(len(opened), pa.string())
    is_url = pc.match_substring(opened, "://")
    asked = pc.and_not(is_url, _is_plain_url(opened))
    if asked.true_count:
        texts = opened.filter(asked).to_pylist()
        shown = [public_text(text) if holds_secret(text) else text for text in texts]
        secret = [text if text != other else None for text, other in zip(texts, shown, strict=True)]
        public = pc.replace_with_mask(opened, asked, pa.array(shown, pa.string()))
        address = pc.replace_with_mask(address, asked, pa.array(secret, pa.string()))
    return pa.record_batch([inside, public, address, size, problem], schema=MEDIA)


def _is_plain_url(texts: pa.Array) -> pa.BooleanArray:
    return pc.and_not(pc.match_substring_regex(texts, _PLAIN_URL), pc.match_substring(texts, "::"))


class ListedMedia:
    """The media that the rows of one list name.

    Args:
        path: of the list.
        sources: what a list may lead to.
    """

    def __init__(self, path: str, sources: SourceSettings) -> None:
        self.path = path
        self.folder = str(Path(path).absolute().parent)
        self.allowed = Allowed(path, sources)

    def of(self, rows: pa.RecordBatch, first: int, problems: Mapping[int, str]) -> pa.RecordBatch:
        """Rows of `MEDIA`.

        Args:
            rows: `uri`, `start_s` and `end_s` of some rows of the list.
            first: number of the first of them, from 1.
            problems: what is wrong with rows of the list, by their numbers.
        """
        opened, inside, is_plain = self._plain(rows[URI].fill_null(""))
        is_plain &= _is_ordered(rows["start_s"], rows["end_s"])
        is_plain[[number - first for number in problems if first <= number < first + len(rows)]] = False
        problem = pa.nulls(len(rows), pa.string())
        if not is_plain.all():
            odd = pa.array(~is_plain)
            numbers = (np.flatnonzero(~is_plain) + first).tolist()
            uri, start_s, end_s = (rows[name].filter(odd).to_pylist() for name in (URI, "start_s", "end_s"))
            said = [
                self.row(given, start, end, number, problems.get(number))
                for given, start, end, number in zip(uri, start_s, end_s, numbers, strict=True)
            ]
            uris, insides, found = zip(*said, strict=True)
            opened = pc.replace_with_mask(opened, odd, pa.array(uris, pa.string()))
            inside = pc.replace_with_mask(inside, odd, pa.array(insides, pa.string()))
            problem = pc.replace_with_mask(problem, odd, pa.array(found, pa.string()))
        return media(opened, inside.cast(pa.binary()), _sizes(opened, problem), problem)

    def _plain(self, uri: pa.Array) -> tuple[pa.Array, pa.Array, np.ndarray]:
        """Address and identity of plain rows, and which are."""
        is_relative = pc.invert(pc.or_(pc.match_substring(uri, "://"), pc.starts_with(uri, "/")))
        below = _below(self.path, self.folder)
        opened = pc.if_else(is_relative, pc.binary_join_element_wise(below, uri, ""), uri)
        inside = uri
        if "://" not in self.path:
            is_below = pc.starts_with(opened, below)
            inside = pc.if_else(is_below, pc.utf8_slice_codeunits(opened, len(below)), uri)
        is_plain = pc.or_(pc.match_substring_regex(opened, _PLAIN_PATH), self._is_allowed_url(opened))
        is_short = pc.less_equal(pc.binary_length(opened), LONGEST_NAME)
        is_plain = pc.and_(pc.and_(is_plain, is_short), pc.match_substring_regex(uri, _NOT_BLANK))
        return opened, inside, is_plain.to_numpy(zero_copy_only=False).copy()

    def _is_allowed_url(self, opened: pa.Array) -> pa.BooleanArray:
        """Which are plain URLs of a place that a list may name; each place is judged once."""
        is_url = _is_plain_url(opened)
        if not is_url.true_count:
            return is_url
        places = pc.struct_field(pc.extract_regex(opened.filter(is_url), _PLACE), "place").dictionary_encode()
        allowed = [self.allowed.problem(place, 0) is None for place in places.dictionary.to_pylist()]
        return pc.replace_with_mask(is_url, is_url, pa.array(allowed, pa.bool_()).take(places.indices))

    def row(
        self, given: str | None, start_s: float | None, end_s: float | None, number: int, problem: str | None
    ) -> tuple[str, str, str | None]:
        """The address that a row names, what identifies the file, and why the row is an error.

        Args:
            given: its `uri`.
            start_s: start of its range, s; None: from the beginning.
            end_s: end of its range, s; None: to the end.
            number: of the row, from 1.
            problem: what is wrong with it already.
        """
        broken = problem or _broken(given, number)
        if broken is None and given is not None:
            uri, inside = _resolve(given, self.path, self.folder)
            broken = _too_long(uri, number)
        if broken is not None:  # nothing else tells such rows apart
            return "", f"row {number}", broken
        return uri, inside, _wrong_range(start_s, end_s, number) or self.allowed.problem(uri, number)


def _is_ordered(start_s: pa.Array, end_s: pa.Array) -> np.ndarray:
    """Where `_wrong_range` finds nothing wrong."""
    start = start_s.fill_null(0.0)
    is_ordered = pc.and_(pc.greater_equal(start, 0.0), pc.greater(end_s, start).fill_null(True))
    return is_ordered.to_numpy(zero_copy_only=False)


def _sizes(opened: pa.Array, problem: pa.Array) -> pa.Array:
    """Sizes in bytes of the files of this machine; null for others, and where nothing is to be opened."""
    is_here = pc.and_not(pc.is_null(problem), pc.match_substring(opened, "://"))
    sizes = at_each(file_size, opened.filter(is_here).to_pylist())
    return pc.replace_with_mask(pa.nulls(len(opened), pa.int64()), is_here, pa.array(sizes, pa.int64()))


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


class Allowed:
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


def with_allowed(table: pa.Table, columns: Iterable[str], path: str, sources: SourceSettings) -> pa.Table:
    """A list's samples; one is an error where another of its columns names what a list may not name.

    Args:
        table: of a listing, with `PROBLEM`.
        columns: of addresses beside that of the sample's own media; those that the table lacks do not count.
        path: of the list.
        sources: what it may name.
    """
    allowed, problems = Allowed(path, sources), table[PROBLEM].to_pylist()
    for column in columns:
        if column not in table.column_names:
            continue
        for at, address in enumerate(table[column].to_pylist()):
            if address is None or problems[at] is not None:
                continue
            problem = None if isinstance(address, str) else f"row {at + 1}: {column} is no text"
            if problem is None and "://" in address:
                problem = _broken(address, at + 1) or allowed.problem(address, at + 1)
                if problem is None and holds_secret(address):
                    problem = f"row {at + 1}: {column} has a user or a signature, which no manifest may hold"
            problems[at] = problem
    place = table.schema.get_field_index(PROBLEM)
    return table.set_column(place, PROBLEM, pa.chunked_array([pa.array(problems, pa.string())]))


def _parts(address: str) -> list[tuple[str, str]]:
    """Scheme and host of each of the addresses that are chained in one, lower case."""
    parts = []
    for part in address.split("::"):
        scheme, mark, _ = part.partition("://")
        parts.append((scheme.lower(), urlsplit(part).hostname or "" if mark else ""))
    return parts


def without_query(path: str) -> str:
    """The path; of an address without what follows a question mark, such as a signature."""
    return path.partition("?")[0] if path.startswith(("http://", "https://")) else path


def _below(path: str, folder: str) -> str:
    """What relative addresses of a list follow; `folder` is that of a list on this machine."""
    return f"{(without_query(path).rpartition('/')[0] if '://' in path else folder.rstrip('/'))}/"


def _resolve(uri: str, path: str, folder: str) -> tuple[str, str]:
    """The address to open and what identifies the file: as written, or relative to the list's folder."""
    if "://" in uri:
        return uri, public_url(uri)
    below = _below(path, folder)
    if "://" in path:
        return (uri if uri.startswith("/") else f"{below}{uri}"), uri
    full = os.path.normpath(os.path.join(folder, uri))  # noqa: PTH118 - pathlib takes ten times as long
    return full, full.removeprefix(below) if full.startswith(below) else uri
