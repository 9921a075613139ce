"""Landmarks of clips by MediaPipe Face Mesh, run by the laptop's interpreter for `test_face_mesh`.

`python -m tests.models.mesh_reference OUT.npz CLIP...` writes for each clip i what both implementations see
(`images_i`, uint8 [T, H, W, 3], and `boxes_i`, float32 [T, 4], normalised, NaN without a face) and the
landmarks that MediaPipe gives (`mesh_i`, float32 [T, 468, 2], normalised).

A CLIP may be `astronaut`: the portrait of scikit-image, moved, turned and scaled.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

Images = list[npt.NDArray[np.uint8]]


def astronaut() -> Images:
    """Twelve frames of a portrait that moves, turns up to 20 degrees and grows by a fifth."""
    import cv2
    from skimage import data

    portrait = np.asarray(data.astronaut())[:360, 40:420]
    out = []
    for t in np.linspace(0, 1, 12):
        move = cv2.getRotationMatrix2D((190, 110), 20 * np.sin(2 * np.pi * t), 1 + 0.2 * t)
        move[:, 2] += (40 * t, 30 * t)
        out.append(np.asarray(cv2.warpAffine(portrait, move, (380, 360)), np.uint8))
    return out


def clip(path: str) -> Images:
    """Frames of the first four seconds at 12.5 a second, 480 pixels on the short side."""
    from media.decode import decode
    from media.requests import Frames

    request = Frames(12.5, 480)
    return list(decode(Path(path), [request]).frames[request][1])[:50]


def main(out: Path, clips: list[str]) -> None:
    """Write everything of all clips."""
    from backends.faces.face_detector import CenterFace
    from backends.faces.face_mesh import MediaPipeFaceMesh
    from stages.faces import boxes_at

    detector = CenterFace()
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for i, name in enumerate(clips):
        images = astronaut() if name == "astronaut" else clip(name)
        times = np.arange(len(images)) / 12.5
        seen = np.full((len(images), 4), np.nan, np.float32)
        for k in range(0, len(images), 6):
            faces = detector.detect(images[k])
            if len(faces):
                seen[k] = faces.boxes[0]
        boxes = boxes_at(times, times[::6], seen[::6], 0.75).astype(np.float32)
        mesh = MediaPipeFaceMesh().track(images, boxes)
        arrays |= {f"images_{i}": np.stack(images), f"boxes_{i}": boxes, f"mesh_{i}": mesh}
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
