from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from backends.faces.face_detector import CenterFace, DetectedFaces
from backends.faces.face_mesh import MediaPipeFaceMesh
from backends.sound.lip_sync import LipSyncScore, MouthEnvelopeCorrelation, MouthTrack
from manifests.schema import ERROR, STOPPED
from manifests.screen import Screen, load_screen
from media.decode import Decoded
from media.requests import Audio, Frames
from stages.clip import Clip
from stages.contract import Stage
from stages.faces import Faces
from stages.head import Head
from stages.lip_sync import LipSync
from tests.truth.make_sync import moving, offsets

RATE = 16000
# Clips of three sources whose decoding is quick, and how much later their sound is, s.
NAMES = ("edtalk_obama", "retalking_man_office", "retalking_woman_bluebg", "retalking_woman_glasses")
OFFSETS = {name: offsets()[name][0] for name in (*NAMES, "liveportrait_man_outdoor_zh")}
SPEAKING = np.array([[0.0, 60.0]], np.float32)


def babble(seconds: float, seed: int) -> np.ndarray:
    """A mouth's opening at 100 Hz, 0-0.1: syllables of random height, four a second."""
    rng = np.random.default_rng(seed)
    knots = np.cumsum(rng.uniform(0.08, 0.18, round(seconds * 12)))
    heights = rng.uniform(0.03, 0.1, len(knots)) * (np.arange(len(knots)) % 2)
    return np.interp(np.arange(round(seconds * 100)) / 100, knots, heights)


def voice(opening: np.ndarray, late_s: float = 0.0) -> np.ndarray:
    """Noise as loud as the mouth is open, `late_s` after it."""
    times = np.arange(len(opening) * RATE // 100) / RATE
    level = np.interp(times - late_s, np.arange(len(opening)) / 100, opening)
    noise = np.random.default_rng(9).normal(0, 1, len(times))
    return (level * noise).astype(np.float32)


def track(opening: np.ndarray, fps: float = 25.0) -> MouthTrack:
    times = np.arange(0, len(opening) / 100, 1 / fps)
    at = np.interp(times, np.arange(len(opening)) / 100, opening)
    return MouthTrack(times, at.astype(np.float32))


def clip_of(mouth: MouthTrack | None, sound: np.ndarray | None, speech: np.ndarray | None = SPEAKING) -> Clip:
    arrays: dict[str, Any] = {} if speech is None else {"speech_times": speech}
    if mouth is not None:
        arrays |= {"mouth_times": mouth.times, "mouth_opening": mouth.opening}
    return Clip(
        row={}, decoded=Decoded(audio={Audio(): sound}, frame_times=np.arange(250) / 25), arrays=arrays
    )


@pytest.mark.parametrize("fps", [15.0, 24.0, 25.0, 30.0])
@pytest.mark.parametrize("late_s", [-0.4, -0.04, 0.0, 0.04, 0.2, 0.4])
def test_offset_of_shifted_sound(late_s: float, fps: float) -> None:
    """A voice that follows the lips as that of people does, and moved from there."""
    mouth, scorer = babble(8, 1), MouthEnvelopeCorrelation()
    found = scorer.score(track(mouth, fps), voice(mouth, scorer.lag_s + late_s), RATE)
    assert found is not None
    assert found.offset_s == pytest.approx(late_s, abs=0.01)
    assert found.correlation is not None and found.correlation > 0.7


def test_zero_of_the_clock() -> None:
    """Neither the loudness nor the filters nor the times of frames move anything: the lag is all of it."""
    mouth = babble(8, 2)
    found = MouthEnvelopeCorrelation(lag_s=0).score(track(mouth), voice(mouth), RATE)
    assert found is not None and abs(found.offset_s) < 0.003


def test_sync_is_looked_for_around_zero() -> None:
    """A little early is as good as a little late; a second is no better than chance, both ways."""
    scorer = MouthEnvelopeCorrelation()

    def confidence(late_s: float) -> float:
        found = [
            scorer.score(track(m), voice(m, late_s), RATE) for m in (babble(10, seed) for seed in range(6))
        ]
        return float(np.mean([one.confidence for one in found if one is not None]))

    assert confidence(-0.25) > 4 and confidence(0.25) > 4
    assert abs(confidence(-1.0)) < 1 and abs(confidence(1.0)) < 1


def test_confidence_of_sound_that_belongs_and_that_does_not() -> None:
    scorer = MouthEnvelopeCorrelation()
    true, false = [], []
    for seed in range(12):
        mouth = babble(8, seed)
        other = babble(8, seed + 100)
        for sound, into in ((voice(mouth, 0.1), true), (voice(other), false), (voice(mouth, 1.0), false)):
            found = scorer.score(track(mouth), sound, RATE)
            assert found is not None
            into.append(found.confidence)
    assert min(true) > 3
    assert abs(np.mean(false)) < 0.7  # chance is 0
    assert np.mean(np.array(false) > 1) < 0.35


def test_too_little_to_tell() -> None:
    scorer = MouthEnvelopeCorrelation()
    mouth = babble(8, 3)
    half_seen = track(mouth)
    half_seen.opening[: len(half_seen.opening) // 2] = np.nan
    assert scorer.score(half_seen, voice(mouth), RATE) is None
    assert scorer.score(track(mouth[:200]), voice(mouth), RATE) is None  # 2 s of mouth
    assert scorer.score(track(mouth), voice(mouth)[: 2 * RATE], RATE) is None
    assert scorer.score(track(mouth), np.zeros(8 * RATE, np.float32), RATE) is None
    assert scorer.score(track(np.full(800, 0.05)), voice(mouth), RATE) is None
    assert scorer.score(track(mouth), np.zeros(0, np.float32), RATE) is None


def test_a_few_frames_without_a_mesh_do_no_harm() -> None:
    mouth = babble(8, 4)
    gaps = track(mouth)
    gaps.opening[10:13] = gaps.opening[50:55] = np.nan
    found = MouthEnvelopeCorrelation().score(gaps, voice(mouth, 0.2), RATE)
    assert found is not None and found.offset_s == pytest.approx(0.2, abs=0.04) and found.confidence > 2


def test_stage_is_null_without_speech_or_mouth() -> None:
    stage = LipSync(MouthEnvelopeCorrelation())
    mouth = babble(8, 5)
    unseen = MouthTrack(track(mouth).times, np.full(len(track(mouth).times), np.nan, np.float32))
    none = np.zeros((0, 2), np.float32)
    clips = [
        clip_of(track(mouth), None),
        clip_of(track(mouth), voice(mouth), none),
        clip_of(track(mouth), voice(mouth), None),
        clip_of(None, voice(mouth)),
        clip_of(unseen, voice(mouth)),
    ]
    for clip in clips:
        out = stage.score(clip)
        assert set(out) == set(stage.writes)
        assert out.pop("lip_sync_by") == "mouth_envelope_correlation"
        assert set(out.values()) == {None}
    assert stage.needs_constant_rate
    assert stage.sees == (Audio(RATE),)


def test_mouth_motion_counts_in_speech_only() -> None:
    mouth = babble(8, 6)
    mouth[400:] = 0.02
    stage = LipSync(MouthEnvelopeCorrelation())
    talking = stage.score(clip_of(track(mouth), voice(mouth), np.array([[0, 4]], np.float32)))
    still = stage.score(clip_of(track(mouth), voice(mouth), np.array([[4.5, 8]], np.float32)))
    assert talking["mouth_moves_in_speech"] > 0.015
    assert still["mouth_moves_in_speech"] < 1e-6


class Watcher:
    """A scorer that wants pictures, as SyncNet does."""

    id = method = "watcher"
    picture_fps = 25.0

    def setup(self) -> None:
        pass

    def score(self, track: MouthTrack, samples: np.ndarray, rate: int) -> LipSyncScore:
        self.track = track
        return LipSyncScore(0.04, 6.0)


class Squares:
    """A detector of bright squares, in no order that helps."""

    id = "squares"

    def setup(self) -> None: ...

    def detect(self, image: np.ndarray) -> DetectedFaces:
        count, _, stats, _ = cv2.connectedComponentsWithStats((image[..., 0] > 128).astype(np.uint8))
        x, y, w, h = stats[1:count, :4].T
        extent = np.tile(np.asarray(image.shape[1::-1], np.float32), 2)
        boxes = np.stack([x, y, x + w, y + h], 1).astype(np.float32) / extent
        return DetectedFaces(boxes, np.ones(count - 1, np.float32), np.zeros((count - 1, 5, 2), np.float32))


def test_a_scorer_that_wants_pictures_gets_the_face_found_in_each() -> None:
    """A head that nods between the frames that `Faces` looks at, beside another, and is unseen for 0.2 s."""
    scorer = Watcher()
    with pytest.raises(ValueError, match="watcher looks at faces"):
        LipSync(scorer)
    stage = LipSync(scorer, Squares())
    assert Frames(25.0, 720) in stage.sees and stage.models == (scorer, stage.detector)
    times = np.arange(100) / 25
    top = (20 + 6 * np.sin(4 * np.pi * times)).round().astype(int)
    images = []
    for i in range(100):
        image = np.zeros((72, 100, 3), np.uint8)
        image[25:45, 5:25] = 255
        if not 40 < i < 46:
            image[top[i] : top[i] + 30, 60:85] = 255
        images.append(image)
    true = np.stack([np.full(100, 0.6), top / 72, np.full(100, 0.85), (top + 30) / 72], 1)
    mouth = babble(4, 7)
    clip = clip_of(track(mouth), voice(mouth))
    clip.media.frames[Frames(25.0, 720)] = (times, images)
    sampled = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
    clip.arrays |= {"face_times": sampled, "face_boxes": np.tile(true[:1], (6, 1)).astype(np.float32)}
    out = stage.score(clip)
    assert (out["av_offset_s"], out["lip_sync_confidence"], out["lip_sync_correlation"]) == (0.04, 6.0, None)
    assert out["lip_sync_by"] == "watcher"
    seen = scorer.track
    assert seen.images is not None and seen.boxes is not None
    assert len(seen.images) == len(seen.boxes) == len(seen.opening) == len(seen.times) == 100
    known = np.isfinite(seen.boxes).all(1)
    np.testing.assert_array_equal(known, times <= 3.25)  # 0.75 s after the last one that is known
    there = known & ~((times > 1.61) & (times < 1.83))
    np.testing.assert_allclose(seen.boxes[there], true[there], atol=1e-6)
    between = np.interp(times[41:46], times[[40, 46]], true[[40, 46], 1])
    np.testing.assert_allclose(seen.boxes[41:46, 1], between, atol=1e-6)


def test_a_face_elsewhere_is_not_the_one_that_is_expected() -> None:
    scorer = Watcher()
    stage = LipSync(scorer, Squares())
    mouth = babble(4, 7)
    clip = clip_of(track(mouth), voice(mouth))
    image = np.zeros((72, 100, 3), np.uint8)
    image[25:45, 5:25] = 255
    clip.media.frames[Frames(25.0, 720)] = (np.arange(100) / 25, [image] * 100)
    boxes = np.array([[0.6, 0.3, 0.85, 0.7]] * 2, np.float32)
    clip.arrays |= {"face_times": np.array([0.0, 4.0]), "face_boxes": boxes}
    stage.score(clip)
    assert scorer.track.boxes is not None and np.isnan(scorer.track.boxes).all()


def test_a_scorer_without_pictures_has_no_detector() -> None:
    """Nothing is detected for it, and no other detector makes its results anew."""
    scorer = MouthEnvelopeCorrelation()
    assert LipSync(scorer, Squares()).models == LipSync(scorer).models == (scorer,)


@pytest.fixture(scope="module")
def talkers(samples: Path, decode_clip: Callable[..., Clip]) -> dict[str, Clip]:
    """Clips with their mouths followed."""
    faces, head = Faces(CenterFace()), Head(MediaPipeFaceMesh())
    stage = LipSync(MouthEnvelopeCorrelation())
    clips = {}
    for name in OFFSETS:
        path = samples / "videos" / f"{name}.mp4"
        clips[name] = decode_clip(path, faces, head, stage, arrays={"speech_times": SPEAKING})
        _follow(clips[name], faces, head)
    return clips


def _follow(clip: Clip, *parts: Stage) -> None:
    for part in parts:
        clip.arrays.update({k: v for k, v in part.score(clip).items() if isinstance(v, np.ndarray)})


def test_offsets_are_those_that_lip_closures_say(talkers: dict[str, Clip]) -> None:
    """Within a frame of 0.04 s of the labels, and so is sound that is moved by known times."""
    stage = LipSync(MouthEnvelopeCorrelation())
    for name, clip in talkers.items():
        sound = clip.media.audio[Audio(RATE)]
        own = stage.score(clip)
        assert stage.score(clip) == own
        assert own["av_offset_s"] == pytest.approx(OFFSETS[name], abs=0.04)
        assert own["lip_sync_confidence"] > 1.5 and own["lip_sync_correlation"] > 0.3
        assert own["mouth_moves_in_speech"] > 0.006
        for shift in (-0.4, -0.2, -0.04, 0.04, 0.2):
            moved = round(abs(shift) * RATE)
            clip.media.audio[Audio(RATE)] = np.pad(sound, (moved, 0)) if shift > 0 else sound[moved:]
            assert stage.score(clip)["av_offset_s"] == pytest.approx(own["av_offset_s"] + shift, abs=0.02)
        clip.media.audio[Audio(RATE)] = sound


def test_real_mouths_against_other_sound(talkers: dict[str, Clip]) -> None:
    """On average a mouth fits its own voice better; what one pair alone tells is less, see the scorer."""
    stage = LipSync(MouthEnvelopeCorrelation())
    sounds = {name: clip.media.audio[Audio(RATE)] for name, clip in talkers.items()}
    own, other = [], []
    for name, clip in talkers.items():
        for whose, sound in sounds.items():
            clip.media.audio[Audio(RATE)] = sound
            (own if whose == name else other).append(stage.score(clip)["lip_sync_confidence"])
        clip.media.audio[Audio(RATE)] = sounds[name]
    assert np.mean(other) < 1.5 and np.mean(own) > np.mean(other) + 2
    assert np.mean(np.array(own)[:, None] > np.array(other)) > 0.85  # area under the ROC curve


def test_a_tight_head_that_is_thrown_about_stays_in_sync(
    samples: Path, tmp_path: Path, decode_clip: Callable[..., Clip]
) -> None:
    """Moved across the crop, zoomed, and turned by up to 15 degrees."""
    faces, head = Faces(CenterFace()), Head(MediaPipeFaceMesh())
    stage = LipSync(MouthEnvelopeCorrelation())
    rules = [rule for rule in load_screen("talking_head").rules if rule.reason == "out_of_sync"]
    screen = Screen(name="sync", rules=rules)
    for name in ("retalking_woman_bluebg", "liveportrait_man_outdoor_zh"):
        video = {name: samples / "videos" / f"{name}.mp4"}
        list(moving(video, offsets(), tmp_path))
        path = tmp_path / f"moving_{name}.mp4"
        clip = decode_clip(path, faces, head, stage, arrays={"speech_times": SPEAKING})
        _follow(clip, faces, head)
        assert head.score(clip)["head_translation"] > 0.5
        out = stage.score(clip)
        assert out["av_offset_s"] == pytest.approx(OFFSETS[name], abs=0.04)
        row = pa.Table.from_pylist([out])
        row = row.append_column("error", pa.nulls(1, ERROR)).append_column("stopped", pa.nulls(1, STOPPED))
        assert screen.verdicts(row)[0].all()


def test_scorer_travels() -> None:
    scorer = MouthEnvelopeCorrelation(max_offset_s=0.4)
    assert pickle.loads(pickle.dumps(scorer)).id == scorer.id != MouthEnvelopeCorrelation().id
