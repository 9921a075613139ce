"""What was found in a file of the corpus against what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.support.corpus.content import (
    CORNERS,
    Image,
    fitted,
    listed,
    read_beeps,
    read_corners,
    read_numbers,
)
from tests.support.corpus.files import Part, Recipe, Truth

NEAR = 13  # grey levels that a corner's colour may be off


@dataclass(frozen=True)
class Failure:
    """Something that is not as it is known to be."""

    recipe: str
    place: str
    what: str
    right: str
    ours: str

    def __str__(self) -> str:
        return f"{self.recipe} | {self.place} | {self.what} | right: {self.right} | ours: {self.ours}"


@dataclass
class Seen:
    """What a reader found: pictures by number with their times, and beeps, s on one clock; no sound: None."""

    numbers: list[int | None]
    times: list[float]
    beeps: list[float] | None
    corners: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass
class Findings:
    """Collects what is wrong in one place."""

    recipe: Recipe
    place: str
    failures: list[Failure] = field(default_factory=list)

    def say(self, what: str, right: object, ours: object) -> None:
        """This is wrong."""
        self.failures.append(Failure(self.recipe.name, self.place, what, str(right), str(ours)))

    def expect(self, what: str, right: Any, ours: Any, within: float = 0.0) -> None:
        """A value that must be the right one."""
        wrong = ours is None or abs(ours - right) > within if within else ours != right
        if wrong:
            self.say(what, right, ours)


def check_seen(
    findings: Findings, seen: Seen, from_picture: bool = False, pictures: bool = True, sound: bool = True
) -> None:
    """Numbers, their times, beeps and corners; `from_picture`: the clock begins with the first picture."""
    truth = findings.recipe.truth
    if truth.cut or truth.lost:
        seen = _as_far_as_whole(seen, truth)
    places = {number: (part, t) for part in truth.parts for number, t in _timed(part)}
    if pictures:
        _check_numbers(findings, list(places), seen)
    shifts = _check_times(findings, places, seen, from_picture, pictures)
    if sound:
        check_beeps(findings, shifts, seen, from_picture)
    if seen.corners:
        check_corners(findings, seen.corners)


def _timed(part: Part) -> list[tuple[int, float]]:
    return list(zip(part.numbers, part.times, strict=True))


def _check_numbers(findings: Findings, right: list[int], seen: Seen) -> None:
    truth, ours = findings.recipe.truth, seen.numbers
    if truth.cut:
        if ours != right[: len(ours)] or len(ours) < truth.kept:
            findings.say("numbers", f"{truth.kept} or more of {listed(right)}", listed(ours))
    elif truth.lost:
        if len(right) - len(ours) > truth.lost:
            findings.say("numbers", f"{listed(right)} but for {truth.lost}", listed(ours))
    elif ours != right:
        findings.say("numbers", listed(right), listed(ours))


def _as_far_as_whole(seen: Seen, truth: Truth) -> Seen:
    """Without pictures that what is missing has made others: at most two at the end of what breaks off, and
    all that do not show what belongs to their time where packets are broken."""
    (part,) = truth.parts
    times = dict(_timed(part))
    if truth.cut:
        count = len(seen.numbers)
        while count > len(seen.numbers) - 2 and seen.numbers[:count] != list(part.numbers[:count]):
            count -= 1
        kept = list(range(count))
    else:
        offsets = [t - times[n] for n, t in zip(seen.numbers, seen.times, strict=True) if n in times]
        shift = float(np.median(offsets)) if offsets else 0.0
        kept = [
            i
            for i, (n, t) in enumerate(zip(seen.numbers, seen.times, strict=True))
            if n in times and abs(times[n] + shift - t) <= truth.time_within
        ]
    numbers, stamps = [seen.numbers[i] for i in kept], [seen.times[i] for i in kept]
    return Seen(numbers, stamps, seen.beeps, seen.corners)


def _check_times(
    findings: Findings, places: dict[int, tuple[Part, float]], seen: Seen, from_picture: bool, say: bool
) -> dict[int, float]:
    """How much later each part's clock begins, by its first number."""
    truth = findings.recipe.truth
    offsets: dict[int, list[float]] = {}
    for number, time in zip(seen.numbers, seen.times, strict=True):
        if number in places:
            part, right = places[number]
            offsets.setdefault(part.numbers[0], []).append(time - right)
    shifts: dict[int, float] = {}
    for part in truth.parts:
        found = offsets.get(part.numbers[0])
        if not found:
            continue
        shift = shifts[part.numbers[0]] = float(np.median(found))
        at, within = part.at, part.within
        if from_picture:
            at -= truth.parts[0].at
            within = within if part is not truth.parts[0] else 0.0
        if say and abs(shift - at) > within + truth.time_within:
            findings.say(f"begin of the part {part.numbers[0]}-", f"{at:.3f} +- {within:g}", f"{shift:.3f}")
        off = max(abs(one - shift) for one in found)
        if say and off > 1.5 * truth.time_within:
            findings.say(f"times of the part {part.numbers[0]}-", f"within {truth.time_within}", f"{off:.4f}")
    return shifts


def check_beeps(findings: Findings, shifts: dict[int, float], seen: Seen, from_picture: bool = False) -> None:
    truth = findings.recipe.truth
    if seen.beeps is None or not truth.has_sound:
        findings.expect("has sound", truth.has_sound, seen.beeps is not None)
        return
    right = sorted(shifts[p.numbers[0]] + b for p in truth.parts if p.numbers[0] in shifts for b in p.beeps)
    if from_picture:  # what was heard before it is cut off
        right = [one for one in right if one >= 0]
    ours = seen.beeps
    if truth.cut:
        near = [min(right, key=lambda one, b=b: abs(one - b)) for b in ours]  # type: ignore[misc]
        is_right = all(abs(a - b) <= truth.sound_within for a, b in zip(near, ours, strict=True))
    else:
        is_right = len(right) == len(ours) and all(
            abs(a - b) <= truth.sound_within for a, b in zip(right, ours, strict=True)
        )
    if not is_right:
        findings.say("beeps", [round(one, 3) for one in right], ours)


def check_corners(findings: Findings, ours: list[tuple[int, int, int]]) -> None:
    kind = findings.recipe.truth.corners
    if kind == "near":
        off = np.abs(np.subtract(ours, CORNERS)).max()
        is_right = bool(off <= NEAR)
    elif kind == "hue":
        strongest = [int(np.argmax(colour)) for colour in ours[:3]]
        is_right = strongest == [0, 1, 2] and min(ours[3]) > 100 and np.ptp(ours[3]) < 40
    elif kind == "grey":
        greys = [round(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in CORNERS]
        is_right = all(
            np.abs(np.subtract(one, grey)).max() <= NEAR for one, grey in zip(ours, greys, strict=True)
        )
    else:
        is_right = True
    if not is_right:
        findings.say(f"corners ({kind})", CORNERS, ours)


def looked_at(images: Sequence[Image], truth: Truth) -> tuple[list[int | None], list[tuple[int, int, int]]]:
    """Numbers of pictures, and the corners of one in the middle."""
    numbers = read_numbers(images)
    for size in {part.size for part in truth.parts if part.size is not None}:
        others = read_numbers([fitted(image, *size) for image in images])
        numbers = [b if a is None else a for a, b in zip(numbers, others, strict=True)]
    readable = [image for image, number in zip(images, numbers, strict=True) if number is not None]
    if not readable:
        return numbers, []
    longest = max(truth.parts, key=lambda part: len(part.numbers))
    own = [i for i, n in zip(images, numbers, strict=True) if n in longest.numbers] or readable
    return numbers, read_corners(own[len(own) // 2])


def beeps_of(sound: Any, rate: int) -> list[float] | None:
    return None if sound is None else read_beeps(sound, rate)
