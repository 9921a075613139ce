from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.faces.face_detector import CenterFace
from backends.faces.face_mesh import MediaPipeFaceMesh
from backends.sound.lip_sync import LipSyncScore, MouthEnvelopeCorrelation, MouthTrack
from media.decode import Decoded
from media.requests import Audio, Frames
from stages.clip import Clip
from stages.faces import Faces
from stages.head import Head
from stages.lip_sync import LipSync

RATE = 16000
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


def track(opening: np.ndarray, fps: float = 12.5) -> MouthTrack:
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


@pytest.mark.parametrize("late_s", [-0.3, -0.08, 0.0, 0.2, 0.4])
def test_offset_of_shifted_sound(late_s: float) -> None:
    mouth = babble(8, 1)
    found = MouthEnvelopeCorrelation().score(track(mouth), voice(mouth, late_s), RATE)
    assert found is not None
    assert found.offset_s == pytest.approx(late_s, abs=0.04)
    assert found.correlation is not None and found.correlation > 0.7


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


def test_a_scorer_that_wants_pictures_gets_them_with_boxes() -> None:
    scorer = Watcher()
    stage = LipSync(scorer)
    assert Frames(25.0, 720) in stage.sees
    mouth = babble(4, 7)
    clip = clip_of(track(mouth), voice(mouth))
    times = [i / 25 for i in range(100)]
    clip.media.frames[Frames(25.0, 720)] = (times, [np.zeros((72, 72, 3), np.uint8)] * 100)
    clip.arrays |= {
        "face_times": np.array([0.0, 2.0, 4.0]),
        "face_boxes": np.array([[0, 0, 0.2, 0.2], [0.2, 0, 0.4, 0.2], [np.nan] * 4], np.float32),
    }
    out = stage.score(clip)
    assert (out["av_offset_s"], out["lip_sync_confidence"], out["lip_sync_correlation"]) == (0.04, 6.0, None)
    assert out["lip_sync_by"] == "watcher"
    seen = scorer.track
    assert seen.images is not None and seen.boxes is not None
    assert len(seen.images) == len(seen.boxes) == len(seen.opening) == len(seen.times) == 100


def test_real_mouths_against_their_own_and_other_sound(
    samples: Path, decode_clip: Callable[..., Clip]
) -> None:
    """On average a mouth fits its own voice better; what one pair alone tells is less, see the scorer."""
    faces, head = Faces(CenterFace()), Head(MediaPipeFaceMesh())
    stage = LipSync(MouthEnvelopeCorrelation())
    names = ("edtalk_obama", "retalking_man_office", "retalking_woman_bluebg")
    clips = [
        decode_clip(samples / "videos" / f"{name}.mp4", faces, head, stage, arrays={"speech_times": SPEAKING})
        for name in names
    ]
    for clip in clips:
        for part in (faces, head):
            clip.arrays.update({k: v for k, v in part.score(clip).items() if isinstance(v, np.ndarray)})
    own = [stage.score(clip) for clip in clips]
    assert stage.score(clips[0]) == own[0]
    assert min(out["lip_sync_confidence"] for out in own) > 1.5
    assert min(out["lip_sync_correlation"] for out in own) > 0.3
    assert all(out["mouth_moves_in_speech"] > 0.006 for out in own)
    sounds = [clip.media.audio[Audio(RATE)] for clip in clips]
    other = []
    for i, clip in enumerate(clips):
        for j, sound in enumerate(sounds):
            if i != j:
                clip.media.audio[Audio(RATE)] = sound
                other.append(stage.score(clip)["lip_sync_confidence"])
    assert np.mean(other) < 1.5
    assert np.mean([out["lip_sync_confidence"] for out in own]) > np.mean(other) + 2
    for clip, sound, out in zip(clips, sounds, own, strict=True):
        clip.media.audio[Audio(RATE)] = np.pad(sound, (RATE // 5, 0))
        assert stage.score(clip)["av_offset_s"] == pytest.approx(min(0.5, out["av_offset_s"] + 0.2), abs=0.06)


def test_scorer_travels() -> None:
    scorer = MouthEnvelopeCorrelation(max_offset_s=0.4)
    assert pickle.loads(pickle.dumps(scorer)).id == scorer.id != MouthEnvelopeCorrelation().id
