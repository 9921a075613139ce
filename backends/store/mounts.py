"""Whether a folder lies on this machine's own disks or on a file system that comes over the network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TABLE: Final = Path("/proc/self/mountinfo")
# Names of the kernel for file systems whose files are on other machines; those of FUSE begin with "fuse".
NETWORK: Final = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "lustre", "beegfs", "gpfs", "panfs", "wekafs")
)
LOCAL_FUSE: Final = frozenset(("fuseblk", "fuse.fuse-overlayfs", "fusectl"))


@dataclass(frozen=True)
class Mount:
    """A file system that is mounted: where, and its type as the kernel names it."""

    point: Path
    kind: str

    @property
    def is_network(self) -> bool:
        """Whether its files come from other machines."""
        return self.kind in NETWORK or (self.kind.startswith("fuse") and self.kind not in LOCAL_FUSE)


def mount_of(path: Path, table: Path | None = None) -> Mount | None:
    """The mount that a path lies on, there or not yet; None: this system has no such table (it is Linux's).

    Args:
        path: symbolic links are followed.
        table: as in proc(5), `/proc/[pid]/mountinfo`; default: this process's own.
    """
    try:
        lines = (table or TABLE).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    resolved = path.resolve()
    found = None
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(_unescaped(before.split(" ")[4]))
        # Of two at one place the later one hides the other.
        if resolved.is_relative_to(point) and (found is None or len(point.parts) >= len(found.point.parts)):
            found = Mount(point, after.split(" ")[0])
    return found


def _unescaped(name: str) -> str:
    r"""Spaces and the like are written as `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), name)
