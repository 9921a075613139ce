"""A Hugging Face data set: a folder of Parquet, or of clips with metadata, and a card in README.md."""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from manifests import markdown, storage
from manifests.text import one_line
from pipelines.engine.source import InputError
from pipelines.export.rows import ExportedRun, published, refuse_manifest, with_files, write_parquet

DATA, METADATA, CARD = PurePosixPath("data", "train.parquet"), "metadata.parquet", "README.md"
TAG = "interavatar"  # of every card that an export writes
FILE = "file_name"
# Identifiers of licences that the Hub knows, as far as clips come under them.
LICENCES = frozenset(
    {"cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0"}
    | {"cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc", "pddl"}
    | {"mit", "apache-2.0", "unlicense"}
)
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
LARGEST = "1M<n<10M"


def write_huggingface(run: ExportedRun, output: Path, clips: Mapping[str, str] | None) -> int:
    """Write a folder that `datasets.load_dataset` loads; returns how many rows it has.

    Without clips it is `data/train.parquet`; with them `metadata.parquet`, whose `file_name` the
    loader gives as `video`. README.md, the card, comes last.

    Args:
        run: whose rows.
        output: the folder; local or any fsspec URL.
        clips: sample_id -> path of its clip, relative to the folder; None: rows alone.

    Raises:
        InputError: the folder is the run's own, or `check_folder` refuses it.
        RunError: the manifest was changed meanwhile.
    """
    refuse_manifest(run, output)
    other = check_folder(output, clips is not None)
    tally = Tally()

    def change(table: pa.Table) -> pa.Table:
        tally.add(table)
        return table if clips is None else with_files(_without_claims(table), clips, FILE)

    data = DATA if clips is None else PurePosixPath(METADATA)
    count = write_parquet(run, output / data, change)
    storage.remove(other)
    media = sorted({f"{PurePosixPath(file).parent}/*.mp4" for file in (clips or {}).values()})
    text = card(run, count, tally, [str(data), *media])
    storage.write_bytes(output / CARD, text.encode("utf-8", "replace"))
    return count


def _version(record: Mapping[str, Any], everything: bool, count: int, files: Sequence[str]) -> str:
    """Another one whenever rows may be others: of one that it knows the loader has the rows in its cache."""
    made_of = [record["run_id"], record["screen"], record.get("reviews"), everything, count, list(files)]
    return f"0.0.{zlib.crc32(json.dumps(made_of, sort_keys=True).encode())}"


def check_folder(output: Path, with_clips: bool) -> list[Path]:
    """What an export of the other form has left in the folder, which the loader must not find.

    Args:
        output: the folder.
        with_clips: whether this export has clips.

    Raises:
        InputError: the folder holds a card, or the file to delete, that no export has written.
    """
    other = output / (DATA if with_clips else PurePosixPath(METADATA))
    found = [file for file in storage.files(other.parent) if file.name == other.name]
    try:
        text = storage.read_bytes(output / CARD).decode("utf-8", "replace")
    except FileNotFoundError:
        text = None
    if text is not None and TAG not in _tags(text):
        raise _foreign(output / CARD, "is no card of an export and would be replaced")
    if text is None and found:
        raise _foreign(other, f"is there without the {CARD} of an export, and would have to be deleted")
    return found


def _foreign(path: Path, why: str) -> InputError:
    return InputError(f"{path} {why}: move it away, or give --output a folder of its own")


def _tags(text: str) -> list[str]:
    """The tags of a card; none where it has no header that can be read."""
    parts = text.split("---\n", 2)
    try:
        head = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else None
    except yaml.YAMLError:
        return []
    tags = head.get("tags") if isinstance(head, dict) else None
    return tags if isinstance(tags, list) else []


def _without_claims(table: pa.Table) -> pa.Table:
    """The table with other names for columns that the loader would take for files."""
    claims = re.compile(r"video|(.*_)?file_names?")
    return table.rename_columns(
        [f"{name}_text" if claims.fullmatch(name) else name for name in table.column_names]
    )


class Tally:
    """What the card counts."""

    def __init__(self) -> None:
        self.by_source: Counter[tuple[str, str]] = Counter()
        self.seconds = 0.0

    def add(self, table: pa.Table) -> None:
        """Some rows."""
        pairs = pa.table({name: pc.fill_null(table[name], "") for name in ("source", "licence")})
        for row in pairs.group_by(["source", "licence"]).aggregate([([], "count_all")]).to_pylist():
            self.by_source[row["source"], row["licence"]] += row["count_all"]
        if {"num_frames", "fps"} <= set(table.column_names):
            frames, fps = (
                np.asarray(table[n].cast(pa.float64()).fill_null(0)) for n in ("num_frames", "fps")
            )
            self.seconds += float(np.nansum(np.divide(frames, fps, out=np.zeros(len(fps)), where=fps > 0)))

    @property
    def licences(self) -> list[str]:
        """Those that are given, the most frequent first."""
        counts: Counter[str] = Counter()
        for (_, licence), count in self.by_source.items():
            counts[licence] += count
        return [licence for licence, _ in counts.most_common() if licence]


def card(run: ExportedRun, count: int, tally: Tally, files: Sequence[str]) -> str:
    """The text of README.md: a YAML header for the Hub, and what a reader should know.

    Args:
        run: whose rows.
        count: how many there are.
        tally: of them.
        files: that the loader reads, as patterns relative to the folder.
    """
    record, counts = run.record, run.record["counts"]
    head = {
        "pretty_name": one_line(run.name),
        "license": _licence(tally),
        "size_categories": [next((name for limit, name in SIZES if count < limit), LARGEST)],
        "tags": ["video", TAG, record["pipeline"]],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": list(files)}],
                "version": _version(record, run.everything, count, files),
            }
        ],
    }
    which = "All rows" if run.everything else "The rows that the screen keeps"
    shown = published(run.schema.empty_table()).schema
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n",
        f"# {markdown.cell(run.name)}\n",
        f"{which} of a run of {markdown.cell(record['pipeline'])}, made with interavatar: {count} rows, "
        f"{tally.seconds / 3600:.2f} hours.\n",
        "## Sources and licences\n",
        markdown.table(
            ("source", "licence of the media, as the input list gives it", "rows"),
            [
                (source, licence or "not given", number)
                for (source, licence), number in sorted(tally.by_source.items())
            ],
        ),
        "## How it was chosen\n",
        f"{counts['ids_out']} samples were listed, {counts['kept']} kept, {counts['errors']} could not be "
        f"computed. The screen {markdown.cell(record['screen']['name'])} keeps a sample that breaks none of "
        "its rules:\n",
        markdown.rules(record["screen"]["rules"]),
        "## Columns\n",
        "Left and right are the subject's own. Coordinates are shares of the first frame, origin top left. A "
        "null score was not measured.\n",
        markdown.table(
            ("column", "type", "unit or range", "meaning"), [_described(field) for field in shown]
        ),
    ]
    return "\n".join(parts)


def _licence(tally: Tally) -> str:
    """What the Hub's field `license` says: an identifier where all media come under that one licence."""
    given = {licence for _, licence in tally.by_source}
    if not given - {""}:
        return "unknown"
    known = {re.sub(r"[\s_]+", "-", licence.strip().lower()) for licence in given}
    return known.pop() if len(known) == 1 and known <= LICENCES else "other"


def _described(field: pa.Field) -> tuple[str, str, str, str]:
    metadata = field.metadata or {}
    unit, meaning = (metadata.get(name, b"").decode("utf-8", "replace") for name in (b"unit", b"meaning"))
    return (field.name, str(field.type), unit, meaning)
