"""The clips of a run as media files: H.264 and AAC in MP4, one a sample, and a list of them.

A file's name says what it was made of, so a file that is there is complete and current.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import wave
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import storage
from manifests.text import clean_text, public_text
from media.crop import CROP
from media.write import write_with_sound
from pipelines.engine.faults import MACHINE_ERRORS
from pipelines.engine.pipeline import Engine
from pipelines.export.rows import ExportedRun, refuse_manifest, rows_of
from pipelines.shards.media import VERSION
from pipelines.shards.plan import make_keys, refuse_pictures
from pipelines.shards.sample import pack_media, wanted_media
from pipelines.shards.tasks import on_each

# Raised by hand when a change alters the files: they are then written again.
SOUND_VERSION = 1
SOUND_RATE = 48_000  # Hz
TOGETHER = 4  # clips that one task of Ray writes
LIST = "clips.csv"
SHOWN = ("source_uri", "start_s", "end_s", "licence", "caption", "interaction_prompt", "keep")
COLUMNS = ("file", "sample_id", *SHOWN, "error")
_OURS = re.compile(r"[A-Za-z0-9_-]+-[0-9a-f]{8}\.mp4")
_HALF_WRITTEN = re.compile(r"[A-Za-z0-9_-]+-[0-9a-f]{8}-[0-9a-f]{8}\.tmp\.mp4")  # by a killed command
# Where a clip lies and what was measured on it (`wanted_media`).
_READ = (
    *("sample_id", "media_uri", "source_uri", "source_size", "start_s", "end_s", "fps", "width"),
    *("height", "num_frames", "content_hash", "clip_start_s", "constant_rate_fps", "variable_frame_rate"),
    *("size_changes", "interlaced", *CROP),
)


@dataclass(frozen=True)
class Clips:
    """What came of it.

    Attributes:
        files: sample_id -> name of its file in the folder.
        errors: sample_id -> why there is none.
        written: how many files are new.
    """

    files: Mapping[str, str]
    errors: Mapping[str, str]
    written: int


@dataclass(frozen=True)
class _Task:
    """Rows and names of clips that are written together."""

    run: Path
    folder: Path
    clips: Sequence[tuple[Mapping[str, Any], str]]


def write_clips(
    run: ExportedRun,
    folder: Path,
    engine: Engine = "ray",
    start: Callable[[int, int], None] = lambda total, finished: None,
    on_clips: Callable[[int], None] = lambda count: None,
) -> Clips:
    """Write FOLDER/SAMPLE_ID-XXXXXXXX.mp4 for each row that is no error, then FOLDER/clips.csv.

    Files that are there are not written again. Files that an earlier list named, and that are no clip of
    the run any more, are deleted; no others.

    Args:
        run: whose clips.
        folder: where to; local or any fsspec URL.
        engine: ray, or inline: in this process.
        start: told how many clips there are, and how many of them are there already.
        on_clips: told of so many more.

    Raises:
        InputError: the run holds pictures, or the folder is its own.
        RunError: a worker failed, or the manifest was changed meanwhile.
    """
    refuse_pictures(run.folder, run.record)
    refuse_manifest(run, folder)
    ids = [name for table in _without_errors(run, ["sample_id"]) for name in table["sample_id"].to_pylist()]
    keys = dict(zip(ids, make_keys([(run.name, name) for name in ids]), strict=True))
    rows = rows_of(_without_errors(run, _READ))
    names = {row["sample_id"]: _name(keys[row["sample_id"]], row) for row in rows}
    before, there = _listed(folder), {path.name for path in storage.files(folder, ".mp4")}
    missing = {sample for sample, name in names.items() if name not in there}
    start(len(names), len(names) - len(missing))
    again = rows_of(_without_errors(run, _READ))
    due = ((row, names[row["sample_id"]]) for row in again if row["sample_id"] in missing)
    size = TOGETHER if engine == "ray" else 1
    tasks = (_Task(run.folder, folder, some) for some in iter(lambda: list(islice(due, size)), []))
    errors: dict[str, str] = {}
    for done in on_each(engine, _write, tasks):
        errors |= {sample: said for sample, said in done.items() if said}
        on_clips(len(done))
    files = {sample: name for sample, name in names.items() if sample not in errors}
    _write_list(run, folder, files, errors)
    storage.remove(folder / name for name in before - set(files.values()))
    storage.remove(folder / name for name in there if _HALF_WRITTEN.fullmatch(name))
    return Clips(files, errors, len(missing) - len(errors))


def _without_errors(run: ExportedRun, columns: Iterable[str]) -> Iterator[pa.Table]:
    """The rows that have media."""
    for table in run.tables([*columns, "error"]):
        yield table.filter(pc.is_null(table["error"]))


def _name(key: str, row: Mapping[str, Any]) -> str:
    """A clip's file: the sample's name, and 8 hex digits of what it is made of."""
    made_of = [VERSION, SOUND_VERSION, row["media_uri"], row.get("source_size")]
    wanted = asdict(wanted_media(row, SOUND_RATE))
    if wanted["crop"] is None:  # clips without one keep their names
        del wanted["crop"]
    made_of.append(wanted)
    return f"{key}-{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:8]}.mp4"


def _write(task: _Task) -> dict[str, str]:
    """Write clips; for each why it could not be written, or "".

    Raises:
        OSError: this machine is at its end (disk full, too many open files).
        MemoryError: likewise.
    """
    said = {}
    for row, name in task.clips:
        try:
            _write_clip(row, task.run, task.folder / name)
        except Exception as error:
            if getattr(error, "errno", None) in MACHINE_ERRORS or isinstance(error, MemoryError):
                raise
            text = clean_text(public_text(f"{type(error).__name__}: {error}"))
            said[row["sample_id"]] = " ".join(text.split())[:1000]
            continue
        said[row["sample_id"]] = ""
    return said


def _write_clip(row: Mapping[str, Any], run: Path, path: Path) -> None:
    packed = pack_media(row, run, wanted_media(row, SOUND_RATE))
    with wave.open(io.BytesIO(packed.wav)) as wav:
        whole = np.frombuffer(wav.readframes(wav.getnframes()), "<i2")
    with storage.making(path) as local:
        write_with_sound(local, packed.mp4, (whole / 32768).astype(np.float32), SOUND_RATE)


def _listed(folder: Path) -> set[str]:
    """The files of ours that the folder's list names; none without a list."""
    try:
        text = storage.read_bytes(folder / LIST).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return set()
    named = {row.get("file") or "" for row in csv.DictReader(io.StringIO(text, newline=""))}
    return {name for name in named if _OURS.fullmatch(name)}


def _write_list(run: ExportedRun, folder: Path, files: Mapping[str, str], errors: Mapping[str, str]) -> None:
    sink = io.StringIO(newline="")
    table = csv.writer(sink, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in rows_of(run.tables(["sample_id", *SHOWN])):
        name = row["sample_id"]
        if name in files or name in errors:
            shown = [_shown(row.get(column)) for column in SHOWN]
            table.writerow([files.get(name, ""), name, *shown, errors.get(name, "")])
    storage.write_bytes(folder / LIST, sink.getvalue().encode("utf-8", "replace"))


def _shown(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return value.replace("\0", " ") if isinstance(value, str) else value
