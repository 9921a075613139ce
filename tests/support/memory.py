"""New memory filled with a byte, so that what is read before it is written can be seen (glibc)."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

# What new memory holds, in turn: greys that no picture of the tests consists of.
FILLS = (170, 85)
_M_PERTURB = -6  # of mallopt: new memory is filled with the complement of a byte


@contextlib.contextmanager
def filled(fill: int) -> Iterator[None]:
    """Meanwhile memory that this process allocates holds this byte; small pieces only without glibc's tcache.

    GLIBC_TUNABLES=glibc.malloc.tcache_count=0 in the environment of a new process is without it.
    """
    mallopt = ctypes.CDLL(None).mallopt
    assert mallopt(_M_PERTURB, fill ^ 0xFF) == 1
    try:
        yield
    finally:
        mallopt(_M_PERTURB, 0)
