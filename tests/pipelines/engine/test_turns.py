"""Groups of stages on GPUs: as many workers as make them equally fast; turns where they do not fit."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import ray
from rich.console import Console

from pipelines.engine import placement
from pipelines.engine.pipeline import Resources, RunError
from pipelines.engine.placement import Pool, Turn, place, rows_to_measure, take_turns
from pipelines.engine.progress import Progress
from pipelines.engine.ray_runner import _reserved
from pipelines.engine.settings import Profile
from stages.clip import Clip
from stages.contract import Column, Stage
from tests.conftest import ROOT
from tests.support.gpu_time import Work, simulate
from tests.support.helpers import make_files, make_run, manifest, quiet, same_manifest, toy_stages

# What a worker takes in the gpu profile; for how long a sample keeps it, s: Wan's published 328 on an H100,
# the others by way of example; how long it loads.
SYNTHESISE = Work(Resources(2, 1), 328, 180)
PROBE = Work(Resources(1), 2, 5)
SMALL = Work(Resources(4, 0.25, concurrency=4), 2, 60)
LANGUAGE = Work(Resources(2, 0.75, concurrency=32), 0.5, 240)


def nodes(gpus: int) -> list[dict[str, float]]:
    """Machines of 8 GPUs, or one with fewer."""
    return [{"CPU": 24.0 * min(gpus, 8), "GPU": min(gpus, 8)}] * max(1, gpus // 8)


def placed(work: Sequence[Work], rows: int, gpus: int) -> list[Turn]:
    groups = [([], each.takes) for each in work]
    return take_turns(groups, rows, nodes(gpus), seconds=[each.seconds for each in work])


@pytest.mark.parametrize(("gpus", "equal"), [(1, None), (8, 0.37), (32, 0.34)])
def test_synthesis_keeps_gpus_busy(gpus: int, equal: float | None) -> None:
    """A thousand clips; beside it what equal shares of the GPUs for all groups come to."""
    work, rows = [SYNTHESISE, PROBE, SMALL, LANGUAGE], 1000
    assert simulate(placed(work, rows, gpus), work, rows, gpus).share >= 0.9
    groups = [([], each.takes) for each in work]
    if equal is None:
        with pytest.raises(RunError, match="need at least 9 CPUs and 2 GPUs"):
            place(groups, rows, nodes(gpus))
    else:
        shared = [Turn(place(groups, rows, nodes(gpus)), None)]
        assert simulate(shared, work, rows, gpus).share == pytest.approx(equal, abs=0.01)


@pytest.mark.parametrize(("gpus", "least"), [(1, 0.87), (8, 0.9), (32, 0.9)])
def test_talking_heads_keep_gpus_busy(gpus: int, least: float) -> None:
    """On one GPU the language model's turn leaves the quarter idle that its worker never takes."""
    work, rows = [PROBE, SMALL, LANGUAGE], 500_000
    assert simulate(placed(work, rows, gpus), work, rows, gpus).share >= least


def test_groups_that_fit_together_take_turns_only_where_it_pays() -> None:
    work = [SYNTHESISE, PROBE, SMALL, LANGUAGE]
    assert len(placed(work, 1000, 8)) == 2  # an eighth of the time for one GPU that the others hardly use
    assert len(placed(work, 4, 8)) == 1  # four clips: loading the models again would take longer
    unknown = take_turns([([], each.takes) for each in work], 1000, nodes(8), seconds=[328, None, None, 1])
    assert len(unknown) == 1
    (one,) = take_turns([([], Resources(1, 1)), ([], Resources(1))], 10, [{"CPU": 3, "GPU": 1}])
    assert [pool.size for pool in one.pools] == [1, 1]


def test_what_does_not_fit_together_takes_turns_also_on_cpus() -> None:
    groups = [([], Resources(2)), ([], Resources(1, 0.5)), ([], Resources(2))]
    turns = take_turns(groups, 10, [{"CPU": 3, "GPU": 1}])
    assert [[pool.size for pool in turn.pools] for turn in turns] == [[1], [2], [1]]
    with pytest.raises(RunError, match="need at least 3 CPUs and 0 GPUs; the cluster has 3"):
        take_turns([([], Resources(1)), ([], Resources(3))], 10, [{"CPU": 3}])


def test_pools_are_sized_by_what_a_sample_costs() -> None:
    groups = [([], Resources(1, 1)), ([], Resources(1, 1)), ([], Resources(1))]
    for costs, expected in [
        ((7, 1), [7, 1]),
        ((1, 1), [4, 4]),
        ((0, 3), [1, 7]),
        ((None, None), [4, 4]),
        ((None, 70), [1, 7]),
    ]:
        pools = place(groups, 10**6, [{"CPU": 60, "GPU": 8}], seconds=[*costs, 1])
        assert [pool.size for pool in pools[:2]] == expected
    busy = place(groups, 10**6, [{"CPU": 60, "GPU": 8}], seconds=[7, 0.5, 25.5])
    assert [pool.busy for pool in busy] == [pytest.approx(share) for share in (1, 0.5, 0.5)]
    # What another group could have would not make the run faster: it stays free.
    shares = [([], Resources(1, 1)), ([], Resources(1, 0.25))]
    assert [p.size for p in place(shares, 10**6, [{"CPU": 60, "GPU": 4}], seconds=[100, 0.1])] == [3, 1]


def test_shares_are_packed_anew_where_gaps_would_cost_a_worker() -> None:
    """Four small workers on two GPUs, two on each, would leave no room for a second large one."""
    groups = [([], Resources(1, 0.5)), ([], Resources(1, 0.75)), ([], Resources(1, 0.25))]
    pools = place(groups, 10**6, [{"CPU": 60, "GPU": 4}], seconds=[1, 2, 1.5])
    assert sum(pool.size * pool.resources.gpus for pool in pools) == pytest.approx(4)
    assert [pool.size for pool in pools] == [2, 3, 3]


@pytest.mark.parametrize(
    ("seconds", "rows", "expected"),
    [
        ([None, None], 10_000, 64),
        ([328.0, None], 10_000, 10),  # three of the four GPUs make one in 109 s: some 15 minutes
        ([3000.0, None], 10_000, 8),
        ([328.0, None], 79, 0),  # more than a tenth
        ([328.0, 1.0], 10_000, 0),
    ],
)
def test_rows_are_measured_first_where_nobody_knows(
    seconds: list[float | None], rows: int, expected: int
) -> None:
    groups = [([], Resources(1, 1)), ([], Resources(1, 1))]
    turns = [Turn([Pool([], one, n, n) for (_, one), n in zip(groups, (3, 1), strict=True)], None)]
    assert rows_to_measure(turns, groups, seconds, rows) == (8 if expected == 10 else expected)
    alone = [Turn([Pool([], Resources(1, 0.5), 1, 1), Pool([], Resources(1, 0.5), 1, 1)], None)]
    assert rows_to_measure(alone, groups, seconds, rows) == 0  # one GPU: there is nothing to choose


class Where(Stage):
    """Which process computed it, and on which GPU."""

    reads = ("length",)
    writes: ClassVar = {
        "process": Column("int", "", "Of the worker."),
        "gpu": Column("strings", "", "Its GPU."),
    }

    def score(self, clip: Clip) -> dict[str, Any]:
        return {"process": os.getpid(), "gpu": [str(name) for name in ray.get_gpu_ids()]}


@pytest.fixture(scope="module")
def eight_gpus() -> Iterator[None]:
    """A Ray that believes in eight GPUs; its workers find the toy stages."""
    old = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    ray.init(num_cpus=120, num_gpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    if old is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = old


def run_on(
    tmp_path: Path, name: str, resources: dict[str, Any], engine: Any = "ray", last: type[Stage] = Where
) -> Any:
    stages = [*toy_stages(raise_on="clip0002.mp4", stop_on="clip0003.mp4"), last()]
    run = make_run(stages, tmp_path / "in", tmp_path / name, engine)
    run.profile = Profile(name="toy", roles={}, resources=resources)
    return run.execute(quiet())


@pytest.mark.ray
def test_turns_give_the_same_manifest(eight_gpus: None, tmp_path: Path) -> None:
    """`square` wants all eight GPUs, and so does `where`; `root` between them a CPU."""
    make_files(tmp_path / "in", 12)
    all_of_them = {"cpus": 1, "gpus": 8}
    resources = {"square": all_of_them, "where": all_of_them}
    record = run_on(tmp_path, "turns", resources)
    run_on(tmp_path, "inline", {}, "inline")
    turns, inline = manifest(tmp_path / "turns"), manifest(tmp_path / "inline")
    here = ["process", "gpu"]
    assert same_manifest(turns.drop(columns=here), inline.drop(columns=here))
    assert record["counts"] | {"kept": 0, "dropped": 0} == {
        **{"ids_in": 12, "ids_out": 12, "errors": 1, "stopped": 1, "computed": 12, "reused": 0},
        **{"due": 0, "superseded": 0, "manifest_rows": 12, "kept": 0, "dropped": 0},
    }
    assert {n: f["computed"] for n, f in record["stages"].items()} == {
        **{"length": 12, "square": 11, "root": 10, "other": 10, "where": 10}
    }
    assert all(len(gpus) == 8 for gpus in turns["gpu"].dropna())
    again = run_on(tmp_path, "turns", resources)
    assert again["counts"]["computed"] == 0 and again["counts"]["reused"] == 12


@pytest.mark.ray
def test_a_group_that_has_nothing_to_do_takes_no_gpu(eight_gpus: None, tmp_path: Path) -> None:
    """Only `where` is due: nobody waits for the worker of `square`, which no machine could hold."""
    make_files(tmp_path / "in", 4)
    run_on(tmp_path, "out", {}, "inline")
    newer = type("Where", (Where,), {"version": 2})
    record = run_on(tmp_path, "out", {"square": {"cpus": 1, "gpus": 9}}, last=newer)
    assert record["stages"]["where"]["computed"] == 2 and record["stages"]["square"]["computed"] == 0


@pytest.mark.ray
def test_small_shares_leave_whole_gpus_to_large_ones(eight_gpus: None) -> None:
    """Seventeen quarters and five times three quarters: eight GPUs, if the large ones come first."""
    pools = [
        Pool([], Resources(4, 0.25), 17, 17),
        Pool([], Resources(1), 1, 1),
        Pool([], Resources(2, 0.75), 5, 5),
    ]
    said: list[str] = []
    with _reserved(pools, said.append) as places:
        assert [bool(place) for place in places] == [True, False, True] and not said
        assert _free_gpus(at_most=0) == pytest.approx(0)


def _free_gpus(at_most: float) -> float:
    """What Ray says is free, once that is as little as expected: its figures trail what was taken."""
    deadline = time.monotonic() + 60
    while (free := float(ray.available_resources().get("GPU", 0))) > at_most and time.monotonic() < deadline:
        time.sleep(0.05)
    return free


@pytest.mark.ray
def test_the_first_rows_are_measured_and_the_rest_is_placed_by_that(
    eight_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors that are to be retried are retried once, by whichever rows they are."""
    monkeypatch.setattr(placement, "MEASURED_MOST", 2)
    make_files(tmp_path / "in", 24)
    stages = [*toy_stages(raise_on="clip0002.mp4", stop_on="clip0003.mp4"), Where()]
    gpu = {"cpus": 1, "gpus": 1}
    log = io.StringIO()
    run = make_run(stages, tmp_path / "in", tmp_path / "out", "ray")
    run.profile = Profile(name="toy", roles={}, resources={"square": gpu, "where": gpu})
    record = run.execute(Progress(Console(file=log, width=200)))
    said = log.getvalue()
    assert "2 samples first, to see how many workers each group of stages needs" in said
    shares = re.findall(r"(\d+) x square \(1 GPU\), .*?(\d+) x where \(1 GPU\)", said)
    assert len(shares) == 1 and sum(map(int, shares[0])) == 8
    assert record["counts"]["computed"] == 24 and record["counts"]["errors"] == 1
    assert record["stages"]["where"]["computed"] == 22
    again = make_run(
        stages, tmp_path / "in", tmp_path / "out", "ray", retry_errors="RuntimeError", workers=None
    )
    again.profile = Profile(
        name="toy", roles={}, resources={"square": {"cpus": 1, "gpus": 8}, "where": {"cpus": 1, "gpus": 8}}
    )
    record = again.execute(quiet())
    assert record["counts"]["computed"] == 1 and record["counts"]["reused"] == 23
    assert record["stages"]["square"]["errors"] == 1


@pytest.mark.ray
def test_a_worker_that_dies_in_a_later_turn_loses_nothing(eight_gpus: None, tmp_path: Path) -> None:
    """And a run that is given up there goes on: what the turn before has finished is in the manifest."""
    make_files(tmp_path / "in", 8)
    all_of_them = {"cpus": 1, "gpus": 8}
    profile = Profile(name="toy", roles={}, resources={"length": all_of_them, "square": all_of_them})
    dies = toy_stages(kill_on="clip0005.mp4", kill_once=str(tmp_path / "once"))
    run = make_run([*dies, Where()], tmp_path / "in", tmp_path / "out", "ray")
    run.profile = profile
    assert run.execute(quiet())["counts"]["errors"] == 0 and (tmp_path / "once").exists()
    make_run([*dies, Where()], tmp_path / "in", tmp_path / "inline").execute(quiet())
    here = ["process", "gpu"]
    out, calm = manifest(tmp_path / "out"), manifest(tmp_path / "inline")
    assert same_manifest(out.drop(columns=here), calm.drop(columns=here))

    lost = make_run([*toy_stages(), Lost()], tmp_path / "in", tmp_path / "lost", "ray")
    lost.profile = Profile(name="toy", roles={}, resources={"square": all_of_them, "lost": all_of_them})
    with pytest.raises(RunError, match="the same command again to go on"):
        lost.execute(quiet())
    half = manifest(tmp_path / "lost")
    assert len(half) == 8 and half["square"].notna().all() and half["error"].isna().all()
    found = type("Lost", (Where,), {"writes": Lost.writes, "score": Lost.score})
    run = make_run([*toy_stages(), found()], tmp_path / "in", tmp_path / "lost", "ray")
    run.profile = lost.profile
    record = run.execute(quiet())
    computed = {name: figures["computed"] for name, figures in record["stages"].items()}
    assert computed == {"length": 0, "square": 0, "root": 8, "other": 8, "lost": 8}


class Lost(Stage):
    """Its models cannot be loaded."""

    reads = ("length",)
    writes: ClassVar = {"lost": Column("int", "", "Nothing.")}

    def setup(self) -> None:
        raise OSError("no such weights")

    def score(self, clip: Clip) -> dict[str, Any]:
        return {"lost": 1}
