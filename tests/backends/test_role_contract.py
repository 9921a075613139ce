"""What every implementation of a role must give, whatever the profile.

`make test-laptop` runs this on the laptop profile, `make test-models` on the gpu profile with tiny random
weights: shapes, types, ranges and units are the same, only the numbers differ.
"""

from __future__ import annotations

import math
import os
import pickle
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import Field

from backends.language.vision_language_model import Question
from backends.roles import Roles
from backends.sound.lip_sync import MouthTrack
from backends.video.image_to_video import Animation
from configs.reading import merged, parse, parse_overrides
from media.decode import decode
from media.picture import read_picture
from media.requests import Audio, Frames
from pipelines.engine.settings import Settings
from pipelines.requests import load_profile, profile_roles
from prompts.prompt import Answer

GPU = find_spec("cotracker") is not None  # the environment of the gpu profile's packages
NAMES = [f.name for f in fields(Roles)]
FRAMES = Frames(fps=5, short_side=241)  # an odd side: nothing may ask for even ones
RATE = 16000


@dataclass(frozen=True)
class Media:
    """What the models look at: frames of one clip, a portrait, speech, and a picture without anything."""

    images: list[np.ndarray]
    times: np.ndarray
    portrait: np.ndarray
    speech: np.ndarray
    grey: np.ndarray


@pytest.fixture(scope="module")
def media(samples: Path) -> Media:
    clip = decode(samples / "videos" / "pyfeat_woman_emotions.mp4", [FRAMES])
    times, images = clip.frames[FRAMES]
    talk = decode(samples / "videos" / "latentsync_man_en.mp4", [Audio(RATE)]).audio[Audio(RATE)]
    assert talk is not None
    portrait = read_picture(samples / "images" / "uniface_man2.jpg")
    grey = np.full((97, 131, 3), 128, np.uint8)
    return Media(images[:6], np.asarray(times[:6]), portrait, talk[: 6 * RATE], grey)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roles]:
    """Every role's implementation, as Ray would ship it: pickled, then loaded."""
    folder = tmp_path_factory.mktemp("store")
    overrides: tuple[str, ...] = ()
    if GPU:
        from tests.models import tiny_store

        tiny_store.build(folder)
        overrides = tiny_store.SETTINGS + tiny_store.VLM
    settings = parse(Settings, merged({"models": str(folder)}, parse_overrides(overrides)), "test")
    roles = profile_roles(load_profile("gpu" if GPU else "laptop"), settings, folder / "answers")
    # Together: a model that fills two roles stays one.
    shipped = pickle.loads(pickle.dumps({f.name: getattr(roles, f.name) for f in fields(roles)}))
    threads = os.environ.get("OMP_NUM_THREADS")
    yield Roles(**shipped)
    assert os.environ.get("OMP_NUM_THREADS") == threads


def normalised(points: np.ndarray, slack: float = 1.0) -> bool:
    """Finite where it is there, and not in pixels."""
    there = points[np.isfinite(points)]
    return bool((there > -slack).all() and (there < 1 + slack).all())


def face_detector(model: Any, media: Media) -> None:
    for image in (*media.images, media.portrait, media.grey):
        found = model.detect(image)
        count = len(found)
        assert found.boxes.shape == (count, 4) and found.boxes.dtype == np.float32
        assert found.scores.shape == (count,) and found.landmarks.shape == (count, 5, 2)
        assert found.boxes.min(initial=0) >= 0 and found.boxes.max(initial=0) <= 1
        assert (found.boxes[:, :2] <= found.boxes[:, 2:]).all() and normalised(found.landmarks)
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert (np.diff(found.scores) <= 0).all()  # best first


def face_mesh(model: Any, media: Media) -> None:
    boxes = np.tile(np.array([0.3, 0.1, 0.7, 0.8], np.float32), (len(media.images), 1))
    boxes[2] = np.nan
    mesh = model.track(media.images, boxes)
    assert mesh.shape == (len(media.images), 468, 2) and mesh.dtype == np.float32
    assert np.isnan(mesh[2]).all() and normalised(mesh)
    whole = np.isfinite(mesh).all((1, 2))
    assert (whole == np.isfinite(mesh).any((1, 2))).all()  # a mesh is there or it is not


def pose(model: Any, media: Media) -> None:
    for images in (media.images, [media.grey]):
        found = model.estimate(images)
        assert found.shape == (len(images), 133, 3) and found.dtype == np.float32
        scores, points = found[..., 2], found[..., :2]
        assert ((scores >= 0) & (scores <= 1)).all()
        outside = ~((points >= 0) & (points <= 1)).all(-1)
        assert (scores[outside] == 0).all()  # also of NaN


def hand_detector(model: Any, media: Media) -> None:
    for image in (media.images[0], media.grey):
        found = model.detect(image)
        assert found.points.shape == (len(found), 21, 2) and found.points.dtype == np.float32
        assert found.left.shape == (len(found),) and found.left.dtype == np.bool_
        assert ((found.scores >= 0) & (found.scores <= 1)).all() and normalised(found.points)


def image_quality(model: Any, media: Media) -> None:
    assert 0 <= model.quality(media.portrait) <= 100
    assert model.quality(media.grey) is None  # no texture


def point_tracker(model: Any, media: Media) -> None:
    tracks, visible = model.track(media.images, 4)
    height, width = media.images[0].shape[:2]
    assert tracks.shape == (6, 16, 2) and tracks.dtype == np.float32 and np.isfinite(tracks).all()
    assert visible.shape == (6, 16) and visible.dtype == np.bool_
    # Row by row, in the cells' middles, in pixels.
    x, y = np.meshgrid((np.arange(4) + 0.5) / 4 * width - 0.5, (np.arange(4) + 0.5) / 4 * height - 0.5)
    assert np.abs(tracks[0] - np.stack([x.ravel(), y.ravel()], 1)).max() < 2
    share = model.visible_share(iter(media.images), 4)
    assert share is None or 1 / 6 <= share <= 1  # every point in the first frame


def person_mask(model: Any, media: Media) -> None:
    for image in (media.portrait, media.grey):
        mask = model.mask(image)
        assert mask.shape == image.shape[:2] and mask.dtype == np.float32
        assert mask.min() >= 0 and mask.max() <= 1


def image_embedder(model: Any, media: Media) -> None:
    vectors = model.embed([*media.images, media.grey])
    assert vectors.shape[0] == 7 and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[6]  # neighbours are nearer than a grey picture
    assert np.allclose(model.embed(media.images[:1])[0], vectors[0], atol=1e-4)  # whatever is beside it
    assert model.embed([]).shape == (0, vectors.shape[1])


def face_embedder(model: Any, media: Media) -> None:
    marks = np.array([(0.4, 0.4), (0.6, 0.4), (0.5, 0.5), (0.42, 0.6), (0.58, 0.6)], np.float32)
    vectors = model.embed([media.portrait, media.images[0]], np.stack([marks, marks]))
    assert vectors.shape[0] == 2 and vectors.shape[1] in (128, 512) and vectors.dtype == np.float32
    assert np.isfinite(vectors).all() and (np.linalg.norm(vectors, axis=1) > 0.5).all()
    alone = model.embed([media.portrait], marks[None])
    assert np.allclose(alone[0], vectors[0], atol=1e-4)
    assert model.embed([], np.zeros((0, 5, 2), np.float32)).shape == (0, vectors.shape[1])
    assert is_network(model.network)


def attribute_embedder(model: Any, media: Media) -> None:
    tokens = model.embed([media.portrait, media.grey])
    assert tokens.ndim == 3 and tokens.shape[0] == 2 and tokens.dtype == np.float32
    places = tokens.shape[1] - 1
    assert math.isqrt(places) ** 2 == places  # one for the whole, then a square of places
    assert np.isfinite(tokens).all() and not np.allclose(tokens[0], tokens[1])


def audio_embedder(model: Any, media: Media) -> None:
    rows = model.embed(media.speech, RATE)
    assert rows.dtype == np.float32 and np.isfinite(rows).all()
    assert abs(len(rows) - len(media.speech) / RATE * model.rate_hz) <= 2
    assert model.embed(np.zeros(0, np.float32), RATE).shape == (0, rows.shape[1])


def text_detector(model: Any, media: Media) -> None:
    assert model.read(media.grey) == []
    for line in model.read(media.portrait):
        assert line.text and min(line.box) >= 0 and max(line.box) <= 1 and 0 <= line.score <= 1


def voice_activity(model: Any, media: Media) -> None:
    spans = model.speech(media.speech, RATE)
    edges = [edge for span in spans for edge in span]
    assert spans and edges == sorted(edges) and edges[0] >= 0 and edges[-1] <= len(media.speech) / RATE + 0.1
    assert model.speech(np.zeros(RATE, np.float32), RATE) == []


def diarizer(model: Any, media: Media) -> None:
    turns = model.turns(media.speech, RATE)
    assert [t.start_s for t in turns] == sorted(t.start_s for t in turns)
    assert all(0 <= t.start_s < t.end_s <= len(media.speech) / RATE + 0.1 for t in turns)
    firsts = list(dict.fromkeys(t.speaker for t in turns))
    assert firsts == list(range(len(firsts)))  # numbered as they appear
    assert model.turns(np.zeros(0, np.float32), RATE) == []


def lip_sync(model: Any, media: Media) -> None:
    times = np.arange(100) / 25
    opening = (0.05 + 0.03 * np.sin(times * 20)).astype(np.float32)
    images = [media.portrait[::4, ::4]] * 100
    boxes = np.tile(np.array([0.3, 0.2, 0.7, 0.8], np.float32), (100, 1))
    wants = model.picture_fps is not None
    track = MouthTrack(times, opening, images if wants else None, boxes if wants else None)
    found = model.score(track, media.speech[: 4 * RATE], RATE)
    assert found is not None and math.isfinite(found.confidence) and abs(found.offset_s) <= 0.7
    assert found.correlation is None or -1 <= found.correlation <= 1
    assert found.distance is None or found.distance >= 0
    assert is_network(model.network)
    short = MouthTrack(times[:2], opening[:2], images[:2] if wants else None, boxes[:2] if wants else None)
    assert model.score(short, media.speech[:1000], RATE) is None
    assert model.method and " " not in model.method


def image_classifier(model: Any, media: Media) -> None:
    probabilities = model.classify(media.portrait)
    assert probabilities.shape == (1000,) and probabilities.dtype == np.float32
    assert probabilities.min() >= 0 and abs(probabilities.sum() - 1) < 1e-3
    assert 0 <= model.drawn(media.portrait, np.array([0.3, 0.1, 0.7, 0.6], np.float32)) <= 1


def hair_segmenter(model: Any, media: Media) -> None:
    mask = model.segment(media.portrait, np.array([0.3, 0.05, 0.7, 0.4], np.float32), None)
    assert mask.shape == media.portrait.shape[:2] and mask.dtype == np.bool_
    assert model.name


class Word(Answer):
    word: str = Field(max_length=20)


def vision_language_model(model: Any, media: Media) -> None:
    asked = Question("What is seen?", Word, media.images[:1], measured=lambda: Word(word="nothing"))
    answer = model.answer(asked)
    assert isinstance(answer, Word) and answer == model.answer(asked)
    assert model.name.startswith("stand_in") and model.concurrency >= 1 and model.is_remote is False


reaction_writer = vision_language_model


def image_to_video(model: Any, media: Media) -> None:
    asked = Animation(media.portrait[::4, ::4], "She smiles.", "blurred", 3, (0.5, 0.4), "stroked")
    frames = model.animate(asked)
    assert frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[3] == 3 and len(frames) > 4
    assert frames.shape[1] % 2 == 0 and frames.shape[2] % 2 == 0 and model.fps > 0
    assert np.array_equal(frames, model.animate(asked))  # the seed decides
    assert model.name.startswith("stand_in")


def frame_features(model: Any, media: Media) -> None:
    found = model.features([media.portrait, media.images[0], media.grey])
    assert found.ndim == 2 and found.shape[0] == 3 and found.dtype == np.float32
    assert np.isfinite(found).all() and not np.allclose(found[0], found[1])
    assert np.allclose(model.features([media.images[0]])[0], found[1], atol=1e-4)  # whatever is beside it
    assert model.features([]).shape == (0, found.shape[1])
    assert is_network(model.network)


def clip_features(model: Any, media: Media) -> None:
    moving = [media.images[i % 6] for i in range(model.frames)]
    still = [media.images[0]] * model.frames
    found = model.features([moving, still])
    assert found.ndim == 2 and found.shape[0] == 2 and found.dtype == np.float32
    assert np.isfinite(found).all() and not np.allclose(found[0], found[1], rtol=1e-6, atol=1e-9)
    assert model.features([]).shape == (0, found.shape[1])
    with pytest.raises(ValueError, match=f"a window has {model.frames} pictures, got one of 1"):
        model.features([moving[:1]])
    assert is_network(model.network)


def perceptual_distance(model: Any, media: Media) -> None:
    one, other = media.images[0], media.images[5]
    found = model.distances([one, one, other], [one, other, one])
    assert found.shape == (3,) and found.dtype == np.float32
    assert abs(found[0]) < 1e-6 and found[1] > 1e-6 and found[1] == pytest.approx(found[2], rel=1e-4)
    assert model.distances([], []).shape == (0,)
    with pytest.raises(ValueError, match="of one size"):
        model.distances([one], [media.grey])
    with pytest.raises(ValueError, match="1 pictures against 0"):
        model.distances([one], [])
    assert is_network(model.network)


def aesthetic_scorer(model: Any, media: Media) -> None:
    found = model.scores([media.portrait, media.images[0]])
    assert found.shape == (2,) and found.dtype == np.float32 and np.isfinite(found).all()
    assert model.scores([]).shape == (0,)
    assert is_network(model.network)


def optical_flow(model: Any, media: Media) -> None:
    found = model.flow(media.images[0], media.images[5])
    assert found.shape == (*media.images[0].shape[:2], 2) and found.dtype == np.float32
    assert np.isfinite(found).all()
    with pytest.raises(ValueError, match="of one size"):
        model.flow(media.images[0], media.grey)
    assert is_network(model.network)


def subject_embedder(model: Any, media: Media) -> None:
    image_embedder(model, media)
    assert is_network(model.network)


text_image_embedder = subject_embedder


def is_network(name: str) -> bool:
    """Fit for the name of a column; only published weights, which no test has, leave it empty."""
    return re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None


CHECKS: dict[str, Callable[[Any, Media], None]] = {name: globals()[name] for name in NAMES}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("role", NAMES)
def test_contract(role: str, models: Roles, media: Media) -> None:
    model = getattr(models, role)
    before = model.id
    model.setup()
    model.setup()
    CHECKS[role](model, media)
    assert model.id == before
    assert not re.search(r"(?<!\w)/", before)  # no path: a store may move


# Their releases leave results as they are, so one must not make a run compute everything again.
RUNTIMES = ("numpy", "scipy", "torch", "opencv-python-headless", "onnxruntime", "transformers", "diffusers")


@pytest.mark.parametrize("role", NAMES)
def test_an_id_names_no_library_that_anything_runs_on(role: str, models: Roles) -> None:
    said = getattr(models, role).id
    for name in RUNTIMES:
        assert name not in said and not re.search(rf"(?<![\d.]){re.escape(version(name))}(?![\d.])", said)


if GPU:  # the laptop's models are called from one thread

    @pytest.mark.timeout(600)
    @pytest.mark.parametrize("role", [n for n in NAMES if n != "image_to_video"])
    def test_several_threads_at_once(role: str, models: Roles, media: Media) -> None:
        model = getattr(models, role)
        before = model.id
        model.setup()
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(CHECKS[role], model, media) for _ in range(4)]:
                done.result()
        assert model.id == before
