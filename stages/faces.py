"""How many faces a clip shows, and where the main one is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.faces.face_detector import DetectedFaces, FaceDetector
from media.requests import Frames
from stages.clip import Clip
from stages.contract import Array, Column, Score, Stage, StageConfig

# A box nearer than this to the frame's border counts as cut by it, share of the frame's side: about one
# cell of the detector's output.
EDGE = 0.01


class Faces(Stage):
    """Faces in sampled frames, linked to tracks; people are counted and the main face is chosen from tracks.

    A detection joins the track whose last box is nearest, at most `max_jump` face heights away and of
    like size, at most `max_gap_s` earlier. A track seen in a single frame is taken for a false alarm
    unless the clip has no longer one, or it is all that the first or the last frame shows (a cut may
    lie before it). The main face is the track with the largest sum of box heights:
    large and there for long, so it does not change between two people of like size; where that track
    has not begun or has ended (another shot) the next one that does not overlap it in time takes over.
    """

    class Config(StageConfig):
        """Settings of `Faces`."""

        fps: float = Field(2.0, gt=0, description="sampled frames a second")
        short_side: int = Field(480, ge=64, description="shorter side of the frames, pixels")
        min_relative_height: float = Field(
            0.25, ge=0, le=1, description="faces lower than this share of the frame's largest are not counted"
        )
        max_jump: float = Field(1.0, gt=0, description="move of one face between frames, in face heights")
        max_gap_s: float = Field(1.6, gt=0, description="a track may miss its face for so long, seconds")
        stop_without_face: bool = Field(True, description="compute nothing more for a clip without any face")

    version: ClassVar[int] = 2
    writes: ClassVar[Mapping[str, Column | Array]] = {
        "num_people_max": Column("int", "people", "most faces at once; tiny ones and false alarms ignored"),
        "num_people": Column("int", "people", "median number of faces over the frames that show one"),
        "face_share": Score("0-1", "share of sampled frames with the main face"),
        "face_height": Score("share of shorter side", "median box height of the main face"),
        "face_height_px": Score("pixels", "median box height of the main face in the source's pixels"),
        "face_score": Score("0-1", "median detection score of the main face"),
        "face_center_x": Score("0-1", "median horizontal middle of the main face"),
        "face_center_y": Score("0-1", "median vertical middle of the main face"),
        "face_edge_share": Score("0-1", "share of the main face's frames whose box is cut by the frame"),
        "face_times": Array("[T]", "seconds", "times of the sampled frames"),
        "face_boxes": Array("[T, 4]", "0-1", "x0 y0 x1 y1 of the main face, NaN where none"),
        "face_landmarks": Array(
            "[T, 5, 2]", "0-1", "right eye, left eye, nose, right and left mouth corner (subject's); NaN"
        ),
        "face_counts": Array("[T]", "people", "faces counted in each frame, int32"),
    }

    def __init__(self, detector: FaceDetector, config: Config | None = None) -> None:
        super().__init__(detector, config=config)
        self.detector = detector

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Frames at `fps`."""
        return (Frames(self.config.fps, self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Counts, sizes and the main face; None for what needs a face when there is none."""
        frames = clip.frames(self.sees[0])
        found = [self.detector.detect(image) for image in frames.images]
        tracks = link_faces(found, frames.times, self.config.max_jump, self.config.max_gap_s)
        tracks = _believed(tracks, len(frames))
        counts = self._counts(found, tracks)
        main = _main_face(found, tracks)

        boxes = np.full((len(frames), 4), np.nan, np.float32)
        marks = np.full((len(frames), 5, 2), np.nan, np.float32)
        for i, k in main.items():
            boxes[i], marks[i] = found[i].boxes[k], found[i].landmarks[k]
        out: dict[str, Any] = dict.fromkeys(self.writes)
        out |= {
            "face_times": frames.times,
            "face_boxes": boxes,
            "face_landmarks": marks,
            "face_counts": counts,
            "num_people_max": int(counts.max()),
            # halves up: one face as often as two is a clip of two
            "num_people": math.floor(np.median(counts[counts > 0]) + 0.5) if counts.any() else 0,
            "face_share": len(main) / len(frames),
        }
        if main:
            seen = boxes[sorted(main)]
            height, width = frames.images[0].shape[:2]
            share = float(np.median(seen[:, 3] - seen[:, 1]))
            out |= {
                "face_height": share * height / min(height, width),
                "face_height_px": share * clip.media.height,
                "face_score": float(np.median([found[i].scores[k] for i, k in main.items()])),
                "face_center_x": float(np.median(seen[:, [0, 2]].mean(1))),
                "face_center_y": float(np.median(seen[:, [1, 3]].mean(1))),
                "face_edge_share": float(((seen < EDGE) | (seen > 1 - EDGE)).any(1).mean()),
            }
        return out

    def stop(self, row: Mapping[str, Any]) -> str | None:
        """A clip in which no face was found needs no more work."""
        if self.config.stop_without_face and row.get("face_share") == 0:
            return "no face in any sampled frame"
        return None

    def _counts(self, found: list[DetectedFaces], tracks: list[dict[int, int]]) -> npt.NDArray[np.int32]:
        counts = np.zeros(len(found), np.int32)
        for i, faces in enumerate(found):
            heights = np.array([_height(faces.boxes[t[i]]) for t in tracks if i in t])
            if len(heights):
                counts[i] = (heights >= self.config.min_relative_height * heights.max()).sum()
        return counts


def _believed(tracks: Sequence[dict[int, int]], count: int) -> list[dict[int, int]]:
    """The tracks that are no false alarms, of `count` frames."""
    longest = max((len(track) for track in tracks), default=0)
    believed = [track for track in tracks if len(track) >= min(2, longest)]
    lonely = {0, count - 1}.difference(*believed)
    return believed + [track for track in tracks if track not in believed and lonely.intersection(track)]


def link_faces(
    found: Sequence[DetectedFaces], times: npt.NDArray[np.float64], max_jump: float, max_gap_s: float
) -> list[dict[int, int]]:
    """Tracks, each a map from frame to the detection's index in that frame.

    A detection joins the track whose last box is nearest, of like size, at most `max_jump` face heights away
    and at most `max_gap_s` earlier.
    """
    tracks: list[dict[int, int]] = []
    for i, faces in enumerate(found):
        pairs = []
        for t, track in enumerate(tracks):
            last = max(track)
            if times[i] - times[last] > max_gap_s:
                continue
            before = found[last].boxes[track[last]]
            for k, box in enumerate(faces.boxes):
                if (distance := _jump(before, box)) <= max_jump:
                    pairs.append((distance, t, k))
        taken: set[int] = set()
        for _, t, k in sorted(pairs):
            if k not in taken and i not in tracks[t]:
                tracks[t][i] = k
                taken.add(k)
        tracks += [{i: k} for k in range(len(faces)) if k not in taken]
    return tracks


def boxes_at(
    times: npt.NDArray[np.float64],
    face_times: npt.NDArray[np.float64],
    face_boxes: npt.NDArray[np.float32],
    max_gap_s: float,
) -> npt.NDArray[np.float32]:
    """The main face's box at other times, [len(times), 4].

    Linear between sampled frames that show it; NaN where the nearest of them is over `max_gap_s` away.
    """
    seen = np.isfinite(face_boxes).all(1)
    out = np.full((len(times), 4), np.nan, np.float32)
    if seen.any():
        known, values = face_times[seen], face_boxes[seen]
        near = np.abs(times[:, None] - known).min(1) <= max_gap_s
        out[near] = np.stack([np.interp(times[near], known, values[:, j]) for j in range(4)], 1)
    return out


def _height(box: npt.NDArray[np.float32]) -> float:
    return float(box[3] - box[1])


def _jump(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Distance between two boxes' middles in shares of their mean size; infinite if one is twice as high."""
    if max(_height(a), _height(b)) > 2 * min(_height(a), _height(b)):
        return math.inf
    size = ((a[2:] - a[:2]) + (b[2:] - b[:2])) / 2
    # Each axis by the box's own extent on it: boxes are normalised, frames are not square.
    return float(np.hypot(*((a[:2] + a[2:] - b[:2] - b[2:]) / 2 / np.maximum(size, 1e-6))))


def _main_face(found: list[DetectedFaces], tracks: list[dict[int, int]]) -> dict[int, int]:
    """Frame to index of the main face's detection, for the frames that show it."""
    weight = [sum(_height(found[i].boxes[k]) for i, k in t.items()) for t in tracks]
    main: dict[int, int] = {}
    spans: list[tuple[int, int]] = []
    for t in sorted(range(len(tracks)), key=lambda t: -weight[t]):
        first, last = min(tracks[t]), max(tracks[t])
        if all(last < a or first > b for a, b in spans):
            spans.append((first, last))
            main |= tracks[t]
    return main
