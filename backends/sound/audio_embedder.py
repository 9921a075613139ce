"""Vectors for what is heard, a fixed number of them a second."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Final, Protocol

import numpy as np
import numpy.typing as npt

from backends.running.batching import Batcher
from backends.running.pretrained import Precision, check_precision, load_pretrained, torch_device
from backends.store.weights import Weights

Floats = npt.NDArray[np.float32]

RATE: Final = 16000  # samples a second that wav2vec 2.0 was trained on
WINDOW: Final = 400  # samples behind one row, 25 ms
HOP: Final = 320  # samples from one row to the next, 20 ms


class AudioEmbedder(Protocol):
    """Embeds a sound track over time.

    method: how its ids begin. bytes_per_second: of its rows in half precision.
    """

    method: ClassVar[str]
    bytes_per_second: ClassVar[int]

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    @property
    def rate_hz(self) -> float:
        """Rows a second."""
        ...

    def setup(self) -> None:
        """Load the weights; again does nothing."""
        ...

    def embed(self, samples: Floats, rate: int) -> Floats:
        """Float32 [T, D]; row i begins at i / rate_hz seconds.

        samples: mono float32 [N] in [-1, 1] at `rate` samples a second; too few for one row, or none, give
        [0, D].
        """
        ...


class LogMel:
    """The logarithm of mel band energies. Nothing in it is learned.

    It tells how loud which pitch range is, and no more: neither phonemes nor words, as wav2vec 2.0 does.
    25 ms Hann windows every 20 ms, so rows lie where wav2vec 2.0's lie; 80 triangular bands from 20 Hz to
    8 kHz, evenly spaced in mel (O'Shaughnessy 1987: 1127 ln(1 + f / 700)); natural logarithm of the power.
    """

    method = "log-mel"
    bytes_per_second = 50 * 80 * 2

    BANDS = 80
    FFT = 512
    LOWEST_HZ = 20.0
    FLOOR = 1e-10  # power; what digital silence is written as, -23.03

    rate_hz: Final = RATE / HOP

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return f"{self.method} 1 bands={self.BANDS} {self.rate_hz:g}Hz"

    def setup(self) -> None:
        """Nothing to load."""

    def embed(self, samples: Floats, rate: int) -> Floats:
        """See `AudioEmbedder.embed`; float32 [T, 80], T = (N - 400) // 320 + 1.

        Raises:
            ValueError: `rate` is not 16 kHz.
        """
        _check(rate)
        if len(samples) < WINDOW:
            return np.zeros((0, self.BANDS), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(np.asarray(samples, np.float32), WINDOW)[::HOP]
        hann = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
        power = np.abs(np.fft.rfft(windows * hann, self.FFT)) ** 2
        return np.log(np.maximum(power @ self._bands().T, self.FLOOR)).astype(np.float32)

    def _bands(self) -> Floats:
        """Weights of the spectrum's bins in each band, [80, 257]."""
        mel = 1127 * np.log1p(np.arange(self.FFT // 2 + 1) * RATE / self.FFT / 700)
        edges = np.linspace(1127 * np.log1p(self.LOWEST_HZ / 700), mel[-1], self.BANDS + 2)[:, None]
        rising = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
        return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


class Wav2Vec2:
    """wav2vec 2.0 (Baevski et al. 2020), the last hidden state; InterAvatar's audio condition (B.2).

    The sound is brought to mean 0 and variance 1 as the checkpoint's own feature extractor says, then read
    in one piece up to `chunk_s`. A longer sound is read in chunks of that length which share `overlap_s`
    seconds; each row comes from the chunk in which it lies further from the edge. Such rows differ a little
    from those of one piece, since the network looks at all it is given.

    Chunks of one length share a batch, those of other samples too; chunks of other lengths run one after the
    other, because this model was trained without a mask for padding.

    Args:
        model: a transformers folder: config.json, preprocessor_config.json, model.safetensors.
        chunk_s: longest piece, seconds.
        overlap_s: what neighbouring chunks share, seconds.
        batch: most chunks at once.
        device: "cuda" or "cpu"; None: CUDA where there is one.
        precision: of weights and sums: "float32", "bfloat16" or "float16"; None: float16, in which rows are
            stored, on CUDA and float32 on a CPU.

    Raises:
        ValueError: `overlap_s` is not below `chunk_s`, or there is no such precision.
    """

    method = "wav2vec2"
    bytes_per_second = 50 * 768 * 2
    packages = ("torch", "transformers")
    rate_hz: Final = RATE / HOP

    def __init__(
        self,
        model: Weights,
        chunk_s: float = 30.0,
        overlap_s: float = 4.0,
        batch: int = 8,
        device: str | None = None,
        precision: Precision | None = None,
    ) -> None:
        if precision is not None:
            check_precision(precision)
        if not 0 <= overlap_s < chunk_s:
            raise ValueError(f"chunks of {chunk_s:g} s cannot share {overlap_s:g} s")
        self.model = model
        self.chunk_s = chunk_s
        self.overlap_s = overlap_s
        self.batch = batch
        self.device = device
        self.precision = precision
        self._net: Any = None
        self._extractor: Any = None
        self._batcher: Batcher[Floats, Floats] | None = None

    @property
    def id(self) -> str:
        """Implementation, version and settings; a precision that was asked for."""
        precision = "" if self.precision is None else f", {self.precision}"
        return f"{self.method}({self.model}, chunk={self.chunk_s:g}, overlap={self.overlap_s:g}{precision})"

    def setup(self) -> None:
        """Load the weights; again does nothing.

        Raises:
            OSError: a file is missing.
            ValueError: the checkpoint lacks weights, or makes rows at another rate.
        """
        if self._batcher is not None:
            return
        import torch
        from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

        device = torch_device(self.device)
        config = Wav2Vec2Config.from_pretrained(self.model.folder, local_files_only=True)
        # Spectra are masked in training alone, by a vector that the published file leaves out.
        config.mask_time_prob = config.mask_feature_prob = 0.0
        precision = self.precision or ("float16" if device.startswith("cuda") else "float32")
        net = load_pretrained(Wav2Vec2Model, self.model, device, getattr(torch, precision), config)
        if net.config.inputs_to_logits_ratio != HOP:
            raise ValueError(
                f"{self.model.folder}: a row every {net.config.inputs_to_logits_ratio} samples, not {HOP}"
            )
        self._extractor = Wav2Vec2FeatureExtractor.from_pretrained(self.model.folder, local_files_only=True)
        self._net = net
        self._batcher = Batcher(self._forward, self.batch)

    def embed(self, samples: Floats, rate: int) -> Floats:
        """See `AudioEmbedder.embed`; float32 [T, 768] for the base model, T = (N - 400) // 320 + 1.

        Raises:
            ValueError: `rate` is not 16 kHz.
        """
        _check(rate)
        self.setup()
        assert self._batcher is not None
        rows = (len(samples) - WINDOW) // HOP + 1
        if rows < 1:
            return np.zeros((0, self._net.config.hidden_size), np.float32)
        sound = np.asarray(samples, np.float32)
        sound = np.asarray(self._extractor(sound, sampling_rate=rate)["input_values"][0], np.float32)
        size = round(self.chunk_s * self.rate_hz)
        if rows <= size:
            return self._batcher([sound])[0]
        first = chunk_starts(rows, size, round(self.overlap_s * self.rate_hz))
        length = (size - 1) * HOP + WINDOW
        found = self._batcher([sound[i * HOP : i * HOP + length] for i in first])
        return joined(found, first)

    def _forward(self, chunks: list[Floats]) -> list[Floats]:
        import torch

        out: dict[int, Floats] = {}
        for length in sorted({len(chunk) for chunk in chunks}):
            places = [i for i, chunk in enumerate(chunks) if len(chunk) == length]
            with torch.inference_mode():
                values = torch.from_numpy(np.stack([chunks[i] for i in places]))
                values = values.to(self._net.device, self._net.dtype)
                states = self._net(values).last_hidden_state.float().cpu().numpy()
            out.update(zip(places, states, strict=True))
        return [out[i] for i in range(len(chunks))]


def chunk_starts(rows: int, size: int, overlap: int) -> list[int]:
    """First row of each chunk of `size` rows out of more; the last chunk ends with the last row."""
    last = rows - size
    return [*range(0, last, size - overlap), last]


def joined(chunks: Sequence[Floats], first: Sequence[int]) -> Floats:
    """One [T, D] out of chunks [size, D] that begin at rows `first`: cut in the middle of each overlap."""
    size = len(chunks[0])
    edges = [0, *((a + size + b) // 2 for a, b in pairwise(first)), first[-1] + size]
    places = zip(chunks, first, pairwise(edges), strict=True)
    return np.concatenate([chunk[begin - start : end - start] for chunk, start, (begin, end) in places])


def _check(rate: int) -> None:
    if rate != RATE:
        raise ValueError(f"the audio embedder hears {RATE} Hz, got {rate}")
