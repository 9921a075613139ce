"""Duplicates among a million clips: time, memory and recall of the search that proposes pairs.

Vectors are synthetic: scenes of several clips that are near each other, and among them copies whose vector
differs by as much as that of a planted copy does. Memory is what the process took at most.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from pipelines.collection.duplicates import candidates, mirrored_vectors
from pipelines.collection.linkage import unit

WIDTH = 128
# Cosine of a clip and its copy, of two clips of a scene, at the median: measured on the sample folder.
COPY, SCENE = 0.985, 0.93
CLIPS_OF_A_SCENE = 12


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--copies", type=int, default=20_000, help="of them copies, half of these mirrored")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    vectors, pairs = planted(arguments.clips, arguments.copies, arguments.seed)
    started = time.perf_counter()
    proposed = candidates(vectors, print)
    seconds = time.perf_counter() - started
    keys = (proposed[:, 0] * len(vectors) + proposed[:, 1]) * 2 + proposed[:, 2]
    is_mirrored = np.arange(len(pairs)) >= len(pairs) // 2
    wanted = (pairs[:, 0] * len(vectors) + pairs[:, 1]) * 2 + is_mirrored
    recall = float(np.isin(wanted, keys).mean())
    view = Table("clips", "copies", "seconds", "proposed pairs", "recall", "memory, GB", "vectors alone, GB")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    view.add_row(
        *(f"{arguments.clips:,}", f"{arguments.copies:,}", f"{seconds:.0f}", f"{len(proposed):,}"),
        *(f"{recall:.4f}", f"{memory:.1f}", f"{vectors.nbytes / 1e9:.1f}"),
    )
    Console().print(view)


def planted(clips: int, copies: int, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Unit vectors [clips, 128], and the pairs of a clip and its copy, the smaller number first."""
    rng = np.random.default_rng(seed)
    originals = clips - copies
    scenes = unit(rng.normal(size=(originals // CLIPS_OF_A_SCENE + 1, WIDTH)).astype(np.float32))
    vectors = np.empty((clips, WIDTH), np.float32)
    for start in range(0, originals, 1 << 16):
        end = min(start + (1 << 16), originals)
        which = np.arange(start, end) // CLIPS_OF_A_SCENE
        vectors[start:end] = near(scenes[which], np.sqrt(SCENE), rng)
    chosen = rng.choice(originals, copies, replace=False)
    vectors[originals:] = near(vectors[chosen], COPY, rng)
    half = originals + copies // 2
    vectors[half:] = mirrored_vectors(vectors[half:])
    return vectors, np.stack([chosen, np.arange(originals, clips)], 1)


def near(
    vectors: npt.NDArray[np.float32], cosine: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Unit vectors with about this cosine to others."""
    aside = unit(rng.normal(size=vectors.shape).astype(np.float32))
    return unit(cosine * vectors + np.sqrt(1 - cosine**2) * aside)


if __name__ == "__main__":
    main()
