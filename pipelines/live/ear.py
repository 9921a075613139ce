"""Sound as it arrives, as the rows of features that frames hear."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backends.sound.audio_embedder import RATE, AudioEmbedder
from trainer.data.clip import audio_rows

BEFORE_S = 2.0  # of what was heard already, for an embedder that hears in context
LATE_S = 2.0  # of a microphone's sound that waits at most: who speaks wants an answer to the last word

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Heard:
    """What some frames hear."""

    rows: npt.NDArray[np.float32]  # [F, D], fewer than frames where the sound ends
    samples: Samples  # [N] at `RATE`
    begin_s: float  # of the samples, from the beginning of the recording or of what was spoken


class Ear:
    """Embeds what has arrived, frame by frame; `hear` may be called from another thread than `take`.

    In training an embedder heard a clip as a whole; here it hears up to 2 s before the frames, and nothing
    after them.
    """

    def __init__(self, embedder: AudioEmbedder, fps: float) -> None:
        """embedder: that of training, set up; fps: frames a second."""
        self._embedder, self._fps = embedder, fps
        self._lock = threading.Lock()
        self._waiting = self._before = np.zeros(0, np.float32)
        self._heard = 0  # samples

    def hear(self, samples: Samples, live: bool) -> None:
        """Mono samples in [-1, 1] at `RATE`.

        live: they follow what has arrived, of which the oldest is forgotten when more than 2 s wait; else
        they are a recording, which takes the place of everything before.
        """
        with self._lock:
            if not live:
                self._before, self._heard, self._waiting = self._before[:0], 0, samples
                return
            arrived = np.concatenate([self._waiting, samples])
            late = max(0, len(arrived) - round(LATE_S * RATE))
            self._waiting, self._heard = arrived[late:], self._heard + late

    def take(self, frames: int) -> Heard | None:
        """What the next frames hear; None: nothing has arrived."""
        with self._lock:
            taken, self._waiting = np.split(self._waiting, [round(frames / self._fps * RATE)])
            begin, self._heard = self._heard, self._heard + len(taken)
            before = self._before
            self._before = np.concatenate([before, taken])[-round(BEFORE_S * RATE) :]
        count = min(frames, round(len(taken) * self._fps / RATE))
        features = self._embedder.embed(np.concatenate([before, taken]), RATE) if count else np.zeros((0, 0))
        if not len(features):  # too short for a row
            return None
        # In half precision, as shards hold them.
        times = len(before) / RATE + np.arange(count) / self._fps
        rows = audio_rows(features.astype(np.float16), self._embedder.rate_hz, times)
        return Heard(rows, taken, begin / RATE)
