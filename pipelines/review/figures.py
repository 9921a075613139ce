"""What a report says of all rows of a manifest: the funnel, the reasons, the coverage; exact at any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import storage
from manifests.schema import ARROW_TYPES
from manifests.screen import STAND_IN, STAND_IN_COLUMN, Screen
from manifests.store import at_one_moment, read_columns, whole_schema

# Stages that open a sample's media first: an error there says that it cannot be decoded.
OPENING_STAGES = ("probe", "portrait")
OUTCOMES = ("kept", "dropped", "error")
SECONDS = ("duration_s", "start_s", "end_s")
TOUCH = ("interaction_region", "interaction_type")


@dataclass(frozen=True)
class Step:
    """A step of the funnel.

    name: what the samples that are left are. left: how many. seconds: how long their media is.
    """

    name: str
    left: int
    seconds: float


@dataclass(frozen=True)
class Coverage:
    """How often one type of touch at one region occurs.

    samples: rows that have it; of portraits: reactions that were described. kept: of those in kept rows.
    """

    region: str
    type: str
    samples: int
    kept: int


@dataclass(frozen=True)
class Figures:
    """What a report says of a manifest.

    total: rows. counts: of each outcome. has_seconds: whether rows know how long their media is (pictures do
    not). funnel: samples left after each step; the last are those kept. reasons: and how many samples have
    each, the most frequent first. coverage: regions by types of touch, in alphabetical order. rule_steps: of
    each rule the step of the funnel at which samples fall by it.
    """

    total: int
    counts: Mapping[str, int]
    has_seconds: bool
    funnel: Sequence[Step]
    reasons: Sequence[tuple[str, int]]
    coverage: Sequence[Coverage]
    rule_steps: Sequence[str]


def figures_of(manifest: Path, screen: Screen) -> Figures:
    """What a report says of a manifest, file by file; no row becomes a Python object.

    Raises:
        FileNotFoundError: there is no manifest here.
        DamagedError: one of its files cannot be read, or is not one of ours.
    """
    return at_one_moment(manifest, lambda files: _figures(files, screen))


def _figures(files: Sequence[storage.Listed], screen: Screen) -> Figures:
    schema = whole_schema(files)
    wanted = ("keep", "drop_reasons", "error", STAND_IN_COLUMN, "reactions", *SECONDS, *TOUCH)
    read = pa.schema([schema.field(name) for name in wanted if name in schema.names])
    funnel = _Funnel(screen, STAND_IN_COLUMN in schema.names)
    counts = dict.fromkeys(OUTCOMES, 0)
    reasons: Counter[str] = Counter()
    touches: Counter[tuple[str, str, bool]] = Counter()
    has_seconds = False
    for file in files:
        table = read_columns(file, read).combine_chunks()
        for value in pc.list_flatten(table["drop_reasons"]).value_counts().to_pylist():
            reasons[value["values"]] += value["counts"]
        for name, mask in outcomes(table).items():
            counts[name] += int(mask.sum())
        seconds = seconds_of(table)
        has_seconds = has_seconds or not np.isnan(seconds).all()
        funnel.add(table, np.nan_to_num(seconds))
        touches.update(dict(_touches(table)))
    pairs = sorted({(region, touch) for region, touch, _ in touches})
    coverage = [
        Coverage(*pair, touches[(*pair, True)] + touches[(*pair, False)], touches[(*pair, True)])
        for pair in pairs
    ]
    steps = funnel.steps(has_review="review" in reasons)
    rule_steps = [funnel.names[funnel.of_reason[rule.reason]] for rule in screen.rules]
    return Figures(steps[0].left, counts, has_seconds, steps, reasons.most_common(), coverage, rule_steps)


def outcomes(table: pa.Table) -> dict[str, npt.NDArray[np.bool_]]:
    """Which rows have each outcome."""
    failed = np.asarray(pc.is_valid(table["error"]), bool)
    keep = np.asarray(pc.fill_null(table["keep"], False), bool)
    return {"kept": keep & ~failed, "dropped": ~keep & ~failed, "error": failed}


def seconds_of(table: pa.Table) -> npt.NDArray[np.float64]:
    """How long each row's media is, s; NaN where nobody knows, as of pictures."""
    measured, start, end = (
        table[name].to_numpy() if name in table.column_names else np.full(table.num_rows, np.nan)
        for name in SECONDS
    )
    return np.where(np.isnan(measured), end - np.nan_to_num(start), measured)


class _Funnel:
    """Counts at which step each row falls."""

    def __init__(self, screen: Screen, has_stand_ins: bool) -> None:
        self.names = ["listed", "decodable", "without error", "not stopped by a gate"]
        self.names += ["not made by a stand-in"] if has_stand_ins else []
        self.of_reason = {STAND_IN: len(self.names) - 1} if has_stand_ins else {}
        for rule in screen.rules:
            if rule.reason not in self.of_reason:
                self.of_reason[rule.reason] = len(self.names)
                self.names.append(f"not {rule.reason}")
            if rule.missing == "drop":
                missing, step = f"missing:{rule.column}", self.of_reason[rule.reason]
                self.of_reason[missing] = min(step, self.of_reason.get(missing, step))
        self.of_reason["review"] = len(self.names)
        self.names += ["not dropped in review", "kept"]
        self.fallen = np.zeros(len(self.names) + 1, np.int64)
        self.seconds = np.zeros(len(self.names) + 1)

    def add(self, table: pa.Table, seconds: npt.NDArray[np.float64]) -> None:
        """Some rows, and how long each is, s."""
        at = self._first(table["drop_reasons"])
        last = len(self.names) - 1
        at = np.where(~outcomes(table)["kept"], np.minimum(at, last), last + 1)
        self.fallen += np.bincount(at, minlength=last + 2)
        self.seconds += np.bincount(at, seconds, minlength=last + 2)

    def _first(self, reasons: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """The first step that each row does not pass; the one behind the last where it has no reason."""
        first = np.full(len(reasons), len(self.names), np.int64)
        lengths = np.asarray(pc.fill_null(pc.list_value_length(reasons), 0))
        rows = np.repeat(np.arange(len(reasons)), lengths)
        named = pc.list_flatten(reasons).combine_chunks().dictionary_encode()
        steps = [self._step(text) for text in named.dictionary.to_pylist()] + [len(self.names) - 1]
        codes = np.asarray(pc.fill_null(named.indices, len(steps) - 1))
        np.minimum.at(first, rows, np.asarray(steps)[codes])
        return first

    def _step(self, reason: str) -> int:
        kind, colon, stage = reason.partition(":")
        if colon and kind == "error":
            return 1 if stage in OPENING_STAGES else 2
        if colon and kind == "stopped":
            return 3
        return self.of_reason.get(reason, len(self.names) - 1)

    def steps(self, has_review: bool) -> list[Step]:
        """The steps with what is left after each."""
        left = self.fallen.sum() - np.cumsum(self.fallen)[:-1]
        seconds = self.seconds.sum() - np.cumsum(self.seconds)[:-1]
        named = zip(self.names, left.tolist(), seconds.tolist(), strict=True)
        return [Step(*step) for step in named if has_review or step[0] != "not dropped in review"]


def _touches(table: pa.Table) -> Iterator[tuple[tuple[str, str, bool], int]]:
    """(region, type, whether in a kept row) and how often; of reactions where no touch is in the rows."""
    kept = pa.array(outcomes(table)["kept"])
    if "reactions" in table.column_names and table["reactions"].type == ARROW_TYPES["reactions"]:
        reactions = table["reactions"].combine_chunks()
        flat = reactions.flatten()
        region, touch = (pc.struct_field(flat, name) for name in ("region", "interaction_type"))
        kept = kept.take(pc.list_parent_indices(reactions))
    elif set(TOUCH) <= set(table.column_names):
        region, touch = (table[name] for name in TOUCH)
    else:
        return
    pairs = pa.table({"region": region, "touch": touch, "kept": kept})
    for row in pairs.group_by(["region", "touch", "kept"]).aggregate([([], "count_all")]).to_pylist():
        if row["region"] is not None and row["touch"] is not None:
            yield (row["region"], row["touch"], row["kept"]), row["count_all"]
