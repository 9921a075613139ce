"""The input: a folder, a glob, a single file or a list, turned into samples with stable ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests import storage
from manifests.licences import TRUTHS, with_terms
from manifests.schema import ARROW_TYPES, SOURCE_COLUMNS, input_column_name
from manifests.text import clean_text, public_message, public_text
from media.crop import CROP
from media.files import VIDEO_SUFFIXES, local_copy
from pipelines.engine.addresses import ADDRESS, INSIDE, MEDIA, PROBLEM, ListedMedia, without_query
from pipelines.engine.folders import is_glob, local_media, remote_media
from pipelines.engine.ids import sample_ids
from pipelines.engine.input_error import InputError
from pipelines.engine.list_values import SECONDS
from pipelines.engine.lists import LIST_SUFFIXES, MISSING, OWN, URI, read_list
from pipelines.engine.settings import SourceSettings

DEFAULT = SourceSettings()
# How a list may say true or false in a column of `TRUTHS`.
SAID = {
    **dict.fromkeys(("true", "yes", "1", "1.0"), True),
    **dict.fromkeys(("false", "no", "0", "0.0"), False),
    **dict.fromkeys(MISSING, None),
}
# Rows of a list that are looked at together.
ROWS_AT_ONCE = 1 << 15
# Is told how many samples were found so far.
Told = Callable[[int], None]


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
        table = with_terms(pa.Table.from_pylist(list(rows), schema=_schema(input_fields)))
        return cls(table, input_fields, ignored or Counter())

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

    def first(self, count: int) -> Listing:
        """The first so many samples."""
        return replace(self, table=self.table.slice(0, count))

    def only(self, ids: pa.Array | pa.ChunkedArray) -> Listing:
        """The samples of these ids."""
        return replace(self, table=self.table.filter(pc.is_in(self.ids, value_set=ids)))


def _schema(input_fields: Sequence[pa.Field]) -> pa.Schema:
    own = pa.schema(LISTED | dict.fromkeys((ADDRESS, PROBLEM), pa.string()))
    return pa.schema([*own, *input_fields])


def list_input(
    path: str,
    source: str | None = None,
    suffixes: frozenset[str] = VIDEO_SUFFIXES,
    owned: frozenset[str] = frozenset(),
    sources: SourceSettings = DEFAULT,
    limit: int | None = None,
    told: Told = lambda found: None,
) -> Listing:
    """List a folder, a glob, a single media file, or a Parquet/CSV/TSV/JSONL list with a `uri` column.

    Args:
        path: local path or any fsspec URL.
        source: name of the data set; by default the folder's or the list's name.
        suffixes: file name endings of media, lower case with the dot.
        owned: names of columns that the pipeline writes; a list's column of that name becomes `input_<name>`.
        sources: what a list or a folder may lead to.
        limit: the first so many samples, as they are without a limit; the other files are not looked at, and
            `ignored` counts what was passed over on the way. None: all.
        told: is told now and then how many samples were found.

    Raises:
        InputError: nothing is there, the list cannot be read or has no `uri` column, or no media is found.
    """
    if _list_suffix(path) in LIST_SUFFIXES and not is_glob(path):
        return _from_list(path, source, owned, sources, limit, told)
    ignored: Counter[str] = Counter()
    if "://" in path:
        name, blocks = remote_media(path, suffixes, ignored, limit)
    else:
        name, blocks = local_media(path, suffixes, ignored, sources.follow_links, limit)
    media = _gathered(blocks, told)
    if not media.num_rows and limit != 0:
        seen = f"; it holds {sum(ignored.values())} other files" if ignored else ""
        raise InputError(f"no media in {path} (looked for {' '.join(sorted(suffixes))}){seen}")
    return _listing(media, {"source": _one_name(source or name, media.num_rows)}, {}, ignored)


def _gathered(blocks: Iterable[pa.RecordBatch], told: Told) -> pa.Table:
    """All rows of `MEDIA`."""
    found, kept = 0, []
    for block in blocks:
        kept.append(block)
        found += len(block)
        told(found)
    return pa.Table.from_batches(kept, MEDIA)


def _one_name(name: str, rows: int) -> pa.ChunkedArray:
    return pa.chunked_array([pa.repeat(pa.scalar(clean_text(name)), rows)])


def _listing(
    media: pa.Table,
    own: Mapping[str, pa.ChunkedArray],
    further: Mapping[pa.Field, pa.ChunkedArray],
    ignored: Counter[str],
) -> Listing:
    """The samples.

    Args:
        media: rows of `MEDIA`.
        own: columns of `LISTED` that `media` lacks, `source` among them.
        further: columns that a list brings.
        ignored: as of `Listing`.
    """
    rows = media.num_rows
    empty = {name: pa.chunked_array([pa.nulls(rows, kind)]) for name, kind in LISTED.items()}
    columns = {**empty, **{name: media[name] for name in media.column_names}, **own}
    crop = [columns[name] for name in CROP]
    ids = sample_ids(columns["source"], columns.pop(INSIDE), columns["start_s"], columns["end_s"], crop)
    columns |= {"sample_id": ids, **{each.name: column for each, column in further.items()}}
    schema = _schema(list(further))
    table = with_terms(pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema))
    return Listing(table, list(further), ignored)


def _read_list(path: str, limit: int | None) -> tuple[pa.Table, dict[int, str]]:
    """The table of a list anywhere, and what is wrong with single rows.

    Raises:
        InputError: it cannot be had or read.
    """
    try:
        with local_copy(path) as file:
            return read_list(file, _list_suffix(path), limit)
    except FileNotFoundError:
        raise InputError(f"no such file: {public_text(path)}") from None
    except Exception as error:
        if isinstance(error, OSError | ValueError | ImportError) or storage.is_client_error(error):
            reason = public_message(str(error))
            raise InputError(f"cannot read the list {public_text(path)}: {reason}") from error
        raise


def _from_list(
    path: str,
    source: str | None,
    owned: frozenset[str],
    sources: SourceSettings,
    limit: int | None,
    told: Told,
) -> Listing:
    table, problems = _read_list(path, limit)
    name = source or PurePosixPath(without_query(path)).stem
    return list_table(table, problems, path, name, owned, sources, told)


def list_table(
    table: pa.Table,
    problems: Mapping[int, str],
    path: str,
    source: str,
    owned: frozenset[str],
    sources: SourceSettings,
    told: Told = lambda found: None,
    ignored: Counter[str] | None = None,
    found: Sequence[str] = (),
) -> Listing:
    """The samples of a table as `read_list` gives it, in its order.

    Args:
        table: columns `uri` and those of `OWN`, which may be absent. Every further column is kept, by its own
            unit and meaning.
        problems: what makes a row an error, by its number from 1.
        path: of a list; relative addresses are relative to it.
        source: name of the data set, where the table names none.
        owned: names of columns that the pipeline writes.
        sources: what addresses may lead to.
        told: is told now and then how many samples were found.
        ignored: how many files were passed over, by suffix.
        found: columns of `MEDIA` that the table brings; where they are not null they are what counts.

    Raises:
        InputError: two columns would have one name.
    """
    further: dict[pa.Field, pa.ChunkedArray] = {}
    for f in table.schema:
        if f.name not in (*OWN, *TRUTHS, *found):
            name = input_column_name(f.name, owned)
            meaning = f.metadata or _meaning(f.name)
            if name in {other.name for other in further}:
                shown = public_text(path)
                raise InputError(f"{shown}: two columns would both be {name} in the manifest; rename one")
            further[pa.field(name, f.type, metadata=meaning)] = table[f.name]
    own = {name: table[name] for name in OWN if name in table.column_names}
    own |= {name: _truths(table[name], name, path) for name in TRUTHS if name in table.column_names}
    for name in SECONDS:
        own.setdefault(name, pa.chunked_array([pa.nulls(table.num_rows, pa.float64())]))
    default = _one_name(source, table.num_rows)
    named = own.get("source", default)
    own["source"] = pc.if_else(pc.equal(pc.fill_null(named, ""), ""), default, named)
    rows = pa.table({name: own[name] for name in (URI, *SECONDS)})
    media = _gathered(_listed(rows, ListedMedia(path, sources), problems), told)
    for name in found:
        place = media.schema.get_field_index(name)
        media = media.set_column(place, MEDIA.field(name), pc.coalesce(table[name], media[name]))
    del own[URI]
    return _listing(media, own, further, ignored or Counter())


def _meaning(name: str) -> dict[str, str]:
    return {"unit": "", "meaning": f"Column `{name}` of the input list.", "from": "input list"}


def _listed(rows: pa.Table, media: ListedMedia, problems: Mapping[int, str]) -> Iterator[pa.RecordBatch]:
    """Rows of `MEDIA` of the rows of a list."""
    first = 1
    for block in rows.to_batches(max_chunksize=ROWS_AT_ONCE):
        yield media.of(block, first, problems)
        first += len(block)


def _truths(column: pa.ChunkedArray, name: str, path: str) -> pa.ChunkedArray:
    """A list's column of ours that says true or false, or in words or numbers what is one of them.

    Raises:
        InputError: a value is neither.
    """
    encoded = column.combine_chunks().dictionary_encode()
    truths = []
    for value in encoded.dictionary.to_pylist():
        word = "" if value is None else str(value).strip().lower()
        if word not in SAID:
            raise InputError(
                f"{public_text(path)}: column {name}: {clean_text(word)[:40]!r} is neither true nor false"
            )
        truths.append(SAID[word])
    return pa.chunked_array([pa.array(truths, pa.bool_()).take(encoded.indices)])


def _list_suffix(path: str) -> str:
    """The ending of the path, lower case with the dot."""
    return PurePosixPath(without_query(path)).suffix.lower()
