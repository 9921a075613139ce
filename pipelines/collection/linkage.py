"""Groups of like vectors: average linkage among nearest neighbours, in memory linear in their number.

Two groups are joined while the mean cosine of all pairs between them reaches a threshold, the likest first.
So no chain of vectors joins two groups that are unlike as a whole. For unit vectors that mean is the inner
product of the groups' own means, by which FAISS finds the likest groups. Groups that are each other's likest
are joined at the same time: average linkage gives the same groups by it (reciprocal nearest neighbours:
F. Murtagh, "A survey of recent advances in hierarchical clustering algorithms", 1983).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

NEIGHBOURS = 20  # of each group that are looked at in one round
EXACT = 20_000  # vectors; more are searched by an inverted file of short codes
PROBED, REFINED = (
    24,
    4,
)  # lists of it that are looked at, and codes for each neighbour that are compared in full
BLOCK = 1 << 14  # vectors, or pairs of them, that are copied or searched at once

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Marks = Mapping[Hashable, Hashable]


def unit(vectors: Floats) -> Floats:
    """The vectors, float32 [N, D], each of length 1; one of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def nearest(vectors: Floats, queries: Floats, count: int) -> tuple[Floats, Ints]:
    """For each query the `count` vectors with the largest inner products: products and numbers, [Q, count].

    Exact among `EXACT` vectors; among more some are missed. Missing ones are -inf and -1.

    Args:
        vectors: float32 [N, D].
        queries: float32 [Q, D].
        count: of neighbours.
    """
    import faiss

    vectors, queries = np.ascontiguousarray(vectors), np.ascontiguousarray(queries)
    number, width = vectors.shape
    if not number or not len(queries):
        return np.full((len(queries), count), -np.inf, np.float32), np.full((len(queries), count), -1)
    index: Any = faiss.IndexFlatIP(width)
    if number > EXACT:
        codes = "SQ8" if width % 4 else f"PQ{width // 4}x4fs"
        kind = f"IVF{int(2 * number**0.5)},{codes},RFlat"
        index = faiss.index_factory(width, kind, faiss.METRIC_INNER_PRODUCT)
        lists: Any = faiss.extract_index_ivf(index)
        lists.nprobe, index.k_factor = PROBED, REFINED
        lists.cp.seed, lists.cp.niter = 0, 4
        lists.cp.min_points_per_centroid, lists.cp.max_points_per_centroid = 1, 32
        index.train(vectors)
    index.add(vectors)
    parts = [  # FAISS has a table of 8 kB for each query of 512 numbers
        index.search(queries[start : start + BLOCK], min(count, number))
        for start in range(0, len(queries), BLOCK)
    ]
    products, found = (np.concatenate(part) for part in zip(*parts, strict=True))
    products[found < 0] = -np.inf
    gap = ((0, 0), (0, count - found.shape[1]))
    return np.pad(products, gap, constant_values=-np.inf), np.pad(found, gap, constant_values=-1)


def nearest_others(vectors: Floats, count: int) -> tuple[Floats, Ints]:
    """As `nearest`, for each vector its nearest among the others."""
    products, found = nearest(vectors, vectors, count + 1)
    out = found == np.arange(len(vectors))[:, None]
    out[~out.any(1), -1] = True  # a longer vector can be nearer than itself
    return products[~out].reshape(-1, count), found[~out].reshape(-1, count)


class Groups:
    """Groups of unit vectors that grow by average linkage.

    Args:
        vectors: float32 [N, D], each of length 1.
        of: int64 [N], in which of the groups 0 ... G-1 each is at first; none is empty.
        marks: of some groups, key -> value: groups with other values of one key are never joined.

    Attributes:
        of: of each vector its group; groups are numbered in the order of their first vectors.
        sizes: int64 [G], vectors in each.
        marks: of the groups that have any.
    """

    def __init__(self, vectors: Floats, of: Ints, marks: Mapping[int, Marks]) -> None:
        self.of = np.asarray(of, np.int64)
        self.marks: dict[int, Marks] = dict(marks)
        self.sizes = np.bincount(self.of)
        self._vectors = vectors
        self._sums = self._summed()
        self._renumber(np.arange(len(self.sizes)))

    def _summed(self) -> Floats:
        """Sum of the vectors of each group."""
        sums = np.empty((len(self.sizes), self._vectors.shape[1]), np.float32)
        order = np.argsort(self.of, kind="stable")
        starts = np.cumsum(self.sizes) - self.sizes
        for first in range(0, len(self.sizes), BLOCK):  # all rows in this order would be a second copy
            begin = starts[first : first + BLOCK]
            rows = order[begin[0] : begin[-1] + self.sizes[first : first + BLOCK][-1]]
            sums[first : first + BLOCK] = np.add.reduceat(self._vectors[rows], begin - begin[0], axis=0)
        return sums

    @property
    def means(self) -> Floats:
        """Mean vector of each group, float32 [G, D]; the inner product of two is their mean cosine."""
        return np.asarray(self._sums / self.sizes[:, None], np.float32)

    def inner_likeness(self) -> Floats:
        """Mean cosine of the pairs within each group, float32 [G]; NaN for a group of one."""
        sizes = self.sizes.astype(np.float64)
        squares = np.einsum("ij,ij->i", self._sums, self._sums, dtype=np.float64)
        likeness = (squares - sizes) / np.maximum(sizes * (sizes - 1), 1)
        return np.where(self.sizes > 1, likeness, np.nan).astype(np.float32)

    def likeness(self, pairs: Ints) -> Floats:
        """Mean cosine of the vectors of two groups, for pairs of groups [P, 2]."""
        found = np.empty(len(pairs), np.float32)
        for start in range(0, len(pairs), BLOCK):
            a, b = pairs[start : start + BLOCK].T
            products = np.einsum("ij,ij->i", self._sums[a], self._sums[b], dtype=np.float64)
            found[start : start + BLOCK] = products / (self.sizes[a] * self.sizes[b])
        return found

    def join(self, threshold: float, told: Callable[[int], None] = lambda groups: None) -> Ints:
        """Join groups until none is like enough to one of its nearest neighbours.

        Args:
            threshold: least mean cosine of two groups that are joined.
            told: takes how many groups there are, after each round.

        Returns:
            Pairs of groups that are like enough, but have other values of one key; int64 [P, 2].
        """
        while True:
            before = len(self.sizes)
            products, found = nearest_others(self.means, NEIGHBOURS)
            near = (products >= threshold) & (found >= 0)
            pairs = np.stack([np.nonzero(near)[0], found[near]], 1)
            pairs = np.unique(np.sort(pairs, 1), axis=0)
            self._join_along(pairs, threshold)
            told(len(self.sizes))
            if len(self.sizes) == before:
                self._sums = self._summed()  # the same figures, in whatever steps the groups have grown
                return pairs[self.likeness(pairs) >= threshold]

    def _join_along(self, pairs: Ints, threshold: float) -> None:
        """Join along these pairs, the likest first, and number the groups anew."""
        into = np.arange(len(self.sizes))
        likeness = self.likeness(pairs)
        while True:
            # A joined group is at most as like to a third as the liker of its parts was: what is left out
            # here never comes back.
            left = (likeness >= threshold) & (pairs[:, 0] != pairs[:, 1])
            pairs, likeness = pairs[left], likeness[left]
            allowed = self._allowed(pairs)
            pairs, likeness = pairs[allowed], likeness[allowed]
            if not len(pairs):
                break
            kept, gone = pairs[_each_others_likest(pairs, likeness, len(into))].T
            self._sums[kept] += self._sums[gone]
            self.sizes[kept] += self.sizes[gone]
            for keeps, goes in zip(kept.tolist(), gone.tolist(), strict=True) if self.marks else ():
                if goes in self.marks:
                    self.marks[keeps] = {**self.marks.pop(goes), **self.marks.get(keeps, {})}
            into[gone] = kept
            changed = np.zeros(len(into), bool)
            changed[kept] = True
            pairs, first = np.unique(np.sort(into[pairs], 1), axis=0, return_index=True)
            likeness = likeness[first]
            stale = changed[pairs].any(1)
            likeness[stale] = self.likeness(pairs[stale])
        while (into[into] != into).any():
            into = into[into]
        self._renumber(into)

    def _allowed(self, pairs: Ints) -> Flags:
        """Which pairs may be joined."""
        allowed = np.ones(len(pairs), bool)
        marked = np.zeros(len(self.sizes), bool)
        marked[list(self.marks)] = True
        for place in np.flatnonzero(marked[pairs].all(1)).tolist():
            one, other = pairs[place].tolist()
            allowed[place] = not differ(self.marks[one], self.marks[other])
        return allowed

    def _renumber(self, into: Ints) -> None:
        """Number the groups in the order of their first vectors.

        Args:
            into: of each group the one that it has become part of, int64 [G].
        """
        held, first, places = np.unique(into[self.of], return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        new = np.full(len(into), -1)
        new[held] = rank
        self.of = rank[places.reshape(-1)]
        self._sums, self.sizes = self._sums[held[order]], self.sizes[held[order]]
        self.marks = {int(new[group]): keys for group, keys in self.marks.items()}


def differ(one: Marks, other: Marks) -> bool:
    """Whether two have other values of one key."""
    few, many = sorted((one, other), key=len)
    return any(key in many and many[key] != value for key, value in few.items())


def _each_others_likest(pairs: Ints, likeness: Floats, count: int) -> Flags:
    """Which pairs are, for both of their groups, the likest pair of all; of equal ones the first is it.

    Args:
        pairs: int64 [P, 2], smaller number first.
        likeness: float32 [P].
        count: of groups.
    """
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -likeness))
    one, other = pairs[order].T
    places = np.arange(len(order))
    best = np.full(count, len(order))
    np.minimum.at(best, one, places)
    np.minimum.at(best, other, places)
    chosen = np.zeros(len(order), bool)
    chosen[order] = (best[one] == places) & (best[other] == places)
    return chosen
