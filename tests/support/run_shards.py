"""Writes shards in a process of its own that dies, like a machine without power, at its n-th sample."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from pipelines.shards import write as shards
from pipelines.shards.plan import make_plan, open_runs

if __name__ == "__main__":  # run, output, size, the sample to die at
    run, output, size, last = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    make, seen = shards.make_sample, 0

    def make_or_die(sample: Any) -> Any:
        """As the real one, a number of times."""
        global seen
        seen += 1
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return make(sample)

    shards.make_sample = make_or_die
    shards.write_shards(make_plan(open_runs([run], {}, False), size), output, "inline")
