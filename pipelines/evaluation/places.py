"""The clips of one place: a folder of media, a list, or the folder of a finished run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from manifests import storage, store
from manifests.text import one_line, public_text
from media.crop import CROP
from media.files import VIDEO_SUFFIXES, local_copy
from media.requests import Frames
from metrics.metric import PROMPT, REFERENCE, REFERENCE_IMAGE
from pipelines.engine.addresses import ADDRESS, PROBLEM, ListedMedia
from pipelines.engine.folders import is_glob
from pipelines.engine.input_error import InputError
from pipelines.engine.list_values import SECONDS, ListError
from pipelines.engine.lists import LIST_SUFFIXES, URI, read_list
from pipelines.engine.settings import SourceSettings
from pipelines.engine.source import Listing, list_input
from stages.contract import Beside

RANGE = (*SECONDS, *CROP)
# What a list may say of a clip beside its media; the texts that are structured are JSON.
TEXTS = ("dataset", PROMPT, "objects", "object_boxes", "contact_spans")
# Names of a list's column of media, the first that is there: of made clips, and of real ones.
MADE_KEYS, REAL_KEYS = ("generated", URI), ("reference_video", URI)
PAIR_KEYS = ("pair", "id")
PROMPT_KEYS = (PROMPT, "text", "caption")

# Of a clip in the list of all clips.
SCHEMA = pa.schema(
    {
        URI: pa.string(),
        "source": pa.string(),
        **dict.fromkeys(RANGE, pa.float64()),
        "method": pa.string(),
        "pair": pa.string(),
        **dict.fromkeys(TEXTS, pa.string()),
        **{
            name: pa.int64() if name.endswith("_size") else pa.string() if name == column else pa.float64()
            for column in (REFERENCE, REFERENCE_IMAGE)
            for name in Beside(column, Frames(0, 1)).columns
        },
    }
)


class Places:
    """Reads places; remembers the schemes of their addresses.

    Args:
        sources: what lists may name.
        limit: most clips of a place.
    """

    def __init__(self, sources: SourceSettings, limit: int | None) -> None:
        self.sources, self.limit = sources, limit
        self.schemes: set[str] = set()

    def read(self, place: str, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The clips of a place by their names, in the order of these.

        Raises:
            InputError: it cannot be read, holds no clips, or two of them have one name.
        """
        if PurePosixPath(place).suffix.lower() in LIST_SUFFIXES and not _is_folder(place):
            rows = self._of_list(place, keys)
        elif not is_glob(place) and storage.exists(f"{place.rstrip('/')}/run.json"):
            rows = self._of_run(place)
        else:
            rows = self._of_folder(place)
        clips: dict[str, dict[str, Any]] = {}
        for row in rows:
            if row["pair"] in clips:
                raise InputError(
                    f"{public_text(place)}: {clips[row['pair']][URI]} and {row[URI]} are both named "
                    f"{one_line(row['pair'])}; move one away, or give a list with a column `pair`"
                )
            clips[row["pair"]] = row
            self.schemes |= {a.partition("://")[0] for a in _addresses(row) if "://" in a}
        if not clips:
            raise InputError(f"{public_text(place)} holds no clip that is kept")
        return dict(sorted(clips.items())[: self.limit])

    def _of_folder(self, place: str) -> Iterator[dict[str, Any]]:
        listing = list_input(place, suffixes=VIDEO_SUFFIXES, sources=self.sources)
        root = place.rstrip("/") if "://" in place else str(Path(place).absolute())
        for item in _public(listing, place).rows:
            uri = str(item["source_uri"])
            inside = uri.removeprefix(f"{root}/") if uri.startswith(f"{root}/") else PurePosixPath(uri).name
            yield _row(uri, str(PurePosixPath(inside).with_suffix("")), item)

    def _of_run(self, place: str) -> Iterator[dict[str, Any]]:
        """The kept clips of a finished run, named by `pair`, else by their files."""
        manifest = storage.folder_of(place) / "manifest"
        wanted = ("source_uri", "media_uri", "keep", "pair", *RANGE, *TEXTS, *PROMPT_KEYS)
        names = [name for name in dict.fromkeys(wanted) if name in store.column_names(manifest)]
        for item in store.read(manifest, names).to_pylist():
            if not item["keep"]:
                continue
            own = item["media_uri"] != item["source_uri"]
            part = {name: None if own else item.get(name) for name in RANGE}
            name = item.get("pair") or _name_of(item)
            texts = {key: _text(item.get(key)) for key in TEXTS}
            texts[PROMPT] = next((item[key] for key in PROMPT_KEYS if item.get(key)), None)
            yield {**_row(item["media_uri"], str(name), part), **texts}

    def _of_list(self, place: str, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
        key, items = _items(place, keys)
        media = ListedMedia(place, self.sources)

        def address(item: Mapping[str, Any], number: int, *names: str) -> str | None:
            name = next((name for name in names if item.get(name)), None)
            if name is None:
                return None
            uri, _, problem = media.row(str(item[name]), None, None, number, None)
            if problem is None and public_text(uri) != uri:
                problem = f"row {number}: {name} has a user or a signature; copy the file or mount its place"
            if problem is not None:
                raise InputError(f"{public_text(place)}: {problem}")
            return uri

        for number, item in enumerate(items, 1):
            uri = address(item, number, key)
            if uri is None:
                raise InputError(f"{public_text(place)}: row {number} has no {key}")
            name = next((str(item[k]) for k in PAIR_KEYS if item.get(k) is not None), PurePosixPath(uri).stem)
            row = {**_row(uri, name, item), **{k: _text(item.get(k)) for k in TEXTS}}
            row[PROMPT] = next((str(item[k]) for k in PROMPT_KEYS if item.get(k)), None)
            row["dataset"] = row["dataset"] or _text(item.get("source"))
            if key != "reference_video":
                row[REFERENCE] = address(item, number, "reference_video", REFERENCE)
            row[REFERENCE_IMAGE] = address(item, number, "reference_image", REFERENCE_IMAGE)
            yield row


def _items(place: str, keys: Sequence[str]) -> tuple[str, list[dict[str, Any]]]:
    """The rows of a list, and which of `keys` names their media.

    Raises:
        InputError: it cannot be read, has none of them, or one of its rows is wrong.
    """
    why = ""
    with local_copy(place) as file:
        for key in keys:
            try:
                table, problems = read_list(file, PurePosixPath(place).suffix.lower(), key=key)
            except ListError as error:
                why = str(error)
                continue
            if problems:
                raise InputError(f"{public_text(place)}: {problems[min(problems)]}")
            return key, table.to_pylist()
    raise InputError(f"cannot read the list {public_text(place)}: {why}")


def _is_folder(place: str) -> bool:
    return "://" not in place and Path(place).is_dir()


def _public(listing: Listing, place: str) -> Listing:
    """The listing, if no address in it has a user or signature, and each can be opened.

    Raises:
        InputError: one has.
    """
    for row in listing.rows:
        if row.get(PROBLEM) or row.get(ADDRESS):
            problem = row.get(PROBLEM) or "its address has a user or a signature; mount it, or copy the clips"
            raise InputError(f"{public_text(place)}: {problem}")
    return listing


def _name_of(item: Mapping[str, Any]) -> str:
    """The name of a row of a manifest: its file's, and of a part of a file the part's, too."""
    stem = PurePosixPath(item["source_uri"]).stem
    part = "-".join(f"{item[name]:g}" for name in SECONDS if item.get(name) is not None)
    return f"{stem}_{part}" if part else stem


def _row(uri: str, pair: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `SCHEMA` with media and range alone."""
    empty = dict.fromkeys(SCHEMA.names)
    return {**empty, URI: uri, "pair": pair, **{name: item.get(name) for name in RANGE}}


def _addresses(row: Mapping[str, Any]) -> list[str]:
    return [row[name] for name in (URI, REFERENCE, REFERENCE_IMAGE) if row[name] is not None]


def _text(value: Any) -> str | None:
    """A text, or JSON of what a JSON list or Parquet holds in its place."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
