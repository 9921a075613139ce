"""The page's requests without a browser: who is let in, what is refused, how frames wait."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import requests

from pipelines.live import site
from pipelines.live.session import Avatar, Session
from pipelines.live.site import Site
from tests.support.live_avatars import SIDE, TOKEN, avatar_of, served

KINDS = {"poked": "poke"}


@pytest.fixture(scope="module")
def avatar(tmp_path_factory: pytest.TempPathFactory) -> Avatar:
    return avatar_of(tmp_path_factory.mktemp("avatar"))


@pytest.fixture
def address(avatar: Avatar) -> Iterator[str]:
    with served(Site(avatar, KINDS, [])) as address:
        yield address


class Watching:
    """The frames of a session, as they come."""

    def __init__(self, address: str) -> None:
        self.answer = requests.post(f"{address}begin", stream=True, timeout=30)
        assert self.answer.status_code == 200
        self.address, self.session = address, int(self.answer.headers["X-Session"])

    def frame(self) -> tuple[dict[str, Any], np.ndarray]:
        head, jpeg = (self._read(struct.unpack(">I", self._read(4))[0]) for _ in range(2))
        return json.loads(head), cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)

    def block(self) -> list[tuple[dict[str, Any], np.ndarray]]:
        first = self.frame()
        return [first, *(self.frame() for _ in range(first[0]["last"] - first[0]["frame"]))]

    def _read(self, count: int) -> bytes:
        data = self.answer.raw.read(count)
        assert len(data) == count
        return bytes(data)

    def tell(self, path: str, **values: Any) -> requests.Response:
        said = {"session": self.session, **values}
        return requests.post(f"{self.address}{path}", json=said, timeout=30)

    def close(self) -> None:
        self.answer.close()


def test_frames_come_in_blocks(address: str, avatar: Avatar) -> None:
    watching = Watching(address)
    blocks = [watching.block()]
    watching.tell("seen", frame=4)
    blocks.append(watching.block())
    assert [facts["frame"] for block in blocks for facts, _ in block] == list(range(13))
    stream = Session(avatar)
    for shown, (facts, picture) in zip(stream.make(), blocks[0], strict=True):
        assert picture.shape == (SIDE, SIDE, 3)
        expected = cv2.imdecode(np.frombuffer(shown.jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(picture, expected) and facts["frame"] == shown.facts["frame"]
    figures = blocks[1][0][0]
    assert figures["seconds"].keys() == {"conditions", "transformer", "vae"}
    assert figures["frames_per_second"] > 0 and figures["first_frame_s"] > 0
    watching.close()


def test_frames_wait_until_they_are_seen(
    avatar: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block of 8 is begun when 4 frames are left, so a touch then is answered by the very next one."""
    monkeypatch.setattr(site, "EARLY", 0)  # as if blocks took no time
    with served(Site(avatar, KINDS, [], None, tmp_path)) as address:
        watching = Watching(address)
        assert len(watching.block()) == 5
        watching.tell("seen", frame=0)
        assert watching.block()[0][0]["frame"] == 5
        watching.tell("seen", frame=7)  # five are left
        assert watching.tell("touch", x=0.5, y=0.5, kind="poked").json() == {"touch": 1}
        watching.tell("seen", frame=8)
        facts, _ = watching.frame()
        assert facts["frame"] == 13 and facts["touches"] == 1 and facts["reaction_s"] > 0
        watching.close()
    lines = [json.loads(line) for line in (tmp_path / "0001.jsonl").read_text().splitlines()]
    made = looked = 0
    for line in lines:
        made += line.get("frames", 0) if line["event"] == "block" else 0
        looked = line["frame"] + 1 if line["event"] == "seen" else looked
        assert made - looked <= 4 + 8


def test_a_slow_avatar_is_two_blocks_ahead_at_most(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "EARLY", 1e9)
    watching = Watching(address)
    assert [len(watching.block()) for _ in range(2)] == [5, 8]
    watching.tell("touch", x=0.5, y=0.5, kind="poked")
    watching.tell("seen", frame=4)
    assert watching.frame()[0]["touches"] == 1  # nothing was begun since the second
    watching.close()


def test_who_is_let_in(address: str) -> None:
    other = address.replace(TOKEN, "another-token")
    assert requests.get(other, timeout=30).status_code == 404
    assert requests.post(f"{other}begin", timeout=30).status_code == 404
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        for path in ("begin", "touch", "hear", "seen"):
            assert requests.post(f"{address}{path}", headers=headers, timeout=30).status_code == 403
    assert requests.get(address, headers={"Host": "evil.example"}, timeout=30).status_code == 400
    page = requests.get(address, timeout=30)
    assert page.status_code == 200 and "default-src 'none'" in page.headers["Content-Security-Policy"]
    for name, found in (
        ("live.js", 200),
        ("live.html", 404),
        ("begin", 404),
        ("..%2Fsite.py", 404),
        ("site.py", 404),
    ):
        assert requests.get(f"{address}{name}", timeout=30).status_code == found


def test_one_session_at_a_time(address: str) -> None:
    first = Watching(address)
    first.block()
    refused = requests.post(f"{address}begin", timeout=30)
    assert refused.status_code == 409 and "is with another page" in refused.json()["detail"]
    first.close()
    # As soon as the server has seen that it is gone, the next may come; the old one's requests are refused.
    while requests.post(f"{address}begin", stream=True, timeout=30).status_code == 409:
        pass
    assert first.tell("touch", x=0.5, y=0.5, kind="poked").status_code == 409


def test_what_is_refused(address: str) -> None:
    watching = Watching(address)
    for values in ({"x": 2, "y": 0}, {"x": 0.5}, {"x": 0.5, "y": 0.5, "kind": "none such"}):
        assert watching.tell("touch", **({"kind": "poked"} | values)).status_code == 422
    hear = f"{address}hear?session={watching.session}"
    for data in (np.full(4, np.nan, "<f4"), np.full(4, np.inf, "<f4")):
        assert requests.post(hear, data=data.tobytes(), timeout=30).status_code == 422
    assert requests.post(f"{address}hear", data=b"", timeout=30).status_code == 422
    assert requests.post(f"{address}hear?session=99", data=b"", timeout=30).status_code == 409
    assert requests.get(f"{address}sound", timeout=30).status_code == 404
    long = np.zeros(121 * 16000, "<f4").tobytes()
    assert requests.post(hear, data=long, timeout=30).status_code == 413
    watching.close()


def test_a_touch_lasts_as_long_as_a_training_clip(avatar: Avatar, tmp_path: Path) -> None:
    """21 frames: blocks of 8 from frame 5 on, 13, 21, and the one from 29 on is the first without it."""
    plain, touched = Session(avatar), Session(avatar, tmp_path)
    assert avatar.touch_frames == 21
    plain.make(), touched.make()
    touched.touch(0.2, 0.7, "poked")
    for _ in range(3):
        assert [shown.jpeg for shown in touched.make()] != [shown.jpeg for shown in plain.make()]
    assert touched._stream._conditions.has_points.all()
    touched.make()
    assert not touched._stream._conditions.has_points.any()
    touched.close()
    again = Session(avatar, tmp_path)
    again.close()
    lines = [json.loads(line) for line in (tmp_path / "0001.jsonl").read_text().splitlines()]
    events = ["begun", "block", "touch", "block", "block", "block", "block", "ended"]
    assert [line["event"] for line in lines] == events
    assert (tmp_path / "0002.jsonl").exists() and not list(tmp_path.glob("*.mp4"))
