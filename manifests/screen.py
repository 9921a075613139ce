"""Screens: thresholds that turn stored scores into keep or drop, with the reasons.

A screen is a pure function of columns; it decodes nothing and can be applied again at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from configs.reading import SettingsError, load_yaml, parse
from manifests import reviews, storage, store
from manifests.history import CHANGED, HISTORY
from manifests.journal import Change
from manifests.outcomes import is_outcome, with_outcomes
from manifests.reviews import REVIEW
from manifests.schema import ARROW_TYPES, COLLECTION_COLUMNS, OUTCOME_COLUMNS, is_outdated

if TYPE_CHECKING:
    import pandas as pd

# Implementations that only stand in for a model are named so; media they made is no training data.
FILES_AT_ONCE = 4  # that are judged: a Parquet file is written by one thread
STAND_IN, STAND_IN_COLUMN = "stand_in", "synthesis_by"
SCREEN, KEPT = "screen.yaml", "screens"  # the screen of a run, and the folder of its earlier ones
ADDED = frozenset([HISTORY, KEPT])  # folders of files that are added and never replaced


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

    @property
    def hash(self) -> str:
        """16 hex digits over its rules."""
        rules = [rule.model_dump(mode="json", exclude_none=True) for rule in self.rules]
        return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:16]

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
                `stopped`, `review` and `synthesis_by` where it has them.

        Raises:
            SettingsError: a rule names a column that the rows do not have, or bounds one without numbers.
        """
        table = pa.table({"error": _outcome(rows, "error"), "stopped": _outcome(rows, "stopped")})
        for name in dict.fromkeys([STAND_IN_COLUMN, REVIEW, *(rule.column for rule in self.rules)]):
            if name in rows.columns and name not in table.column_names:
                values = pa.array(rows[name], from_pandas=True)
                if pa.types.is_null(values.type):
                    values = values.cast(pa.float64() if self._bounds_number(name) else pa.string())
                table = table.append_column(name, values)
        try:
            keep, reasons = self.verdicts(table)
        except ValueError as error:
            raise SettingsError(str(error)) from None
        return rows.assign(keep=keep, drop_reasons=reasons.to_pylist())

    def _bounds_number(self, column: str) -> bool:
        return any(r.column == column and (r.min is not None or r.max is not None) for r in self.rules)

    def verdicts(self, table: pa.Table) -> tuple[npt.NDArray[np.bool_], pa.ListArray]:
        """For each row: keep, and the reasons why not.

        A sample with an error is dropped as `error:<stage>`, one that a gate stopped as
        `stopped:<stage>`; for these, columns that were not computed are not judged. Otherwise a null
        is `missing:<column>` unless the rule says `missing: pass`. Media made by a stand-in
        (`synthesis_by` begins with `stand_in`) is dropped as `stand_in` whatever the rules are. What
        reviewers decided (`review`) goes before the rules: a sample that they drop is dropped as `review`
        too, on one that they keep neither rules nor nulls are judged.

        Raises:
            ValueError: a rule names a column that the table does not have, or bounds one without numbers.
        """
        # Reason and the rows that it drops, in the order in which a row's reasons are given.
        fallen: list[tuple[str, npt.NDArray[np.bool_]]] = []
        given: dict[str, npt.NDArray[np.bool_]] = {}

        def fall(reason: str, rows: npt.NDArray[np.bool_]) -> None:
            before = given.get(reason, np.zeros(table.num_rows, bool))
            fallen.append((reason, rows & ~before))  # a reason is given once
            given[reason] = before | rows

        unfinished = np.zeros(table.num_rows, bool)
        for outcome in ("error", "stopped"):
            stage = pc.struct_field(table[outcome], "stage")
            for name in stage.unique().drop_null().to_pylist():
                ended = _true(pc.equal(stage, name))
                fall(f"{outcome}:{name}", ended)
                unfinished |= ended
        fall(STAND_IN, made_by_stand_in(table))
        fall(REVIEW, reviewed(table, reviews.DROP))
        is_judged = ~reviewed(table, reviews.KEEP)
        for rule in self.rules:
            if rule.column not in table.column_names and rule.column not in COLLECTION_COLUMNS:
                raise ValueError(
                    f"screen {self.name}: rule {rule.reason} reads {rule.column}, no such column"
                    f"{_nearest(rule.column, table.column_names)}"
                )
            column = _column_of(table, rule.column)
            has_number = rule.min is not None or rule.max is not None
            if has_number and not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
                raise ValueError(
                    f"screen {self.name}: rule {rule.reason} bounds {rule.column}, which holds no numbers "
                    f"but {column.type}"
                )
            broken, null = _judged_by(rule, column)
            fall(rule.reason, broken & is_judged)
            if rule.missing == "drop":
                fall(f"missing:{rule.column}", null & ~unfinished & is_judged)
        return _as_lists(fallen, table.num_rows)

    def apply(self, table: pa.Table) -> pa.Table:
        """The table with `keep` and `drop_reasons` filled in."""
        return _judged(table, *self.verdicts(table))


def _column_of(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column that a rule reads; one of a collection is null where nothing was ever looked for."""
    if name in table.column_names:
        return table[name]
    return pa.chunked_array([pa.nulls(table.num_rows, ARROW_TYPES[COLLECTION_COLUMNS[name].type])])


# Keeps every sample that ends without an error.
EVERYTHING = Screen(name="everything", rules=[])


def _judged(table: pa.Table, keep: npt.NDArray[np.bool_], reasons: pa.ListArray) -> pa.Table:
    return store.with_values(store.with_values(table, "keep", keep), "drop_reasons", reasons)


def made_by_stand_in(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Which samples a stand-in has made."""
    if STAND_IN_COLUMN not in table.column_names:
        return np.zeros(table.num_rows, bool)
    return _matches(table[STAND_IN_COLUMN], [f"{STAND_IN}*"])


def reviewed(table: pa.Table, verdict: str) -> npt.NDArray[np.bool_]:
    """Which samples reviewers decided to keep, or to drop."""
    if REVIEW not in table.column_names or not is_outcome(table.schema.field(REVIEW)):
        return np.zeros(table.num_rows, bool)
    return _true(pc.equal(table[REVIEW], verdict))


def _as_lists(
    fallen: Sequence[tuple[str, npt.NDArray[np.bool_]]], count: int
) -> tuple[npt.NDArray[np.bool_], pa.ListArray]:
    """Keep, and for each row the reasons whose masks hold it, in their order."""
    masks = np.array([mask for _, mask in fallen], bool).reshape(len(fallen), count)
    names = pa.array([reason for reason, _ in fallen], pa.string())
    offsets = np.concatenate([[0], np.cumsum(masks.sum(axis=0))]).astype(np.int32)
    given = names.take(pa.array(np.nonzero(masks.T)[1]))
    keep: npt.NDArray[np.bool_] = np.logical_not(masks.any(axis=0))
    return keep, pa.ListArray.from_arrays(pa.array(offsets), given)


def rule_states(rule: Rule, table: pa.Table) -> npt.NDArray[np.uint8]:
    """What one rule says of each row: 0 it passes, 1 it breaks the rule, 2 there is no value."""
    if rule.column not in table.column_names:
        return np.full(table.num_rows, 2, np.uint8)
    broken, null = _judged_by(rule, table[rule.column])
    return np.where(null, 2, broken).astype(np.uint8)


def _judged_by(rule: Rule, column: pa.ChunkedArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which values break the rule, and which there are none of."""
    null = np.asarray(pc.is_null(column, nan_is_null=pa.types.is_floating(column.type)))
    return _breaks(rule, column) & ~null, null


def _true(values: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Booleans; null is False."""
    return np.asarray(pc.fill_null(values, False))


def _breaks(rule: Rule, column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Which values break the rule; nulls are False."""
    broken = np.zeros(len(column), bool)
    if rule.min is not None or rule.max is not None:
        values = column.cast(pa.float64(), safe=False).to_numpy()  # no float holds every large integer
        with np.errstate(invalid="ignore"):
            if rule.min is not None:
                broken |= values < rule.min
            if rule.max is not None:
                broken |= values > rule.max
    if rule.equals is not None:
        broken |= _where(column, lambda value: value != rule.equals)
    if rule.one_of is not None:
        broken |= ~_matches(column, rule.one_of)
    if rule.none_of is not None:
        broken |= _matches(column, rule.none_of)
    return broken & np.asarray(pc.is_valid(column))


def _matches(column: pa.ChunkedArray, patterns: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which values are one of these texts, * standing for any text; nulls are False."""
    wanted = [pattern.split("*") for pattern in patterns]
    return _where(column, lambda value: any(_is_made_of(str(value), parts) for parts in wanted))


def _is_made_of(text: str, parts: Sequence[str]) -> bool:
    """Whether a text consists of these parts in their order, with any text between them.

    Each part is taken where it is first found, so the time grows with the text and not with the ways to
    match it, as that of a regular expression would.
    """
    if len(parts) == 1:
        return text == parts[0]
    first, *between, last = parts
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for part in between:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _where(column: pa.ChunkedArray, holds: Callable[[Any], bool]) -> npt.NDArray[np.bool_]:
    """For which values something holds, asked once for each distinct one; nulls are False."""
    if pa.types.is_nested(column.type):
        return np.fromiter((v is not None and holds(v) for v in column.to_pylist()), bool, len(column))
    distinct = column.unique().drop_null()
    some = distinct.filter(pa.array([holds(value) for value in distinct.to_pylist()], pa.bool_()))
    return np.asarray(pc.is_in(column, value_set=some))


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
    also: Callable[[dict[str, Any], pa.Table], Mapping[Path, bytes]] = lambda counts, changed: {},
    check_lock: Callable[[], None] = lambda: None,
    known: Sequence[pa.Table] = (),
) -> dict[str, Any]:
    """Apply a screen to a finished manifest, all of it or nothing.

    Only files whose verdicts or reviews change are rewritten.

    Args:
        manifest: its folder, which the caller holds.
        screen: the rules.
        also: from the counts and the changed verdicts (`history.CHANGED`), further files of the run's folder
            that are replaced in the same step; those of `ADDED` must not be there yet.
        check_lock: raises where the folder is another writer's by now.
        known: outcomes that become the rows' (`outcomes.with_outcomes`): what reviewers decided
            (`reviews.decided`), what is known from a collection (`collected.read`); others stay.

    Returns:
        Counts: rows, kept, dropped, changed.

    Raises:
        ValueError: as `Screen.verdicts`; nothing is written then.
        FileNotFoundError: there is no manifest here.
        DamagedError: one of its files cannot be read, or is not one of ours.
        ReplacedError: another writer has replaced one of them, or added one of the further files, meanwhile;
            what it wrote stays.
    """
    change = Change(manifest)
    counts = {"rows": 0, "kept": 0, "dropped": 0, "changed": 0}
    files = store.listed(manifest)
    if not files:
        raise FileNotFoundError(f"no manifest in {manifest}")
    for entry in files:
        empty = store.read_schema(entry.path).empty_table()
        screen.verdicts(with_outcomes(empty, known))  # a wrong rule changes no file
    changes = []
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        for rows, kept, changed in pool.map(partial(_judge_file, screen, change, known), files):
            counts["rows"] += rows
            counts["kept"] += kept
            counts["dropped"] += rows - kept
            counts["changed"] += changed.num_rows
            changes.append(changed)
    for path, data in also(counts, pa.concat_tables(changes)).items():
        change.write(path, data, storage.ABSENT if path.parent.name in ADDED else None)
    change.commit(check_lock)
    return counts


def _judge_file(
    screen: Screen, change: Change, known: Sequence[pa.Table], entry: storage.Listed
) -> tuple[int, int, pa.Table]:
    """Judge the rows of one file, and write it anew where a verdict changes; rows, kept, changed verdicts."""
    stored = store.stored_schema(entry.path)
    before = store.read_file(entry.path, _read_by(screen, stored.names, known))
    reviewed = with_outcomes(before, known)
    keep, reasons = screen.verdicts(reviewed)
    verdicts = (before["sample_id"], before["keep"], keep, before["drop_reasons"], reasons)
    verdicts = pa.table(verdicts, CHANGED.names)
    changed = verdicts.filter(pa.array(_verdicts_differ(before, keep, reasons))).cast(CHANGED)
    # Other readers cannot read files of two versions side by side.
    if changed.num_rows or is_outdated(stored) or reviewed is not before:
        after = _judged(with_outcomes(store.read_file(entry.path), known), keep, reasons)
        change.write(entry.path, store.to_bytes(after), entry.version)
    return len(keep), int(keep.sum()), changed


def _read_by(screen: Screen, there: Collection[str], known: Sequence[pa.Table]) -> list[str]:
    """The columns that judging reads and compares."""
    wanted = ["sample_id", "keep", "drop_reasons", "error", "stopped", REVIEW, STAND_IN_COLUMN]
    wanted += [rule.column for rule in screen.rules]
    wanted += [name for outcomes in known for name in outcomes.column_names]
    return [name for name in dict.fromkeys(wanted) if name in there]


def _verdicts_differ(
    before: pa.Table, keep: npt.NDArray[np.bool_], reasons: pa.ListArray
) -> npt.NDArray[np.bool_]:
    """For each row whether the stored verdict is another one."""
    # Lists cannot be compared; no reason holds a control character.
    was = pc.fill_null(pc.binary_join(before["drop_reasons"], "\x1f"), "\0")
    kept = before["keep"].to_numpy() if before["keep"].null_count == 0 else None
    differ = np.asarray(pc.not_equal(was, pc.binary_join(reasons, "\x1f")))
    if kept is None:
        return differ | ~_true(pc.equal(before["keep"], pa.array(keep)))
    return differ | (kept != keep)


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
        """A sample whose verdict differs: its id, and keep and reasons before and after."""
        if was[0] != now[0]:
            (self.to_keep if now[0] else self.to_drop).append(name)
        for reason in now[1]:
            if reason not in was[1]:
                self.broken[reason].append(name)
        for reason in was[1]:
            if reason not in now[1]:
                self.fulfilled[reason].append(name)


def compare(manifest: Path, screen: Screen, known: Sequence[pa.Table] = ()) -> Difference:
    """What `rescreen` would change; writes nothing.

    Args:
        manifest, screen, known: as `rescreen` takes them.

    Raises:
        ValueError: as `Screen.verdicts`.
        FileNotFoundError: there is no manifest here.
    """
    table = store.read(manifest, _read_by(screen, store.column_names(manifest), known))
    table = with_outcomes(table, known)
    keep, reasons = screen.verdicts(table)
    was = pc.fill_null(table["keep"], False)
    difference = Difference(table.num_rows, pc.sum(was, min_count=0).as_py(), int(keep.sum()))
    differ = pa.array(_verdicts_differ(table, keep, reasons))
    columns = (table["sample_id"], was, table["drop_reasons"], pa.array(keep), reasons)
    for name, kept, why, *now in zip(*(column.filter(differ).to_pylist() for column in columns), strict=True):
        difference.add(name, (kept, why or []), (now[0], now[1]))
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
    """The files to write for the screen that is applied to a run; none where it is the one of before.

    Its `screen.yaml`, ready to be changed and used; before it stands a different one that it replaces: kept
    as `screens/NNNN.yaml`, numbered from 0001.
    """
    text = yaml.safe_dump(screen.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True)
    data = text.encode()
    try:
        replaced = storage.read_bytes(folder / SCREEN)
    except FileNotFoundError:
        return {folder / SCREEN: data}
    if replaced == data:
        return {}
    return {storage.next_numbered(folder / KEPT, ".yaml"): replaced, folder / SCREEN: data}


def replaced_screen(files: Collection[Path]) -> Path | None:
    """Of `screen_files` the one that keeps a replaced screen."""
    return next((path for path in files if path.parent.name == KEPT), None)


def overlaid(below: Sequence[Rule], above: Sequence[Rule]) -> list[Rule]:
    """The rules of both; one of `above` takes the place of one with the same reason and column."""
    over = {(rule.reason, rule.column): rule for rule in above}
    rules = [over.pop((rule.reason, rule.column), rule) for rule in below]
    return [*rules, *over.values()]
