"""Tiny random weights of the vision models, laid out as the model store holds the real ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import random_measuring, random_weights

BUILDERS: dict[str, Callable[[Path], None]] = {
    "sam2.1-hiera-large": partial(random_weights.sam2, small=True),
    "cotracker3": partial(random_weights.cotracker3, small=True),
    "openclip-vit-l-14": partial(random_weights.openclip, small=True),
    "dinov2-large": partial(random_weights.dinov2, small=True),
    "inception-2015-12-05": random_measuring.inception,
    "i3d-kinetics-400": random_measuring.i3d,
    "lpips-alexnet": random_measuring.lpips_alexnet,
    "laion-aesthetic-vit-l-14": partial(random_measuring.laion_aesthetic, small=True),
    "raft-things": random_measuring.raft,
    "dino-vit-b-16": partial(random_measuring.dino, small=True),
    "clip-vit-b-32": partial(random_measuring.clip_archive, small=True),
}
