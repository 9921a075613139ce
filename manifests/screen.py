"""Screens: thresholds that turn stored scores into keep or drop, with the reasons.

A screen is a pure function of columns; it decodes nothing and can be applied again at any time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from configs.reading import SettingsError, load_yaml, parse
from manifests import store
from manifests.schema import is_outdated

# Implementations that only stand in for a model are named so; media they made is no training data.
STAND_IN, STAND_IN_COLUMN = "stand_in", "synthesis_by"


class Rule(BaseModel):
    """One threshold: the sample is dropped with `reason` unless the column satisfies every bound given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Short name that appears in drop_reasons.")
    column: str = Field(description="Column of the manifest.")
    min: float | None = Field(None, allow_inf_nan=False, description="Smallest value that is kept.")
    max: float | None = Field(None, allow_inf_nan=False, description="Largest value that is kept.")
    equals: bool | str | None = Field(None, description="The value that is kept.")
    none_of: list[str] | None = Field(None, description="Values that are dropped; * stands for any text.")
    missing: str = Field("drop", pattern="^(drop|pass)$", description="What a null means.")
    source: str = Field(min_length=1, description="Public source of the threshold, or the reason for it.")

    @model_validator(mode="after")
    def _has_a_bound(self) -> Rule:
        if self.min is None and self.max is None and self.equals is None and self.none_of is None:
            raise ValueError(f"rule {self.reason} has no bound: give min, max, equals or none_of")
        return self


class Screen(BaseModel):
    """A named list of rules."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str = ""
    rules: list[Rule]

    def verdicts(self, table: pa.Table) -> tuple[npt.NDArray[np.bool_], list[list[str]]]:
        """For each row: keep, and the reasons why not.

        A sample with an error is dropped as `error:<stage>`, one that a gate stopped as
        `stopped:<stage>`; for these, columns that were not computed are not judged. Otherwise a null
        is `missing:<column>` unless the rule says `missing: pass`. Media made by a stand-in
        (`synthesis_by` begins with `stand_in`) is dropped as `stand_in` whatever the rules are.

        Raises:
            ValueError: a rule names a column that the table does not have, or bounds one without numbers.
        """
        count = table.num_rows
        reasons: list[list[str]] = [[] for _ in range(count)]
        error = pc.struct_field(table["error"], "stage").to_pylist()
        stopped = pc.struct_field(table["stopped"], "stage").to_pylist()
        unfinished = np.zeros(count, bool)
        for i in range(count):
            if error[i] is not None:
                reasons[i].append(f"error:{error[i]}")
            if stopped[i] is not None:
                reasons[i].append(f"stopped:{stopped[i]}")
            unfinished[i] = bool(reasons[i])
        if STAND_IN_COLUMN in table.column_names:
            for i, by in enumerate(table[STAND_IN_COLUMN].to_pylist()):
                if isinstance(by, str) and by.startswith(STAND_IN):
                    reasons[i].append("stand_in")
        for rule in self.rules:
            if rule.column not in table.column_names:
                raise ValueError(
                    f"screen {self.name}: rule {rule.reason} reads {rule.column}, no such column"
                )
            column = table[rule.column]
            has_number = rule.min is not None or rule.max is not None
            if has_number and not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
                raise ValueError(
                    f"screen {self.name}: rule {rule.reason} bounds {rule.column}, which holds no numbers "
                    f"but {column.type}"
                )
            null = np.asarray(pc.is_null(column, nan_is_null=pa.types.is_floating(column.type)))
            broken = _breaks(rule, column) & ~null
            for i in np.flatnonzero(broken).tolist():
                if rule.reason not in reasons[i]:
                    reasons[i].append(rule.reason)
            if rule.missing == "drop":
                for i in np.flatnonzero(null & ~unfinished).tolist():
                    reasons[i].append(f"missing:{rule.column}")
        return np.asarray([not r for r in reasons], dtype=bool), reasons

    def apply(self, table: pa.Table) -> pa.Table:
        """The table with `keep` and `drop_reasons` filled in."""
        keep, reasons = self.verdicts(table)
        return store.with_values(store.with_values(table, "keep", keep), "drop_reasons", reasons)


def _breaks(rule: Rule, column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Which values break the rule; nulls are False."""
    broken = np.zeros(len(column), bool)
    if rule.min is not None or rule.max is not None:
        values = column.cast(pa.float64()).to_numpy()
        with np.errstate(invalid="ignore"):
            if rule.min is not None:
                broken |= values < rule.min
            if rule.max is not None:
                broken |= values > rule.max
    if rule.equals is not None:
        broken |= np.asarray([v is not None and v != rule.equals for v in column.to_pylist()], bool)
    if rule.none_of is not None:
        refused = [re.compile(".*".join(map(re.escape, p.split("*"))) + r"\Z", re.S) for p in rule.none_of]
        broken |= np.asarray(
            [v is not None and any(r.match(str(v)) for r in refused) for v in column.to_pylist()], bool
        )
    return broken


def rescreen(manifest: Path, screen: Screen) -> dict[str, Any]:
    """Apply a screen to a finished manifest; only files whose verdicts change are rewritten.

    Returns:
        Counts: rows, kept, dropped, changed.
    """
    counts = {"rows": 0, "kept": 0, "dropped": 0, "changed": 0}
    files = store.manifest_files(manifest)
    for file in files:
        screen.verdicts(store.read_schema(file).empty_table())  # a wrong rule changes no file
    for file in files:
        before = store.read_file(file)
        after = screen.apply(before)
        was = zip(before["keep"].to_pylist(), before["drop_reasons"].to_pylist(), strict=True)
        now = list(zip(after["keep"].to_pylist(), after["drop_reasons"].to_pylist(), strict=True))
        changed = sum(a != b for a, b in zip(was, now, strict=True))
        # Other readers cannot read files of two versions side by side.
        if changed or is_outdated(store.stored_schema(file)):
            store.write_table(file, after)
        kept = sum(bool(keep) for keep, _ in now)
        counts["rows"] += len(now)
        counts["kept"] += kept
        counts["dropped"] += len(now) - kept
        counts["changed"] += changed
    return counts


def load_screen(name: str) -> Screen:
    """A screen by name or file.

    One that says `extends: NAME` has the rules of that screen too; a rule of its own with the same reason and
    column takes the other's place.

    Raises:
        SettingsError: there is none, or it is wrong.
    """
    return _screen(name, ())


def _screen(name: str, below: tuple[str, ...]) -> Screen:
    values, where = load_yaml(name, "screens")
    base = values.pop("extends", None)
    if base is None:
        return parse(Screen, values, where)
    if where in below:
        raise SettingsError(f"{where} extends itself: {' -> '.join((*below, where))}")
    under = _screen(str(base), (*below, where))
    own = parse(Screen, values, where)
    mine = {(rule.reason, rule.column): rule for rule in own.rules}
    rules = [mine.pop((rule.reason, rule.column), rule) for rule in under.rules]
    return own.model_copy(update={"rules": [*rules, *mine.values()]})
