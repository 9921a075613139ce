"""Scale: seconds and peak memory of each thing that is done with a finished run of many rows.

The run is made in bulk: 135 columns, 15 stages, two thirds of the rows kept, a few stopped or in error. Each
measure has a process of its own. Time is that of the work, after the imports; memory is the most that the
process held, imports included.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from backends.roles import Roles
from manifests import store
from manifests.schema import SCHEMA_VERSION, SOURCE_COLUMNS
from manifests.screen import Rule, Screen
from pipelines.compare.compare import compare_runs
from pipelines.compare.page import write_page
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.program import Program
from pipelines.engine.progress import Progress
from pipelines.engine.settings import Settings, SourceSettings
from pipelines.engine.source import list_input
from pipelines.requests import Request, prepare
from pipelines.review.report import is_current, write_report
from pipelines.review.screening import screen_again
from pipelines.shards.plan import make_plan, open_runs
from stages.clip import Clip
from stages.contract import Column, Score, Stage

ROOT = Path(__file__).resolve().parents[1]
STAGES, SCORES, RULES = 15, 85, 20
LIMIT, ADDED, REMOVED, SHARD_BYTES = 10, 1000, 10, 10**9
# Columns that the plan of shards reads, and texts, beside the scores; they are the first stage's.
FIRST: Mapping[str, Column] = {
    **dict.fromkeys(("fps", "bitrate_per_pixel"), Score("", "Benchmark.")),
    **dict.fromkeys(("num_frames", "width", "height", "rotation"), Column("int", "", "Benchmark.")),
    **dict.fromkeys(("has_audio", "mirrored", "variable_frame_rate"), Column("bool", "", "Benchmark.")),
    **dict.fromkeys(
        ("video_codec", "pixel_format", "content_hash", "attribute_embedder", "audio_embedder"),
        Column("string", "", "Benchmark."),
    ),
    **dict.fromkeys(
        ("caption", "caption_by", "transcript", "language", "scene", "emotion", "camera", "written"),
        Column("string", "", "Benchmark."),
    ),
}
TEXTS: Mapping[str, str] = {
    "video_codec": "h264",
    "pixel_format": "yuv420p",
    "attribute_embedder": "dinov2 benchmark",
    "audio_embedder": "wav2vec2(benchmark)",
}
NUMBERS: Mapping[str, tuple[int, int]] = {
    "num_frames": (50, 500),
    "width": (640, 1921),
    "height": (480, 1081),
    "rotation": (0, 1),
}


class Cheap(Stage):
    """A stage that costs nothing."""

    writes: ClassVar[Mapping[str, Column]] = {}

    def score(self, clip: Clip) -> dict[str, Any]:
        """Seeded values, such as `drawn` gives in bulk."""
        rng = clip.rng()
        return {name: drawn(name, column, rng, 1)[0].as_py() for name, column in self.writes.items()}


def _stage(number: int) -> type[Stage]:
    scores = {f"score_{i}": Score("", "Benchmark.") for i in range(number, SCORES, STAGES)}
    writes = scores if number else {**FIRST, **scores}
    members: dict[str, Any] = {"writes": writes, "__module__": __name__, "__doc__": "One of the stages."}
    return type(f"Cheap{number}", (Cheap,), members)


def scale(models: Roles, settings: Settings) -> Pipeline:
    """The benchmark's pipeline, as the command takes it: `benchmarks/scale.py:scale`."""
    stages = [_stage(number)() for number in range(STAGES)]
    return Pipeline("scale", stages, screen(0.02), max_seconds=60)


def screen(least: float) -> Screen:
    """Twenty rules that each drop this share of the rows."""
    rules = [
        Rule(reason=f"low_{i}", column=f"score_{i}", min=least, source="a benchmark") for i in range(RULES)
    ]
    return Screen(name="scale", rules=rules)


def drawn(name: str, column: Column, rng: np.random.Generator, count: int) -> pa.Array:
    """Values of a column: numbers at random, texts of a few words."""
    if column.type == "float":
        return pa.array(rng.random(count))
    if column.type == "int":
        return pa.array(rng.integers(*NUMBERS[name], count))
    if column.type == "bool":
        return pa.array(rng.random(count) < 0.1)
    if name in TEXTS:
        return pa.array([TEXTS[name]] * count)
    words = pa.array(
        ["a person", "who looks", "into the", "camera,", "turns", "and smiles", "in a", "quiet room"]
    )
    length = 8 if name in ("caption", "transcript") else 2
    taken = [words.take(pa.array(rng.integers(0, len(words), count))) for _ in range(length)]
    return pc.binary_join_element_wise(*taken, " ")


@dataclass(frozen=True)
class Place:
    """Where things lie.

    folder: of this number of rows. rows: of the run. merged: how many rows a merge folds in.
    """

    folder: Path
    rows: int
    merged: int

    @property
    def run(self) -> Path:
        """The finished run."""
        return self.folder / "run"

    @property
    def half(self) -> Path:
        """The same while it is made."""
        return self.folder / "half"

    @property
    def copy(self) -> Path:
        """A copy of it, which a measure may change."""
        return self.folder / "copy"

    @property
    def other(self) -> Path:
        """Another run of the same samples."""
        return self.folder / "other"

    @property
    def manifest(self) -> Path:
        """The copy's manifest."""
        return self.copy / "manifest"

    @property
    def urls(self) -> Path:
        """The run's input: a list of addresses that nobody opens."""
        return self.folder / "list.parquet"

    @property
    def files(self) -> Path:
        """A folder of as many empty files."""
        return self.folder / "files"

    @property
    def paths(self) -> Path:
        """A list of these files."""
        return self.folder / "paths.parquet"

    def request(self, input: Path, output: Path, limit: int | None = None) -> Request:
        """What the command `run` asks for."""
        pipeline = f"{Path(__file__).resolve()}:scale"
        return Request(pipeline, str(input), output, overrides=["sources.schemes=[memory]"], limit=limit)

    def program(self) -> Program:
        """The pipeline, made ready."""
        (run,) = prepare(self.request(self.folder / "first" / "list.parquet", self.copy))
        return run.program()


class Clock:
    """Seconds of parts of the work, and the most memory that the process held until the end of the last.

    seconds: by part. cpu: of all parts and threads, s; says more where others use the machine. peak: bytes.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu = 0.0
        self.peak = 0

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time a block."""
        begun, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[part] = time.perf_counter() - begun
        self.cpu += time.process_time() - cpu
        status = Path("/proc/self/status").read_text()
        self.peak = 1024 * next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)


@dataclass(frozen=True)
class Measure:
    """One line of the table.

    title: what is measured. work: does it, by the clock, and returns counts that say that it was done.
    ready: what must be there before, made in another process.
    """

    title: str
    work: Callable[[Place, Clock], dict[str, int]]
    ready: Callable[[Place], Any] = field(default=lambda place: None)


@dataclass(frozen=True)
class Measured:
    """What came of a measure: see `Clock` and `Measure`."""

    seconds: Mapping[str, float]
    cpu: float
    peak: int
    counts: Mapping[str, int]


def make_run(place: Place) -> None:
    """A finished run: a real one of the first row, whose manifest is then filled up in bulk."""
    list_urls(place.urls, "none", range(place.rows))
    first = place.folder / "first" / "list.parquet"
    list_urls(first, "none", range(1))
    shutil.rmtree(place.half, ignore_errors=True)
    (run,) = prepare(place.request(first, place.half))
    run.execute(_quiet())
    manifest = place.half / "manifest"
    program, rng = run.program(), np.random.default_rng(0)
    for number, start in enumerate(range(0, place.rows, store.ROWS_PER_FILE)):
        part = place.folder / "part" / "list.parquet"
        list_urls(part, "none", range(start, min(place.rows, start + store.ROWS_PER_FILE)))
        listing = list_input(str(part), sources=SourceSettings(schemes=["memory"])).rows
        sources = {
            n: pa.array([row.get(n) for row in listing], program.schema.field(n).type) for n in SOURCE_COLUMNS
        }
        sources |= {
            "pipeline": pa.array([program.name] * len(listing)),
            "note": pa.array(["x"] * len(listing)),
        }
        table = run.screen.apply(finished_rows(program, sources, run.run_id, rng))
        store.write_table(manifest / f"manifest-{number:05d}.parquet", table.sort_by("sample_id"))
    assert sum(map(store.num_rows, store.manifest_files(manifest))) == place.rows
    shutil.rmtree(place.folder / "part")
    place.half.rename(place.run)


def finished_rows(
    program: Program, sources: Mapping[str, pa.Array], run_id: str, rng: np.random.Generator
) -> pa.Table:
    """Rows as a run leaves them: one in a hundred was stopped by a gate, and one failed, half-way."""
    count = len(sources["sample_id"])
    ended = rng.random(count)
    stopped, failed = ended < 0.01, ended > 0.99
    # Stages that are done of each row: the one that stops it is the last of them, the one that fails is not.
    done = np.where(stopped | failed, rng.integers(1, STAGES, count), STAGES)
    columns: dict[str, pa.Array] = dict(sources)
    for number, step in enumerate(program.steps):
        for name, column in step.stage.writes.items():
            assert isinstance(column, Column)
            values = drawn(name, column, rng, count)
            columns[name] = pc.if_else(pa.array(done > number), values, pa.scalar(None, values.type))
    names = pa.array([step.name for step in program.steps])
    prints = pa.array([step.fingerprint for step in program.steps])
    which = pa.array(np.nonzero(np.arange(STAGES) < done[:, None])[1])
    offsets = pa.array(np.concatenate([[0], np.cumsum(done)]), pa.int32())
    entries = pa.StructArray.from_arrays([names.take(which), prints.take(which)], ["stage", "fingerprint"])
    columns["stages"] = pa.ListArray.from_arrays(offsets, entries)
    last, next_one = pa.array(done - 1), pa.array(np.minimum(done, STAGES - 1))
    columns["stopped"] = pa.StructArray.from_arrays(
        [names.take(last), pa.array(["a gate"] * count), pa.array([False] * count)],
        ["stage", "reason", "waits"],
        mask=pa.array(~stopped),
    )
    said = [pa.array([text] * count) for text in ("ValueError", "cannot be measured", "Traceback ...")]
    columns["error"] = pa.StructArray.from_arrays(
        [names.take(next_one), *said, prints.take(next_one)],
        ["stage", "kind", "message", "traceback", "fingerprint"],
        mask=pa.array(~failed),
    )
    columns["program"] = pa.array([program.hash] * count)
    columns["run_id"] = pa.array([run_id] * count)
    columns["schema_version"] = pa.array([SCHEMA_VERSION] * count)
    return store.conform(pa.table(columns), program.schema)


def list_urls(path: Path, host: str, numbers: range) -> None:
    """A list of addresses, with one further column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    uris = pa.array([f"memory://{host}/{number}.mp4" for number in numbers])
    pq.write_table(pa.table({"uri": uris, "note": pa.array(["x"] * len(uris))}), path)


def make_files(place: Place) -> None:
    """As many empty files as the run has rows, and their list."""
    if not place.files.exists():
        place.files.mkdir()
        for number in range(place.rows):
            os.close(os.open(place.files / f"{number:08d}.mp4", os.O_CREAT | os.O_WRONLY))
    paths = [str(place.files / f"{number:08d}.mp4") for number in range(place.rows)]
    pq.write_table(pa.table({"uri": paths}), place.paths)


def execute(place: Place, clock: Clock, request: Request) -> dict[str, int]:
    """What the command `run` does, in three parts."""
    with clock("list"):
        (run,) = prepare(request)
    with clock("run"):
        record = run.execute(_quiet())
    with clock("report"):
        if not is_current(run.folder):
            write_report(run.folder)
    counts = record["counts"]
    return {name: counts[name] for name in ("ids_in", "computed", "reused", "manifest_rows")}


def rerun(place: Place, clock: Clock) -> dict[str, int]:
    """The same command again."""
    return execute(place, clock, place.request(place.urls, place.copy))


def limited(place: Place, clock: Clock) -> dict[str, int]:
    """The same command with --limit."""
    return execute(place, clock, place.request(place.urls, place.copy, LIMIT))


def added(place: Place, clock: Clock) -> dict[str, int]:
    """Further samples, by a list of their own."""
    return execute(place, clock, place.request(place.folder / "more.parquet", place.copy))


def listed(input: Callable[[Place], Path]) -> Callable[[Place, Clock], dict[str, int]]:
    """Listing an input alone."""

    def work(place: Place, clock: Clock) -> dict[str, int]:
        with clock("list"):
            listing = list_input(str(input(place)), sources=SourceSettings(schemes=["memory"]))
        return {"listed": len({row["sample_id"] for row in listing.rows})}

    return work


def screened(place: Place, clock: Clock) -> dict[str, int]:
    """Other rules."""
    with clock("screen"):
        counts, _ = screen_again(place.copy, screen(0.05))
    kept = store.read(place.manifest, ["keep"])["keep"]
    return {name: counts[name] for name in ("rows", "kept", "changed")} | {"kept_there": pc.sum(kept).as_py()}


def reported(place: Place, clock: Clock) -> dict[str, int]:
    """The report alone."""
    with clock("report"):
        path = write_report(place.copy)
    return {"bytes": path.stat().st_size}


def make_other(place: Place) -> None:
    """Another run of nearly the same samples: five stages give other values, and other rules judge."""
    shutil.rmtree(place.other, ignore_errors=True)
    program, rng, rules = place.program(), np.random.default_rng(1), screen(0.05)
    for number, file in enumerate(store.manifest_files(place.manifest)):
        table = store.read_file(file).slice(0 if number else REMOVED)
        for step in program.steps[:5]:
            for name, column in step.stage.writes.items():
                assert isinstance(column, Column)
                table = store.with_values(table, name, drawn(name, column, rng, table.num_rows))
        store.write_table(place.other / "manifest" / file.name, rules.apply(table))
    record = json.loads((place.copy / "run.json").read_text())
    record["screen"] = rules.model_dump(mode="json", exclude_none=True)
    (place.other / "run.json").write_text(json.dumps(record))


def compared(place: Place, clock: Clock) -> dict[str, int]:
    """Two runs side by side, and the page."""
    with clock("compare"):
        found = compare_runs(place.copy, place.other)
    with clock("page"):
        write_page({"": found}, place.folder / "compared.html")
    shutil.rmtree(place.other)
    counts = {"changed": found.verdicts.table.num_rows, "removed": found.removed.num_rows}
    return counts | {"in_both": found.in_both, "scores": len(found.scores), "columns": len(found.columns)}


def planned(place: Place, clock: Clock) -> dict[str, int]:
    """The plan of shards."""
    with clock("open"):
        runs = open_runs([str(place.copy)], {}, False)
    with clock("plan"):
        plan = make_plan(runs, SHARD_BYTES)
    kept = store.read(place.manifest, ["keep"])["keep"]
    return {"samples": sum(map(len, plan.shards)), "shards": len(plan.shards), "kept": pc.sum(kept).as_py()}


def commit_parts(which: str, rows_per_part: int) -> Callable[[Place], None]:
    """Rows that wait to be merged: `new` ones, or others of rows of `one` file or of `all` files."""

    def ready(place: Place) -> None:
        schema = store.prepare(place.manifest, place.program().schema)
        files = store.manifest_files(place.manifest)
        rows = store.read_file(files[0])
        rows = store.conform(rows.take(pa.array(np.resize(np.arange(rows.num_rows), place.merged))), schema)
        if which == "new":
            ids: Any = [f"new-{number:08d}" for number in range(place.merged)]
        else:
            known = (
                store.read(place.manifest, ["sample_id"])["sample_id"]
                if which == "all"
                else rows["sample_id"]
            )
            order = np.random.default_rng(0).permutation(len(known))
            ids = known.take(pa.array(np.resize(order, place.merged))).combine_chunks()
        rows = store.with_values(rows, "sample_id", ids)
        for start in range(0, rows.num_rows, rows_per_part):
            store.commit(place.manifest, rows.slice(start, rows_per_part), "benchmark")

    return ready


def merged(place: Place, clock: Clock) -> dict[str, int]:
    """Folding the parts in."""
    schema = store.prepare(place.manifest, place.program().schema)
    with clock("merge"):
        rows = store.merge(place.manifest, schema)
    there = store.read(place.manifest, ["sample_id"]).num_rows
    return {"merged": rows, "manifest_rows": there, "waiting": store.waiting_rows(place.manifest)}


MEASURES: Mapping[str, Measure] = {
    "rerun": Measure("the same command again", rerun),
    "limit": Measure(f"with --limit {LIMIT}", limited),
    "folder": Measure("list a folder", listed(lambda place: place.files), make_files),
    "paths": Measure("list local paths", listed(lambda place: place.paths), make_files),
    "urls": Measure("list addresses", listed(lambda place: place.urls)),
    "screen": Measure("screen with other rules", screened),
    "add": Measure(
        f"{ADDED} more samples",
        added,
        lambda place: list_urls(place.folder / "more.parquet", "more", range(min(ADDED, place.rows))),
    ),
    "report": Measure("report", reported),
    "compare": Measure("compare with another run", compared, make_other),
    "shards": Measure("plan of shards", planned),
    **{
        f"merge-{which}-{size}": Measure(f"merge parts of {size}: {title}", merged, commit_parts(which, size))
        for size in (256, 8)
        for which, title in (("new", "new rows"), ("one", "of one file"), ("all", "of all files"))
    },
}


def measured(place: Place, name: str) -> Measured:
    """Take one measure in this process."""
    clock = Clock()
    counts = MEASURES[name].work(place, clock)
    return Measured(clock.seconds, clock.cpu, clock.peak, counts)


@contextmanager
def copied(place: Place) -> Iterator[None]:
    """A copy of the run. Its files are links: no writer changes a file, each puts another in its place."""
    shutil.rmtree(place.copy, ignore_errors=True)
    shutil.copytree(place.run, place.copy, copy_function=os.link, ignore=shutil.ignore_patterns(".lock"))
    try:
        yield
    finally:
        shutil.rmtree(place.copy)


def measure(place: Place, name: str) -> Measured:
    """Take one measure in a process of its own."""
    with copied(place):
        MEASURES[name].ready(place)
        command = [sys.executable, "-m", "benchmarks.scale", "--one", name, "--folder", str(place.folder)]
        command += ["--rows", str(place.rows), "--merged", str(place.merged)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line a measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[10**4, 10**5, 10**6],
        help="of the run; 10000000 takes 15 GB of disk",
    )
    parser.add_argument(
        "--measures",
        nargs="+",
        default=list(MEASURES),
        choices=list(MEASURES),
        metavar="MEASURE",
        help=", ".join(MEASURES),
    )
    parser.add_argument("--merged", type=int, default=100_000, help="rows that a merge folds in")
    parser.add_argument(
        "--folder", type=Path, help="of work, kept for the next time; default: a temporary one"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        place = Place(options.folder, options.rows[0], options.merged)
        print(json.dumps(asdict(measured(place, options.one))))
        return
    with tempfile.TemporaryDirectory() as name:
        for rows in options.rows:
            place = Place((options.folder or Path(name)).absolute() / str(rows), rows, options.merged)
            if not place.run.exists():
                make_run(place)
            for one in options.measures:
                print(_line(place, one, measure(place, one)), flush=True)
            shutil.rmtree(place.files, ignore_errors=True)


def _line(place: Place, name: str, found: Measured) -> str:
    seconds = sum(found.seconds.values())
    parts = ", ".join(f"{part} {took:.1f}" for part, took in found.seconds.items())
    if "merged" in found.counts:
        parts = f"{place.merged / seconds:.0f} rows/s"
    what = f"{place.rows:>10} rows  {MEASURES[name].title:36}"
    return f"{what} {seconds:8.1f} s (CPU {found.cpu:6.1f}) {found.peak / 1e9:6.2f} GB  {parts}"


if __name__ == "__main__":
    main()
