"""MediaPipe's graphs: nothing of one clip is seen in the next, and landmarks are read as they are written."""

from collections import namedtuple
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from mediapipe.framework.formats.landmark_pb2 import NormalizedLandmarkList

from backends.bodies.pose import MediaPipeHolistic
from backends.faces.face_mesh import NUM_POINTS, MediaPipeFaceMesh
from backends.running.mediapipe_graph import forget, points_of
from media.decode import decode
from media.requests import Frames

CLIPS = (
    "edtalk_obama.mp4",
    "liveportrait_woman_lake.mp4",
    "sam2_hands_cups.mp4",
    "intel_bottles_noperson.mp4",
)
BOX = np.array([0.25, 0.1, 0.75, 0.9], np.float32)


def body(model: MediaPipeHolistic, images: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    return model.estimate(images)


def mesh(model: MediaPipeFaceMesh, images: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    return model.track(images, np.tile(BOX, (len(images), 1)))


@pytest.mark.parametrize(("make", "see"), [(MediaPipeHolistic, body), (MediaPipeFaceMesh, mesh)])
def test_a_clip_is_seen_alike_whatever_came_before_it(make, see, samples: Path) -> None:  # type: ignore[no-untyped-def]
    asked = Frames(2.0, 240)
    clips = [list(decode(samples / "videos" / name, [asked]).frames[asked][1])[:6] for name in CLIPS]
    model = make()
    see(model, clips[-1])
    people = 0
    for name, clip in zip(CLIPS, clips, strict=True):
        found = see(model, clip)
        np.testing.assert_array_equal(found, see(make(), clip), err_msg=name)
        # The first picture again, as if it came after the others: a track that went on would show here.
        np.testing.assert_array_equal(see(model, clip[:1]), found[:1], err_msg=name)
        people += bool(np.isfinite(found[..., :2]).any())
    assert people >= 2, "too few clips with somebody in them to tell anything"


def test_a_graph_that_sees_somebody_in_a_blank_picture_is_reset() -> None:
    outputs = namedtuple("outputs", ["face", "pose"])

    class Graph:
        resets = 0

        def __init__(self, found: object) -> None:
            self.found = found

        def process(self, image: npt.NDArray[np.uint8]) -> object:
            assert image.dtype == np.uint8 and not image.any()
            return outputs(None, self.found)

        def reset(self) -> None:
            self.resets += 1

    empty, seeing = Graph(None), Graph([1])
    forget(empty)
    forget(seeing)
    assert (empty.resets, seeing.resets) == (0, 1)


def test_points_are_those_of_the_message() -> None:
    message = NormalizedLandmarkList()
    places = np.random.default_rng(0).normal(size=(NUM_POINTS, 3)).astype(np.float32)
    places[7] = 0
    for x, y, z in places:
        message.landmark.add(x=x, y=y, z=z)
    np.testing.assert_array_equal(points_of(message), places[:, :2])
    np.testing.assert_array_equal(
        points_of(NormalizedLandmarkList.FromString(message.SerializeToString())),
        [(point.x, point.y) for point in message.landmark],
    )
