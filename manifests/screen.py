"""Screens: thresholds that turn stored scores into keep or drop, with the reasons.

A screen is a pure function of columns; it decodes nothing and can be applied again at any time.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from configs.reading import SettingsError, load_yaml, parse
from manifests import storage, store
from manifests.journal import Change
from manifests.schema import ARROW_TYPES, OUTCOME_COLUMNS, is_outdated

if TYPE_CHECKING:
    import pandas as pd

# Implementations that only stand in for a model are named so; media they made is no training data.
STAND_IN, STAND_IN_COLUMN = "stand_in", "synthesis_by"
KEPT = "screens"  # folder of a run's earlier screens


BOUNDS = ("min", "max", "equals", "one_of", "none_of")


class Rule(BaseModel):
    """One threshold: the sample is dropped with `reason` unless the column satisfies every bound given.

    At least one of `min`, `max`, `equals`, `one_of` and `none_of` must be given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        description="Short name that appears in drop_reasons.",
        examples=["too_dark"],
    )
    column: str = Field(description="Column of the manifest.", examples=["luminance"])
    min: float | None = Field(
        None, allow_inf_nan=False, description="Smallest number that is kept.", examples=[10]
    )
    max: float | None = Field(
        None, allow_inf_nan=False, description="Largest number that is kept.", examples=[210]
    )
    equals: bool | str | None = Field(None, description="The one value that is kept.", examples=[True])
    one_of: list[str] | None = Field(
        None,
        min_length=1,
        description="Texts that are kept, all others are dropped; * stands for any text.",
        examples=[["other", "self*"]],
    )
    none_of: list[str] | None = Field(
        None,
        description="Texts that are dropped; * stands for any text.",
        examples=[["source", "stand_in*"]],
    )
    missing: Literal["drop", "pass"] = Field(
        "drop",
        description="What a null means: drop the sample as `missing:<column>`, or pass this rule.",
        examples=["pass"],
    )
    source: str | None = Field(
        None,
        min_length=1,
        description="Where the bound comes from, or the reason for it; shown beside the rule.",
        examples=["OpenHumanVid: luminance 10-210"],
    )

    @model_validator(mode="after")
    def _has_a_bound(self) -> Rule:
        if all(getattr(self, bound) is None for bound in BOUNDS):
            raise ValueError(
                f"rule {self.reason} has no bound: give {', '.join(BOUNDS[:-1])} or {BOUNDS[-1]}"
            )
        return self


class Screen(BaseModel):
    """A named list of rules; never changed: `changed`, `with_rule` and `without` give a new one.

    name: shown where the screen was applied. description: one sentence. rules: in order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str = ""
    rules: list[Rule]

    def changed(self, reason: str, column: str | None = None, **bounds: Any) -> Screen:
        """The screen with other keys in one rule: `screen.changed("too_dark", min=20)`; None takes one away.

        Args:
            reason: the rule's.
            column: where several rules share the reason, which of them.
            bounds: keys of `Rule` and their new values.

        Raises:
            SettingsError: there is no such rule, or more than one, or a key or value is wrong.
        """
        rule = self._rule(reason, column)
        other = parse(Rule, {**rule.model_dump(exclude_none=True), **bounds}, f"rule {reason}")
        return self.model_copy(update={"rules": [other if r is rule else r for r in self.rules]})

    def with_rule(self, reason: str, column: str, **bounds: Any) -> Screen:
        """The screen with one more rule: `screen.with_rule("dim", "luminance", min=20)`.

        A rule with the same reason and column gives up its place to it.

        Raises:
            SettingsError: a key or value is wrong.
        """
        rule = parse(Rule, {"reason": reason, "column": column, **bounds}, f"rule {reason}")
        return self.model_copy(update={"rules": overlaid(self.rules, [rule])})

    def without(self, reason: str, column: str | None = None) -> Screen:
        """The screen without one of its rules.

        Raises:
            SettingsError: there is no such rule, or more than one.
        """
        rule = self._rule(reason, column)
        return self.model_copy(update={"rules": [r for r in self.rules if r is not rule]})

    def _rule(self, reason: str, column: str | None) -> Rule:
        of_reason = [r for r in self.rules if r.reason == reason]
        if not of_reason:
            known = list(dict.fromkeys(r.reason for r in self.rules))
            raise SettingsError(f"screen {self.name} has no rule {reason!r}{_nearest(reason, known)}")
        fitting = [r for r in of_reason if column in (None, r.column)]
        if len(fitting) != 1:
            columns = ", ".join(r.column for r in of_reason)
            raise SettingsError(
                f"screen {self.name}: {reason} is the reason of rules on {columns}; name the column"
            )
        return fitting[0]

    def judge(self, rows: pd.DataFrame) -> pd.DataFrame:
        """A copy of a manifest's rows with `keep` and `drop_reasons` by this screen; writes nothing.

        Args:
            rows: a manifest, or some rows and columns of one: those that the rules read, and `error`,
                `stopped` and `synthesis_by` where it has them.

        Raises:
            SettingsError: a rule names a column that the rows do not have, or bounds one without numbers.
        """
        table = pa.table({"error": _outcome(rows, "error"), "stopped": _outcome(rows, "stopped")})
        for name in dict.fromkeys([STAND_IN_COLUMN, *(rule.column for rule in self.rules)]):
            if name in rows.columns and name not in table.column_names:
                values = pa.array(rows[name], from_pandas=True)
                if pa.types.is_null(values.type):
                    values = values.cast(pa.float64() if self._bounds_number(name) else pa.string())
                table = table.append_column(name, values)
        try:
            keep, reasons = self.verdicts(table)
        except ValueError as error:
            raise SettingsError(str(error)) from None
        return rows.assign(keep=keep, drop_reasons=reasons)

    def _bounds_number(self, column: str) -> bool:
        return any(r.column == column and (r.min is not None or r.max is not None) for r in self.rules)

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
                    f"{_nearest(rule.column, table.column_names)}"
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


# Keeps every sample that ends without an error.
EVERYTHING = Screen(name="everything", rules=[])


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
    if rule.one_of is not None:
        broken |= ~_matches(column, rule.one_of)
    if rule.none_of is not None:
        broken |= _matches(column, rule.none_of)
    return broken & np.asarray(pc.is_valid(column))


def _matches(column: pa.ChunkedArray, patterns: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which values are one of these texts, * standing for any text; nulls are False."""
    wanted = [re.compile(".*".join(map(re.escape, p.split("*"))) + r"\Z", re.S) for p in patterns]
    values = column.to_pylist()
    return np.asarray([v is not None and any(w.match(str(v)) for w in wanted) for v in values], bool)


def _nearest(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _outcome(rows: pd.DataFrame, name: str) -> pa.Array:
    """`error` or `stopped` of these rows; null where they have no such column."""
    kind = ARROW_TYPES[OUTCOME_COLUMNS[name].type]
    return pa.array(rows[name], kind, from_pandas=True) if name in rows.columns else pa.nulls(len(rows), kind)


def rescreen(
    manifest: Path,
    screen: Screen,
    also: Callable[[dict[str, Any]], Mapping[Path, bytes]] = lambda counts: {},
    check_lock: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Apply a screen to a finished manifest, all of it or nothing.

    Only files whose verdicts change are rewritten.

    Args:
        manifest: its folder, which the caller holds.
        screen: the rules.
        also: from the counts, further files of the run's folder that are replaced in the same step.
        check_lock: raises where the folder is another writer's by now.

    Returns:
        Counts: rows, kept, dropped, changed.

    Raises:
        ValueError: as `Screen.verdicts`; nothing is written then.
        FileNotFoundError: there is no manifest here.
        DamagedError: one of its files cannot be read, or is not one of ours.
        ReplacedError: another writer has replaced one of them meanwhile; what it wrote stays.
    """
    change = Change(manifest)
    counts = {"rows": 0, "kept": 0, "dropped": 0, "changed": 0}
    files = store.listed(manifest)
    if not files:
        raise FileNotFoundError(f"no manifest in {manifest}")
    for entry in files:
        screen.verdicts(store.read_schema(entry.path).empty_table())  # a wrong rule changes no file
    for entry in files:
        before = store.read_file(entry.path)
        after = screen.apply(before)
        was, now = _verdicts(before), _verdicts(after)
        changed = sum(a != b for a, b in zip(was, now, strict=True))
        # Other readers cannot read files of two versions side by side.
        if changed or is_outdated(store.stored_schema(entry.path)):
            change.write(entry.path, store.to_bytes(after), entry.version)
        kept = sum(bool(keep) for keep, _ in now)
        counts["rows"] += len(now)
        counts["kept"] += kept
        counts["dropped"] += len(now) - kept
        counts["changed"] += changed
    for path, data in also(counts).items():
        change.write(path, data)
    change.commit(check_lock)
    return counts


def _verdicts(table: pa.Table) -> list[tuple[bool | None, list[str] | None]]:
    return list(zip(table["keep"].to_pylist(), table["drop_reasons"].to_pylist(), strict=True))


@dataclass
class Difference:
    """What a screen would change in a manifest.

    Attributes:
        rows: of the manifest.
        kept_before, kept_after: of them, by the stored verdicts and by the screen.
        to_drop, to_keep: samples that are kept and would be dropped, and the other way round.
        broken, fulfilled: reason -> samples that would get it, and that would lose it.
    """

    rows: int = 0
    kept_before: int = 0
    kept_after: int = 0
    to_drop: list[str] = field(default_factory=list)
    to_keep: list[str] = field(default_factory=list)
    broken: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    fulfilled: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, was: tuple[bool, Sequence[str]], now: tuple[bool, Sequence[str]]) -> None:
        """One sample: its id, and keep and reasons before and after."""
        self.rows += 1
        self.kept_before += was[0]
        self.kept_after += now[0]
        if was[0] != now[0]:
            (self.to_keep if now[0] else self.to_drop).append(name)
        for reason in now[1]:
            if reason not in was[1]:
                self.broken[reason].append(name)
        for reason in was[1]:
            if reason not in now[1]:
                self.fulfilled[reason].append(name)


def compare(manifest: Path, screen: Screen) -> Difference:
    """What `rescreen` would change; writes nothing.

    Raises:
        ValueError: as `Screen.verdicts`.
        FileNotFoundError: there is no manifest here.
    """
    wanted = ["sample_id", "keep", "drop_reasons", "error", "stopped", STAND_IN_COLUMN]
    wanted += [rule.column for rule in screen.rules]
    there = store.column_names(manifest)
    table = store.read(manifest, [name for name in dict.fromkeys(wanted) if name in there])
    difference = Difference()
    keep, reasons = screen.verdicts(table)
    for name, (kept, why), *now in zip(
        table["sample_id"].to_pylist(), _verdicts(table), keep.tolist(), reasons, strict=True
    ):
        difference.add(name, (bool(kept), why or []), (now[0], now[1]))
    return difference


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
    return own.model_copy(update={"rules": overlaid(under.rules, own.rules)})


def save_screen(screen: Screen, folder: Path) -> Path | None:
    """Write `screen_files`; returns the file of the replaced screen, None where none was replaced."""
    files = screen_files(screen, folder)
    for path, data in files.items():
        storage.write_bytes(path, data)
    return replaced_screen(files)


def screen_files(screen: Screen, folder: Path) -> dict[Path, bytes]:
    """The files of the screen that is applied to a run: its `screen.yaml`, ready to be changed and used.

    Before it stands a different one that it replaces: kept as `screens/NNNN.yaml`, numbered from 0001.
    """
    text = yaml.safe_dump(screen.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True)
    data, files = text.encode(), dict[Path, bytes]()
    try:
        replaced = storage.read_bytes(folder / "screen.yaml")
    except FileNotFoundError:
        replaced = data
    if replaced != data:
        names = [file.stem for file in storage.files(folder / KEPT, ".yaml")]
        numbers = [int(name) for name in names if name.isdigit()]
        files[folder / KEPT / f"{max(numbers, default=0) + 1:04d}.yaml"] = replaced
    return files | {folder / "screen.yaml": data}


def replaced_screen(files: Collection[Path]) -> Path | None:
    """Of `screen_files` the one that keeps a replaced screen."""
    return next((path for path in files if path.parent.name == KEPT), None)


def overlaid(below: Sequence[Rule], above: Sequence[Rule]) -> list[Rule]:
    """The rules of both; one of `above` takes the place of one with the same reason and column."""
    over = {(rule.reason, rule.column): rule for rule in above}
    rules = [over.pop((rule.reason, rule.column), rule) for rule in below]
    return [*rules, *over.values()]
