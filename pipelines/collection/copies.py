"""Whether one clip is a copy of another one, by their signatures (`stages/signature.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stages.signature import SIDE, SOUND_HZ

HZ = 10.0  # thumbnails a second that are compared
# Of the shorter clip that the other one must show, and s: a glance says nothing.
LEAST_SHARE, LEAST_S = 0.5, 1.0
# A clip whose thumbnails differ by less from their mean stands still, levels of 255 (root mean square).
STILL: Final = 0.6
# Playing speeds of a copy that are looked for, when it does not fit at its own.
SPEEDS = (0.94, 0.96, 0.98, 1.02, 1.04, 1.06)
# Correlation from which other speeds are tried, and from which they are not needed.
_PROMISING, _SURE = 0.3, 0.99
# Least correlation of the sounds of one clip: what tells slides with the same picture apart.
_SAME_SOUND = 0.5

Pictures = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Signature:
    """A clip's signature, ready to be compared.

    pictures: float32 [T, 256], thumbnails at `HZ`. sound: float32 [N, 16], dB, at 10 a second; no rows
    without a track, or where it is silent.
    """

    pictures: Pictures
    sound: npt.NDArray[np.float32]

    @classmethod
    def of(
        cls,
        times: npt.NDArray[np.float64],
        pictures: npt.NDArray[np.uint8],
        sound: npt.NDArray[np.uint8],
    ) -> Signature:
        """From the arrays of the stage."""
        heard = sound.astype(np.float32)
        silent = not len(heard) or float(heard.max()) < 10  # dB above -80
        return cls(at_hz(times, pictures.reshape(len(pictures), -1)), heard[:0] if silent else heard)

    @property
    def seconds(self) -> float:
        """How long it is, s."""
        return len(self.pictures) / HZ


@dataclass(frozen=True)
class Match:
    """How far the second clip shows the same as the first where they lie best over each other.

    distance: 1 - correlation, over time and place, of how thumbnails differ from their mean; where both
        stand still, of the thumbnails, and 1 where their sounds differ. 0: the same.
    layout: correlation of the mean thumbnails.
    sound: correlation of the levels of the sound, None without.
    offset_s: when the second begins in the first. overlap_s: for how long both are seen.
    speed: how much faster the second plays. mirrored: left and right change places in it.
    still: neither moves.
    """

    distance: float
    layout: float
    sound: float | None
    offset_s: float
    overlap_s: float
    speed: float
    mirrored: bool
    still: bool


def at_hz(times: npt.NDArray[np.float64], pictures: npt.NDArray[Any], speed: float = 1.0) -> Pictures:
    """Thumbnails [T, D] at `HZ` a second, played `speed` times as fast, blended from those beside."""
    if len(times) == 1:
        return pictures.astype(np.float32)
    wanted = np.arange(0, (times[-1] - times[0]) / speed + 1e-9, 1 / HZ) * speed + times[0]
    after = np.clip(np.searchsorted(times, wanted, side="right"), 1, len(times) - 1)
    step = np.maximum(times[after] - times[after - 1], 1e-9)
    share = np.clip((wanted - times[after - 1]) / step, 0, 1).astype(np.float32)[:, None]
    return np.asarray(pictures[after - 1] * (1 - share) + pictures[after] * share)


def mirrored(pictures: Pictures) -> Pictures:
    """Thumbnails [T, 256] with left and right exchanged."""
    return pictures.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(len(pictures), -1)


def match(first: Signature, second: Signature, is_mirrored: bool = False) -> Match | None:
    """Where two clips fit best, at any offset and about the same speed, the second as it is or mirrored.

    None: one is too short to tell.
    """
    pictures = mirrored(second.pictures) if is_mirrored else second.pictures
    best = _match(first, second, pictures, 1.0, is_mirrored)
    if best is None or best.still or not _PROMISING <= 1 - best.distance <= _SURE:
        return best
    times = np.arange(len(pictures)) / HZ
    for speed in SPEEDS:
        slower = at_hz(times, pictures, 1 / speed)
        best = _better(best, _match(first, second, slower, speed, is_mirrored))
    return best


def _better(one: Match | None, other: Match | None) -> Match | None:
    if one is None or other is None:
        return one or other
    return other if other.distance < 0.8 * one.distance - 0.002 else one


def _match(
    first: Signature, second: Signature, pictures: Pictures, speed: float, is_mirrored: bool
) -> Match | None:
    """The best offset of `pictures`, the second's at a speed."""
    a, b = first.pictures, pictures
    least = max(round(LEAST_S * HZ), round(LEAST_SHARE * min(len(a), len(b))))
    if min(len(a), len(b)) < least:
        return None
    offsets = np.arange(least - len(b), len(a) - least + 1)
    start_a, start_b = np.maximum(offsets, 0), np.maximum(-offsets, 0)
    count = np.minimum(len(a) - start_a, len(b) - start_b)
    sums_a, sums_b = _sums(a, start_a, count), _sums(b, start_b, count)
    squares_a = _sums((a * a).sum(1), start_a, count) - (sums_a * sums_a).sum(1) / count
    squares_b = _sums((b * b).sum(1), start_b, count) - (sums_b * sums_b).sum(1) / count
    products = _diagonals(a @ b.T, offsets) - (sums_a * sums_b).sum(1) / count
    floor = STILL**2 * count * a.shape[1]
    moves = np.maximum(squares_a, squares_b) > floor
    over_time = products / np.sqrt(np.maximum(squares_a, 0.25 * floor) * np.maximum(squares_b, 0.25 * floor))
    layout = _correlation(sums_a / count[:, None], sums_b / count[:, None])
    agreement = np.where(moves, np.minimum(over_time, np.clip(layout + 0.1, 0, 1)), layout)
    # Where nothing tells them apart, they lie over each other for as long as they can.
    at = int(np.argmax(agreement + 1e-4 * count / count.max()))
    still = not bool(moves[at])
    if still and len(first.sound) and len(second.sound):
        heard = np.array([_sound(first.sound, second.sound, o / HZ) or 0.0 for o in offsets])
        at = int(np.argmax(np.where(moves, -1, heard)))
    offset = float(offsets[at] / HZ)
    sound = _sound(first.sound, second.sound, offset) if speed == 1.0 else None
    is_other = still and sound is not None and sound < _SAME_SOUND
    return Match(
        distance=1.0 if is_other else float(np.clip(1 - agreement[at], 0, 1)),
        layout=float(layout[at]),
        sound=sound,
        offset_s=offset,
        overlap_s=float(count[at] / HZ),
        speed=speed,
        mirrored=is_mirrored,
        still=still,
    )


def _diagonals(both: npt.NDArray[np.float32], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Sums of [i + offset, i] over i, for each offset."""
    rows, columns = both.shape
    # Each row one place farther to the right than the one before: diagonals become columns.
    slanted = np.zeros((rows, rows + columns), np.float32)
    slanted[:, :columns] = both[:, ::-1]
    straight = slanted.ravel()[: rows * (rows + columns - 1)].reshape(rows, -1)
    return np.asarray(straight.sum(0, dtype=np.float64)[offsets + columns - 1])


def _sums(
    values: npt.NDArray[np.float32], start: npt.NDArray[np.int64], count: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Sums of `count` rows from `start` on."""
    running = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, 0, dtype=np.float64)])
    return np.asarray(running[start + count] - running[start])


def _correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of the rows of two tables; 0 where one is constant."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    norm = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.asarray((a * b).sum(1) / np.maximum(norm, 1e-9))


def _sound(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], offset_s: float) -> float | None:
    """Correlation of two sounds where the second begins so late in the first, give or take 0.2 s."""
    found = []
    for offset in range(round(offset_s * SOUND_HZ) - 2, round(offset_s * SOUND_HZ) + 3):
        one, other = a[max(offset, 0) :], b[max(-offset, 0) :]
        count = min(len(one), len(other))
        if count >= SOUND_HZ:
            one, other = one[:count] - one[:count].mean(0), other[:count] - other[:count].mean(0)
            norm = float(np.sqrt((one * one).sum() * (other * other).sum()))
            found.append(float((one * other).sum()) / norm if norm else 0.0)
    return max(found, default=None)
