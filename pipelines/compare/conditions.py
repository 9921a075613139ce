"""What two runs were told, and what they ran on: all that differs between their records."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from manifests.screen import BOUNDS, Rule, Screen
from pipelines.engine.reasons import UPSTREAM, changed

# Where numbers differ all the same, libraries, machines or files do.
SAME = "same settings, models and code"
READS = "itself the same; something that it reads differs"
# Of a run's record, beside what has a kind of its own.
OF_THE_RUN = ("pipeline", "input", "status", "engine", "schema_version")


@dataclass(frozen=True)
class Condition:
    """Something that differs.

    Attributes:
        kind: run, setting, profile, screen, rule, stage (its fingerprint) or version (of a package).
        name: of the setting, rule, stage, ...
        a, b: its value in each run; "" where that run has none.
        note: of a stage, what makes the fingerprints differ.
    """

    kind: str
    name: str
    a: str
    b: str
    note: str = ""


def conditions(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Condition]:
    """What differs between two records (run.json); rules and packages of the same value are left out.

    Args:
        a, b: the records.
    """
    found = list(_differing("run", _only(a, OF_THE_RUN), _only(b, OF_THE_RUN)))
    found += _differing("setting", _flat(a.get("settings")), _flat(b.get("settings")))
    found += _differing("profile", _profile(a), _profile(b))
    screens = [Screen.model_validate(record["screen"]) for record in (a, b)]
    found += _differing("screen", *({"name": screen.name} for screen in screens))
    found += _differing("rule", *map(_rules, screens))
    notes, stages = stage_notes(a, b), (_stages(a), _stages(b))
    prints = ({name: said["fingerprint"] for name, said in of.items()} for of in stages)
    found += [
        Condition(one.kind, one.name, one.a, one.b, notes.get(one.name, ""))
        for one in _differing("stage", *prints)
    ]
    found += _differing("version", a.get("versions", {}), b.get("versions", {}))
    return found


def stage_notes(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, str]:
    """For each stage of both runs what makes its fingerprints differ; `SAME` where they do not."""
    before, after = _stages(a), _stages(b)
    notes = {}
    for name in [name for name in after if name in before]:
        note = changed(after[name], before[name], name)
        is_same = after[name]["fingerprint"] == before[name]["fingerprint"]
        notes[name] = SAME if is_same else READS if note == UPSTREAM else note
    return notes


def writers(record: Mapping[str, Any]) -> dict[str, str]:
    """Column -> the stage that writes it."""
    return {column: name for name, said in _stages(record).items() for column in said.get("writes", ())}


def bounds(rule: Rule) -> str:
    """A rule's bounds in words: `min 10, max 210`."""
    said = ((name, getattr(rule, name)) for name in BOUNDS)
    return ", ".join(f"{name} {_text(value)}" for name, value in said if value is not None)


def _stages(record: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return record.get("fingerprints") or {}


def _rules(screen: Screen) -> dict[str, str]:
    said = defaultdict(list)
    for rule in screen.rules:
        missing = ", missing passes" if rule.missing == "pass" else ""
        said[f"{rule.reason} ({rule.column})"].append(bounds(rule) + missing)
    return {name: "; ".join(of) for name, of in said.items()}


def _profile(record: Mapping[str, Any]) -> dict[str, Any]:
    return _flat({name: v for name, v in (record.get("profile") or {}).items() if name != "description"})


def _only(record: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: record[name] for name in names if name in record}


def _flat(values: Mapping[str, Any] | None, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in (values or {}).items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _differing(kind: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Condition]:
    for name in dict.fromkeys([*a, *b]):
        if (name in a) != (name in b) or a[name] != b[name]:
            yield Condition(kind, name, *(_text(of[name]) if name in of else "" for of in (a, b)))


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 10 and 10.0 are the same bound
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
