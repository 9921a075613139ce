from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel

from backends.language.chat_completion import (
    InvalidAnswer,
    check_strict,
    encode_video,
    json_object,
    read_answer,
)
from backends.language.vision_language_model import Question
from media.decode import decode
from media.requests import Frames
from prompts.prompt import Answer
from tests.support.asking import GOOD, KEY, Point, ask, endpoint
from tests.support.memory import FILLS, filled
from tests.support.misbehaving_server import MisbehavingServer, Reply, completion


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with MisbehavingServer(lambda body: GOOD) as running:
        yield running


@pytest.mark.parametrize(
    "text",
    [
        f"Sure! Here it is:\n{GOOD}\nI hope this helps.",
        f"```json\n{GOOD}\n```",
        f"<think>maybe {{'x': 1}} or {GOOD}</think>\n{GOOD}",
        GOOD + " {not more}",
        GOOD + "\n" * 500,
    ],
)
def test_an_answer_in_prose(text: str, server: MisbehavingServer, tmp_path: Path) -> None:
    server.script = [Reply(content=text, finish_reason="length" if text.endswith("\n") else "stop")]
    assert endpoint(server, tmp_path).answer(ask()) == Point(colour="red", x=0.5, note="a")
    assert len(server.chats()) == 1


def test_an_inner_object_is_not_the_answer() -> None:
    with pytest.raises(ValueError, match="broken JSON"):
        json_object('{"first": {"colour": "red", "x": 0.5, "note": "a"}, "second": ')
    with pytest.raises(InvalidAnswer, match="Input should be an object"):
        read_answer('{"point": 1}', Question("?", Nested))


class Nested(Answer):
    point: Point


def data_of(url: str, kind: str) -> bytes:
    head, _, data = url.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(data, validate=True)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


@pytest.fixture(scope="module")
def frames(samples: Path) -> list[np.ndarray]:
    wanted = Frames(fps=4, short_side=240)
    clip = decode(samples / "videos" / "pyfeat_woman_emotions.mp4", [wanted])
    return clip.frames[wanted][1][:7]


def test_pictures_arrive(frames: list[np.ndarray], server: MisbehavingServer, tmp_path: Path) -> None:
    odd = np.ascontiguousarray(frames[1][:121, :77])
    endpoint(server, tmp_path).answer(ask(images=[frames[0], odd]))
    *pictures, text = server.chats()[0].body["messages"][0]["content"]
    assert text == {"type": "text", "text": "Where?"}
    assert "media_io_kwargs" not in server.chats()[0].body
    for sent, image in zip(pictures, [frames[0], odd], strict=True):
        got = np.asarray(Image.open(io.BytesIO(data_of(sent["image_url"]["url"], "image/jpeg"))))
        assert got.shape == image.shape
        assert psnr(got, image) > 42
    endpoint(server, tmp_path).answer(ask(images=[odd, frames[0]]))  # another order is another question
    assert len(server.chats()) == 2


@pytest.mark.parametrize("fps", [4.0, 29.97, 0.5])
def test_a_video_arrives(
    fps: float, frames: list[np.ndarray], server: MisbehavingServer, tmp_path: Path
) -> None:
    odd = [np.ascontiguousarray(f[:201, :301]) for f in frames]
    endpoint(server, tmp_path).answer(ask(images=odd, fps=fps))
    body = server.chats()[0].body
    part, text = body["messages"][0]["content"]
    assert (part["type"], text["type"]) == ("video_url", "text")
    assert "media_io_kwargs" not in body  # a default vLLM server refuses it
    with av.open(io.BytesIO(data_of(part["video_url"]["url"], "video/mp4"))) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert float(stream.average_rate) == pytest.approx(fps, abs=1e-3)
        got = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(stream)]
    assert [t for t, _ in got] == pytest.approx([i / fps for i in range(7)], abs=1e-3)
    for (_, image), sent in zip(got, odd, strict=True):
        assert image.shape == (202, 302, 3)
        assert psnr(image[:201, :301], sent) > 36


def test_one_frame_is_a_picture(server: MisbehavingServer, tmp_path: Path) -> None:
    endpoint(server, tmp_path).answer(ask(images=[np.zeros((16, 16, 3), np.uint8)], fps=4.0))
    body = server.chats()[0].body
    assert [p["type"] for p in body["messages"][0]["content"]] == ["image_url", "text"]
    assert "media_io_kwargs" not in body


def test_frames_as_pictures(frames: list[np.ndarray], server: MisbehavingServer, tmp_path: Path) -> None:
    endpoint(server, tmp_path, video=False).answer(ask(images=frames, fps=4.0))
    body = server.chats()[0].body
    parts = body["messages"][0]["content"]
    assert [p["type"] for p in parts] == ["text", *["image_url"] * 7, "text"]
    assert parts[0]["text"] == "7 frames of one video in order, 4 a second:"
    assert "media_io_kwargs" not in body


def test_a_grey_video_keeps_its_level() -> None:
    images = [np.full((64, 64, 3), (200, 60, 30), np.uint8)] * 3
    with av.open(io.BytesIO(encode_video(images, 2))) as container:
        frames = list(container.decode(video=0))
    got = [f.to_ndarray(format="rgb24") for f in frames]
    assert np.abs(np.asarray(got, int) - (200, 60, 30)).max() <= 4
    assert {(f.colorspace, f.color_range) for f in frames} == {(6, 1)}  # BT.601, 16-235


def test_the_same_pictures_are_the_same_video(frames: list[np.ndarray]) -> None:
    made = []
    for fill in FILLS:
        with filled(fill):
            made.append(encode_video(frames, 4))
    assert made[0] == made[1]


def test_schemas_of_a_strict_server() -> None:
    check_strict(Nested.model_json_schema())

    class Loose(BaseModel):
        x: int

    class Optional(Answer):
        x: int
        y: int = 3

    with pytest.raises(ValueError, match="additional properties must be forbidden"):
        check_strict(Loose.model_json_schema())
    with pytest.raises(ValueError, match="y must be required"):
        check_strict(Optional.model_json_schema())


def test_completion_has_the_shape_of_the_api() -> None:
    from openai.types.chat import ChatCompletion

    made = ChatCompletion.model_validate(completion(GOOD, "m"))
    assert made.choices[0].message.content == GOOD
