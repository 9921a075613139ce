"""Clips whose first or last frames are another shot, another person, black, or nothing but lively.

Each lasts 2.4 s. What is claimed of it: `cut` (yes or no; start_s is the first frame of the later shot, note
says what was done), `fade` (it begins or ends black) and, where both shots show a face, `same_person`.

`python -m tests.truth.make_ends SAMPLES FOLDER` writes a seeded quarter of them.
"""

from __future__ import annotations

import csv
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from media.decode import decode
from media.requests import Frames
from media.write import write_video

SEED = 20
SECONDS = 2.4
SIDE = 360
RATES = (15, 24, 25, 30, 60)
NEAR = (1, 2, 3, 5, 8)  # frames before the end or after the start; 0.3 and 0.6 s are added
HEADER = ("media", "claim", "value", "start_s", "end_s", "x", "y", "source", "note")

Images = npt.NDArray[np.uint8]  # [T, H, W, 3]
Change = Callable[[Images, int, np.random.Generator], Images]  # of the last so many frames


@dataclass(frozen=True)
class Part:
    """A stretch of one shot, and where its square is cut out.

    first_s, last_s: of the stretch. x, y: middle of the square, shares of the picture. person: whose face is
    in all of it, "" for nobody's. room: parts with the same one look alike.
    """

    file: str
    first_s: float
    last_s: float
    x: float
    y: float
    person: str
    room: str = ""


CAST = (
    Part("edtalk_obama.mp4", 1, 9, 0.5, 0.5, "obama"),
    Part("retalking_man_office.mp4", 0.5, 5.5, 0.5, 0.5, "office"),
    Part("retalking_woman_bluebg.mp4", 0.5, 6.5, 0.5, 0.5, "blue"),
    Part("retalking_woman_glasses.mp4", 0, 4.8, 0.5, 0.5, "glasses"),
    Part("liveportrait_man_outdoor_zh.mp4", 0.5, 6.9, 0.5, 0.5, "outdoor"),
    Part("liveportrait_man_selfie_noaudio.mp4", 1, 9, 0.5, 0.4, "selfie"),
    Part("liveportrait_woman_lake.mp4", 1, 9, 0.5, 0.3, "lake"),
    Part("latentsync_woman_ru.mp4", 1, 9, 0.5, 0.4, "ru"),
    Part("latentsync_man_pt.mp4", 1, 9, 0.5, 0.3, "pt"),
    Part("latentsync_man_en.mp4", 1, 8.8, 0.5, 0.35, "en"),
    Part("pyfeat_woman_emotions.mp4", 9.5, 15, 0.75, 0.5, "emotions"),
    Part("hellomeme_man_subtitles.mp4", 0, 4.6, 0.5, 0.5, "meme"),
    Part("datajuicer_hair_braiding.mp4", 0, 12, 0.4, 0.5, "braid"),
    Part("facerec_stage_multishot.mp4", 4.0, 7.7, 0.5, 0.5, "stage"),
    Part("pyfeat_face_then_title.mov", 0, 2.35, 0.5, 0.5, "smile"),
    Part("intel_asl_brother.mkv", 0, 2.1, 0.45, 0.5, "brother", "asl"),
    Part("intel_asl_book.mkv", 0, 3.5, 0.45, 0.5, "book", "asl"),
    Part("sam2_man_juggle.mp4", 1, 9, 0.5, 0.5, ""),
    Part("sam2_hands_cups.mp4", 1, 9, 0.5, 0.5, ""),
    Part("intel_bottles_noperson.mp4", 0, 5, 0.5, 0.5, ""),
)


@functools.cache
def _stretch(samples: Path, part: Part) -> Images:
    """All frames of a part, square."""
    request = Frames(None, SIDE)
    _, images = decode(samples / "videos" / part.file, [request], part.first_s, part.last_s).frames[request]
    height, width = images[0].shape[:2]
    side = min(height, width)
    left = round(min(max(part.x * width - side / 2, 0), width - side))
    top = round(min(max(part.y * height - side / 2, 0), height - side))
    squares = [image[top : top + side, left : left + side] for image in images]
    return np.stack([cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for square in squares])


def shot(samples: Path, part: Part, fps: int, count: int, begin: float = 0.0) -> Images:
    """`count` different frames of a part, from a share `begin` of it on; to and fro where it is too short.

    Sources have about 30 a second: at 15 every second one is taken, at 60 all, so they move twice as fast.
    """
    images = _stretch(samples, part)[:: 2 if fps == 15 else 1]
    last = len(images) - 1
    places = np.arange(count) + round(begin * last)
    places = np.abs((places + last) % (2 * last) - last) if last else places * 0
    return np.asarray(images[places])


def _brighter(images: Images, gain: float, more: float = 0.0) -> Images:
    return np.clip(images.astype(np.float32) * gain + more, 0, 255).astype(np.uint8)


def _exposure(images: Images, n: int, rng: np.random.Generator) -> Images:
    gain = float(rng.choice((0.55, 0.7, 1.3, 1.5)))
    return np.concatenate([images[:-n], _brighter(images[-n:], gain)])


def _flash(images: Images, n: int, rng: np.random.Generator) -> Images:
    return np.concatenate([images[:-n], _brighter(images[-n:], 1.0, float(rng.integers(60, 110)))])


def _moved(image: Images, x: float, y: float) -> Images:
    where = np.array([[1, 0, x * SIDE], [0, 1, y * SIDE]], np.float32)
    return np.asarray(cv2.warpAffine(image, where, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT), np.uint8)


def _shake(images: Images, n: int, rng: np.random.Generator) -> Images:
    """A knocked camera: up to 3 % of the picture to any side from frame to frame."""
    steps = rng.uniform(-0.03, 0.03, (n, 2))
    moved = [_moved(image, *step) for image, step in zip(images[-n:], steps, strict=True)]
    return np.concatenate([images[:-n], np.stack(moved)])


def _whip(images: Images, n: int, rng: np.random.Generator) -> Images:
    """The camera turns away, by 2 % of the picture more in each frame, at most 8 %."""
    way = np.cumsum(np.minimum(np.arange(1, n + 1) * 0.02, 0.08)) * float(rng.choice((-1, 1)))
    moved = [_moved(image, x, 0) for image, x in zip(images[-n:], way, strict=True)]
    return np.concatenate([images[:-n], np.stack(moved)])


def _hand(images: Images, n: int, rng: np.random.Generator) -> Images:
    """A blurred hand comes into the picture from the side, to the middle in 0.2 s or so."""
    out, high = images.copy(), float(rng.uniform(0.4, 0.8))
    tone = np.array(rng.choice([(205, 160, 135), (150, 105, 80), (95, 62, 48)]), np.float32)
    shade = cv2.GaussianBlur(rng.normal(0, 40, (SIDE, SIDE)).astype(np.float32), (0, 0), 15) * 8
    for k in range(n):
        mask: npt.NDArray[Any] = np.zeros((SIDE, SIDE), np.float32)
        reach = -0.1 + 0.6 * min(1.0, (k + 1) / max(n, 6))
        cv2.ellipse(mask, (round(reach * SIDE), round(high * SIDE)), (90, 45), 20, 0, 360, (1.0,), -1)
        mask = cv2.GaussianBlur(mask, (0, 0), 6)[..., None]
        hand = np.clip(tone + shade[..., None], 0, 255)
        out[len(out) - n + k] = (out[len(out) - n + k] * (1 - mask) + hand * mask).astype(np.uint8)
    return out


def _fade(images: Images, n: int, rng: np.random.Generator) -> Images:
    gains = np.linspace(1, 0, n + 1)[1:]
    return np.concatenate(
        [images[:-n], np.stack([_brighter(i, g) for i, g in zip(images[-n:], gains, strict=True)])]
    )


def _black(images: Images, n: int, rng: np.random.Generator) -> Images:
    return np.concatenate([images[:-n], np.zeros_like(images[-n:])])


LIVELY: dict[str, Change] = {
    "exposure": _exposure,
    "flash": _flash,
    "shake": _shake,
    "whip": _whip,
    "hand": _hand,
}
BLACK: dict[str, Change] = {"fade to black": _fade, "cut to black": _black}


@dataclass(frozen=True)
class Case:
    """One clip: its frames, the truth and where it comes from."""

    name: str
    images: Images
    fps: int
    claims: tuple[tuple[str, str, float | None], ...]  # claim, value, start_s
    source: str
    note: str


def cases(samples: Path) -> Iterator[Case]:
    """All clips, in order; the same on every call."""
    rng = np.random.default_rng(SEED)
    for k, one in enumerate(CAST):
        others = [other for other in CAST if other is not one]
        alike = [other for other in others if one.room and other.room == one.room]
        for at_start in (False, True):
            for j, place in enumerate((*NEAR, 0.3, 0.6)):
                fps = RATES[(k + j + at_start) % len(RATES)]
                n, count = (place if isinstance(place, int) else round(place * fps)), round(SECONDS * fps)
                other = alike[0] if alike and j % 2 else others[int(rng.integers(len(others)))]
                yield _joined(samples, one, other, fps, n, count, at_start, "cut")
                if one.person and j % 2 == k % 2:
                    yield _joined(samples, one, one, fps, n, count, at_start, "jump")
                kinds = list(LIVELY)
                kind = kinds[(k + j) % len(kinds)]
                yield _changed(samples, one, fps, n, count, at_start, kind, LIVELY[kind], rng)
            for kind, change in BLACK.items():
                fps = RATES[(k + at_start) % len(RATES)]
                n = round(0.4 * fps) if kind == "fade to black" else int(rng.choice((1, 2, 5)))
                yield _changed(samples, one, fps, n, round(SECONDS * fps), at_start, kind, change, rng)
        for fps in RATES:
            begin = float(rng.uniform(0, 0.5))
            images = shot(samples, one, fps, round(SECONDS * fps), begin)
            yield Case(f"plain_{k:02d}_{fps}", images, fps, (("cut", "no", None),), one.file, "plain")


def _joined(
    samples: Path, one: Part, other: Part, fps: int, n: int, count: int, at_start: bool, kind: str
) -> Case:
    """`other` for n frames at the end, or at the start; in a jump it is the same shot, much later."""
    main = shot(samples, one, fps, count - n)
    short = shot(samples, other, fps, n, 0.9 if other is one else 0.4)
    images = np.concatenate([short, main] if at_start else [main, short])
    time = (n if at_start else count - n) / fps
    claims: tuple[tuple[str, str, float | None], ...] = (("cut", "yes", time),)
    if one.person and other.person:
        claims += (("same_person", "yes" if one is other else "no", None),)
    name = f"{kind}_{one.file.partition('.')[0]}_{'start' if at_start else 'end'}_{n:02d}_{fps}"
    note = f"{kind}; {'start' if at_start else 'end'}; {n} frames; {other.file}"
    return Case(name, images, fps, claims, one.file, note)


def _changed(
    samples: Path,
    one: Part,
    fps: int,
    n: int,
    count: int,
    at_start: bool,
    kind: str,
    change: Change,
    rng: np.random.Generator,
) -> Case:
    images = shot(samples, one, fps, count)
    images = change(images[::-1], n, rng)[::-1] if at_start else change(images, n, rng)
    claims: tuple[tuple[str, str, float | None], ...] = (("cut", "no", None),)
    if kind in BLACK:
        claims += (("fade", "yes", None),)
    where = "start" if at_start else "end"
    name = f"{kind.replace(' ', '-')}_{one.file.partition('.')[0]}_{where}_{n:02d}_{fps}"
    return Case(name, images, fps, claims, one.file, f"{kind}; {where}; {n} frames")


def make(samples: Path, folder: Path, share: float = 0.25) -> Path:
    """Write a share of the clips, drawn by the seed, into `folder`; the path of their labels."""
    print(f"seed {SEED}")
    draw = np.random.default_rng(SEED)
    rows: list[dict[str, Any]] = []
    for case in cases(samples):
        if draw.random() >= share:
            continue
        media = f"{case.name}.mp4"
        write_video(folder / media, case.images, case.fps, 23)
        for claim, value, start in case.claims:
            row = dict.fromkeys(HEADER, "") | {"media": media, "claim": claim, "value": value}
            row |= {
                "start_s": "" if start is None else f"{start:.4f}",
                "source": case.source,
                "note": case.note,
            }
            rows.append(row)
    path = folder / "ends.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows(rows)
    return path


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), Path(sys.argv[2])))
