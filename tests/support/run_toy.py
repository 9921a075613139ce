"""A toy run as a program of its own, for tests that kill it: input, output, engine, the stage's and the run's
settings as JSON.
"""

import json
import os
import sys
from pathlib import Path

from tests.support.helpers import execute, toy_stages

if __name__ == "__main__":
    source, output, engine, settings, *own = sys.argv[1:]
    Path(output).mkdir(parents=True, exist_ok=True)
    (Path(output) / "pid").write_text(str(os.getpid()))
    of_run = {"rows_per_part": 2} | (json.loads(own[0]) if own else {})
    execute(toy_stages(**json.loads(settings)), source, Path(output), engine=engine, **of_run)
