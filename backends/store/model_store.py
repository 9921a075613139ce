"""A folder of models: `<store>/<name>/<files>`, and `<store>/models.yaml` with hashes of what was fetched.

`configs/models.yaml` names the models and pins their files; the store's own `models.yaml` fills in what is
not pinned. A store may lie behind a URL or on a network mount: its models are then copied to this machine
when first used.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path
from typing import Any

import fsspec

from backends.store.copied_weights import (
    CopiedWeights,
    ModelStoreError,
    MountedWeights,
    cache_folder,
    shown,
    wrong_size,
)
from backends.store.file_hashes import RememberedHashes
from backends.store.model_catalogue import (
    CatalogueError,
    FileEntry,
    ModelEntry,
    dump_catalogue,
    known_models,
    parse_catalogue,
)
from backends.store.weights import Weights
from manifests import storage

RECORD = "models.yaml"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Problem:
    """What is wrong with one file of a model, and the way out.

    Attributes:
        model: name.
        file: inside the model's folder.
        what: is wrong.
        place: where the file belongs.
        source: where it comes from; "" if no public address is known.
        way_out: what to do, for the whole model.
    """

    model: str
    file: str
    what: str
    place: str
    source: str
    way_out: str

    def __str__(self) -> str:
        origin = f" (from {self.source})" if self.source else ""
        return f"{self.model}: {self.file} {self.what}; it belongs at {self.place}{origin}; {self.way_out}"


def say_problems(problems: Iterable[Problem]) -> str:
    """All of them as text, the way out once for each model."""
    lines = []
    for (model, way_out), files in groupby(problems, key=lambda p: (p.model, p.way_out)):
        lines.append(f"{model}: {way_out}")
        for p in files:
            lines.append(
                f"  {p.file} {p.what}; place: {p.place}" + (f"; from: {p.source}" if p.source else "")
            )
    return "\n".join(lines)


def default_location() -> str:
    """`$INTERAVATAR_MODELS`, else `models` in the cache folder."""
    return os.environ.get("INTERAVATAR_MODELS") or str(cache_folder() / "models")


class ModelStore:
    """The models of one location.

    Args:
        location: a folder, or an fsspec URL; default: `default_location()`.
    """

    def __init__(self, location: str | Path | None = None) -> None:
        self.location = str(location or default_location())
        self.is_remote = "://" in self.location
        if self.is_remote:
            self.location = self.location.rstrip("/")
        else:
            self.location = str(Path(self.location).expanduser().absolute())
        self._option = "" if location is None else f" --models {shown(self.location)}"
        self._record: dict[str, ModelEntry] | None = None

    @property
    def folder(self) -> Path:
        """Of a store on this machine.

        Raises:
            ModelStoreError: it lies behind a URL.
        """
        if self.is_remote:
            raise ModelStoreError(
                f"{shown(self.location)} is a URL: change the models in a folder of this machine, then copy "
                f"that folder there, its {RECORD} too"
            )
        return Path(self.location)

    def recorded(self) -> dict[str, ModelEntry]:
        """What the store's own models.yaml says.

        Raises:
            CatalogueError: it is wrong.
            ModelStoreError: it cannot be read.
        """
        if self._record is None:
            try:
                with fsspec.open(f"{self.location}/{RECORD}", "rt", encoding="utf-8") as stream:
                    text = stream.read()
            except FileNotFoundError:
                text = ""
            except Exception as error:  # of the URL's own library, or that it is not installed
                said = f"{shown(self.location)}/{RECORD}: {type(error).__name__}: {error}"
                raise ModelStoreError(said) from None
            self._record = parse_catalogue(text, f"{shown(self.location)}/{RECORD}")
        return self._record

    def entry(self, name: str) -> ModelEntry:
        """What is known of a model: the pins of the catalogue, filled in by the store's record.

        Raises:
            CatalogueError: there is no such model.
        """
        recorded, pinned = self.recorded().get(name), known_models().get(name)
        if recorded is not None and (recorded.random_weights or pinned is None):
            return recorded
        if pinned is not None:
            return pinned if recorded is None else _filled_in(pinned, recorded)
        if not self._has_folder(name):
            known = sorted({*known_models(), *self.recorded()})
            close = get_close_matches(name, known, 1)
            nearest = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise CatalogueError(f"there is no model {name!r}; {nearest}")
        files = self._listing(name)
        if not files:
            raise CatalogueError(f"{name}: the folder holds no files")
        return ModelEntry(files=files)

    def weights(self, name: str) -> Weights:
        """Where a model's weights lie and what they are called. Checks nothing.

        Of a folder that no models.yaml names the files are read, once, for their hashes.

        Args:
            name: in the catalogue or the store, or the path of a folder that holds a model.

        Raises:
            CatalogueError: there is no such model; the nearest name is given.
            ModelStoreError: the store's models.yaml cannot be read.
        """
        entry = self.entry(name)
        if self._is_listed(name):
            digest = _digest({file: f.sha256 for file, f in entry.files.items()}) if entry.is_pinned else ""
        elif self.is_remote:  # sizes would not tell a fine-tuned model from its base
            raise CatalogueError(
                f"{name} is not in {RECORD} of the store: `interavatar models record` writes it there"
            )
        else:
            digest = _digest(RememberedHashes(Path(self.location) / name).of(list(entry.files)))
        published = not entry.random_weights and _is_published(entry, known_models().get(name))
        if self.is_remote and not Path(name).is_absolute():
            return CopiedWeights(name, f"{self.location}/{name}", entry, digest, published)
        return MountedWeights(Path(name).name, str(Path(self.location) / name), entry, digest, published)

    def problems(self, names: Sequence[str], hashes: bool = True, say: Say | None = None) -> list[Problem]:
        """What is missing or wrong, file by file; empty when the models can be used.

        Args:
            names: of models.
            hashes: compare the contents too, not only names and sizes. Hashes of files that have not changed
                since they were last read are remembered. Behind a URL contents are compared when copied.
            say: called with a line before something that takes long.

        Raises:
            CatalogueError: there is no such model.
        """
        found = []
        for name in dict.fromkeys(names):
            entry = self.entry(name)
            if not self._is_listed(name):
                continue  # somebody's own folder: nothing says what it should hold
            wrong = self._wrong_files(name, entry, hashes, say)
            found += [self._problem(name, entry, file, what) for file, what in wrong.items()]
        return found

    def check(self, names: Sequence[str], say: Say | None = None) -> None:
        """Nothing, if the models can be used.

        Raises:
            ModelStoreError: they cannot; the message lists every problem.
            CatalogueError: there is no such model.
        """
        problems = self.problems(names, say=say)
        if problems:
            raise ModelStoreError(f"weights are missing or wrong:\n{say_problems(problems)}")

    def record(self, names: Sequence[str], random_weights: bool = False) -> None:
        """Take the files as they lie in the store: compare them with the pins, write down their hashes.

        Args:
            names: of the catalogue, or of folders in the store.
            random_weights: these stand in for the real ones; no pins apply, and what they make is named so.

        Raises:
            ModelStoreError: a file is missing or is not the pinned one, or the store lies behind a URL.
            CatalogueError: there is no such model.
        """
        new = {}
        for name in names:
            pinned = known_models().get(name)
            if random_weights or pinned is None:
                files = self._listing(name) if self._has_folder(name) else {}
                if not files:
                    raise ModelStoreError(f"{self.folder / name} holds no files")
                entry = ModelEntry(files=files, random_weights=random_weights)
            else:
                entry = pinned
                wrong = {f: w for f, w in self._wrong_files(name, entry, True, None).items() if w != UNPINNED}
                if wrong:
                    listed = [self._problem(name, entry, file, what) for file, what in wrong.items()]
                    raise ModelStoreError(say_problems(listed))
            new[name] = self.with_hashes(name, entry)
        self.write(new)

    def with_hashes(self, name: str, entry: ModelEntry) -> ModelEntry:
        """The entry with sizes and hashes of the files as they lie in the store.

        Raises:
            OSError: one cannot be read.
        """
        found = RememberedHashes(self.folder).of([f"{name}/{file}" for file in entry.files])
        files = {
            file: f.model_copy(
                update={
                    "sha256": found[f"{name}/{file}"],
                    "bytes": (self.folder / name / file).stat().st_size,
                }
            )
            for file, f in entry.files.items()
        }
        return entry.model_copy(update={"files": files})

    def write(self, models: Mapping[str, ModelEntry]) -> None:
        """Put entries into the store's models.yaml, beside those of others.

        Raises:
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with storage.locked(self.folder / ".models.lock"):
            self._record = None
            text = dump_catalogue({**self.recorded(), **models})
            storage.write_bytes(self.folder / RECORD, text.encode())
        self._record = None

    def _is_listed(self, name: str) -> bool:
        return name in known_models() or name in self.recorded()

    def _has_folder(self, name: str) -> bool:
        if not name.strip() or ".." in Path(name).parts:
            return False
        if self.is_remote and not Path(name).is_absolute():
            files, root = fsspec.core.url_to_fs(self.location)
            return bool(files.isdir(f"{root}/{name}"))
        return (Path(self.location) / name).is_dir()

    def _listing(self, name: str) -> dict[str, FileEntry]:
        """Files of a folder with their sizes, without hidden ones."""
        location = name if Path(name).is_absolute() else f"{self.location}/{name}"
        files, root = fsspec.core.url_to_fs(location)
        found: Mapping[str, Any] = files.find(root, detail=True)
        sizes = {path.removeprefix(root).lstrip("/"): info["size"] for path, info in found.items()}
        return {
            path: FileEntry(bytes=size)
            for path, size in sorted(sizes.items())
            if not any(part.startswith(".") for part in path.split("/"))
        }

    def _wrong_files(self, name: str, entry: ModelEntry, hashes: bool, say: Say | None) -> dict[str, str]:
        """File -> what is wrong with it."""
        there = self._listing(name) if self.is_remote and self._has_folder(name) else {}
        wrong: dict[str, str] = {}
        for file, expected in entry.files.items():
            if self.is_remote:
                size = there[file].bytes if file in there else None
            else:
                path = self.folder / name / file
                size = path.stat().st_size if path.is_file() else None
            said = "is missing" if size is None else wrong_size(expected, size)
            if said is None and expected.sha256 is None:
                said = UNPINNED
            if said:
                wrong[file] = said
        if not hashes or self.is_remote:
            return wrong
        right = [file for file in entry.files if file not in wrong]
        remembered = RememberedHashes(self.folder)
        paths = [f"{name}/{file}" for file in right]
        new = set(paths) - set(remembered.known(paths))
        size = sum((self.folder / path).stat().st_size for path in new)
        if say is not None and size > 1 << 28:
            say(f"comparing {name} with its hashes, {size / 2**30:.1f} GiB")
        found = remembered.of(paths)
        for file in right:
            if found[f"{name}/{file}"] != entry.files[file].sha256:
                wrong[file] = "is not the expected file: its SHA-256 differs"
        return {file: wrong[file] for file in entry.files if file in wrong}

    def _problem(self, name: str, entry: ModelEntry, file: str, what: str) -> Problem:
        place = f"{shown(self.location)}/{name}/{file}"
        member, source = entry.files[file].member, entry.url_of(file) or ""
        if member and source:
            source = f"{member} in {source}"
        where = self._option
        if self.is_remote or entry.random_weights:
            way_out = "copy it there again, with the models.yaml that names it"
        elif what == UNPINNED:
            way_out = f"`interavatar models record {name}{where}` takes the files as they are"
        elif not source:
            way_out = (
                f"no public address is known: put it there, then `interavatar models record {name}{where}`"
            )
        else:
            first = f"accept the conditions at {entry.page}, set HF_TOKEN, then " if entry.gated else ""
            way_out = f"{first}`interavatar models fetch {name}{where}`"
        return Problem(name, file, what, place, source, way_out)


UNPINNED = "has no hash to compare it with"


def _filled_in(pinned: ModelEntry, recorded: ModelEntry) -> ModelEntry:
    """Pins first, then what was recorded of the same revision."""
    revision = pinned.source.revision or recorded.source.revision
    if recorded.source.revision != revision:
        return pinned
    files = {}
    for file, pin in pinned.files.items():
        have = recorded.files.get(file, FileEntry())
        filled = {
            "sha256": pin.sha256 or have.sha256,
            "bytes": have.bytes if pin.bytes is None else pin.bytes,
        }
        files[file] = pin.model_copy(update=filled)
    source = pinned.source.model_copy(update={"revision": revision})
    return pinned.model_copy(update={"files": files, "source": source})


def _is_published(entry: ModelEntry, pinned: ModelEntry | None) -> bool:
    """Whether every file has the hash that the catalogue pins, or begins with the part of it in its address.

    PyTorch's hub names files so, and compares as much: raft_large_C_T_V1-22a6c225.pth.
    """
    if pinned is None:
        return False
    for file, pin in pinned.files.items():
        named = re.search(r"-([0-9a-f]{8})\.pth$", pinned.url_of(file) or "")
        wanted = pin.sha256 or (named and named[1])
        if not wanted or not (entry.files[file].sha256 or "").startswith(wanted):
            return False
    return True


def _digest(files: Mapping[str, object]) -> str:
    text = "\n".join(f"{file}\t{what}" for file, what in sorted(files.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
