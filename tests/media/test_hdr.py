"""High dynamic range as BT.709 shows it: the stated curve, and the table that stands for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from av.video.frame import VideoFrame

from media.decode import decode
from media.hdr import HLG, PEAK, PQ, WHITE, ToneMap, tone_map
from media.requests import Frames
from pipelines.shards.media import Wanted, pack
from tests.support.clips import ffmpeg


def pq(light: float) -> float:
    """ST 2084's signal of a light in cd/m², written down once more."""
    power = (light / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


@pytest.mark.parametrize("light", [0.0, 1.0, 20.0, 50.0, 88.0])
def test_light_below_the_knee_is_kept(light: float) -> None:
    shown = tone_map(np.full((1, 3), pq(light)), PQ)
    assert shown**2.4 * WHITE == pytest.approx(np.full((1, 3), light), abs=0.02 + 0.002 * light)


def test_highlights_are_bent_below_white_and_keep_their_order_and_hue() -> None:
    lights = np.array([100.0, 203.0, 400.0, 700.0, PEAK, 4000.0])
    shown = tone_map(np.stack([[pq(light)] * 3 for light in lights]), PQ)[:, 0]
    assert (
        (np.diff(shown[:5]) > 0.001).all() and shown[4] == pytest.approx(1, abs=1e-3) and shown[5] == shown[4]
    )
    red = tone_map(np.array([[pq(800.0), pq(200.0), pq(200.0)]]), PQ)[0]
    assert red[0] > 0.9 and 0.2 < red[1] / red[0] < 0.6 and red[2] == pytest.approx(red[1], abs=0.15)


def test_hlg_has_its_reference_white_where_pq_has() -> None:
    """BT.2408: 75 % of HLG is 203 cd/m² on a display of 1000."""
    hlg, other = tone_map(np.full((1, 3), 0.75), HLG), tone_map(np.full((1, 3), pq(203.0)), PQ)
    assert hlg == pytest.approx(other, abs=0.004)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_the_table_stands_for_the_curve(transfer: int) -> None:
    """For colours that BT.709 has; at its border the curve has a bend that the table cuts."""
    rng = np.random.default_rng(0)
    signal = rng.uniform(0.25, 0.75, (32, 64, 1)) + rng.uniform(-0.03, 0.03, (32, 64, 3))
    frame = VideoFrame.from_ndarray((signal * 65535).round().astype(np.uint16), format="rgb48le")
    frame.color_trc = transfer
    shown = ToneMap()(frame).to_ndarray()
    right = tone_map(signal, transfer) * 255
    off = np.abs(shown - right)
    assert np.median(off) < 1 and np.quantile(off, 0.99) < 3


@pytest.mark.parametrize(("transfer", "name"), [("arib-std-b67", "hlg"), ("smpte2084", "pq")])
def test_files_are_shown_near_what_was_filmed(tmp_path: Path, transfer: str, name: str) -> None:
    """A grey of 58 % in HLG or PQ, in stages and in the shard."""
    path = tmp_path / f"{name}.mp4"
    source = "color=0x808080:s=64x48:r=10:d=1,format=yuv420p10le,geq=lum=572:cb=512:cr=512"
    tags = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:log-level=none"
    ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx265", "-x265-params", tags, "-tag:v", "hvc1", path)
    right = tone_map(np.full((1, 3), (572 - 64) / 876), PQ if name == "pq" else HLG)[0, 0] * 255
    request = Frames(None, 48)
    assert decode(path, [request]).frames[request][1][0].mean() == pytest.approx(right, abs=3)
    (tmp_path / "made.mp4").write_bytes(pack(path, Wanted()).mp4)
    made = decode(tmp_path / "made.mp4", [request])
    assert made.color_transfer == 1 and made.frames[request][1][0].mean() == pytest.approx(right, abs=4)


@pytest.mark.parametrize(("width", "short_side"), [(70, 34), (70, 17), (66, 17), (66, 34)])
def test_colours_are_the_same_at_every_width(tmp_path: Path, width: int, short_side: int) -> None:
    """35, 33 and even columns of one colour: 16:9 at 480 lines is 853 wide."""
    path = tmp_path / "clip.mp4"
    source = f"color=0x808080:s={width}x34:r=10:d=0.2,format=yuv420p10le,geq=lum=500:cb=490:cr=560"
    tags = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:log-level=none"
    ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx265", "-x265-params", tags, "-tag:v", "hvc1", path)
    luma, blue, red = (500 - 64) / 876, (490 - 512) / 896, (560 - 512) / 896
    signal = [luma + 1.4746 * red, luma - 0.16455 * blue - 0.57135 * red, luma + 1.8814 * blue]
    right = tone_map(np.array([[signal]]), PQ)[0, 0] * 255
    request = Frames(None, short_side)
    image = decode(path, [request]).frames[request][1][0]
    assert image.shape[0] == short_side and np.abs(image - right).max() < 6
