"""What a clip looks and sounds like in a few kilobytes, by which copies of it are found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from media.requests import Audio, Frames
from stages.clip import Clip
from stages.contract import Array, Column, Stage, StageConfig

SIDE = 16  # of a thumbnail, pixels
BANDS = 16  # of the sound's spectrum
SOUND_HZ = 10  # spectra a second
_RATE = 16_000  # of the sound, Hz
_WINDOW = 3200  # samples that a spectrum is taken of: 0.2 s
_LOWEST, _HIGHEST = 100.0, 7000.0  # of the bands, Hz: what phones and lossy encoders leave
_QUIETEST = -80.0  # dB of full scale: silence
# A border is as dark as this wherever and whenever one looks, 0-255: black is 16 where a full range was taken
# for a limited one, and encoders add some noise.
_DARK = 28
_MOST_OF_BORDER = 0.8  # of a row's pixels: a logo in the border does not end it
_MOST_BORDER = 0.4  # of the picture, on each side


class Signature(Stage):
    """Thumbnails and spectra over time.

    A thumbnail is the luma of a picture, its black borders cut off, averaged in 16 x 16 areas: another
    encoder, another size or a logo hardly change it. Sound is the level in 16 bands, equal steps of the
    logarithm of the frequency, ten times a second.
    """

    class Config(StageConfig):
        """Settings of `Signature`."""

        fps: float = Field(10.0, gt=0, le=30, description="thumbnails a second")
        short_side: int = Field(
            64, ge=SIDE, le=720, description="shorter side of the frames they are made of, px"
        )

    writes: ClassVar[Mapping[str, Column | Array]] = {
        "picture_hash": Column("string", "SHA-256", "hash of the thumbnails: same pictures, same hash"),
        "signature_times": Array("[T]", "seconds", "times of signature_pictures"),
        "signature_pictures": Array("[T, 16, 16]", "0-255", "uint8; luma of the pictures without borders"),
        "signature_sound": Array(
            "[N, 16]", "dB + 80", "uint8; level of the sound in bands, 10 a second; no rows without a track"
        ),
    }

    @property
    def sees(self) -> tuple[Frames, Audio]:
        """Small frames and the sound."""
        return (Frames(self.config.fps, self.config.short_side), Audio(_RATE))

    def score(self, clip: Clip) -> dict[str, Any]:
        """All of `writes`."""
        frames = clip.frames(self.sees[0])
        pictures = thumbnails(np.stack([cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in frames.images]))
        sound = clip.audio(self.sees[1])
        return {
            "picture_hash": hashlib.sha256(pictures.tobytes()).hexdigest(),
            "signature_times": frames.times,
            "signature_pictures": pictures,
            "signature_sound": spectra(np.zeros(0, np.float32) if sound is None else sound),
        }


def thumbnails(luma: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Luma [T, H, W] without black borders, in 16 x 16 areas: [T, 16, 16]."""
    brightest = luma.max(0)
    top, bottom = _bright(np.quantile(brightest, _MOST_OF_BORDER, axis=1))
    left, right = _bright(np.quantile(brightest, _MOST_OF_BORDER, axis=0))
    inner = luma[:, top:bottom, left:right]
    return np.stack([cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for one in inner])


def _bright(brightest: npt.NDArray[np.floating[Any]]) -> tuple[int, int]:
    """From where to where the rows (or columns) are no border."""
    bright = np.flatnonzero(brightest > _DARK)
    first, last = (int(bright[0]), int(bright[-1]) + 1) if len(bright) else (0, len(brightest))
    is_border = max(first, len(brightest) - last) <= _MOST_BORDER * len(brightest)
    return (first, last) if is_border else (0, len(brightest))


def spectra(sound: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Level of mono sound at 16 kHz in bands, [N, 16], dB above -80 of full scale, ten a second."""
    step = _RATE // SOUND_HZ
    count = len(sound) // step
    if not count:
        return np.zeros((0, BANDS), np.uint8)
    padded = np.pad(sound[: count * step], (0, _WINDOW - step))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::step][:count]
    power = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW), axis=1)) ** 2 / (_WINDOW / 4) ** 2
    edges = np.geomspace(_LOWEST, _HIGHEST, BANDS + 1) * _WINDOW / _RATE
    sums = np.add.reduceat(power, np.round(edges).astype(int), axis=1)[:, :BANDS]
    level = 10 * np.log10(np.maximum(sums, 1e-12))
    return np.round(np.clip(level - _QUIETEST, 0, 255)).astype(np.uint8)
