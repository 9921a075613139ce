"""Where a GPU decodes the pictures are the same, and where none does the CPU takes its place."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from media import decode as decoding
from media import nvdec
from media.decode import decode
from media.nvdec import GIVEN, STORED, gpu, is_fit
from media.reader import open_media
from media.requests import Audio, Frames
from media.shown import Shower
from tests.media.test_pictures import frame_of, noise
from tests.support.clips import make_clip

REQUESTS = [Frames(None, 24), Frames(5, 17), Audio()]
PQ, LIMITED, FULL = 16, 1, 2
SIZES = [(322, 182), (121, 68), (119, 67), (48, 27)]


def same(one: decoding.Decoded, other: decoding.Decoded) -> bool:
    """Whether times, pictures and sound are."""
    pictures = (
        one.frames[request][0] == other.frames[request][0]
        and all(map(np.array_equal, one.frames[request][1], other.frames[request][1]))
        for request in REQUESTS[:2]
    )
    return all(pictures) and np.array_equal(one.audio[Audio()], other.audio[Audio()])


def test_without_a_gpu_the_cpu_decodes_and_it_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=2, size="64x48")
    gpu.cache_clear()
    found = [decode(clip, REQUESTS, decoder="cuda") for _ in range(2)]
    right = decode(clip, REQUESTS)
    assert same(found[0], right) and same(found[1], right) and right.decoder == "cpu"
    assert found[0].pixel_format == right.pixel_format == "yuv420p"
    said = capsys.readouterr().err
    if gpu() is None:
        assert said.count("video is decoded on the CPU: no GPU decodes here (") == 1
        assert found[0].decoder == "cpu"
    else:
        assert not said and found[0].decoder == "cuda"


def test_what_the_gpu_damages_the_cpu_decodes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=3, size="160x120")
    data = bytearray(clip.read_bytes())
    rubbish = np.random.default_rng(0).integers(0, 256, len(data) // 6, np.uint8).tobytes()
    data[len(data) // 3 : len(data) // 3 + len(rubbish)] = rubbish
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    right = {path: decode(path, REQUESTS) for path in (clip, damaged)}
    assert right[damaged].decode_errors and not right[clip].decode_errors

    opened: list[str] = []

    @contextlib.contextmanager
    def noted(path: Path, **wanted: Any) -> Any:
        opened.append(wanted["decoder"])
        with open_media(path) as reader:
            yield reader

    monkeypatch.setattr(decoding, "gpu", lambda: "a GPU")
    monkeypatch.setattr(decoding, "open_media", noted)
    for path, tries in ((clip, ["cuda"]), (damaged, ["cuda", "cpu"])):
        opened.clear()
        assert same(decode(path, REQUESTS, decoder="cuda"), right[path]) and opened == tries


@pytest.mark.parametrize(("stored", "given"), [("yuv420p", "nv12"), ("yuv420p10le", "p010le")])
@pytest.mark.parametrize("kind", ["limited", "full", "interlaced", "hdr"])
def test_pictures_of_what_a_gpu_gives_are_the_same(stored: str, given: str, kind: str) -> None:
    if kind == "hdr" and stored == "yuv420p":
        pytest.skip("high dynamic range has 10 bits")
    assert stored in STORED and given in GIVEN
    planes = [noise(322, 182, 1, 60, 180), noise(161, 91, 2, 108, 148), noise(161, 91, 3, 108, 148)]
    made = frame_of(stored, planes, FULL if kind == "full" else LIMITED)
    if kind == "hdr":
        made.color_trc, made.color_primaries, made.colorspace = PQ, 9, 9
    other = VideoReformatter().reformat(made, format=given)
    shown = []
    for frame in (made, other):
        frame = interlaced(frame) if kind == "interlaced" else frame
        shower = Shower(1.0)
        shower.see(frame)
        shown.append([shower.picture(frame, size).rgb().astype(int) for size in SIZES])
    off = [int(np.abs(one - two).max()) for one, two in zip(*shown, strict=True)]
    assert max(off) <= (1 if (given, kind) == ("p010le", "full") else 0), off


def interlaced(frame: VideoFrame) -> VideoFrame:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 10)
    )
    graph.link_nodes(source, graph.add("setfield", mode="tff"), graph.add("buffersink")).configure()
    graph.push(frame)
    out: VideoFrame = graph.pull()
    out.colorspace, out.color_range = frame.colorspace, frame.color_range
    assert out.interlaced_frame
    return out


def test_only_streams_whose_pixels_the_standard_says_go_to_the_gpu() -> None:
    assert is_fit("h264", "yuv420p") and is_fit("hevc", "yuv420p10le") and is_fit("vp9", "yuv420p")
    assert (
        not is_fit("mpeg4", "yuv420p") and not is_fit("mjpeg", "yuvj420p") and not is_fit("h264", "yuv422p")
    )
    configs = {name: nvdec.Codec(name).hardware_configs for name in nvdec.CODECS}
    assert all(any(c.format.name == "cuda" for c in found) for found in configs.values())
