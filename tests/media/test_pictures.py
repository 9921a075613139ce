"""Pictures that become RGB when they are read: near an exact area average, and the same however read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame

from media.orientation import UPRIGHT, Orientation
from media.pictures import Picture, Pictures, Scaler
from media.shown import Shower

Values = npt.NDArray[np.float64]
# Against the exact answer, grey levels: of the planes that are scaled, and of RGB made of them.
SCALED, SHOWN = 1.5, 5.5
LIMITED, FULL = 1, 2
FORMATS = {  # pixels to a sample of chroma, across and down
    "yuv420p": (2, 2),
    "nv12": (2, 2),
    "yuv422p": (2, 1),
    "yuv444p": (1, 1),
    "yuv420p10le": (2, 2),
    "yuv422p10le": (2, 1),
    "p010le": (2, 2),
}


def noise(width: int, height: int, seed: int, low: float, high: float) -> Values:
    """Waves of 30 pixels and more, in whole levels."""
    rng = np.random.default_rng(seed)
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    found = sum(
        np.sin(2 * np.pi * (x * np.cos(a) + y * np.sin(a)) / length + rng.uniform(0, 6))
        for length, a in zip((30, 50, 90, 200), rng.uniform(0, np.pi, 4), strict=True)
    )
    return np.asarray(low + (high - low) * (found / 8 + 0.5), np.float64).round()


def frame_of(name: str, planes: list[Values], limits: int) -> VideoFrame:
    """8-bit planes as a decoder gives them; in 10 bits a fourth of a level finer."""
    height, width = planes[0].shape
    made = VideoFrame(width, height, name)
    made.colorspace, made.color_range = 1, limits
    shift = {"yuv420p10le": 4, "yuv422p10le": 4, "p010le": 256}.get(name, 1)  # P010 has its bits above
    if name in ("nv12", "p010le"):
        planes = [planes[0], np.stack(planes[1:], -1).reshape(len(planes[1]), -1)]
    for plane, values in zip(made.planes, planes, strict=True):
        memory = np.frombuffer(memoryview(plane), np.uint8 if shift == 1 else np.uint16)
        rows = memory.reshape(plane.height, -1)
        stored = (values * 4).round() * 64 if shift == 256 else (values * shift).round()
        rows[:, : values.shape[1]] = stored
    return made


def averaged(plane: Values, width: int, height: int) -> Values:
    """Means over areas, exact."""

    def weights(long: int, short: int) -> Values:
        edges = np.linspace(0, long, short + 1)
        low, high = edges[:-1, None], edges[1:, None]
        at = np.arange(long)[None, :]
        return np.asarray((np.minimum(high, at + 1) - np.maximum(low, at)).clip(0) * short / long)

    return np.asarray(weights(plane.shape[0], height) @ plane @ weights(plane.shape[1], width).T)


def answer(planes: list[Values], width: int, height: int, limits: int) -> Values:
    """RGB by BT.709's equations, chroma averaged to half of the picture and repeated."""
    half = ((width + 1) // 2, (height + 1) // 2)
    luma = averaged(planes[0], width, height)
    blue, red = (
        np.repeat(np.repeat(averaged(plane, *half), 2, 0), 2, 1)[:height, :width] - 128
        for plane in planes[1:]
    )
    if limits == LIMITED:
        luma, blue, red = (luma - 16) * 255 / 219, blue * 255 / 224, red * 255 / 224
    green = luma - 0.1873 * blue - 0.4681 * red
    return np.stack([luma + 1.5748 * red, green, luma + 1.8556 * blue], -1)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("limits", [LIMITED, FULL])
@pytest.mark.parametrize("size", [(640, 360), (322, 182)])
def test_pictures_are_means_over_areas(name: str, limits: int, size: tuple[int, int]) -> None:
    width, height = size
    chroma = width // FORMATS[name][0], height // FORMATS[name][1]
    planes = [noise(*size, 1, 60, 180), noise(*chroma, 2, 108, 148), noise(*chroma, 3, 108, 148)]
    frame, shower = frame_of(name, planes, limits), Shower(1.0)
    shower.see(frame)
    for w, h in ((213, 120), (160, 90), (119, 67), (48, 27), (27, 48)):
        picture = shower.picture(frame, (w, h))
        sizes = [(w, h)] + [((w + 1) // 2, (h + 1) // 2)] * 2
        for plane, source, (columns, rows) in zip(picture.frame.planes, planes, sizes, strict=True):
            made = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)[:, :columns]
            assert np.abs(made - averaged(source, columns, rows)).max() <= SCALED, (w, h)
        if h % 2 == 0:  # between rows of colour of an odd height libswscale interpolates
            assert np.abs(picture.rgb() - answer(planes, w, h, limits)).max() <= SHOWN, (w, h)


def small(orientation: Orientation = UPRIGHT) -> Picture:
    planes = [noise(61, 34, 1, 60, 180), noise(31, 17, 2, 108, 148), noise(31, 17, 3, 108, 148)]
    return Picture(frame_of("yuv420p", planes, LIMITED), orientation, Scaler())


@pytest.mark.parametrize("orientation", [Orientation(m, t) for m in (False, True) for t in range(4)], ids=str)
def test_a_picture_is_turned_when_it_is_read(orientation: Orientation) -> None:
    stored, shown = small(), small(orientation)
    assert shown.rgb().flags.c_contiguous and shown.rgb().shape[1::-1] == shown.size
    assert np.array_equal(shown.rgb(), orientation.upright(stored.rgb()))
    assert stored.nbytes == 61 * 34 * 3 // 2


def test_pictures_are_a_sequence_of_copies() -> None:
    first, other = small(), small(Orientation(True, 2))
    black = np.zeros((34, 61, 3), np.uint8)
    pictures = Pictures([first, black, other])
    right = [first.rgb(), black, other.rgb()]
    pictures[0][:] = 0  # what is read is nobody else's
    assert len(pictures) == 3 and all(map(np.array_equal, pictures, right))
    assert np.array_equal(np.stack(pictures), np.stack(right))
    assert np.array_equal(pictures[-1], right[-1]) and np.array_equal(pictures[np.int64(2)], right[2])
    assert isinstance(pictures[1:], Pictures) and all(map(np.array_equal, pictures[::-1], right[::-1]))
    with pytest.raises(IndexError):
        pictures[3]


def test_what_is_kept_as_rgb_is_read_as_a_copy() -> None:
    """As pictures of high dynamic range are."""
    values = np.random.default_rng(0).integers(0, 256, (16, 32, 3), np.uint8)
    pictures = Pictures([Picture(VideoFrame.from_ndarray(values, format="rgb24"), UPRIGHT, Scaler())])
    pictures[0][:] = 0
    assert np.array_equal(pictures[0], values) and pictures.kept[0].nbytes == values.nbytes


def test_pictures_may_be_read_by_several_threads() -> None:
    shared = Scaler()
    planes = [noise(160, 90, 1, 60, 180), noise(80, 45, 2, 108, 148), noise(80, 45, 3, 108, 148)]
    pictures = Pictures([Picture(frame_of("yuv420p", planes, LIMITED), UPRIGHT, shared) for _ in range(64)])
    right = pictures[0]
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(image, right) for image in pool.map(pictures.__getitem__, range(64)))
