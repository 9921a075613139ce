"""Heads turned by known angles: what `Head` says of them. `tests/truth/labels/head.csv` has the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backends.faces.face_detector import CenterFace
from backends.faces.face_mesh import MediaPipeFaceMesh
from media.decode import Decoded
from media.picture import read_picture
from stages.clip import Clip
from stages.faces import Faces
from stages.head import Head
from tests.truth.turntable import draw, head_of, turn

PORTRAITS = ("images/uniface_man3", "images/facerec_obama_official", "kinds/v-express_vasa-1_13_ref")
YAWS = (-90, -60, -30, 0, 45, 60, 90)


@pytest.fixture(scope="module")
def turned(samples: Path) -> dict[int, list[dict]]:
    """What the stage says of each portrait, by true yaw."""
    faces, head = Faces(CenterFace()), Head(MediaPipeFaceMesh())
    wall = np.full((480, 480, 3), (150, 160, 165), np.uint8)
    out: dict[int, list[dict]] = {yaw: [] for yaw in YAWS}
    for name in PORTRAITS:
        portrait = head_of(read_picture(samples / f"{name}.jpg"))
        assert portrait is not None
        for yaw in YAWS:
            picture = draw(portrait, turn(yaw, 5, 5), wall, (240, 215), 13, 90)
            decoded = Decoded(
                frames={request: ([0.0], [picture]) for request in (*faces.sees, *head.sees)},
                width=480,
                height=480,
            )
            found = faces.score(Clip(row={}, decoded=decoded))
            arrays = {k: v for k, v in found.items() if isinstance(v, np.ndarray)}
            out[yaw].append(head.score(Clip(row={}, decoded=decoded, arrays=arrays)))
    return out


@pytest.mark.parametrize("yaw", [yaw for yaw in YAWS if abs(yaw) <= 60])
def test_yaw_to_60_degrees(turned: dict[int, list[dict]], yaw: int) -> None:
    errors = [abs(out["head_yaw"] - yaw) for out in turned[yaw]]
    assert np.median(errors) < 10, errors


def test_profiles_are_told(turned: dict[int, list[dict]]) -> None:
    for yaw in (-90, 90):
        found = turned[yaw]
        assert sum(out["head_profile_share"] == 1 for out in found) >= 2, found
        assert all(out["head_yaw"] is None or yaw * out["head_yaw"] > 0 for out in found)
        assert all(out["head_yaw_max_abs"] is None or out["head_yaw_max_abs"] > 50 for out in found)
    for yaw in (-30, 0, 45):
        assert [out["head_profile_share"] for out in turned[yaw]] == [0, 0, 0]
