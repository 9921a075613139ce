"""What a run leaves out: clips that cannot be read, steps without numbers; and when there are too many.

Each is named in OUTPUT/skipped.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from configs.errors import UserError
from trainer import checkpoint as checkpoints
from trainer.config import TrainConfig
from trainer.data.batch import Batch
from trainer.data.loader import Skipped
from trainer.optimiser import NonFiniteLoss
from trainer.processes import Processes
from trainer.scalars import Scalars

SKIPPED: Final = "skipped.jsonl"


class BadClips(UserError):
    """More clips than allowed cannot be read; the message names the last one."""


class Elsewhere(UserError):
    """Another process cannot go on; the message says which, and why."""


@dataclass(frozen=True)
class Share:
    """What the loader gives of a step."""

    batches: list[Batch]
    skipped: list[Skipped]
    error: Exception | None
    waited: float  # s


class LeftOut:
    """What is left out as training goes on, and where it must end; the same in every process."""

    def __init__(
        self,
        config: TrainConfig,
        output: Path,
        processes: Processes,
        state: checkpoints.State,
        scalars: Scalars,
    ) -> None:
        self.config, self.output, self.processes = config, output, processes
        self.state, self.scalars = state, scalars
        self.steps_in_a_row = self.times_back = 0
        self.clips: set[str] = processes.from_main(_bad_clips(output) if processes.is_main else set())

    def check(self, number: int, share: Share) -> Share:
        """The share, once all processes have theirs; names the clips that were replaced.

        Raises:
            Exception: what kept a process from its clips; in the others `Elsewhere`.
            BadClips: there were too many.
        """
        processes = self.processes
        failed, skipped = processes.in_any([share.error is not None, bool(share.skipped)])
        if failed:
            raise_in_all(processes, share.error)
        if skipped:
            self._name(number, [one for part in processes.from_all(share.skipped) for one in part])
        return share

    def _name(self, number: int, skipped: Sequence[Skipped]) -> None:
        new = {one.sample_id: one for one in skipped if one.sample_id not in self.clips}
        self.clips |= new.keys()
        limit = self.config.data.max_bad_clips
        for one in new.values():
            row = {"step": number, "sample_id": one.sample_id, "run": one.run, "reason": one.reason}
            self._write(row)
            self.scalars.say(f"left out, {len(self.clips)} of at most {limit}: {one.reason}")
        self.scalars.note(number + 1, {"bad_clips": float(len(self.clips))})
        if len(self.clips) > limit:
            last = next(reversed(new.values())).reason if new else "see skipped.jsonl"
            raise BadClips(
                f"{len(self.clips)} clips cannot be read, data.max_bad_clips allows {limit}; the last: "
                f"{last}. All are named in {self.output / SKIPPED}"
            )

    def forgive(self, number: int, error: NonFiniteLoss, newest: Path | None) -> None:
        """Leave a step out, or put the newest checkpoint's weights back; raise where neither may be."""
        patience = self.config.non_finite
        for _, optimiser in self.state.networks.values():
            optimiser.zero_grad()
        self.steps_in_a_row += 1
        self._write({"step": number, "sample_id": None, "run": None, "reason": str(error)})
        if self.steps_in_a_row <= patience.skip:
            self.scalars.say(f"left out: {error}")
            return
        if self.times_back >= patience.back or newest is None:
            raise error
        self.times_back, self.steps_in_a_row = self.times_back + 1, 0
        self.scalars.say(f"back to the weights of {newest}, later clips: {error}")
        checkpoints.restore(newest, self.state)

    def _write(self, row: Mapping[str, Any]) -> None:
        if not self.processes.is_main:
            return
        try:
            with (self.output / SKIPPED).open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            self.scalars.say(f"{self.output / SKIPPED} could not be written: {error}; training goes on")


def raise_in_all(processes: Processes, error: Exception | None) -> NoReturn:
    """Raise what keeps this process from going on; in those that could, `Elsewhere`. All call it."""
    said = processes.from_all(None if error is None else str(error))
    if error is not None:
        raise error
    rank = next(rank for rank, text in enumerate(said) if text is not None)
    raise Elsewhere(f"process {rank} cannot go on: {said[rank]}")


def _bad_clips(output: Path) -> set[str]:
    """Ids of the clips that an earlier start of this run could not read."""
    path = output / SKIPPED
    if not path.is_file():
        return set()
    found = set()
    for line in path.read_text().splitlines():
        try:
            found.add(json.loads(line)["sample_id"])
        except (ValueError, KeyError, TypeError):
            continue  # a killed run's last line
    return {name for name in found if name is not None}
