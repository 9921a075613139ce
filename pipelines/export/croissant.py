"""Croissant metadata: a JSON-LD description of one Parquet file beside it (mlcommons.org/croissant/1.0)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from manifests import storage
from manifests.text import one_line
from pipelines.export.huggingface import Tally
from pipelines.export.rows import ExportedRun, published, refuse_manifest, write_parquet

ROWS, METADATA = "samples.parquet", "croissant.json"
RECORDS = "samples"
# The JSON-LD context that the specification of version 1.0 gives.
CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in (
            *("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject"),
            *("fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField"),
            *("path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator"),
            *("source", "subField", "transform"),
        )
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}


def write_croissant(run: ExportedRun, output: Path) -> int:
    """Write samples.parquet and, after it, croissant.json; returns how many rows there are.

    Columns of one value a row, and lists of such, are fields of the record set `samples`; others (structs,
    lists of structs) are in the Parquet file alone.

    Args:
        run: whose rows.
        output: the folder; local or any fsspec URL.

    Raises:
        InputError: the folder is the run's own.
        RunError: the manifest was changed meanwhile.
    """
    refuse_manifest(run, output)
    tally = Tally()

    def change(table: pa.Table) -> pa.Table:
        tally.add(table)
        return table

    storage.remove([output / METADATA])  # it never describes another file than that beside it
    count = write_parquet(run, output / ROWS, change)
    described = _described(run, count, tally, _sha256(output / ROWS))
    text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    storage.write_bytes(output / METADATA, text.encode("utf-8", "replace"))
    return count


def _described(run: ExportedRun, count: int, tally: Tally, sha256: str) -> dict[str, Any]:
    record = run.record
    which = "all rows" if run.everything else "the rows that the screen keeps"
    screen = record["screen"]
    return {
        "@context": dict(CONTEXT),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": one_line(run.name),
        "description": (
            f"A run of {record['pipeline']}, made with interavatar: {which}, {count} of "
            f"{record['counts']['ids_out']}. Screen {screen['name']}: {json.dumps(screen['rules'])}"
        ),
        "license": tally.licences or ["not given"],
        "version": f"{record['schema_version']}.0.0",
        "datePublished": str(record["started"])[:10],
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": ROWS,
                "name": ROWS,
                "contentUrl": ROWS,
                "encodingFormat": "application/x-parquet",
                "sha256": sha256,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": RECORDS,
                "name": RECORDS,
                "key": {"@id": f"{RECORDS}/sample_id"},
                "field": [
                    field
                    for column in published(run.schema.empty_table()).schema
                    if (field := _field(column)) is not None
                ],
            }
        ],
    }


def _field(column: pa.Field) -> dict[str, Any] | None:
    """A column as a field of the record set; None: there is no such type."""
    is_list = pa.types.is_list(column.type)
    kind = _kind(column.type.value_type if is_list else column.type)
    if kind is None:
        return None
    metadata = column.metadata or {}
    unit, meaning = (metadata.get(name, b"").decode("utf-8", "replace") for name in (b"unit", b"meaning"))
    field: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{RECORDS}/{quote(column.name, safe='')}",
        "name": column.name,
        "description": f"{meaning} [{unit}]" if unit else meaning,
        "dataType": kind,
        "source": {"fileObject": {"@id": ROWS}, "extract": {"column": column.name}},
    }
    return field | ({"repeated": True} if is_list else {})


def _kind(kind: pa.DataType) -> str | None:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "sc:Text"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
