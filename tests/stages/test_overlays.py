"""Overlays: what kind of text, from known lines; text drawn on a real picture; real clips."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from backends.pictures.text_detector import RapidOcr, TextLine
from media.decode import Decoded
from stages.clip import Clip
from stages.overlays import Overlays, overlap


class Known:
    """Reads given lines, frame after frame."""

    id = "known"

    def __init__(self, frames: list[list[TextLine]]) -> None:
        self.frames = iter(frames)

    def setup(self) -> None: ...

    def read(self, image: np.ndarray) -> list[TextLine]:
        return next(self.frames)


def line(text: str, x: float, y: float, w: float = 0.3, h: float = 0.06, tilt: float = 0.0) -> TextLine:
    return TextLine(box=(x, y, x + w, y + h), tilt=tilt, text=text, score=1.0)


def score(frames: list[list[TextLine]]) -> dict:
    stage = Overlays(Known(frames), Overlays.Config(every_s=2))  # every frame is read
    times = [2.0 * i for i in range(len(frames))]
    images = [np.zeros((9, 16, 3), np.uint8)] * len(frames)
    return stage.score(Clip(row={}, decoded=Decoded(frames={stage.sees[0]: (times, images)})))


def test_subtitles():
    said = ["so this is how", "we make the bread", "and that is all"]
    found = score([[line(text, 0.25, 0.85, 0.5)] for text in said] + [[]])
    assert found["subtitle_share"] == 0.75
    assert found["persistent_text"] is False
    assert found["text_area"] == pytest.approx(0.03)
    assert found["overlay_text"] == said


def test_logo_and_running_clock():
    found = score(
        [[line("NEWS", 0.85, 0.05, 0.1), line(f"0:{59 - 2 * i}", 0.05, 0.8, 0.1)] for i in range(4)]
    )
    assert found["persistent_text"] is True and found["subtitle_share"] == 0
    assert found["num_text_boxes"] == 2
    clock = score([[line(f"0:{59 - 2 * i}", 0.05, 0.8, 0.1)] for i in range(4)])
    assert clock["persistent_text"] is True


def test_scene_text_is_no_overlay():
    jumper = [[line("MISFITS", 0.35 + 0.09 * (i % 2), 0.7 + 0.05 * (i % 2), 0.3)] for i in range(4)]
    sign = [[line("BAKERY", 0.1 + 0.1 * i, 0.1)] for i in range(4)]
    tilted = [[line("EXIT", 0.05, 0.05, tilt=12)] for _ in range(4)]
    chest = [[line("COLLEGE", 0.4, 0.6, 0.2)] for _ in range(4)]
    for frames in (jumper, sign, tilted, chest):
        found = score(frames)
        assert (found["persistent_text"], found["subtitle_share"]) == (False, 0), frames[0]
        assert found["text_area"] > 0


def test_single_frame_and_none():
    found = score([[line("NEWS", 0.85, 0.05, 0.1)]])
    assert found["persistent_text"] is None
    found = score([[], []])
    assert found["text_area"] == found["text_area_max"] == found["subtitle_share"] == 0
    assert found["overlay_text"] == [] and found["persistent_text"] is False
    assert set(found) == set(Overlays.writes)


def test_text_is_capped():
    found = score([[line(f"{i}{'x' * 200}{i}", 0.1, 0.1) for i in range(50)], []])
    assert len(found["overlay_text"]) == 20
    assert max(map(len, found["overlay_text"])) == 80


def test_overlap():
    assert overlap(line("a", 0, 0, 0.2, 0.2), line("b", 0, 0, 0.2, 0.2)) == pytest.approx(1)
    assert overlap(line("a", 0, 0, 0.2, 0.2), line("b", 0.1, 0, 0.2, 0.2)) == pytest.approx(1 / 3)
    assert overlap(line("a", 0, 0, 0.2, 0.2), line("b", 0.5, 0.5, 0.2, 0.2)) == 0


@pytest.fixture(scope="module")
def reader() -> RapidOcr:
    reader = pickle.loads(pickle.dumps(RapidOcr()))
    reader.setup()
    return reader


@pytest.mark.parametrize("size", [(720, 1080), (700, 700)])
def test_drawn_text_is_read_in_place(reader, samples, size):
    image = cv2.cvtColor(cv2.imread(str(samples / "images" / "facealign_grass.jpg")), cv2.COLOR_BGR2RGB)
    height, width = size
    image = np.ascontiguousarray(cv2.resize(image, (width, height)) // 2)
    assert reader.read(image) == []
    origin = (int(0.2 * width), int(0.9 * height))
    cv2.putText(image, "HELLO WORLD", origin, cv2.FONT_HERSHEY_SIMPLEX, 1.6, (255, 255, 255), 3)
    found = reader.read(image)
    assert [f.text.replace(" ", "") for f in found] == ["HELLOWORLD"]
    (w, h), _ = cv2.getTextSize("HELLO WORLD", cv2.FONT_HERSHEY_SIMPLEX, 1.6, 3)
    box = found[0].box
    assert box[0] == pytest.approx(0.2, abs=0.03) and box[2] == pytest.approx(0.2 + w / width, abs=0.03)
    assert box[3] == pytest.approx(0.9, abs=0.03) and box[1] == pytest.approx(0.9 - h / height, abs=0.03)
    assert abs(found[0].tilt) < 2


def test_real_clips(reader, samples, decode_clip):
    stage = Overlays(reader)
    found = {}
    names = (
        "clearervoice_debate_two.avi",
        "hellomeme_man_subtitles.mp4",
        "latentsync_woman_ru.mp4",
        "intel_asl_brother.mkv",
    )
    for name in names:
        clip = decode_clip(samples / "videos" / name, stage)
        found[name] = stage.score(clip)
    debate, meme, woman, jumper = found.values()
    assert debate["persistent_text"] is True and "NETWORK" in debate["overlay_text"]
    assert meme["subtitle_share"] >= 0.5 and meme["text_area"] > 0.02
    for clean in (woman, jumper):
        assert clean["subtitle_share"] == 0 and clean["persistent_text"] is False
        assert clean["text_area"] < 0.01
    assert jumper == stage.score(clip)
