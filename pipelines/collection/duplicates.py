"""Clips of a collection that show the same: found once more in another file, size, place or speed.

Samples whose packets, or whose thumbnails, are the same to the last bit are found by their hashes. Of all
others a vector that says where the picture is bright and where it moves proposes the nearest ones, also
mirrored, and each proposal is decided by the signatures themselves (`pipelines/collection/copies.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

from manifests import collected, features, packs, storage
from manifests.packs import Place
from manifests.schema import COLLECTION_COLUMNS
from media.crop import CROP
from pipelines.collection.arrays import PLACES, arrays_of
from pipelines.collection.copies import LEAST_S, LEAST_SHARE, SPEEDS, Match, Signature, match
from pipelines.collection.neighbours import Neighbours
from pipelines.collection.runs import RUN, CollectedRun, read_rows
from stages.signature import SIDE

STAGE: Final = "signature"
COMPARED: Final = "_duplicates"  # in the first run's folder: what a search that was killed has compared
# Farther apart two clips are no copies. The screen's limit is lower: it can be moved up to here in seconds.
# Measured on planted copies and on other moments of one scene (docs/collections.md).
FARTHEST = 0.5
# Up to here a copy stands for nothing by itself: others are measured against what it is a copy of.
SURE = 0.35
# Neighbours that are proposed; how many where all of those are as near as clips of one scene, which cosine
# that is; least cosine of a proposal.
_PROPOSED, _PROPOSED_IN_A_CROWD, _CROWDED, _NEAR = 24, 200, 0.97, 0.8
_SIDE = 8  # of the two maps in a vector
_KEPT_IN_MEMORY = 4096  # signatures
_ROWS_AT_ONCE, _PAIRS_AT_ONCE, _QUERIES_AT_ONCE = 10_000, 10_000, 1 << 16

# How a clip is a copy of another one, as `duplicate_kind` says it.
PACKETS, PIXELS, NEAR, TRIMMED, RETIMED, MIRRORED = KINDS = {
    "packets": "the same media, perhaps in another file",
    "pixels": "the same pictures, perhaps encoded anew without a loss",
    "near": "encoded anew, another size, a logo, black borders, cut a little at the edges",
    "trimmed": "a part of the other, or both parts of one clip",
    "retimed": "faster or slower, by up to 6 %",
    "mirrored": "left and right exchanged",
}
_READ = (
    *("keep", "drop_reasons", "error", "stopped", "content_hash", "picture_hash"),
    *CROP,
    *("short_side", "duration_s", "bitrate_per_pixel"),
)
Told = Callable[[str], None]


@dataclass(frozen=True)
class Pair:
    """Two rows that show the same: the rows' numbers, how they differ, and the kind of copy."""

    one: int
    other: int
    distance: float
    kind: str


@dataclass
class Found:
    """What became of a collection's rows.

    table: `sample_id`, `RUN` and the duplicate columns of `manifests.collected`, a row a sample.
    pairs: all that were found. unseen: why rows could not be compared, and how many each.
    """

    table: pa.Table
    pairs: Sequence[Pair]
    unseen: Mapping[str, int] = field(default_factory=dict)


def find_duplicates(
    runs: Sequence[CollectedRun], done: Path | None = None, told: Told = lambda line: None
) -> Found:
    """Look for copies among all samples of finished runs.

    Of copies the best stands for the others, in this order: kept by its screen, but for rules on copies; more
    pixels on the shorter side; longer; more bits a pixel; the smaller id.

    Args:
        runs: of the collection.
        done: folder in which pairs that are compared are noted, so that a search that was killed goes on; to
            be deleted when what is found is written. None: nothing is noted.
        told: is told what is done.
    """
    rows = read_rows(runs, _READ)
    order = _order(runs, rows)
    classes = _Classes(runs, rows, order)
    told(f"{rows.num_rows - len(classes.first)} copies by their hashes")
    vectors, unseen = _vectors(runs, rows, told)
    pairs = [*classes.pairs(), *_near(runs, classes, vectors, done, told)]
    return Found(_table(runs, rows, order, pairs), pairs, unseen)


def vector_of(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Where thumbnails [T, 16, 16] are bright and where they change, two maps of 8 x 8 as one unit vector."""
    step = SIDE // _SIDE
    seen = pictures.astype(np.float32)
    maps = np.stack([seen.mean(0), seen.std(0)]).reshape(2, _SIDE, step, _SIDE, step).mean((2, 4))
    maps[0] -= maps[0].mean()
    flat = maps.reshape(2, -1)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6) * np.sqrt(2)
    return np.asarray(flat.reshape(-1), np.float32)


def mirrored_vectors(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The vectors of mirrored clips."""
    maps = vectors.reshape(-1, 2, _SIDE, _SIDE)
    return np.ascontiguousarray(maps[..., ::-1]).reshape(len(vectors), -1)


def candidates(vectors: npt.NDArray[np.float32], told: Told = lambda line: None) -> npt.NDArray[np.int64]:
    """Pairs of vectors that may be of one clip: [P, 3], the smaller number first, 1 where one is mirrored."""
    if len(vectors) < 2:
        return np.zeros((0, 3), np.int64)
    index, count = Neighbours(vectors), len(vectors)
    found, crowded = [], 0
    for start in range(0, count, _QUERIES_AT_ONCE):
        block = vectors[start : start + _QUERIES_AT_ONCE]
        for is_mirrored, queries in enumerate((block, mirrored_vectors(block))):
            numbers = np.arange(start, start + len(block))
            cosines, places = index.of(queries, _PROPOSED + 1)
            found.append(_keys(numbers, cosines, places, count, is_mirrored))
            many = np.flatnonzero(cosines[:, -1] >= _CROWDED)
            if len(many) and cosines.shape[1] < count:
                crowded += len(many)
                more = index.of(queries[many], _PROPOSED_IN_A_CROWD + 1)
                found.append(_keys(numbers[many], *more, count, is_mirrored))
        if count > _QUERIES_AT_ONCE:
            told(f"neighbours of {min(start + _QUERIES_AT_ONCE, count)} of {count} samples")
    if crowded:
        told(f"{crowded} times more neighbours were looked at: there are many near ones")
    keys = np.unique(np.concatenate(found))
    pairs, is_mirrored_pair = np.divmod(keys, 2)
    return np.column_stack([*np.divmod(pairs, count), is_mirrored_pair])


def _keys(
    queries: npt.NDArray[np.int64],
    cosines: npt.NDArray[np.float32],
    places: npt.NDArray[np.int64],
    count: int,
    is_mirrored: int,
) -> npt.NDArray[np.int64]:
    """A number for each near pair of `count` vectors and for whether one is mirrored."""
    at, rank = np.nonzero((cosines >= _NEAR) & (places >= 0))
    one, other = queries[at], places[at, rank]
    low, high = np.minimum(one, other), np.maximum(one, other)
    return np.unique(((low * count + high) * 2 + is_mirrored)[low < high])


def _vectors(
    runs: Sequence[CollectedRun], rows: pa.Table, told: Told
) -> tuple[npt.NDArray[np.float32], dict[str, int]]:
    """A vector for each row, NaN where it has no signature, and why there is none."""
    vectors = np.full((rows.num_rows, 2 * _SIDE * _SIDE), np.nan, np.float32)
    unseen: dict[str, int] = defaultdict(int)
    start = 0
    for run in runs:
        places = read_rows([run], PLACES)
        for done, (number, arrays) in enumerate(arrays_of(run.folder, places, STAGE), 1):
            if isinstance(arrays, dict):
                vectors[start + number] = vector_of(arrays["signature_pictures"])
            else:
                unseen[arrays or f"{STAGE} was not computed"] += 1
            if done % _ROWS_AT_ONCE == 0 or done == places.num_rows:
                told(f"{run.name}: signatures of {done} of {places.num_rows} samples")
        start += places.num_rows
    return vectors, dict(unseen)


class _Classes:
    """Rows with the same packets or the same thumbnails: each class is compared once.

    first: of each class the best row. members: of each class all rows, the best first.
    """

    def __init__(self, runs: Sequence[CollectedRun], rows: pa.Table, order: npt.NDArray[np.int64]) -> None:
        self._packets, self._pictures = (rows[n].to_pylist() for n in ("content_hash", "picture_hash"))
        self._pipelines = [runs[number].pipeline for number in rows[RUN].to_pylist()]
        groups = _Groups(rows.num_rows)
        seen: dict[Any, int] = {}
        # Two crops of one file have its packets and show different things.
        crops = zip(*(rows[name].to_pylist() for name in CROP), strict=True)
        shown = zip(self._packets, crops, self._pictures, strict=True)
        for number, (packets, crop, pictures) in enumerate(shown):
            if packets:
                groups.join(seen.setdefault((packets, crop), number), number)
            if pictures:
                groups.join(seen.setdefault(pictures, number), number)
        self.members: dict[int, list[int]] = {}
        first: dict[int, int] = {}
        for number in order.tolist():
            self.members.setdefault(first.setdefault(groups.of(number), number), []).append(number)
        self.first = list(self.members)

    def pairs(self) -> Iterator[Pair]:
        """Within each class every row with the best one of each pipeline."""
        for first, members in self.members.items():
            for best in self._best(first):
                for number in members:
                    if number != best:
                        same = self._packets[number] and self._packets[number] == self._packets[best]
                        yield Pair(best, number, 0.0, PACKETS if same else PIXELS)

    def between(self, one: int, other: int, distance: float, kind: str) -> Iterator[Pair]:
        """Of two classes that are alike every row of each with the best ones of the other."""
        for this, that in ((one, other), (other, one)):
            for best in self._best(that):
                for number in self.members[this]:
                    yield Pair(best, number, distance, kind)

    def _best(self, first: int) -> list[int]:
        """The best row of each pipeline."""
        found: dict[str, int] = {}
        for number in self.members[first]:
            found.setdefault(self._pipelines[number], number)
        return list(found.values())


def _near(
    runs: Sequence[CollectedRun],
    classes: _Classes,
    vectors: npt.NDArray[np.float32],
    done: Path | None,
    told: Told,
) -> Iterator[Pair]:
    """Pairs that are alike."""
    first = np.array(classes.first, np.int64)
    which = first[np.isfinite(vectors[first]).all(1)]
    proposed = candidates(vectors[which], told)
    proposed[:, :2] = which[proposed[:, :2]]
    told(f"{len(proposed)} pairs of {len(which)} samples are to be compared")
    count = 0
    for pairs, alike in _compared(_chunks(runs, proposed), len(proposed) > _PAIRS_AT_ONCE, done):
        for at, distance, kind in alike:
            yield from classes.between(int(pairs[at, 0]), int(pairs[at, 1]), distance, kind)
        count += len(pairs)
        told(f"{count} of {len(proposed)} pairs compared")


# A pair of a chunk: its place in it, the distance, the kind.
_Alike = tuple[int, float, str]


@dataclass(frozen=True)
class _Chunk:
    """Pairs to compare, and where the signatures of their rows lie.

    pairs: [P, 3], as `candidates` gives them. numbers: the rows that are in them, ascending. places: of each
    its run's folder, and its place in there.
    """

    pairs: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    places: Sequence[tuple[Path, Place]]

    @property
    def name(self) -> str:
        """64 hex digits that say what is compared, how."""
        limits = (FARTHEST, SPEEDS, LEAST_SHARE, LEAST_S)
        text = [limits, [(str(folder), *place.values()) for folder, place in self.places]]
        what = json.dumps(text).encode() + np.searchsorted(self.numbers, self.pairs[:, :2]).tobytes()
        return hashlib.sha256(what + self.pairs[:, 2].tobytes()).hexdigest()


def _chunks(runs: Sequence[CollectedRun], proposed: npt.NDArray[np.int64]) -> Iterator[_Chunk]:
    """All pairs, some thousand at a time."""
    folders, places = [run.folder for run in runs], read_rows(runs, PLACES)
    for start in range(0, len(proposed), _PAIRS_AT_ONCE):
        pairs = proposed[start : start + _PAIRS_AT_ONCE]
        numbers = np.unique(pairs[:, :2])
        rows = places.select(["arrays", RUN]).take(pa.array(numbers)).to_pylist()
        found = []
        for row in rows:
            place = features.place_of(row, STAGE)
            assert place is not None  # its vector was made of what lies there
            found.append((folders[row[RUN]], place))
        yield _Chunk(pairs, numbers, found)


def _compared(
    chunks: Iterator[_Chunk], several: bool, done: Path | None
) -> Iterator[tuple[npt.NDArray[np.int64], list[_Alike]]]:
    """The pairs of each chunk and those of them that are alike, in order; several chunks at once.

    Args:
        chunks: to compare.
        several: whether there are several: then each is compared in a process of its own.
        done: folder of what was compared before, and will be found there again; None: nothing is kept.
    """
    if not several:
        yield from ((chunk.pairs, _compare(chunk)) for chunk in chunks)
        return
    workers = len(os.sched_getaffinity(0))
    pool = ProcessPoolExecutor(workers, get_context("spawn"))
    waiting: deque[tuple[_Chunk, Path | None, Future[list[_Alike]] | list[_Alike]]] = deque()

    def next_one() -> tuple[npt.NDArray[np.int64], list[_Alike]]:
        chunk, path, found = waiting.popleft()
        if isinstance(found, Future):
            found = found.result()
            if path is not None:
                storage.write_bytes(path, json.dumps(found).encode())
        return chunk.pairs, found

    try:
        for chunk in chunks:
            path = None if done is None else done / f"{chunk.name}.json"
            before = None if path is None else _kept(path)
            waiting.append((chunk, path, pool.submit(_compare, chunk) if before is None else before))
            if len(waiting) > 2 * workers:
                yield next_one()
        while waiting:
            yield next_one()
    finally:
        pool.shutdown(cancel_futures=True)


def _kept(path: Path) -> list[_Alike] | None:
    """What was found of a chunk before; None: nothing, or nothing that can be read."""
    try:
        return [
            (int(at), float(distance), str(kind))
            for at, distance, kind in json.loads(storage.read_bytes(path))
        ]
    except (FileNotFoundError, ValueError):
        return None


def _compare(chunk: _Chunk) -> list[_Alike]:
    alike = []

    @lru_cache(_KEPT_IN_MEMORY)
    def signature(number: int) -> Signature:
        folder, place = chunk.places[int(np.searchsorted(chunk.numbers, number))]
        arrays = features.arrays_of(packs.read(folder, place))
        names = ("signature_times", "signature_pictures", "signature_sound")
        return Signature.of(*(arrays[name] for name in names))

    with threadpool_limits(1):  # threads of NumPy's BLAS wait for each other longer than such products take
        for at, (one, other, is_mirrored) in enumerate(chunk.pairs.tolist()):
            found = match(signature(one), signature(other), bool(is_mirrored))
            if found is not None and found.distance <= FARTHEST:
                alike.append((at, found.distance, _kind(found, signature(one), signature(other))))
    return alike


def _kind(found: Match, one: Signature, other: Signature) -> str:
    if found.mirrored:
        return MIRRORED
    if found.speed != 1.0:
        return RETIMED
    longer = max(one.seconds, other.seconds)
    return TRIMMED if longer - found.overlap_s > max(0.2, 0.02 * longer) else NEAR


def _table(
    runs: Sequence[CollectedRun], rows: pa.Table, order: npt.NDArray[np.int64], pairs: Iterable[Pair]
) -> pa.Table:
    """What becomes of each row; `order`: the rows' numbers, the best first."""
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    near: dict[int, list[tuple[int, Pair]]] = defaultdict(list)
    roots = _Groups(len(order))
    for pair in pairs:
        near[pair.one].append((pair.other, pair))
        near[pair.other].append((pair.one, pair))
        roots.join(pair.one, pair.other)
    pipelines = [run.pipeline for run in runs]
    of_run = rows[RUN].to_pylist()
    copy_of: dict[int, tuple[int, Pair]] = {}
    for number in order.tolist():
        if number not in near:
            continue
        better = [
            (pair.distance, place[other], other, pair)
            for other, pair in near[number]
            if place[other] < place[number]
            and pipelines[of_run[other]] == pipelines[of_run[number]]
            and not (other in copy_of and copy_of[other][1].distance <= SURE)
        ]
        if better:
            *_, other, pair = min(better, key=lambda entry: entry[:2])
            copy_of[number] = other, pair
    ids = rows["sample_id"].to_pylist()
    best: dict[int, int] = {}
    for number in order.tolist():
        best.setdefault(roots.of(number), number)
    hashes = zip(rows["content_hash"].to_pylist(), rows["picture_hash"].to_pylist(), strict=True)
    looked_at = [any(of_row) for of_row in hashes]
    columns: dict[str, list[Any]] = {
        "duplicate_group": [ids[best[roots.of(n)]] if looked_at[n] else None for n in range(len(ids))],
        "duplicate_of": [ids[copy_of[n][0]] if n in copy_of else None for n in range(len(ids))],
        "duplicate_kind": [copy_of[n][1].kind if n in copy_of else None for n in range(len(ids))],
        "duplicate_distance": [copy_of[n][1].distance if n in copy_of else None for n in range(len(ids))],
    }
    table = rows.select(["sample_id", RUN])
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values, collected.SCHEMA.field(name).type))
    return table


def _order(runs: Sequence[CollectedRun], rows: pa.Table) -> npt.NDArray[np.int64]:
    """The rows' numbers, the best first; see `find_duplicates`."""
    about_copies = {
        rule["reason"]
        for run in runs
        for rule in run.record["screen"]["rules"]
        if rule["column"] in COLLECTION_COLUMNS
    }
    reasons = [set(r or ()) - about_copies for r in rows["drop_reasons"].to_pylist()]
    good = np.array([not r for r in reasons], bool)
    good &= ~np.asarray(pc.is_valid(rows["error"])) & ~np.asarray(pc.is_valid(rows["stopped"]))

    def number(name: str) -> npt.NDArray[np.float64]:
        return np.nan_to_num(rows[name].cast(pa.float64()).to_numpy(zero_copy_only=False))

    ids = np.asarray(pc.rank(rows["sample_id"], tiebreaker="first"))
    # By seconds and by a tenth of the bits: what hardly differs does not decide.
    seconds, bits = np.round(number("duration_s"), 1), np.round(number("bitrate_per_pixel"), 2)
    return np.lexsort((ids, -bits, -seconds, -number("short_side"), ~good))


class _Groups:
    """Disjoint sets of numbers."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def of(self, number: int) -> int:
        """The number that stands for the set of another one."""
        while self._above[number] != number:
            self._above[number] = self._above[self._above[number]]
            number = self._above[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Make one set of two."""
        self._above[self.of(one)] = self.of(other)
