"""The page of a validation: every measure, and what is wrong in pictures."""

from __future__ import annotations

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image, ImageDraw

from manifests import storage
from media.crop import Crop
from media.decode import still
from media.files import PICTURE_SUFFIXES, local_copy, local_path
from media.picture import read_picture, smaller
from pipelines.validate.claims import Judged, Row
from pipelines.validate.measures import METRICS, Measure
from pipelines.validate.validate import Disagreement, Validation, wrong_first

SHOWN = 60  # wrong answers of each claim
SHORT_SIDE = 240  # px
TRUE, SAID = (40, 160, 70), (220, 40, 40)


def write_page(
    validation: Validation, path: Path, title: str, against: str = "", differ: Sequence[Disagreement] = ()
) -> None:
    """Write `validation.html`.

    Args:
        validation: what was found.
        path: of the page.
        title: what was run.
        against: what the other run was, where two are compared.
        differ: labels that the two answer differently.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((resources.files("pipelines.validate") / "page.html").read_text())
    claims: dict[str, list[Measure]] = defaultdict(list)
    for one in validation.measures:
        claims[one.claim].append(one)
    wrong = wrong_first(validation.judged)
    shown = {claim: [x for x in wrong if x.label.claim == claim] for claim in claims}
    html = template.render(
        title=title,
        claims=claims,
        metrics={name: meaning for name, (meaning, _) in METRICS.items()},
        wrong=Counter(one.label.claim for one in wrong),
        cards={claim: [_card(x) for x in of[:SHOWN]] for claim, of in shown.items()},
        absent=validation.absent,
        against=against,
        differ=[_difference(one) for one in differ],
    )
    storage.write_bytes(path, html.encode("utf-8", "replace"))


def _card(one: Judged) -> dict[str, Any]:
    label = one.label
    return {
        "media": label.media,
        "outcome": one.outcome,
        "said": one.said,
        "true": _truth(one),
        "note": label.note,
        "picture": _picture(one),
    }


def _truth(one: Judged) -> str:
    label = one.label
    parts = [label.value]
    if label.start_s is not None or label.end_s is not None:
        end = "the end" if label.end_s is None else f"{label.end_s:g} s"
        parts.append(f"{label.start_s or 0:g} s to {end}")
    if label.x is not None:
        parts.append(f"{label.x:.3f}, {label.y:.3f}")
    elif label.claim == "region":
        parts.append("not visible")
    return ", ".join(parts)


def _difference(one: Disagreement) -> dict[str, str]:
    return {
        "media": one.label.media,
        "claim": one.label.claim,
        "true": _truth(one.here),
        "here": f"{one.here.said} ({one.here.outcome})",
        "there": f"{one.there.said} ({one.there.outcome})",
    }


def _picture(one: Judged) -> str | None:
    """A JPEG in base64 of the moment the label or the answer is about; None where it cannot be read."""
    row = one.row
    if row is None or local_path(row["source_uri"]) is None:
        return None  # a page must not download the data set
    try:
        with local_copy(row["source_uri"]) as path:
            image = Image.fromarray(_frame(one, row, path))
        _mark(image, one.label.x, one.label.y, TRUE)
        _mark(image, *_said_point(one, row), SAID)
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=75)
    except Exception:  # a picture that cannot be made must not end a validation that is done
        return None
    return base64.b64encode(sink.getvalue()).decode()


def _frame(one: Judged, row: Row, path: Path) -> Any:
    crop = Crop.of(row)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return smaller(read_picture(path, crop=crop), SHORT_SIDE)
    start, end = one.label.start_s, one.label.end_s
    if start is None and one.label.claim == "touch" and one.said_s:
        start = (row["start_s"] or 0.0) + row["contact_start_s"]
        end = start + row["contact_seconds"]
    if start is None:
        return still(path, row["start_s"] or 0.0, SHORT_SIDE, crop)
    return still(path, start if end is None else (start + end) / 2, SHORT_SIDE, crop)


def _said_point(one: Judged, row: Row) -> tuple[float | None, float | None]:
    if one.label.claim == "region":
        for region in row["regions"] or ():
            if region["region"] == one.label.value:
                return region["x"], region["y"]
    return None, None


def _mark(image: Image.Image, x: float | None, y: float | None, colour: tuple[int, int, int]) -> None:
    if x is not None and y is not None:
        at = (x * image.width, y * image.height)
        ImageDraw.Draw(image).circle(at, 5, fill=colour, outline="white")
