"""Which portrait is touched where and how: a balanced, seeded choice that does not change as it grows."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prompts.vocabulary import GROUPS


@dataclass(frozen=True)
class Choice:
    """One clip to make: a portrait's id and one of its reactions (a record of the column `reactions`)."""

    portrait: str
    reaction: Mapping[str, Any]


def choose(portraits: Iterable[Mapping[str, Any]], clips: int, seed: int) -> list[Choice]:
    """A choice of `clips` of all (portrait, region, type) that have a reaction; fewer if there are no more.

    Every step takes the group chosen least so far, in it the type, then the region, then the portrait
    chosen least; ties are broken by a hash of seed and names. So groups differ by at most one as long as
    none of them is used up, and the first N of a longer choice are the choice of N: asking for more clips
    later keeps those that are made.

    Args:
        portraits: rows with `sample_id` and `reactions`.
        clips: how many are wanted.
        seed: of the run.
    """
    waiting = _Candidates(portraits, seed)
    chosen: list[Choice] = []
    while len(chosen) < clips and (choice := waiting.take()) is not None:
        chosen.append(choice)
    return chosen


class _Candidates:
    """What is left to choose from, by type and region, the least used portrait first."""

    def __init__(self, portraits: Iterable[Mapping[str, Any]], seed: int) -> None:
        self.heaps: dict[tuple[str, str], list[tuple[int, str, str]]] = defaultdict(list)
        self.reactions: dict[tuple[str, str, str], Mapping[str, Any]] = {}
        self.used: Counter[str] = Counter()
        self.seed = seed
        self.types: dict[str, list[str]] = defaultdict(list)
        groups: dict[str, str] = {}
        for portrait in portraits:
            for reaction in portrait["reactions"] or []:
                kind, region = reaction["interaction_type"], reaction["region"]
                name = portrait["sample_id"]
                self.reactions[kind, region, name] = reaction
                self.heaps[kind, region].append((0, self._tie(kind, region, name), name))
                groups[kind] = reaction["interaction_group"]
        for heap in self.heaps.values():
            heapq.heapify(heap)
        for kind, group in groups.items():
            self.types[group].append(kind)

    def take(self) -> Choice | None:
        """The next one, or None when there are no more."""
        kinds = {kind for kind, _ in self.heaps}
        groups = [g for g in GROUPS if kinds & set(self.types[g])]
        if not groups:
            return None
        group = min(groups, key=lambda g: self.used[g])  # the first of equals, in the order of GROUPS
        kind = self._least([k for k in self.types[group] if k in kinds])
        region = self._least([r for k, r in self.heaps if k == kind])
        name = self._portrait(kind, region)
        for what in (group, kind, region, name):
            self.used[what] += 1
        return Choice(name, self.reactions.pop((kind, region, name)))

    def _portrait(self, kind: str, region: str) -> str:
        heap = self.heaps[kind, region]
        while heap[0][0] != self.used[heap[0][2]]:  # chosen elsewhere since it was put here
            _, tie, name = heap[0]
            heapq.heapreplace(heap, (self.used[name], tie, name))
        name = heapq.heappop(heap)[2]
        if not heap:
            del self.heaps[kind, region]
        return name

    def _least(self, names: Sequence[str]) -> str:
        return min(names, key=lambda name: (self.used[name], self._tie(name)))

    def _tie(self, *names: str) -> str:
        return hashlib.sha256("\0".join([str(self.seed), *names]).encode()).hexdigest()
