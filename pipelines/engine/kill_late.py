"""The program that kills its parent when something there runs past its deadline.

It reads lines of JSON: `number`, `seconds`, `note`, `word` and `what` when something begins, `number` alone
when it has ended; the end of its input is its own. It imports nothing but the standard library: there is one
beside every worker, and it must live while the worker cannot be reached.
"""

import json
import os
import select
import signal
import sys
import time


def main() -> None:
    """Wait for lines and deadlines until the input ends."""
    parent = os.getppid()
    running: dict[int, dict] = {}
    rest = b""
    while True:
        first = min(running.values(), key=lambda item: item["deadline"], default=None)
        wait = None if first is None else max(0.0, first["deadline"] - time.monotonic())
        if select.select([0], [], [], wait)[0]:
            data = os.read(0, 1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                item = json.loads(line)
                if "seconds" in item:
                    running[item["number"]] = item | {"deadline": time.monotonic() + item["seconds"]}
                else:
                    running.pop(item["number"], None)
        elif first is not None:
            _kill(parent, first)
            return


def _kill(parent: int, late: dict) -> None:
    if os.getppid() != parent:  # it died already, and its number may be another's by now
        return
    if late["note"]:
        try:
            with open(late["note"], "a") as file:  # noqa: PTH123 - the fewest imports
                file.write(late["word"])
        except OSError as error:
            print(f"no note in {late['note']}: {error}", file=sys.stderr)
    print(f"{late['what']} took longer than {late['seconds']:g} s: its process is killed", file=sys.stderr)
    sys.stderr.flush()
    os.kill(parent, signal.SIGKILL)


if __name__ == "__main__":
    main()
