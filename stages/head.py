"""Head pose, head motion, mouth and eyes of the main face, from its mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.faces.face_mesh import FaceMesh
from media.requests import Frames
from stages.clip import Clip, FrameSequence
from stages.contract import Array, Column, Score, Stage, StageConfig
from stages.faces import boxes_at

# Points that hold still when a face talks: vertex, its mirror image on the subject's left, and the
# vertex's place in centimetres (x to the subject's left, y up, z out of the face). Ten of the points on
# which MediaPipe itself aligns a face, from its canonical face model (Apache-2.0), rounded.
_STABLE = (
    (4, 4, (0.00, -0.46, 7.59)),  # nose tip
    (6, 6, (0.00, 2.47, 5.79)),  # nose bridge
    (10, 10, (0.00, 8.26, 4.48)),  # top of the forehead
    (33, 263, (-4.45, 2.66, 3.17)),  # outer corner of the eye
    (133, 362, (-1.86, 2.59, 3.76)),  # inner corner of the eye
    (129, 358, (-1.79, -0.98, 4.85)),  # wing of the nose
    (117, 346, (-5.26, 0.95, 2.97)),  # cheek bone
    (127, 356, (-7.74, 2.36, -2.01)),  # temple
    (54, 284, (-6.28, 6.62, 1.43)),  # side of the forehead
    (67, 297, (-3.52, 8.01, 3.73)),  # hair line
)
_POINTS = [a for a, _, _ in _STABLE] + [b for a, b, _ in _STABLE if a != b]
_MODEL = np.array([p for _, _, p in _STABLE] + [(-x, y, z) for a, b, (x, y, z) in _STABLE if a != b])

_FOREHEAD, _CHIN, _UPPER_LIP, _LOWER_LIP = 10, 152, 13, 14
# The five points of a face that looks at the camera: how far the eyes and the mouth's corners are apart, and
# how far the nose's tip goes aside with the sine of yaw, in distances from the eyes' middle to the mouth's.
# CenterFace on the turntable heads of tests/truth/make_head.py (20 portraits, -60 to 60 degrees).
_EYES_APART, _CORNERS_APART, _NOSE_ASIDE = 1.06, 0.89, 0.42
# The sine of the mesh's yaw over that of the head's: the mesh turns less. MediaPipe on the same heads.
_MESH_TURNS = 0.86
# Mesh and points of one face differ by less on 99 of 100 turntable heads to 60 degrees and real faces.
_MAX_DIFFERENCE = 25.0
# Every turntable head below so many degrees has a mesh; above, the points tell yaw without one.
_LOST_FROM = 45.0
# How far the camera is taken to be, in face heights: about 1.3 m from a face of 22 cm.
_DISTANCE = 6.0
# Outer and inner corner, then two pairs of points on the lids (upper, lower).
_EYES = ((33, 133, 160, 144, 158, 153), (263, 362, 387, 373, 385, 380))


class Head(Stage):
    """Head pose and its motion from dense landmarks.

    Signs: yaw is positive when the subject turns to their own left, pitch when they look up, roll when
    they tilt towards their own left shoulder; all zero when the face looks straight along the line of
    sight (so that a crop changes nothing).

    Two things tell yaw: the mesh, finely and in every frame, and the detector's five points. The mesh is
    fitted to faces that look at the camera: of a profile it makes a face half turned, or none. The points
    fall together as the head turns, so a face whose points say so is a profile, whatever the mesh says.
    Otherwise the mesh counts where the points agree with it. Where there is no mesh the points count if they
    are turned far enough for that; else, and where the two disagree, yaw is not known.
    """

    class Config(StageConfig):
        """Settings of `Head`."""

        fps: float = Field(25.0, gt=0, description="sampled frames a second")
        short_side: int = Field(480, ge=64, description="shorter side of the frames, pixels")
        max_gap_s: float = Field(
            0.75, gt=0, description="a face box holds for so long without another, seconds"
        )
        smooth_s: float = Field(
            0.25, ge=0, description="pose is averaged over so long before speeds, seconds"
        )
        profile_from: float = Field(
            63, gt=0, le=90, description="a face whose five points are turned so far is a profile, degrees"
        )

    version: ClassVar[int] = 2
    reads = ("face_times", "face_boxes", "face_landmarks")
    writes: ClassVar[Mapping[str, Column | Array]] = {
        "head_yaw": Score(
            "degrees", "median yaw, positive to the subject's own left; null when head_yaw_share is below 0.5"
        ),
        "head_pitch": Score("degrees", "median pitch, positive up"),
        "head_roll": Score("degrees", "median roll, positive towards the subject's own left shoulder"),
        "head_yaw_range": Score("degrees", "5th to 95th percentile of yaw; null likewise"),
        "head_pitch_range": Score("degrees", "5th to 95th percentile of pitch"),
        "head_roll_range": Score("degrees", "5th to 95th percentile of roll"),
        "head_yaw_max_abs": Score("degrees", "95th percentile of the absolute yaw; null likewise"),
        "head_yaw_share": Score("0-1", "share of sampled faces whose yaw is known: mesh and points agree"),
        "head_profile_share": Score("0-1", "share of those that are seen in profile"),
        "head_motion": Score("degrees per second", "median speed of head rotation"),
        "head_translation": Score("face heights per second", "median speed of the face across the frame"),
        "face_mesh_share": Score("0-1", "share of frames with a face mesh"),
        "mouth_motion": Score("share of face height", "standard deviation of the mouth's opening"),
        "eyes_open": Score("ratio", "median eye aspect ratio: lid distance over eye width, both eyes"),
        "mouth_times": Array("[T]", "seconds", "times of mouth_opening and head_pose"),
        "mouth_opening": Array("[T]", "share of face height", "inner-lip distance, NaN where no mesh"),
        "head_pose": Array("[T, 3]", "degrees", "yaw, pitch, roll, NaN where not known"),
    }

    def __init__(self, face_mesh: FaceMesh, config: Config | None = None) -> None:
        super().__init__(face_mesh, config=config)
        self.face_mesh = face_mesh

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Frames at `fps`."""
        return (Frames(self.config.fps, self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Pose, motion, mouth and eyes; what needs a mesh is None where there is none."""
        frames = clip.frames(self.sees[0])
        mesh = main_face_mesh(self.face_mesh, clip, frames, self.config.max_gap_s)
        pose = head_pose(mesh)
        pose[:, 0] = _head_yaw(pose[:, 0])
        opening = _distance(mesh, _UPPER_LIP, _LOWER_LIP) / _distance(mesh, _FOREHEAD, _CHIN)
        seen = np.isfinite(opening)
        out: dict[str, Any] = dict.fromkeys(self.writes)
        out |= {
            "mouth_times": frames.times,
            "mouth_opening": opening.astype(np.float32),
            "face_mesh_share": float(seen.mean()),
        }
        if seen.any():
            size = np.median(_distance(mesh, _FOREHEAD, _CHIN)[seen])
            out |= {
                "head_translation": self._speed(frames.times, mesh[:, _POINTS].mean(1) / size),
                "mouth_motion": float(opening[seen].std()),
                "eyes_open": float(np.median(eye_aspect_ratio(mesh[seen]))),
            }
        if clip["face_landmarks"] is not None:
            height, width = frames.images[0].shape[:2]
            turned = points_yaw(clip["face_landmarks"] * (width, height))
            out |= self._weighed(frames.times, pose, clip["face_times"], turned)
        out["head_pose"] = pose.astype(np.float32)
        out["head_motion"] = self._speed(frames.times, pose)
        for i, axis in enumerate(("yaw", "pitch", "roll")):
            known = pose[np.isfinite(pose[:, i]), i]
            if len(known) and (axis != "yaw" or (out["head_yaw_share"] or 0) >= 0.5):
                low, middle, high = np.percentile(known, (5, 50, 95))
                out |= {f"head_{axis}": float(middle), f"head_{axis}_range": float(high - low)}
                if axis == "yaw":
                    out["head_yaw_max_abs"] = float(np.percentile(np.abs(known), 95))
        return out

    def _weighed(
        self,
        times: npt.NDArray[np.float64],
        pose: npt.NDArray[np.float64],
        face_times: npt.NDArray[np.float64],
        turned: npt.NDArray[np.float64],
    ) -> dict[str, float | None]:
        """Puts into the mesh's pose [T, 3] what the points say: yaw [F] in degrees, NaN no face.

        Each frame goes by the sampled face nearest to it, if that is at most `max_gap_s` away.
        """
        faces = np.flatnonzero(np.isfinite(turned))
        if not len(faces):
            return {"head_yaw_share": None, "head_profile_share": None}
        gap = np.abs(times[:, None] - face_times[faces])
        nearest, near = gap.argmin(1), gap.min(1) <= self.config.max_gap_s
        turned, mesh = turned[faces], pose[gap.argmin(0), 0]
        profile = np.abs(turned) >= self.config.profile_from
        agree = np.abs(turned - mesh) <= _MAX_DIFFERENCE  # not where there is no mesh
        alone = profile | (np.isnan(mesh) & (np.abs(turned) >= _LOST_FROM))
        known = agree | alone

        by_points = alone[nearest] & near
        pose[by_points | (~known[nearest] & near)] = np.nan
        pose[by_points, 0] = turned[nearest[by_points]]
        return {
            "head_yaw_share": float(known.mean()),
            "head_profile_share": float(profile[known].mean()) if known.any() else None,
        }

    def _speed(self, times: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> float | None:
        """Median length of the change of `values` [T, D] a second, after averaging over `smooth_s`.

        Unsmoothed, a landmark's jitter from frame to frame would read as motion of a head that is still.
        """
        step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        span = max(1, round(self.config.smooth_s / step)) if step > 0 else 1
        if len(values) < span + 1:
            return None
        windows = np.lib.stride_tricks.sliding_window_view(values, span, axis=0)
        smooth, middle = windows.mean(-1), np.convolve(times, np.ones(span) / span, "valid")
        speed = np.linalg.norm(np.diff(smooth, axis=0), axis=1) / np.diff(middle)
        return float(np.nanmedian(speed)) if np.isfinite(speed).any() else None


def head_pose(mesh: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Yaw, pitch and roll in degrees, [T, 3], of meshes [T, 468, 2] in pixels; NaN where the mesh is.

    OpenCV's solvePnP (SQPnP). The lens is not known, so the camera is taken to look straight at the face
    from `_DISTANCE` face heights away: a crop or a face off centre then changes nothing.
    """
    pose = np.full((len(mesh), 3), np.nan)
    for i in np.flatnonzero(np.isfinite(mesh).all((1, 2))):
        points = mesh[i, _POINTS]
        focal = _DISTANCE * float(np.linalg.norm(mesh[i, _FOREHEAD] - mesh[i, _CHIN]))
        x, y = points.mean(0)
        camera = np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]])
        found, turn, _ = cv2.solvePnP(_MODEL, points, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        if not found:
            continue
        # Where the picture's right (the subject's left), its up, and the way to the camera lie in the head.
        right, down, away = cv2.Rodrigues(turn)[0]
        up, out = -down, -away
        yaw = np.arctan2(right[2], out[2])
        pitch = np.arcsin(np.clip(up[2], -1, 1))
        roll = -np.arctan2(up[0], up[1])
        pose[i] = np.degrees([yaw, pitch, roll])
    return pose


def main_face_mesh(
    face_mesh: FaceMesh, clip: Clip, frames: FrameSequence, max_gap_s: float
) -> npt.NDArray[np.float64]:
    """Meshes of the main face, [T, 468, 2], pixels, in which both axes are alike; NaN where there is none.

    Args:
        face_mesh: finds them.
        clip: has `face_times` and `face_boxes`.
        frames: T of its pictures.
        max_gap_s: a face box holds for so long without another, s.
    """
    boxes = np.full((len(frames), 4), np.nan, np.float32)
    if clip["face_boxes"] is not None:
        boxes = boxes_at(frames.times, clip["face_times"], clip["face_boxes"], max_gap_s)
    height, width = frames.images[0].shape[:2]
    return face_mesh.track(frames.images, boxes).astype(np.float64) * (width, height)


def in_front_view(
    mesh: npt.NDArray[np.float64], places: npt.NDArray[np.float64], vertices: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Where some vertices of meshes would be seen on a head that looks at the camera, [T, N, 2], cm.

    The points that hold still say by which affine view (least squares) the face is shown. What differs in it
    from `places` is taken to lie in the plane of the face.

    Args:
        mesh: [T, 468, 2], pixels; NaN where there is none.
        places: of the vertices in a mean face, [N, 3], cm, as in `_STABLE`.
        vertices: N of the mesh.
    """
    view = np.linalg.pinv(np.c_[_MODEL, np.ones(len(_MODEL))]) @ mesh[:, _POINTS]  # [T, 4, 2]
    away = mesh[:, vertices] - np.c_[places, np.ones(len(places))] @ view
    front = np.full(away.shape, np.nan)
    known = np.isfinite(away).all((1, 2))
    front[known] = places[:, :2] + away[known] @ np.linalg.pinv(view[known, :2])
    return front


def points_yaw(points: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Yaw in degrees, [T], of a detector's five points [T, 5, 2] in pixels (as `DetectedFaces`); NaN for NaN.

    Across the line from the eyes to the mouth, the eyes and the mouth's corners close up with the cosine of
    yaw and the nose's tip goes aside with its sine. Roll and pitch change both alike. Beyond 60 degrees it
    tells less than there is: about 70 for 75 and 78 for 90.
    """
    right_eye, left_eye, nose, right_corner, left_corner = np.moveaxis(np.asarray(points, np.float64), 1, 0)
    eyes, mouth = (right_eye + left_eye) / 2, (right_corner + left_corner) / 2
    down = mouth - eyes
    across = np.stack([down[:, 1], -down[:, 0]], 1)  # the picture's right when the head is upright

    def along(way: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray((way * across).sum(1))

    apart = along(left_eye - right_eye) / _EYES_APART + along(left_corner - right_corner) / _CORNERS_APART
    return np.degrees(np.arctan2(along(nose - eyes) / _NOSE_ASIDE, apart / 2))


def _head_yaw(mesh_yaw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The head's yaw from the mesh's, degrees."""
    return np.degrees(np.arcsin(np.clip(np.sin(np.radians(mesh_yaw)) / _MESH_TURNS, -1, 1)))


def eye_aspect_ratio(mesh: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over both eyes of lid distance over eye width, [T] (Soukupova and Cech, 2016; shut is near 0)."""
    ratios = [
        (_distance(mesh, a, b) + _distance(mesh, c, d)) / (2 * _distance(mesh, outer, inner))
        for outer, inner, a, b, c, d in _EYES
    ]
    return np.mean(ratios, axis=0)


def _distance(mesh: npt.NDArray[np.float64], a: int, b: int) -> npt.NDArray[np.float64]:
    return np.linalg.norm(mesh[:, a] - mesh[:, b], axis=1)
