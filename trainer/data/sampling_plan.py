"""Which clips a step takes: a function of the weights, the seed and the step, without a history.

A step takes clips of one bucket. Buckets come in proportion to the weights of their clips, runs by the
mixing table (InterAvatar C.1 mixes audio-driven and interaction clips), and the clips of a run and bucket in
shuffled epochs. How often each was taken before a step is computed, not counted: any step can be the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from manifests.buckets import Bucket

Rows = npt.NDArray[np.int64]
# Steps whose buckets are shuffled among themselves: equal shares would otherwise come in turn, ABAB.
BLOCK = 64
_UNIT = 1 << 62
# What a random number is for; part of what it is drawn from.
_BUCKETS, _RUNS, _ORDER, _BLOCK, _SLOTS, _CLIP, _OTHER = range(7)


def stream(seed: int, *what: int) -> np.random.Generator:
    """Random numbers that depend on these numbers alone; `seed` may be any integer."""
    return np.random.default_rng([seed % (1 << 64), *what])


def clip_stream(seed: int, step: int, slot: int) -> np.random.Generator:
    """What is drawn for one place of one step's batch: its start in the clip, its dropout."""
    return stream(seed, _CLIP, step, slot)


class Shares:
    """Deals turns 0, 1, 2, ... out in proportion to weights, at every moment within a few turns.

    A binary tree over the parties: of n turns that reach a node, floor(n p + u) go left, p being the weight
    there and u random. That count grows by 0 or 1 a turn, so who takes turn n and how many turns it took
    before follow from n. Integers, so that every machine deals alike.
    """

    def __init__(self, weights: Sequence[float], rng: np.random.Generator) -> None:
        if not weights or min(weights) <= 0:
            raise ValueError("shares need weights above 0")
        self.parties = len(weights)
        self._nodes: dict[tuple[int, int], tuple[int, int, int]] = {}
        self._split(list(weights), 0, self.parties, rng)

    def _split(self, weights: list[float], low: int, high: int, rng: np.random.Generator) -> None:
        if high - low < 2:
            return
        middle = (low + high) // 2
        left = round(sum(weights[low:middle]) / sum(weights[low:high]) * _UNIT)
        self._nodes[low, high] = middle, left, int(rng.integers(_UNIT))
        self._split(weights, low, middle, rng)
        self._split(weights, middle, high, rng)

    def turn(self, number: int) -> tuple[int, int]:
        """The party that takes turn `number`, and how many turns it took before."""
        low, high = 0, self.parties
        while high - low > 1:
            middle, share, offset = self._nodes[low, high]
            left = (number * share + offset) // _UNIT
            if ((number + 1) * share + offset) // _UNIT > left:
                number, high = left, middle
            else:
                number, low = number - left, middle
        return low, number


class SamplingPlan:
    """The clips of every step.

    Args:
        groups: row numbers of the clips of each run and bucket; none is empty.
        weights: share of each run that is in `groups`, above 0; in any unit.
        batch: clips of a step.
        seed: of all that is drawn.
    """

    def __init__(
        self, groups: Mapping[tuple[str, Bucket], Rows], weights: Mapping[str, float], batch: int, seed: int
    ) -> None:
        self.groups, self.batch, self.seed = dict(groups), batch, seed
        samples: dict[str, int] = {}
        for (run, _), rows in groups.items():
            samples[run] = samples.get(run, 0) + len(rows)
        # A run's weight falls on its buckets in proportion to its clips there.
        mass = {(r, b): weights[r] * len(rows) / samples[r] for (r, b), rows in groups.items()}
        self.buckets = sorted({bucket for _, bucket in groups})
        self.runs = {b: sorted(run for run, bucket in groups if bucket == b) for b in self.buckets}
        self._by_bucket = Shares(
            [sum(mass[run, b] for run in self.runs[b]) for b in self.buckets], stream(seed, _BUCKETS)
        )
        self._by_run = {
            b: Shares([mass[run, b] for run in self.runs[b]], stream(seed, _RUNS, number))
            for number, b in enumerate(self.buckets)
        }
        self._numbers = {group: number for number, group in enumerate(sorted(groups))}
        self._orders: dict[tuple[str, Bucket], tuple[int, Rows]] = {}
        self._block: tuple[int, list[tuple[Bucket, int]]] | None = None

    def bucket(self, step: int) -> tuple[Bucket, int]:
        """The bucket of a step, and how many steps took it before."""
        number, place = divmod(step, BLOCK)
        if self._block is None or self._block[0] != number:
            self._block = number, self._block_of(number)
        return self._block[1][place]

    def _block_of(self, number: int) -> list[tuple[Bucket, int]]:
        turns = [self._by_bucket.turn(number * BLOCK + i) for i in range(BLOCK)]
        before: dict[int, int] = {}
        for party, visits in turns:
            before.setdefault(party, visits)
        block = []
        for i in stream(self.seed, _BLOCK, number).permutation(BLOCK):
            party = turns[i][0]
            block.append((self.buckets[party], before[party]))
            before[party] += 1
        return block

    def picks(self, step: int) -> tuple[Bucket, list[tuple[str, int]]]:
        """A step's bucket, and run and row number of the clip in each slot of its batch."""
        bucket, visits = self.bucket(step)
        dealt = []
        for turn in range(visits * self.batch, (visits + 1) * self.batch):
            party, taken = self._by_run[bucket].turn(turn)
            run = self.runs[bucket][party]
            dealt.append((run, self._row((run, bucket), taken)))
        return bucket, [dealt[i] for i in stream(self.seed, _SLOTS, step).permutation(self.batch)]

    def other(self, run: str, bucket: Bucket, step: int, slot: int, attempt: int) -> int:
        """A row of a run and bucket, drawn for the place of a step whose clip cannot be read."""
        rows = self.groups[run, bucket]
        return int(rows[stream(self.seed, _OTHER, step, slot, attempt).integers(len(rows))])

    def _row(self, group: tuple[str, Bucket], taken: int) -> int:
        """The clip that a run and bucket give after `taken` others: epoch by epoch, shuffled each time."""
        rows = self.groups[group]
        epoch, place = divmod(taken, len(rows))
        known = self._orders.get(group)
        if known is None or known[0] != epoch:
            order = stream(self.seed, _ORDER, self._numbers[group], epoch).permutation(len(rows))
            known = self._orders[group] = epoch, order
        return int(rows[known[1][place]])
