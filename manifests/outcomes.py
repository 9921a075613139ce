"""What reviews and collections decide: columns that are laid over a manifest's rows when they are judged."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import ARROW_TYPES, OUTCOME_COLUMNS, arrow_field


def with_outcomes(table: pa.Table, known: Sequence[pa.Table]) -> pa.Table:
    """Rows of a manifest with what is known of them; the same table where it is so already.

    A manifest that was written before there was such a column may have one of that name from its input list;
    that stays as it is.

    Args:
        table: the rows, with `sample_id`.
        known: tables of `sample_id`, each once, and some of `OUTCOME_COLUMNS`; these become the rows', null
            for an id that is not among them.
    """
    for outcomes in known:
        places: pa.ChunkedArray | None = None
        for name in outcomes.column_names:
            if name == "sample_id":
                continue
            index = table.schema.get_field_index(name)
            if index >= 0 and not is_outcome(table.schema.field(index)):
                continue
            if not outcomes.num_rows and (index < 0 or table[name].null_count == table.num_rows):
                continue
            if places is None:
                ids = outcomes["sample_id"].combine_chunks()
                places = pc.index_in(table["sample_id"], value_set=ids)
            values = outcomes[name].combine_chunks().take(places.combine_chunks())
            if index < 0:
                field = arrow_field(name, OUTCOME_COLUMNS[name])
                place = table.schema.get_field_index("drop_reasons") + 1
                table = table.add_column(place, field, values)
            elif not table[name].equals(pa.chunked_array([values])):
                table = table.set_column(index, table.schema.field(index), values)
    return table


def is_outcome(field: pa.Field) -> bool:
    """Whether a manifest's column of this name is ours, and not one of an input list."""
    kind = ARROW_TYPES[OUTCOME_COLUMNS[field.name].type]
    is_text = pa.types.is_string(kind) and pa.types.is_large_string(field.type)
    return (is_text or field.type == kind) and (field.metadata or {}).get(b"from") != b"input list"
