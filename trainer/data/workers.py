"""What every worker process of a DataLoader does first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any

from torch.utils.data import get_worker_info


def begin(_number: int) -> None:
    """Leave signals to the training process, and let the data set `reopen` its folders: a `worker_init_fn`.

    Ctrl-C and a scheduler's SIGTERM reach every process, and the
    training process decides what they mean; a SIGTERM of its own ends the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    # Where the sender cannot be known (macOS), SIGTERM ends the worker whoever sent it: ignored altogether,
    # it would let an interpreter hang that ends with its loader open, and waits for the workers then.
    if parent is not None and hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_with, args=(parent.pid,), daemon=True).start()
    info: Any = get_worker_info()
    info.dataset.reopen()


def _end_with(parent: int | None) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
