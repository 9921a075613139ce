"""Which samples go into shards, and which into which: a pure function of the manifests and the options.

A manifest is read file by file. The plan needs the id and the size of each row; whole rows are read again,
for the digest here and for the shards in `pipelines/shards/rows.py`, and only of the same files: a manifest
that was changed meanwhile is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import collected, storage, store
from manifests import shards as format
from manifests.screen import STAND_IN, STAND_IN_COLUMN
from manifests.store import at_one_moment, read_columns, whole_schema
from pipelines.catalogue import STEPS
from pipelines.engine.pipeline import RunError
from pipelines.engine.provenance import provenance_of
from pipelines.engine.record import read_run
from pipelines.engine.sample_media import is_own_media
from pipelines.engine.source import InputError
from pipelines.shards import media as shard_media
from pipelines.shards.sizes import COUNTED, estimated_bytes, is_text

SEED = 0  # of the shuffle
KEY_LENGTH = 80


@dataclass(frozen=True)
class FileOfRows:
    """One file of a run's manifest, and which of its rows go into shards.

    file: as it was when they were chosen. rows: their positions in it, by sample_id. places: which of the
    run's samples each of them is.
    """

    file: storage.Listed
    rows: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]


@dataclass(frozen=True)
class RunOfSamples:
    """One finished run, and the samples of it that go into shards.

    ids: of these samples, sorted. sizes: about how many bytes each will take. preview: for each, whether a
    stand-in made it.
    files: where their rows are. schema: of the rows.
    left_out: how many rows do not go in: `dropped` by the screen, `previews`, `of other sides`.
    provenance: how they were made (`provenance_of`).
    """

    name: str
    folder: Path
    pipeline: str
    run_id: str
    weight: float
    ids: pa.Array
    sizes: npt.NDArray[np.int64]
    preview: npt.NDArray[np.bool_]
    files: Sequence[FileOfRows]
    schema: pa.Schema
    left_out: Mapping[str, int]
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """One sample on its way into a shard: its manifest row, and where that comes from."""

    row: Mapping[str, Any]
    run: str
    folder: Path
    key: str
    preview: bool


@dataclass(frozen=True)
class ShardPlan:
    """Every sample in exactly one shard.

    shards: for each, in order, the numbers of its samples; they count through all samples of the first run,
    then of the second, ... keys: the name of each sample in the tar. digest: of all that makes the bytes of
    the shards. split: the side of a split that they are of; None: of all.
    """

    runs: Sequence[RunOfSamples]
    shards: Sequence[Sequence[int]]
    keys: Sequence[str]
    digest: str
    split: str | None = None


def open_runs(
    arguments: Sequence[str], weights: Mapping[str, float], allow_preview: bool, split: str | None = None
) -> list[RunOfSamples]:
    """The runs that the command line names.

    Args:
        arguments: RUN or NAME=RUN; RUN is a local path or an fsspec URL.
        weights: by run name; 1 where absent.
        allow_preview: also take clips that only a stand-in's making keeps out.
        split: take the rows of this side of a split alone; None: all.

    Raises:
        InputError: no such run, it is not finished, it holds pictures, or two have one name.
    """
    located = [locate(argument) for argument in arguments]
    for _, folder, record in located:
        refuse_pictures(folder, record)
    for name, count in Counter(name for name, _, _ in located).items():
        if count > 1:
            folders = " and ".join(str(folder) for n, folder, _ in located if n == name)
            raise InputError(f"{folders} would both be called {name}: give each a name, NAME=RUN")
    places = Counter(
        str(folder) if storage.is_remote(folder) else str(folder.resolve()) for _, folder, _ in located
    )
    for place, count in places.items():
        if count > 1:
            raise InputError(f"{place} is given twice: to see a run more often, raise its --weight")
    unknown = sorted(set(weights) - {name for name, _, _ in located})
    if unknown:
        known = ", ".join(name for name, _, _ in located)
        raise InputError(f"--weight {unknown[0]}: no such run; there are {known}")
    return [_read(*one, weights.get(one[0], 1.0), allow_preview, split) for one in located]


def locate(argument: str) -> tuple[str, Path, dict[str, Any]]:
    """Name, folder and record of the run that an argument means.

    Raises:
        InputError: no such run, or it is not finished.
    """
    name, equals, address = argument.partition("=")
    if not equals or not name or "/" in name or "\\" in name or Path(argument).exists():
        name, address = "", argument
    folder = storage.folder_of(address)
    if not storage.is_remote(folder):
        folder = folder.absolute()  # workers may run in another directory
    record = read_run(folder)
    if record is None:
        folder, record = _second_step(folder)
    if record["status"] != "finished":
        raise InputError(f"the run in {folder} is not finished ({record['status']}): finish it first")
    is_step = folder.name in STEPS.get(record["pipeline"], ())
    name = name or (folder.parent if is_step else folder).name
    if not name or any(ord(c) < 32 for c in name):
        raise InputError(f"{folder}: give the run a name, NAME={folder}")
    return name, folder, record


def refuse_pictures(folder: Path, record: Mapping[str, Any]) -> None:
    """Refuse a run whose samples are no clips.

    Raises:
        InputError: it holds pictures.
    """
    if record["pipeline"] == "portraits":
        raise InputError(
            f"{folder} holds portraits: pictures, not clips. Give the clips that synthetic_interactions made "
            "of them"
        )


def _second_step(output: Path) -> tuple[Path, dict[str, Any]]:
    """Folder and record of the run that followed from another one, below the output of both.

    Raises:
        InputError: there is none.
    """
    hint = "no run.json in it"
    for first, second in STEPS.values():
        record = read_run(output / second)
        if record is not None:
            return output / second, record
        if read_run(output / first) is not None:
            hint = f"its {second} are not made yet"
    raise InputError(f"{output} is not the folder of a run ({hint})")


def _read(
    name: str,
    folder: Path,
    record: Mapping[str, Any],
    weight: float,
    allow_preview: bool,
    split: str | None,
) -> RunOfSamples:
    """What the plan needs of a run, of all files of its manifest at one moment."""
    side = None
    if split is not None:
        known = collected.read(folder)
        side = known.filter(pc.equal(known["split"], split))["sample_id"].combine_chunks()

    def read(files: Sequence[storage.Listed]) -> RunOfSamples:
        schema = whole_schema(files)
        wanted = ("sample_id", "keep", "drop_reasons", STAND_IN_COLUMN, *COUNTED)
        light = pa.schema([schema.field(n) for n in dict.fromkeys(wanted) if n in schema.names])
        chosen = [_chosen(read_columns(file, light), allow_preview, side) for file in files]
        ids = pa.concat_arrays([of_file.ids for of_file in chosen])
        order = np.asarray(pc.sort_indices(ids), np.int64)
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        ends = np.cumsum([len(of_file.rows) for of_file in chosen])
        previews = sum(of_file.previews for of_file in chosen)
        return RunOfSamples(
            name=name,
            folder=folder,
            pipeline=record["pipeline"],
            run_id=record["run_id"],
            weight=weight,
            ids=ids.take(pa.array(order)),
            sizes=np.concatenate([of_file.sizes for of_file in chosen])[order],
            preview=np.concatenate([of_file.preview for of_file in chosen])[order],
            files=[
                FileOfRows(file, of_file.rows, of_place)
                for file, of_file, of_place in zip(files, chosen, np.split(places, ends[:-1]), strict=True)
            ],
            schema=schema,
            left_out={
                "dropped": sum(of_file.dropped for of_file in chosen),
                "previews": 0 if allow_preview else previews,
                "of other sides": sum(of_file.other_side for of_file in chosen),
            },
            provenance=provenance_of(folder, record),
        )

    return at_one_moment(folder / "manifest", read)


@dataclass(frozen=True)
class _Chosen:
    """The rows of one file that go into shards, by sample_id; how many the screen dropped, are previews, or
    would go in if they were of the side.
    """

    rows: npt.NDArray[np.int64]
    ids: pa.Array
    sizes: npt.NDArray[np.int64]
    preview: npt.NDArray[np.bool_]
    dropped: int
    previews: int
    other_side: int


def _chosen(table: pa.Table, allow_preview: bool, side: pa.Array | None) -> _Chosen:
    keep = np.asarray(pc.fill_null(table["keep"], False), bool)
    preview = _previews(table)
    wanted = keep | preview if allow_preview else keep
    of_side = wanted if side is None else wanted & np.asarray(pc.is_in(table["sample_id"], value_set=side))
    rows = np.flatnonzero(of_side)
    rows = rows[np.asarray(pc.sort_indices(table["sample_id"].take(pa.array(rows))), np.int64)]
    taken = table.take(pa.array(rows))
    return _Chosen(
        rows=rows,
        ids=taken["sample_id"].combine_chunks(),
        sizes=estimated_bytes(taken),
        preview=preview[rows],
        dropped=len(keep) - int(keep.sum()) - int(preview.sum()),
        previews=int(preview.sum()),
        other_side=int(wanted.sum() - of_side.sum()),
    )


def _previews(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows were dropped for nothing but having been made by a stand-in."""
    if STAND_IN_COLUMN not in table.column_names or not is_text(table[STAND_IN_COLUMN].type):
        return np.zeros(table.num_rows, bool)
    alone = pc.equal(pc.binary_join(table["drop_reasons"], "\0"), STAND_IN)
    found = pc.and_(alone, pc.starts_with(table[STAND_IN_COLUMN], STAND_IN))
    dropped = pc.invert(pc.fill_null(table["keep"], False))
    return np.asarray(pc.and_(dropped, pc.fill_null(found, False)), bool)


def whole_rows(run: RunOfSamples) -> Iterator[tuple[FileOfRows, pa.Table]]:
    """The rows that go into shards with all columns, file by file, each file's by sample_id.

    Raises:
        RunError: the manifest is another one than when they were chosen; what was given until then may be of
            either.
    """
    for of_file in run.files:
        if not len(of_file.rows):
            continue
        try:
            table = read_columns(of_file.file, run.schema).take(pa.array(of_file.rows)).combine_chunks()
        except Exception:
            _check_moment(run)
            raise
        yield of_file, table
    _check_moment(run)


def _check_moment(run: RunOfSamples) -> None:
    if store.listed(run.folder / "manifest") != [of_file.file for of_file in run.files]:
        raise RunError(
            f"the manifest of {run.folder} was changed while its shards were planned; "
            "run the same command again"
        )


def make_plan(runs: Sequence[RunOfSamples], size: int, split: str | None = None) -> ShardPlan:
    """Shuffle the samples over shards of about `size` bytes.

    Args:
        runs: as `open_runs` gives them.
        size: of a shard.
        split: the side that they were opened for.

    Raises:
        RunError: there is no sample, two share an id, or a manifest was changed meanwhile.
    """
    samples = [(run.name, sample_id) for run in runs for sample_id in run.ids.to_pylist()]
    if not samples:
        left = ", ".join(f"{run.name}: {_in_words(run.left_out)}" for run in runs)
        hint = "; --allow-preview takes previews" if any(r.left_out["previews"] for r in runs) else ""
        raise RunError(f"no kept samples ({left}){hint}")
    keys = make_keys(samples)
    shards = assign(samples, np.concatenate([run.sizes for run in runs]).tolist(), size)
    return ShardPlan(runs, shards, keys, _digest(runs, shards), split)


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "empty"


def assign(samples: Sequence[tuple[str, str]], sizes: Sequence[int], size: int) -> list[list[int]]:
    """Positions of the samples of each shard: shuffled by (run, id), each shard filled up to `size` bytes.

    The order depends on the names alone. A shard holds more than `size` only if it is a single sample.
    """
    digests = b"".join(_shuffled(*sample) for sample in samples)
    words = np.frombuffer(digests, ">u8").reshape(-1, 4).astype(np.uint64)
    shards: list[list[int]] = []
    room = -1
    for i in np.lexsort(words.T[::-1]).tolist():  # by the first word, then by the second, ...
        if sizes[i] > room:
            shards.append([])
            room = size
        shards[-1].append(i)
        room -= sizes[i]
    return shards


def _shuffled(run: str, sample_id: str) -> bytes:
    return hashlib.sha256(_bytes(f"{SEED}\0{run}\0{sample_id}")).digest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def make_keys(samples: Sequence[tuple[str, str]]) -> list[str]:
    """For each (run, id) a name that is safe in a tar and in a folder, and that no other has.

    Letters, digits, - and _, at most 93 of them: the id itself where that is so already.

    Raises:
        RunError: a run has one id twice.
    """
    unsafe = re.compile(r"[^A-Za-z0-9_-]")
    wished = [unsafe.sub("_", name)[:KEY_LENGTH].lstrip("_-") for _, name in samples]
    taken = Counter(key.lower() for key in wished)
    keys = []
    for (run, name), key in zip(samples, wished, strict=True):
        if key != name or taken[key.lower()] > 1:
            digest = hashlib.sha256(_bytes(f"{run}\0{name}")).hexdigest()[:12]
            key = f"{key or 'sample'}-{digest}"
        keys.append(key)
    if len({key.lower() for key in keys}) < len(keys):
        (run, name), _ = Counter(samples).most_common(1)[0]
        raise RunError(f"run {run} has the sample {name} twice; run its pipeline again")
    return keys


def resampling_rate(row: Mapping[str, Any], rates: Sequence[float]) -> float | None:
    """The rate of `rates` to bring a clip of variable rate to; None where it has a constant one."""
    if is_own_media(row) or not row.get("variable_frame_rate") or not row.get("fps"):
        return None
    return min(rates, key=lambda rate: abs(rate - row["fps"]))


def _digest(runs: Sequence[RunOfSamples], shards: Sequence[Sequence[int]]) -> str:
    """16 hex digits of everything that makes the bytes: rows, where they lie, which shard they go into."""
    digest = hashlib.sha256()
    heads = [[run.name, str(run.folder), run.pipeline, run.preview.tolist()] for run in runs]
    made_by = [format.VERSION, shard_media.VERSION]
    digest.update(json.dumps([*made_by, heads, shards]).encode())
    for run in runs:
        sink = _Hashed(digest)
        with pa.ipc.new_stream(pa.PythonFile(sink, "w"), run.schema) as stream:
            for _, table in whole_rows(run):
                stream.write_table(table)
    return digest.hexdigest()[:16]


class _Hashed:
    """A file that only hashes what is written to it."""

    closed = False

    def __init__(self, digest: Any) -> None:
        self.digest = digest

    def write(self, data: bytes) -> int:
        """Add the bytes."""
        self.digest.update(data)
        return len(data)

    def writable(self) -> bool:
        """Yes."""
        return True

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""
