"""Heads turned by known angles, and clips that hold together or do not.

Pictures: portraits of the samples on a turntable (`tests/truth/turntable.py`), -90 to 90 degrees. Claims:
`head_yaw` in degrees with the sign of `stages.head.Head`, and `head_profile_share`, yes from 75 degrees, no
to 45.

Clips of 3 s, claim `points_lost`, yes or no. Not lost (steady): real clips, the same closer, and
turntable heads that swing 55 degrees to both sides at up to 140 degrees a second. Broken: the same clips with
their frames in disorder, with a picture that swims, with blocks from elsewhere, with another clip shining
through, or shaken.

`python -m tests.truth.make_head SAMPLES FOLDER` writes them all, in about five minutes.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from media.decode import decode
from media.picture import read_picture
from media.requests import Frames
from media.write import write_video
from tests.truth.turntable import Head, draw, head_of, turn

SEED = 7
SIDE = 480  # of pictures
CLIP_SIDE = 360
FPS = 15
SECONDS = 3.0
HEADER = ("media", "claim", "value", "start_s", "end_s", "x", "y", "source", "note")

Images = npt.NDArray[np.uint8]  # [T, H, W, 3]
Row = tuple[str, str, str, str, str, str, str, str, str]

PORTRAITS = (
    *("images/uniface_man1", "images/uniface_man2", "images/uniface_man3", "images/uniface_woman1"),
    *("images/facerec_obama_official", "images/facerec_biden_official", "images/tddfa_man_gown"),
    *("kinds/deepface_img10", "kinds/deepface_img20", "kinds/deepface_img25", "kinds/deepface_img32"),
    *("kinds/deepface_img47", "kinds/facenet-pytorch_paul_rudd_1", "kinds/v-express_vasa-1_13_ref"),
    *("kinds/v-express_vasa-1_3_ref", "kinds/v-express_vasa-1_7_ref", "kinds/v-express_vasa-1_l2_ref"),
    *("kinds/v-express_vasa-1_l3_ref", "kinds/v-express_vasa-1_12_ref", "kinds/v-express_vasa-1_17_ref"),
)
SWINGING = (
    "images/uniface_man3",
    "images/facerec_biden_official",
    "kinds/deepface_img10",
    "kinds/v-express_vasa-1_13_ref",
)

# File, first second, and the middle and side of the square that is the same clip closer, shares of the width.
CLIPS = (
    ("hellomeme_man_subtitles.mp4", 0.5, 0.47, 0.42, 0.75),
    ("datajuicer_hair_braiding.mp4", 0.5, 0.36, 0.42, 0.4),
    ("datajuicer_hair_braiding.mp4", 8.0, 0.4, 0.36, 0.4),
    ("clearervoice_debate_two.avi", 1.0, 0.27, 0.17, 0.22),
    ("clearervoice_debate_two.avi", 4.0, 0.73, 0.16, 0.22),
    ("pyfeat_woman_emotions.mp4", 0.5, 0.67, 0.28, 0.5),
    ("pyfeat_woman_emotions.mp4", 11.5, 0.72, 0.28, 0.5),
    ("edtalk_obama.mp4", 1.0, 0.5, 0.45, 0.6),
    ("retalking_woman_bluebg.mp4", 1.0, 0.58, 0.38, 0.45),
    ("retalking_woman_glasses.mp4", 1.0, 0.48, 0.55, 0.6),
    ("retalking_man_office.mp4", 1.0, 0.53, 0.35, 0.45),
    ("liveportrait_man_outdoor_zh.mp4", 0.5, 0.5, 0.5, 0.7),
    ("liveportrait_man_selfie_noaudio.mp4", 3.0, 0.5, 0.8, 0.7),
    ("latentsync_man_en.mp4", 2.0, 0.52, 0.55, 0.45),
    ("latentsync_man_pt.mp4", 2.0, 0.5, 0.38, 0.5),
    ("latentsync_woman_ru.mp4", 2.0, 0.5, 0.62, 0.4),
)  # fmt: skip


def make(samples: Path, folder: Path) -> Path:
    """Write all media and `head.csv` into a folder; gives the path of that file."""
    print(f"seed {SEED}")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [*_pictures(samples, folder), *_clips(samples, folder)]
    labels = folder / "head.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])
    return labels


def _pictures(samples: Path, folder: Path) -> Iterator[Row]:
    for k, name in enumerate(PORTRAITS):
        rng = np.random.default_rng((SEED, k))
        head = _head(samples, name)
        for j, yaw in enumerate(range(-90, 91, 15)):
            pitch, roll = (0.0, 0.0) if (j + k) % 2 else (rng.uniform(-20, 20), rng.uniform(-15, 15))
            place = (SIDE / 2 + rng.uniform(-40, 40), SIDE * 0.45)
            picture = draw(
                head, turn(yaw, pitch, roll), _wall(rng), place, rng.uniform(9, 17), rng.uniform(60, 180)
            )
            media = f"{Path(name).name}_yaw{yaw:+d}.png"
            cv2.imwrite(str(folder / media), picture[..., ::-1])
            note = f"pitch {pitch:.0f}, roll {roll:.0f}"
            yield (media, "head_yaw", str(yaw), "", "", "", "", name, note)
            if abs(yaw) != 60:
                yield (
                    media,
                    "head_profile_share",
                    "yes" if abs(yaw) > 60 else "no",
                    "",
                    "",
                    "",
                    "",
                    name,
                    note,
                )


def _clips(samples: Path, folder: Path) -> Iterator[Row]:
    def write(name: str, images: Images, value: str, source: str, note: str) -> Row:
        write_video(folder / name, images, FPS, 18)
        return (name, "points_lost", value, "", "", "", "", source, note)

    for k, name in enumerate(SWINGING):
        source = Path(name).name
        images = _swing(_head(samples, name), np.random.default_rng((SEED, 100 + k)))
        yield write(f"swing_{source}.mp4", images, "no", source, "turntable, swings 55 degrees to both sides")
    shots = [_shot(samples, *clip) for clip in CLIPS]
    for k, (clip, (wide, close)) in enumerate(zip(CLIPS, shots, strict=True)):
        stem, source = f"{Path(clip[0]).stem}_{clip[1]:g}", clip[0]
        yield write(f"{stem}_wide.mp4", wide, "no", source, "as it is")
        yield write(f"{stem}_close.mp4", close, "no", source, "closer")
        for j, fault in enumerate(FAULTS):
            closer = (j + k) % 2
            other = shots[(k + 5) % len(shots)][closer]
            broken = fault(close if closer else wide, other, np.random.default_rng((SEED, 200 + k)))
            kind = fault.__name__.strip("_")
            yield write(
                f"{stem}_{kind}.mp4",
                broken,
                "yes",
                source,
                f"{kind}, {'closer' if closer else 'as it is'}",
            )


def _head(samples: Path, name: str) -> Head:
    head = head_of(read_picture(samples / f"{name}.jpg"))
    if head is None:
        raise ValueError(f"{name}: no face")
    return head


def _wall(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A plain wall with light from one side and soft stains."""
    colour = rng.uniform(30, 230, 3)
    stains = cv2.GaussianBlur(rng.normal(0, 120, (SIDE, SIDE)), (0, 0), 12)
    light = np.linspace(0.8, 1.2, SIDE)[None, :]
    return np.clip((colour + stains[..., None]) * light[..., None], 0, 255).astype(np.uint8)


def _swing(head: Head, rng: np.random.Generator) -> Images:
    wall, start = _wall(rng)[:CLIP_SIDE, :CLIP_SIDE], rng.uniform(0, 2 * np.pi)
    out = []
    for t in np.arange(round(SECONDS * FPS)) / FPS:
        yaw = 55 * np.sin(2 * np.pi * 0.4 * t + start)
        pitch = 8 * np.sin(2 * np.pi * 0.6 * t)
        out.append(draw(head, turn(yaw, pitch), wall, (CLIP_SIDE / 2, CLIP_SIDE / 2), 15, 70))
    return np.stack(out)


def _shot(samples: Path, file: str, first_s: float, x: float, y: float, side: float) -> tuple[Images, Images]:
    """Three seconds of a sample, whole and closer, the shorter side `CLIP_SIDE`."""
    request = Frames(FPS, 720)
    path = samples / "videos" / file
    _, images = decode(path, [request], first_s, first_s + SECONDS).frames[request]
    height, width = images[0].shape[:2]
    half = side * width / 2
    left, top = round(max(x * width - half, 0)), round(max(y * width - half, 0))
    close = [
        _resized(i[top : top + round(2 * half), left : left + round(2 * half)], CLIP_SIDE, CLIP_SIDE)
        for i in images
    ]
    scale = CLIP_SIDE / min(height, width)
    size = (round(width * scale / 2) * 2, round(height * scale / 2) * 2)
    return np.stack([_resized(i, *size) for i in images]), np.stack(close)


def _resized(image: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    way = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)


def _disorder(images: Images, _: Images, rng: np.random.Generator) -> Images:
    """Frames in random order within each 0.4 s."""
    order = np.arange(len(images))
    for start in range(0, len(order), 6):
        order[start : start + 6] = rng.permutation(order[start : start + 6])
    return images[order]


def _swim(images: Images, _: Images, rng: np.random.Generator) -> Images:
    """Every frame pulled out of shape by itself: 1.5 % of the width, over patches of an eighth of it."""
    height, width = images.shape[1:3]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    out = []
    for image in images:
        pull = [cv2.resize(rng.normal(0, 0.015 * width, (8, 8)).astype(np.float32), (width, height),
                           interpolation=cv2.INTER_CUBIC) for _ in range(2)]  # fmt: skip
        out.append(
            cv2.remap(image, x + pull[0], y + pull[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        )
    return np.stack(out)


def _blocks(images: Images, _: Images, rng: np.random.Generator) -> Images:
    """A third of the 32 px blocks of every frame come from another place and time."""
    out = images.copy()
    count, height, width = images.shape[:3]
    for t in range(count):
        for top in range(0, height - 31, 32):
            for left in range(0, width - 31, 32):
                if rng.random() < 1 / 3:
                    from_t, from_y, from_x = (int(rng.integers(n)) for n in (count, height - 31, width - 31))
                    block = images[from_t, from_y : from_y + 32, from_x : from_x + 32]
                    out[t, top : top + 32, left : left + 32] = block
    return out


def _morph(images: Images, other: Images, _: np.random.Generator) -> Images:
    """Another clip shines through, from nothing to four fifths and back every second."""
    height, width = images.shape[1:3]
    out = []
    for t, image in enumerate(images):
        share = 0.4 - 0.4 * np.cos(2 * np.pi * t / FPS)
        second = _resized(other[t % len(other)], width, height)
        out.append(cv2.addWeighted(image, 1 - share, second, share, 0))
    return np.stack(out)


def _shaken(images: Images, _: Images, rng: np.random.Generator) -> Images:
    """Every frame moved by itself, by up to 4 % of the width and turned by up to 2 degrees."""
    height, width = images.shape[1:3]
    out = []
    for image in images:
        move = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-2, 2), 1)
        move[:, 2] += rng.uniform(-0.04, 0.04, 2) * width
        out.append(cv2.warpAffine(image, move, (width, height), borderMode=cv2.BORDER_REFLECT))
    return np.stack(out)


FAULTS: tuple[Callable[[Images, Images, np.random.Generator], Images], ...] = (
    *(_disorder, _swim, _blocks, _morph, _shaken),
)

if __name__ == "__main__":
    print(make(Path(sys.argv[1]), Path(sys.argv[2])))
