"""HDTF: High-Definition Talking Face, clips of speakers cut out of YouTube videos.

Facts, of the repository MRzzm/HDTF (README.md, download.py, lists of HDTF_dataset/):

- The lists are `RD_`, `WDA_` and `WRA_` + `video_url.txt`, `resolution.txt`, `annotion_time.txt`,
  `crop_wh.txt` and `crop_ratio.txt`; values are separated by blanks.
- `annotion_time.txt`: `Radio11.mp4 00:30-01:00 01:30-02:30`. The clips are called `Radio11_0.mp4` and
  `Radio11_1.mp4`.
- `crop_wh.txt`: `Radio11_0.mp4 412 599 0 599`, which is left edge, width, upper edge and height in pixels of
  the video at the height in `resolution.txt` (`Radio11.mp4 720`). The authors resize what is cut out to 512 x
  512.
- Some clips have no window. The window of PeterKing_0 is higher than the published height, and the height of
  KevinMcCarthy1 is given as 0: these rows are errors that say so.
- download.py names whole videos `_videos_raw/RD_Radio11.mp4` and clips `RD_Radio11_000.mp4`.
- Licence: Creative Commons Attribution 4.0 (README.md). The videos are YouTube's.

A clip that is not square was cut in time alone, and its window is still to be applied; so the sizes of the
files are read. The names of WDA and WRA are those of the speakers, with a number behind: the identity.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.schema import Field
from media.files import MediaError
from media.size import shown_size
from pipelines.engine.addresses import PROBLEM
from pipelines.engine.looking import at_each
from pipelines.sources.reader import IDENTITY, Reader, Row, Tree, find_file, table_of

LICENCE = "CC-BY-4.0"
SUBSETS = ("RD", "WDA", "WRA")
COLUMNS = {
    "identity": IDENTITY,
    "subset": Field("string", "", "List of HDTF that names the clip: RD, WDA or WRA."),
    "url": Field("string", "URL", "Where the video was published."),
}
# How far a window may lie outside, share of the side: it was measured on whole pixels of another size.
SLACK = 0.005


def looks_like(root: Path) -> bool:
    """Whether one of the lists of windows is there."""
    return find_file(root, [f"{subset}_crop_wh.txt" for subset in SUBSETS]) is not None


def read(tree: Tree) -> pa.Table:
    """The clips of the lists."""
    found = find_file(tree.root, [f"{subset}_crop_wh.txt" for subset in SUBSETS])
    assert found is not None, "the folder was looked at"
    clips = [clip for subset in SUBSETS for clip in _clips(tree, found.parent, subset)]
    sizes = dict(zip(names := sorted({c["uri"] for c in clips}), at_each(_size(tree), names), strict=True))
    return table_of([_row(clip, sizes[clip["uri"]]) for clip in clips], COLUMNS)


def _clips(tree: Tree, lists: Path, subset: str) -> list[dict[str, Any]]:
    """Each clip of a subset: its file, whether that is the whole video, range, window, what is said of it."""
    times, windows, heights, urls = (
        _words(lists / f"{subset}_{name}.txt")
        for name in ("annotion_time", "crop_wh", "resolution", "video_url")
    )
    clips = []
    for video, spans in times.items():
        stem = video.removesuffix(".mp4")
        for number, span in enumerate(spans):
            cut = [f"{stem}_{number}", f"{subset}_{stem}_{number:03d}"]
            whole = [stem, f"{subset}_{stem}"]
            name = next((n for n in (*cut, *whole) if n in tree.by_stem), None)
            clips.append(
                {
                    "clip": f"{stem}_{number}",
                    "uri": f"{stem}.mp4" if name is None else tree.by_stem[name],
                    "is_whole": name not in cut,
                    "span": span,
                    "window": windows.get(f"{stem}_{number}.mp4"),
                    "height": next(iter(heights.get(video, [])), "0"),
                    "subset": subset,
                    "url": next(iter(urls.get(stem, [])), None),
                    "identity": None if subset == "RD" else re.sub(r"\d+$", "", stem),
                }
            )
    return clips


def _words(file: Path) -> dict[str, list[str]]:
    """The lines of a list: the first word, and the others; nothing where there is no such file."""
    if not file.is_file():
        return {}
    lines = (line.split() for line in file.read_text("utf-8").splitlines())
    return {words[0]: words[1:] for words in lines if words}


def _size(tree: Tree) -> Any:
    def of(name: str) -> tuple[int, int] | None:
        try:
            return shown_size(tree.path(name))
        except (MediaError, OSError):  # said by the stage that opens it
            return None

    return of


def _row(clip: dict[str, Any], size: tuple[int, int] | None) -> Row:
    row: dict[str, Any] = {name: clip[name] for name in ("uri", *COLUMNS)} | {"licence": LICENCE}
    if clip["is_whole"]:
        start, _, end = clip["span"].partition("-")
        row |= {"start_s": _seconds(start), "end_s": _seconds(end)}
        if row["start_s"] is None or row["end_s"] is None:
            return row | {PROBLEM: f"HDTF gives the clip {clip['clip']} the times {clip['span']!r}"}
    if size is None or (not clip["is_whole"] and size[0] == size[1]):
        return row  # not there, or cut out already
    return row | _crop(clip, size)


def _seconds(text: str) -> float | None:
    """Seconds of `mm:ss` or `h:mm:ss`; None: it is none."""
    if not re.fullmatch(r"\d+(:\d+){1,2}", text):
        return None
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + int(part)
    return seconds


def _crop(clip: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """The window in shares of a video of this size; or why there is none."""
    window, name = clip["window"], clip["clip"]
    if window is None:
        return {PROBLEM: f"HDTF publishes no window for the clip {name}"}
    height = int(clip["height"]) if clip["height"].isdigit() else 0
    if not height:
        return {PROBLEM: f"HDTF publishes no height of the video that the window of {name} is measured on"}
    try:
        x, width, y, high = (int(word) / height * size[1] for word in window)
    except ValueError:
        return {PROBLEM: f"HDTF gives the clip {name} the window {' '.join(window)!r}"}
    edges = (x / size[0], y / size[1], (x + width) / size[0], (y + high) / size[1])
    if not all(0 <= edge <= 1 + SLACK for edge in edges):
        return {
            PROBLEM: f"the window of {name}, {' '.join(window)} on a height of {height}, lies outside of the "
            f"video of {size[0]}x{size[1]}"
        }
    return dict(zip(("crop_x0", "crop_y0", "crop_x1", "crop_y1"), (min(e, 1.0) for e in edges), strict=True))


READER = Reader(
    title="HDTF",
    looks_for="the lists of its repository (RD_crop_wh.txt, RD_annotion_time.txt, RD_resolution.txt, ...; "
    "in the folder or in HDTF_dataset/) beside the videos Radio11.mp4 or the clips Radio11_0.mp4",
    looks_like=looks_like,
    read=read,
    licence=LICENCE,
    columns=COLUMNS,
)
