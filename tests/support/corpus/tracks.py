"""Recipes of the corpus about sound, and tracks beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from tests.support.corpus.content import Content
from tests.support.corpus.files import How, Recipe, patched, plain, with_inputs
from tests.support.corpus.options import known, recipe


def sounds() -> Iterator[Recipe]:
    """Channels, rates, and tracks that begin or end apart."""
    for channels in (1, 2, 6):
        for suffix, audio in (
            ("mp4", "aac"),
            ("mkv", "opus"),
            ("ts", "ac3"),
            ("mkv", "flac"),
            ("mov", "pcm_s16le"),
        ):
            content = Content(channels=channels)
            yield recipe(f"{suffix}-{audio}-{channels}-channels", "sound", suffix, "", audio, content)
    for rate in (8000, 16000, 22050, 44100, 96000):
        audio = "aac" if rate != 96000 else "flac"
        yield recipe(f"mp4-{rate}", "sound", "mp4", "", audio, Content(rate=rate))
        yield recipe(f"mkv-{rate}", "sound", "mkv", "", "pcm_s16le", Content(rate=rate))
    yield recipe("ts-22050", "sound", "ts", "", "mp3", Content(rate=22050))
    for suffix in ("mp4", "mov", "mkv", "webm", "ts", "flv", "mpg", "wmv"):
        rate = 44100 if suffix == "flv" else 48000
        content = Content(beeps=(0.3, 1.2, 2.0), rate=rate)
        for name, delays in (("late-sound", (0.0, 0.5)), ("late-picture", (0.52, 0.0))):
            late = {"claim_within": 0.25} if name == "late-picture" else None
            yield recipe(f"{suffix}-{name}", "sound", suffix, "", "", content, late, delays=delays, key=25)
        for name, seconds, beeps in (("longer", 4.5, (0.6, 2.4)), ("shorter", 1.5, (0.3, 1.1))):
            other = Content(seconds=seconds, beeps=beeps, rate=rate)
            yield recipe(f"{suffix}-{name}-sound", "sound", suffix, "", "", other)


COVER = ("-map", "0:v", "-map", "1:a", "-map", "2:v", "-c:v:1", "png", "-disposition:v:1", "attached_pic")
TWO = ("-map", "0:v", "-map", "1:a", "-map", "2:a")
OTHER = Content(beeps=(0.9, 2.1))
SUBTITLE = "{srt}00:00:01,000 --> 00:00:59,000"


def renamed(how: How, suffix: str) -> How:
    """Made so, but nobody knows the codec of the first track of sound."""
    if suffix == "mkv":
        return patched(how, b"A_AAC", b"A_XYZ")
    return patched(patched(how, b"mp4a", b"zz9a"), b"esds", b"zzds")


def tracks() -> Iterator[Recipe]:
    """More tracks than one of picture and one of sound."""

    def two(name: str, suffix: str, *options: str, is_unknown: bool = False, **truth: Any) -> Recipe:
        how = with_inputs("{tune}", *TWO, *options)
        heard = {"parts": (known(OTHER),)} | truth
        how = renamed(how, suffix) if is_unknown else how
        return recipe(name, "track", suffix, truth=heard, contents=(Content(), OTHER), how=how)

    first, second = "-disposition:a:0", "-disposition:a:1"
    for suffix in ("mp4", "mov", "mkv"):
        yield two(f"{suffix}-default-second", suffix, first, "0", second, "default")
        described = (first, "visual_impaired", second, "default")
        yield two(f"{suffix}-described-first", suffix, *described)
        commented = (first, "comment", second, "default")
        yield two(f"{suffix}-comment-first", suffix, *commented)
        yield recipe(
            f"{suffix}-default-first",
            "track",
            suffix,
            contents=(Content(), OTHER),
            how=with_inputs("{tune}", *TWO, first, "default", second, "0"),
        )
    for suffix in ("ts", "mkv"):
        yield two(
            f"{suffix}-hearing-impaired-first",
            suffix,
            first,
            "visual_impaired",
            second,
            "0",
            ffmpeg=(("sound", "ffmpeg's command takes the first of equal tracks, impaired or not"),),
        )
    unknown = (("sound", "ffmpeg's command takes the track with the default flag, and then has no decoder"),)
    for suffix in ("mp4", "mov", "mkv"):
        yield two(f"{suffix}-unknown-first", suffix, is_unknown=True, ffmpeg=unknown)
        truth = {"has_sound": False}
        yield recipe(f"{suffix}-unknown-only", "track", suffix, truth=truth, how=renamed(plain, suffix))
    for suffix in ("mp4", "mov", "mkv"):
        for number, codec in ((2, "mov_text"),) if suffix != "mkv" else ((2, "srt"),):
            how = with_inputs(SUBTITLE, "-map", "0", "-map", "1", "-map", str(number), "-c:s", codec)
            yield recipe(f"{suffix}-long-subtitle", "track", suffix, how=how)
    yield recipe("mp4-cover", "track", "mp4", how=with_inputs("{cover}", *COVER))
    front = ("-map", "2:v", "-map", "0:v", "-map", "1:a", "-c:v:0", "png", "-disposition:v:0", "attached_pic")
    yield recipe("mp4-cover-first", "track", "mp4", how=with_inputs("{cover}", *front))
    yield recipe("mkv-cover", "track", "mkv", how=with_inputs("{attached}"))
    for suffix in ("mov", "mp4"):
        yield recipe(f"{suffix}-timecode", "track", suffix, mux=("-timecode", "00:00:00:00"))
    chapters = with_inputs("-metadata", "title=t", "-map", "0", "-map", "1")
    yield recipe("mkv-titled", "track", "mkv", how=chapters)


# Every packet of sound has its stamp; else several share one.
ALONE = ("-pes_payload_size", "0")


def holes() -> Iterator[Recipe]:
    """Sound whose stamps leave something out, so that what follows is later than its samples say."""
    beeps = (0.65, 1.65, 2.35)
    for suffix, audio in (
        ("webm", "opus"),
        ("mkv", "opus"),
        ("mkv", "aac"),
        ("mkv", "mp3"),
        ("mkv", "pcm_s16le"),
        ("ts", "aac"),
        ("mp4", "aac"),
        ("flv", "aac"),
    ):
        rate = 44100 if suffix == "flv" else 48000
        for hole, every in ((0.001, 0.02), (0.005, 0.1), (0.02, 0.25), (0.05, 0.5), (0.2, 1.0)):
            stamps = f"TS+floor(max(TS\\,0)*TB/{every})*{hole}/TB"
            content = Content(beeps=beeps, rate=rate)
            later = tuple(b + hole * (b // every) for b in beeps)
            part = dataclasses.replace(known(content), beeps=later)
            truth = {"parts": (part,), "claim_within": 0.2}
            name = f"{suffix}-{audio}-{round(hole * 1000)}ms"
            moved = ("-bsf:a", f"setts=ts={stamps}", *(ALONE if suffix == "ts" else ()))
            yield recipe(name, "hole", suffix, "", audio, content, truth, mux=moved)
    for suffix, audio in (
        ("webm", "opus"),
        ("mkv", "aac"),
        ("mkv", "pcm_s16le"),
        ("ts", "aac"),
        ("mkv", "mp3"),
        ("flv", "aac"),
    ):
        rate = 44100 if suffix == "flv" else 48000
        # None of those in which a beep begins.
        number = 11 if suffix == "flv" else 8
        lost = ("-bsf:a", f"noise=drop=eq(mod(n\\,12)\\,{number})", *(ALONE if suffix == "ts" else ()))
        yield recipe(f"{suffix}-{audio}-lost", "hole", suffix, "", audio, Content(rate=rate), mux=lost)


TRACKS = (sounds, tracks, holes)
