from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import stages.touch_evidence
from backends.bodies import keypoints as k
from backends.bodies.hand_detector import MediaPipeHands
from backends.bodies.person_mask import SelfieSegmentation
from backends.bodies.pose import MediaPipeHolistic
from backends.faces.face_detector import CenterFace
from media.decode import Decoded
from prompts.vocabulary import REGIONS
from stages.clip import Clip
from stages.contacts import Contacts
from stages.people import People
from stages.touch_evidence import hand_mask
from tests.stages.test_approaches import FPS, MISSING, RIGHT_CHEEK, figure, put

SIDE = 400
SKIN, WALL, CLOTH = (214, 164, 138), (90, 110, 120), (40, 50, 90)
FRAMES = 40


class Everybody:
    """Takes what is not the wall for a person."""

    id = "everybody"

    def setup(self) -> None:
        pass

    def mask(self, image: np.ndarray) -> np.ndarray:
        return (np.abs(image.astype(int) - WALL).sum(-1) > 30).astype(np.float32)


def drawn(points: np.ndarray, colour: tuple[int, int, int] | None) -> list[np.ndarray]:
    """Pictures of a figure: a face with a mouth, shoulders, and its right hand in a colour (None: unseen)."""
    images = []
    for frame in points:
        image = np.full((SIDE, SIDE, 3), WALL, np.uint8)
        cv2.rectangle(image, (int(0.2 * SIDE), int(0.6 * SIDE)), (int(0.8 * SIDE), SIDE), CLOTH, -1)
        cv2.ellipse(image, (SIDE // 2, int(0.36 * SIDE)), (46, 60), 0, 0, 360, SKIN, -1)
        cv2.ellipse(image, (SIDE // 2, int(0.45 * SIDE)), (14, 5), 0, 0, 360, (150, 70, 70), -1)
        hand = frame[k.RIGHT_HAND, :2] * SIDE
        if colour is not None and np.isfinite(hand).all():
            mask = hand_mask((SIDE, SIDE), hand, 0.3)
            image[mask] = colour
            edge = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
            image[edge > 0] = [c // 2 for c in colour]
        images.append(image)
    return images


def scored(
    monkeypatch: pytest.MonkeyPatch,
    points: np.ndarray,
    colour: tuple[int, int, int] | None = SKIN,
    again: float = 1.0,
    **config: float,
) -> dict[str, Any]:
    monkeypatch.setattr(stages.touch_evidence, "look_again", lambda *_: again)
    stage = Contacts(MediaPipeHands(), Everybody(), config=Contacts.Config(**config))
    times = np.arange(len(points)) / FPS
    arrays: dict[str, Any] = {
        "people_times": times,
        "people_keypoints": points[:, None].astype(np.float32),
        "loose_hands": np.tile(np.array(MISSING), (len(points), 2, 21, 1)).astype(np.float32),
    }
    decoded = Decoded(frames={stage.sees[0]: (times.tolist(), drawn(points, colour))})
    row = {"people_aspect": 1.0, "people_tracked": 1}
    out = stage.score(Clip(row=row, decoded=decoded, arrays=arrays))
    assert set(out) == set(Contacts.writes)
    assert out["hand_gaps"].shape == out["unsure_gaps"].shape == (1, 22)
    return out


def touching() -> np.ndarray:
    points = figure(FRAMES)
    put(points, "right", slice(15, 25), RIGHT_CHEEK)
    return points


CHEEK = REGIONS.index("right_face")


def test_a_hand_that_is_seen_and_hides_the_cheek_touches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    out = scored(monkeypatch, touching())
    assert (out["contact_region"], out["contact_person"], out["contact_hand"]) == ("right_face", 0, "right")
    assert out["contact_by_other"] is False and out["contact_uncertain"] is None
    assert out["contact_start_s"] == pytest.approx(1.5) and out["contact_seconds"] == pytest.approx(0.9)
    assert out["contact_gap"] == 0 and out["contact_probability"] > 0.8
    assert out["hand_gaps"][0, CHEEK] == 0 and np.isnan(out["unsure_gaps"][0, CHEEK])


def test_a_hand_that_only_keypoints_know_of_is_no_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    out = scored(monkeypatch, touching(), colour=None, again=0.0)
    assert out["contact_region"] is None and out["contact_start_s"] is None
    assert out["contact_probability"] <= 0.5 and np.isnan(out["hand_gaps"]).all()
    assert out["contact_uncertain"] in (None, "further looks find no hand there")


def test_what_may_be_a_touch_says_why_it_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    sure = scored(monkeypatch, touching())["contact_probability"]
    out = scored(monkeypatch, touching(), sure=1.0)
    assert out["contact_region"] is None and out["contact_probability"] == pytest.approx(sure)
    assert out["contact_uncertain"] and np.isnan(out["hand_gaps"]).all()
    assert out["unsure_gaps"][0, CHEEK] == 0


def test_nobody_there_and_a_single_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    for points in (np.tile(np.array(MISSING), (5, k.NUM_KEYPOINTS, 1)), touching()[15:16]):
        out = scored(monkeypatch, points)
        assert all(out[name] is None for name in Contacts.writes if not name.endswith("_gaps"))
        assert np.isnan(out["hand_gaps"]).all() and np.isnan(out["unsure_gaps"]).all()


# What is seen in each clip was written down from its frames; a window spares the rest of the clip.
TOUCHES = {
    "intel_asl_learn.mkv": (0, 3, {"hair"}, {"right"}, (0.6, 1.2)),
    "intel_asl_brother.mkv": (0, 3, {"hair", "right_face", "right_eye"}, {"right"}, (0.45, 0.8)),
    "pyfeat_woman_emotions.mp4": (1, 8, {"mouth", "nose", "right_face"}, {"right"}, (2.2, 3.2)),
    "datajuicer_hair_braiding.mp4": (4.5, 10.5, {"hair"}, {"other"}, (5.9, 7.5)),
}
# Signing before the chin, food held to the mouth, gestures, hands joined at the chest, a microphone.
NO_TOUCH = {
    "intel_asl_book.mkv": (0, 4),
    "hellomeme_man_subtitles.mp4": (1, 3.5),
    "latentsync_man_en.mp4": (2, 4.5),
    "liveportrait_woman_lake.mp4": (0, 3),
    "facerec_stage_multishot.mp4": (3.7, 7.8),
    "sam2_man_juggle.mp4": (8, 10.3),
    "clearervoice_debate_two.avi": (4.5, 8),
    "retalking_woman_glasses.mp4": (0, 2),
}


@pytest.fixture(scope="module")
def models() -> tuple[People, Contacts]:
    people = People(CenterFace(), MediaPipeHolistic(), MediaPipeHands())
    contacts = Contacts(MediaPipeHands(), SelfieSegmentation(), people.sees[0])
    people.setup()
    contacts.setup()
    return people, contacts


def contact_of(
    samples: Path, decode_clip: Callable[..., Clip], models: tuple[People, Contacts], name: str
) -> dict[str, Any]:
    start, end = (TOUCHES[name] if name in TOUCHES else NO_TOUCH[name])[:2]
    people, contacts = models
    clip = decode_clip(samples / "videos" / name, people)
    request = people.sees[0]
    times, images = clip.media.frames[request]
    seen = [i for i, t in enumerate(times) if start <= t <= end]
    clip.media.frames[request] = ([times[i] for i in seen], [images[i] for i in seen])
    clip.row = people.score(clip)
    return contacts.score(clip)


@pytest.mark.parametrize("name", TOUCHES)
def test_touch_in_real_clips(
    samples: Path, decode_clip: Callable[..., Clip], models: tuple[People, Contacts], name: str
) -> None:
    _, _, regions, hands, (earliest, latest) = TOUCHES[name]
    out = contact_of(samples, decode_clip, models, name)
    assert out["contact_region"] in regions
    assert out["contact_hand"] in hands
    assert out["contact_by_other"] is (hands == {"other"})
    assert earliest <= out["contact_start_s"] <= latest


@pytest.mark.parametrize("name", NO_TOUCH)
def test_no_touch_in_real_clips(
    samples: Path, decode_clip: Callable[..., Clip], models: tuple[People, Contacts], name: str
) -> None:
    assert contact_of(samples, decode_clip, models, name)["contact_region"] is None
