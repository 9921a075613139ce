"""The report of a run: one page that opens without a network, with the run's figures and its clips.

The page holds the rows' columns as arrays and judges them itself, so that moved thresholds show at once what
they would change. Pictures lie beside it, in `report/`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import journal, storage
from manifests.reviews import REVIEWS
from manifests.schema import ARROW_TYPES, to_rows
from manifests.screen import SCREEN, Screen
from manifests.store import at_one_moment, read_columns, whole_schema, write_table
from pipelines.review.facts import INNER
from pipelines.review.figures import Figures, figures_of, outcomes
from pipelines.review.page import made_by, page
from pipelines.review.strips import FOLDER, READS, make_strips, strip_name, strips_there

REPORT, FOUND = "report.html", "found.html"
MADE_BY = f"{FOLDER}/made_by"  # beside it: which version of the page it is
# A page holds this many rows; of more it holds a fair sample, so that it opens on any machine.
WHOLE, SAMPLE = 100_000, 20_000
STRIPS = 100  # of samples that have none, made with a report


def is_current(run: Path) -> bool:
    """Whether a run's report is newer than all that it shows, and made by this version of the page."""
    written = {entry.path.name: entry.modified for entry in storage.listed(run)}
    of_manifest = [entry.modified for entry in storage.listed(run / "manifest", ".parquet")]
    said = [entry.modified for entry in storage.listed(run / REVIEWS, ".parquet")]
    shown = [*of_manifest, *said, written.get(SCREEN)]
    report = written.get(REPORT)
    if report is None or not all(time is not None and time < report for time in shown):
        return False
    try:
        return storage.read_bytes(run / MADE_BY) == made_by().encode()
    except FileNotFoundError:
        return False


def write_report(run: Path, strips: int = STRIPS, told: Callable[[int, int], None] | None = None) -> Path:
    """Write `report.html` into a run's folder, and `report/` beside it with pictures of clips.

    Args:
        run: its folder.
        strips: how many samples shall have pictures, beside those that have them already.
        told: takes how many of how many samples have been looked at for that.

    Raises:
        FileNotFoundError: there is no run in the folder.
    """
    record, screen = _judged_by(run)
    rows, figures = _rows_and_figures(run / "manifest", screen)
    media = _media(rows)
    wanted = [media[at] for at in _for_strips(rows, strips)]
    make_strips(run, wanted, (lambda done: told(done, len(wanted))) if told else lambda done: None)
    if rows.num_rows == figures.total:  # those of media that has changed since
        gone = strips_there(run).difference(map(strip_name, media))
        storage.remove(run / FOLDER / name for name in gone)
    path = _write(run, REPORT, record, screen, figures, rows, media)
    storage.write_bytes(run / MADE_BY, made_by().encode())
    return path


def write_found_page(run: Path, rows: pa.Table) -> Path:
    """Write `found.html` into a run's folder: a report of some of its samples alone, each with pictures.

    Args:
        run: its folder.
        rows: of its manifest, perhaps with further columns, in the order in which they are shown.

    Raises:
        FileNotFoundError: there is no run in the folder.
    """
    record, screen = _judged_by(run)
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest"
        manifest.mkdir()
        write_table(manifest / "manifest-00000.parquet", rows)
        shown, figures = _rows_and_figures(manifest, screen)
    media = _media(shown)
    make_strips(run, media, lambda done: None)
    return _write(run, FOUND, record, screen, figures, shown, media)


def _judged_by(run: Path) -> tuple[dict[str, Any], Screen]:
    """The record of a run, and its screen."""
    record = json.loads(journal.read(run, "run.json"))
    return record, Screen.model_validate(record["screen"])


def _rows_and_figures(manifest: Path, screen: Screen) -> tuple[pa.Table, Figures]:
    """The rows that a page holds, and what it says of all of them."""
    figures = figures_of(manifest, screen)
    judged = [rule.column for rule in screen.rules]
    return at_one_moment(manifest, lambda files: _shown_rows(files, figures.total, judged)), figures


def _media(rows: pa.Table) -> list[dict[str, Any]]:
    """What pictures of the rows are made by."""
    return to_rows(rows.select([name for name in READS if name in rows.column_names]))


def _write(
    run: Path,
    name: str,
    record: Mapping[str, Any],
    screen: Screen,
    figures: Figures,
    rows: pa.Table,
    media: Sequence[Mapping[str, Any]],
) -> Path:
    """Write a page of rows, with the pictures that are there; `media` as of `_media`."""
    there, names = strips_there(run), list(map(strip_name, media))
    html = page(run, record, screen, figures, rows, [name if name in there else None for name in names])
    storage.write_bytes(run / name, html.encode("utf-8", "replace"))
    return run / name


def _shown_rows(files: Sequence[storage.Listed], total: int, judged: Collection[str]) -> pa.Table:
    """The rows that the page holds: all, or a sample in which each has the same chance."""
    whole, always = whole_schema(files), {*INNER, *judged}
    schema = pa.schema([field for field in whole if field.name in always or _is_shown(field.type)])
    chosen = np.arange(total)
    if total > WHOLE:
        chosen = np.sort(np.random.default_rng(0).choice(total, SAMPLE, replace=False))
    tables, before = [], 0
    for file in files:
        table = read_columns(file, schema)
        here = chosen[(chosen >= before) & (chosen < before + table.num_rows)] - before
        before += table.num_rows
        tables.append(table.take(pa.array(here)) if len(here) < table.num_rows else table)
    return pa.concat_tables(tables).combine_chunks()


def _is_shown(kind: pa.DataType) -> bool:
    own = (ARROW_TYPES[name] for name in ("strings", "regions", "reactions", "stopped", "error"))
    is_flat = pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return is_flat or pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind in own


def _for_strips(rows: pa.Table, count: int) -> npt.NDArray[np.int64]:
    """Which rows get a strip: half of them kept ones, all evenly spread over the run."""
    # What killed or held up a worker must not do so here.
    died = pc.fill_null(pc.equal(pc.struct_field(rows["error"], "kind"), "WorkerDied"), False)
    kept = outcomes(rows)["kept"]
    fewer, more = sorted([np.flatnonzero(kept), np.flatnonzero(~kept & ~np.asarray(died, bool))], key=len)
    fewer = _spread(fewer, count // 2)
    return np.sort(np.concatenate([fewer, _spread(more, count - len(fewer))]))


def _spread(rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """At most so many of the rows, evenly spread."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)] if len(rows) else rows
