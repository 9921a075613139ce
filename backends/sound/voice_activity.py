"""Where somebody speaks in a sound track."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class VoiceActivity(Protocol):
    """Tells speech from everything else, whoever speaks."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    def setup(self) -> None:
        """Load the weights; again does nothing."""
        ...

    def speech(self, samples: npt.NDArray[np.float32], rate: int) -> list[tuple[float, float]]:
        """Stretches of speech (start, end) in seconds, in order, not touching each other.

        samples: mono float32 [N] in [-1, 1] at `rate` samples a second. No speech is an empty list.
        """
        ...


class SileroVoiceActivity:
    """silero-vad on one CPU core, from the weights inside its package (MIT; github.com/snakers4/silero-vad).

    The whole-sequence ONNX export gives the same probabilities as the streaming model, one for each
    32 ms; a stretch starts above `threshold` and ends when the probability stays 0.15 below it for
    `min_silence_s`. All defaults are the package's own. Only 16 kHz is accepted.
    """

    RATE = 16000

    def __init__(
        self,
        threshold: float = 0.5,
        min_speech_s: float = 0.25,
        min_silence_s: float = 0.1,
        pad_s: float = 0.03,
    ) -> None:
        self.threshold = threshold
        self.min_speech_s = min_speech_s
        self.min_silence_s = min_silence_s
        self.pad_s = pad_s
        self._model: Any = None

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return (
            f"silero-vad {version('silero-vad')} threshold={self.threshold} min_speech={self.min_speech_s} "
            f"min_silence={self.min_silence_s} pad={self.pad_s}"
        )

    def setup(self) -> None:
        """Load the weights; again does nothing."""
        if self._model is None:
            from silero_vad import load_silero_vad

            self._model = load_silero_vad(sequence=True)

    def speech(self, samples: npt.NDArray[np.float32], rate: int) -> list[tuple[float, float]]:
        """Stretches of speech (start, end) in seconds; see the role.

        Raises:
            ValueError: `rate` is not 16 kHz.
        """
        if rate != self.RATE:
            raise ValueError(f"silero-vad is used at {self.RATE} Hz, got {rate}")
        if not len(samples):
            return []
        self.setup()
        from silero_vad.utils_vad import get_speech_timestamps_from_probs

        audio = np.ascontiguousarray(samples, dtype=np.float32)
        stretches = get_speech_timestamps_from_probs(
            self._model.audio_forward(audio, sampling_rate=rate),
            sampling_rate=rate,
            threshold=self.threshold,
            min_speech_duration_ms=round(1000 * self.min_speech_s),
            min_silence_duration_ms=round(1000 * self.min_silence_s),
            speech_pad_ms=round(1000 * self.pad_s),
            audio_length_samples=len(audio),
        )
        return [(s["start"] / rate, s["end"] / rate) for s in stretches]
