from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from backends.sound.audio_embedder import LogMel, chunk_starts, joined
from media.decode import Decoded
from media.requests import Audio
from stages.audio_features import AudioFeatures
from stages.clip import Clip

RATE = 16000


def tone(hz: float, seconds: float = 1.0, level: float = 0.1) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def clip_of(sound: np.ndarray | None, times: np.ndarray) -> Clip:
    return Clip(row={}, decoded=Decoded(audio={Audio(RATE): sound}, frame_times=times))


def mel(hz: float) -> float:
    return 1127 * float(np.log(1 + hz / 700))


@pytest.mark.parametrize("hz", [200.0, 1000.0, 3000.0, 7000.0])
def test_a_tone_is_in_its_band(hz: float) -> None:
    """Bands are evenly spaced in mel from 20 Hz to 8 kHz, so the loudest one can be told beforehand."""
    rows = LogMel().embed(tone(hz), RATE)
    step = (mel(8000) - mel(20)) / 81
    assert np.abs(rows.argmax(1) - ((mel(hz) - mel(20)) / step - 1)).max() < 1.0


def test_power_of_a_tone_at_the_middle_of_a_bin() -> None:
    """A Hann window of 400 sums up to 200: a sine of level a has power (100 a)^2 in its bin, and no other."""
    embedder = LogMel()
    rows = embedder.embed(tone(1000.0, level=0.1), RATE)
    weights = embedder._bands()[:, 32]  # 1000 Hz is bin 32 of 31.25 Hz
    # The window is padded to 512, so neighbouring bins hear the tone too: never less than its own bin alone.
    alone = np.log(weights.max() * (100 * 0.1) ** 2)
    assert alone - 0.01 < rows[10].max() < alone + 1
    louder = embedder.embed(tone(1000.0, level=0.2), RATE)
    assert louder[10].max() - rows[10].max() == pytest.approx(2 * np.log(2), abs=1e-4)


def test_rows_begin_every_20_ms() -> None:
    sound = np.zeros(RATE, np.float32)
    sound[RATE // 2 :] = tone(1000.0, 0.5)
    rows = LogMel().embed(sound, RATE)
    assert LogMel().rate_hz == 50.0 and rows.shape == (49, 80) and rows.dtype == np.float32
    # Row 24 spans 0.480-0.505 s, row 23 ends at 0.485 s.
    assert (rows[:24] == np.log(np.float32(1e-10))).all() and rows[24].max() > -10


@pytest.mark.parametrize(("length", "rows"), [(0, 0), (399, 0), (400, 1), (719, 1), (720, 2), (16000, 49)])
def test_number_of_rows(length: int, rows: int) -> None:
    assert LogMel().embed(np.zeros(length, np.float32), RATE).shape == (rows, 80)


def test_embedder_travels_and_refuses_other_rates() -> None:
    assert pickle.loads(pickle.dumps(LogMel())).id == LogMel().id
    with pytest.raises(ValueError, match="16000"):
        LogMel().embed(np.zeros(800, np.float32), 8000)


@pytest.mark.parametrize(("rows", "size", "overlap"), [(11, 10, 4), (100, 10, 4), (97, 10, 3), (30, 7, 0)])
def test_chunks_joined_give_every_row_once(rows: int, size: int, overlap: int) -> None:
    """Each row comes once, in order; in the middle at least half the overlap away from its chunk's edges."""
    first = chunk_starts(rows, size, overlap)
    assert first[0] == 0 and first[-1] == rows - size and all(a < b for a, b in pairwise(first))
    chunks = [np.stack([np.arange(a, a + size), np.arange(size)], 1).astype(np.float32) for a in first]
    out = joined(chunks, first)
    np.testing.assert_array_equal(out[:, 0], np.arange(rows))
    edge = overlap // 2
    inner = out[size:-size, 1]
    assert ((inner >= edge) & (inner < size - edge)).all()


def test_stage_writes_rows_of_the_video(samples: Path, decode_clip: Callable[..., Clip]) -> None:
    stage = AudioFeatures(LogMel())
    clip = decode_clip(samples / "videos" / "latentsync_man_en.mp4", stage)
    out = stage.score(clip)
    assert set(out) == set(stage.writes)
    rows = out["audio_features"]
    sound = clip.audio(Audio(RATE))
    assert sound is not None
    times = clip.media.frame_times
    heard_s = min(len(sound) / RATE, times[-1] + times[1])
    assert rows.dtype == np.float16 and rows.shape[1] == 80
    assert len(rows) / 50 == pytest.approx(heard_s, abs=0.03)
    assert out["audio_features_hz"] == 50.0 and out["audio_embedder"] == LogMel().id
    wanted = LogMel().embed(sound, RATE)[: len(rows)]
    np.testing.assert_allclose(rows, wanted, atol=0.01)
    np.testing.assert_array_equal(stage.score(clip)["audio_features"], rows)


def test_sound_after_the_last_picture_is_left_out() -> None:
    times = np.arange(50) / 25  # the last picture stays until 2 s
    out = AudioFeatures(LogMel()).score(clip_of(tone(500, 4.0), times))
    assert len(out["audio_features"]) == (2 * RATE - 400) // 320 + 1
    short = AudioFeatures(LogMel()).score(clip_of(tone(500, 1.0), times))
    assert len(short["audio_features"]) == 49
    picture = AudioFeatures(LogMel()).score(clip_of(tone(500, 1.0), np.zeros(1)))
    assert len(picture["audio_features"]) == 49


def test_no_track_and_silence() -> None:
    times = np.arange(50) / 25
    none = AudioFeatures(LogMel()).score(clip_of(None, times))
    assert none["audio_features"].shape == (0, 80) and none["audio_features"].dtype == np.float16
    assert none["audio_features_hz"] is None and none["audio_embedder"] == LogMel().id
    silent = AudioFeatures(LogMel()).score(clip_of(np.zeros(RATE, np.float32), times))
    assert silent["audio_features"].shape == (49, 80) and silent["audio_features_hz"] == 50.0
    assert np.isfinite(silent["audio_features"]).all()
