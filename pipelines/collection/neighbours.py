"""The nearest of many vectors by FAISS (Johnson et al., 2017): exact for few, by inverted lists for many."""

from __future__ import annotations

import math
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

# Up to so many vectors each is compared with all others.
EXACT = 20_000
# Vectors that the inverted lists are laid out by, for each list; lists that are looked into.
_TRAINED_BY, _LOOKED_INTO = 40, 16
_AT_ONCE = 1 << 16

Vectors = npt.NDArray[np.float32]


class Neighbours:
    """Finds, among unit vectors, those with the largest cosine.

    The same vectors in the same order give the same answers.

    Args:
        vectors: float32 [N, D] of length one, kept by reference.
        seed: of the layout of the lists.
    """

    def __init__(self, vectors: Vectors, seed: int = 0) -> None:
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        count, width = self.vectors.shape
        self._index: Any = faiss.IndexFlatIP(width)
        if count > EXACT:
            lists = round(4 * math.sqrt(count))
            self._index = faiss.IndexIVFFlat(self._index, width, lists, faiss.METRIC_INNER_PRODUCT)
            chosen = np.random.default_rng(seed).choice(count, min(count, _TRAINED_BY * lists), replace=False)
            self._index.cp.seed, self._index.cp.niter = seed + 1, 10
            self._index.train(self.vectors[np.sort(chosen)])
            self._index.nprobe = _LOOKED_INTO
        for start in range(0, count, _AT_ONCE):
            self._index.add(self.vectors[start : start + _AT_ONCE])

    def of(self, queries: Vectors, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Cosines [Q, count], falling, and which vectors they are of; where there are fewer: -1 and -1."""
        count = min(count, len(self.vectors))
        if not len(queries) or not count:
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        found = [
            self._index.search(np.ascontiguousarray(queries[start : start + _AT_ONCE], np.float32), count)
            for start in range(0, len(queries), _AT_ONCE)
        ]
        cosines, places = (np.concatenate(each) for each in zip(*found, strict=True))
        return np.where(places < 0, -1, cosines).astype(np.float32), places
