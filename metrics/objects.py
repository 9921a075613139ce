"""Boxes of objects and spans of contact, as the input list gives them, and which boxes are one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from backends.language.chat_completion import shown

OBJECT_BOXES, CONTACT_SPANS = "object_boxes", "contact_spans"
# A box joins the track whose last one it overlaps by this share of their union, or whose middle is no further
# off than this many diagonals of the larger box, so that a small fast thing is followed, too.
_OVERLAP, _DIAGONALS = 0.3, 2.0
# A track may miss its object for so long, s.
_GAP_S = 1.0
_Share = Annotated[float, Field(ge=-1, le=2)]


class ObjectBox(BaseModel):
    """One object at one moment.

    Attributes:
        name: of the object, such as the text has it.
        t: s on the clip's clock.
        box: x0, y0, x1, y1 as shares of width and height, origin top left; may reach out of the picture.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    name: str
    t: float = Field(ge=0)
    box: tuple[_Share, _Share, _Share, _Share]

    @model_validator(mode="after")
    def _has_area(self) -> ObjectBox:
        x0, y0, x1, y1 = self.box
        if x0 >= x1 or y0 >= y1:
            raise ValueError("a box is x0, y0, x1, y1 with x0 < x1 and y0 < y1")
        return self


_BOXES = TypeAdapter(list[ObjectBox])
_SPANS = TypeAdapter(list[tuple[float, float]])


def object_boxes(row: Mapping[str, Any]) -> list[ObjectBox] | None:
    """What column `object_boxes` says, in order of time; None: nobody looked for objects.

    Raises:
        ValueError: it is not the JSON that it should be.
    """
    example = '[{"name": "cup", "t": 0.5, "box": [0.1, 0.2, 0.3, 0.4]}]'
    boxes: list[ObjectBox] | None = _read(_BOXES, row, OBJECT_BOXES, example)
    return None if boxes is None else sorted(boxes, key=lambda each: each.t)


def contact_spans(row: Mapping[str, Any]) -> list[tuple[float, float]] | None:
    """What column `contact_spans` says, s; None: the whole clip.

    Raises:
        ValueError: it is not the JSON that it should be.
    """
    spans: list[tuple[float, float]] | None = _read(_SPANS, row, CONTACT_SPANS, "[[0.5, 2.0]]")
    for start, end in spans or []:
        if not 0 <= start <= end:
            raise ValueError(
                f"column {CONTACT_SPANS}: a span is [start, end] in seconds, got [{start}, {end}]"
            )
    return spans


def _read(kind: TypeAdapter[Any], row: Mapping[str, Any], column: str, example: str) -> Any:
    text = row.get(column)
    if text is None:
        return None
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"{where}: {first['msg']}" if where else first["msg"]
    raise ValueError(
        f"column {column} of the input list: {shown(problem)}; it has to be JSON such as {example}"
    )


def boxes_at(
    boxes: Sequence[ObjectBox], times: npt.NDArray[np.float64], apart_s: float
) -> list[list[ObjectBox]]:
    """For each of these moments the boxes of the nearest moment that has any.

    Args:
        boxes: in order of time.
        times: [T], s.
        apart_s: a moment further off shows no object.

    Returns:
        T lists.
    """
    known = np.array(sorted({each.t for each in boxes}))
    out: list[list[ObjectBox]] = []
    for time in times:
        near = known[np.abs(known - time).argmin()] if len(known) else np.inf
        out.append([b for b in boxes if b.t == near] if abs(near - time) <= apart_s + 1e-6 else [])
    return out


def apart(boxes: Sequence[ObjectBox], times: npt.NDArray[np.float64]) -> float:
    """How far boxes may be from a moment, s: half the longer interval, of the moments or of the boxes."""
    steps = [
        float(np.median(np.diff(each)))
        for each in (np.asarray(times), np.array(sorted({b.t for b in boxes})))
        if len(each) > 1
    ]
    return max(steps, default=1.0) / 2


def tracks(
    seen: Sequence[Sequence[ObjectBox]], times: npt.NDArray[np.float64]
) -> list[dict[int, npt.NDArray[np.float64]]]:
    """Boxes of one object each.

    Two things of one name are told apart by where they are: pairs of a track and a box are joined in order of
    overlap, then of distance.

    Args:
        seen: boxes of T moments.
        times: [T], s.

    Returns:
        For each object moment's index -> box, [4].
    """
    found: list[tuple[str, dict[int, npt.NDArray[np.float64]]]] = []
    for i, boxes in enumerate(seen):
        here = [(b.name.strip().lower(), np.array(b.box)) for b in boxes]
        pairs = [
            (_cost(track[max(track)], box), t, k)
            for t, (name, track) in enumerate(found)
            for k, (other, box) in enumerate(here)
            if name == other and times[i] - times[max(track)] <= _GAP_S + 1e-6
        ]
        taken: set[int] = set()
        for cost, t, k in sorted(pairs):
            if np.isfinite(cost) and k not in taken and i not in found[t][1]:
                found[t][1][i] = here[k][1]
                taken.add(k)
        found += [(name, {i: box}) for k, (name, box) in enumerate(here) if k not in taken]
    return [track for _, track in found]


def _cost(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Less is nearer: below 0 for boxes that overlap enough, infinite for those too far off."""
    shared = np.prod(np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (one, other)]
    overlap = float(shared) / (sum(areas) - float(shared))
    if overlap >= _OVERLAP:
        return -overlap
    size = max(float(np.hypot(*(box[2:] - box[:2]))) for box in (one, other))
    away = float(np.hypot(*((one[:2] + one[2:] - other[:2] - other[2:]) / 2))) / size
    return away if away <= _DIAGONALS else np.inf
