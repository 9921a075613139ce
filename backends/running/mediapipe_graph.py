"""What MediaPipe's graphs share: to forget what they have seen, and to read the landmarks they found."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

# How a landmark lies in an encoded NormalizedLandmarkList: tag and length, then tag and value of each
# coordinate (mediapipe/framework/formats/landmark.proto).
_LANDMARK = np.dtype(
    [
        ("begin", "V2"),
        ("x_tag", "u1"),
        ("x", "<f4"),
        ("y_tag", "u1"),
        ("y", "<f4"),
        ("z_tag", "u1"),
        ("z", "<f4"),
    ]
)
_BLANK = np.zeros((64, 64, 3), np.uint8)


def closed_with(owner: object, graph: Any) -> Any:
    """The graph; it is closed when its owner is gone. One that is not keeps its networks and threads."""
    weakref.finalize(owner, graph.close).atexit = False
    return graph


def forget(graph: Any) -> None:
    """Let a graph that tracks start anew, so that no clip sees the one before it.

    A picture without anybody in it ends all tracks, and is far cheaper than `reset`, which loads the networks
    once more. A graph that sees somebody in it all the same is reset.

    Args:
        graph: a solution of `mediapipe.python.solutions` with smoothing off: it keeps from frame to frame
            where it found something last, and nothing else.
    """
    found = graph.process(_BLANK)
    if any(getattr(found, name) is not None for name in found._fields):
        graph.reset()


def points_of(landmarks: Any) -> npt.NDArray[np.float32]:
    """x and y of a list of landmarks without visibility, [N, 2], normalised.

    To ask each landmark's message for them takes seven times as long.
    """
    marks = np.frombuffer(landmarks.SerializeToString(), _LANDMARK)
    return np.stack([marks["x"], marks["y"]], 1)
