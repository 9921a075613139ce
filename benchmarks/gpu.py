"""The gpu profile on one GPU in at most ten minutes: each part beside the bare library, in the same call.

    python -m benchmarks.gpu --output build/gpu
    python -m benchmarks.gpu --device cpu --tiny    # the same code on a CPU; its figures mean nothing

Weights are random, of the true sizes (speed does not depend on their values). Each part is a process of its
own that is ended when its time is up; what fails in it is a line of the table, and the next part goes on.
Writes `gpu.md`, a table for docs/performance.md, `gpu.json` and what each part printed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import gpu_parts
from benchmarks.gpu_networks import networks
from benchmarks.gpu_rows import HEAD, Row, Setting, failed
from benchmarks.media import ROOT

LIMIT_S: Final = 600


@dataclass(frozen=True)
class Part:
    """What is measured by one process, and for how many seconds at most."""

    name: str
    budget_s: float
    rows: Callable[[Setting], Iterator[Row]]


# Together a little less than the limit: processes take time to start and to end, too.
PARTS: Final = (
    Part("networks", 130, networks),
    Part("captions", 150, gpu_parts.captions),
    Part("wan", 120, gpu_parts.wan_steps),
    Part("training", 50, gpu_parts.training),
    Part("decoding", 20, gpu_parts.decoding),
    Part("precision", 20, gpu_parts.precision),
    Part("end to end", 90, gpu_parts.end_to_end),
)


def machine(device: str) -> dict[str, Any]:
    """What it ran on."""
    import torch

    found: dict[str, Any] = {
        "gpu": "no GPU",
        "host": platform.node(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "commit": _said_by("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
    }
    if device.startswith("cuda"):
        # By nvidia-smi: this process must not touch CUDA, or those it forks could not.
        asked = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
        lines = _said_by(*asked).splitlines()
        number = int(device.partition(":")[2] or 0)
        found["gpu"] = lines[number] if number < len(lines) else "unknown GPU"
    return found


def _said_by(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def measure(part: Part, device: str, tiny: bool, seconds: float, log: Path) -> list[Row]:
    """The lines of a part; a process of its own yields them, and is ended with all that it started.

    Args:
        part: what to run.
        device: "cuda", "cuda:0", "cpu".
        tiny: small weights.
        seconds: until it is cut off.
        log: gets what it prints.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), Path(name) / "rows"
        found.touch()
        setting = Setting(device, tiny, folder, time.monotonic() + seconds)
        # Forked: torch is imported once. CUDA is first touched in the child.
        process = multiprocessing.get_context("fork").Process(target=_run, args=(part, setting, found, log))
        process.start()
        process.join(seconds)
        is_late = process.is_alive()
        _end(process)
        rows = [Row(**json.loads(line)) for line in found.read_text().splitlines()]
    if is_late:
        rows.append(Row(part.name, said=f"cut off after {seconds:.0f} s"))
    elif process.exitcode:
        rows.append(Row(part.name, said=f"failed: its process ended with {process.exitcode}, see {log}"))
    return rows


def _end(process: Any) -> None:
    """End a process and what it started: vLLM's engine is a process, too."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _run(part: Part, setting: Setting, found: Path, log: Path) -> None:
    """In the process of a part: write its lines down as they come."""
    os.setsid()
    with log.open("w", buffering=1, encoding="utf-8") as said, found.open("a", encoding="utf-8") as out:
        # What libraries below Python say, too.
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        sys.stdout = sys.stderr = said

        def write(row: Row) -> None:
            out.write(json.dumps(row.record) + "\n")
            out.flush()

        try:
            for row in part.rows(setting):
                write(row)
        except Exception as error:
            traceback.print_exc()
            write(failed(part.name, error))
        said.flush()
        # Not multiprocessing's own end, which would wait for vLLM's engine: that is ended by the parent.
        os._exit(0)


def page(facts: Mapping[str, Any], rows: Mapping[str, Sequence[Row]], tiny: bool) -> str:
    """The table, in Markdown."""
    said = ", ".join(f"{name} {value}" for name, value in facts.items() if value and name != "gpu")
    lines = [f"{facts['gpu']}; {said}.", ""]
    if tiny:
        lines += ["Tiny weights: these figures say nothing about the models.", ""]
    lines.append(HEAD)
    for part, found in rows.items():
        lines.append(f"| **{part}** | | | | | | | |")
        lines += [row.line for row in found]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the table; 2 without the device asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 ..., cpu")
    parser.add_argument("--tiny", action="store_true", help="tiny weights, to try this out")
    names = [part.name for part in PARTS]
    parser.add_argument("--only", nargs="*", metavar="PART", choices=names, help=f"of {', '.join(names)}")
    parser.add_argument("--output", type=Path, default=Path("build/gpu"), metavar="FOLDER")
    args = parser.parse_args(argv)
    if args.device.startswith("cuda") and not _said_by("nvidia-smi", "-L"):
        print(
            "There is no CUDA device here, so nothing is measured (see --help for a trial run).",
            file=sys.stderr,
        )
        return 2
    begun = time.monotonic()
    args.output.mkdir(parents=True, exist_ok=True)
    facts = machine(args.device)
    rows: dict[str, list[Row]] = {}
    for part in PARTS:
        if args.only and part.name not in args.only:
            continue
        left = min(part.budget_s, LIMIT_S - (time.monotonic() - begun)) if not args.tiny else LIMIT_S
        log = args.output / f"{part.name.replace(' ', '_')}.log"
        print(f"{part.name} ...", file=sys.stderr, flush=True)
        rows[part.name] = measure(part, args.device, args.tiny, left, log)
        # After each part: an interrupted run keeps what it has.
        record = {"machine": facts, "tiny": args.tiny, "seconds": round(time.monotonic() - begun, 1)}
        record["parts"] = {name: [row.record for row in found] for name, found in rows.items()}
        (args.output / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")
        (args.output / "gpu.md").write_text(page(facts, rows, args.tiny))
    print(page(facts, rows, args.tiny), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
