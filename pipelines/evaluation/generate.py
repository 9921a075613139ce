"""A clip for each test case, by a trained checkpoint; what is there is not made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from configs.errors import UserError
from manifests import storage
from manifests.text import one_line, public_message
from pipelines.evaluation.cases import Case, CaseError
from pipelines.generation import Wish
from pipelines.sampling import Sampler, Shown

RECORD: Final = "sampling.json"


@dataclass
class Outcome:
    """What came of it.

    made, there: how many clips are new, and how many were there.
    errors: id of a case -> why there is no clip.
    """

    made: int = 0
    there: int = 0
    errors: dict[str, str] = field(default_factory=dict)


def generate_cases(
    cases: Sequence[Case],
    folder: Path,
    output: Path,
    sampler: Sampler,
    told: Callable[[str], None] = lambda said: None,
    shown: Shown = lambda parts, count: parts,
) -> Outcome:
    """Write OUTPUT/<id>.mp4 for each case, as long as its audio.

    OUTPUT/sampling.json says by what the clips were made, and from which case each. A clip whose case has
    changed is made again. A case that fails is told of, and the others go on.

    Args:
        cases: see `pipelines.evaluation.cases.read_cases`.
        folder: that their paths are relative to.
        output: where to.
        sampler: by what.
        told: is told of each clip.
        shown: shows how far a clip is.

    Raises:
        CaseError: the folder holds clips that were made otherwise.
        OSError: the machine is at its end, such as by a full disk.
    """
    described, outcome = sampler.described(), Outcome()
    clips = _clips_of(output, described)
    _write_record(output, described, clips)
    for number, case in enumerate(cases, 1):
        target, made_from = output / f"{case.id}.mp4", _hash(case)
        if clips.get(case.id) == made_from and target.is_file():
            outcome.there += 1
            continue
        where = f"{number} of {len(cases)}  {case.id}"
        audio = None if case.audio is None else folder / case.audio
        wish = Wish(folder / case.reference_image, audio, None, None, case.prompt, None)
        try:
            made = sampler.make(wish, target, shown)
        except (UserError, ValueError, FileNotFoundError, PermissionError) as error:
            outcome.errors[case.id] = one_line(public_message(str(error)))
            told(f"{where}: {outcome.errors[case.id]}")
            continue
        clips[case.id] = made_from
        outcome.made += 1
        _write_record(output, described, clips)
        told(f"{where}: {made.frames} frames of {made.width}x{made.height}, {made.seconds:.2f} s")
    return outcome


def _clips_of(output: Path, described: dict[str, Any]) -> dict[str, str]:
    """Id of a case that has a clip -> hash of the case that it was made from.

    Raises:
        CaseError: they were made by something else, or nothing says by what.
    """
    try:
        record = json.loads((output / RECORD).read_bytes())
        before, clips = record["sampler"], dict(record["cases"])
    except FileNotFoundError:
        if output.is_dir() and any(output.glob("*.mp4")):
            raise CaseError(f"{output}: holds other clips; give another --output") from None
        return {}
    except (ValueError, KeyError, TypeError):
        raise CaseError(f"{output / RECORD}: not readable; give another --output") from None
    if before != json.loads(json.dumps(described)):
        names = [name for name in described if before.get(name) != json.loads(json.dumps(described[name]))]
        raise CaseError(
            f"{output}: its clips were made with another {', '.join(names)} ({RECORD} says which); give "
            "another --output, or the same words"
        )
    return clips


def _write_record(output: Path, described: dict[str, Any], clips: dict[str, str]) -> None:
    record = {"sampler": described, "cases": clips}
    storage.write_bytes(output / RECORD, json.dumps(record, indent=1).encode())


def _hash(case: Case) -> str:
    """Of what a clip is made from."""
    text = json.dumps([case.reference_image, case.audio, case.prompt])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
