"""The people of a collection: clips of one person each, grouped by the embedding of their face.

docs/collections.md says how, and how well on labelled clips.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.collection.faces import Faces, read_faces
from pipelines.collection.linkage import (
    BLOCK,
    Floats,
    Groups,
    Ints,
    Marks,
    differ,
    nearest,
    nearest_others,
    unit,
)
from pipelines.collection.ranks import RANK, with_ranks
from pipelines.collection.runs import RUN, CollectedRun
from pipelines.engine.source import InputError

PERSON: Final = ("person",)  # the key, among marks of groups, of a person that was found before


@dataclass(frozen=True)
class Threshold:
    """How like the faces of one person are, by one embedder.

    cosine: least mean cosine of two groups of clips that are one person. source: where it is from.
    """

    cosine: float
    source: str


# By how the embedder's id begins.
THRESHOLDS: Mapping[str, Threshold] = {
    "dlib-resnet-v1": Threshold(
        0.95, "measured on labelled clips: docs/collections.md; dlib's own distance of 0.6 is cosine 0.91"
    ),
    "arcface(": Threshold(
        0.45,
        "DeepFace's for buffalo_l, cosine distance 0.55 (deepface/modules/verification.py); not measured",
    ),
}

PEOPLE_SCHEMA = pa.schema(
    [
        ("person_id", pa.string()),
        ("clips", pa.int64()),
        ("kept", pa.int64()),
        ("seconds", pa.float64()),
        ("runs", pa.list_(pa.string())),
        ("sources", pa.list_(pa.string())),
        ("identities", pa.list_(pa.string())),
        ("gender", pa.string()),
        ("likeness", pa.float64()),
        ("likeness_min", pa.float64()),
        ("nearest_person", pa.string()),
        ("nearest_likeness", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Quality:
    """How well the people are told apart.

    within: 5th percentile of the cosine of a clip and the mean of the other clips of its person; None: each
    person has one clip. between: 95th percentile of that of a clip and the nearest other person; None:
    there is one person. astray: clips that are nearer to another person than to the others of their own.
    """

    within: float | None
    between: float | None
    astray: int


@dataclass(frozen=True)
class People:
    """What was found of the people of a collection.

    found: `sample_id`, `RUN`, `person_id`, `person_similarity`, `person_rank` of every row with a person.
    people: one row a person, by `PEOPLE_SCHEMA`, those with most clips first.
    rows, without: rows of the collection, and how many have no person, by the reason.
    embedder, threshold: of the faces. quality: of the groups.
    alike: pairs of people of before that look like one by now.
    said_to_differ: pairs of people that look like one, but have other names in one data set.
    unlike: data set and name of those whose clips, all together, do not look like one person.
    torn: data set and name of those who are several people of before.
    mixed: people of before with several names of one data set.
    in_two: samples that are one person in one run, and another in another.
    """

    found: pa.Table
    people: pa.Table
    rows: int
    without: Mapping[str, int]
    embedder: str
    threshold: Threshold
    quality: Quality
    alike: Sequence[tuple[str, str]]
    said_to_differ: Sequence[tuple[str, str]]
    unlike: Sequence[tuple[str, str]]
    torn: Sequence[tuple[str, str]]
    mixed: Sequence[str]
    in_two: int


def find_people(
    runs: Sequence[CollectedRun],
    threshold: float | None = None,
    again: bool = False,
    told: Callable[[str], None] = lambda line: None,
) -> People:
    """Who is in the clips of a collection; writes nothing.

    The same whatever the order of the runs and of their rows.

    Args:
        runs: of the collection.
        threshold: least mean cosine of the clips of one person; None: the embedder's of `THRESHOLDS`.
        again: form all people anew; else a clip that has a person keeps it, and only the others get one.
        told: is told how far it is.

    Raises:
        InputError: there is no face embedding, or there are those of several embedders, or of one whose
            threshold is not known.
        ValueError, FileNotFoundError: stored arrays are damaged or gone.
    """
    faces = read_faces(runs, again, told)
    chosen = _threshold(faces.embedder, threshold)
    of, marks, torn = _starting_groups(faces)
    groups = Groups(faces.vectors, of, marks)
    unlike = _unlike(groups, chosen.cosine)
    pairs = groups.join(chosen.cosine, lambda count: told(f"{count} people"))
    names = _names(faces, groups)
    alike: list[tuple[str, str]] = []
    said_to_differ: list[tuple[str, str]] = []
    for one, other in pairs.tolist():
        by_the_source = differ(_identities(groups.marks[one]), _identities(groups.marks[other]))
        (said_to_differ if by_the_source else alike).append((names[one], names[other]))
    means = unit(groups.means)
    similarity = np.einsum("ij,ij->i", faces.vectors, means[groups.of])
    found = with_ranks(runs, faces, _found(faces, groups.of, names, similarity))
    people, mixed = _people(runs, faces, groups, names, means, similarity, found)
    return People(
        found=found,
        people=people,
        rows=sum(table.num_rows for table in faces.tables),
        without=faces.without,
        embedder=faces.embedder,
        threshold=chosen,
        quality=_quality(faces.vectors, groups, means),
        alike=alike,
        said_to_differ=said_to_differ,
        unlike=unlike,
        torn=torn,
        mixed=mixed,
        in_two=faces.in_two,
    )


def _threshold(embedder: str, given: float | None) -> Threshold:
    if given is not None:
        return Threshold(given, "--threshold")
    for begin, threshold in THRESHOLDS.items():
        if embedder.startswith(begin):
            return threshold
    raise InputError(
        f"it is not known how like two faces of one person are by {embedder}: measure it on labelled clips, "
        "and give --threshold"
    )


def _starting_groups(faces: Faces) -> tuple[Ints, dict[int, dict[Hashable, Hashable]], list[tuple[str, str]]]:
    """The clips that are together whatever they look like, what keeps such groups apart, and `People.torn`.

    Together are the clips of a person of before, and those of one name of a data set. A new clip of a name
    goes to the person of before who has most clips of that name.
    """
    persons_of: dict[tuple[str, str], Counter[str]] = {}
    for person, identity in zip(faces.persons, faces.identities, strict=True):
        if person is not None and identity is not None:
            persons_of.setdefault(identity, Counter())[person] += 1
    torn = sorted(identity for identity, persons in persons_of.items() if len(persons) > 1)
    most = {
        identity: min(persons, key=lambda name: (-persons[name], name))
        for identity, persons in persons_of.items()
    }
    numbers: dict[Hashable, int] = {}
    of = np.empty(len(faces.ids), np.int64)
    marks: dict[int, dict[Hashable, Hashable]] = {}
    for place, (person, identity) in enumerate(zip(faces.persons, faces.identities, strict=True)):
        person = person or (most.get(identity) if identity else None)
        key: Hashable = (PERSON, person) if person else identity or place
        number = of[place] = numbers.setdefault(key, len(numbers))
        if person:
            marks.setdefault(number, {})[PERSON] = person
        if identity:
            source, name = identity
            marks.setdefault(number, {}).setdefault(source, name)
    return of, marks, torn


def _identities(marks: Marks) -> dict[Hashable, Hashable]:
    return {key: value for key, value in marks.items() if key != PERSON}


def _unlike(groups: Groups, threshold: float) -> list[tuple[str, str]]:
    """Names of a data set whose clips are less like than one person's."""
    inner = groups.inner_likeness()
    named = [number for number, marks in groups.marks.items() if PERSON not in marks]
    pairs = (next(iter(groups.marks[number].items())) for number in named if inner[number] < threshold)
    return sorted((str(source), str(name)) for source, name in pairs)


def _names(faces: Faces, groups: Groups) -> list[str]:
    """The id of each person: that of before, or one made of the id of the first clip."""
    first = np.unique(groups.of, return_index=True)[1]
    of_before = {number: str(marks[PERSON]) for number, marks in groups.marks.items() if PERSON in marks}
    taken = set(of_before.values())
    names = []
    for number, place in enumerate(first.tolist()):
        names.append(of_before.get(number) or _new_name(faces.ids[place], taken))
        taken.add(names[-1])
    return names


def _new_name(sample_id: str, taken: Collection[str]) -> str:
    name, text = "", sample_id
    while not name or name in taken:  # taken where that clip has left a person who goes on without it
        name, text = f"person-{hashlib.sha256(text.encode()).hexdigest()[:16]}", f"{text}+"
    return name


def _found(faces: Faces, of: Ints, names: Sequence[str], similarity: Floats) -> pa.Table:
    """One row for every row with a person, and as `row` its number in the table of its run."""
    places = np.array([place for place, rows in enumerate(faces.rows) for _ in rows], np.int64)
    return pa.table(
        {
            "sample_id": pa.array(faces.ids, pa.string()).take(pa.array(places)),
            RUN: pa.array([number for rows in faces.rows for number, _ in rows], pa.int32()),
            "row": pa.array([row for rows in faces.rows for _, row in rows], pa.int64()),
            "person_id": pa.array(names, pa.string()).take(pa.array(of[places])),
            "person_similarity": pa.array(similarity[places].astype(np.float64)),
        }
    )


def _quality(vectors: Floats, groups: Groups, means: Floats) -> Quality:
    """How well clips fit to their people."""
    several = np.flatnonzero(groups.sizes[groups.of] > 1)
    own = np.empty(len(several), np.float32)
    for start in range(0, len(several), BLOCK):
        some = several[start : start + BLOCK]
        number = groups.of[some]
        others = unit(groups.means[number] * groups.sizes[number, None] - vectors[some])
        own[start : start + BLOCK] = np.einsum("ij,ij->i", vectors[some], others)
    products, found = nearest(means, vectors, 2)
    other = np.where(found[:, 0] == groups.of, products[:, 1], products[:, 0])
    known = other[np.isfinite(other)]
    return Quality(
        within=float(np.percentile(own, 5)) if len(own) else None,
        between=float(np.percentile(known, 95)) if len(known) else None,
        astray=int((other[several] > own).sum()),
    )


def _people(
    runs: Sequence[CollectedRun],
    faces: Faces,
    groups: Groups,
    names: Sequence[str],
    means: Floats,
    similarity: Floats,
    found: pa.Table,
) -> tuple[pa.Table, list[str]]:
    """One row a person, and `People.mixed`."""
    kept = Counter(found.filter(pc.is_valid(found[RANK]))["person_id"].to_pylist())
    products, nearest_to = nearest_others(means, 1)
    inner = groups.inner_likeness()
    least = np.full(len(names), np.inf)
    np.minimum.at(least, groups.of, similarity)
    said = [{n: table[n].to_pylist() for n in ("source", "gender", "duration_s")} for table in faces.tables]
    people: list[dict[str, Any]] = [
        {"clips": 0, "seconds": 0.0, "runs": set(), "sources": set(), "identities": set(), "genders": set()}
        for _ in names
    ]
    for number, rows, identity in zip(groups.of.tolist(), faces.rows, faces.identities, strict=True):
        person = people[number]
        person["clips"] += 1
        person["seconds"] += max(said[run]["duration_s"][row] or 0.0 for run, row in rows)
        person["identities"] |= {identity} - {None}
        for run, row in rows:
            person["runs"].add(runs[run].name)
            person["sources"] |= {said[run]["source"][row]} - {None}
            person["genders"] |= {said[run]["gender"][row]} - {None, ""}
    mixed = []
    table = []
    for number, (name, person) in enumerate(zip(names, people, strict=True)):
        sources = [source for source, _ in person["identities"]]
        if len(set(sources)) < len(sources):
            mixed.append(name)
        genders, other = person["genders"], int(nearest_to[number, 0])
        table.append(
            {
                "person_id": name,
                "clips": person["clips"],
                "kept": kept[name],
                "seconds": person["seconds"],
                "runs": sorted(person["runs"]),
                "sources": sorted(person["sources"]),
                "identities": sorted(f"{source}: {said_name}" for source, said_name in person["identities"]),
                "gender": min(genders) if len(genders) == 1 else None,
                "likeness": None if np.isnan(inner[number]) else float(inner[number]),
                "likeness_min": float(least[number]),
                "nearest_person": names[other] if other >= 0 else None,
                "nearest_likeness": float(products[number, 0]) if other >= 0 else None,
            }
        )
    order = [("clips", "descending"), ("person_id", "ascending")]
    return pa.Table.from_pylist(table, schema=PEOPLE_SCHEMA).sort_by(order), sorted(mixed)
