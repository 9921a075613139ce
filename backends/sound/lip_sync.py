"""Whether a mouth moves with a voice, and how far apart the two are in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MouthTrack:
    """One person's mouth through a clip. Row i of everything belongs to `times[i]`.

    times: float64 [T], seconds on the clip's clock, increasing.
    opening: [T], inner-lip distance as a share of the face's height, NaN where unknown.
    images: T RGB frames, uint8 [H, W, 3], and boxes: [T, 4], the face in them, x0 y0 x1 y1, normalised,
        NaN where unknown; both None unless the scorer wants pictures.
    """

    times: npt.NDArray[np.float64]
    opening: npt.NDArray[np.float32]
    images: Sequence[npt.NDArray[np.uint8]] | None = None
    boxes: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class LipSyncScore:
    """What a scorer found.

    offset_s: how much later the sound is than the picture, seconds: positive when the mouth moves first.
        SyncNet's public program prints the opposite sign.
    confidence: how surely both belong together, on the scorer's own scale, higher is surer.
    correlation: -1 to 1 at that offset, or None for a scorer that has none.
    distance: between embeddings of lips and sound at that offset, 0 and more (SyncNet's is called Sync-D), or
        None for a scorer that has none.
    """

    offset_s: float
    confidence: float
    correlation: float | None = None
    distance: float | None = None


class LipSyncScorer(Protocol):
    """Compares a mouth with a sound track."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    @property
    def method(self) -> str:
        """A short name of what is measured; it tells the scale of the confidence."""
        ...

    @property
    def network(self) -> str:
        """Empty for SyncNet with the published weights; else what stands in its place, snake case."""
        ...

    @property
    def picture_fps(self) -> float | None:
        """Frames a second it wants to look at (SyncNet: 25), or None when the opening is enough."""
        ...

    def setup(self) -> None:
        """Load the weights; again does nothing."""
        ...

    def score(self, track: MouthTrack, samples: npt.NDArray[np.float32], rate: int) -> LipSyncScore | None:
        """Score one clip; None when there is too little of the mouth or of sound to tell.

        samples: mono float32 [N] in [-1, 1], sample 0 at clip time 0, `rate` samples a second.
        """
        ...


class MouthEnvelopeCorrelation:
    """Correlation of the mouth's opening with the loudness of its voice. No learned model.

    The opening and the loudness between 1 and 3 kHz (power to the 0.3, Stevens' law) are kept between 2
    and 8 Hz, the rhythm of syllables. Lip area follows the voice best around the second formant (Grant
    and Seitz 2000, doi:10.1121/1.1288668), at 2-7 Hz (Chandrasekaran et al. 2009,
    doi:10.1371/journal.pcbi.1000436).

    offset_s is the lag of the highest Pearson correlation within `max_offset_s`, less `lag_s`: so much later
    than the lips' opening is the loudness of speech in sync. confidence is the highest correlation within
    `in_sync_s` of sync, in standard deviations above its mean over all circular shifts of the sound by more
    than `apart_s`: 0 is chance.

    It says that this mouth may well speak this sound now. It does not see which sound a mouth forms, so it
    is no SyncNet confidence and takes a well-timed dub for speech; it is weak for a few seconds and for
    lips that barely open.

    Measured on nine talking clips of five sources, 5 to 12 s, mouth at 25 Hz. By lip closures and releases
    against the edges of the sound, read by eye to about 0.02 s, their sound is -0.06 to 0.27 s late. Band and
    lags were chosen on the same clips: expect somewhat less elsewhere.

    - lag_s is the median of lag less label: 0.017 s (-0.009 to 0.034, standard deviation 0.016). A picture's
      time is that of its beginning, so half a frame, 0.02 s, explains it. With the constant from other
      sources offset_s is off by 0.02 s (root mean square), at most by 0.032 s; of pieces of 5 s 12 of 15 are
      within 0.04 s, the others follow a wrong syllable.
    - sound moved by 0.04 to 0.4 s moves offset_s by as much, within 0.01 s, up to `max_offset_s`.
    - own against another source's sound: area under the ROC curve 0.93 (bootstrap over sources, 95 %: 0.82 to
      1), in pieces of 5 s 0.90 (0.84 to 1). Above 0 are all true pairs and half of the false ones.
    """

    RATE = 100.0  # Hz; both signals are laid on this clock

    def __init__(
        self,
        sound_hz: tuple[float, float] = (1000.0, 3000.0),
        motion_hz: tuple[float, float] = (2.0, 8.0),
        max_offset_s: float = 0.6,
        lag_s: float = 0.017,
        in_sync_s: float = 0.3,
        apart_s: float = 0.6,
        min_seconds: float = 3.0,
        min_seen: float = 0.7,
    ) -> None:
        self.sound_hz = sound_hz
        self.motion_hz = motion_hz
        self.max_offset_s = max_offset_s
        self.lag_s = lag_s
        self.in_sync_s = in_sync_s
        self.apart_s = apart_s
        self.min_seconds = min_seconds
        self.min_seen = min_seen

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return (
            f"{self.method} 2 sound={self.sound_hz} motion={self.motion_hz} "
            f"offset={self.max_offset_s} lag={self.lag_s} in_sync={self.in_sync_s} apart={self.apart_s} "
            f"min_seconds={self.min_seconds} min_seen={self.min_seen}"
        )

    @property
    def method(self) -> str:
        """What is measured."""
        return "mouth_envelope_correlation"

    @property
    def network(self) -> str:
        """Not SyncNet."""
        return self.method

    @property
    def picture_fps(self) -> None:
        """The mouth's opening is enough."""
        return

    def setup(self) -> None:
        """Nothing to load."""

    def score(self, track: MouthTrack, samples: npt.NDArray[np.float32], rate: int) -> LipSyncScore | None:
        """Score one clip; None below `min_seconds` or with the mouth seen in less than `min_seen` of it."""
        seen = np.isfinite(track.opening)
        if len(seen) < 2 or seen.mean() < self.min_seen:
            return None
        times, opening = track.times[seen], np.asarray(track.opening, np.float64)[seen]
        loudness = self._loudness(samples, rate)
        clock = np.arange(len(loudness)) / self.RATE
        both = (clock >= times[0]) & (clock <= times[-1])
        if both.sum() < self.min_seconds * self.RATE:
            return None
        mouth = self._rhythm(np.interp(clock[both], times, opening))
        sound = self._rhythm(loudness[both])
        if min(mouth.std(), sound.std()) < 1e-9:
            return None
        first, last = self._lags(self.max_offset_s)
        correlation = np.array([_pearson(mouth, sound, lag) for lag in range(first, last + 1)])
        lag = (first + _peak(correlation)) / self.RATE
        return LipSyncScore(lag - self.lag_s, self._confidence(mouth, sound), float(correlation.max()))

    def _lags(self, offset_s: float) -> tuple[int, int]:
        """Lags at which the sound is `offset_s` early and late, samples at `RATE`."""
        return round((self.lag_s - offset_s) * self.RATE), round((self.lag_s + offset_s) * self.RATE)

    def _loudness(self, samples: npt.NDArray[np.float32], rate: int) -> Floats:
        """Loudness of the band at `RATE`, value i at i / RATE seconds."""
        from scipy.signal import stft

        hop = round(rate / self.RATE)
        if len(samples) < 2 * hop:
            return np.zeros(0)
        size = round(0.032 * rate)
        hz, _, spectrum = stft(samples, rate, nperseg=size, noverlap=size - hop)
        low, high = self.sound_hz
        power = (np.abs(spectrum[(hz >= low) & (hz < high)]).astype(np.float64) ** 2).sum(0)
        return power**0.3

    def _rhythm(self, signal: Floats) -> Floats:
        from scipy.signal import butter, sosfiltfilt

        sos = butter(2, self.motion_hz, "bandpass", fs=self.RATE, output="sos")
        return np.asarray(sosfiltfilt(sos, signal - signal.mean()))

    def _confidence(self, mouth: Floats, sound: Floats) -> float:
        length = len(mouth)
        mouth, sound = (mouth - mouth.mean()) / mouth.std(), (sound - sound.mean()) / sound.std()
        circular = np.fft.irfft(np.fft.rfft(sound) * np.conj(np.fft.rfft(mouth)), length) / length
        first, last = self._lags(self.in_sync_s)
        width = last - first + 1
        # For each shift of the sound the highest correlation in a window like the one of lags in sync.
        wrapped = np.concatenate([circular, circular[:width]])
        highest = np.lib.stride_tricks.sliding_window_view(wrapped, width).max(1)[:length]
        shift = np.abs((np.arange(length) - first + length // 2) % length - length // 2)
        chance = highest[shift > self.apart_s * self.RATE]
        return float((highest[first % length] - chance.mean()) / max(float(chance.std()), 1e-6))


def _pearson(mouth: Floats, sound: Floats, lag: int) -> float:
    """Correlation of the mouth with the sound `lag` samples later, over what both cover."""
    a, b = (mouth[: len(mouth) - lag], sound[lag:]) if lag >= 0 else (mouth[-lag:], sound[:lag])
    return float(np.corrcoef(a, b)[0, 1])


def _peak(values: Floats) -> float:
    """Place of the highest of `values`, between two of them by the parabola through it and its neighbours."""
    best = int(np.argmax(values))
    if not 0 < best < len(values) - 1:
        return float(best)
    before, at, after = values[best - 1 : best + 2]
    bend = before - 2 * at + after
    return best + (0.5 * float((before - after) / bend) if bend < 0 else 0.0)
