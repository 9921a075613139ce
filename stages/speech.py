"""Whether, when and by how many people a clip's sound track is spoken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.sound.diarizer import Diarizer, Turn
from backends.sound.voice_activity import VoiceActivity
from media.requests import Audio
from stages.clip import Clip
from stages.contract import Array, Column, Score, Stage, StageConfig

Samples = npt.NDArray[np.float32]
Spans = Sequence[tuple[float, float]]

FLOOR_DBFS = -120.0  # what digital silence is written as
LEVEL_S = 0.1  # the level of a sound track is taken over windows of this length
NOISE_S = 0.02  # and that of the pauses over these
EDGE_S = 0.1  # what lies this close to speech is neither speech nor pause


class Speech(Stage):
    """Single speaker and sound level (InterAvatar B.2: single-speaker extraction, Plaquet & Bredin 2023).

    Levels are dB relative to a full-scale square wave: RMS 1.0 is 0 dBFS. All shares of the clip are of
    its video: sound after the last picture has gone is not heard. The number of speakers is the diarizer's
    where the voice detector hears speech; singing and speech in a film's background count as speech too.
    """

    class Config(StageConfig):
        """Settings of `Speech`."""

        rate: int = Field(16000, ge=8000, le=48000, description="samples a second handed to the models")
        silence_dbfs: float = Field(
            -60.0,
            ge=FLOOR_DBFS,
            le=0,
            description="a track that is nowhere louder over 0.1 s is silent, dBFS RMS; -60 is the default "
            "of ffmpeg's silencedetect",
        )
        min_pause_s: float = Field(
            0.3, gt=0, description="pauses in all that a noise level is read from, seconds"
        )

    version: ClassVar[int] = 2
    writes: ClassVar[Mapping[str, Column | Array]] = {
        "audio_silent": Column("bool", "", "the track is silence throughout; null without a track"),
        "loudness_dbfs": Score(
            "dBFS", "RMS over speech, over the whole track without speech; -120 is digital silence"
        ),
        "speech_ratio": Score("0-1", "share of the video's duration with speech; 0 without a track"),
        "speech_s": Score("seconds", "duration of speech; 0 without a track"),
        "num_speakers": Column("int", "people", "voices told apart; 0 without speech"),
        "speaker_turns": Column(
            "int", "turns", "how many times somebody takes the word from another, and the first"
        ),
        "main_speaker_share": Score("0-1", "share of all voiced time of the one who speaks longest"),
        "overlap_share": Score("0-1", "share of voiced time in which several speak at once"),
        "snr_db": Score(
            "dB", "level of speech over the median level in its pauses, rough; null without pauses"
        ),
        "audio_clipped_share": Score("0-1", "share of samples at 0.99 of full scale or above"),
        "speech_times": Array("[N, 2]", "seconds", "start and end of each stretch of speech"),
        "speaker_turns_array": Array(
            "[N, 3]", "seconds, seconds, number", "start, end, and speaker from 0 in order of appearance"
        ),
    }

    def __init__(
        self, voice_activity: VoiceActivity, diarizer: Diarizer, config: Config | None = None
    ) -> None:
        super().__init__(voice_activity, diarizer, config=config)
        self.voice_activity = voice_activity
        self.diarizer = diarizer

    @property
    def sees(self) -> tuple[Audio, ...]:
        """The sound track."""
        return (Audio(self.config.rate),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """All of `writes`; without a track or in silence no model is asked."""
        samples = clip.audio(self.sees[0])
        out: dict[str, Any] = dict.fromkeys(self.writes)
        out |= {
            "speech_ratio": 0.0,
            "speech_s": 0.0,
            "num_speakers": 0,
            "speaker_turns": 0,
            "speech_times": np.zeros((0, 2), np.float32),
            "speaker_turns_array": np.zeros((0, 3), np.float32),
        }
        if samples is None or not len(samples):
            return out
        rate = self.config.rate
        # A clip of one picture has no duration of its own.
        seconds = clip.media.end_s or len(samples) / rate
        samples = samples[: max(1, round(seconds * rate))]
        out |= {
            "audio_silent": _loudest(samples, rate) <= self.config.silence_dbfs,
            "loudness_dbfs": _dbfs(samples),
            "audio_clipped_share": float(np.mean(np.abs(samples) >= 0.99)),
        }
        if out["audio_silent"]:
            return out
        speech = self.voice_activity.speech(samples, rate)
        if not speech:
            return out
        turns = self.diarizer.turns(samples, rate)
        spoken = _inside(speech, len(samples), rate)
        speech_s = sum(end - start for start, end in speech)
        return (
            out
            | {
                "loudness_dbfs": _dbfs(samples[spoken]),
                "speech_ratio": min(1.0, speech_s / seconds),
                "speech_s": speech_s,
                "snr_db": self._snr(samples, speech, spoken),
                "speech_times": np.array(speech, np.float32),
            }
            | _who(turns)
        )

    def _snr(self, samples: Samples, speech: Spans, spoken: npt.NDArray[np.bool_]) -> float | None:
        rate = self.config.rate
        near = _inside([(start - EDGE_S, end + EDGE_S) for start, end in speech], len(samples), rate)
        pauses, step = samples[~near], max(1, round(NOISE_S * rate))
        if len(pauses) < self.config.min_pause_s * rate or len(pauses) < step:
            return None
        # The median, so that a breath or a word that the detector missed is not noise.
        noise = np.median([_dbfs(pauses[i : i + step]) for i in range(0, len(pauses) - step + 1, step)])
        return _dbfs(samples[spoken]) - float(noise)


def _who(turns: Sequence[Turn]) -> dict[str, Any]:
    """The columns that tell the speakers; one speaker when the diarizer hears none in what is speech."""
    out: dict[str, Any] = {"num_speakers": 1, "speaker_turns": 1}
    if not turns:
        return out
    speakers = [turn.speaker for turn in turns]
    edges = np.unique([(turn.start_s, turn.end_s) for turn in turns])
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    said = np.array(
        [
            np.any([(t.start_s <= middle) & (middle < t.end_s) for t in turns if t.speaker == who], axis=0)
            for who in sorted(set(speakers))
        ]
    )
    voiced = float(width[said.any(0)].sum())
    return out | {
        "num_speakers": len(said),
        "speaker_turns": 1 + sum(a != b for a, b in pairwise(speakers)),
        "main_speaker_share": float((said @ width).max() / voiced),
        "overlap_share": float(width[said.sum(0) > 1].sum() / voiced),
        "speaker_turns_array": np.array([(t.start_s, t.end_s, t.speaker) for t in turns], np.float32),
    }


def _inside(spans: Spans, length: int, rate: int) -> npt.NDArray[np.bool_]:
    """For each of `length` samples whether it lies in one of `spans` (seconds)."""
    inside = np.zeros(length, bool)
    for start, end in spans:
        inside[max(0, round(start * rate)) : max(0, round(end * rate))] = True
    return inside


def _dbfs(samples: Samples) -> float:
    """RMS level in dBFS, at least -120."""
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    return max(FLOOR_DBFS, 20 * float(np.log10(max(rms, 1e-9))))


def _loudest(samples: Samples, rate: int) -> float:
    """The level of the loudest 0.1 s, dBFS."""
    step = max(1, round(LEVEL_S * rate))
    return max(_dbfs(samples[i : i + step]) for i in range(0, len(samples), step))
