"""Depiction: real pictures with their labels, the same ones degraded, and filtered photographs."""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data

from backends.faces.face_detector import CenterFace
from backends.language.vision_language_model import MeasuredAnswers
from backends.pictures.drawn import DrawnWeights, around, squares
from backends.pictures.image_classifier import NUM_CLASSES, EfficientNetLiteClassifier, animal_mass
from backends.pictures.image_embedder import EfficientNetLite
from media.decode import Decoded
from stages.clip import Clip
from stages.depiction import DRAWN_LIMIT, Depiction, depiction
from stages.faces import Faces
from stages.portrait import PortraitKind

Picture = np.ndarray
LABELS = {
    "facealign_grass": "no_person",
    "liveportrait_monkey": "animal",
    "liveportrait_painting": "painting",
}
SHORT_SIDE = 720


@dataclass
class Look:
    """The answer to one picture, and what it rests on."""

    answer: str
    score: dict
    box: np.ndarray


class Eye:
    """Face detector and stage, loaded once; looks at single pictures."""

    def __init__(self) -> None:
        self.detector = CenterFace()
        self.stage = Depiction(EfficientNetLiteClassifier())
        self.stage.setup()

    def look(self, image: Picture, box: np.ndarray | None = None) -> Look:
        """`box`: the face where the detector need not find it again, for instance under a filter."""
        image = fit(image, SHORT_SIDE)
        if box is None:
            boxes = self.detector.detect(image).boxes
            tallest = np.argmax(boxes[:, 3] - boxes[:, 1]) if len(boxes) else None
            box = np.full(4, np.nan, np.float32) if tallest is None else boxes[tallest]
        clip = Clip(
            row={},
            decoded=Decoded(frames={self.stage.sees[0]: ([0.0], [np.ascontiguousarray(image)])}),
            arrays={"face_times": np.zeros(1), "face_boxes": box[None]},
        )
        out = self.stage.score(clip)
        assert set(out) == set(Depiction.writes)
        people = int(np.isfinite(box).all())
        return Look(depiction(out["animal_probability"], out["drawn_probability"], people), out, box)


@pytest.fixture(scope="module")
def eye() -> Eye:
    return Eye()


@pytest.fixture(scope="module")
def pictures(samples: Path) -> dict[str, Picture]:
    """Every still of the samples by its name, RGB, at the size the stage sees: filters depend on it."""
    files = sorted((samples / "images").iterdir())
    return {file.stem: fit(cv2.imread(str(file))[..., ::-1], SHORT_SIDE) for file in files}


@pytest.fixture(scope="module")
def photographs(pictures: dict[str, Picture], eye: Eye) -> dict[str, tuple[Picture, np.ndarray]]:
    """Those that show real people, with the box of the tallest face."""
    return {name: (image, eye.look(image).box) for name, image in pictures.items() if name not in LABELS}


def fit(image: Picture, short_side: int) -> Picture:
    factor = min(1.0, short_side / min(image.shape[:2]))
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def jpeg(image: Picture, quality: int) -> Picture:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def grey(image: Picture) -> Picture:
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)


def sepia(image: Picture) -> Picture:
    """The usual sepia matrix."""
    mix = [[0.393, 0.349, 0.272], [0.769, 0.686, 0.534], [0.189, 0.168, 0.131]]
    return np.clip(image @ np.array(mix), 0, 255).astype(np.uint8)


def warm(image: Picture) -> Picture:
    """As in tungsten light."""
    return np.clip(image * np.array([1.15, 0.95, 0.6]), 0, 255).astype(np.uint8)


DEGRADED: dict[str, Callable[[Picture], Picture]] = {
    "grey": grey,
    "sepia": sepia,
    "warm": warm,
    "240 px": lambda image: fit(image, 240),
    "240 px enlarged": lambda image: cv2.resize(fit(image, 240), image.shape[1::-1]),
    "JPEG 30": lambda image: jpeg(image, 30),
    "JPEG 10": lambda image: jpeg(image, 10),
    "240 px JPEG 40": lambda image: jpeg(fit(image, 240), 40),
    "grey JPEG 20": lambda image: jpeg(grey(image), 20),
    "dark": lambda image: (image * 0.4).astype(np.uint8),
}


def test_every_still_has_its_label(samples: Path, decode_clip: Callable[..., Clip], eye: Eye) -> None:
    with (samples / "SOURCES.csv").open() as file:
        listed = [Path(row["file"]) for row in csv.DictReader(file) if row["file"].startswith("images/")]
    assert len(listed) == 17
    faces, answers, scores = Faces(eye.detector), {}, {}
    for path in listed:
        clip = decode_clip(samples / path, faces, eye.stage)
        found = faces.score(clip)
        arrays = {name: found[name] for name in ("face_times", "face_boxes")}
        out = eye.stage.score(Clip(row={}, decoded=clip.decoded, arrays=arrays))
        answers[path.stem] = depiction(
            out["animal_probability"], out["drawn_probability"], found["num_people"]
        )
        scores[path.stem] = out
    assert answers == {name: LABELS.get(name, "photo") for name in answers}
    # The margins.
    photos = [out for name, out in scores.items() if name not in LABELS]
    assert max(out["animal_probability"] for out in photos) < 0.3
    assert max(out["drawn_probability"] or 0 for out in photos) < DRAWN_LIMIT / 2
    assert scores["liveportrait_monkey"]["animal_probability"] > 0.95
    assert scores["liveportrait_painting"]["drawn_probability"] > 0.9


def test_pictures_from_elsewhere(eye: Eye) -> None:
    assert eye.look(skimage.data.astronaut()).answer == "photo"
    assert eye.look(skimage.data.chelsea()).answer == "animal"  # a cat; the detector sees no face
    assert eye.look(skimage.data.coffee()).answer == "no_person"


def test_frames_of_clips_are_photographs(samples: Path, eye: Eye) -> None:
    looks = []
    for path in sorted((samples / "videos").iterdir()):
        capture = cv2.VideoCapture(str(path))
        for share in (0.1, 0.6):
            capture.set(cv2.CAP_PROP_POS_FRAMES, int(capture.get(cv2.CAP_PROP_FRAME_COUNT) * share))
            read, frame = capture.read()
            if read:
                looks.append(eye.look(frame[..., ::-1]))
        capture.release()
    with_face = [look for look in looks if np.isfinite(look.box).all()]
    assert len(with_face) >= 36
    assert [look.answer for look in with_face].count("photo") == len(with_face)
    assert {look.answer for look in looks} == {"photo", "no_person"}


@pytest.mark.parametrize("name", DEGRADED)
def test_degraded_photographs_stay_photographs(
    photographs: dict[str, tuple[Picture, np.ndarray]], eye: Eye, name: str
) -> None:
    # The box comes from the clean picture: this is about the cues, not about the detector.
    wrong = {}
    for title, (image, box) in photographs.items():
        look = eye.look(DEGRADED[name](image), box)
        if look.answer != "photo":
            wrong[title] = (look.answer, look.score)
    assert len(photographs) == 14
    assert not wrong


@pytest.mark.parametrize("name", [name for name in DEGRADED if name != "sepia"])
def test_a_degraded_monkey_stays_an_animal(pictures: dict[str, Picture], eye: Eye, name: str) -> None:
    image = pictures["liveportrait_monkey"]
    assert eye.look(DEGRADED[name](image), eye.look(image).box).answer == "animal"


def in_bgr(apply: Callable[[Picture], Picture]) -> Callable[[Picture], Picture]:
    return lambda image: np.ascontiguousarray(apply(np.ascontiguousarray(image[..., ::-1]))[..., ::-1])


def few_colours(image: Picture) -> Picture:
    """Smoothed, then the nearest of twelve colours."""
    smooth = cv2.medianBlur(image, 9)
    cv2.setRNGSeed(0)
    pixels = cv2.resize(smooth, (64, 64)).reshape(-1, 3).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 10, 1.0)
    _, _, colours = cv2.kmeans(pixels, 12, None, stop, 1, cv2.KMEANS_PP_CENTERS)
    # |s - c|² without |s|², which is the same for all c
    distance = (colours**2).sum(1) - 2 * smooth.astype(np.float32) @ colours.T
    return colours[distance.argmin(2)].astype(np.uint8)


def pencil(image: Picture) -> Picture:
    return np.repeat(cv2.pencilSketch(image, shade_factor=0.05)[0][..., None], 3, 2)


# With the least share caught.
FILTERS: dict[str, tuple[Callable[[Picture], Picture], float]] = {
    "few colours": (few_colours, 0.9),
    "pencil": (in_bgr(pencil), 0.9),
    "stylised": (in_bgr(cv2.stylization), 0.9),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filtered_photographs_are_not_photographs(
    photographs: dict[str, tuple[Picture, np.ndarray]], eye: Eye, name: str
) -> None:
    apply, floor = FILTERS[name]
    looks = [eye.look(apply(image), box).score["drawn_probability"] for image, box in photographs.values()]
    measured = [score for score in looks if score is not None]
    assert len(measured) == 14
    assert np.mean(np.array(measured) >= DRAWN_LIMIT) >= floor


def test_a_worn_painting_stays_one(pictures: dict[str, Picture], eye: Eye) -> None:
    image = pictures["liveportrait_painting"]
    for worn in (image, jpeg(image, 60), grey(image), fit(image, 360)):
        assert eye.look(worn).answer == "painting"


def test_the_weights_say_where_they_are_from() -> None:
    listed = resources.files("backends.pictures") / "drawn_pictures.csv"
    provenance = json.loads(DrawnWeights().provenance)
    assert provenance["sha256_of_list"] == hashlib.sha256(listed.read_bytes()).hexdigest()
    said = {line.partition(":")[0]: line for line in provenance["held_out"]}
    shares = {}
    for kind, line in said.items():
        above, every = re.search(r": (\d+) of (\d+) above", line).groups()  # type: ignore[union-attr]
        shares[kind] = int(above) / int(every)
    assert shares["drawn"] >= 0.8 and shares["photo"] <= 0.02


def test_answers() -> None:
    assert depiction(0.49, 0.49, 1) == "photo"
    assert depiction(0.1, 0.5, 1) == depiction(0.1, 0.9, 3) == "painting"
    assert depiction(0.5, 0.9, 1) == depiction(0.9, None, 0) == "animal"
    assert depiction(0.1, 0.9, 0) == depiction(None, None, None) == "no_person"
    assert depiction(None, None, 1) == "photo"


def test_only_what_is_sure_stops_the_work() -> None:
    stage = PortraitKind(MeasuredAnswers())

    def stop(**row: Any) -> str | None:
        return stage.stop({"people_count": 1, "animal_probability": 0.0, "drawn_probability": 0.0} | row)

    assert stop(depiction="photo") is None and stop(depiction=None) is None
    assert stop(depiction="painting", drawn_probability=0.9) is None
    assert stop(depiction="painting", drawn_probability=None) is None  # a language model alone is not sure
    assert stop(depiction="painting", drawn_probability=0.96) == "painting, not a photograph of a person"
    assert stop(depiction="animal", animal_probability=0.6) is None
    assert stop(depiction="animal", animal_probability=0.99) == "animal, not a photograph of a person"
    assert stop(depiction="no_person", people_count=0) == "no_person, not a photograph of a person"
    assert stop(depiction="photo", people_count=3) == "3 people"


def test_a_face_that_is_missing_small_or_at_another_time(eye: Eye) -> None:
    image = skimage.data.astronaut()  # her face is 113 px high
    large = eye.look(image)
    assert large.score["drawn_probability"] < DRAWN_LIMIT
    assert large.score["animal_probability"] < 0.2
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert eye.look(small, large.box).score["drawn_probability"] is None
    frames = {eye.stage.sees[0]: ([0.0], [image])}
    late = {"face_times": np.array([2.0]), "face_boxes": np.array([[0, 0, 1, 1]], np.float32)}
    for arrays in (late, {}):
        out = eye.stage.score(Clip(row={}, decoded=Decoded(frames=frames), arrays=arrays))
        assert out["drawn_probability"] is None
    whole = animal_mass(eye.stage.image_classifier.classify(image))
    assert out["animal_probability"] == pytest.approx(whole)


def test_crops_are_cut_at_the_picture() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    assert around(image, np.array([0.4, 0.4, 0.6, 0.6], np.float32), 1.0).shape == (40, 40, 3)
    assert around(image, np.array([0.9, 0.8, 1, 1], np.float32), 2.0).shape[:2] == (30, 30)
    face, head = squares(image, np.array([0.4, 0.4, 0.6, 0.6], np.float32))
    assert face.shape == (224, 224, 3) and head.shape == (224, 233, 3)  # 100 x 104 px, cut above and below


def test_classifier() -> None:
    classifier = EfficientNetLiteClassifier()
    cat = skimage.data.chelsea()
    probabilities = classifier.classify(cat)
    assert probabilities.shape == (NUM_CLASSES,)
    assert probabilities.dtype == np.float32
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)
    assert set(np.argsort(-probabilities)[:3]) <= {281, 282, 283, 284, 285}  # the five kinds of house cat
    assert np.array_equal(probabilities, classifier.classify(cat))
    # It is the embedder too, but not under its name.
    embedder = EfficientNetLite()
    embedder.setup()
    assert np.array_equal(classifier.embed([cat]), embedder.embed([cat]))
    assert classifier.id != embedder.id
    assert pickle.loads(pickle.dumps(EfficientNetLiteClassifier())).id == classifier.id
    with pytest.raises(ValueError, match="1000"):
        animal_mass(np.zeros(5, np.float32))
