"""The pixels that Qwen2.5-VL gets: those of `qwen-vl-utils`, without its step before the processor's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from qwen_vl_utils import process_vision_info, smart_resize, vision_process
from qwen_vl_utils.vision_process import VIDEO_MAX_TOKEN_NUM, VIDEO_MIN_TOKEN_NUM
from transformers import AutoProcessor

from media.decode import decode
from media.requests import Frames
from stages.regions import image_to_send
from tests.support import tiny_vlm

LIMITS = {"min_pixels": 4 * 28 * 28, "max_pixels": 1280 * 28 * 28}
SIZE = {"shortest_edge": LIMITS["min_pixels"], "longest_edge": LIMITS["max_pixels"]}
# Of the processor's values, in levels of a pixel: 0-255 over the standard deviation that they are divided by.
LEVEL = 1 / 255 / 0.26


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The real one; the model's weights are not looked at."""
    folder = tmp_path_factory.mktemp("vlm")
    tiny_vlm.write(folder)
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def frames(samples: Path) -> dict[int, list[np.ndarray]]:
    """8 frames each of 427 x 240 and 640 x 360."""
    source = samples / "videos" / "pyfeat_woman_emotions.mp4"
    wanted = [Frames(fps=2, short_side=side) for side in (240, 360)]
    found = decode(source, wanted).frames
    return {wanted.short_side or 0: found[wanted][1][:8] for wanted in wanted}


def pictures(samples: Path) -> list[np.ndarray]:
    names = ("uniface_man2.jpg", "facerec_obama_official.jpg", "tddfa_man_gown.jpg")
    return [np.asarray(Image.open(samples / "images" / name).convert("RGB")) for name in names]


def ours(processor: Any, image: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """What vLLM makes of a picture: the processor's own step with our limits."""
    made = processor.image_processor(images=[Image.fromarray(image)], size=SIZE, return_tensors="np")
    return np.asarray(made["pixel_values"]), np.asarray(made["image_grid_thw"])[0].tolist()


def theirs(processor: Any, image: np.ndarray) -> tuple[np.ndarray, list[int]]:
    part = {"type": "image", "image": Image.fromarray(image), **LIMITS}
    (shown,), _ = process_vision_info([{"role": "user", "content": [part]}])
    made = processor.image_processor(images=[shown], size=SIZE, return_tensors="np")
    return np.asarray(made["pixel_values"]), np.asarray(made["image_grid_thw"])[0].tolist()


def test_pictures_have_the_same_pixels(processor: Any, samples: Path) -> None:
    """The same grid; values differ by the rounding of two programs that scale by the same rule."""
    scaled = 0
    for image in pictures(samples):
        (mine, grid), (other, other_grid) = ours(processor, image), theirs(processor, image)
        assert grid == other_grid
        height, width = smart_resize(*image.shape[:2], factor=28, **LIMITS)
        assert grid == [1, height // 14, width // 14]
        scaled += (height, width) != image.shape[:2]
        off = np.abs(mine - other) / LEVEL
        assert off.mean() < 0.5 and np.quantile(off, 0.999) <= 3, off.max()
    assert scaled == 3


def test_videos_have_the_same_pixels(
    processor: Any, frames: dict[int, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for images in frames.values():
        video = np.stack(images)

        def read(
            part: dict[str, Any], video: np.ndarray = video
        ) -> tuple[torch.Tensor, dict[str, Any], float]:
            return torch.from_numpy(video.transpose(0, 3, 1, 2).copy()), {}, 2.0

        monkeypatch.setattr(vision_process, "get_video_reader_backend", lambda: "ours")
        monkeypatch.setitem(vision_process.VIDEO_READER_BACKENDS, "ours", read)
        mine, grid = of_video(processor, video)
        other, other_grid = of_video(processor, theirs_of({"video": "file:///these/frames.mp4"}))
        sides = [side // 14 for side in smart_resize(*video.shape[1:3], factor=28)]
        assert grid == other_grid == [4, *sides]
        off = np.abs(mine - other) / LEVEL
        assert off.mean() < 0.5 and np.quantile(off, 0.999) <= 3, off.max()


def test_a_list_of_frames_is_rounded_more_coarsely(
    processor: Any, frames: dict[int, list[np.ndarray]]
) -> None:
    """To sides of 56, not 28: with qwen-vl-utils our frames would have to go through a file."""
    images = frames[240]
    assert images[0].shape[:2] == (240, 427)
    _, grid = of_video(processor, np.stack(images))
    listed = theirs_of({"video": [Image.fromarray(i) for i in images], "sample_fps": 2.0})
    assert grid == [4, 18, 30] and listed.shape[2:] == (224, 448)


def theirs_of(part: dict[str, Any]) -> torch.Tensor:
    """What qwen-vl-utils makes of a video."""
    _, (shown,) = process_vision_info([{"role": "user", "content": [{"type": "video", **part}]}])
    return shown.to(torch.uint8)


def of_video(processor: Any, video: Any) -> tuple[np.ndarray, list[int]]:
    made = processor.video_processor(videos=[video], size=SIZE, do_sample_frames=False, return_tensors="np")
    return np.asarray(made["pixel_values_videos"]), np.asarray(made["video_grid_thw"])[0].tolist()


@pytest.mark.parametrize(
    ("width", "height", "is_same"),
    [
        (854, 480, True),  # what `stages.ask.VIDEO` has of a clip of 16:9
        (480, 480, True),
        (480, 1254, True),
        (480, 1280, False),  # more than 768 tokens, to which qwen-vl-utils shrinks a frame
        (320, 240, False),  # less than 128 tokens, to which it enlarges one
    ],
)
def test_frames_whose_size_differs(width: int, height: int, is_same: bool) -> None:
    limits = {"min_pixels": VIDEO_MIN_TOKEN_NUM * 28 * 28, "max_pixels": VIDEO_MAX_TOKEN_NUM * 28 * 28}
    mine = smart_resize(height, width, factor=28, **LIMITS)
    assert (mine == smart_resize(height, width, factor=28, **limits)) == is_same


def test_the_picture_for_the_hairs_box_is_not_scaled(samples: Path) -> None:
    """So pixels of the answer are pixels of what was sent, whatever the picture's size."""
    for image in pictures(samples):
        sent = image_to_send(image)
        assert smart_resize(*sent.shape[:2], factor=28, **LIMITS) == sent.shape[:2]
