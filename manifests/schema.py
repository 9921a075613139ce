"""The columns of a manifest: names, Arrow types, units and meanings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# 2: `stopped` is a struct; in 1 it was the text "stage: reason".
# 3: no column is a map, which Hugging Face's `datasets` refuses; in 2 `stages` was one, and so were such
#    columns of an input list.
SCHEMA_VERSION = 3

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
STAGES = pa.list_(pa.struct([("stage", pa.string()), ("fingerprint", pa.string())]))
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
        "string", "", "Stable name of the sample: from source name, path inside it, time range, crop."
    ),
    "pipeline": Field("string", "", "Pipeline that made the row."),
    "source": Field("string", "", "Name of the data set the sample comes from."),
    "source_uri": Field("string", "path or URL", "The file as it was listed."),
    "media_uri": Field("string", "path or URL", "The file that holds the sample's media now."),
    "start_s": Field("float", "s", "Start of the sample inside the file; null: its beginning."),
    "end_s": Field("float", "s", "End of the sample inside the file; null: its end."),
    "crop_x0": Field(
        "float", "0-1", "Left edge of the sample, share of the width as displayed; null: the whole picture."
    ),
    "crop_y0": Field("float", "0-1", "Its upper edge, share of the height as displayed; null likewise."),
    "crop_x1": Field("float", "0-1", "Its right edge; null likewise."),
    "crop_y1": Field("float", "0-1", "Its lower edge; null likewise."),
    "parent_id": Field("string", "", "Id of the longer video this clip was cut from; null otherwise."),
    "source_size": Field("int", "bytes", "Size of the file when it was listed; null if unknown."),
    "licence": Field("string", "", "Licence of the media as given by the input list; null if not given."),
    "commercial_use": Field(
        "bool",
        "",
        "The licence allows commercial use: as the list says, or the licence's name; null: unknown.",
    ),
    "derivatives": Field(
        "bool", "", "The licence allows to share what is made of the media; likewise; null: unknown."
    ),
    "shows_minors": Field("bool", "", "Minors are seen, as the input list says; null: it does not say."),
}

# What every pipeline fills by one of its stages or leaves null.
COMMON_COLUMNS: Mapping[str, Field] = {
    "fps": Field("float", "frames/s", "Mean frame rate, measured on the decoded frames."),
    "num_frames": Field("int", "frames", "Frames that decode."),
    "width": Field("int", "px", "Width as displayed (after rotation, pixel aspect and crop)."),
    "height": Field("int", "px", "Height as displayed (after rotation, pixel aspect and crop)."),
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

# What is known of a sample beside the others of its collection: found by `duplicates`, `people` and `split`.
COLLECTION_COLUMNS: Mapping[str, Field] = {
    "duplicate_group": Field(
        "string",
        "",
        "Id of the best of all copies of a clip, itself among them; null: not looked for.",
    ),
    "duplicate_of": Field(
        "string", "", "Id of the better copy in a run of the same pipeline; null: there is none."
    ),
    "duplicate_kind": Field("string", "", "How it is a copy: see docs/collections.md; null: it is none."),
    "duplicate_distance": Field(
        "float", "0-1", "How unlike that copy it is, 0 for the same pictures; null: it is none."
    ),
    "person_id": Field("string", "", "The person of a clip with one person; null: not known."),
    "person_similarity": Field(
        "float", "0-1", "Cosine of the face's embedding and the mean of the person's; null likewise."
    ),
    "person_rank": Field(
        "int", "", "Place of the clip among the kept ones of its person, 1 the best; null likewise."
    ),
    "split": Field(
        "string",
        "",
        "Side of the split: train, validation, test, or none (left out); null: not split.",
    ),
}

# What happened to the sample: written by the engine and the screen.
OUTCOME_COLUMNS: Mapping[str, Field] = {
    "keep": Field("bool", "", "The screen's verdict."),
    "drop_reasons": Field("strings", "", "Names of the screen's rules that the sample breaks."),
    "review": Field(
        "string", "", "What reviewers decided, keep or drop, which overrules the screen; null: nothing."
    ),
    **COLLECTION_COLUMNS,
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
        "stages", "", "What was computed, by which version: stage and fingerprint; see run.json for each."
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

    Views become plain text, bytes and lists (rows of views can be neither sorted nor taken), maps lists of
    `key` and `value`, dictionaries and extension types what they stand for, nothing but nulls becomes text;
    in nested types, too.
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
        entry = [("key", plain_type(kind.key_type)), ("value", plain_type(kind.item_type))]
        return pa.list_(pa.struct(entry))
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
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if _has_map(field.type):
            kind = STAGES if field.name == "stages" else plain_type(field.type)
            table = table.set_column(index, field.with_type(kind), as_type(column, kind))
        elif _is_old_stop(field):
            stops = pa.array([_stopped(text) for text in column.to_pylist()], STOPPED)
            table = table.set_column(index, field.with_type(STOPPED), stops)
        elif field.name == "schema_version":
            versions = pa.array([SCHEMA_VERSION] * table.num_rows, pa.int64())
            table = table.set_column(index, field, versions)
    return table


def is_outdated(schema: pa.Schema) -> bool:
    """Whether an earlier version of this schema wrote these columns."""
    return any(_has_map(field.type) or _is_old_stop(field) for field in schema)


def _has_map(kind: pa.DataType) -> bool:
    """Whether a type is a map, or one lies in it."""
    return pa.types.is_map(kind) or any(_has_map(kind.field(i).type) for i in range(kind.num_fields))


def _is_old_stop(field: pa.Field) -> bool:
    return field.name == "stopped" and pa.types.is_string(field.type)


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
        rows = zip(batch["arrays"].to_pylist(), stage_dicts(batch["stages"]), strict=True)
        kept = [[place for place in places or () if place["stage"] in stages] for places, stages in rows]
        chunks.append(pa.array(kept, field.type))
    return table.set_column(index, field, pa.chunked_array(chunks, field.type))


def to_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of exactly this schema; absent columns are null, unknown ones are left out.

    Args:
        rows: as `to_rows` gives them: `stages` is a dict, or None.
        schema: the table's.
    """
    rows = list(rows)
    table = pa.Table.from_pylist([{**row, "stages": None} for row in rows], schema=schema)
    index = schema.get_field_index("stages")
    if index < 0:
        return table
    return table.set_column(index, schema.field(index), stage_array([row.get("stages") for row in rows]))


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as plain dicts; `stages` is a dict."""
    index = table.schema.get_field_index("stages")
    if index < 0:
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows
    done = stage_dicts(table["stages"])
    rows = table.set_column(index, "stages", pa.nulls(table.num_rows)).to_pylist()
    for row, stages in zip(rows, done, strict=True):
        row["stages"] = stages
    return rows


def stage_array(stages: Sequence[Mapping[str, str] | None]) -> pa.ListArray:
    """Dicts, stage -> fingerprint, as values of `stages`."""
    names = pa.array([name for done in stages for name in done or ()], pa.string())
    prints = pa.array([text for done in stages for text in (done or {}).values()], pa.string())
    ends = np.cumsum([0, *(len(done or ()) for done in stages)])
    entries = pa.StructArray.from_arrays([names, prints], fields=list(STAGES.value_type))
    is_null = pa.array([done is None for done in stages], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), entries, STAGES, mask=is_null)


def stage_dicts(column: pa.Array | pa.ChunkedArray) -> list[dict[str, str]]:
    """The values of `stages` as dicts, stage -> fingerprint; a null is an empty one."""
    dicts = []
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        entries = chunk.flatten()
        names, prints = _texts(entries.field("stage")), _texts(entries.field("fingerprint"))
        lengths = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy()
        ends = np.cumsum(lengths).tolist()
        dicts += [
            dict(zip(names[start:end], prints[start:end], strict=True))
            for start, end in zip([0, *ends], ends, strict=False)
        ]
    return dicts


def _texts(column: pa.Array) -> list[str]:
    """The texts as Python's, each of the few different ones once in memory."""
    encoded = column.dictionary_encode("encode")  # a null is one of the texts
    texts: list[str] = np.asarray(encoded.dictionary.to_pylist(), object)[encoded.indices.to_numpy()].tolist()
    return texts


def stage_dict(stages: Any) -> dict[str, str]:
    """One value of `stages` as a dict.

    Args:
        stages: a dict, None, or entries as Arrow and pandas give them: dicts with `stage` and `fingerprint`,
            or of a manifest of an earlier version pairs.
    """
    if isinstance(stages, Mapping):
        return dict(stages)
    entries = () if stages is None else stages
    return dict((e["stage"], e["fingerprint"]) if isinstance(e, Mapping) else e for e in entries)
