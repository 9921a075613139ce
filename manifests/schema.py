"""The columns of a manifest: names, Arrow types, units and meanings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

# 2: `stopped` is a struct; in 1 it was the text "stage: reason".
SCHEMA_VERSION = 2

STOPPED = pa.struct([("stage", pa.string()), ("reason", pa.string()), ("waits", pa.bool_())])

ERROR = pa.struct(
    [
        ("stage", pa.string()),
        ("kind", pa.string()),
        ("message", pa.string()),
        ("traceback", pa.string()),
        ("fingerprint", pa.string()),
    ]
)
STAGES = pa.map_(pa.string(), pa.string())
# Where arrays lie: which stage's, and which bytes of which pack (manifests/packs.py).
PLACES = pa.list_(
    pa.struct([("stage", pa.string()), ("file", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])
)

# A visible body region of the subject and its point, shares of the first frame.
REGIONS = pa.list_(
    pa.struct(
        [("region", pa.string()), ("x", pa.float64()), ("y", pa.float64()), ("confidence", pa.float64())]
    )
)
# How the subject reacts to one type of touch at one region.
REACTIONS = pa.list_(
    pa.struct(
        [
            ("region", pa.string()),
            ("interaction_type", pa.string()),
            ("interaction_group", pa.string()),
            ("intensity", pa.string()),
            ("action", pa.string()),
            ("emotion", pa.string()),
        ]
    )
)

ARROW_TYPES: Mapping[str, pa.DataType] = {
    "float": pa.float64(),
    "int": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "strings": pa.list_(pa.string()),
    "floats": pa.list_(pa.float64()),
    "regions": REGIONS,
    "reactions": REACTIONS,
    "stopped": STOPPED,
    "error": ERROR,
    "stages": STAGES,
    "places": PLACES,
}


class Described(Protocol):
    """Anything with a column's type, unit and meaning."""

    @property
    def type(self) -> str:
        """A key of `ARROW_TYPES`."""
        ...

    @property
    def unit(self) -> str:
        """Unit or range."""
        ...

    @property
    def meaning(self) -> str:
        """One sentence."""
        ...


@dataclass(frozen=True)
class Field:
    """One shared column."""

    type: str
    unit: str
    meaning: str


# Where a sample comes from: written when the input is listed.
SOURCE_COLUMNS: Mapping[str, Field] = {
    "sample_id": Field(
        "string", "", "Stable name of the sample: from source name, path inside it and time range."
    ),
    "pipeline": Field("string", "", "Pipeline that made the row."),
    "source": Field("string", "", "Name of the data set the sample comes from."),
    "source_uri": Field("string", "path or URL", "The file as it was listed."),
    "media_uri": Field("string", "path or URL", "The file that holds the sample's media now."),
    "start_s": Field("float", "s", "Start of the sample inside the file; null: its beginning."),
    "end_s": Field("float", "s", "End of the sample inside the file; null: its end."),
    "parent_id": Field("string", "", "Id of the longer video this clip was cut from; null otherwise."),
    "source_size": Field("int", "bytes", "Size of the file when it was listed; null if unknown."),
    "licence": Field("string", "", "Licence of the media as given by the input list; null if not given."),
}

# What every pipeline fills by one of its stages or leaves null.
COMMON_COLUMNS: Mapping[str, Field] = {
    "fps": Field("float", "frames/s", "Mean frame rate, measured on the decoded frames."),
    "num_frames": Field("int", "frames", "Frames that decode."),
    "width": Field("int", "px", "Width as displayed (after rotation and pixel aspect)."),
    "height": Field("int", "px", "Height as displayed (after rotation and pixel aspect)."),
    "has_audio": Field("bool", "", "The file has an audio track."),
    "caption": Field("string", "", "What is seen, in one or two sentences."),
    "caption_by": Field("string", "", "Who wrote the caption: a model, `stand_in_measured`, or `source`."),
    "num_people": Field("int", "people", "Typical number of people in view (median over frames)."),
    "interaction_type": Field("string", "", "Kind of touch, a word of the vocabulary; null: none."),
    "interaction_group": Field("string", "", "affectionate, gentle, neutral or aggressive."),
    "interaction_region": Field("string", "", "Body region touched; left and right are the subject's own."),
    "interaction_x": Field("float", "0-1", "Point touched, share of the width from the left."),
    "interaction_y": Field("float", "0-1", "Point touched, share of the height from the top."),
    "interaction_person": Field(
        "int", "", "Index of the person touched, 0 the leftmost at first appearance."
    ),
    "interaction_prompt": Field("string", "", "The sentence that opens the training prompt."),
    "interaction_by": Field("string", "", "Who found or chose the interaction."),
}

# What happened to the sample: written by the engine and the screen.
OUTCOME_COLUMNS: Mapping[str, Field] = {
    "keep": Field("bool", "", "The screen's verdict."),
    "drop_reasons": Field("strings", "", "Names of the screen's rules that the sample breaks."),
    "review": Field(
        "string", "", "What reviewers decided, keep or drop, which overrules the screen; null: nothing."
    ),
    "stopped": Field(
        "stopped",
        "",
        "Stage and reason when the work ended early: at a cheap gate, or (`waits`) before an answer that is "
        "still to come; later columns are null. Null: it did not.",
    ),
    "error": Field(
        "error", "", "Stage, kind, message, traceback of what failed; null: nothing. Later columns are null."
    ),
    "stages": Field(
        "stages", "stage -> fingerprint", "What was computed, by which version; see run.json for each."
    ),
    "arrays": Field(
        "places",
        "bytes",
        "For each stage that stored arrays its file below the run's folder, and offset and size of their "
        "`.npz` in it; a stage of `stages` that is not here has them in a file of their own, or none.",
    ),
    "program": Field(
        "string",
        "",
        "Hash of all fingerprints of the pipeline that is done with the row; null: a stage is due.",
    ),
    "run_id": Field("string", "", "The run that last computed something of this row."),
    "schema_version": Field("int", "", "Version of this schema."),
}


def arrow_field(name: str, column: Described) -> pa.Field:
    """An Arrow field with unit and meaning as metadata."""
    metadata = {"unit": column.unit, "meaning": column.meaning}
    return pa.field(name, ARROW_TYPES[column.type], metadata=metadata)


def manifest_schema(
    stage_columns: Mapping[str, Described], input_fields: Sequence[pa.Field] = ()
) -> pa.Schema:
    """The schema of a run: source, common, stage, input-list and outcome columns, in that order.

    Args:
        stage_columns: what the pipeline's stages write, in order; a common column written by a stage
            keeps its place and the shared meaning.
        input_fields: further columns of the input; one of a common column's name fills that column.
    """
    fields = [arrow_field(name, column) for name, column in SOURCE_COLUMNS.items()]
    fields += [arrow_field(name, column) for name, column in COMMON_COLUMNS.items()]
    fields += [arrow_field(n, c) for n, c in stage_columns.items() if n not in COMMON_COLUMNS]
    fields += [field for field in input_fields if field.name not in COMMON_COLUMNS]
    fields += [arrow_field(name, column) for name, column in OUTCOME_COLUMNS.items()]
    metadata = {"schema_version": str(SCHEMA_VERSION), "side_convention": "subject"}
    return pa.schema(fields, metadata=metadata)


def input_column_name(name: str, taken: Iterable[str]) -> str:
    """The manifest's name for a column of the input list: `input_<name>` where we own the name."""
    owned = {*SOURCE_COLUMNS, *COMMON_COLUMNS, *OUTCOME_COLUMNS, *taken}
    return f"input_{name}" if name in owned else name


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type by which a manifest carries a column of an input list: the same values in a plainer layout.

    Views become plain text, bytes and lists (rows of views can be neither sorted nor taken), dictionaries
    and extension types what they stand for, nothing but nulls becomes text; in nested types, too.
    """
    types = pa.types

    def inner(field: pa.Field) -> pa.Field:
        return field.with_type(plain_type(field.type))

    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if types.is_string_view(kind) or types.is_null(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_time64(kind):  # rows pass through Python, whose times of day end at the microsecond
        return pa.time64("us")
    if types.is_struct(kind):
        return pa.struct([inner(field) for field in kind])
    if types.is_map(kind):
        return pa.map_(inner(kind.key_field), inner(kind.item_field), kind.keys_sorted)
    if types.is_fixed_size_list(kind):
        return pa.list_(inner(kind.value_field), kind.list_size)
    if types.is_large_list(kind) or types.is_large_list_view(kind):
        return pa.large_list(inner(kind.value_field))
    if types.is_list(kind) or types.is_list_view(kind):
        return pa.list_(inner(kind.value_field))
    return kind


def as_type(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The column cast to a type; list views through Python: pyarrow 26 loses the list of the last row.

    Raises:
        ArrowException: it cannot be cast, or not without a loss.
    """
    if column.type != kind and "list_view<" in str(column.type):
        return pa.chunked_array([pa.array(column.to_pylist(), kind)], kind)
    return column.cast(kind)


def upgraded(table: pa.Table) -> pa.Table:
    """What an earlier version of this schema wrote, as this version writes it; the same table if it did."""
    if not is_outdated(table.schema):
        return table
    stopped = table.schema.get_field_index("stopped")
    field = table.schema.field(stopped).with_type(STOPPED)
    texts = table["stopped"].to_pylist()
    table = table.set_column(stopped, field, pa.array([_stopped(text) for text in texts], STOPPED))
    if "schema_version" in table.column_names:
        version = table.schema.get_field_index("schema_version")
        versions = pa.array([SCHEMA_VERSION] * table.num_rows, pa.int64())
        table = table.set_column(version, table.schema.field(version), versions)
    return table


def is_outdated(schema: pa.Schema) -> bool:
    """Whether an earlier version of this schema wrote these columns."""
    return "stopped" in schema.names and pa.types.is_string(schema.field("stopped").type)


def _stopped(text: str | None) -> dict[str, Any] | None:
    """The struct of version 2 from the text of version 1; one stage alone put samples off, in these words."""
    if text is None:
        return None
    stage, _, reason = text.partition(": ")
    return {"stage": stage, "reason": reason, "waits": reason == "waits for a batch of requests"}


def without_stale_arrays(table: pa.Table) -> pa.Table:
    """The table with those entries of `arrays` alone whose stage the row's `stages` names."""
    index = table.schema.get_field_index("arrays")
    if index < 0:
        return table
    field = table.schema.field(index)
    chunks = []
    for batch in table.select(["arrays", "stages"]).to_batches(max_chunksize=10_000):
        rows = zip(batch["arrays"].to_pylist(), batch["stages"].to_pylist(), strict=True)
        kept = [
            [place for place in places or () if place["stage"] in dict(stages or ())]
            for places, stages in rows
        ]
        chunks.append(pa.array(kept, field.type))
    return table.set_column(index, field, pa.chunked_array(chunks, field.type))


def to_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of exactly this schema; absent columns are null, unknown ones are left out."""
    return pa.Table.from_pylist(rows, schema=schema)


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as plain dicts; `stages` is a dict."""
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        if "stages" in row:
            row["stages"] = dict(row["stages"] or ())
    return rows
