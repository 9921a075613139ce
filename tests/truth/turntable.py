"""A head that turns by known angles: a portrait's own face mesh, put on a plain skull and drawn.

The face is the portrait's mesh with MediaPipe's depth, turned to the front by its points that hold still.
A portrait shows neither the back of the head nor what is hidden behind the cheeks: an ellipsoid in the
colour of the hair, ears and a neck in the colour of the skin stand for them. No long hair, no beard beyond
the face's outline, no light that stays in place while the head turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay

from stages.head import _MODEL, _POINTS

Floats = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]

# The outline of the face in the mesh's order, from the top of the forehead by the subject's left.
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)


@dataclass(frozen=True)
class Head:
    """Triangles of a head that looks at the camera.

    corners: [N, 3, 3] in centimetres: x to the subject's left, y up, z out of the face, 0 between the ears.
    colours: [N, 3], RGB, 0-255.
    """

    corners: Floats
    colours: Floats


def turn(yaw: float, pitch: float = 0, roll: float = 0) -> Floats:
    """Head to picture (x to the subject's left, y up, z to the camera): roll first, then pitch, then yaw.

    Degrees, with the signs of `stages.head.Head`.
    """
    y, p, r = np.radians((yaw, pitch, roll))
    turned = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    nodded = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    tilted = np.array([[np.cos(r), np.sin(r), 0], [-np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return turned @ nodded @ tilted


def mesh_of(picture: Picture) -> Floats | None:
    """MediaPipe's mesh of a picture's face, [468, 3], pixels, z towards the camera; None without a face."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    with FaceMesh(static_image_mode=True, max_num_faces=1) as graph:
        found = graph.process(picture).multi_face_landmarks
    if not found:
        return None
    height, width = picture.shape[:2]
    return np.array([(p.x * width, p.y * height, -p.z * width) for p in found[0].landmark[:468]])


def head_of(picture: Picture) -> Head | None:
    """The head of the only face of a portrait that looks at the camera; None where no face is found."""
    mesh = mesh_of(picture)
    if mesh is None:
        return None
    face = _to_front(mesh * (1, -1, 1))
    skin = _mean_colour(picture, mesh[[205, 425, 50, 280], :2])
    crown = mesh[10, :2] + 0.25 * (mesh[10, :2] - mesh[152, :2])
    hair = _mean_colour(picture, crown[None] + np.array([[0, 0], [-8, 0], [8, 0], [0, -8]]))
    parts = [_face(face, mesh[:, :2], picture), *_skull(face, skin, hair)]
    return Head(np.concatenate([p.corners for p in parts]), np.concatenate([p.colours for p in parts]))


def draw(
    head: Head,
    rotation: Floats,
    background: Picture,
    middle: tuple[float, float],
    scale: float,
    distance: float = 90,
) -> Picture:
    """The head over a background, seen by a pinhole camera that looks at it from `distance` centimetres.

    middle: where the head's origin comes to lie, pixels. scale: pixels a centimetre at the head's origin.
    """
    corners = head.corners @ rotation.T
    nearer = distance / (distance - corners[..., 2:])
    flat = corners[..., :2] * nearer * (scale, -scale) + middle
    a, b, c = flat.transpose(1, 0, 2)
    facing = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] < 0
    order = np.argsort(corners[..., 2].mean(1))
    order = order[facing[order]]
    points = np.round(flat * 16).astype(np.int32)
    colours = head.colours.tolist()
    out = background.copy()
    for i in order:
        cv2.fillConvexPoly(out, points[i], colours[i], shift=4)
    return np.asarray(cv2.GaussianBlur(out, (0, 0), 0.6), np.uint8)


def _to_front(mesh: Floats) -> Floats:
    """The mesh in centimetres, turned so that its still points lie as those of the canonical face do."""
    points, model = mesh[_POINTS], _MODEL
    a, b = points - points.mean(0), model - model.mean(0)
    u, size, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ sign @ vt
    scale = np.trace(np.diag(size) @ sign) / (a**2).sum()
    return scale * (mesh - points.mean(0)) @ rotation.T + model.mean(0)


def _face(face: Floats, flat: Floats, picture: Picture) -> Head:
    triangles = Delaunay(face[:, :2]).simplices
    corners, spots = face[triangles], flat[triangles]
    for _ in range(3):
        corners, spots = _quartered(corners), _quartered(spots)
    x, y = spots.mean(1).T.astype(np.float32).reshape(2, -1, 64)  # quartered thrice: a multiple of 64
    colours = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Head(_outward(corners, np.array([0.0, 0, -6])), colours.reshape(-1, 3).astype(float))


def _skull(face: Floats, skin: Floats, hair: Floats) -> list[Head]:
    """What a portrait does not show: the sides behind the face's outline, the skull, the ears, the neck."""
    oval = face[list(OVAL)]
    rng = np.random.default_rng(0)
    top, chin = face[10], face[152]
    half = np.abs(oval[:, 0]).max()
    # Rings from the outline back to the middle of the neck and of the skull.
    middle = np.array([0, (top[1] + chin[1]) / 2 + 2, -4.0])
    rings = [oval]
    for share in np.linspace(0.15, 1, 8):
        back = oval.copy()
        back[:, 2] = oval[:, 2] + share * (-6 - oval[:, 2])
        inside = 1 - 0.3 * share**2 * (oval[:, 1] < middle[1] - 3)  # the jaw closes to the neck
        back[:, 0] = oval[:, 0] * inside
        back[:, 1] = np.where(
            oval[:, 1] > middle[1] + 2,
            oval[:, 1] + 1.2 * np.sqrt(share),
            oval[:, 1] + 3 * share * (oval[:, 1] < -4),
        )
        rings.append(back)
    sides = _strip(rings)
    heights = sides.mean(1)[:, 1]
    hairy = (heights > middle[1]) | ((sides.mean(1)[:, 2] < -3.5) & (heights > -3))
    colours = np.where(hairy[:, None], hair, skin)
    parts = [Head(_outward(sides, middle), _speckled(colours, hairy, rng))]

    ball = _ellipsoid(middle + np.array([0, 0.5, 1]), (half + 0.4, (top[1] - chin[1]) / 2 + 0.5, 10.0))
    _, y, z = ball.mean(1).T
    ball = ball[((z < -3) & (y > -5)) | (y > top[1] - 0.3)]
    parts.append(Head(ball, _speckled(np.tile(hair, (len(ball), 1)), np.ones(len(ball), bool), rng)))
    for side in (-1, 1):
        ear = _ellipsoid((side * (half + 0.4), 0.6, -3.2), (0.9, 3.1, 1.7))
        shade = 0.75 + 0.25 * (ear.mean(1)[:, 1:2] > 0.6)
        parts.append(Head(ear, np.clip(skin * 0.92 * shade, 0, 255)))
    t = np.linspace(0, 2 * np.pi, 36)
    neck = [
        np.stack([5.5 * np.sin(t), np.full(36, chin[1] + down), -3.5 + 5.0 * np.cos(t)], 1)
        for down in (4, -4, -9, -14)
    ]
    pipe = _strip(neck)
    parts.append(Head(_outward(pipe, None), np.tile(skin * 0.8, (len(pipe), 1))))
    torso = _ellipsoid((0, chin[1] - 21, -5), (22, 14, 9))
    parts.append(
        Head(torso, _speckled(np.tile([60.0, 70, 90], (len(torso), 1)), np.ones(len(torso), bool), rng))
    )
    return parts


def _speckled(colours: Floats, where: npt.NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    noise = rng.normal(0, 8, (len(colours), 1)) * where[:, None]
    return np.clip(colours + noise, 0, 255)


def _strip(rings: list[Floats]) -> Floats:
    out = []
    for first, second in pairwise(rings):
        a, b = first, np.roll(first, -1, 0)
        c, d = second, np.roll(second, -1, 0)
        out += [np.stack([a, b, c], 1), np.stack([b, d, c], 1)]
    return _quartered(_quartered(np.concatenate(out)))


def _ellipsoid(middle: Any, sides: Any) -> Floats:
    u, v = np.meshgrid(np.linspace(-np.pi / 2, np.pi / 2, 24), np.linspace(0, 2 * np.pi, 48), indexing="ij")
    ball = np.stack([np.cos(u) * np.sin(v), np.sin(u), np.cos(u) * np.cos(v)], -1) * sides + middle
    a, b, c, d = (ball[i : i + 23, j : j + 47].reshape(-1, 3) for i in (0, 1) for j in (0, 1))
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    return _outward(triangles, np.asarray(middle, float))


def _outward(corners: Floats, middle: Floats | None) -> Floats:
    """Triangles wound so that they face away from a point, or from the vertical axis behind the face."""
    a, b, c = corners.transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    out = corners.mean(1) - (np.array([0, 0, -3.5]) if middle is None else middle)
    if middle is None:
        out = out * (1, 0, 1)
    inward = (normal * out).sum(1) < 0
    fixed = corners.copy()
    fixed[inward] = corners[inward][:, ::-1]
    return fixed


def _quartered(corners: Floats) -> Floats:
    a, b, c = corners.transpose(1, 0, 2)
    ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
    return np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])


def _mean_colour(picture: Picture, spots: Floats) -> Floats:
    height, width = picture.shape[:2]
    x, y = np.clip(np.round(spots).astype(int), 0, (width - 1, height - 1)).T
    return cv2.blur(picture, (9, 9))[y, x].mean(0).astype(float)
