"""Sound in pieces against the same sound as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from backends.sound.audio_embedder import RATE, LogMel
from pipelines.live.ear import LATE_S, Ear
from trainer.data.clip import audio_rows

FPS = 16


def noise(seconds: float) -> np.ndarray:
    draw = np.random.default_rng(0)
    return draw.uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def test_a_recording_in_blocks_has_the_rows_of_the_whole() -> None:
    sound, ear = noise(3), Ear(LogMel(), FPS)
    ear.hear(sound, live=False)
    found = [ear.take(frames) for frames in (9, 12, 12)]
    rows = np.concatenate([heard.rows for heard in found if heard])
    assert [heard.begin_s for heard in found if heard] == [0, 9 / FPS, 21 / FPS]
    whole = LogMel().embed(sound, RATE).astype(np.float16)
    expected = audio_rows(whole, LogMel().rate_hz, np.arange(33) / FPS)
    inner = [i for i in range(33) if i not in (8, 20, 32)]
    # All but the last rows of blocks, which would hear a little of what comes.
    assert np.abs(rows - expected)[inner].max() < 0.02
    assert np.concatenate([heard.samples for heard in found if heard]) == pytest.approx(
        sound[: round(33 / FPS * RATE)]
    )


def test_it_ends_and_begins_again() -> None:
    ear = Ear(LogMel(), FPS)
    assert ear.take(9) is None
    ear.hear(noise(0.5), live=False)
    heard, rest = ear.take(12), ear.take(12)
    assert heard is not None and heard.rows.shape == (8, 80) and rest is None
    ear.hear(noise(1), live=False)
    ear.take(12)
    ear.hear(noise(1), live=False)  # another recording: from its beginning
    again = ear.take(12)
    assert again is not None and again.begin_s == 0 and len(again.rows) == 12


def test_a_microphone_that_waits_is_heard_from_what_was_said_last() -> None:
    ear, spoken = Ear(LogMel(), FPS), noise(5)
    for begin in range(0, len(spoken), 1600):
        ear.hear(spoken[begin : begin + 1600], live=True)
    heard = ear.take(16)
    assert heard is not None and heard.begin_s == 5 - LATE_S
    assert np.array_equal(heard.samples, spoken[3 * RATE : 4 * RATE])
    ear.hear(spoken[:10], live=True)
    assert ear.take(32) is not None  # the rest
    ear.hear(spoken[:10], live=True)
    assert ear.take(12) is None  # too short for a row
