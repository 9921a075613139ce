"""Quality: known exposure, order of sharpness, bars, and real clips."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
from brisque import BRISQUE

from backends.pictures.image_quality import Brisque, _asymmetric_fit
from media.decode import Decoded
from stages.clip import Clip
from stages.quality import Quality, frozen, letterbox


@pytest.fixture(scope="module")
def stage() -> Quality:
    stage = Quality(pickle.loads(pickle.dumps(Brisque())))
    stage.setup()
    return stage


@pytest.fixture(scope="module")
def photo(samples) -> np.ndarray:
    image = cv2.cvtColor(cv2.imread(str(samples / "images" / "uniface_man2.jpg")), cv2.COLOR_BGR2RGB)
    return cv2.resize(image, (480, 720), interpolation=cv2.INTER_AREA)


def clip_of(stage: Quality, images: list[np.ndarray], box: tuple | None = None) -> Clip:
    times = [i / 2 for i in range(len(images))]
    height, width = images[0].shape[:2]
    decoded = Decoded(
        frames={stage.sees[0]: (times, images)},
        frame_times=np.arange(len(images) * 10) / 20,
        width=width,
        height=height,
        video_bytes=1000 * len(images),
    )
    arrays = {}
    if box is not None:
        arrays = {"face_times": np.array(times), "face_boxes": np.array([box] * len(times), np.float32)}
    return Clip(row={}, decoded=decoded, arrays=arrays)


def test_statistics_are_those_of_the_pixels(stage, photo):
    pictures = [photo, photo[::-1] // 2]
    found = stage.score(clip_of(stage, pictures))
    luma = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]
    assert found["luminance"] == pytest.approx(np.mean(luma), rel=1e-9)
    assert found["contrast"] == pytest.approx(np.mean([x.std() for x in luma]), rel=1e-9)
    assert found["overexposed_share"] == pytest.approx(np.mean([x >= 250 for x in luma]), rel=1e-9)
    assert found["underexposed_share"] == pytest.approx(np.mean([x <= 5 for x in luma]), rel=1e-9)
    sharp = [cv2.Laplacian(x, cv2.CV_64F).var() for x in luma]
    assert found["blur_frame"] == pytest.approx(np.median(sharp), rel=1e-9)


def test_the_fit_is_the_packages():
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=(40, 50)), rng.laplace(0.2, 1, (30, 30)), rng.normal(size=900) ** 3):
        theirs = BRISQUE.asymmetric_generalized_gaussian_fit(BRISQUE.__new__(BRISQUE), values)
        np.testing.assert_allclose(_asymmetric_fit(values), [np.ravel(x)[0] for x in theirs], rtol=1e-9)


def test_known_luma(stage):
    images = [np.full((480, 640, 3), value, np.uint8) for value in (0, 100, 255)]
    found = stage.score(clip_of(stage, images))
    assert found["luminance"] == pytest.approx(355 / 3, abs=0.5)
    assert (found["luminance_min"], found["luminance_max"]) == (0, 255)
    assert found["overexposed_share"] == pytest.approx(1 / 3)
    assert found["underexposed_share"] == pytest.approx(1 / 3)
    assert found["contrast"] == found["blur_frame"] == 0
    assert found["brisque"] is None and found["blur_face"] is None
    assert found["bitrate_per_pixel"] == pytest.approx(800 / (640 * 480))


def test_luma_weights(stage):
    green = np.zeros((480, 480, 3), np.uint8)
    green[..., 1] = 200
    assert stage.score(clip_of(stage, [green]))["luminance"] == pytest.approx(0.587 * 200, abs=1)


def test_blur_orders_sharpness(stage, photo):
    box = (0.25, 0.1, 0.75, 0.5)
    found = [
        stage.score(clip_of(stage, [cv2.GaussianBlur(photo, (0, 0), s) if s else photo], box))
        for s in (0, 2, 5)
    ]
    for name in ("blur_frame", "blur_face"):
        values = [f[name] for f in found]
        assert values[0] > 2 * values[1] > 2 * values[2]
    brisque = [f["brisque"] for f in found]
    assert brisque[0] + 20 < brisque[1] < brisque[2]
    assert brisque[0] >= 0 and brisque[2] <= 100


def test_small_source_is_not_sharper(stage, photo):
    """A quarter of the size holds a quarter of the detail, though its pixels differ more."""
    small = cv2.resize(photo, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    sharp, soft = (stage.score(clip_of(stage, [image]))["blur_frame"] for image in (photo, small))
    assert soft < 0.5 * sharp


def test_face_patch_is_the_box(stage, photo):
    half = photo.copy()
    half[:, :240] = cv2.GaussianBlur(photo, (0, 0), 6)[:, :240]
    left, right = (
        stage.score(clip_of(stage, [half], b))["blur_face"] for b in ((0, 0, 0.4, 1), (0.6, 0, 1, 1))
    )
    assert right > 5 * left
    outside = stage.score(clip_of(stage, [half], (-0.2, -0.1, 0.4, 0.5)))["blur_face"]
    assert outside is not None


def test_letterbox(photo):
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    assert letterbox([grey]) == 0
    barred = grey.copy()
    barred[:90] = barred[-90:] = 16
    assert letterbox([barred, barred]) == pytest.approx(180 / 720, abs=0.01)
    assert letterbox([barred.T]) == pytest.approx(180 / 720, abs=0.01)
    one_side = grey.copy()
    one_side[:90] = 0
    assert letterbox([one_side]) == 0
    moving = [grey, barred]
    assert letterbox(moving) == 0
    vignette = (np.outer(np.hanning(300), np.ones(400)) * 120).astype(np.uint8)
    assert letterbox([np.zeros((60, 80), np.uint8)]) == 0
    assert letterbox([vignette]) == 0


def test_frozen(photo):
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    other = np.roll(grey, 5, axis=1)
    assert frozen([grey], np.array([0.0])) is None
    assert frozen([grey, grey, other], np.array([0, 0.5, 1])) == 0.5
    assert frozen([other, grey, grey], np.array([0, 0.75, 1])) == 0.25  # of the time, not of the frames


def test_real_clips(stage, samples, decode_clip):
    found = {
        name: stage.score(decode_clip(samples / "videos" / name, stage))
        for name in ("liveportrait_woman_lake.mp4", "facerec_stage_multishot.mp4", "edtalk_obama.mp4")
    }
    lake, stage_show, obama = found.values()
    assert lake["luminance"] > 130 and stage_show["luminance"] < 40
    assert 60 < obama["luminance"] < 100
    assert lake["brisque"] < 30 < stage_show["brisque"]
    assert lake["blur_frame"] > 3 * obama["blur_frame"]
    assert all(f["letterbox_share"] == 0 for f in found.values())
    assert 0.005 < obama["bitrate_per_pixel"] < 0.2
    assert set(lake) == set(Quality.writes)


def test_same_numbers_twice(stage, samples, decode_clip):
    clip = decode_clip(samples / "videos" / "edtalk_obama.mp4", stage)
    assert stage.score(clip) == stage.score(clip)
