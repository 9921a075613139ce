"""The processes that train together: who they are, and how they agree (torch.distributed).

torchrun, or Ray Train's TorchTrainer, starts them; a process of its own is a group of one, so that nothing
else here asks how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast

import torch
import torch.distributed as dist
from torch import Tensor

from configs.reading import SettingsError

# A collective that waits longer is an error; `trainer.watchdog` says before who is late, s.
PATIENCE_S: Final = 3600


@dataclass(frozen=True)
class Processes:
    """A group of processes, seen from one of them. All must call what communicates, in the same order."""

    rank: int
    count: int
    per_machine: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        self.in_any([False])

    def in_any(self, votes: Sequence[bool]) -> list[bool]:
        """For each question whether it is true in any process."""
        if self.count == 1:
            return list(votes)
        counts = torch.tensor([float(vote) for vote in votes], device=self.device)
        dist.all_reduce(counts, dist.ReduceOp.MAX)
        return [count > 0 for count in counts.tolist()]

    def gathered(self, values: Tensor) -> list[float]:
        """[n] of every process, in the order of their ranks."""
        if self.count == 1:
            return cast(list[float], values.tolist())
        parts = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(parts, values.contiguous())
        return cast(list[float], torch.cat(parts).tolist())

    def from_main(self, value: Any) -> Any:
        """What the main process says; it must be picklable."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def from_all(self, value: Any) -> list[Any]:
        """What every process says, in the order of their ranks."""
        if self.count == 1:
            return [value]
        box: list[Any] = [None] * self.count
        dist.all_gather_object(box, value)
        return box

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block before the others."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        """Forward passes in bfloat16 where `precision` is `bf16`; weights stay as they are."""
        half = precision == "bf16"
        # A kept cast of every weight would outlive the sharing of its block, and each is used but once.
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half, cache_enabled=False)


def _shares_store() -> bool:
    """Whether torchrun's agent keeps the store through which processes find each other."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


@contextmanager
def together() -> Iterator[Processes]:
    """The group that this process belongs to; made here unless Ray Train has made it, and then ended here.

    Raises:
        SettingsError: torchrun is to start processes again, and could not.
    """
    mine = not dist.is_initialized()
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) and _shares_store():
        raise SettingsError(
            "torchrun --max-restarts: processes that it starts again find the addresses of those that died "
            "(pytorch issue 135712): set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 beside it"
        )
    local = int(os.environ.get("LOCAL_RANK", 0))
    if torch.cuda.is_available():
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if mine:
        # Objects and checkpoints travel between CPUs, gradients between devices.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        patience = timedelta(seconds=PATIENCE_S)
        if "RANK" in os.environ:
            dist.init_process_group(backend, timeout=patience)
        else:
            dist.init_process_group(backend, rank=0, world_size=1, store=dist.HashStore(), timeout=patience)
    try:
        count = dist.get_world_size()
        per_machine = int(os.environ.get("LOCAL_WORLD_SIZE", count))
        yield Processes(dist.get_rank(), count, min(per_machine, count), device)
    finally:
        if mine:
            dist.destroy_process_group()
