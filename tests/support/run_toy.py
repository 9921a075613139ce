"""A toy run as a program of its own, for tests that kill it: input, output, engine, settings as JSON."""

import json
import os
import sys
from pathlib import Path

from tests.support.helpers import execute, toy_stages

if __name__ == "__main__":
    source, output, engine, settings = sys.argv[1:5]
    Path(output).mkdir(parents=True, exist_ok=True)
    (Path(output) / "pid").write_text(str(os.getpid()))
    execute(toy_stages(**json.loads(settings)), source, Path(output), engine=engine, rows_per_part=2)
