"""Recipes of the corpus whose pictures have something unusual in their time stamps or bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from tests.support.corpus.content import Content
from tests.support.corpus.files import (
    Part,
    Recipe,
    copied,
    cut_at,
    joined,
)
from tests.support.corpus.options import (
    EDITS,
    FLAT,
    FRAGMENTS,
    FRONT,
    VIDEO,
    known,
    recipe,
)

# One after the other by stamps or by bytes: the second follows the first at once. What ends later, picture or
# sound, and by how much, is the encoders' affair.
AT_ONCE = 0.09
SECOND = Content(first=75, beeps=(0.4, 1.9))
THIRD = Content(first=150, frames=50, beeps=(1.1,))


def parts(*contents: Content, within: float = AT_ONCE) -> tuple[Part, ...]:
    """What contents give that follow one another."""
    at, made = 0.0, []
    for content in contents:
        made.append(known(content, at=at, within=within))
        at += content.picture_s
    return tuple(made)


AS_THEY_ARE = (("all", "ffmpeg's command takes stamps of this container as they are"),)


def joins() -> Iterator[Recipe]:
    """Recordings one after the other, whose stamps begin again, jump, or go on."""
    first = Content()
    reasons: dict[str, tuple[tuple[str, str], ...]] = {
        "flv": AS_THEY_ARE,
        "mkv": AS_THEY_ARE,
        "webm": AS_THEY_ARE,
        "m2ts": (("all", "what follows is put off twice, for picture and for sound"),),
    }
    for suffix in ("ts", "mpg", "flv", "m2ts", "mkv", "webm"):
        rate = 44100 if suffix == "flv" else 48000
        group = [dataclasses.replace(one, rate=rate) for one in (first, SECOND, THIRD)]
        # FFmpeg's reader of Matroska stops after the second.
        for count in (2,) if suffix in ("mkv", "webm") else (2, 3):
            some = tuple(group[:count])
            truth: dict[str, Any] = {
                "parts": parts(*some),
                "claim_within": 9.0,
                "ffmpeg": reasons.get(suffix, ()),
            }
            yield recipe(f"{suffix}-again-{count}", "join", suffix, contents=some, truth=truth, how=joined)
    for video in ("h264_b", "hevc_b", "mpeg2_b"):
        truth = {"parts": parts(first, SECOND), "claim_within": 9.0}
        yield recipe(
            f"ts-again-{video}", "join", "ts", video, contents=(first, SECOND), truth=truth, how=joined
        )
    for suffix in ("ts", "flv", "mpg"):
        rate = 44100 if suffix == "flv" else 48000
        some = (dataclasses.replace(first, rate=rate), dataclasses.replace(SECOND, rate=rate))
        truth = {"parts": parts(*some), "claim_within": 9.0, "ffmpeg": reasons.get(suffix, ())}
        mute = truth | {"parts": tuple(dataclasses.replace(part, beeps=()) for part in truth["parts"])}
        yield recipe(f"{suffix}-again-mute", "join", suffix, "", None, contents=some, truth=mute, how=joined)
        for name, offset in (("hour", "3600"), ("back", "-1.5")):
            if suffix == "mpg":
                continue
            each = (("-output_ts_offset", "0"), ("-output_ts_offset", offset))
            if name == "back":
                each = (("-output_ts_offset", "5"), ("-output_ts_offset", "1"))
            yield recipe(
                f"{suffix}-jump-{name}",
                "join",
                suffix,
                contents=some,
                truth=truth,
                each=each,
                how=joined,
            )
    on = (FLAT, (*FLAT, "-output_ts_offset", "3"))
    yield recipe(
        "ts-on",
        "join",
        "ts",
        contents=(first, SECOND),
        truth={"parts": parts(first, SECOND)},
        each=on,
        how=joined,
    )


def changes() -> Iterator[Recipe]:
    """Sound or pictures that change in the middle of a file."""
    on = (FLAT, (*FLAT, "-output_ts_offset", "3"))
    apart: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
        ("mono-stereo", {"channels": 1}, {"channels": 2}),
        ("stereo-mono", {"channels": 2}, {"channels": 1}),
        ("stereo-surround", {"channels": 2}, {"channels": 6}),
        ("surround-stereo", {"channels": 6}, {"channels": 2}),
        ("44100-48000", {"rate": 44100}, {"rate": 48000}),
        ("48000-22050-stereo", {"rate": 48000}, {"rate": 22050, "channels": 2}),
    )
    for name, one, two in apart:
        for audio in ("aac", "mp2"):
            if audio == "mp2" and 6 in (one.get("channels"), two.get("channels")):
                continue
            contents = (dataclasses.replace(Content(), **one), dataclasses.replace(SECOND, **two))
            reason = (("sound", "the filter begins at 0 again where sound changes"),)
            truth: dict[str, Any] = {"parts": parts(*contents), "ffmpeg": reason}
            label = f"ts-{audio}-{name}"
            yield recipe(
                label, "change", "ts", "", audio, contents=contents, truth=truth, each=on, how=joined
            )
    small, large, upright = (192, 108), (256, 144), (108, 192)
    for name, one_size, two_size, lasts in (
        ("grows", small, large, 1),
        ("grows-late", small, large, 0),
        ("shrinks", large, small, 1),
        ("shrinks-late", large, small, 0),
        ("turns", upright, small, 1),
        ("turns-late", small, upright, 0),
        ("squarer", (144, 108), small, 1),
    ):
        for video in ("h264", "mpeg2"):
            frames = (25, 75) if lasts else (75, 25)
            beeps = ((0.4,), (0.6, 1.9)) if lasts else ((0.6, 1.9), (0.4,))
            sized = tuple(
                Content(*size, frames=count, first=start, beeps=heard)
                for size, count, start, heard in zip(
                    (one_size, two_size), frames, (0, frames[0]), beeps, strict=True
                )
            )
            made = tuple(
                dataclasses.replace(part, size=(content.width, content.height))
                for part, content in zip(parts(*sized), sized, strict=True)
            )
            if video == "mpeg2":  # FFmpeg's decoder drops the picture that it holds back at a change
                before = dataclasses.replace(made[0], numbers=made[0].numbers[:-1], times=made[0].times[:-1])
                made = (before, *made[1:])
            truth = {"parts": made, "size": (one_size, two_size)[lasts]}
            each = (FLAT, (*FLAT, "-output_ts_offset", str(frames[0] / 25)))
            label = f"ts-{video}-{name}"
            yield recipe(label, "change", "ts", video, "", contents=sized, truth=truth, each=each, how=joined)


def clocks() -> Iterator[Recipe]:
    """Clocks that do not begin at 0, wrap, or are missing."""
    for suffix in ("ts", "mkv", "mp4", "flv", "webm", "mpg"):
        rate = 44100 if suffix == "flv" else 48000
        hour = ("-output_ts_offset", "3600", "-avoid_negative_ts", "disabled")
        truth: dict[str, Any] = {"claim_within": 9999.0} if suffix != "ts" else {}
        yield recipe(f"{suffix}-hour", "clock", suffix, "", "", Content(rate=rate), truth, mux=hour, key=25)
    for name, offset in (("day", "95400"), ("wrap", "95441.9"), ("wrap-late", "95440.9")):
        for video in ("h264", "h264_b"):
            yield recipe(
                f"ts-{name}-{video}", "clock", "ts", video, mux=("-output_ts_offset", offset), key=25
            )
    yield recipe("ts-negative", "clock", "ts", "h264_b", mux=FLAT, key=25)
    raw = (("h264", "h264"), ("h264_b", "h264"), ("hevc_b", "hevc"), ("mpeg2_b", "m2v"), ("mpeg4", "m4v"))
    for video, suffix in (*raw, ("mjpeg", "mjpeg")):
        mute = {"parts": (known(Content(beeps=())),)}
        yield recipe(f"raw-{video}", "clock", suffix, video, None, truth=mute)


def edits() -> Iterator[Recipe]:
    """Edit lists of MP4: a trimmed beginning, a late one."""
    for suffix in ("mp4", "mov"):
        for video in ("h264", "h264_b", "h264_long_b", "hevc_b"):
            for number in (13, 30):
                start = number / 25
                first = Content()
                part = Part(
                    tuple(range(number, 75)),
                    tuple(i / 25 for i in range(75 - number)),
                    tuple(b - start for b in first.beeps if b > start),
                )
                how = copied(("-ss", f"{start:.3f}"))
                truth = {"parts": (part,)}
                yield recipe(
                    f"{suffix}-{video}-from-{number}",
                    "edit",
                    suffix,
                    video,
                    truth=truth,
                    how=how,
                    key=25 - number % 25,
                )
    content = Content(beeps=(0.3, 1.2, 2.0))
    for video in ("h264", "h264_b"):
        for name, delays in (("late-picture", (1.2, 0.0)), ("late-sound", (0.0, 0.9))):
            late = {"claim_within": 0.5}
            yield recipe(f"mp4-{video}-{name}", "edit", "mp4", video, "", content, late, delays=delays)
            fragments = (*FRAGMENTS, *EDITS)
            yield recipe(
                f"mp4-fragments-{video}-{name}",
                "edit",
                "mp4",
                video,
                "",
                content,
                late,
                delays=delays,
                mux=fragments,
            )


def rates() -> Iterator[Recipe]:
    """Rates other than 25, and pictures that come when they come."""
    for suffix in ("mp4", "mkv", "ts", "avi", "flv", "webm"):
        rate = 44100 if suffix == "flv" else 48000
        for fps, frames in ((10, 30), (23.976023976, 72), (29.97002997, 90), (50, 150), (15, 45)):
            if suffix in ("avi", "flv", "webm") and fps in (10, 50):
                continue
            content = Content(fps=fps, frames=frames, rate=rate)
            yield recipe(f"{suffix}-{fps:.4g}", "rate", suffix, "", "", content)
    dropped = tuple(i for i in range(75) if i % 7 == 3 or i % 11 == 5 or 40 <= i < 47)
    left = tuple(i for i in range(75) if i not in dropped)
    chosen = "not(eq(mod(n,7),3)+eq(mod(n,11),5)+between(n,40,46))"
    part = Part(left, tuple(i / 25 for i in left), Content().beeps)
    for suffix in ("mp4", "mkv", "webm", "ts", "flv", "mov"):
        for video in ("h264", "h264_b") if suffix not in ("webm",) else ("vp8", "vp9"):
            select = ("-vf", f"select='{chosen}'")
            rate = 44100 if suffix == "flv" else 48000
            truth = {"parts": (part,), "variable": True}
            options = (*VIDEO[video], *select)
            name = f"{suffix}-{video}-irregular"
            yield recipe(name, "rate", suffix, options, "", Content(rate=rate), truth, key=25)


def damage() -> Iterator[Recipe]:
    """Files that break off, and packets that are broken."""
    for suffix, mux in (
        ("mp4", FRONT),
        ("mov", FRONT),
        ("mkv", ()),
        ("webm", ()),
        ("flv", ()),
        ("ts", ()),
        ("mpg", ()),
        ("avi", ()),
        ("wmv", ()),
    ):
        rate = 44100 if suffix == "flv" else 48000
        # Of what AVI and ASF claim, FFmpeg takes back what is not there.
        claims = suffix not in ("ts", "mpg", "avi", "wmv")
        for share in (0.35, 0.6):
            # Sound and picture are interleaved, but the first picture is large.
            truth = {"cut": True, "kept": round(75 * (share - 0.25)), "claims": claims}
            yield recipe(
                f"{suffix}-cut-{round(100 * share)}",
                "damage",
                suffix,
                content=Content(rate=rate),
                truth=truth,
                mux=mux,
                how=cut_at(share),
            )
    live = {"cut": True, "kept": 20, "claims": False}
    yield recipe("webm-live-cut", "damage", "webm", truth=live, mux=("-live", "1"), how=cut_at(0.6))
    yield recipe("mp4-fragments-cut", "damage", "mp4", truth=live, mux=(*FRAGMENTS, *EDITS), how=cut_at(0.6))
    for suffix in ("mp4", "mkv", "ts", "flv"):
        rate = 44100 if suffix == "flv" else 48000
        broken = ("-bsf:v", "noise=amount=30*eq(n\\,31)")
        missing = ("-bsf:v", "noise=drop=between(n\\,30\\,32)")
        content = Content(rate=rate)
        for name, mux in (("broken", broken), ("missing", missing)):
            yield recipe(
                f"{suffix}-{name}-pictures",
                "damage",
                suffix,
                content=content,
                truth={"lost": 25, "corners": ""},
                mux=mux,
            )


FAULTS = (joins, changes, clocks, edits, rates, damage)
