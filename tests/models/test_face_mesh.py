"""MediaPipe's landmark model through LiteRT, against MediaPipe Face Mesh itself.

MediaPipe does not run in this environment: `tests.models.mesh_reference` runs it by the laptop's interpreter.
"""

from __future__ import annotations

import pickle
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from backends.faces.face_mesh_lite import LiteRtFaceMesh, Region, cut_out, to_picture
from backends.store.weights import Weights
from tests.models import mesh_reference, tiny_onnx

ROOT = Path(__file__).resolve().parent.parent.parent
LAPTOP = ROOT / ".venv" / "bin" / "python"
CLIPS = ("latentsync_man_en.mp4", "retalking_man_office.mp4", "liveportrait_man_outdoor_zh.mp4")
LIPS = (13, 14, 78, 308, 61, 291, 0, 17)
EYES = (33, 133, 160, 144, 158, 153, 263, 362, 387, 373, 385, 380)
Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    folder = tmp_path_factory.mktemp("mediapipe-face-mesh")
    tiny_onnx.BUILDERS["mediapipe-face-mesh"](folder)
    return Weights("mediapipe-face-mesh", folder, "0123456789ab")


def reference(folder: Path, clips: list[str]) -> dict[str, npt.NDArray]:
    out = folder / "reference.npz"
    command = [str(LAPTOP), "-m", "tests.models.mesh_reference", str(out), *clips]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    with np.load(out) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> dict[str, npt.NDArray]:
    """What MediaPipe finds in the portrait that turns."""
    return reference(tmp_path_factory.mktemp("portrait"), ["astronaut"])


def errors(ours: Floats, theirs: Floats, extent: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Distances [T, 468] of meshes that are found in all frames, in face widths (from temple to temple)."""
    assert np.isfinite(ours).all() and np.isfinite(theirs).all()
    width = np.median(np.linalg.norm((theirs[:, 234] - theirs[:, 454]) * extent, axis=1))
    return np.asarray(np.linalg.norm((ours - theirs) * extent, axis=2) / width)


def opening(mesh: Floats, extent: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The mouth's opening as `stages.head` measures it."""
    upper, lower, top, chin = ((mesh * extent)[:, k] for k in (13, 14, 10, 152))
    return np.asarray(np.linalg.norm(upper - lower, axis=1) / np.linalg.norm(top - chin, axis=1))


def test_portrait_as_mediapipe_finds_it(model: Weights, portrait: dict[str, npt.NDArray]) -> None:
    """Turned by up to 20 degrees. Measured: median 0.4 % of the face's width, 95 % within 1.4 %."""
    images = portrait["images_0"]
    assert np.array_equal(images, np.stack(mesh_reference.astronaut()))
    mesh = LiteRtFaceMesh(model).track(list(images), portrait["boxes_0"])
    away = errors(mesh, portrait["mesh_0"], images.shape[2:0:-1])
    assert np.median(away) < 0.006 and np.percentile(away, 95) < 0.02
    assert np.median(away[:, LIPS]) < 0.006 and np.median(away[:, EYES]) < 0.006


def test_talking_faces_as_mediapipe_finds_them(model: Weights, samples: Path, tmp_path: Path) -> None:
    """Three clips of four seconds. Measured: medians 0.15-0.25 % of the face's width, lips 0.20-0.29 %.

    The mouth's opening goes along with correlations of 0.979-0.992.
    """
    found = reference(tmp_path, [str(samples / "videos" / name) for name in CLIPS])
    for i, name in enumerate(CLIPS):
        images, theirs = found[f"images_{i}"], found[f"mesh_{i}"]
        extent = images.shape[2:0:-1]
        mesh = LiteRtFaceMesh(model).track(list(images), found[f"boxes_{i}"])
        away = errors(mesh, theirs, extent)
        assert np.median(away) < 0.005, name
        assert np.median(away[:, LIPS]) < 0.005 and np.median(away[:, EYES]) < 0.005, name
        assert np.percentile(away, 95) < 0.012, name
        ours, other = opening(mesh, extent), opening(theirs, extent)
        assert np.corrcoef(ours, other)[0, 1] > 0.96, name
        assert np.abs(ours - other).mean() < 0.15 * other.std(), name


def test_nothing_where_no_face_is(model: Weights, portrait: dict[str, npt.NDArray]) -> None:
    image, box = portrait["images_0"][0], portrait["boxes_0"][0]
    blank, missing = np.full_like(image, 128), np.full(4, np.nan, np.float32)
    corner, thin = np.array([0.0, 0.75, 0.2, 1.0], np.float32), np.array([0.5, 0.5, 0.5, 0.5], np.float32)
    boxes = np.stack([box, box, missing, corner, thin, box])
    mesh = LiteRtFaceMesh(model).track([image, blank, image, image, image, image], boxes)
    assert np.isfinite(mesh).all((1, 2)).tolist() == [True, False, False, False, False, True]
    assert np.array_equal(mesh[0], mesh[5])  # a lost face is looked for afresh
    assert LiteRtFaceMesh(model).track([], np.zeros((0, 4), np.float32)).shape == (0, 468, 2)


def test_a_clip_does_not_see_the_one_before(model: Weights, portrait: dict[str, npt.NDArray]) -> None:
    images, boxes = list(portrait["images_0"]), portrait["boxes_0"]
    net = LiteRtFaceMesh(model)
    first = net.track(images, boxes)
    net.track(images[::-1], boxes[::-1])
    assert np.array_equal(net.track(images, boxes), first)
    with ThreadPoolExecutor(4) as pool:
        for mesh in pool.map(lambda _: net.track(images, boxes), range(4)):
            assert np.array_equal(mesh, first)


def test_small_and_large_pictures_agree(model: Weights, portrait: dict[str, npt.NDArray]) -> None:
    """Normalised landmarks of the same picture at twice the size."""
    image, box = portrait["images_0"][0], portrait["boxes_0"][:1]
    large = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    net = LiteRtFaceMesh(model)
    away = errors(net.track([large], box), net.track([image], box), image.shape[1::-1])
    assert np.median(away) < 0.01


def test_region_cut_out_and_back() -> None:
    """A dot of the picture lies in the cut where its way back says."""
    image = np.zeros((211, 307, 3), np.uint8)
    cv2.circle(image, (180, 90), 4, (255, 255, 255), -1)
    region = Region(150.0, 100.0, 140.0, np.pi / 6)
    cut = cut_out(image, region, 192)
    assert cut.shape == (192, 192, 3) and cut.max() == 1
    y, x = np.nonzero(cut[..., 0] > 0.5)
    back = to_picture(np.array([[x.mean(), y.mean()]], np.float32) / 192, region)
    assert np.abs(back - (180, 90)).max() < 0.7
    right = to_picture(np.array([[1, 0.5]], np.float32), region)[0]
    assert right[0] > 150 and right[1] > 100  # turned clockwise
    assert np.allclose(cut_out(image + 9, Region(0, 0, 50, 0), 192)[0, 0], 9 / 255)  # the edge goes on


def test_pickles_ids_and_missing_file(model: Weights, tmp_path: Path) -> None:
    net = LiteRtFaceMesh(model)
    assert pickle.loads(pickle.dumps(net)).id == net.id
    assert "mediapipe-face-mesh@0123456789ab" in net.id and str(model.folder) not in net.id
    assert LiteRtFaceMesh(model, confidence=0.9).id != net.id
    assert LiteRtFaceMesh(model, device="cuda").id == net.id
    with pytest.raises(FileNotFoundError, match="face_landmark"):
        LiteRtFaceMesh(Weights("mesh", tmp_path)).setup()
