"""Which samples go into shards, and which into which: a pure function of the manifests and the options."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from backends.roles import embedder_of
from manifests import shards as format
from manifests import storage, store
from manifests.schema import to_rows
from manifests.screen import STAND_IN, STAND_IN_COLUMN
from pipelines.catalogue import STEPS
from pipelines.engine.pipeline import RunError
from pipelines.engine.record import read_run
from pipelines.engine.source import InputError
from pipelines.shards import media as shard_media

SEED = 0  # of the shuffle
KEY_LENGTH = 80
# How large a sample will be, in bytes, where the manifest does not say.
BITS_PER_PIXEL = 0.1  # of H.264
WAV_PER_S = 32_000
ROUND = 12_288  # row, prompt, headers, padding


@dataclass(frozen=True)
class RunOfSamples:
    """One finished run, and the rows of it that go into shards.

    table: those rows with all columns, by sample_id. preview: for each, whether a stand-in made it.
    left_out: how many rows do not go in: `dropped` by the screen, and `previews`.
    """

    name: str
    folder: Path
    pipeline: str
    run_id: str
    weight: float
    table: pa.Table
    preview: Sequence[bool]
    left_out: Mapping[str, int]


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

    shards: for each, in order, the (run, row) of its samples. keys: the name of each of these in the tar.
    digest: of all that makes the bytes of the shards.
    """

    runs: Sequence[RunOfSamples]
    shards: Sequence[Sequence[tuple[int, int]]]
    keys: Mapping[tuple[int, int], str]
    digest: str

    def samples(self, number: int) -> list[Sample]:
        """The samples of one shard, in their order."""
        members = self.shards[number]
        rows: dict[tuple[int, int], dict[str, Any]] = {}
        for at, run in enumerate(self.runs):
            positions = [position for which, position in members if which == at]
            taken = to_rows(run.table.take(pa.array(positions, pa.int64())))
            rows |= {(at, p): row for p, row in zip(positions, taken, strict=True)}
        return [
            Sample(
                rows[member],
                self.runs[member[0]].name,
                self.runs[member[0]].folder,
                self.keys[member],
                self.runs[member[0]].preview[member[1]],
            )
            for member in members
        ]


def open_runs(
    arguments: Sequence[str], weights: Mapping[str, float], allow_preview: bool
) -> list[RunOfSamples]:
    """The runs that the command line names.

    Args:
        arguments: RUN or NAME=RUN; RUN is a local path or an fsspec URL.
        weights: by run name; 1 where absent.
        allow_preview: also take clips that only a stand-in's making keeps out.

    Raises:
        InputError: no such run, it is not finished, it holds pictures, or two have one name.
    """
    located = [_locate(argument) for argument in arguments]
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
    return [_read(*one, weights.get(one[0], 1.0), allow_preview) for one in located]


def _locate(argument: str) -> tuple[str, Path, dict[str, Any]]:
    """Name, folder and record of the run that an argument means."""
    name, equals, address = argument.partition("=")
    if not equals or not name or "/" in name or "\\" in name or Path(argument).exists():
        name, address = "", argument
    folder = storage.folder_of(address)
    if not storage.is_remote(folder):
        folder = folder.absolute()  # workers may run in another directory
    record = read_run(folder)
    if record is None:
        folder, record = _second_step(folder)
    if record["pipeline"] == "portraits":
        raise InputError(
            f"{folder} holds portraits: pictures, not clips. Give the clips that synthetic_interactions made "
            "of them"
        )
    if record["status"] != "finished":
        raise InputError(f"the run in {folder} is not finished ({record['status']}): finish it first")
    is_step = folder.name in STEPS.get(record["pipeline"], ())
    name = name or (folder.parent if is_step else folder).name
    if not name or any(ord(c) < 32 for c in name):
        raise InputError(f"{folder}: give the run a name, NAME={folder}")
    return name, folder, record


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
    name: str, folder: Path, record: Mapping[str, Any], weight: float, allow_preview: bool
) -> RunOfSamples:
    table = store.read(folder / "manifest").sort_by("sample_id")
    keep = [bool(k) for k in table["keep"].to_pylist()]
    preview = _previews(table)
    take = [k or (p and allow_preview) for k, p in zip(keep, preview, strict=True)]
    previews = sum(preview)
    return RunOfSamples(
        name=name,
        folder=folder,
        pipeline=record["pipeline"],
        run_id=record["run_id"],
        weight=weight,
        table=table.filter(pa.array(take, pa.bool_())).combine_chunks(),
        preview=[p for p, t in zip(preview, take, strict=True) if t],
        left_out={
            "dropped": len(keep) - sum(keep) - previews,
            "previews": 0 if allow_preview else previews,
        },
    )


def _previews(table: pa.Table) -> list[bool]:
    """Which rows were dropped for nothing but having been made by a stand-in."""
    if STAND_IN_COLUMN not in table.column_names:
        return [False] * table.num_rows
    made_by = table[STAND_IN_COLUMN].to_pylist()
    columns = zip(table["keep"].to_pylist(), table["drop_reasons"].to_pylist(), made_by, strict=True)
    return [
        not keep and reasons == [STAND_IN] and isinstance(by, str) and by.startswith(STAND_IN)
        for keep, reasons, by in columns
    ]


def make_plan(runs: Sequence[RunOfSamples], size: int) -> ShardPlan:
    """Shuffle the samples over shards of about `size` bytes.

    Raises:
        RunError: there is no sample, or two share an id.
    """
    places = [(at, row) for at, run in enumerate(runs) for row in range(run.table.num_rows)]
    if not places:
        left = ", ".join(f"{run.name}: {_in_words(run.left_out)}" for run in runs)
        hint = "; --allow-preview takes previews" if any(r.left_out["previews"] for r in runs) else ""
        raise RunError(f"no kept samples ({left}){hint}")
    ids = [sample_id for run in runs for sample_id in run.table["sample_id"].to_pylist()]
    names = [runs[at].name for at, _ in places]
    sizes = [size_of for run in runs for size_of in _sizes(run.table)]
    shards = assign(list(zip(names, ids, strict=True)), sizes, size)
    keys = make_keys(list(zip(names, ids, strict=True)))
    return ShardPlan(
        runs=runs,
        shards=[[places[i] for i in shard] for shard in shards],
        keys=dict(zip(places, keys, strict=True)),
        digest=_digest(runs, shards),
    )


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "empty"


def assign(samples: Sequence[tuple[str, str]], sizes: Sequence[int], size: int) -> list[list[int]]:
    """Positions of the samples of each shard: shuffled by (run, id), each shard filled up to `size` bytes.

    The order depends on the names alone. A shard holds more than `size` only if it is a single sample.
    """
    order = sorted(range(len(samples)), key=lambda i: _shuffled(*samples[i]))
    shards: list[list[int]] = []
    room = -1
    for i in order:
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
    wished = [re.sub(r"[^A-Za-z0-9_-]", "_", name)[:KEY_LENGTH].lstrip("_-") for _, name in samples]
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


def is_own_media(row: Mapping[str, Any]) -> bool:
    """Whether the sample's media is a file made for it alone, so that its time range is done with."""
    return row["media_uri"] != row["source_uri"]


def resampling_rate(row: Mapping[str, Any], rates: Sequence[float]) -> float | None:
    """The rate of `rates` to bring a clip of variable rate to; None where it has a constant one."""
    if is_own_media(row) or not row.get("variable_frame_rate") or not row.get("fps"):
        return None
    return min(rates, key=lambda rate: abs(rate - row["fps"]))


_COUNTED = (
    *("media_uri", "source_uri", "start_s", "end_s", "source_size", "width", "height", "num_frames", "fps"),
    *("bitrate_per_pixel", "video_codec", "pixel_format", "mirrored", "rotation", "variable_frame_rate"),
    *("has_audio", "attribute_embedder", "audio_embedder"),
)


def _sizes(table: pa.Table) -> Iterator[int]:
    columns = [name for name in _COUNTED if name in table.column_names]
    batches = table.select(columns).to_batches(max_chunksize=10_000)  # as Python objects rows are large
    return (estimated_bytes(row) for batch in batches for row in batch.to_pylist())


def estimated_bytes(row: Mapping[str, Any]) -> int:
    """How large a sample will be in a shard, from its manifest row alone."""
    frames = row.get("num_frames") or 0
    seconds = frames / row["fps"] if row.get("fps") else 0.0
    pixels = (row.get("width") or 0) * (row.get("height") or 0) * frames
    as_is = (
        row.get("video_codec") == "h264"
        and row.get("pixel_format") == "yuv420p"
        and not row.get("mirrored")
        and not row.get("rotation")
        and not row.get("variable_frame_rate")
    )
    whole = row.get("start_s") is None and row.get("end_s") is None
    if as_is and whole and not is_own_media(row) and row.get("source_size"):
        video = float(row["source_size"])
    elif is_own_media(row) and _number(row.get("bitrate_per_pixel")):
        video = row["bitrate_per_pixel"] * pixels / 8
    else:
        video = BITS_PER_PIXEL * pixels / 8
    total = ROUND + video + (WAV_PER_S * seconds if row.get("has_audio") else 0)
    if row.get("attribute_embedder"):
        total += embedder_of("attribute_embedder", row["attribute_embedder"]).bytes_per_clip
    if row.get("audio_embedder") and row.get("has_audio"):
        total += embedder_of("audio_embedder", row["audio_embedder"]).bytes_per_second * seconds
    return math.ceil(total)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _digest(runs: Sequence[RunOfSamples], shards: Sequence[Sequence[int]]) -> str:
    """16 hex digits of everything that makes the bytes: rows, where they lie, which shard they go into."""
    digest = hashlib.sha256()
    heads = [[run.name, str(run.folder), run.pipeline, list(map(bool, run.preview))] for run in runs]
    made_by = [format.VERSION, shard_media.VERSION]
    digest.update(json.dumps([*made_by, heads, [list(s) for s in shards]]).encode())
    for run in runs:
        sink = _Hashed(digest)
        with pa.ipc.new_stream(pa.PythonFile(sink, "w"), run.table.schema) as stream:
            stream.write_table(run.table)
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
