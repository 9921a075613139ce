"""Clips in which a hand touches somebody, or something else looks like it: hands cut out of real frames.

A person (a moving still or a real clip without hands) is approached by a hand of another real clip, on a
sleeve. It touches a region and goes with it, or it passes, waves, comes nearer to the camera, lies at the
picture's lower edge; or there is no hand, but a hat, a tassel, a scarf, a cup, a telephone, a microphone,
paper, or darkness. Each lasts 3.2 s. What is claimed: `touch` (the region, and from when to when; or `none`).

Hands and people are in four folds: no clip mixes two, `source` is the fold's name.

`python -m tests.truth.make_touch SAMPLES FOLDER` writes all, some 120 in five minutes.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from backends.faces.face_detector import CenterFace
from media.decode import decode, still
from media.picture import read_picture
from media.requests import Frames
from media.write import write_video

SEED = 20
FPS = 10
FRAMES = 32
SIDE = 480
HEADER = ("media", "claim", "value", "start_s", "end_s", "x", "y", "source", "note")
HANDS = Path(__file__).parent / "labels" / "touch_hands.json"
# People by fold; of a clip, from when to when no hand is above the lap. The last ones show the belly.
PEOPLE: tuple[tuple[tuple[str, float], ...], ...] = (
    (
        *(("videos/edtalk_obama.mp4", 0.0), ("videos/retalking_man_office.mp4", 0.0)),
        *(("kinds/v-express_vasa-1_3_ref.jpg", 0.0), ("kinds/deepface_img36.jpg", 0.0)),
        *(("kinds/deepface_img20.jpg", 0.0), ("kinds/deepface_img15.jpg", 0.0)),
    ),
    (
        *(("videos/retalking_woman_bluebg.mp4", 0.0), ("kinds/v-express_vasa-1_13_ref.jpg", 0.0)),
        *(("kinds/deepface_img24.jpg", 0.0), ("images/uniface_woman1.jpg", 0.0)),
        ("videos/latentsync_man_pt.mp4", 2.9),
    ),
    (
        *(("videos/liveportrait_man_selfie_noaudio.mp4", 0.0), ("kinds/v-express_vasa-1_17_ref.jpg", 0.0)),
        *(("images/uniface_man2.jpg", 0.0), ("images/uniface_man3.jpg", 0.0)),
        ("videos/latentsync_woman_ru.mp4", 0.0),
    ),
    (
        *(("videos/liveportrait_man_outdoor_zh.mp4", 0.0), ("videos/retalking_woman_glasses.mp4", 0.0)),
        *(("kinds/v-express_vasa-1_9_ref.jpg", 0.0), ("kinds/deepface_img44.jpg", 0.0)),
        *(
            ("kinds/facenet-pytorch_shea_whigham_1.jpg", 0.0),
            ("kinds/facenet-pytorch_kate_siegel_1.jpg", 0.0),
        ),
    ),
)
# They have hands of their own in the picture, in a pocket and in the lap, and only keep the order of the
# others.
WITH_HANDS = {"facenet-pytorch_kate_siegel_1", "latentsync_woman_ru"}
# Photographs with hands, and what these touch: fold, file, the part that is shown (x0, y0, x1, y1), region,
# note.
PHOTOGRAPHS = (
    (
        0,
        "images/liveportrait_woman_hand_on_cheek.jpg",
        (0, 0, 1, 1),
        "right_face|right_ear|mouth",
        "leans on a hand",
    ),
    (0, "images/facerec_obama_official.jpg", (0, 0, 1, 1), "none", "arms are crossed"),
    (
        1,
        "images/uniface_friends.jpg",
        (0.4, 0.28, 0.64, 0.75),
        "mouth|right_face|left_face",
        "a hand at the chin",
    ),
    (
        1,
        "images/uniface_friends.jpg",
        (0.19, 0.2, 0.38, 0.6),
        "none",
        "a telephone is held before the breast",
    ),
    (
        2,
        "images/mtcnn_man_with_mic.jpg",
        (0.25, 0.1, 0.85, 0.7),
        "none",
        "a microphone is held below the chin",
    ),
    (2, "images/liveportrait_painting.jpg", (0, 0, 1, 1), "chest", "a hand lies on the breast"),
    (3, "kinds/deepface_img37.jpg", (0, 0, 1, 1), "none", "a statue is held before the belly"),
    (3, "kinds/deepface_img42.jpg", (0, 0, 1, 1), "none", "no hand, but a dress with flowers"),
)
FINGERS = ((0, 1, 2, 3, 4), (0, 5, 6, 7, 8), (5, 9, 10, 11, 12), (9, 13, 14, 15, 16), (0, 17, 18, 19, 20))

Image = npt.NDArray[np.uint8]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Hand:
    """A hand cut out of a frame.

    alpha: how much of each pixel it is. points: 21, in pixels of the cut. left: whether a left one. back:
    whether its back is seen, as of a hand that lies on its own body.
    """

    rgb: Image
    alpha: npt.NDArray[np.float32]
    points: Vector
    left: bool
    back: bool

    def of(self, left: bool) -> Hand:
        """It, or its mirror image, as a hand of that side."""
        if left == self.left:
            return self
        points = self.points * (-1, 1) + (self.rgb.shape[1] - 1, 0)
        rgb = np.ascontiguousarray(self.rgb[:, ::-1])
        return Hand(rgb, self.alpha[:, ::-1].copy(), points, left, self.back)


@dataclass(frozen=True)
class Head:
    """A face in a frame. size: its height, chin to hairline, px; across: unit, to the picture's right."""

    eyes: Vector
    size: float
    across: Vector

    @property
    def down(self) -> Vector:
        """Unit, to the chin."""
        return np.array([-self.across[1], self.across[0]])

    def at(self, right: float, down: float) -> Vector:
        """A place, face heights from the eyes' middle."""
        return self.eyes + self.size * (right * self.across + down * self.down)


@dataclass(frozen=True)
class Person:
    """A clip of somebody without hands, [T, H, W, 3], and the head in each frame."""

    name: str
    frames: npt.NDArray[np.uint8]
    heads: list[Head]

    @cached_property
    def room(self) -> float:
        """How far the picture goes below the eyes, face heights."""
        head = self.heads[0]
        return float((self.frames.shape[1] - head.eyes[1]) / head.size)

    @cached_property
    def cloth(self) -> Vector:
        """The colour below the chin."""
        x, y = self.heads[0].at(0.45, min(1.35, self.room - 0.15)).astype(int)
        height, width = self.frames.shape[1:3]
        x, y = int(np.clip(x, 8, width - 9)), int(np.clip(y, 8, height - 9))
        return np.asarray(self.frames[0, y - 8 : y + 9, x - 8 : x + 9].reshape(-1, 3).mean(0))


# Right of and below the eyes' middle, face heights, for the picture's right side (the subject's left).
PLACES = {
    **{"face": (0.22, 0.22), "mouth": (0.0, 0.38), "chin": (0.0, 0.56), "hair": (0.22, -0.5)},
    **{"ear": (0.42, 0.08), "eye": (0.17, 0.0), "nose": (0.0, 0.2)},
    **{"shoulder": (0.75, 1.05), "chest": (0.12, 1.5), "abdomen": (0.1, 2.4)},
}


def make(samples: Path, folder: Path) -> Path:
    """Write all clips into `folder`; returns the path of their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {SEED}")
    rows: list[tuple[str, ...]] = []
    for fold in range(len(PEOPLE)):
        rng = np.random.default_rng((SEED, fold))
        people = [_person(samples, name, start, rng) for name, start in PEOPLE[fold]]
        hands = _hands(samples, fold)
        for number, kind in enumerate(KINDS):
            fits = [p for p in people if p.room > NEEDS.get(kind, 0.9)]
            if not fits:
                continue
            person = fits[number % len(fits)]
            able = [h for h in hands if h.back or kind not in TOUCHES]
            hand = able[int(rng.integers(len(able)))]
            frames, label = KINDS[kind](person, hand, rng)
            if person.name in WITH_HANDS:
                continue
            name = f"{fold}_{kind}.mp4"
            write_video(folder / name, _noisy(frames, rng), FPS, crf=20)
            rows.append((name, "touch", *label[:3], "", "", f"fold_{fold}", f"{label[3]} {person.name}"))
    rows += _photographs(samples, folder)
    path = folder / "touch.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([HEADER, *rows])
    return path


def _photographs(samples: Path, folder: Path) -> list[tuple[str, ...]]:
    """Photographs with hands that sway as the others do; rows of their labels."""
    rows: list[tuple[str, ...]] = []
    for number, (fold, photograph, part, region, note) in enumerate(PHOTOGRAPHS):
        rng = np.random.default_rng((SEED, 100 + number))
        person = _person(samples, photograph, 0.0, rng, part)
        name = f"{fold}_photograph_{number}.mp4"
        write_video(folder / name, _noisy(person.frames, rng), FPS, crf=20)
        until = ("", "") if region == "none" else ("0.00", f"{FRAMES / FPS:.2f}")
        rows.append((name, "touch", region, *until, "", "", f"fold_{fold}", f"{note} {person.name}"))
    return rows


def _noisy(frames: Image, rng: np.random.Generator) -> Image:
    """As a camera sees them, each frame with another part of one field of noise."""
    height, width = frames.shape[1:3]
    field = rng.normal(0, 2, (height + FRAMES, width, 1)).astype(np.float32)
    shown = [np.clip(frame + field[i : i + height], 0, 255) for i, frame in enumerate(frames)]
    return np.stack(shown).astype(np.uint8)


def _hands(samples: Path, fold: int) -> list[Hand]:
    return [
        Hand(
            *_cut(still(samples / h["media"], h["time"], 4000), np.reshape(h["points"], (21, 2))), *_sides(h)
        )
        for h in json.loads(HANDS.read_text())
        if h["fold"] == fold
    ]


def _sides(hand: dict[str, Any]) -> tuple[bool, bool]:
    return hand["left"], hand["back"]


def _cut(image: Image, points: Vector) -> tuple[Image, npt.NDArray[np.float32], Vector]:
    """A hand and half a palm of its wrist by GrabCut from its skeleton: picture, mask, points in it."""
    long = float(np.linalg.norm(points[0] - points[9]))
    low = np.maximum(np.floor(points.min(0) - 0.7 * long), 0).astype(int)
    high = np.minimum(np.ceil(points.max(0) + 0.7 * long), image.shape[1::-1]).astype(int)
    crop = np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])
    places = (points - low).astype(np.int32)
    maybe, sure = np.zeros(crop.shape[:2], np.uint8), np.zeros(crop.shape[:2], np.uint8)
    thick = max(2, int(0.16 * long))
    for finger in FINGERS:
        cv2.polylines(maybe, [places[list(finger)]], False, 1, 3 * thick)
        cv2.polylines(sure, [places[list(finger)]], False, 1, max(1, thick // 2))
    palm = places[[0, 5, 9, 13, 17]]
    cv2.fillConvexPoly(maybe, cv2.convexHull(palm), 1)
    cv2.fillConvexPoly(sure, cv2.convexHull((0.8 * palm + 0.2 * palm.mean(0)).astype(np.int32)), 1)
    wrist = places[0] + 0.45 * (places[0] - places[9])
    cv2.line(maybe, tuple(map(int, places[0])), tuple(map(int, wrist)), 1, int(0.8 * long))
    mask = np.where(sure > 0, cv2.GC_FGD, np.where(maybe > 0, cv2.GC_PR_FGD, cv2.GC_BGD)).astype(np.uint8)
    cv2.setRNGSeed(SEED)
    cv2.grabCut(crop, mask, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 6, cv2.GC_INIT_WITH_MASK)
    _, parts = cv2.connectedComponents(((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)).astype(np.uint8))
    part = np.bincount(parts[sure > 0])[1:].argmax() + 1
    alpha = cv2.morphologyEx((parts == part).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    soft = np.asarray(cv2.GaussianBlur(alpha.astype(np.float32), (0, 0), 1.2), np.float32)
    return crop, soft, np.asarray(points - low, np.float64)


def _person(
    samples: Path,
    name: str,
    start: float,
    rng: np.random.Generator,
    part: tuple[float, float, float, float] = (0, 0, 1, 1),
) -> Person:
    detector = CenterFace()
    if name.startswith("videos/"):
        frames = decode(samples / name, [request := Frames(FPS, SIDE)]).frames[request]
        images = [image for t, image in zip(*frames, strict=True) if t >= start]
        stack = np.stack([images[min(i, 2 * len(images) - 2 - i)] for i in range(FRAMES)])
        heads = [_head(detector, image) for image in stack[::4]]
        heads = [heads[i // 4] for i in range(FRAMES)]
    else:
        image = read_picture(samples / name)
        height, width = image.shape[:2]
        x0, y0, x1, y1 = np.round(np.array(part) * (width, height, width, height)).astype(int)
        image = np.ascontiguousarray(image[y0:y1, x0:x1])
        scale = SIDE * 1.1 / min(image.shape[:2])
        image = np.asarray(
            cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8
        )
        head = _head(detector, image)
        height, width = (min(int(n / 1.1), 700) // 2 * 2 for n in image.shape[:2])
        moved, heads = [], []
        phase = rng.uniform(0, 6, 3)
        for i in range(FRAMES):  # the head sways
            zoom = 1 + 0.01 * np.sin(i / FPS * 1.1 + phase[2])
            shift = 0.012 * SIDE * np.sin(i / FPS * np.array([1.7, 1.3]) + phase[:2])
            offset = shift - zoom * np.array([(image.shape[1] - width) / 2, (image.shape[0] - height) / 4])
            matrix = np.column_stack([zoom * np.eye(2), offset])
            moved.append(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE))
            heads.append(Head(zoom * head.eyes + offset, zoom * head.size, head.across))
        stack = np.stack(moved)
    even = tuple(n // 2 * 2 for n in stack.shape[1:3])
    return Person(Path(name).stem, stack[:, : even[0], : even[1]], heads)


def _head(detector: CenterFace, image: Image) -> Head:
    """By thirds of a face (the classical canon) eyes and mouth are 0.38 of its height apart."""
    right, left, _, *mouth = detector.detect(image).landmarks[0] * image.shape[1::-1]
    eyes = (right + left) / 2
    across = (left - right) / np.linalg.norm(left - right)
    return Head(eyes, float(np.linalg.norm(np.mean(mouth, 0) - eyes)) / 0.38, across)


def _way(start: Vector, stay: Vector, begin: float, last: float) -> Vector:
    """Where a hand is in each frame: it comes to places `stay` [T, 2] at `begin` s for `last` s, and goes."""
    out = np.array(stay)
    for i in range(FRAMES):
        t = i / FPS
        away = np.clip(max((begin - t) / 0.4, (t - begin - last) / 0.4), 0, 1)
        ease = away * away * (3 - 2 * away)
        out[i] = (1 - ease) * stay[i] + ease * start
    return out


def _paste(
    person: Person, hand: Hand, way: Vector, tip: bool, lean: float, rng: np.random.Generator, **how: float
) -> Image:
    """The person's frames with the hand at `way` [T, 2].

    tip: whether the finger tips or the palm lie there. lean: degrees that the fingers lean to the picture's
    left. how: scale (1: as large as the person's), blur (of a hand out of focus, px).
    """
    scale, blur = how.get("scale", 1.0), how.get("blur", 0.0)
    points = hand.points
    palm = max(np.linalg.norm(points[0] - points[9]), np.linalg.norm(points[5] - points[17]))
    toward = points[9] - points[0]
    now = np.degrees(np.arctan2(toward[1], toward[0]))
    place = points[[8, 12, 16]].mean(0) if tip else points[[0, 5, 9, 13, 17]].mean(0)
    tone = _tone(person, hand)
    out = person.frames.copy()
    for i in range(FRAMES):
        size = scale * 0.5 * person.heads[i].size / palm
        angle = np.radians(-90 - lean - now + 2 * np.sin(i / 3))
        turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = np.column_stack([turn, way[i] - turn @ place + rng.normal(0, 0.4, 2)])
        shape = out.shape[2], out.shape[1]
        rgb = cv2.warpAffine(tone, matrix, shape, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(hand.alpha, matrix, shape, flags=cv2.INTER_LINEAR)
        wrist, knuckle = (matrix[:, :2] @ points[[0, 9]].T + matrix[:, 2:]).T
        arm = (wrist - knuckle) / max(float(np.linalg.norm(wrist - knuckle)), 1e-6)
        arm = arm + np.array([0.0, 0.7])
        frame = _sleeve(out[i], person, wrist + 0.12 * (wrist - knuckle), arm, float(0.5 * size * palm))
        if blur:
            rgb, alpha = (cv2.GaussianBlur(x, (0, 0), blur) for x in (rgb, alpha))
        out[i] = (alpha[..., None] * rgb + (1 - alpha[..., None]) * frame).astype(np.uint8)
    return out


def _tone(person: Person, hand: Hand) -> Image:
    """The hand in the colour of the person's cheek."""
    x, y = person.heads[0].at(0.2, 0.22).astype(int)
    cheek = cv2.cvtColor(person.frames[0, y - 6 : y + 7, x - 6 : x + 7], cv2.COLOR_RGB2LAB)
    lab = cv2.cvtColor(hand.rgb, cv2.COLOR_RGB2LAB).astype(np.float32)
    skin = np.median(lab[hand.alpha > 0.9], 0)
    lab += 0.8 * (np.median(cheek.reshape(-1, 3), 0) - skin)
    return np.asarray(cv2.cvtColor(np.clip(lab, 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB), np.uint8)


def _sleeve(frame: Image, person: Person, wrist: Vector, arm: Vector, wide: float) -> Image:
    side = np.array([-arm[1], arm[0]]) / np.linalg.norm(arm)
    end = wrist + arm * 12 * wide
    corners = [wrist - wide * side, wrist + wide * side, end + 1.6 * wide * side, end - 1.6 * wide * side]
    mask = np.zeros(frame.shape[:2], np.float32)
    cv2.fillPoly(mask, [np.array(corners, np.int32)], 1.0)
    soft = cv2.GaussianBlur(mask, (0, 0), 1.5)[..., None]
    rows, columns = np.ogrid[: frame.shape[0], : frame.shape[1]]
    across = ((columns - wrist[0]) * side[0] + (rows - wrist[1]) * side[1]) / (1.4 * wide)
    across = across.astype(np.float32)
    shade = np.clip(1.05 - 0.25 * across**2, 0.5, 1.05)[..., None]
    return np.asarray(soft * np.clip(person.cloth * shade, 0, 255) + (1 - soft) * frame, np.uint8)


Made = tuple[Image, tuple[str, str, str, str]]
Kind = Callable[[Person, Hand, np.random.Generator], Made]


def _touching(place: str, last: float, moving: float = 0.0) -> Kind:
    """The hand lies at a place for `last` s; moving: how far it circles or strokes there, face heights."""

    def kind(person: Person, hand: Hand, rng: np.random.Generator) -> Made:
        right = bool(rng.integers(2))
        side = 1.0 if right else -1.0
        x, y = PLACES[place]
        body = place in ("shoulder", "chest", "abdomen")
        # A hand lies on its own side of the head, and on the other side of the breast.
        comes = -side if place == "shoulder" else side
        begin = float(rng.uniform(0.7, 1.0))
        turns = np.linspace(0, 2 * np.pi * 1.2 * FRAMES / FPS, FRAMES)
        circle = moving * np.stack([np.cos(turns), np.sin(turns)], 1)
        stay = np.array([h.at(side * x + c[0], y + c[1]) for h, c in zip(person.heads, circle, strict=True)])
        start = person.heads[0].at(comes * 1.0, max(person.room, 2.2) + 0.7)
        way = _way(start, stay, begin, last)
        lean = (55 if body else 15) * comes + float(rng.uniform(-10, 10))
        frames = _paste(person, hand.of(comes > 0), way, not body, lean, rng)
        # The picture's right is the subject's left.
        sides = {"face": "{}_face", "ear": "{}_ear", "eye": "{}_eye", "shoulder": "{}_shoulder"}
        region = "mouth" if place == "chin" else place
        region = sides.get(place, region).format("left" if right else "right")
        return frames, (region, f"{begin:.2f}", f"{begin + last:.2f}", "self")

    return kind


def _none(frames: Image, what: str) -> Made:
    return frames, ("none", "", "", what)


def _passing(person: Person, hand: Hand, rng: np.random.Generator) -> Made:
    across = np.linspace(-14, 14, FRAMES)  # 4 face heights a second
    way = np.array([h.at(a * 0.5, 0.3 + 0.05 * a) for h, a in zip(person.heads, across, strict=True)])
    return _none(_paste(person, hand, way, False, 10, rng), "a hand passes before the face")


def _waving(person: Person, hand: Hand, rng: np.random.Generator) -> Made:
    side = 1.0 if rng.integers(2) else -1.0
    swing = 0.18 * np.sin(np.arange(FRAMES) / FPS * 9)
    stay = np.array([h.at(side * (1.15 + s), 0.0) for h, s in zip(person.heads, swing, strict=True)])
    way = _way(person.heads[0].at(side * 1.2, person.room + 0.8), stay, 0.7, 1.7)
    return _none(_paste(person, hand, way, False, 0, rng), "a hand waves beside the head")


def _nearer(person: Person, hand: Hand, rng: np.random.Generator) -> Made:
    side = 1.0 if rng.integers(2) else -1.0
    drift = np.cumsum(rng.normal(0, 0.02, (FRAMES, 2)), 0) + 0.1 * np.sin(np.arange(FRAMES) / 6)[:, None]
    first = person.heads[0]
    stay = np.array([first.at(side * 0.45 + d[0], 0.7 + d[1]) for d in drift])
    way = _way(first.at(side, person.room + 1.5), stay, 0.7, 1.7)
    return _none(_paste(person, hand, way, False, 5, rng, scale=1.9, blur=2.0), "a hand nearer to the camera")


def _gesture(person: Person, hand: Hand, rng: np.random.Generator) -> Made:
    side = 1.0 if rng.integers(2) else -1.0
    keys = rng.uniform((-0.1, 1.2), (1.0, 1.9), (9, 2))
    steps = np.linspace(0, 8, FRAMES)
    moved = np.stack([np.interp(steps, np.arange(9), keys[:, k]) for k in range(2)], 1)
    stay = np.array([h.at(side * m[0], m[1]) for h, m in zip(person.heads, moved, strict=True)])
    way = _way(person.heads[0].at(side, person.room + 1.0), stay, 0.6, 2.1)
    return _none(
        _paste(person, hand, way, False, 30 * side, rng, scale=1.15), "a hand moves before the breast"
    )


def _low(person: Person, hand: Hand, rng: np.random.Generator) -> Made:
    side = 1.0 if rng.integers(2) else -1.0
    way = np.array([h.at(side * 0.5, person.room - 0.15) for h in person.heads])
    return _none(_paste(person, hand, way, True, 20, rng), "finger tips at the lower edge")


def _drawn(what: str, draw: Callable[[Image, Head, float], None], waves: bool = False) -> Kind:
    """An object that `draw` puts on each frame, given the head and the time; waves: and a hand beside it."""

    def kind(person: Person, hand: Hand, rng: np.random.Generator) -> Made:
        frames = _waving(person, hand, rng)[0] if waves else person.frames.copy()
        field = rng.normal(0, 1, frames.shape[1:3]).astype(np.float32)
        texture = cv2.GaussianBlur(field, (0, 0), sigmaX=4, sigmaY=0.8) * 40
        for i, head in enumerate(person.heads):
            bare = frames[i].copy()
            draw(frames[i], head, i / FPS)
            changed = (frames[i] != bare).any(-1)[..., None]
            woven = np.clip(frames[i] + texture[..., None], 0, 255)
            frames[i] = np.where(changed, woven, bare).astype(np.uint8)
        return _none(frames, what)

    return kind


def _ellipse(
    image: Image, head: Head, place: tuple[float, float], half: tuple[float, float], rgb: Any
) -> None:
    centre = tuple(int(v) for v in head.at(*place))
    axes = tuple(max(1, int(v * head.size)) for v in half)
    turn = float(np.degrees(np.arctan2(head.across[1], head.across[0])))
    cv2.ellipse(image, centre, axes, turn, 0, 360, rgb, -1, cv2.LINE_AA)


def _polygon(image: Image, head: Head, places: list[tuple[float, float]], rgb: Any) -> None:
    cv2.fillPoly(image, [np.array([head.at(*p) for p in places], np.int32)], rgb, cv2.LINE_AA)


def _hat(image: Image, head: Head, t: float) -> None:
    _ellipse(image, head, (0, -0.42), (1.0, 0.2), (205, 172, 110))
    _ellipse(image, head, (0, -0.62), (0.5, 0.35), (222, 190, 128))
    for k in range(-9, 10):  # straws at the brim
        _polygon(image, head, [(k / 10, -0.42), (k / 9, -0.2), (k / 10 + 0.03, -0.42)], (186, 150, 95))


def _tassel(image: Image, head: Head, t: float) -> None:
    _polygon(image, head, [(-0.75, -0.55), (0, -0.85), (0.75, -0.55), (0, -0.3)], (30, 30, 40))
    sway = 0.08 * np.sin(3 * t)
    for k in range(6):
        x = 0.5 + 0.03 * k
        _polygon(image, head, [(0.6, -0.5), (x + sway, 0.3), (x + sway + 0.02, 0.3)], (215, 165 + 6 * k, 60))


def _party(image: Image, head: Head, t: float) -> None:
    _polygon(image, head, [(-0.3, -0.45), (0, -1.2), (0.3, -0.45)], (220, 60, 90))
    for k in range(3):
        y = -0.55 - 0.2 * k
        _polygon(image, head, [(-0.1, y), (0.1, y - 0.08), (0.1, y - 0.02), (-0.1, y + 0.06)], (240, 220, 70))


def _scarf(image: Image, head: Head, t: float) -> None:
    _ellipse(image, head, (0, 0.78), (0.6, 0.22), (150, 90, 80))
    _polygon(image, head, [(0.1, 0.8), (0.4, 0.8), (0.5, 2.0), (0.2, 2.0)], (168, 104, 90))


def _microphone(image: Image, head: Head, t: float) -> None:
    _polygon(image, head, [(-0.06, 0.5), (0.06, 0.5), (0.2, 2.5), (0.05, 2.5)], (35, 35, 38))
    _ellipse(image, head, (0, 0.46), (0.11, 0.13), (60, 60, 62))


def _phone(image: Image, head: Head, t: float) -> None:
    _polygon(image, head, [(0.38, -0.15), (0.5, -0.18), (0.42, 0.55), (0.3, 0.55)], (25, 25, 30))


def _cup(image: Image, head: Head, t: float) -> None:
    x, y = (0.0, 0.42) if 0.8 < t < 2.2 else (0.9, 1.4)
    _polygon(
        image, head, [(x - 0.2, y), (x + 0.2, y), (x + 0.15, y + 0.5), (x - 0.15, y + 0.5)], (215, 60, 50)
    )
    _ellipse(image, head, (x, y), (0.2, 0.05), (190, 45, 40))


def _paper(image: Image, head: Head, t: float) -> None:
    x = 0.35 if 0.8 < t < 2.4 else 1.6
    _polygon(
        image, head, [(x - 0.35, -0.1), (x + 0.4, -0.15), (x + 0.45, 0.9), (x - 0.3, 0.95)], (235, 232, 225)
    )
    for k in range(8):
        y = 0.05 + 0.1 * k
        _polygon(
            image,
            head,
            [(x - 0.25, y), (x + 0.3, y - 0.03), (x + 0.3, y), (x - 0.25, y + 0.03)],
            (90, 90, 95),
        )


def _dark(person: Person, hand: Hand, rng: np.random.Generator) -> Made:
    return _none((person.frames * 0.1).astype(np.uint8), "a face in the dark")


def _dark_waving(person: Person, hand: Hand, rng: np.random.Generator) -> Made:
    return _none((_waving(person, hand, rng)[0] * 0.1).astype(np.uint8), "a hand waves in the dark")


def _nothing(person: Person, hand: Hand, rng: np.random.Generator) -> Made:
    return _none(person.frames, "no hand")


TOUCHES: dict[str, Kind] = {
    **{"cheek": _touching("face", 1.2), "cheek_short": _touching("face", 0.3)},
    **{"cheek_stroked": _touching("face", 1.5, 0.1), "mouth": _touching("mouth", 0.8)},
    **{"mouth_short": _touching("mouth", 0.35), "chin_short": _touching("chin", 0.4)},
    **{"chin": _touching("chin", 1.6), "nose": _touching("nose", 0.6), "hair": _touching("hair", 1.0)},
    **{"hair_short": _touching("hair", 0.4), "ear": _touching("ear", 0.9), "eye": _touching("eye", 0.7)},
    **{"shoulder": _touching("shoulder", 1.5), "chest": _touching("chest", 1.6)},
    **{"chest_short": _touching("chest", 0.8), "chest_circled": _touching("chest", 2.0, 0.12)},
    "abdomen": _touching("abdomen", 1.6),
}
KINDS: dict[str, Kind] = {
    **TOUCHES,
    **{"passing": _passing, "waving": _waving, "nearer": _nearer},
    **{"gesture": _gesture, "gesture_again": _gesture, "low": _low, "nothing": _nothing, "dark": _dark},
    **{"dark_waving": _dark_waving, "hat": _drawn("a straw hat", _hat)},
    **{"hat_waving": _drawn("a hand waves beside a party hat", _party, waves=True)},
    **{"tassel": _drawn("a cap's tassel", _tassel), "scarf": _drawn("a scarf", _scarf)},
    **{"microphone": _drawn("a microphone", _microphone), "phone": _drawn("a telephone", _phone)},
    **{"cup": _drawn("a cup at the mouth", _cup), "paper": _drawn("paper before the face", _paper)},
}
# How far the picture must go below the eyes for a kind, face heights.
NEEDS = {
    **{"chest": 1.9, "chest_short": 1.9, "chest_circled": 1.9, "abdomen": 2.7, "shoulder": 1.2},
    **{"gesture": 1.7, "gesture_again": 1.7},
}

if __name__ == "__main__":
    print(make(Path(sys.argv[1]), Path(sys.argv[2])))
