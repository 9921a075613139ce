"""A comparison on a terminal: a few lines and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table

from manifests.text import one_line
from pipelines.compare.compare import Comparison, Side, error_counts
from pipelines.compare.conditions import Condition
from pipelines.compare.verdicts import CAUSES, Example, Value, shown

NAMED = 10  # of each kind that are shown; the page has more
LONGEST = 60  # characters of a value that are shown
CAUSE_WORDS: Mapping[str, str] = {
    "scores": "by changed scores",
    "rules": "by changed rules",
    "reviews": "by changed reviews",
    "either": "by several, each alone",
    "both": "by several together",
    "other": "by none",
}
CHANGE_WORDS: Mapping[str, str] = {
    "dropped": "kept -> dropped",
    "kept": "dropped -> kept",
    "reasons": "same verdict, other reasons",
}
NOTHING_SHARED = (
    "no sample is in both: an id is made of the source's name, the path inside it and the range, so the two "
    "inputs must have one name (--set source=NAME)"
)
NUMBERS = ("differ", "mean A", "mean B", "shift", "median diff.", "largest diff.", "got it", "lost it")


def lines(found: Comparison) -> Iterator[RenderableType]:
    """All of a comparison, to be printed piece by piece."""
    yield _side("A", found.a)
    yield _side("B", found.b)
    added, removed = found.added.num_rows, found.removed.num_rows
    yield f"samples: {found.in_both} in both, {added} only in B, {removed} only in A"
    if not found.in_both and found.a.rows and found.b.rows:
        yield NOTHING_SHARED
    yield from _conditions(found.conditions)
    yield from _verdicts(found)
    yield from _scores(found)
    yield from _columns(found)
    yield from _errors(found)


def _side(name: str, side: Side) -> str:
    status = "" if side.status == "finished" else f", {side.status}"
    return one_line(
        f"{name}  {side.folder}: {side.pipeline}, run {side.run_id}{status}, {side.rows} rows, "
        f"kept {side.kept}, errors {side.errors}"
    )


def _conditions(conditions: Sequence[Condition]) -> Iterator[RenderableType]:
    if not conditions:
        yield "\nnothing differs in what the runs were told and ran on"
        return
    yield "\nwhat the runs were told and ran on"
    table = _table("", "", "A", "B", "")
    for one in conditions:
        values = ("", "") if one.kind == "stage" else (_short(one.a or "–"), _short(one.b or "–"))
        table.add_row(one.kind, _short(one.name), *values, _short(one.note))
    yield table


def _verdicts(found: Comparison) -> Iterator[RenderableType]:
    verdicts = found.verdicts
    if not verdicts.table.num_rows:
        yield "\nverdicts: none changed"
        return
    yield f"\nverdicts: {verdicts.table.num_rows} changed: {said(verdicts.changes, CHANGE_WORDS)}"
    yield f"  {said(verdicts.causes, CAUSE_WORDS)}"
    table = _table("reason", "got it", "", "lost it", "")
    for one in verdicts.reasons[:NAMED]:
        table.add_row(one_line(one.reason), *_counts(one.gained), *_counts(one.lost))
    yield table
    yield from _more(len(verdicts.reasons) - NAMED, "reasons")
    for change, words in CHANGE_WORDS.items():
        some = [one for one in verdicts.examples if one.change == change]
        if some:
            yield f"\n{words}"
        yield from (f"  {one_line(_example(one))}" for one in some[:NAMED])
        yield from _more(verdicts.changes[change] - min(len(some), NAMED), "samples")


def said(counts: Mapping[str, int], words: Mapping[str, str]) -> str:
    """Counts that are not 0, in words."""
    return ", ".join(f"{counts[name]} {word}" for name, word in words.items() if counts.get(name))


def _counts(of: Mapping[str, int]) -> tuple[str, str]:
    total = sum(of.values())
    return (str(total) if total else "", ", ".join(f"{of[name]} {name}" for name in CAUSES if of.get(name)))


def _example(one: Example) -> str:
    """A sample, what changed, the scores and bounds that it is about, and by what."""
    reasons = [f"+{reason}" for reason in one.gained] + [f"-{reason}" for reason in one.lost]
    why = "; ".join([*map(_value, one.values), one.cause])
    return f"{one.source_uri or one.sample_id}: {' '.join(reasons)} ({why})"


def _value(of: Value) -> str:
    """A score in both runs with its bounds: `luminance 24 -> 18.2, min 10 -> min 20`."""
    return f"{of.column} {both(of.a, of.b, 'not there')}, {both(of.bounds_a, of.bounds_b, 'no rule')}"


def both(a: str, b: str, none: str) -> str:
    """Two values as one text; once where they are the same."""
    return a if a == b else f"{a or none} -> {b or none}"


def _scores(found: Comparison) -> Iterator[RenderableType]:
    if not found.scores:
        yield "\nscores: none differs"
        return
    yield (
        f"\nscores that differ: {len(found.scores)}; shift: difference of the means by the standard "
        "deviation of A"
    )
    table = _table("column", *NUMBERS[:6], "sample", "why")
    for one in found.scores[:NAMED]:
        numbers = (one.mean_a, one.mean_b, one.shift, one.median_difference, one.largest)
        table.add_row(
            one.column, str(one.differ), *map(shown, numbers), one_line(one.sample or ""), _short(one.why)
        )
    yield table
    yield from _more(len(found.scores) - NAMED, "columns")


def _columns(found: Comparison) -> Iterator[RenderableType]:
    if found.columns:
        yield f"\nother columns that differ: {len(found.columns)}"
        table = _table("column", "differ", "sample", "A", "B", "why")
        for one in found.columns[:NAMED]:
            values = (_short(text) for text in (one.sample, one.a, one.b, one.why))
            table.add_row(one.column, str(one.differ), *values)
        yield table
        yield from _more(len(found.columns) - NAMED, "columns")
    for name, columns in (("A", found.only_a), ("B", found.only_b)):
        if columns:
            yield one_line(f"columns only in {name}: {', '.join(columns)}")


def _errors(found: Comparison) -> Iterator[RenderableType]:
    if not found.errors:
        yield "\nerrors: none new, none gone"
        return
    new, gone = error_counts(found)
    yield f"\nerrors: {new} new, {gone} gone"
    for one in found.errors[:NAMED]:
        yield one_line(
            f"  +{one.new} -{one.gone} in {one.stage}: {_short(one.message)} (such as {one.sample})"
        )
    yield from _more(len(found.errors) - NAMED, "messages")


def _more(count: int, what: str) -> Iterator[str]:
    if count > 0:
        yield f"  and {count} more {what}"


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in NUMBERS else "left")
    return table


def _short(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
