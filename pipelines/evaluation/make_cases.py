"""Draws clips of published data sets and writes the test cases of `pipelines.evaluation.cases`."""

from __future__ import annotations

import hashlib
import io
import wave
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from configs.errors import UserError
from manifests import storage
from manifests.text import one_line, public_message
from media.crop import Crop
from media.decode import Decoded, decode
from media.files import VIDEO_SUFFIXES, MediaError, local_copy, local_path
from media.requests import Audio, Frames
from media.write import write_with_sound
from pipelines.engine.addresses import ADDRESS, PROBLEM
from pipelines.engine.faults import MACHINE_ERRORS
from pipelines.engine.settings import SourceSettings
from pipelines.engine.source import Listing, list_input
from pipelines.evaluation.cases import LIST, PROMPT, CaseError, TalkingCase, cases_text
from pipelines.shards.media import Packed, Wanted, pack
from pipelines.sources.listing import list_source, named

REAL, IMAGES, AUDIO = "real", "images", "audio"
SETTINGS, MADE = "benchmark.json", ".made"
RATE, CLIP_RATE = 16_000, 48_000  # Hz, of the sound alone and of the real clip's
FIRST, SOUND = Frames(0.0, 1 << 14), Audio(RATE)
SILENT: Final = 0.001  # -60 dBFS: nobody speaks in a clip whose largest sample is below
# Columns of data sets that say without a look that nobody speaks: `pipelines/sources/ravdess.py`.
UNFIT: Final = {"modality": ("picture", "without sound"), "vocal_channel": ("song", "sung")}


class TestSet(BaseModel):
    """What a folder of test cases was asked for.

    inputs: as of `--input`.
    sample: cases of each input.
    seed: of the draw.
    prompt: of all cases.
    min_seconds: shorter clips are passed over, s.
    max_seconds: so much of a clip is taken from its beginning, s; None: all of it.
    """

    __test__ = False
    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: list[str]
    sample: int = 100
    seed: int = 0
    prompt: str = PROMPT
    min_seconds: float = 1.0
    max_seconds: float | None = None


@dataclass
class Outcome:
    """What came of it.

    cases: all of them, as they are listed.
    new: how many were made just now.
    notes: what was passed over, could not be read or is missing, in words.
    """

    cases: list[TalkingCase] = field(default_factory=list)
    new: int = 0
    notes: list[str] = field(default_factory=list)


def make_cases(
    asked: TestSet,
    output: Path,
    sources: SourceSettings | None = None,
    told: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Write OUTPUT/real, images, audio and cases.jsonl, which is written last.

    Which clips are drawn depends on each clip's id and the seed alone: where files are added to a data set,
    few others are drawn. In the place of a clip that cannot be read another one is drawn. Cases that are
    there are not made again; those that are drawn no more are deleted.

    Args:
        asked: what is wanted.
        output: the folder.
        sources: what lists may lead to.
        told: is told how many cases are there.

    Raises:
        CaseError: the folder holds other test cases, or no clip can be used.
        InputError: an input cannot be listed.
        OSError: the machine is at its end, such as by a full disk.
    """
    _same_settings(asked, output)
    outcome, drawn = Outcome(), dict[str, TalkingCase]()
    for given in asked.inputs:
        listing = _listed(given, sources or SourceSettings())
        passed, count = Counter[str](), 0
        for row in _in_drawn_order(listing, asked.seed):
            if count == asked.sample:
                break
            if (why := _unfit(row)) is not None:
                passed[why] += 1
                continue
            if row["sample_id"] in drawn:
                raise CaseError(f"--input {given}: {row['sample_id']} is in another input, too")
            made = _made(row, output)
            if made is None:
                try:
                    made = _make(row, asked, output)
                except _Unfit as unfit:
                    passed[str(unfit)] += 1
                    continue
                except (UserError, OSError, ValueError) as error:
                    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
                        raise
                    outcome.notes.append(f"{_named(row)}: {one_line(public_message(str(error)))}")
                    continue
                outcome.new += 1
            drawn[made.id] = made
            count += 1
            told(len(drawn))
        outcome.notes += [f"{given}: passed over {number} clips: {why}" for why, number in passed.items()]
        if count < asked.sample:
            outcome.notes.append(f"{given}: {count} cases instead of {asked.sample}: there are no more")
    if not drawn:
        raise CaseError("no clip can be used: " + "; ".join(outcome.notes))
    outcome.cases = list(drawn.values())
    _forget_others(drawn, output)
    storage.write_bytes(output / LIST, cases_text(outcome.cases).encode())
    return outcome


class _Unfit(Exception):
    """A clip that is in order, but no test case."""


def _same_settings(asked: TestSet, output: Path) -> None:
    file = output / SETTINGS
    try:
        before = TestSet.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        if output.is_dir() and any(output.iterdir()):
            raise CaseError(f"{output}: holds something else; give another --output") from None
        storage.write_bytes(file, asked.model_dump_json(indent=1).encode())
        return
    except ValidationError as error:
        raise CaseError(f"{file}: {error.errors()[0]['msg']}; give another --output") from None
    differ = [name for name in TestSet.model_fields if getattr(before, name) != getattr(asked, name)]
    if differ:
        was = ", ".join(f"{name} {getattr(before, name)}" for name in differ)
        raise CaseError(f"{output}: was made with {was}; give another --output, or the same words")


def _listed(given: str, sources: SourceSettings) -> Listing:
    if (data_set := named(given)) is not None:
        name, path = data_set
        return list_source(name, path, None, VIDEO_SUFFIXES, frozenset(), sources, None, lambda found: None)
    return list_input(given, sources=sources)


def _in_drawn_order(listing: Listing, seed: int) -> Iterator[dict[str, Any]]:
    """The rows, by a hash of the seed and their ids."""
    ids = listing.ids.to_pylist()

    def place(number: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{ids[number]}".encode()).digest()

    for number in sorted(range(len(ids)), key=place):
        yield from listing.table.slice(number, 1).to_pylist()


def _unfit(row: Mapping[str, Any]) -> str | None:
    """Why a row needs no look."""
    for column, (value, why) in UNFIT.items():
        if row.get(column) == value:
            return why
    path = local_path(str(row[ADDRESS] or row["source_uri"] or ""))
    is_missing = row[PROBLEM] is None and path is not None and not path.exists()
    return "the file is not there" if is_missing else None


def _named(row: Mapping[str, Any]) -> str:
    start, end = row["start_s"], row["end_s"]
    span = "" if start is None and end is None else f" {start or 0:g}-{'' if end is None else f'{end:g}'} s"
    return one_line(f"{row['source_uri']}{span}")


def _files(name: str) -> dict[str, str]:
    return {
        "reference_video": f"{REAL}/{name}.mp4",
        "reference_image": f"{IMAGES}/{name}.png",
        "audio": f"{AUDIO}/{name}.wav",
    }


def _made(row: Mapping[str, Any], output: Path) -> TalkingCase | None:
    """The case of a row that is there already, whole and of the same file."""
    try:
        text = (output / MADE / f"{row['sample_id']}.json").read_bytes()
        case, size = TalkingCase.model_validate_json(text), row["source_size"]
    except (FileNotFoundError, ValidationError):
        return None
    same = (case.source_uri, case.source_size) == (row["source_uri"], size)
    there = all((output / file).is_file() for file in _files(case.id).values())
    return case if same and there else None


def _make(row: Mapping[str, Any], asked: TestSet, output: Path) -> TalkingCase:
    """Decode a clip and write its files, and at last the note that they are whole."""
    if row[PROBLEM] is not None:
        raise MediaError(row[PROBLEM])
    start, end, crop = row["start_s"], row["end_s"], Crop.of(row)
    if asked.max_seconds is not None:
        end = min(end or float("inf"), (start or 0.0) + asked.max_seconds)
    with local_copy(str(row[ADDRESS] or row["source_uri"])) as path:
        decoded = decode(path, [FIRST, SOUND], start, end, crop=crop)
        sound = decoded.audio[SOUND]
        if sound is None:
            raise _Unfit("without sound")
        packed = pack(path, _wanted(decoded, start, end, crop))
    begin = round(packed.first_s * RATE)
    heard = sound[begin : begin + round(packed.seconds * RATE)]
    if packed.seconds + 1 / packed.fps < asked.min_seconds:  # a range may begin between two pictures
        raise _Unfit(f"shorter than {asked.min_seconds:g} s")
    if np.abs(heard).max(initial=0.0) < SILENT:
        raise _Unfit("silent")
    case = TalkingCase(
        id=row["sample_id"],
        **_files(row["sample_id"]),
        prompt=asked.prompt,
        source=row["source"],
        source_uri=row["source_uri"],
        source_size=row["source_size"],
        source_start_s=row["start_s"],
        source_end_s=row["end_s"],
        licence=row["licence"],
        seconds=packed.seconds,
        fps=packed.fps,
        width=packed.width,
        height=packed.height,
    )
    _write(case, decoded.frames[FIRST][1][0], heard, packed, output)
    return case


def _wanted(decoded: Decoded, start: float | None, end: float | None, crop: Crop | None) -> Wanted:
    is_uniform = not decoded.size_changes and not decoded.interlaced_share
    size = (decoded.width, decoded.height)
    return Wanted(start, end, size=size, is_uniform=is_uniform, sound_rate=CLIP_RATE, crop=crop)


def _write(
    case: TalkingCase,
    picture: npt.NDArray[np.uint8],
    heard: npt.NDArray[np.float32],
    packed: Packed,
    output: Path,
) -> None:
    with wave.open(io.BytesIO(packed.wav)) as wav:
        whole = np.frombuffer(wav.readframes(wav.getnframes()), "<i2")
    files = _files(case.id)
    with storage.making(output / files["reference_video"]) as local:
        write_with_sound(local, packed.mp4, (whole / 32768).astype(np.float32), CLIP_RATE)
    with storage.making(output / files["reference_image"]) as local:
        Image.fromarray(picture).save(local, "PNG")
    with storage.making(output / files["audio"]) as local, wave.open(str(local), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.rint(heard * 32767).astype("<i2").tobytes())
    storage.write_bytes(output / MADE / f"{case.id}.json", case.model_dump_json().encode())


def _forget_others(drawn: Mapping[str, TalkingCase], output: Path) -> None:
    """Delete the files of cases that are drawn no more, and what a killed command left half written."""
    for note in storage.files(output / MADE, ".json"):
        if note.stem not in drawn:
            storage.remove([*(output / name for name in _files(note.stem).values()), note])
    for folder in (REAL, IMAGES, AUDIO):
        halves = [path for path in storage.files(output / folder) if storage.PARTIAL in path.name]
        storage.remove(path for path in halves if path.stem not in drawn)
