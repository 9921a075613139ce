from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from backends.faces.face_detector import CenterFace
from backends.faces.face_mesh import NUM_POINTS, MediaPipeFaceMesh
from media.decode import Decoded
from stages.clip import Clip
from stages.faces import Faces
from stages.head import _MODEL, _POINTS, Head, eye_aspect_ratio, head_pose, points_yaw


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Head to picture (x to the subject's left, y up, z to the camera): roll first, then pitch, then yaw."""
    y, p, r = np.radians((yaw, pitch, roll))
    turn = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    nod = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    tilt = np.array([[np.cos(r), np.sin(r), 0], [-np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return turn @ nod @ tilt


def mesh_of(yaw: float, pitch: float, roll: float, scale: float = 20) -> np.ndarray:
    """A head in a known pose 1 m from a pinhole camera that looks at it: a mesh in pixels."""
    mesh = np.zeros((NUM_POINTS, 2))
    mesh[[13, 14]] = (300, 290), (300, 310)
    chin = np.array([[0, -9.0, 4.5]])
    points = (np.concatenate([_MODEL, chin]) - _MODEL.mean(0)) @ rotation(yaw, pitch, roll).T
    nearer = 100 / (100 - points[:, 2:])
    mesh[[*_POINTS, 152]] = points[:, :2] * nearer * (scale, -scale) + (300, 200)
    return mesh


class Scripted:
    id = "scripted"

    def __init__(self, meshes: np.ndarray) -> None:
        self.meshes = meshes

    def setup(self) -> None:
        pass

    def track(self, images: Sequence[np.ndarray], boxes: np.ndarray) -> np.ndarray:
        return self.meshes.astype(np.float32)


@pytest.mark.parametrize(
    "angles", [(0, 0, 0), (30, 0, 0), (0, 20, 0), (0, 0, -15), (-40, 10, 25), (15, -25, 5)]
)
def test_pose_of_a_known_rotation(angles: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(head_pose(mesh_of(*angles)[None])[0], angles, atol=1.5)


def test_what_the_signs_mean() -> None:
    nose, forehead = _MODEL[0], _MODEL[2]
    middle = (300, 200)

    def seen(point: np.ndarray, *angles: float) -> np.ndarray:
        return (rotation(*angles) @ point)[:2] * (1, -1) + middle

    assert seen(nose, 20, 0, 0)[0] > seen(nose, 0, 0, 0)[0]  # own left is the picture's right
    assert seen(nose, 0, 20, 0)[1] < seen(nose, 0, 0, 0)[1]  # up
    assert seen(forehead, 0, 0, 20)[0] > seen(forehead, 0, 0, 0)[0]  # crown towards own left shoulder


def five_points(yaw: float, roll: float = 0, size: float = 90) -> np.ndarray:
    """The detector's points of a head in a known pose, [5, 2] in pixels; `size` from eyes to mouth."""
    y, r = np.radians((yaw, roll))
    apart, aside = np.cos(y), np.sin(y)
    upright = np.array(
        [(-0.53 * apart, 0), (0.53 * apart, 0), (0.42 * aside, 0.55), (-0.445 * apart, 1), (0.445 * apart, 1)]
    )
    return size * upright @ np.array([[np.cos(r), np.sin(r)], [-np.sin(r), np.cos(r)]]) + (300, 180)


def scores(meshes: np.ndarray, times: np.ndarray, turned: np.ndarray) -> dict:
    """What `Head` makes of meshes in pixels of a 640 x 480 frame and points turned by `turned` degrees."""
    stage = Head(Scripted(meshes / (640, 480)))
    images = [np.zeros((480, 640, 3), np.uint8)] * len(times)
    points = np.stack([five_points(yaw) / (640, 480) for yaw in turned])
    arrays = {"face_times": times, "face_landmarks": points.astype(np.float32)}
    frames = {stage.sees[0]: (list(times), images)}
    out = stage.score(Clip(row={}, decoded=Decoded(frames=frames), arrays=arrays))
    assert set(out) == set(Head.writes)
    return out


def of_mesh(yaw: float) -> float:
    """What a head turned so far shows in the mesh, degrees."""
    return float(np.degrees(np.arcsin(0.86 * np.sin(np.radians(yaw)))))


def test_a_head_that_turns_steadily() -> None:
    times = np.arange(50) / 12.5
    yaw = -20 + 12 * times
    meshes = np.stack([mesh_of(of_mesh(y), 0, 0) for y in yaw])
    meshes[20] = np.nan
    out = scores(meshes, times, yaw)
    assert out["head_motion"] == pytest.approx(12, abs=0.5)
    assert out["face_mesh_share"] == pytest.approx(49 / 50)
    assert out["head_yaw_range"] == pytest.approx(0.9 * 12 * times[-1], rel=0.05)
    assert out["head_yaw_max_abs"] == pytest.approx(25, abs=2)
    assert out["head_profile_share"] == 0
    assert np.isnan(out["mouth_opening"][20])
    assert np.isnan(out["head_pose"][20]).all()


def test_a_face_that_moves_across_the_frame() -> None:
    times = np.arange(50) / 12.5
    still = mesh_of(0, 0, 0)
    height = float(np.linalg.norm(still[10] - still[152]))
    out = scores(np.stack([np.add(still, (40 * t, 0)) for t in times]), times, np.zeros(50))
    assert out["head_translation"] == pytest.approx(40 / height, rel=1e-3)
    assert out["head_motion"] < 0.1
    np.testing.assert_allclose(out["mouth_opening"], 20 / height, rtol=1e-4)
    assert out["mouth_motion"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("yaw", [-85, -45, 0, 30, 70])
@pytest.mark.parametrize("roll", [-40, 0, 25])
def test_yaw_of_the_five_points(yaw: float, roll: float) -> None:
    assert points_yaw(five_points(yaw, roll)[None])[0] == pytest.approx(yaw, abs=1e-6)
    assert np.isnan(points_yaw(np.full((1, 5, 2), np.nan))[0])


def test_a_profile_is_told_whatever_the_mesh_says() -> None:
    """The mesh makes a face half turned of it, or none; so for the second half of the clip."""
    times = np.arange(40) / 12.5
    meshes = np.stack([mesh_of(of_mesh(10), 0, 0)] * 20 + [mesh_of(40, 0, 0)] * 20)
    meshes[30:] = np.nan
    out = scores(meshes, times, np.where(times < times[20], 10, 80))
    assert out["head_profile_share"] == 0.5
    assert out["head_yaw_share"] == 1
    assert out["head_yaw_max_abs"] == pytest.approx(80, abs=0.1)
    np.testing.assert_allclose(out["head_pose"][:20, 0], 10, atol=1)
    np.testing.assert_allclose(out["head_pose"][20:, 0], 80, atol=0.1)
    assert np.isnan(out["head_pose"][20:, 1:]).all()


def test_a_profile_is_not_carried_to_where_no_face_is() -> None:
    times = np.arange(40) / 12.5
    out = scores(np.full((40, NUM_POINTS, 2), np.nan), times, np.where(times < 0.5, 80, np.nan))
    assert out["head_profile_share"] == 1
    known = np.isfinite(out["head_pose"][:, 0])
    assert known[0] and times[known].max() == pytest.approx(0.48 + 0.75, abs=0.08)


def test_yaw_that_cannot_be_known_is_null() -> None:
    times = np.arange(10) / 12.5
    frontal = np.stack([mesh_of(0, 0, 0)] * 10)
    apart = scores(frontal, times, np.full(10, 40))
    assert apart["head_yaw_share"] == 0
    assert apart["head_yaw"] is None and apart["head_yaw_max_abs"] is None
    assert apart["head_profile_share"] is None
    assert apart["face_mesh_share"] == 1 and apart["mouth_motion"] is not None
    without = scores(np.full_like(frontal, np.nan), times, np.zeros(10))
    assert without["head_yaw_share"] == 0 and without["head_yaw"] is None
    turned = scores(np.full_like(frontal, np.nan), times, np.full(10, -55))
    assert turned["head_yaw"] == pytest.approx(-55, abs=0.1) and turned["head_profile_share"] == 0


def test_no_mesh_gives_none() -> None:
    stage = Head(Scripted(np.full((4, NUM_POINTS, 2), np.nan)))
    frames = {stage.sees[0]: ([0.0, 0.1, 0.2, 0.3], [np.zeros((48, 64, 3), np.uint8)] * 4)}
    out = stage.score(Clip(row={}, decoded=Decoded(frames=frames)))
    assert out["face_mesh_share"] == 0
    assert out["head_yaw"] is None
    assert out["head_motion"] is None
    assert np.isnan(out["mouth_opening"]).all()


@pytest.fixture(scope="module")
def stages() -> tuple[Faces, Head]:
    return Faces(CenterFace()), Head(MediaPipeFaceMesh())


def with_faces(path: Path, decode_clip: Callable[..., Clip], stages: tuple[Faces, Head]) -> Clip:
    clip = decode_clip(path, *stages)
    found = stages[0].score(clip)
    return Clip(
        row={}, decoded=clip.decoded, arrays={k: v for k, v in found.items() if isinstance(v, np.ndarray)}
    )


def mirrored(clip: Clip) -> Clip:
    assert clip.decoded is not None
    frames = {
        request: (times, [np.ascontiguousarray(image[:, ::-1]) for image in images])
        for request, (times, images) in clip.decoded.frames.items()
    }
    boxes = clip["face_boxes"]
    boxes = np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
    points = clip["face_landmarks"][:, [1, 0, 2, 4, 3]] * (-1, 1) + (1, 0)
    arrays = clip.arrays | {"face_boxes": boxes, "face_landmarks": points}
    return Clip(row={}, decoded=Decoded(frames=frames), arrays=arrays)


def test_mirroring_flips_yaw_and_roll(
    samples: Path, decode_clip: Callable[..., Clip], stages: tuple[Faces, Head]
) -> None:
    clip = with_faces(samples / "videos" / "retalking_man_office.mp4", decode_clip, stages)
    out, flipped = stages[1].score(clip), stages[1].score(mirrored(clip))
    assert out["face_mesh_share"] > 0.95
    assert out["head_yaw"] > 5  # he looks to the picture's right, his own left
    assert flipped["head_yaw"] == pytest.approx(-out["head_yaw"], abs=5)
    assert flipped["head_roll"] == pytest.approx(-out["head_roll"], abs=3)
    assert flipped["head_pitch"] == pytest.approx(out["head_pitch"], abs=3)


def test_still_and_moving_heads(
    samples: Path, decode_clip: Callable[..., Clip], stages: tuple[Faces, Head]
) -> None:
    speaker = stages[1].score(with_faces(samples / "videos" / "latentsync_man_en.mp4", decode_clip, stages))
    office_clip = with_faces(samples / "videos" / "retalking_man_office.mp4", decode_clip, stages)
    office = stages[1].score(office_clip)
    assert speaker["face_mesh_share"] > 0.95
    assert abs(speaker["head_yaw"]) < 15
    assert speaker["head_motion"] > 2 * office["head_motion"]
    assert speaker["mouth_motion"] > 0.015  # he speaks
    assert 0.15 < speaker["eyes_open"] < 0.4
    # Nothing of the clip before is left in the tracker.
    again = stages[1].score(office_clip)
    assert np.array_equal(office["head_pose"], again["head_pose"], equal_nan=True)
    assert np.array_equal(office["mouth_opening"], again["mouth_opening"], equal_nan=True)


def test_a_silent_mouth(samples: Path, decode_clip: Callable[..., Clip], stages: tuple[Faces, Head]) -> None:
    clip = with_faces(samples / "videos" / "liveportrait_woman_lake.mp4", decode_clip, stages)
    assert stages[1].score(clip)["mouth_motion"] < 0.01


def test_eye_aspect_ratio() -> None:
    mesh = np.zeros((2, NUM_POINTS, 2))
    for inner, uppers, lowers in ((133, (160, 158), (144, 153)), (362, (387, 385), (373, 380))):
        mesh[:, inner] = (10, 0)
        mesh[:, uppers] = (5, -1.5)
        mesh[:, lowers] = (5, 1.5)
        mesh[1, [*uppers, *lowers]] = (5, 0)
    np.testing.assert_allclose(eye_aspect_ratio(mesh), [0.3, 0])


def test_only_the_face_in_the_box_is_tracked(
    samples: Path, decode_clip: Callable[..., Clip], stages: tuple[Faces, Head]
) -> None:
    clip = decode_clip(samples / "videos" / "clearervoice_debate_two.avi", *stages)
    images = clip.frames(stages[1].sees[0]).images[:10]
    empty = np.tile(np.array([[0.0, 0.6, 0.15, 0.95]], np.float32), (10, 1))
    assert np.isnan(stages[1].face_mesh.track(images, empty)).all()
    left = np.tile(np.array([[0.24, 0.17, 0.35, 0.42]], np.float32), (10, 1))
    mesh = stages[1].face_mesh.track(images, left)
    assert np.isfinite(mesh).all(axis=(1, 2)).mean() > 0.7
    assert np.nanmax(mesh[..., 0]) < 0.5


def test_mesh_pickles_and_names_itself() -> None:
    assert pickle.loads(pickle.dumps(MediaPipeFaceMesh(margin=0.4))).id != MediaPipeFaceMesh().id
