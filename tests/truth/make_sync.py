"""Talking heads whose sound is moved, swapped or left, at other rates, and with a head that moves strongly.

Claims: `av_offset_s` in seconds, how much later the sound is than the picture, and `lip_sync_confidence`, yes
or no. What the clips of the samples themselves are off is labelled by eye (tests/truth/labels/sync.csv), and
what is made here adds to it. A crop of a talking head follows a smooth random path with zoom and roll.

`python -m tests.truth.make_sync SAMPLES FOLDER` writes 137 clips in five minutes.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from media.decode import decode
from media.requests import Audio, Frames
from media.write import write_video
from tests.support.clips import ffmpeg

SEED = 11
LABELS = Path(__file__).parent / "labels" / "sync.csv"
HEADER = ("media", "claim", "value", "start_s", "end_s", "x", "y", "source", "note")
SHIFTS = (-0.4, -0.2, -0.04, 0.0, 0.04, 0.2, 0.4)  # s
RATES = (15.0, 24.0, 25.0, 30.0)
SHORTEST = 4.5  # of swapped sound, s
SIDE = 384  # of a moving crop
SOUND_RATE = 48_000

# Middle and height of the face, shares of the frame, of clips of a constant rate.
FACES = {
    "latentsync_woman_ru": (0.55, 0.39, 0.13),
    "latentsync_man_pt": (0.49, 0.235, 0.175),
    "liveportrait_man_outdoor_zh": (0.48, 0.44, 0.54),
    "retalking_woman_bluebg": (0.54, 0.35, 0.39),
    "retalking_woman_glasses": (0.52, 0.57, 0.62),
    "edtalk_obama": (0.51, 0.49, 0.6),
}

Row = dict[str, str]


def make(samples: Path, folder: Path) -> Path:
    """Write all clips into `folder`, and return the path of their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    own = offsets()
    videos = {name: samples / "videos" / f"{name}.mp4" for name in own}
    rows = [*shifted(videos, own, folder), *swapped(videos, own, folder)]
    rows += [*resampled(videos, own, folder), *moving(videos, own, folder)]
    path = folder / "sync.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def offsets() -> dict[str, tuple[float, str]]:
    """Name of a talking clip of the samples: how much later its sound is than its picture, s; its source."""
    with LABELS.open() as file:
        rows = [row for row in csv.DictReader(file) if row["claim"] == "av_offset_s"]
    return {Path(row["media"]).stem: (float(row["value"]), row["source"]) for row in rows}


Videos = dict[str, Path]
Own = dict[str, tuple[float, str]]


def shifted(videos: Videos, own: Own, folder: Path) -> Iterator[Row]:
    """Sound moved by known times, pictures and sound copied packet by packet."""
    for name, video in videos.items():
        for shift in SHIFTS:
            path = folder / f"shift_{name}_{shift:+.2f}.mp4"
            later = ("-itsoffset", f"{shift}", "-i", video)
            ffmpeg("-i", video, *later, "-map", "0:v", "-map", "1:a", "-c", "copy", path)
            yield from _rows(path, own[name], shift)


def swapped(videos: Videos, own: Own, folder: Path) -> Iterator[Row]:
    """Another source's voice, as long as the shorter of both."""
    lasts = {name: float(decode(video, []).frame_times[-1]) for name, video in videos.items()}
    for name, video in videos.items():
        for other, sound in videos.items():
            seconds = min(lasts[name], lasts[other])
            if own[name][1] == own[other][1] or seconds < SHORTEST:
                continue
            path = folder / f"swap_{name}_{other}.mp4"
            limit = ("-t", f"{seconds:.2f}")
            ffmpeg("-i", video, "-i", sound, "-map", "0:v", "-map", "1:a", "-c", "copy", *limit, path)
            yield {"media": path.name, "claim": "lip_sync_confidence", "value": "no", "source": own[name][1]}


def resampled(videos: Videos, own: Own, folder: Path) -> Iterator[Row]:
    """Other rates of frames, at their times: with `-r` ffmpeg shows pictures up to 0.13 s late."""
    for name in ("edtalk_obama", "retalking_woman_bluebg"):
        for rate in RATES:
            path = folder / f"rate_{name}_{rate:g}.mp4"
            ffmpeg("-i", videos[name], "-vf", f"fps={rate:g}", "-c:a", "copy", "-preset", "ultrafast", path)
            yield from _rows(path, own[name], 0.0)


def moving(videos: Videos, own: Own, folder: Path) -> Iterator[Row]:
    """A tight crop that moves strongly: the head is thrown about, turned by up to 15 degrees, and zoomed."""
    for number, (name, face) in enumerate(FACES.items()):
        if name not in videos:
            continue
        decoded = decode(videos[name], [Frames(None, 720), Audio(SOUND_RATE)])
        times, images = decoded.frames[Frames(None, 720)]
        sound = decoded.audio[Audio(SOUND_RATE)]
        assert sound is not None
        path = folder / f"moving_{name}.mp4"
        fps = 1 / float(np.median(np.diff(times)))
        frames = _thrown(images, times, face, np.random.default_rng(SEED + number))
        write_video(path, frames, fps, 18, sound[round(times[0] * SOUND_RATE) :], SOUND_RATE)
        yield from _rows(path, own[name], 0.0)


def _thrown(
    images: Sequence[npt.NDArray[np.uint8]],
    times: list[float],
    face: tuple[float, float, float],
    rng: np.random.Generator,
) -> npt.NDArray[np.uint8]:
    """The face at 0.62 of the height of a square crop, thrown about."""
    height, width = images[0].shape[:2]
    x, y, size = face[0] * width, face[1] * height, face[2] * height
    across, down, turn, zoom = (_wave(np.asarray(times), rng) for _ in range(4))
    out = np.empty((len(images), SIDE, SIDE, 3), np.uint8)
    for i, image in enumerate(images):
        scale = 0.62 * SIDE / size * (1 + 0.2 * zoom[i])
        warp = cv2.getRotationMatrix2D((x, y), 15 * turn[i], scale)
        warp[0, 2] += SIDE / 2 - x + 0.16 * SIDE * across[i]
        warp[1, 2] += SIDE / 2 - y + 0.16 * SIDE * down[i]
        out[i] = cv2.warpAffine(
            image, warp, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
        )
    return out


def _wave(times: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A smooth random path between -1 and 1: four waves of 0.2 to 1.2 Hz."""
    hz, phase = rng.uniform(0.2, 1.2, 4), rng.uniform(0, 2 * np.pi, 4)
    path = np.sin(2 * np.pi * times[:, None] * hz + phase).sum(1)
    return np.asarray(path / np.abs(path).max())


def _rows(path: Path, own: tuple[float, str], shift: float) -> Iterator[Row]:
    common = {"media": path.name, "source": own[1]}
    yield common | {"claim": "av_offset_s", "value": f"{own[0] + shift:.3f}"}
    yield common | {"claim": "lip_sync_confidence", "value": "yes"}


if __name__ == "__main__":
    print("seed", SEED)
    print(make(Path(sys.argv[1]), Path(sys.argv[2])))
