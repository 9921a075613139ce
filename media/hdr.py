"""High dynamic range (PQ, HLG; the base layer of Dolby Vision that is one of them) as BT.709 shows it.

The curve: signal to light (PQ: SMPTE ST 2084; HLG: ITU-R BT.2100 on a display of 1000 cd/m²), primaries of
BT.2020 to those of BT.709, highlights of up to 1000 cd/m² bent below the reference white of 203 cd/m² (ITU-R
BT.2408) by the spline of ITU-R BT.2390, section 5.4.1, on the largest of R, G and B so that hues stay, and
light to signal by ITU-R BT.1886. What is below 88 cd/m² keeps its light.
"""

from __future__ import annotations

import functools
import tempfile
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

PQ, HLG = 16, 18  # of transfer functions, as ITU-T H.273 numbers them
TRANSFERS = frozenset({PQ, HLG})
# Matrices of Dolby Vision without a base for others (profile 5), as FFmpeg numbers them: ICtCp, IPT-C2.
UNREADABLE = frozenset({14, 15})
PEAK = 1000.0  # cd/m²
WHITE = 203.0
NODES = 49  # of the table along each axis

Floats = npt.NDArray[np.float64]

_TO_709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
)  # ITU-R BT.2087
_LUMA = np.array([0.2627, 0.6780, 0.0593])  # of BT.2020
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128  # ST 2084


def tone_map(signal: Floats, transfer: int) -> Floats:
    """Non-linear R'G'B' of BT.2020 to that of BT.709, both [..., 3] in [0, 1].

    Args:
        signal: of PQ or HLG.
        transfer: one of `TRANSFERS`.
    """
    light = _pq_light(signal) if transfer == PQ else _hlg_light(signal)
    light = np.maximum(light @ _TO_709.T, 0.0)
    brightest = light.max(-1, keepdims=True)
    share = np.where(brightest > 0, _bent(brightest) / np.maximum(brightest, 1e-9), 0.0)
    shown: Floats = np.clip(light * share / WHITE, 0, 1) ** (1 / 2.4)
    return shown


def _pq_light(signal: Floats) -> Floats:
    root = signal ** (1 / _M2)
    light: Floats = 10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)
    return light


def _pq_signal(light: Floats) -> Floats:
    power = (light / 10_000) ** _M1
    signal: Floats = ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    return signal


def _hlg_light(signal: Floats) -> Floats:
    a, b, c = 0.17883277, 0.28466892, 0.55991073  # BT.2100, table 5
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    light: Floats = PEAK * scene * (scene @ _LUMA)[..., None] ** 0.2
    return light


def _bent(light: Floats) -> Floats:
    """BT.2390's spline from `PEAK` to `WHITE`, cd/m²."""
    top = _pq_signal(np.asarray(PEAK))
    signal = np.minimum(_pq_signal(light) / top, 1.0)
    target = _pq_signal(np.asarray(WHITE)) / top
    knee = 1.5 * target - 0.5
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * target
    )
    return _pq_light(np.where(signal < knee, signal, spline) * top)


@functools.cache
def _table(transfer: int) -> str:
    """The curve as FFmpeg's lut3d reads it from a file."""
    axis = np.linspace(0, 1, NODES)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")  # red changes fastest
    values = tone_map(np.stack([red, green, blue], -1).reshape(-1, 3), transfer)
    lines = [f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in values.tolist()]
    return "\n".join([f"LUT_3D_SIZE {NODES}", *lines, ""])


class ToneMap:
    """Frames in PQ or HLG to RGB of BT.709."""

    def __init__(self) -> None:
        self._graph: Any = None
        self._key: tuple[int, int, int] | None = None
        self._widen, self._narrow = VideoReformatter(), VideoReformatter()

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """A frame in PQ or HLG as rgb24 in BT.709."""
        wide = self._widen.reformat(frame, format="rgb48le", threads=1)
        key = (frame.width, frame.height, int(frame.color_trc))
        if key != self._key:
            self._graph, self._key = _graph(wide, int(frame.color_trc)), key
        self._graph.push(wide)
        return self._narrow.reformat(self._graph.pull(), format="rgb24", threads=1)


def _graph(frame: VideoFrame, transfer: int) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
    )
    with tempfile.NamedTemporaryFile("w", prefix="interavatar-", suffix=".cube", encoding="ascii") as file:
        file.write(_table(transfer))
        file.flush()
        table = graph.add("lut3d", file=file.name, interp="tetrahedral")
        graph.link_nodes(source, table, graph.add("buffersink")).configure()
    return graph
