"""SyncNet: whether lips and sound belong together, learned from talking faces."""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backends.running.batching import Batcher
from backends.running.pretrained import Precision, autocast, check_precision, torch_device
from backends.sound.lip_sync import LipSyncScore, MouthTrack
from backends.store.weights import Weights

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

RATE: Final = 16000  # samples a second
FPS: Final = 25  # pictures a second
SIDE: Final = 224  # px, of a crop
FRAMES: Final = 5  # pictures that one embedding sees
COLUMNS: Final = 20  # columns of MFCC, 10 ms each, that one embedding hears
GREY: Final = 110  # outside the picture


class SyncNetScorer:
    """SyncNet (Chung and Zisserman 2016, "Out of time"), the measures called Sync-C and Sync-D.

    Follows the authors' public program (joonson/syncnet_python): crops of the face of 224 px with the box's
    middle and size smoothed over 13 frames, windows of 0.2 s, Euclidean distances of lips and sound shifted
    by up to 15 frames (zeros beyond the ends), averaged over the windows for each shift. confidence is the
    median of these averages less the least, distance the least, offset_s its shift; there is no correlation.
    The program's offset counts the other way: it is positive, in frames, where the sound is early.

    What differs: faces come from the pipeline's own detector, in each picture too, but of any size; crops are
    not compressed as video in between; the smoothing repeats the first and last box where the program
    reads zeros. Where the face is lost, the stretches around are scored as the program scores tracks, and
    their windows averaged.

    Float32 by default: published thresholds were found in it.

    Args:
        model: folder with syncnet_v2.model.
        crop_scale: margin around the face as a share of half its size.
        smooth: frames over which the median of the boxes is taken, odd.
        max_shift: largest shift, frames.
        min_seconds: a shorter stretch with a face is not scored; LatentSync's evaluation takes 2 s, the
            authors' program 4 s.
        batch: windows of 0.2 s at once.
        device: "cuda" or "cpu"; None: CUDA where there is one.
        precision: of the sums: "float32", "bfloat16" or "float16".

    Raises:
        ValueError: `smooth` is even, or there is no such precision.
    """

    packages = ("torch",)

    def __init__(
        self,
        model: Weights,
        crop_scale: float = 0.4,
        smooth: int = 13,
        max_shift: int = 15,
        min_seconds: float = 2.0,
        batch: int = 32,
        device: str | None = None,
        precision: Precision = "float32",
    ) -> None:
        check_precision(precision)
        if smooth < 1 or smooth % 2 == 0:
            raise ValueError(f"a median over an even number of frames has no middle: smooth={smooth}")
        self.model = model
        self.crop_scale = crop_scale
        self.smooth = smooth
        self.max_shift = max_shift
        self.min_seconds = min_seconds
        self.batch = batch
        self.device = device
        self.precision = precision
        self._device = "cpu"
        self._net: Any = None
        self._lips: Batcher[Bytes, Floats] | None = None
        self._sounds: Batcher[Floats, Floats] | None = None

    @property
    def id(self) -> str:
        """Implementation, version and settings; a precision that is not float32."""
        precision = "" if self.precision == "float32" else f", {self.precision}"
        return (
            f"syncnet({self.model}, crop={self.crop_scale:g}, "
            f"smooth={self.smooth}, shift={self.max_shift}, min_seconds={self.min_seconds:g}{precision})"
        )

    @property
    def method(self) -> str:
        """The name of the weights."""
        return self.model.label

    @property
    def network(self) -> str:
        """Empty for the authors' weights."""
        return self.model.network("syncnet", "syncnet")

    @property
    def picture_fps(self) -> float:
        """25."""
        return float(FPS)

    def setup(self) -> None:
        """Load the weights; again does nothing.

        Raises:
            FileNotFoundError: there is no syncnet_v2.model.
            ValueError: it holds other weights than SyncNet's.
        """
        if self._lips is not None:
            return
        import torch

        path = self.model.file("syncnet_v2.model")
        state = torch.load(path, map_location="cpu", weights_only=True)
        net = build_net()
        try:
            missing, unknown = net.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise ValueError(f"{path}: not SyncNet's weights: {error}") from error
        # Counts batches in training only; torch before 0.4.1 did not store it.
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing or unknown:
            raise ValueError(f"{path}: not SyncNet's weights: missing {missing[:3]}, unknown {unknown[:3]}")
        self._device = torch_device(self.device)
        self._net = net.eval().to(self._device)
        self._sounds = Batcher(self._hear, self.batch)
        self._lips = Batcher(self._see, self.batch)

    def score(self, track: MouthTrack, samples: Floats, rate: int) -> LipSyncScore | None:
        """See `LipSyncScorer.score`; None without `min_seconds` of a face and its sound in one piece.

        Raises:
            ValueError: `rate` is not 16 kHz, or the track has no pictures.
        """
        if rate != RATE:
            raise ValueError(f"SyncNet hears {RATE} Hz, got {rate}")
        distances = self.distances(track, samples)
        return judged(distances) if len(distances) else None

    def distances(self, track: MouthTrack, samples: Floats) -> Floats:
        """Distances of lips and sound, float32 [windows, 2 max_shift + 1], of all stretches with a face.

        samples: mono at 16 kHz, sample 0 at clip time 0.

        Raises:
            ValueError: the track has no pictures.
        """
        if track.images is None or track.boxes is None:
            raise ValueError("SyncNet needs pictures and the boxes of the face in them")
        self.setup()
        found = [
            self._distances([track.images[i] for i in index], boxes, samples[round(start_s * RATE) :])
            for start_s, index, boxes in stretches(track.times, track.boxes)
            if len(index) >= self.min_seconds * FPS
        ]
        return np.concatenate([np.zeros((0, 2 * self.max_shift + 1), np.float32), *found])

    def _distances(self, images: list[Bytes], boxes: Floats, samples: Floats) -> Floats:
        """Distances [windows, shifts] of one stretch; no windows where its sound is too short."""
        count = min(len(images), len(samples) * FPS // RATE)
        windows = count - FRAMES  # the program leaves out the last one too
        if count < self.min_seconds * FPS or windows < 1:
            return np.zeros((0, 2 * self.max_shift + 1), np.float32)
        assert self._lips is not None and self._sounds is not None
        faces = np.stack(crops(images[:count], boxes[:count], self.crop_scale, self.smooth))
        sound = mfcc(samples[: count * RATE // FPS]).T.astype(np.float32)
        step = 100 // FPS
        lips = self._lips([faces[i : i + FRAMES] for i in range(windows)])
        sounds = self._sounds([sound[:, i * step : i * step + COLUMNS] for i in range(windows)])
        return shifted_distances(np.stack(lips), np.stack(sounds), self.max_shift)

    def _see(self, windows: list[Bytes]) -> list[Floats]:
        """Embeddings [1024] of windows [5, 224, 224, 3], BGR."""
        import torch

        with torch.inference_mode(), autocast(self._device, self.precision):
            pictures = torch.from_numpy(np.stack(windows)).to(self._device)
            features = self._net["netcnnlip"](pictures.permute(0, 4, 1, 2, 3).float())
            return list(self._net["netfclip"](features.flatten(1)).float().cpu().numpy())

    def _hear(self, windows: list[Floats]) -> list[Floats]:
        """Embeddings [1024] of windows [13, 20] of MFCC."""
        import torch

        with torch.inference_mode(), autocast(self._device, self.precision):
            features = self._net["netcnnaud"](torch.from_numpy(np.stack(windows)[:, None]).to(self._device))
            return list(self._net["netfcaud"](features.flatten(1)).float().cpu().numpy())


def build_net() -> Any:
    """The two towers, a ModuleDict with the names of the public weights.

    netcnnaud: [N, 1, 13, 20] to [N, 512, 1, 1]; netcnnlip: [N, 3, 5, 224, 224], 0-255, to [N, 512, 1, 1, 1];
    netfcaud, netfclip: [N, 512] to [N, 1024].
    """
    from torch import nn

    def sound(taken: int, given: int, kernel: Any = 3, padding: Any = 1) -> list[Any]:
        return [nn.Conv2d(taken, given, kernel, padding=padding), nn.BatchNorm2d(given), nn.ReLU()]

    def lips(taken: int, given: int, kernel: Any, stride: Any = 1, padding: Any = (0, 1, 1)) -> list[Any]:
        return [nn.Conv3d(taken, given, kernel, stride, padding), nn.BatchNorm3d(given), nn.ReLU()]

    def head() -> Any:
        return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))

    flat, half = (1, 3, 3), (1, 2, 2)
    return nn.ModuleDict(
        {
            "netcnnaud": nn.Sequential(
                *sound(1, 64),
                nn.Identity(),  # a pooling of one by one in the original, which numbers the layers
                *sound(64, 192),
                nn.MaxPool2d(3, (1, 2)),
                *sound(192, 384),
                *sound(384, 256),
                *sound(256, 256),
                nn.MaxPool2d(3, 2),
                *sound(256, 512, (5, 4), 0),
            ),
            "netfcaud": head(),
            "netfclip": head(),
            "netcnnlip": nn.Sequential(
                *lips(3, 96, (5, 7, 7), half, 0),
                nn.MaxPool3d(flat, half),
                *lips(96, 256, (1, 5, 5), half),
                nn.MaxPool3d(flat, half, (0, 1, 1)),
                *lips(256, 256, flat),
                *lips(256, 256, flat),
                *lips(256, 256, flat),
                nn.MaxPool3d(flat, half),
                *lips(256, 512, (1, 6, 6), padding=0),
            ),
        }
    )


def stretches(times: npt.NDArray[np.float64], boxes: Floats) -> list[tuple[float, list[int], Floats]]:
    """Where the face is seen without a break, at 25 frames a second.

    times: [T] seconds; boxes: [T, 4], NaN where unknown. Gives for each stretch its start in seconds, the
    frame to show at each 1/25 s from there on, and its boxes. No picture is shown 0.1 s or more off its time.
    """
    if not len(times):
        return []
    ticks = times[0] + np.arange(round((times[-1] - times[0]) * FPS) + 1) / FPS
    after = np.clip(np.searchsorted(times, ticks), 1, max(1, len(times) - 1))
    after = np.minimum(after, len(times) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(ticks - times[before] <= times[after] - ticks, before, after)
    shown = boxes[nearest]
    seen = np.isfinite(shown).all(1) & (shown[:, 2:] > shown[:, :2]).all(1)
    seen &= np.abs(times[nearest] - ticks) < 0.1
    out = []
    for is_seen, run in groupby(range(len(ticks)), key=lambda i: bool(seen[i])):
        if is_seen:
            ticked = list(run)
            index = [int(nearest[i]) for i in ticked]
            out.append((float(ticks[ticked[0]]), index, boxes[index]))
    return out


def crops(images: list[Bytes], boxes: Floats, crop_scale: float, smooth: int) -> list[Bytes]:
    """Squares around the face, uint8 [224, 224, 3], BGR, of RGB frames of one size.

    boxes: [T, 4] normalised. With s half the longer side of the smoothed box, a square reaches s above its
    middle and s (1 + 2 crop_scale) below it, so the mouth lies near the centre, and s (1 + crop_scale) to
    both sides; grey outside the frame.
    """
    import cv2
    from scipy.ndimage import median_filter

    height, width = images[0].shape[:2]
    x0, y0, x1, y1 = (boxes.astype(np.float64) * (width, height, width, height)).T
    half = np.maximum(x1 - x0, y1 - y0) / 2
    half, middle_x, middle_y = (
        median_filter(values, smooth, mode="nearest") for values in (half, (x0 + x1) / 2, (y0 + y1) / 2)
    )
    out = []
    for image, s, x, y in zip(images, half, middle_x, middle_y, strict=True):
        margin = int(s * (1 + 2 * crop_scale))
        wide = cv2.copyMakeBorder(image[..., ::-1], *(margin,) * 4, cv2.BORDER_CONSTANT, value=(GREY,) * 3)
        x, y = x + margin, y + margin
        top, bottom = int(y - s), int(y + s * (1 + 2 * crop_scale))
        left, right = int(x - s * (1 + crop_scale)), int(x + s * (1 + crop_scale))
        top, left = max(0, min(top, wide.shape[0] - 1)), max(0, min(left, wide.shape[1] - 1))
        square = wide[top : max(top + 1, bottom), left : max(left + 1, right)]
        out.append(np.asarray(cv2.resize(square, (SIDE, SIDE)), np.uint8))
    return out


def mfcc(samples: Floats) -> npt.NDArray[np.float64]:
    """Mel-frequency cepstra at 100 Hz, float64 [T, 13], of sound in [-1, 1] at 16 kHz.

    As python_speech_features 0.6 computes them for the authors' program: samples as 16-bit integers,
    pre-emphasis 0.97, rectangular windows of 25 ms, FFT of 512, 26 triangular bands from 0 to 8 kHz with
    edges on whole bins, natural logarithm, orthonormal DCT-II, sinusoidal lifter of 22; the logarithm of the
    window's energy in the place of the first one. T = 1 + ceil((N - 400) / 160), padded with zeros.
    """
    from scipy.fft import dct

    whole = np.round(np.asarray(samples, np.float64) * 32768).clip(-32768, 32767)
    sharp = np.append(whole[:1], whole[1:] - 0.97 * whole[:-1])
    count = 1 + max(0, -(-(len(sharp) - 400) // 160))
    sharp = np.pad(sharp, (0, max(0, (count - 1) * 160 + 400 - len(sharp))))
    windows = np.lib.stride_tricks.sliding_window_view(sharp, 400)[::160][:count]
    power = np.abs(np.fft.rfft(windows, 512)) ** 2 / 512
    tiny = np.finfo(np.float64).eps
    energy, bands = power.sum(1), power @ _bands().T
    cepstra = dct(np.log(np.where(bands == 0, tiny, bands)), type=2, axis=1, norm="ortho")[:, :13]
    cepstra *= 1 + 11 * np.sin(np.pi * np.arange(13) / 22)
    cepstra[:, 0] = np.log(np.where(energy == 0, tiny, energy))
    return np.asarray(cepstra)


@lru_cache(maxsize=1)
def _bands() -> npt.NDArray[np.float64]:
    """Weights of the 257 bins of the spectrum in 26 bands."""
    mel = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), 28)
    edges = np.floor(513 * 700 * (10 ** (mel / 2595) - 1) / RATE)
    low, middle, high = (edges[i : i + 26, None] for i in range(3))
    bins = np.arange(257)
    rising = (low <= bins) & (bins < middle)
    falling = (middle <= bins) & (bins < high)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(
            rising, (bins - low) / (middle - low), np.where(falling, (high - bins) / (high - middle), 0.0)
        )


def shifted_distances(lips: Floats, sounds: Floats, reach: int) -> Floats:
    """Euclidean distances of lips [T, D] to sounds [T, D] `reach` earlier to `reach` later.

    Gives [T, 2 reach + 1]: column j compares lips t with sound t + j - reach, zeros beyond the ends.
    """
    padded = np.pad(sounds, ((reach, reach), (0, 0)))
    count = len(lips)
    columns = [np.linalg.norm(lips - padded[j : j + count], axis=1) for j in range(2 * reach + 1)]
    return np.stack(columns, 1).astype(np.float32)


def judged(distances: Floats) -> LipSyncScore:
    """Offset, confidence and distance from distances [T, shifts], the middle column being no shift."""
    mean = distances.astype(np.float64).mean(0)
    best = int(mean.argmin())
    least = float(mean[best])
    return LipSyncScore((best - len(mean) // 2) / FPS, float(np.median(mean)) - least, distance=least)
