"""Which clips are measured: those of each method and the real ones, matched by name.

Each place is a folder of media, a list, or the folder of a finished run. All clips together become one list,
`clips.parquet` in the evaluation's folder, which an ordinary run takes as its input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from manifests import storage, store
from manifests.text import one_line
from metrics.metric import REAL, REFERENCE, REFERENCE_IMAGE
from pipelines.engine.input_error import InputError
from pipelines.engine.lists import URI
from pipelines.engine.looking import file_size
from pipelines.engine.settings import SourceSettings
from pipelines.evaluation.places import MADE_KEYS, RANGE, REAL_KEYS, SCHEMA, TEXTS, Places

LIST = "clips.parquet"
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
    reader = Places(sources, limit)
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
