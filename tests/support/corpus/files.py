"""What is known of a file of the corpus, and how such a file is made with ffmpeg."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import imageio_ffmpeg

from tests.support.clips import ffmpeg
from tests.support.corpus.content import Content, write_pictures, write_sound

# A stream of sound may begin so long before its first sample that was meant to be heard (what an encoder
# needs to begin), and the clip's clock with it.
PRIMING_S = 0.07


FLV_HEADER = 13  # bytes


@dataclass(frozen=True)
class Part:
    """A stretch of a file whose pictures and sound have one clock.

    at: when its first picture is shown, s after the clip's beginning (of its first picture in a shard), and
        how exactly that is known. Times of all its pictures and beeps are relative to that picture.
    size: width and height that its pictures have of their own, where other parts have another one.
    """

    numbers: tuple[int, ...]
    times: tuple[float, ...]
    beeps: tuple[float, ...]
    at: float = 0.0
    within: float = PRIMING_S
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Truth:
    """What whoever reads a file must find.

    size: width and height as shown; None: not said.
    has_sound: there is a track of sound that can be decoded.
    corners: how near the corners' colours are to those drawn ("near"), only which of red, green, blue is the
        strongest ("hue"), grey ("grey"), or nothing is said ("").
    variable: the intervals between pictures vary.
    hdr: PQ or HLG.
    lost: so many pictures may be missing or damaged, at any place.
    cut: the file breaks off: it holds the first pictures, at least `kept` of them.
    claims: its header says how much there should be, so that it is an error, or a share tells.
    claim_within: how far the header's claim is from the truth, as a share of it.
    sound_within: how exact beeps are, s.
    time_within: how exact pictures are, s: what the container's stamps are rounded to.
    ffmpeg: why ffmpeg's own command gives something else, by what: "pictures", "sound", "all"; its opinion on
        that is not asked.
    """

    parts: tuple[Part, ...]
    size: tuple[int, int] | None = None
    has_sound: bool = True
    corners: str = "near"
    variable: bool = False
    hdr: bool = False
    lost: int = 0
    cut: bool = False
    kept: int = 0
    claims: bool = True
    claim_within: float = 0.0
    sound_within: float = 0.02
    time_within: float = 0.0011
    ffmpeg: tuple[tuple[str, str], ...] = ()

    def asks_ffmpeg(self, what: str) -> bool:
        """Whether ffmpeg's opinion on "pictures" or "sound" counts."""
        return not {what, "all"} & {name for name, _ in self.ffmpeg}


How: TypeAlias = "Callable[[Recipe, Path], None]"


@dataclass(frozen=True)
class Recipe:
    """How a file is made, and what is known of it.

    kind: which axis it lies on.
    suffix: of its name; `format` is ffmpeg's name of it where the suffix does not tell.
    contents: of its parts.
    video, audio: ffmpeg's options; no audio: no sound.
    each: options of every part's own.
    delays: how much later picture and sound begin, s.
    how: makes the file.
    key: every so many pictures there is a key frame; ranges are compared where it is not 0.
    """

    name: str
    kind: str
    suffix: str
    truth: Truth
    contents: tuple[Content, ...] = (Content(),)
    video: tuple[str, ...] = ()
    audio: tuple[str, ...] = ()
    mux: tuple[str, ...] = ()
    each: tuple[tuple[str, ...], ...] = ()
    delays: tuple[float, float] = (0.0, 0.0)
    how: How | None = None
    key: int = 0

    @property
    def content(self) -> Content:
        """Of the first part."""
        return self.contents[0]


def make(recipe: Recipe, folder: Path) -> Path:
    """Make the file in a folder; raw pictures and sound are kept there in `raw` for the next one."""
    path = folder / f"{recipe.name}.{recipe.suffix}"
    (recipe.how or plain)(recipe, path)
    return path


def aside(target: Path, name: str) -> Path:
    """Where a file lies that is needed on the way to another."""
    folder = target.parent / "raw"
    folder.mkdir(exist_ok=True)
    return folder / name


def pictures(content: Content, target: Path) -> list[str]:
    """Arguments that read a content's pictures."""
    width, height = content.stored
    key = (width, height, content.frames, content.first, content.mirrored, content.turns)
    path = aside(target, "-".join(map(str, key)) + ".rgb")
    if not path.exists():
        write_pictures(content, path)
    form = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(content.fps)]
    return [*form, "-i", str(path)]


LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def sound(content: Content, target: Path) -> list[str]:
    """Arguments that read a content's sound."""
    seconds = content.picture_s if content.seconds is None else content.seconds
    key = (*content.beeps, content.rate, content.channels, seconds)
    path = aside(target, "-".join(map(str, key)) + ".f32")
    if not path.exists():
        write_sound(content, path)
    form = ["-f", "f32le", "-ar", str(content.rate), "-ch_layout", LAYOUTS[content.channels]]
    return [*form, "-i", str(path)]


def encode(recipe: Recipe, target: Path, number: int = 0, options: tuple[str, ...] = ()) -> None:
    """Encode one of the parts into a file."""
    content = recipe.contents[number]
    own = recipe.each[number] if recipe.each else ()
    inputs, filters = pictures(content, target), []
    if recipe.audio:
        inputs += sound(content, target)
    for name, delay in zip(("-filter:v", "-filter:a"), recipe.delays, strict=True):
        if delay:
            filters += [name, f"{'a' if name == '-filter:a' else ''}setpts=PTS+{delay}/TB"]
    passed = ("-fps_mode", "passthrough", "-threads", "1")
    ffmpeg(*inputs, *recipe.video, *recipe.audio, *filters, *passed, *recipe.mux, *own, *options, target)


def plain(recipe: Recipe, target: Path) -> None:
    """As ffmpeg writes it."""
    encode(recipe, target)


def piped(recipe: Recipe, target: Path) -> None:
    """As ffmpeg writes it where it cannot go back: no size, no duration, no index."""
    whole = aside(target, f"{target.stem}.nut")
    encode(recipe, whole)
    form = {"mkv": "matroska", "ts": "mpegts", "mpg": "mpeg"}.get(recipe.suffix, recipe.suffix)
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        str(whole),
        "-c",
        "copy",
        "-f",
        form,
        "-",
    ]
    target.write_bytes(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def joined(recipe: Recipe, target: Path) -> None:
    """The bytes of the parts, one after the other; of FLV one header, as no reader expects another."""
    with target.open("wb") as file:
        for number in range(len(recipe.contents)):
            part = aside(target, f"{target.stem}-{number}.{recipe.suffix}")
            encode(recipe, part, number)
            file.write(part.read_bytes()[FLV_HEADER if number and recipe.suffix == "flv" else 0 :])


def copied(before: tuple[str, ...], after: tuple[str, ...] = (), suffix: str = "") -> How:
    """Encoded, then its packets taken over into the file: options of reading and of writing."""

    def how(recipe: Recipe, target: Path) -> None:
        whole = aside(target, f"{target.stem}.{suffix or recipe.suffix}")
        encode(recipe, whole)
        ffmpeg(*before, "-i", whole, "-map", "0", "-c", "copy", *recipe.mux, *after, target)

    return how


def cut_at(share: float) -> How:
    """The file breaks off after a share of its bytes."""

    def how(recipe: Recipe, target: Path) -> None:
        encode(recipe, target)
        data = target.read_bytes()
        target.write_bytes(data[: round(share * len(data))])

    return how


def with_inputs(*arguments: str) -> How:
    """Further inputs and ffmpeg's options for them.

    `{tune}` is the sound of the second content, `{srt}` and times a line of text, `{cover}` a picture, which
    is `{attached}` in Matroska.
    """

    def how(recipe: Recipe, target: Path) -> None:
        inputs = pictures(recipe.content, target) + sound(recipe.content, target)
        options = []
        for argument in arguments:
            if argument == "{tune}":
                inputs += sound(recipe.contents[1], target)
            elif argument.startswith("{srt}"):
                path = aside(target, f"{target.stem}.srt")
                path.write_text(f"1\n{argument[5:]}\nhello\n")
                inputs += ["-i", str(path)]
            elif argument == "{cover}":
                inputs += ["-i", str(_cover(target))]
            elif argument == "{attached}":
                options += ["-attach", str(_cover(target)), "-metadata:s:t", "mimetype=image/png"]
            else:
                options.append(argument)
        ffmpeg(*inputs, *recipe.video, *recipe.audio, "-threads", "1", *options, *recipe.mux, target)

    return how


def _cover(target: Path) -> Path:
    path = aside(target, "cover.png")
    if not path.exists():
        ffmpeg("-f", "lavfi", "-i", "color=c=red:s=600x600:d=1:r=1", "-frames:v", "1", path)
    return path


def patched(how: How, old: bytes, new: bytes, number: int = 0) -> How:
    """Made so, then a place in its bytes changed: the `number`th of `old`."""

    def both(recipe: Recipe, target: Path) -> None:
        how(recipe, target)
        data = target.read_bytes()
        at = -1
        for _ in range(number + 1):
            at = data.index(old, at + 1)
        target.write_bytes(data[:at] + new + data[at + len(old) :])

    return both
