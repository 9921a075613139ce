"""The media below a folder, here or on a server, block by block."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa

from manifests.text import public_text, without_secrets
from pipelines.engine.addresses import media
from pipelines.engine.input_error import InputError
from pipelines.engine.list_values import shown_value
from pipelines.engine.lists import LIST_SUFFIXES
from pipelines.engine.looking import at_each, file_size

FILES_AT_ONCE = 1 << 15
_GLOB = re.compile(r"[*?\[]")

# Size of a file in bytes and why it is not opened; and its path with that, None: one has to look.
Seen = tuple[int | None, str | None]
File = tuple[str, Seen | None]
Files = Iterator[File]


def is_glob(path: str) -> bool:
    """Whether a path or URL names many files by a pattern."""
    if "://" in path:  # a ? begins the query of an address
        return any(c in path for c in "*[")
    try:
        return _GLOB.search(path) is not None and not Path(path).exists()
    except OSError:  # too long for a file name, so no file
        return True


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

    def look(self, file: File) -> Seen:
        """Size of a file in bytes, and why it is not opened."""
        path, seen = file
        if seen is not None:
            return seen
        try:
            status = os.lstat(path)
        except OSError:
            return None, None  # unreadable: said by the stage that opens it
        if not stat.S_ISLNK(status.st_mode):
            return status.st_size, None
        return (None, self.problem(path)) if self.leave(path) else (file_size(path), None)

    def below(self, path: str) -> bool:
        """Whether the file's folder lies inside."""
        folder = path.rpartition("/")[0]
        if folder not in self.folders:
            self.folders[folder] = not self.leave(folder or "/")
        return self.folders[folder]

    def problem(self, path: str) -> str:
        """The error of what leads outside."""
        return (
            f"{shown_value(path.rpartition('/')[2])} is reached by a symbolic link that leads out of the "
            "input folder; --set sources.follow_links=true follows it"
        )


def local_media(
    path: str, suffixes: frozenset[str], ignored: Counter[str], follow_links: bool, limit: int | None
) -> tuple[str, Iterator[pa.RecordBatch]]:
    """Name of a folder of this machine, and the media below it as rows of `MEDIA`, in a fixed order.

    Args:
        path: of the folder, a glob, or a single file.
        suffixes: file name endings of media, lower case with the dot.
        ignored: is told how many other files are passed over, by suffix.
        follow_links: symbolic links may lead out of the folder.
        limit: the first so many files, without a look at the others; None: all.

    Raises:
        InputError: nothing is there, or it is a file of another kind.
    """
    if is_glob(path):
        fixed = Path(_GLOB.split(path)[0] + "x").parent
        if not fixed.is_dir():
            raise InputError(f"no such folder: {fixed} (from the glob {path})")
        root, links = fixed.absolute(), _Links(fixed, follow_links)
        pattern = str(Path(path).absolute().relative_to(root))
        return fixed.resolve().name, _blocks(
            _globbed(root, pattern, suffixes, ignored, links), root, links, limit
        )
    given = Path(path)
    try:
        is_dir, exists = given.is_dir(), given.exists()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if not exists:
        raise InputError(f"no such file or folder: {path}")
    root = Path(os.path.normpath(given.absolute()))  # without resolving links
    links = _Links(root, follow_links)
    if is_dir:
        return root.resolve().name, _blocks(_walked(str(root), suffixes, ignored, links), root, links, limit)
    if root.suffix.lower() not in suffixes:
        raise InputError(
            f"{path} is not media of this pipeline, whose files end in {' '.join(sorted(suffixes))}, nor "
            f"a list ({' '.join(sorted(LIST_SUFFIXES))}), which may name files of any ending"
        )
    single: Files = iter([(str(root), (file_size(root), None))])
    return root.parent.resolve().name, _blocks(single, root.parent, links, limit)


def _globbed(
    root: Path, pattern: str, suffixes: frozenset[str], ignored: Counter[str], links: _Links
) -> Files:
    """Each media file that a pattern below a folder names."""
    for item in sorted(p for p in root.glob(pattern) if p.name):
        if _wanted(item.name, suffixes, ignored):
            path = str(item)
            yield path, None if links.below(path) else (None, links.problem(path))


def _walked(root: str, suffixes: frozenset[str], ignored: Counter[str], links: _Links) -> Files:
    """Each media file below a folder."""
    endings = tuple(suffixes)
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
            if _suffix(folder.rpartition("/")[2]) not in suffixes:  # else it is a row already
                yield folder, (None, links.problem(folder))
            continue
        folders.sort()
        # A folder named like a video is a mistake that should be seen, not skipped.
        names = [name for name in folders if _suffix(name) in suffixes]
        below = os.path.join(folder, "")  # noqa: PTH118 - pathlib takes ten times as long
        for name in sorted([*files, *names]):
            is_plain = name.endswith(endings) and not name.startswith(".")
            if is_plain or _wanted(name, suffixes, ignored):
                yield below + name, None
    for problem in unreadable:  # becomes a row that ends with this error, so that nothing is lost in silence
        yield problem.filename, (None, None)


def _suffix(name: str) -> str:
    """The ending of a file name, lower case with the dot."""
    return PurePosixPath(name).suffix.lower()


def _wanted(name: str, suffixes: frozenset[str], ignored: Counter[str]) -> bool:
    suffix = _suffix(name)
    if name.startswith(".") or suffix not in suffixes:
        ignored[suffix or "none"] += 1
        return False
    return True


def _blocks(files: Files, root: Path, links: _Links, limit: int | None) -> Iterator[pa.RecordBatch]:
    """Rows of `MEDIA` of the first `limit` of the files below a folder."""
    start = len(os.fsencode(root / "x")) - 1
    files = islice(files, limit)
    while block := list(islice(files, FILES_AT_ONCE)):
        paths = [path for path, _ in block]
        size, problem = zip(*at_each(links.look, block), strict=True)
        inside = [os.fsencode(path)[start:] or b"." for path in paths]  # a dot: the folder itself
        yield media(
            _local_uris(paths),
            pa.array(inside, pa.binary()),
            pa.array(size, pa.int64()),
            pa.array(problem, pa.string()),
        )


def _local_uris(paths: list[str]) -> pa.Array:
    """The paths as text; a file:// URL where the bytes are not valid UTF-8 (Parquet could not store them)."""
    try:
        return pa.array(paths, pa.string())
    except UnicodeEncodeError:
        return pa.array(map(_local_uri, paths), pa.string())


def _local_uri(path: str) -> str:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return Path(path).as_uri()
    return path


def remote_media(
    path: str, suffixes: frozenset[str], ignored: Counter[str], limit: int | None
) -> tuple[str, Iterator[pa.RecordBatch]]:
    """As `local_media`, for any fsspec URL.

    Raises:
        InputError: nothing is there, or the server cannot be asked.
    """
    try:
        fs, inside = fsspec.url_to_fs(path)
        if is_glob(path) and not fs.exists(inside):
            base = _GLOB.split(inside)[0].rpartition("/")[0]
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
    return PurePosixPath(shown).name or shown, _remote_blocks(fs, base, infos, suffixes, ignored, limit)


def _remote_blocks(
    fs: Any,
    base: str,
    infos: dict[str, dict[str, Any]],
    suffixes: frozenset[str],
    ignored: Counter[str],
    limit: int | None,
) -> Iterator[pa.RecordBatch]:
    """Rows of `MEDIA` of the first `limit` media among the files that a server lists."""
    wanted = (
        name
        for name in sorted(infos)
        if infos[name].get("type") == "file" and _wanted(PurePosixPath(name).name, suffixes, ignored)
    )
    names = islice(wanted, limit)
    while block := list(islice(names, FILES_AT_ONCE)):
        inside = [name[len(base) :].lstrip("/").encode("utf-8", "surrogateescape") for name in block]
        yield media(
            pa.array([fs.unstrip_protocol(name) for name in block], pa.string()),
            pa.array(inside, pa.binary()),
            pa.array([infos[name].get("size") for name in block], pa.int64()),
            pa.nulls(len(block), pa.string()),
        )
