"""Region points against 51 pictures labelled by eye, and against cuts of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from backends.bodies.hair_segmenter import HeadMaskHair
from backends.bodies.pose import MediaPipeHolistic
from backends.faces.face_detector import CenterFace
from backends.language.vision_language_model import MeasuredAnswers
from media.decode import Decoded
from prompts.vocabulary import REGIONS
from stages.clip import Clip
from stages.people import People
from stages.regions import Regions
from tests.support.region_marks import MARKED
from tests.truth.make_regions import WHOLE, Image, Truth, bottoms, cut, face_height, first_frame, truths

# How far a right point may be from its mark, face heights (chin to hairline), and in pictures: labels were
# read to 1 % of one.
NEAR: Mapping[str, float] = {
    **{"nose": 0.15, "mouth": 0.17, "eye": 0.12, "face": 0.22, "ear": 0.2, "neck": 0.25},
    **{
        "shoulder": 0.35,
        "chest": 0.35,
        "abdomen": 0.45,
        "elbow": 0.35,
        "hand": 0.35,
        "thigh": 0.5,
        "calf": 0.5,
    },
}
READ_TO = 0.015
LABELLED = [name for name in truths() if name not in MARKED]


def part(region: str) -> str:
    return region.removeprefix("left_").removeprefix("right_")


class Finder:
    """Regions of a picture by the stages of the portraits pipeline, both looking at 720 lines."""

    def __init__(self) -> None:
        self.people = People(CenterFace(), MediaPipeHolistic())
        self.regions = Regions(MeasuredAnswers(), HeadMaskHair())
        self.people.setup()
        self.regions.setup()

    def __call__(self, image: Image, near: tuple[float, float] | None) -> np.ndarray:
        """Points [22, 3] of the person whose nose is nearest to `near`."""
        decoded = Decoded(frames={stage.sees[0]: ([0.0], [image]) for stage in (self.people, self.regions)})
        found = self.people.score(Clip(row={}, decoded=decoded))
        arrays = {key: found[key] for key in ("people_times", "people_keypoints")}
        points = self.regions.score(Clip(row={}, decoded=decoded, arrays=arrays))["region_points"]
        if near is None or len(points) == 1:
            return np.asarray(points[0])
        noses = np.nan_to_num(points[:, REGIONS.index("nose"), :2], nan=9)
        return np.asarray(points[np.linalg.norm(noses - near, axis=1).argmin()])


@pytest.fixture(scope="module")
def find() -> Finder:
    return Finder()


def judged(points: np.ndarray, truth: Truth, width: int, height: int) -> Iterator[tuple[str, str]]:
    """Each decided region but hair, with `right`, `wrong`, `hidden` (claimed), `missed` or `absent`."""
    face = face_height(truth, width, height)
    for region, at in truth.items():
        if region == "hair":
            continue
        x, y, confidence = points[REGIONS.index(region)]
        if confidence <= 0 or at is None:
            yield region, "missed" if at else "hidden" if confidence > 0 else "absent"
        else:
            off = float(np.hypot((x - at[0]) * width, (y - at[1]) * height))
            limit = max(NEAR[part(region)] * face, READ_TO * max(width, height))
            yield region, "right" if off <= limit else "wrong"


def test_labelled_pictures(samples: Path, find: Finder) -> None:
    counts: dict[str, Counter[str]] = {}
    for name in LABELLED:
        image, truth = first_frame(samples / name), truths()[name]
        height, width = image.shape[:2]
        for region, verdict in judged(find(image, truth.get("nose")), truth, width, height):
            counts.setdefault(part(region), Counter())[verdict] += 1
    print({region: dict(count) for region, count in counts.items()})

    def precision(count: Counter[str]) -> float:
        return count["right"] / (count["right"] + count["wrong"] + count["hidden"])

    def recall(count: Counter[str]) -> float:
        return count["right"] / (count["right"] + count["wrong"] + count["missed"])

    everything = sum(counts.values(), Counter())
    assert precision(everything) >= 0.94  # measured: 458 of 482
    assert recall(everything) >= 0.85  # measured: 458 of 525
    assert precision(counts["chest"]) >= 0.85  # measured: 30 of 33
    assert recall(counts["chest"]) >= 0.8  # measured: 30 of 35
    assert precision(counts["neck"]) >= 0.95  # measured: 45 of 46
    assert recall(counts["neck"]) >= 0.9  # measured: 45 of 47


def test_the_trunk_is_claimed_while_it_is_in_the_picture(samples: Path, find: Finder) -> None:
    counts = {"chest": Counter[str](), "abdomen": Counter[str]()}
    for name in WHOLE:
        image, truth = first_frame(samples / name), truths()[name]
        for bottom in bottoms(image, truth).values():
            upper, seen = cut(image, truth, (0, 0, 1, bottom))
            if seen.get("nose") is None:
                continue
            out = find(upper, seen["nose"])
            for region, count in counts.items():
                if region in seen:
                    claimed = bool(out[REGIONS.index(region), 2] > 0)
                    count[
                        f"{'claimed' if claimed else 'left out'}, {'seen' if seen[region] else 'hidden'}"
                    ] += 1
    print(counts)
    chest, abdomen = counts["chest"], counts["abdomen"]
    # Measured: of 41 chests in the picture all, of 22 outside none; of 19 navels 12, of 44 outside two.
    assert chest["left out, seen"] <= 1
    assert chest["claimed, hidden"] <= 2
    assert abdomen["claimed, seen"] >= 10
    assert abdomen["claimed, hidden"] <= 2
