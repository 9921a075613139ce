"""Tiny random weights of the vision models, laid out as the model store holds the real ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import random_weights

BUILDERS: dict[str, Callable[[Path], None]] = {
    "sam2.1-hiera-large": partial(random_weights.sam2, small=True),
    "cotracker3": partial(random_weights.cotracker3, small=True),
    "openclip-vit-l-14": partial(random_weights.openclip, small=True),
    "dinov2-large": partial(random_weights.dinov2, small=True),
}
