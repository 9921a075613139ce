"""Sound as stages and shards hear it: one channel, on the clip's clock."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import numpy.typing as npt

from media.requests import Audio

# Sound whose time stamps leave more than this out is filled with silence, s.
HOLE_S = 0.02


class Mono:
    """Resamples audio frames to one request and lays them on the clip's clock."""

    def __init__(self, request: Audio, channels: int) -> None:
        self.request = request
        # More than two channels become stereo first: a plain mean would bury the voice in the middle one.
        layout = "stereo" if channels > 2 else None
        self.resampler = av.AudioResampler(format="fltp", layout=layout, rate=request.rate)
        self.parts: list[npt.NDArray[np.float32]] = []

    def feed(self, frame: Any) -> None:
        """Take the next decoded frame; None: there are no more."""
        for out in self.resampler.resample(frame):
            self.parts.append(np.asarray(out.to_ndarray(), np.float32).mean(0))

    def silence(self, seconds: float) -> None:
        """Fill a hole."""
        self.parts.append(np.zeros(round(seconds * self.request.rate), np.float32))

    def finish(self, first: float, seconds: float) -> npt.NDArray[np.float32]:
        """Samples from clip time 0 on, `first` being the time of the first decoded one."""
        self.feed(None)
        samples = np.concatenate(self.parts) if self.parts else np.zeros(0, np.float32)
        shift = round(first * self.request.rate)
        samples = samples[-shift:] if shift < 0 else np.pad(samples, (shift, 0))
        return samples[: max(0, round(seconds * self.request.rate))].clip(-1, 1)
