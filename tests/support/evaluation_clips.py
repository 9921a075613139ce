"""Small clips of several methods beside real ones, drawn for the tests of evaluations."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from media.write import write_video

NAMES = ("ada", "bert", "cleo", "dora", "emil", "fred")


def real_frames(seed: int, count: int = 8) -> np.ndarray:
    """A few coloured discs that move over a slope, uint8 [T, 96, 128, 3]."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(40, 200, 128)[None, :, None] * rng.uniform(0.4, 1, 3)
    discs = [(rng.uniform(20, 108, 2), rng.uniform(-3, 3, 2), rng.integers(0, 255, 3)) for _ in range(4)]
    frames = []
    for t in range(count):
        image = np.broadcast_to(slope, (96, 128, 3)).astype(np.uint8).copy()
        for start, step, colour in discs:
            x, y = (start + t * step).round().astype(int).tolist()
            cv2.circle(image, (x, y * 96 // 128), 12, colour.tolist(), -1)
        frames.append(image)
    return np.stack(frames)


def blurred(frames: np.ndarray) -> np.ndarray:
    """Out of focus."""
    return np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in frames])


def noisy(frames: np.ndarray) -> np.ndarray:
    """With noise of 40 steps of 255."""
    noise = np.random.default_rng(0).normal(0, 40, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def make_methods(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Folders real, copy, blurred and noisy of clips of 0.8 s with equal names."""
    for seed, name in enumerate(names):
        frames = real_frames(seed)
        for method, made in (
            ("real", frames),
            ("copy", frames),
            ("blurred", blurred(frames)),
            ("noisy", noisy(frames)),
        ):
            (folder / method).mkdir(parents=True, exist_ok=True)
            write_video(folder / method / f"{name}.mp4", made, 10, crf=12 if method == "real" else 18)
    return folder
