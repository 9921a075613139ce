"""Files of the corpus as the manifest, the shards, the trainer's loader and ffmpeg's own command read them,
compared with what is known of them."""

from __future__ import annotations

import io
import re
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np

from manifests.buckets import Bucket
from media.decode import Decoded, decode
from media.files import MediaError
from media.requests import Audio, Frames
from pipelines.shards.media import RATE, Packed, Wanted, pack
from pipelines.shards.plan import resampling_rate
from stages.clip import Clip
from stages.constant_rate import STANDARD_RATES
from stages.probe import Probe
from tests.support.corpus.check import (
    Failure,
    Findings,
    Seen,
    beeps_of,
    check_beeps,
    check_corners,
    check_seen,
    looked_at,
)
from tests.support.corpus.content import BEEP_S, Image, listed, read_beeps
from tests.support.corpus.files import Part, Recipe, Truth
from trainer.data.decode import decode_clip

EVERY, SOME, SOUND = Frames(None, 90), Frames(5, 90), Audio(16000)
LOADER_FPS = 16.0

EXACT = 0.0011  # s; stamps of some containers are whole milliseconds
ENOUGH = 0.9  # of the duration, below which a file is cut (stages/probe.py)


def compare(recipe: Recipe, path: Path, ask_ffmpeg: bool = True) -> list[Failure]:
    """Everything that is wrong with how a file is read."""
    failures: list[Failure] = []

    def at(place: str, read: Callable[[Findings], Any]) -> Any:
        findings = Findings(recipe, place)
        try:
            return read(findings)
        except Exception as error:
            findings.say("error", "none", f"{type(error).__name__}: {str(error)[:200]}")
            return None
        finally:
            failures.extend(findings.failures)

    if ask_ffmpeg:
        at("ffmpeg", lambda findings: _ffmpeg(findings, path))
    found = at("manifest", lambda findings: _manifest(findings, path))
    if found is None:
        return failures
    media, row = found
    if recipe.key:
        at("ranges", lambda findings: _ranges(findings, path, media))
    if row is not None:
        packed = at("shard", lambda findings: _shard(findings, path, row))
        if packed is not None:
            at("loader", lambda findings: _loader(findings, *packed))
    return failures


def _manifest(findings: Findings, path: Path) -> tuple[Decoded, dict[str, Any] | None]:
    truth = findings.recipe.truth
    media = decode(path, [EVERY, SOME, SOUND], max_seconds=60)
    times, images = media.frames[EVERY]
    numbers, corners = looked_at(images, truth)
    check_seen(findings, Seen(numbers, list(times), beeps_of(media.audio[SOUND], SOUND.rate), corners))
    if truth.size is not None:
        findings.expect("size", truth.size, (media.width, media.height))
    findings.expect("frame_times", len(times), len(media.frame_times))
    by_time = dict(zip(times, numbers, strict=True))
    some_times, some_images = media.frames[SOME]
    some = looked_at(some_images, truth)[0]
    if some != [by_time.get(time) for time in some_times]:
        findings.say("sampled", listed([by_time.get(time) for time in some_times]), listed(some))
    seconds = sum(part.times[-1] - part.times[0] for part in truth.parts)
    if not truth.cut and abs(len(some) - 5 * seconds) > 2 + truth.lost / 5:
        findings.say("sampled", f"about {5 * seconds:.0f}", len(some))
    row: dict[str, Any] = {"start_s": None, "end_s": None, "media_uri": str(path), "source_uri": str(path)}
    try:
        row |= Probe().score(Clip(row=row, decoded=media))
    except MediaError as error:
        if not truth.cut or "truncated" not in str(error):
            findings.say("error", "none", f"Probe: {str(error)[:200]}")
        return media, None
    _check_columns(findings, row)
    return media, row


def _check_columns(findings: Findings, row: dict[str, Any]) -> None:
    truth = findings.recipe.truth
    findings.expect("has_audio", truth.has_sound, row["has_audio"])
    findings.expect("is_hdr", truth.hdr, row["is_hdr"])
    share = row["decoded_share"]
    if truth.cut:
        if truth.claims and (share is None or share >= ENOUGH):
            findings.say("decoded_share", "less than 0.9, or an error", share)
        return
    if share is not None and not truth.lost and abs(share - 1) > 0.05 + truth.claim_within:
        findings.say("decoded_share", "1 or none", share)
    count = sum(len(part.numbers) for part in truth.parts)
    first, last = truth.parts[0], truth.parts[-1]
    several = len(truth.parts) > 1
    seconds = last.at + last.times[-1] - first.at - first.times[0]
    seconds *= count / (count - 1)
    slack = 0.1 if several or truth.variable else 0.004 + truth.lost / 25
    if not truth.lost:
        findings.expect("num_frames", count, row["num_frames"])
        findings.expect("fps", count / seconds, row["fps"], 0.05 * count / seconds if several else 0.03)
    findings.expect("duration_s", seconds, row["duration_s"], slack)
    if not truth.lost:
        findings.expect("variable_frame_rate", truth.variable, row["variable_frame_rate"])


def _ranges(findings: Findings, path: Path, media: Decoded) -> None:
    """Pieces of a file are what the whole file has there."""
    key = findings.recipe.key
    times, images = media.frames[EVERY]
    numbers, _ = looked_at(images, findings.recipe.truth)
    beeps = beeps_of(media.audio[SOUND], SOUND.rate)
    end = times[-1] + 0.04
    begin = times[min(key, len(times) - 13)]
    wanted = [
        (0.2, None),
        (0.51, 1.51),
        (1.25, 1.95),
        (end - 1.01, None),
        (begin, begin + 0.5),
        (times[min(key, len(times) - 13) - 1], begin + 0.3),
    ]
    for start, stop in wanted:
        part = decode(path, [EVERY, SOUND], start, stop, max_seconds=60)
        last = 99.0 if stop is None else stop
        inside = [i for i, time in enumerate(times) if start - 1e-6 <= time < last - 1e-6]
        what = f"{start:.3f}-{'' if stop is None else f'{stop:.3f}'}"
        found, _ = looked_at(part.frames[EVERY][1], findings.recipe.truth)
        right = [numbers[i] for i in inside]
        if found != right:
            findings.say(f"{what} numbers", listed(right), listed(found))
            continue
        off = max(abs(times[i] - start - t) for i, t in zip(inside, part.frames[EVERY][0], strict=True))
        if off > EXACT:
            findings.say(f"{what} times", f"within {EXACT}", f"{off:.4f}")
        if beeps is not None:
            # Of a beep that an end of the range cuts, where it seems to begin is not its beginning.
            expected = [b - start for b in beeps if start + 0.02 < b < last - BEEP_S - 0.02]
            heard = beeps_of(part.audio[SOUND], SOUND.rate) or []
            cut = [b for b in beeps if not start + 0.02 < b < last - BEEP_S - 0.02]
            heard = [b for b in heard if all(not c - 0.02 < b + start < c + BEEP_S + 0.02 for c in cut)]
            if len(heard) != len(expected) or any(
                abs(a - b) > 0.005 for a, b in zip(heard, expected, strict=True)
            ):
                findings.say(f"{what} beeps", [round(one, 3) for one in expected], heard)


def _shard(findings: Findings, path: Path, row: dict[str, Any]) -> tuple[Packed, Seen] | None:
    truth = findings.recipe.truth
    rate = resampling_rate(row, STANDARD_RATES)
    size = (row["width"], row["height"])
    wanted = Wanted(
        rate=rate,
        frames=row["num_frames"],
        content_hash=row["content_hash"],
        size=size,
        is_uniform=not (row["size_changes"] or row["interlaced"]),
    )
    packed = pack(path, wanted)
    times, images = _pictures(packed.mp4)
    numbers, corners = looked_at(images, truth)
    beeps = beeps_of(_samples(packed.wav), RATE) if packed.has_audio else None
    seen = Seen(numbers, times, beeps, corners)
    if rate is None:
        check_seen(findings, seen, from_picture=True)
    else:
        _check_constant(findings, seen, rate)
    height, width = images[0].shape[:2]
    findings.expect("size", (packed.width, packed.height), (width, height))
    if truth.size is not None and not all(
        0 <= a - b <= 1 for a, b in zip(truth.size, (width, height), strict=True)
    ):
        findings.say("size", f"{truth.size}, even", (width, height))
    findings.expect("even sides", (0, 0), (width % 2, height % 2))
    findings.expect("num_frames", len(times), packed.num_frames)
    findings.expect("first picture", 0.0, times[0], 1e-6)
    if len(_samples(packed.wav)) / RATE > packed.seconds + 0.001:
        findings.say("length of the sound", f"at most {packed.seconds:.3f}", len(_samples(packed.wav)) / RATE)
    return packed, seen


def _check_constant(findings: Findings, seen: Seen, rate: float) -> None:
    """Pictures brought to a constant rate: at each tick the one that is nearest in time; sound as it was."""
    truth = findings.recipe.truth
    if len(truth.parts) > 1 or truth.lost:
        return
    part = truth.parts[0]
    off = max(abs(time - i / rate) for i, time in enumerate(seen.times))
    if off > EXACT:
        findings.say("times", f"multiples of 1/{rate:g} s", f"{off:.4f}")
    wrong = [
        (round(time, 3), number)
        for time, number in zip(seen.times, seen.numbers, strict=True)
        if number not in _nearest(list(part.numbers), list(part.times), time)
    ]
    if wrong:
        findings.say("numbers at a constant rate", "the nearest", wrong[:8])
    check_beeps(findings, {part.numbers[0]: 0.0}, seen, from_picture=True)


def _nearest(numbers: list[Any], times: list[float], wanted: float) -> set[Any]:
    """Numbers of the pictures that are nearest to a time, or as near within 2 ms."""
    distances = [abs(time - wanted) for time in times]
    least = min(distances)
    return {n for n, distance in zip(numbers, distances, strict=True) if distance <= least + 0.002}


def _loader(findings: Findings, packed: Packed, seen: Seen) -> None:
    short = min(90, packed.width, packed.height)
    scale = short / min(packed.width, packed.height)
    width, height = round(packed.width * scale), round(packed.height * scale)
    for start in (0.0, 0.45):
        count = int((packed.seconds - start) * LOADER_FPS)
        if count < 2:
            continue
        video = decode_clip(packed.mp4, Bucket(count, height, width), LOADER_FPS, start).video
        images = list(video.permute(1, 2, 3, 0).numpy())
        numbers, corners = looked_at(images, findings.recipe.truth)
        right = [_nearest(seen.numbers, seen.times, start + i / LOADER_FPS) for i in range(count)]
        wrong = [
            (i, sorted(r, key=str), n)
            for i, (r, n) in enumerate(zip(right, numbers, strict=True))
            if n not in r and None not in r
        ]
        if wrong:
            findings.say(f"frames from {start} s", "the nearest (frame, right, ours)", wrong[:6])
        if corners:
            check_corners(findings, corners)


def _pictures(mp4: bytes) -> tuple[list[float], list[Image]]:
    """All pictures of a shard's file; a plain one that needs no care."""
    times: list[float] = []
    images: list[Image] = []
    with av.open(io.BytesIO(mp4), "r") as container:
        for frame in container.decode(video=0):
            times.append(float(frame.time))
            images.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
    return times, images


def _samples(wav: bytes) -> Any:
    with wave.open(io.BytesIO(wav)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


# Without the last option holes below 0.1 s are left out.
FOLLOWED = "aresample=async=1:first_pts=0:min_hard_comp=0.0005"
STAMP = re.compile(rb"pts_time:\s*(-?[0-9.e+-]+)")


def _ffmpeg(findings: Findings, path: Path) -> None:
    """The second opinion."""
    truth = findings.recipe.truth
    if not truth.asks_ffmpeg("all"):
        return
    raw = path.parent / "raw" / f"{path.name}.pcm"
    raw.unlink(missing_ok=True)
    picture = ["-an", "-sn", "-dn", "-vf", "showinfo,scale=160:90:flags=area,format=rgb24"]
    picture += ["-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1"]
    heard = ["-vn", "-sn", "-dn", "-af", FOLLOWED, "-ac", "1", "-ar", "16000"]
    heard += ["-f", "s16le", str(raw)]
    asks_sound = truth.has_sound and truth.asks_ffmpeg("sound")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-i", str(path), *picture]
    done = subprocess.run([*command, *(heard if asks_sound else [])], capture_output=True, check=False)
    times = [float(one) for one in STAMP.findall(done.stderr)]
    images = list(np.frombuffer(done.stdout, np.uint8).reshape(-1, 90, 160, 3))
    if len(times) != len(images) or not images:
        findings.say(
            "error", "as many times as pictures", f"{len(times)}, {len(images)}: {done.stderr[-300:]!r}"
        )
        return
    # Every picture is stretched to the same shape here, so none is fitted.
    plain = Truth(tuple(Part(p.numbers, p.times, p.beeps) for p in truth.parts))
    numbers, corners = looked_at(images, plain)
    beeps = None
    if asks_sound:
        beeps = read_beeps(np.fromfile(raw, "<i2").astype(np.float32) / 32768, 16000)
        raw.unlink()
    seen = Seen(numbers, times, beeps, corners)
    check_seen(findings, seen, pictures=truth.asks_ffmpeg("pictures"), sound=asks_sound)
