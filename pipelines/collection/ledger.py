"""The ledger: for each sample that is kept, how it came from its file to where it is.

Of a run it is made of the manifest and the records of its runs; of shards, of what they hold themselves.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import collected, storage, store
from manifests import shards as format
from manifests.outcomes import with_outcomes
from manifests.schema import ARROW_TYPES, SOURCE_COLUMNS, stage_dict, to_rows
from manifests.shards import ShardsFolder
from manifests.storage import is_remote
from pipelines.engine.provenance import UNKNOWN, provenance_of
from pipelines.engine.sample_media import is_own_media
from pipelines.engine.source import InputError
from pipelines.shards.plan import locate, resampling_rate
from stages.constant_rate import STANDARD_RATES

ROWS_AT_ONCE: Final = 10_000
ENDINGS: Final = (".parquet", ".csv", ".jsonl")
# Taken over from the row as they are, beside the source columns.
TAKEN: Final = ("content_hash", "portrait_id", "person_id", "split", "run_id")
# What says whether shards have brought a sample to another rate.
RATE: Final = ("fps", "variable_frame_rate")

_MADE = pa.struct([("stage", pa.string()), ("fingerprint", pa.string()), ("version", pa.int64())])
_TRANSFORM = pa.struct([("by", pa.string()), ("what", pa.string())])
_MODEL = pa.struct(
    [
        *(("stage", pa.string()), ("role", pa.string()), ("implementation", pa.string())),
        *(("id", pa.string()), ("weights", pa.string()), ("licence", pa.string())),
    ]
)
_PROMPT = pa.struct([("stage", pa.string()), ("file", pa.string()), ("hash", pa.string())])
SCHEMA: Final = pa.schema(
    [
        ("run", pa.string()),
        *((name, ARROW_TYPES[c.type]) for name, c in SOURCE_COLUMNS.items() if name != "media_uri"),
        *((name, pa.string()) for name in TAKEN),
        ("stages", pa.list_(_MADE)),
        ("transforms", pa.list_(_TRANSFORM)),
        ("models", pa.list_(_MODEL)),
        ("prompts", pa.list_(_PROMPT)),
        *((name, pa.string()) for name in ("screen", "screen_hash", "code_version")),
        *((name, pa.string()) for name in ("shard", "shard_key")),
    ]
)


def write_ledger(addresses: Sequence[str], output: Path) -> int:
    """Write the ledger of runs and of folders of shards as one table; returns its rows.

    Args:
        addresses: RUN, NAME=RUN or a folder of shards; a local path or an fsspec URL.
        output: a file that ends in .parquet, .csv or .jsonl; it appears whole or not at all. In a CSV lists
            are JSON.

    Raises:
        InputError: the file ends otherwise, or an address is neither a finished run nor finished shards.
        ShardError: shards are damaged.
    """
    ending = output.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{output}: end the file's name in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    sources = [_opened(address) for address in addresses]
    count = 0
    with storage.making(output) as path, _WRITERS[ending](path) as write:
        for rows in sources:
            for table in rows():
                write(table)
                count += table.num_rows
    return count


def _opened(address: str) -> Callable[[], Iterator[pa.Table]]:
    """What gives the ledger of a run or of shards, table by table."""
    if _is_shards(address):
        shards = ShardsFolder(address)
        return lambda: _of_shards(shards)
    name, folder, record = locate(address)
    made = provenance_of(folder, record)
    return lambda: _of_run(name, folder, made)


def _is_shards(address: str) -> bool:
    folder = storage.folder_of(address)
    return any(path.name == format.SUMMARY for path in storage.files(folder, ".json"))


def _of_run(name: str, folder: Path, made: Mapping[str, Any]) -> Iterator[pa.Table]:
    """The kept rows of a run."""
    wanted = [*SOURCE_COLUMNS, *TAKEN, *RATE, "constant_rate_fps", "stages", "keep"]
    known = collected.read(folder)
    for file in store.manifest_files(folder / "manifest"):
        table = store.read_file(file, wanted)
        table = with_outcomes(table.filter(pc.fill_null(table["keep"], False)), [known])
        for start in range(0, table.num_rows, ROWS_AT_ONCE):
            rows = to_rows(table.slice(start, ROWS_AT_ONCE))
            yield _table(_entry(name, row, made) for row in rows)


def _of_shards(shards: ShardsFolder) -> Iterator[pa.Table]:
    """The samples of shards, by their own copies of the manifest's rows."""
    made = shards.summary.get("provenance", {})
    index = shards.index.filter(pc.is_null(shards.index["error"]))
    read = ["sample_id", "run", "key", "shard", "offset", "size", "members", "error"]

    def row_of(entry: Mapping[str, Any]) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(format.read_member(shards.path, entry, "json"))
        rate = resampling_rate(row, STANDARD_RATES)
        ledger = _entry(entry["run"], row, made.get(entry["run"], {}))
        if rate is not None:
            ledger["transforms"].append({"by": "shards", "what": f"brought to {rate:g} frames/s"})
        return ledger | {"shard": entry["shard"], "shard_key": entry["key"]}

    for start in range(0, index.num_rows, ROWS_AT_ONCE):
        entries = index.select(read).slice(start, ROWS_AT_ONCE).to_pylist()
        yield _table(storage.each(row_of, entries, is_remote(shards.path)))


def _entry(run: str, row: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the ledger.

    Args:
        run: its name.
        row: of a manifest.
        made: what the run's records say (`provenance_of`).
    """
    stages = stage_dict(row["stages"])
    known = made.get("stages", {})
    said = {name: known.get(name, {}).get(print_, {}) for name, print_ in stages.items()}
    return {
        "run": run,
        **{name: row.get(name) for name in (*SOURCE_COLUMNS, *TAKEN)},
        "stages": [
            {"stage": name, "fingerprint": print_, "version": said[name].get("version")}
            for name, print_ in stages.items()
        ],
        "transforms": _transforms(row, said),
        "models": [
            _model(stage, model) for stage, of_stage in said.items() for model in of_stage.get("models", ())
        ],
        "prompts": [
            {"stage": stage, "file": file, "hash": hashed}
            for stage, of_stage in said.items()
            for file, hashed in of_stage.get("prompts", {}).items()
        ],
        "screen": made.get("screen"),
        "screen_hash": made.get("screen_hash"),
        "code_version": made.get("versions", {}).get(row.get("run_id")),
    }


def _model(stage: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """A model that a stage asked; weights that lie inside a package, or behind a server, are not named."""
    weights: Mapping[str, str | None] = model["weights"]
    licences = dict.fromkeys(licence or UNKNOWN for licence in weights.values())
    named = {name: model[name] for name in ("role", "implementation", "id")}
    return {
        "stage": stage,
        **named,
        "weights": ", ".join(weights) or None,
        "licence": ", ".join(licences) or UNKNOWN,
    }


def _transforms(row: Mapping[str, Any], said: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """What has changed the pictures or the range of a sample, in order."""
    transforms = []
    start, end = row.get("start_s"), row.get("end_s")
    if start is not None or end is not None:
        until = "its end" if end is None else f"{end:g} s"
        transforms.append({"by": "input", "what": f"from {start or 0:g} s to {until} of the file"})
    crop = [row.get(name) for name in ("crop_x0", "crop_y0", "crop_x1", "crop_y1")]
    if None not in crop:
        transforms.append({"by": "input", "what": f"crop {' '.join(f'{edge:g}' for edge in crop)}"})
    if is_own_media(row):
        for stage, of_stage in said.items():
            if not of_stage.get("makes_media"):
                continue
            rate = row.get("constant_rate_fps")
            if stage == "constant_rate" and rate is None:
                continue  # its file was constant already; another stage has made the media
            what = f"brought to {rate:g} frames/s" if stage == "constant_rate" else "made by a model"
            transforms.append({"by": stage, "what": what})
    return transforms


def _table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    with pq.ParquetWriter(path, SCHEMA) as writer:
        yield writer.write_table


@contextmanager
def _csv(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SCHEMA.names)

        def write(table: pa.Table) -> None:
            for row in table.to_pylist():
                writer.writerow(_shown(value) for value in row.values())

        yield write


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    return value.replace("\0", " ") if isinstance(value, str) else value


@contextmanager
def _jsonl(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    with path.open("w", encoding="utf-8", errors="replace") as file:
        yield lambda table: file.writelines(
            f"{json.dumps(row, ensure_ascii=False)}\n" for row in table.to_pylist()
        )


_WRITERS: Final = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
