"""The choice of clips: balanced, deterministic, and the same when it grows."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.selection import choose
from prompts.vocabulary import GROUPS, REGIONS, VOCABULARY

TYPES = list(VOCABULARY.types)


def portrait(name: str, regions: list[str], types: list[str]) -> dict[str, Any]:
    reactions = [
        {"region": r, "interaction_type": t, "interaction_group": VOCABULARY.group_of(t)}
        for r in regions
        for t in types
    ]
    return {"sample_id": name, "reactions": reactions}


PORTRAITS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(REGIONS), unique=True, max_size=5),
        st.lists(st.sampled_from(TYPES), unique=True, max_size=5),
    ),
    max_size=5,
).map(lambda made: [portrait(f"p{i}", regions, types) for i, (regions, types) in enumerate(made)])


def counts(chosen: list[Any], key: str) -> Counter[str]:
    return Counter(choice.reaction[key] for choice in chosen)


def triples(chosen: list[Any]) -> list[tuple[str, str, str]]:
    return [(c.portrait, c.reaction["region"], c.reaction["interaction_type"]) for c in chosen]


@settings(max_examples=200, deadline=None)
@given(PORTRAITS, st.integers(1, 60), st.integers(0, 3))
def test_each_is_chosen_once_and_as_many_as_there_are(
    portraits: list[dict[str, Any]], clips: int, seed: int
) -> None:
    chosen = choose(portraits, clips, seed)
    available = {
        (p["sample_id"], r["region"], r["interaction_type"]) for p in portraits for r in p["reactions"]
    }
    assert len(chosen) == min(clips, len(available))
    assert len(set(triples(chosen))) == len(chosen) and set(triples(chosen)) <= available


@settings(max_examples=200, deadline=None)
@given(PORTRAITS, st.integers(1, 40), st.integers(1, 40), st.randoms())
def test_a_longer_choice_begins_with_the_shorter_and_order_of_input_is_nothing(
    portraits: list[dict[str, Any]], few: int, more: int, random: Any
) -> None:
    longer = triples(choose(portraits, few + more, 0))
    shuffled = list(portraits)
    random.shuffle(shuffled)
    assert triples(choose(shuffled, few, 0)) == longer[:few]


@settings(max_examples=200, deadline=None)
@given(PORTRAITS, st.integers(1, 60))
def test_groups_differ_by_one_while_none_is_used_up(portraits: list[dict[str, Any]], clips: int) -> None:
    left = Counter(r["interaction_group"] for p in portraits for r in p["reactions"])
    chosen = counts(choose(portraits, clips, 0), "interaction_group")
    most = max(chosen.values(), default=0)
    for group, available in left.items():
        assert chosen[group] >= min(available, most - 1)


def test_groups_types_regions_and_portraits_are_balanced() -> None:
    portraits = [portrait(f"p{i}", list(REGIONS[:10]), TYPES) for i in range(8)]
    chosen = choose(portraits, 40, 0)
    assert counts(chosen, "interaction_group") == dict.fromkeys(GROUPS, 10)
    assert set(counts(chosen, "region").values()) == {4}
    assert set(Counter(c.portrait for c in chosen).values()) == {5}
    types = counts(chosen, "interaction_type")
    assert types["kissed"] == types["caressed"] == 5
    assert sorted(types[t] for t in TYPES if VOCABULARY.group_of(t) == "aggressive") == [2] * 5


def test_another_seed_chooses_others() -> None:
    portraits = [portrait(f"p{i}", list(REGIONS[:10]), TYPES) for i in range(8)]
    assert triples(choose(portraits, 40, 0)) != triples(choose(portraits, 40, 1))


def test_a_portrait_without_reactions_is_passed_over() -> None:
    assert choose([{"sample_id": "a", "reactions": None}, {"sample_id": "b", "reactions": []}], 5, 0) == []
