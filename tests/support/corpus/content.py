"""The one content of the corpus: pictures that carry their number, sound that beeps; drawn and read.

A picture as shown has four coloured corners and, in its middle, its number in black and white: a column a
bit, the lower half of a column the opposite of its upper half. So it is read from any size, and what is mixed
of two pictures has no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

# As shown: top left, top right, bottom left, bottom right. Not fully saturated, so that a wrong matrix or
# range moves values by 14 and more and clips none.
CORNERS = ((230, 30, 30), (30, 230, 30), (30, 30, 230), (230, 230, 230))
BITS = 8
# Shares of the picture's sides.
COLUMNS = (0.1, 0.9)
UPPER, LOWER = (0.32, 0.5), (0.5, 0.68)
CORNER = 0.24
CLEAR = 40  # black and white differ by 255; what differs by less than this is no bit

BEEP_HZ, BEEP_S = 1000, 0.15


@dataclass(frozen=True)
class Content:
    """What a file holds before it is encoded.

    width, height: as shown with square pixels, px.
    first: number of the first picture.
    mirrored, turns: how the stored pictures are to be shown: turned counter-clockwise by quarter turns, then
        left and right change places; they are stored the other way about.
    beeps: where they begin, s of the sound.
    seconds: how long the sound is; None: as long as the pictures.
    """

    width: int = 192
    height: int = 108
    fps: float = 25
    frames: int = 75
    first: int = 0
    mirrored: bool = False
    turns: int = 0
    beeps: tuple[float, ...] = (0.6, 1.5, 2.4)
    rate: int = 48000
    channels: int = 1
    seconds: float | None = None

    @property
    def picture_s(self) -> float:
        """How long the pictures last."""
        return self.frames / self.fps

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height of the stored pictures."""
        return (self.height, self.width) if self.turns % 2 else (self.width, self.height)


def _columns(width: int) -> list[slice]:
    """Where the bits are, and after them whether their number is odd."""
    edges = np.linspace(COLUMNS[0] * width, COLUMNS[1] * width, BITS + 2)
    return [slice(round(a), round(b)) for a, b in pairwise(edges)]


def _rows(height: int, part: tuple[float, float]) -> slice:
    return slice(round(part[0] * height), round(part[1] * height))


def _bits(number: int) -> list[bool]:
    bits = [bool(number >> i & 1) for i in range(BITS)]
    return [*bits, sum(bits) % 2 == 1]


def drawn(number: int, width: int, height: int) -> Image:
    """The picture of a number as shown, RGB [H, W, 3]."""
    image = np.full((height, width, 3), 112, np.uint8)
    at = number * 5 % width  # something that moves
    image[round(0.72 * height) : round(0.78 * height), at : at + width // 8] = 160
    for column, bit in zip(_columns(width), _bits(number), strict=True):
        image[_rows(height, UPPER), column] = 255 * bit
        image[_rows(height, LOWER), column] = 255 * (not bit)
    high, wide = round(CORNER * height), round(CORNER * width)
    for place, colour in zip(_corners(wide, high), CORNERS, strict=True):
        image[place] = colour
    return image


def _corners(wide: int, high: int) -> list[tuple[slice, slice]]:
    first, last = slice(None, high), slice(-high, None)
    left, right = slice(None, wide), slice(-wide, None)
    return [(first, left), (first, right), (last, left), (last, right)]


def read_numbers(images: Sequence[Image]) -> list[int | None]:
    """The numbers of pictures of one size, whatever that is; None where there is none to read."""
    if not images:
        return []
    height, width = images[0].shape[:2]
    # Green is most of the luminance; the rest is black, white and grey there.
    greens = np.stack([image[..., 1] for image in images])

    def levels(rows: slice, columns: slice) -> npt.NDArray[np.float64]:
        part = greens[:, rows, columns]
        y, x = part.shape[1] // 4, part.shape[2] // 4
        return part[:, y : part.shape[1] - y, x : part.shape[2] - x].mean((1, 2))

    upper, lower = _rows(height, UPPER), _rows(height, LOWER)
    found = np.stack([levels(upper, one) - levels(lower, one) for one in _columns(width)], 1)
    numbers: list[int | None] = []
    for differences in found:
        bits = [bool(one > 0) for one in differences]
        number = sum(bit << i for i, bit in enumerate(bits[:BITS]))
        is_clear = np.abs(differences).min() >= CLEAR and _bits(number) == bits
        numbers.append(number if is_clear else None)
    return numbers


def read_corners(image: Image) -> list[tuple[int, int, int]]:
    """The mean colours of the four corners, in the order of CORNERS."""
    height, width = image.shape[:2]
    inner = slice(height // 24, -(height // 24) or None), slice(width // 24, -(width // 24) or None)
    places = _corners(width // 8, height // 8)
    means = [image[inner][place].reshape(-1, 3).mean(0) for place in places]
    return [(round(r), round(g), round(b)) for r, g, b in means]


def fitted(image: Image, width: int, height: int) -> Image:
    """The part of a picture that one of another shape fills when it is fitted in whole."""
    high, wide = image.shape[:2]
    scale = min(wide / width, high / height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    top, left = (high - h) // 2, (wide - w) // 2
    return image[top : top + h, left : left + w]


def write_pictures(content: Content, path: Path) -> None:
    """All pictures as they are stored, RGB, one after the other."""
    with path.open("wb") as file:
        for number in range(content.first, content.first + content.frames):
            image = drawn(number, content.width, content.height)
            if content.mirrored:
                image = image[:, ::-1]
            file.write(np.ascontiguousarray(np.rot90(image, -content.turns)).tobytes())


def write_sound(content: Content, path: Path) -> None:
    """The sound, float32, the same in all channels."""
    seconds = content.picture_s if content.seconds is None else content.seconds
    times = np.arange(round(seconds * content.rate)) / content.rate
    noise = np.random.default_rng(0).normal(0, 0.005, len(times))
    sound = 0.02 * np.sin(2 * np.pi * 200 * times) + noise
    for begin in content.beeps:
        during = (times >= begin) & (times < begin + BEEP_S)
        sound += 0.5 * during * np.sin(2 * np.pi * BEEP_HZ * times)
    np.repeat(sound[:, None], content.channels, 1).astype("<f4").tofile(path)


def read_beeps(sound: npt.NDArray[np.floating], rate: int) -> list[float]:
    """Where beeps begin, s; what is silent for less than 60 ms within one does not end it."""
    window, hop = round(0.01 * rate), rate // 1000
    if len(sound) < 2 * window:
        return []
    wave = np.exp(-2j * np.pi * BEEP_HZ * np.arange(len(sound)) / rate)
    sums = np.concatenate([[0], np.cumsum(sound.astype(np.float64) * wave)])
    level = np.abs(sums[window::hop] - sums[: len(sums) - window : hop]) / window
    if level.max() < 0.02:
        return []
    on = np.flatnonzero(level > 0.4 * level.max())
    begins = on[np.flatnonzero(np.diff(on, prepend=-1000) > 60)]
    return [round((int(at) * hop + 0.4 * window) / rate, 3) for at in begins]


def listed(numbers: Sequence[int | None]) -> str:
    """Numbers as ranges, for messages; `?` is a picture without one."""
    parts: list[list[int | None]] = []
    for number in numbers:
        last = parts[-1][-1] if parts else None
        follows = last is not None and number == last + 1
        if parts and (follows or (number is None and last is None)):
            parts[-1].append(number)
        else:
            parts.append([number])
    words = []
    for part in parts:
        if part[0] is None:
            words.append(f"?x{len(part)}")
        else:
            words.append(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}")
    return " ".join(words[:12]) + (" ..." if len(words) > 12 else "")
