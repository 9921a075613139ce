"""Why each stage is due, in words: what differs from the runs that are in the folder."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from manifests import storage
from pipelines.engine.plan import INPUT, LACKING, NEW
from pipelines.engine.program import Program

UPSTREAM = "something that it reads is computed anew"
_WORDS = {
    NEW: "new samples",
    LACKING: "not finished before",
    INPUT: "the file or the input list changed",
}


def reasons(program: Program, causes: Counter[tuple[str, str]], folder: Path | None) -> Iterator[str]:
    """One line for each reason, with the stages that it makes due and on how many samples.

    Nothing where every stage is due on new samples alone.

    Args:
        program: what is to be run.
        causes: of the plan.
        folder: with the records of runs, which say what earlier fingerprints stand for.
    """
    if all(why == NEW for _, why in causes):
        return
    known = earlier_fingerprints(folder) if folder is not None else {}
    now = program.describe()
    stages: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for name in program.fingerprints:
        for (stage, why), count in causes.items():
            if stage == name:
                stages[_WORDS.get(why) or changed(now[name], known.get(why), name)].append((name, count))
    # What the user changed first; what follows from it last.
    for reason in sorted(stages, key=lambda reason: (reason == UPSTREAM, reason in _WORDS.values())):
        by_count: defaultdict[int, list[str]] = defaultdict(list)
        for name, count in stages[reason]:
            by_count[count].append(name)
        due = "; ".join(f"{', '.join(names)} ({count})" for count, names in by_count.items())
        yield f"due, {reason}: {due}"


def earlier_fingerprints(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Fingerprint -> what it stood for in the runs that wrote into a folder."""
    known: dict[str, Mapping[str, Any]] = {}
    for file in storage.files(folder / "runs", ".json"):
        try:
            record = json.loads(storage.read_bytes(file))
        except ValueError:
            continue
        for part in (record.get("videos"), record):
            for key in ("stages", "fingerprints"):
                known |= {said["fingerprint"]: said for said in (part or {}).get(key, {}).values()}
    return known


def changed(now: Mapping[str, Any], before: Mapping[str, Any] | None, stage: str) -> str:
    """What makes two fingerprints of a stage differ, in words.

    Args:
        now: what the fingerprint stands for, as `Program.describe` gives it.
        before: the same of the earlier one; None: no record has it.
        stage: its name.
    """
    if before is None:
        return "computed by a run whose record is gone"
    said = []
    for key in {**before["config"], **now["config"]}:
        was, is_now = before["config"].get(key), now["config"].get(key)
        if was != is_now:
            said.append(f"{stage}.{key} {_text(was)} -> {_text(is_now)}")
    if before["version"] != now["version"]:
        said.append(f"{stage}'s version {before['version']} -> {now['version']}")
    if before["models"] != now["models"]:
        said.append(f"model {_differing(before['models'], now['models'])}")
    if before["prompts"] != now["prompts"]:
        names = {n for n, _ in before["prompts"].items() ^ now["prompts"].items()}
        said.append(f"prompt {', '.join(sorted(names))} changed")
    if "writes" in before and before["writes"] != now["writes"]:  # records of before do not have it
        said.append(f"{stage} writes {_differing(before['writes'], now['writes'])}")
    if before.get("vocabulary") != now.get("vocabulary"):
        said.append("vocabulary changed")
    return ", ".join(said) or UPSTREAM


def _differing(before: list[str], now: list[str]) -> str:
    gone, come = [m for m in before if m not in now], [m for m in now if m not in before]
    return f"{', '.join(gone) or 'none'} -> {', '.join(come) or 'none'}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
