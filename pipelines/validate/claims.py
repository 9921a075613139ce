"""One answer of a manifest against one label."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from configs.reading import nearest
from pipelines.validate.labels import Label, LabelError
from prompts.vocabulary import REGIONS

Row = Mapping[str, Any]
Outcome = Literal["right", "wrong", "missed", "unanswered", "measured"]
YES, NO = ("yes", "true"), ("no", "false")
# A point within this of the labelled one is right, in heights of the face: a palm is half a face long.
POINT_TOLERANCE = {
    **{"eye": 0.12, "nose": 0.15, "mouth": 0.17, "ear": 0.2, "face": 0.22, "neck": 0.25, "hair": 0.8},
    **{"chest": 0.35, "shoulder": 0.35, "elbow": 0.35, "hand": 0.35},
    **{"abdomen": 0.45, "thigh": 0.5, "calf": 0.5},
}
CUT_TOLERANCE = 0.2  # s


@dataclass(frozen=True)
class Judged:
    """A label and what the manifest says of it.

    Attributes:
        label: the label.
        group: what is true, where a claim has several words or regions; "" otherwise.
        outcome: right or wrong; missed: there is something and nothing is claimed; unanswered: null;
            measured: a number that no tolerance makes right or wrong.
        said: the answer, for people.
        said_group: the word or region that is claimed, as `group`.
        is_claim: the manifest claims that there is something.
        is_there: the label says that there is something.
        error: said less true, in the claim's unit; None where it has none.
        score: a number that is higher where the label says yes; None where the claim has none.
        said_s, true_s, shared_s: seconds claimed, labelled and both.
        row: of the manifest; None: the file is not in it.
    """

    label: Label
    group: str
    outcome: Outcome
    said: str
    said_group: str = ""
    is_claim: bool = False
    is_there: bool = False
    error: float | None = None
    score: float | None = None
    said_s: float = 0.0
    true_s: float = 0.0
    shared_s: float = 0.0
    row: Row | None = None


def judge(labels: Sequence[Label], row: Row, reasons: Mapping[str, Collection[str]]) -> list[Judged]:
    """All labels of one claim about one row.

    Args:
        labels: of this row and of one claim, at least one.
        row: of the manifest.
        reasons: of the screen's rules, and the columns that each goes by.

    Raises:
        LabelError: the claim is not known, or a label's value does not fit it.
    """
    claim = labels[0].claim
    if claim in SPECIAL:
        column, by = SPECIAL[claim]
        if column not in row:
            raise LabelError(
                f"{labels[0].where}: {claim!r} needs the column {column!r}, which this run has not"
            )
        return by(labels, row)
    if claim in row:
        return [_column(label, row, row[claim]) for label in labels]
    if claim in reasons:
        return [_yes_or_no(label, row, _fell(row, claim, reasons[claim])) for label in labels]
    raise LabelError(
        f"{labels[0].where}: {claim!r} is no column of this manifest, no reason of its screen, and none of "
        f"{', '.join(SPECIAL)}"
    )


def _fell(row: Row, reason: str, columns: Collection[str]) -> bool | None:
    """Whether a sample fell by a rule; None where it never came to be judged by it."""
    said = row["drop_reasons"]
    if said is None:
        return None
    if reason in said:
        return True
    unjudged = ("stopped:", "error:", *(f"missing:{column}" for column in columns))
    return None if any(one.startswith(unjudged) for one in said) else False


def _column(label: Label, row: Row, said: Any) -> Judged:
    """A column's number, word, or yes or no.

    Raises:
        LabelError: it holds something else, or the label's value is of another kind.
    """
    if said is not None and not isinstance(said, bool | int | float | str):
        raise LabelError(f"{label.where}: {label.claim} holds no single word or number, so no label fits it")
    is_yes_or_no = label.value.lower() in (*YES, *NO)
    if isinstance(said, str) and is_yes_or_no and said.lower() not in (*YES, *NO):
        raise LabelError(
            f"{label.where}: {label.claim} is text such as {said[:40]!r}; label it with the text"
        )
    if isinstance(said, bool) or (is_yes_or_no and not isinstance(said, str)):
        if said is None or isinstance(said, bool):
            return _yes_or_no(label, row, said)
        # A score is judged by how it orders labels, not each by itself.
        there = _is_yes(label)
        return Judged(label, "", "measured", f"{said:.3g}", is_there=there, score=float(said), row=row)
    if said is None:
        return Judged(label, _group(label), "unanswered", "null", is_there=True, row=row)
    if isinstance(said, int | float):
        error = float(said) - _as_number(label)
        if label.tolerance is None:
            return Judged(label, "", "measured", f"{said:.3g}", error=error, row=row)
        is_right = abs(error) <= label.tolerance
        return _answer(label, "", is_right, f"{said:.3g}", "", error, row)
    is_right = str(said) in label.values
    group = str(said) if is_right else _group(label)
    return _answer(label, group, is_right, str(said), str(said), None, row)


def _answer(
    label: Label, group: str, is_right: bool, said: str, said_group: str, error: float | None, row: Row
) -> Judged:
    """A claim that something is so, where something is."""
    outcome: Outcome = "right" if is_right else "wrong"
    return Judged(label, group, outcome, said, said_group, True, True, error, row=row)


def _group(label: Label) -> str:
    try:
        float(label.value)
    except ValueError:
        return label.values[0]
    return ""


def _as_number(label: Label) -> float:
    try:
        return float(label.value)
    except ValueError:
        raise LabelError(f"{label.where}: {label.claim} is a number, {label.value!r} is none") from None


def _is_yes(label: Label) -> bool:
    if label.value.lower() not in (*YES, *NO):
        raise LabelError(f"{label.where}: {label.claim} is answered by yes or no, not by {label.value!r}")
    return label.value.lower() in YES


def _yes_or_no(label: Label, row: Row, said: bool | None) -> Judged:
    there = _is_yes(label)
    if said is None:
        return Judged(label, "", "unanswered", "null", is_there=there, row=row)
    outcome: Outcome = "right" if said == there else "missed" if there else "wrong"
    return Judged(label, "", outcome, "yes" if said else "no", "", said, there, row=row)


def _regions(labels: Sequence[Label], row: Row) -> list[Judged]:
    """Each labelled region: its point, or that it is hidden."""
    for label in labels:
        _part(label)
    if row["regions"] is None:
        return [Judged(x, x.value, "unanswered", "null", is_there=x.x is not None, row=row) for x in labels]
    said = {region["region"]: region for region in row["regions"]}
    return [_region(label, row, said.get(label.value)) for label in labels]


def _part(label: Label) -> str:
    """The region without its side.

    Raises:
        LabelError: there is no such region.
    """
    part = label.value.removeprefix("left_").removeprefix("right_")
    if part not in POINT_TOLERANCE:
        raise LabelError(f"{label.where}: there is no region {label.value!r}{nearest(label.value, REGIONS)}")
    return part


def _region(label: Label, row: Row, said: Mapping[str, Any] | None) -> Judged:
    if said is None:
        outcome: Outcome = "right" if label.x is None else "missed"
        return Judged(label, label.value, outcome, "not visible", is_there=label.x is not None, row=row)
    text = f"{said['x']:.3f}, {said['y']:.3f}"
    if label.x is None or label.y is None:
        return Judged(label, label.value, "wrong", text, label.value, True, row=row)
    # In heights of the face, so that a tight and a wide picture are held to the same.
    away = math.hypot((said["x"] - label.x) * row["width"], (said["y"] - label.y) * row["height"])
    if not row.get("face_height_px"):
        return Judged(label, label.value, "unanswered", f"{text}, no face", is_there=True, row=row)
    error = away / row["face_height_px"]
    limit = POINT_TOLERANCE[_part(label)] if label.tolerance is None else label.tolerance
    return _answer(label, label.value, error <= limit, text, label.value, error, row)


def _touch(labels: Sequence[Label], row: Row) -> list[Judged]:
    """The touch of a clip, which claims at most one: right where it lies in a labelled one of that region.

    By the region alone where the manifest does not know when: a language model found it, and no hand was
    measured there.
    """
    for label in labels:
        for value in label.values:
            if value != "none" and value not in REGIONS:
                raise LabelError(
                    f"{label.where}: there is no region {value!r}{nearest(value, (*REGIONS, 'none'))}"
                )
    told = [label for label in labels if label.value != "none"]
    if row["interaction_found"] is None:
        label = told[0] if told else labels[0]
        return [Judged(label, "", "unanswered", "null", is_there=bool(told), row=row)]
    if not row["interaction_found"]:
        if not told:
            return [Judged(labels[0], "", "right", "none", row=row)]
        longest = max(told, key=_seconds)
        return [Judged(longest, "", "missed", "none", is_there=True, true_s=_seconds(longest), row=row)]
    region = row["interaction_region"]
    of_region = [label for label in told if region in label.values]
    if row.get("contact_start_s") is None or row.get("contact_region") != region:
        label = (of_region or told or labels)[0]
        outcome: Outcome = "right" if of_region else "wrong"
        return [Judged(label, "", outcome, region, "", True, bool(told), row=row)]
    start = row["contact_start_s"] + (row["start_s"] or 0.0)
    end = start + (row["contact_seconds"] or 0.0)
    said = f"{region} {start:.1f}-{end:.1f} s"
    if not told:
        return [Judged(labels[0], "", "wrong", said, "", True, said_s=end - start, row=row)]
    meets = [x for x in of_region if _overlap(x, start, end) >= 0]
    label = max(meets or of_region or told, key=lambda x: _overlap(x, start, end))
    both = max(0.0, _overlap(label, start, end)) if meets else 0.0
    outcome = "right" if meets else "wrong"
    judged = Judged(label, "", outcome, said, "", True, True, row=row)
    if label.end_s is None:  # nobody knows how many seconds are right
        return [judged]
    return [replace(judged, said_s=end - start, true_s=_seconds(label), shared_s=both)]


def _seconds(label: Label) -> float:
    return (label.end_s or 0.0) - (label.start_s or 0.0) if label.end_s is not None else 0.0


def _overlap(label: Label, start: float, end: float) -> float:
    """Seconds that two have in common; below 0 they lie so far apart."""
    return min(end, label.end_s if label.end_s is not None else end) - max(start, label.start_s or 0)


def _cuts(labels: Sequence[Label], row: Row) -> list[Judged]:
    """Whether a clip has a cut, and where."""
    found = row["shot_starts"]
    if found is None:
        return [Judged(x, "", "unanswered", "null", is_there=_is_yes(x), row=row) for x in labels]
    cuts = [float(start) + (row["start_s"] or 0.0) for start in found[1:]]
    said = ", ".join(f"{cut:.2f} s" for cut in cuts) or "none"
    out = []
    for label in labels:
        there, at = _is_yes(label), label.start_s
        limit = CUT_TOLERANCE if label.tolerance is None else label.tolerance
        until = at if label.end_s is None else label.end_s
        is_found = any(at is None or until is None or at - limit <= cut <= until + limit for cut in cuts)
        outcome: Outcome = "right" if is_found == there else "missed" if there else "wrong"
        out.append(Judged(label, "", outcome, said, "", is_found, there, row=row))
    return out


# Claims that are more than one column: the one that they cannot do without, and how they are judged.
SPECIAL: Mapping[str, tuple[str, Callable[[Sequence[Label], Row], list[Judged]]]] = {
    "region": ("regions", _regions),
    "touch": ("interaction_found", _touch),
    "cut": ("shot_starts", _cuts),
}
