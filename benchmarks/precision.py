"""What half precision and TF32 change in the results of small models, against float32.

Each function takes weights in the layout of the model store, random ones (`random_weights`) or published
ones, and gives for each precision the `Difference` of what the model finds in sound or pictures made here.
Random weights tell whether a network computes in a precision at all; whether scores change, published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.pictures.cotracker import CoTracker3
from backends.running.onnx_net import open_session
from backends.running.pretrained import Precision
from backends.sound.audio_embedder import Wav2Vec2
from backends.sound.lip_sync import MouthTrack
from backends.sound.syncnet import SyncNetScorer
from backends.store.weights import Weights

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """Of results in one precision from those in float32, as shares of the standard deviation of the latter.

    largest, mean: of the absolute differences.
    """

    largest: float
    mean: float


def difference(exact: Values, other: Values) -> Difference:
    """How far `other` is from `exact`, arrays of one shape; infinite where it is not a number."""
    apart = np.abs(np.asarray(other, np.float64) - exact)
    apart = np.where(np.isfinite(apart), apart, np.inf) / np.asarray(exact, np.float64).std()
    return Difference(float(apart.max()), float(apart.mean()))


def differences(
    make: Callable[[Precision], Any], run: Callable[[Any], Values], device: str
) -> Mapping[str, Difference]:
    """Of a backend in each precision that the device has: "float16", "bfloat16" and, on CUDA, "tf32".

    Args:
        make: the backend in a precision.
        run: its results on something fixed.
        device: where `make` puts it.
    """
    exact = run(make("float32"))
    found = {}
    halves: tuple[Precision, ...] = ("float16", "bfloat16")
    for precision in halves:
        found[precision] = difference(exact, run(make(precision)))
    if device.startswith("cuda"):
        model = make("float32")
        model.setup()  # which switches TF32 off
        with _tf32():
            found["tf32"] = difference(exact, run(model))
    return found


def wav2vec2(weights: Weights, device: str) -> Mapping[str, Difference]:
    """Of the rows of 5 s of sound."""
    sound = _sound(5.0)
    return differences(
        lambda precision: Wav2Vec2(weights, device=device, precision=precision),
        lambda model: model.embed(sound, 16000),
        device,
    )


def syncnet(weights: Weights, device: str, seconds: float = 4.0) -> Mapping[str, Difference]:
    """Of the distances at each shift of the sound, from which confidence and offset follow."""
    count = round(seconds * 25)
    boxes = np.tile(np.array([0.3, 0.2, 0.6, 0.7], np.float32), (count, 1))
    track = MouthTrack(np.arange(count) / 25, np.zeros(count, np.float32), _pictures(count, 90, 120), boxes)
    sound = _sound(seconds)
    return differences(
        lambda precision: SyncNetScorer(weights, device=device, precision=precision),
        lambda scorer: scorer.distances(track, sound).mean(0),
        device,
    )


def cotracker(
    weights: Weights, device: str, frames: int = 48, shape: tuple[int, int] = (384, 512)
) -> Mapping[str, Difference]:
    """Of how far 8 x 8 points have moved in each frame, pixels.

    shape: of the network's pictures, height and width.
    """
    pictures = _pictures(frames, 180, 240)

    def moved(tracker: CoTracker3) -> Values:
        tracks, _ = tracker.track(pictures, 8)
        return np.asarray(tracks - tracks[0])

    return differences(
        lambda precision: CoTracker3(weights, device, interp_shape=shape, precision=precision), moved, device
    )


def onnx(path: Path, device: str, shape: tuple[int, ...]) -> Mapping[str, Difference]:
    """Of the first output of an ONNX file with TF32 for one input of this shape; nothing but on CUDA."""
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def run(use_tf32: bool) -> Values:
        session = open_session(path, device, use_tf32)
        return np.asarray(session.run(None, {session.get_inputs()[0].name: values})[0])

    return {"tf32": difference(run(False), run(True))} if device.startswith("cuda") else {}


@contextmanager
def _tf32() -> Any:
    """TF32 in the whole process, for this time."""
    import torch

    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    for flag in flags:
        flag.allow_tf32 = True
    try:
        yield
    finally:
        for flag in flags:
            flag.allow_tf32 = False


def _sound(seconds: float) -> npt.NDArray[np.float32]:
    """Noise whose loudness changes four times a second."""
    times = np.arange(round(seconds * 16000)) / 16000
    noise = np.random.default_rng(0).normal(0, 0.1, len(times))
    return (noise * (1 + np.sin(2 * np.pi * 4 * times))).astype(np.float32)


def _pictures(count: int, height: int, width: int) -> list[npt.NDArray[np.uint8]]:
    """A blurred pattern that moves to the right by a pixel a frame."""
    import cv2

    small = np.random.default_rng(0).integers(0, 255, (height // 6, (width + count) // 6, 3), np.uint8)
    wide = cv2.resize(small, (width + count, height))
    return [np.ascontiguousarray(wide[:, count - i : count - i + width], np.uint8) for i in range(count)]
