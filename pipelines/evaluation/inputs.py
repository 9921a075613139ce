"""Which clips are measured: those of each method and the real ones, matched by name.

Each place is a folder of media, a list, or the folder of a finished run. All clips together become one list,
`clips.parquet` in the evaluation's folder, which an ordinary run takes as its input.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from manifests import storage, store
from manifests.text import one_line, public_text
from media.crop import CROP
from media.files import VIDEO_SUFFIXES, local_copy
from metrics.metric import PROMPT, REAL, REFERENCE, REFERENCE_IMAGE
from pipelines.engine.addresses import ADDRESS, PROBLEM, ListedMedia
from pipelines.engine.folders import is_glob
from pipelines.engine.input_error import InputError
from pipelines.engine.list_values import SECONDS, ListError
from pipelines.engine.lists import LIST_SUFFIXES, URI, read_list
from pipelines.engine.looking import file_size
from pipelines.engine.settings import SourceSettings
from pipelines.engine.source import Listing, list_input
from stages.contract import Beside

LIST = "clips.parquet"
RANGE = (*SECONDS, *CROP)
# What a list may say of a clip beside its media; the texts that are structured are JSON.
TEXTS = ("dataset", PROMPT, "objects", "object_boxes", "contact_spans")
# Names of a list's column of media, the first that is there: of the method's clips, and of the real ones.
MADE_KEYS, REAL_KEYS = ("generated", URI), ("reference_video", URI)
PAIR_KEYS = ("pair", "id")
PROMPT_KEYS = (PROMPT, "text", "caption")
LONGEST_NAME = 60  # characters of a method's name
NAMED_AT_MOST = 3  # clips in a message


@dataclass(frozen=True)
class Methods:
    """Where the clips of a comparison lie.

    Attributes:
        places: method -> folder, list, or folder of a run.
        reference: likewise of the real clips; None: there are none.
    """

    places: Mapping[str, str]
    reference: str | None = None


@dataclass
class Inputs:
    """All clips of an evaluation.

    Attributes:
        table: one row a clip, as of an input list.
        schemes: of addresses in it beside local files, each of which the user has named.
        notes: method -> what its table will lack, in sentences.
    """

    table: pa.Table
    schemes: list[str] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)


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
            for name in Beside(column, None).columns  # type: ignore[arg-type]
        },
    }
)


def parse_methods(generated: str | None, named: Sequence[str], reference: str | None) -> Methods:
    """The methods of a command line.

    Args:
        generated: a place; the method is named by its last part.
        named: further methods as NAME=PLACE.
        reference: the place of the real clips.

    Raises:
        InputError: there is none, or a name is missing, taken or none.
    """
    pairs = [] if generated is None else [(_own_name(generated), generated)]
    for text in named:
        name, equals, place = text.partition("=")
        if not equals or not name.strip() or not place:
            raise InputError(f"--method {one_line(text)}: give it as NAME=DIR, such as ours=out/ours")
        pairs.append((name.strip(), place))
    if not pairs:
        raise InputError("nothing to measure: give a folder of clips, or --method NAME=DIR")
    for name, place in pairs:
        if name == REAL:
            raise InputError(f"{REAL} is the name of the real clips: call {one_line(place)} something else")
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise InputError(f"{name[:80]!a} is no name for a method: at most {LONGEST_NAME} characters")
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise InputError(
            f"two methods are named {one_line(twice[0])}: give one another name by --method NAME=DIR"
        )
    return Methods(dict(pairs), reference)


def _own_name(place: str) -> str:
    return PurePosixPath(place.rstrip("/")).stem[:LONGEST_NAME] or "generated"


def gather(methods: Methods, sources: SourceSettings, limit: int | None = None) -> Inputs:
    """All clips, those of each method with their real partners of the same name.

    Args:
        methods: where they lie.
        sources: what lists may name.
        limit: of each place the first so many by name; None: all.

    Raises:
        InputError: a place cannot be read, holds no clips, or two of its clips have one name.
    """
    reader = _Reader(sources, limit)
    real = {} if methods.reference is None else reader.read(methods.reference, REAL_KEYS)
    inputs = Inputs(SCHEMA.empty_table())
    rows: list[dict[str, Any]] = [{**row, "method": REAL, "source": REAL} for row in real.values()]
    for method, place in methods.places.items():
        made = reader.read(place, MADE_KEYS)
        notes = inputs.notes.setdefault(method, [])
        if real:
            notes += _missing(made, real)
        for name, row in made.items():
            rows.append(_with_partner({**row, "method": method, "source": method}, real.get(name)))
        if not real and not any(row[REFERENCE] for row in rows if row["method"] == method):
            notes.append("no reference: only what is measured on its clips alone has numbers")
    inputs.table = pa.Table.from_pylist([_sized(row) for row in rows], schema=SCHEMA)
    inputs.schemes = sorted(reader.schemes)
    return inputs


def write_inputs(inputs: Inputs, folder: Path) -> Path:
    """Write the list of all clips into the evaluation's folder; it is left alone where it says the same."""
    target = folder / LIST
    if target.exists() and store.read_file(target).equals(inputs.table):
        return target
    with storage.written(folder):
        storage.make_folder(folder)
        store.write_table(target, inputs.table)
    return target


def _missing(made: Mapping[str, Any], real: Mapping[str, Any]) -> list[str]:
    """What to say of clips without a partner."""
    lonely, absent = [n for n in made if n not in real], [n for n in real if n not in made]
    if len(lonely) == len(made):
        return [
            "no clip has the name of a real one: only distances of whole sets compare them (partners have "
            "equal file names without ending, or equal values in a column `pair`)"
        ]
    said = []
    if lonely:
        said.append(f"{len(lonely)} of {len(made)} clips have no real partner: {_few(lonely)}")
    if absent:
        said.append(f"{len(absent)} of {len(real)} real clips have no made one: {_few(absent)}")
    return said


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(one_line(name) for name in sorted(names)[:NAMED_AT_MOST])
    return f"{shown}, ..." if len(names) > NAMED_AT_MOST else shown


def _with_partner(row: dict[str, Any], partner: Mapping[str, Any] | None) -> dict[str, Any]:
    """A made clip with its real partner, and what the partner's row says where its own does not."""
    if partner is not None:
        for name in TEXTS:
            row[name] = partner[name] if row[name] is None else row[name]
        if row[REFERENCE] is None:
            row |= {REFERENCE: partner[URI], **{f"reference_{name}": partner[name] for name in RANGE}}
        if row[REFERENCE_IMAGE] is None:
            row[REFERENCE_IMAGE] = partner[REFERENCE_IMAGE]
    if row[REFERENCE_IMAGE] is None and row[REFERENCE] is not None:  # of a video the first picture counts
        row[REFERENCE_IMAGE] = row[REFERENCE]
        row |= {f"reference_image_{name}": row[f"reference_{name}"] for name in RANGE}
    return row


def _sized(row: dict[str, Any]) -> dict[str, Any]:
    """With the sizes of its partners' files, by which another one is known."""
    for column in (REFERENCE, REFERENCE_IMAGE):
        address = row[column]
        if address is not None and "://" not in address:
            row[f"{column.removesuffix('_uri')}_size"] = file_size(address)
    return row


class _Reader:
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
            InputError: see `gather`.
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
        folder = storage.folder_of(place)
        for item in store.read(folder / "manifest").to_pylist():
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
