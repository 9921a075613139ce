"""Folders that may lie in an object store: pathlib for local paths, universal_pathlib for fsspec URLs.

Both offer the same methods, so a folder is typed `Path` everywhere. What differs is here: a file becomes
visible by a rename, an object by being written, whole or not at all; and an object store knows neither
folders, nor locks, nor appending.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from configs.errors import UsageError, UserError
from media.temporary import temporary_folder

# Stores in which an object appears at once and whole, and that have no folders.
OBJECT_STORES = frozenset(["s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "memory"])
THREADS = 16  # requests in flight at once: each takes tens of milliseconds, whatever it carries
READ_ATTEMPTS = 5
CLIENTS = frozenset({"botocore", "aiobotocore", "aiohttp", "google", "gcsfs", "azure"})
PARTIAL = ".tmp"
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})  # why nothing at all can be written
# Stores whose PUT takes a condition, and what stands for the version of a file that is not there.
CONDITIONAL = frozenset(["s3", "s3a"])
ABSENT = "absent"
ONE_PUT = 5 << 30  # bytes; a larger file would be put in pieces
# Codes by which S3 says that a condition does not hold (there is no file any more, or another one is being
# written), and by which a store that speaks S3 says that it knows no conditions.
REFUSED = frozenset(["PreconditionFailed", "412", "NoSuchKey", "404", "ConditionalRequestConflict", "409"])
NO_CONDITIONS = frozenset(["NotImplemented", "501"])

Item = TypeVar("Item")
Result = TypeVar("Result")


class StorageError(UserError, ValueError):
    """Storage cannot be used; the message says why."""


class AddressError(StorageError, UsageError):
    """An address that cannot be used as a folder."""


class OutputError(UserError):
    """Nothing can be written into a folder: its disk is full, it is read-only, or its store is away."""


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """A block that writes into a folder.

    Raises:
        OutputError: it cannot; the message names the folder and the reason.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not is_client_error(error):
            raise
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write into {folder}: {reason}") from error


class ReplacedError(StorageError):
    """A file is not what it was when it was read: another writer has replaced, made or deleted it since."""


@dataclass(frozen=True)
class Listed:
    """A file of a folder.

    Attributes:
        path: where it lies.
        version: another one after each replacement; None where the store tells none.
        modified: when it was written, by the clock of where it lies, seconds since 1970; None: not told.
    """

    path: Path
    version: str | None
    modified: float | None


def folder_of(address: str | Path) -> Path:
    """The folder at a local path or an fsspec URL (s3://bucket/run).

    Raises:
        AddressError: no package for this kind of URL is installed, or it holds a password or a query.
    """
    if not isinstance(address, str):
        return address
    if "://" not in address:
        return Path(address)
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(os.fsdecode(unquote_to_bytes(parts.path)))
    if parts.password is not None or parts.query or parts.fragment or "::" in address:
        raise AddressError(
            f"{parts.scheme}://{parts.hostname or ''}...: a folder's URL is without password, query and ::; "
            "credentials are read from the environment (AWS_ACCESS_KEY_ID, ...)"
        )
    from upath import UPath

    # A listing that another process has changed since must not be remembered.
    options: dict[str, Any] = {"use_listings_cache": False} if parts.scheme in OBJECT_STORES else {}
    try:
        path: Any = UPath(address.rstrip("/"), **options)
        path.fs  # noqa: B018 - loads the package, and keeps the connection for all paths below
    except ImportError as error:
        package = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}.get(parts.scheme)
        hint = f"pip install {package}" if package else str(error)
        raise AddressError(f"{parts.scheme}:// needs a package that is not installed: {hint}") from error
    except (ValueError, TypeError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise AddressError(f"{address} cannot be used as a folder: {reason}") from error
    return path


def is_remote(path: Path) -> bool:
    """Whether the path is no file of this machine or of one mounted here."""
    return not isinstance(path, Path)


def filesystem(path: Path) -> tuple[Any, str]:
    """For pyarrow: the path's fsspec file system (None for a local path), and the path inside it."""
    remote: Any = path
    return (remote.fs, remote.path) if is_remote(path) else (None, str(path))


def _is_object_store(path: Any) -> bool:
    return path.protocol in OBJECT_STORES


def make_folder(folder: Path) -> None:
    """Make a folder and its parents; an object store has none, and a bucket is never made."""
    remote: Any = folder
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)
    elif not _is_object_store(remote):
        remote.fs.makedirs(remote.path, exist_ok=True)


@contextmanager
def locked(file: Path, wait: bool = True, shared: bool = False) -> Iterator[IO[str]]:
    """Hold a local file's lock, against all other processes and threads; gives the opened file.

    The system lets go of it when the process dies. On a file system that several machines share, it must
    share `flock` too: NFS does, Lustre needs the mount option `flock`.

    Args:
        file: made if it is not there; its content stays.
        wait: for another that holds it.
        shared: hold it beside others that do so; the file must be there, and need not be writable.

    Raises:
        BlockingIOError: another holds it, and `wait` is False.
        OSError: the file cannot be opened or locked.
    """
    # Not for appending: what is written at a place would go to the end.
    flags = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
    with os.fdopen(os.open(file, flags, 0o666), "r" if shared else "r+") as handle:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
        yield handle


def read_bytes(path: Path) -> bytes:
    """A whole file in one request: `Path.read_bytes` makes two, between which a remote one may be replaced.

    Raises:
        FileNotFoundError: there is none.
    """
    remote: Any = path
    return bytes(remote.fs.cat_file(remote.path)) if is_remote(path) else path.read_bytes()


def write_bytes(path: Path, data: bytes, durable: bool = True, replaces: str | None = None) -> None:
    """Replace a file in one step: all of it is there, or nothing changed.

    Args:
        path: where to.
        data: its new content.
        durable: a power cut keeps it.
        replaces: as `put`'s; of a local file nothing is asked, there a lock keeps others away.
    """
    if is_remote(path):
        put(path, data, replaces)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"_{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def put(path: Path, data: bytes, replaces: str | None = None) -> None:
    """Replace a remote file in one step.

    Args:
        path: where to.
        data: its new content.
        replaces: the version (`listed`) that it must still have, or ABSENT; None: whatever is there. Where
            the store knows no conditions nothing is asked either.

    Raises:
        ReplacedError: it has another one.
    """
    remote: Any = path
    if replaces is None or remote.protocol not in CONDITIONAL:
        _appear(remote, lambda target: remote.fs.pipe_file(target, data))
        return
    condition = {"IfNoneMatch": "*"} if replaces == ABSENT else {"IfMatch": replaces}
    try:
        remote.fs.pipe_file(remote.path, data, chunksize=ONE_PUT, **condition)
    except OSError as error:
        code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
        if code in NO_CONDITIONS:
            remote.fs.pipe_file(remote.path, data)
        elif code not in REFUSED:
            raise
        elif not _holds(path, data):  # else the request was sent twice, and heard the first time
            raise ReplacedError(f"{path} was replaced by another writer") from error


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_bytes(path) == data
    except FileNotFoundError:
        return False


@contextmanager
def making(target: Path) -> Iterator[Path]:
    """A local file to write; it becomes `target` in one step when the block ends without an error."""
    if not is_remote(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        path = target.with_name(f"{target.stem}-{uuid.uuid4().hex[:8]}{PARTIAL}{target.suffix}")
        try:
            yield path
            path.replace(target)
        finally:
            path.unlink(missing_ok=True)
        return
    remote: Any = target
    with temporary_folder() as nearby:
        path = nearby / f"new{target.suffix}"
        yield path
        _appear(remote, lambda there: remote.fs.put_file(str(path), there))


def _appear(target: Any, write: Callable[[str], Any]) -> None:
    """Let `write` write to the target's path, or beside it and rename where that is what makes one step."""
    if _is_object_store(target):
        write(target.path)
        return
    make_folder(target.parent)
    beside = target.with_name(f"_{target.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        write(beside.path)
        target.fs.mv(beside.path, target.path)
    except BaseException:
        with suppress(Exception):
            target.fs.rm_file(beside.path)
        raise


def files(folder: Path, suffix: str = "") -> list[Path]:
    """The files directly in a folder whose names end so, by name, as they are now; none without a folder."""
    if not is_remote(folder):
        return sorted(folder.glob(f"*{suffix}"))
    return [entry.path for entry in listed(folder, suffix)]


def next_numbered(folder: Path, suffix: str) -> Path:
    """The file that comes after those named `0001`, `0002`, ... and a suffix; other names count as 0."""
    last = max((number_of(file.name) for file in files(folder, suffix)), default=0)
    return folder / f"{last + 1:04d}{suffix}"


def number_of(name: str) -> int:
    """The number that a file is named by; 0 where its name is none."""
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isdecimal() else 0


def listed(folder: Path, suffix: str = "") -> list[Listed]:
    """The same `files`, each with its version and time."""
    found = []
    if not is_remote(folder):
        for path in files(folder, suffix):
            with suppress(FileNotFoundError):
                state = path.stat()
                version = f"{state.st_ino}-{state.st_mtime_ns}-{state.st_size}"
                found.append(Listed(path, version, state.st_mtime))
        return found
    remote: Any = folder
    with suppress(FileNotFoundError):
        remote.fs.invalidate_cache()
        for entry in remote.fs.ls(remote.path, detail=True):
            name = str(entry["name"]).rpartition("/")[2]
            if entry["type"] == "file" and name and name.endswith(suffix):
                found.append(Listed(folder / name, entry.get("ETag"), _modified(entry)))
    return sorted(found, key=lambda entry: entry.path.name)


def folders(folder: Path) -> list[Path]:
    """The folders directly in a folder, by name; none without a folder."""
    if not is_remote(folder):
        return sorted(path for path in folder.glob("*") if path.is_dir())
    remote: Any = folder
    names = []
    with suppress(FileNotFoundError):
        remote.fs.invalidate_cache()
        found = remote.fs.ls(remote.path, detail=True)
        names = [str(e["name"]).rstrip("/").rpartition("/")[2] for e in found if e["type"] == "directory"]
    return [folder / name for name in sorted(names)]


def _modified(entry: dict[str, Any]) -> float | None:
    """When a remote file was written; each client has a name of its own for it."""
    for name in ("LastModified", "last_modified", "mtime", "created"):
        if isinstance(time := entry.get(name), datetime):
            return time.timestamp()
    return None


def exists(address: str) -> bool:
    """Whether there is a file at a path or URL; True where that cannot be found out."""
    with suppress(Exception):
        if "://" in address and not address.startswith("file://"):
            import fsspec

            fs, inside = fsspec.url_to_fs(address)
            fs.invalidate_cache()
            return bool(fs.exists(inside))
        return folder_of(address).exists()
    return True


def is_client_error(error: BaseException) -> bool:
    """Whether a store's client raised it; without network or credentials that is no OSError."""
    return type(error).__module__.partition(".")[0] in CLIENTS


def each(work: Callable[[Item], Result], items: Iterable[Item], remote: bool) -> list[Result]:
    """`work` on each item, in order; several at once where each one waits for a network."""
    if not remote:
        return [work(item) for item in items]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, items))


def remove(paths: Iterable[Path]) -> None:
    """Delete files; those that are gone already are passed over."""
    paths = list(paths)
    each(_remove, paths, any(is_remote(path) for path in paths))


def _remove(path: Path) -> None:
    remote: Any = path
    with suppress(FileNotFoundError):
        if is_remote(path):
            remote.fs.rm_file(remote.path)
        else:
            path.unlink()


def move(source: Path, target: Path, replaces: str | None = None) -> None:
    """Put a file into another's place, in one step; a remote one is also left where it was.

    Args:
        source: in the same file system.
        target: where to.
        replaces: as `put`'s.

    Raises:
        FileNotFoundError: there is no such file.
        ReplacedError: as `put`.
    """
    if is_remote(source):
        put(target, read_bytes(source), replaces)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def remove_tree(folder: Path) -> None:
    """Delete a folder with all that is in it, if it is there."""
    remote: Any = folder
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(FileNotFoundError):
        remote.fs.invalidate_cache()
        remote.fs.rm(remote.path, recursive=True)


def steady(read: Callable[[], Result]) -> Result:
    """What `read` reads of remote files; read again where one was replaced in the middle of it."""
    for _ in range(READ_ATTEMPTS - 1):
        try:
            return read()
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ESTALE):
                raise
    return read()


def half_written(folder: Path) -> list[Path]:
    """What killed writers left in a run's folder; in an object store nothing half written is visible."""
    if is_remote(folder):
        return []
    patterns = ("_*.tmp", "runs/_*.tmp", "features/*/*/_*.tmp", "media/*/*.tmp.*")
    return [path for pattern in patterns for path in folder.glob(pattern)]


def below(folder: Path, suffix: str = "") -> list[Path]:
    """The files anywhere below a folder whose names end so, by path; none without a folder."""
    if not is_remote(folder):
        return sorted(path for path in folder.rglob(f"*{suffix}") if path.is_file())
    remote: Any = folder
    remote.fs.invalidate_cache()
    start = len(remote.path.rstrip("/")) + 1
    names = [str(name)[start:] for name in remote.fs.find(remote.path)]
    return [folder / name for name in sorted(names) if name.endswith(suffix)]
