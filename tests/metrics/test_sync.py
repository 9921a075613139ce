"""Sync-C and Sync-D: what the scorer finds, under the scorer's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backends.faces.face_detector import CenterFace
from backends.faces.face_mesh import MediaPipeFaceMesh
from backends.sound.lip_sync import LipSyncScore, MouthEnvelopeCorrelation, MouthTrack
from backends.sound.syncnet import SyncNetScorer
from backends.store.weights import Weights
from media.decode import Decoded
from media.requests import Audio, Frames
from metrics.sync import Sync
from stages.clip import Clip
from stages.faces import Faces
from stages.head import Head
from stages.lip_sync import LipSync
from tests.stages.test_lip_sync import RATE, SPEAKING, Squares, babble, clip_of, track, voice

NAMES = [f"{name}_mouth_envelope_correlation" for name in ("sync_c", "sync_d", "sync_offset_s")]
NONE = dict.fromkeys(NAMES)


class Found:
    """A scorer that looks at pictures and finds what it is told to."""

    id = method = "found"
    network, picture_fps = "", 25.0

    def __init__(self, score: LipSyncScore | None) -> None:
        self.found = score

    def setup(self) -> None: ...

    def score(self, track: MouthTrack, samples: np.ndarray, rate: int) -> LipSyncScore | None:
        assert track.images is not None and rate == RATE
        return self.found


def test_sound_moved_by_known_times_comes_back_either_way() -> None:
    metric, mouth, lag = Sync(MouthEnvelopeCorrelation()), babble(8, 1), MouthEnvelopeCorrelation().lag_s
    for late_s in (-0.4, -0.2, -0.04, 0.0, 0.04, 0.2, 0.4):
        found = metric.score(clip_of(track(mouth), voice(mouth, lag + late_s)))
        assert found["sync_offset_s_mouth_envelope_correlation"] == pytest.approx(abs(late_s), abs=0.01)
        # Beyond 0.3 s the sound is taken to be of another mouth.
        assert (found["sync_c_mouth_envelope_correlation"] > 3) == (abs(late_s) < 0.3)
        assert found["sync_d_mouth_envelope_correlation"] is None


def test_is_what_lip_sync_stores() -> None:
    mouth = babble(8, 2)
    clip = clip_of(track(mouth), voice(mouth, 0.1))
    stored, found = (
        stage.score(clip) for stage in (LipSync(MouthEnvelopeCorrelation()), Sync(MouthEnvelopeCorrelation()))
    )
    assert found[NAMES[0]] == stored["lip_sync_confidence"]
    assert found[NAMES[2]] == abs(stored["av_offset_s"])


def test_nothing_to_compare_has_no_value() -> None:
    metric, mouth = Sync(MouthEnvelopeCorrelation()), babble(8, 3)
    silent = np.zeros((0, 2), np.float32)
    for clip in (
        clip_of(track(mouth), None),
        clip_of(None, voice(mouth)),
        clip_of(track(mouth), voice(mouth), silent),
        clip_of(track(mouth), voice(mouth), np.array([[1.0, 1.9]], np.float32)),
        clip_of(track(mouth[:200]), voice(mouth)[: 2 * RATE]),
    ):
        assert metric.score(clip) == NONE


def test_a_scorer_with_pictures_gets_them_and_its_distance_is_kept() -> None:
    metric = Sync(Found(LipSyncScore(-0.12, 5.5, distance=7.25)), Squares())
    assert metric.sees == (Audio(RATE), Frames(25.0, 720)) and metric.needs_constant_rate
    assert metric.models == metric.stage.models and len(metric.models) == 2
    mouth = babble(4, 7)
    clip = clip_of(track(mouth), voice(mouth))
    clip.decoded = Decoded(
        audio=clip.media.audio,
        frames={Frames(25.0, 720): (np.arange(3) / 25, [np.zeros((9, 9, 3), np.uint8)] * 3)},
    )
    assert metric.score(clip) == {"sync_c": 5.5, "sync_d": 7.25, "sync_offset_s": 0.12}
    assert Sync(Found(None), Squares()).score(clip) == dict.fromkeys(metric.scores)
    with pytest.raises(ValueError, match="found looks at faces"):
        Sync(Found(None))


def test_only_the_authors_weights_give_the_bare_name(tmp_path: Path) -> None:
    def names(weights: Weights) -> list[str]:
        return [number.name for number in Sync(SyncNetScorer(weights), CenterFace()).numbers]

    published = Weights("syncnet", tmp_path, "0123", is_published=True)
    assert names(published) == ["sync_c", "sync_d", "sync_offset_s"]
    assert names(replace(published, is_published=False))[0] == "sync_c_unverified_syncnet"
    random = replace(published, is_random=True, is_published=False)
    assert names(random)[1] == "sync_d_stand_in_random_syncnet"
    assert [number.name for number in Sync(MouthEnvelopeCorrelation()).numbers] == NAMES


def test_a_real_mouth_beside_its_own_and_another_sound(
    samples: Path, decode_clip: Callable[..., Clip]
) -> None:
    faces, head, metric = Faces(CenterFace()), Head(MediaPipeFaceMesh()), Sync(MouthEnvelopeCorrelation())
    clip = decode_clip(
        samples / "videos" / "retalking_woman_bluebg.mp4",
        faces,
        head,
        metric,
        arrays={"speech_times": SPEAKING},
    )
    for part in (faces, head):
        clip.arrays.update({k: v for k, v in part.score(clip).items() if isinstance(v, np.ndarray)})
    own, offset_s = metric.score(clip), LipSync(MouthEnvelopeCorrelation()).score(clip)["av_offset_s"]
    sound = clip.media.audio[Audio(RATE)]
    clip.media.audio[Audio(RATE)] = np.pad(sound, (round(0.3 * RATE), 0))
    late = metric.score(clip)
    assert own[NAMES[2]] == abs(offset_s) < 0.06
    assert late[NAMES[2]] == pytest.approx(abs(0.3 + offset_s), abs=0.02)
    clip.media.audio[Audio(RATE)] = sound[::-1].copy()
    assert metric.score(clip)[NAMES[0]] < own[NAMES[0]] - 1
