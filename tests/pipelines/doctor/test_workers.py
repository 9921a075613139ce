"""What workers load, and whether it fits on a card and on a machine together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.store.model_store import ModelStore
from configs.reading import merged
from pipelines.doctor import workers
from pipelines.doctor.result import Result
from pipelines.doctor.workers import Worker, on_the_gpu, on_this_machine, workers_of
from pipelines.engine.placement import WORKER_BYTES
from pipelines.engine.settings import Profile
from pipelines.requests import load_profile, profile_roles, settings_of

GIB = 2**30
H100 = 81559 * 2**20


def gpu_workers(folder: Path, *overrides: str, **changes: Any) -> dict[str, list[Worker]]:
    profile = Profile.model_validate(merged(load_profile("gpu").model_dump(exclude_defaults=True), changes))
    settings = settings_of(profile, [f"models={folder}", *overrides])
    return workers_of(profile, settings, profile_roles(profile, settings, folder), ModelStore(folder))


def all_of(pipelines: dict[str, list[Worker]]) -> list[Worker]:
    return [worker for found in pipelines.values() for worker in found]


def found(results: list[Result]) -> dict[str, Result]:
    return {result.what: result for result in results}


def test_workers_are_the_groups_that_a_run_has(tmp_path: Path) -> None:
    clips = gpu_workers(tmp_path)["synthetic_interactions"]
    [wan] = [worker for worker in clips if "image_to_video" in worker.roles]
    assert wan.stages == ("synthesise",) and wan.resources.gpus == 1
    assert wan.loaded == 69_025_017_300 and wan.memory == WORKER_BYTES + wan.loaded
    asks = [worker for worker in clips if "vision_language_model" in worker.roles]
    assert {worker.resources.gpus for worker in asks} == {0.75}
    assert {worker.memory for worker in asks} == {WORKER_BYTES + asks[0].loaded}
    small = max((w for w in clips if w.resources.gpus == 0.25), key=lambda worker: worker.loaded)
    assert small.memory == WORKER_BYTES + max(small.weights.values())
    on_a_cpu = gpu_workers(tmp_path, "device=cpu")["synthetic_interactions"]
    assert all(worker.memory == WORKER_BYTES + worker.loaded for worker in on_a_cpu)


def test_the_gpu_profile_fits_an_h100(tmp_path: Path) -> None:
    results = on_the_gpu(all_of(gpu_workers(tmp_path)), H100, H100)
    assert len(results) == 3 and all(result.ok and not result.note for result in results)


def test_vllm_beside_others_takes_no_more_than_its_share(tmp_path: Path) -> None:
    setting = "roles.vision_language_model.gpu_memory_utilization"
    what = "on the GPU: qwen2.5-vl-7b-instruct and 2 more"
    greedy = all_of(gpu_workers(tmp_path, f"{setting}=0.9"))
    result = found(on_the_gpu(greedy, H100, H100))[what]
    assert not result.ok and result.said.endswith(f"more than its worker is given; lower {setting}")
    small = found(on_the_gpu(all_of(gpu_workers(tmp_path, f"{setting}=0.15")), H100, H100))[what]
    assert not small.ok and "the weights do not fit" in small.said
    busy = found(on_the_gpu(all_of(gpu_workers(tmp_path)), H100, 40 * GIB))[what]
    assert not busy.ok and busy.said.endswith("only 42.9 GB are free; end what else runs on the card")


def test_small_models_need_their_quarter(tmp_path: Path) -> None:
    results = on_the_gpu(all_of(gpu_workers(tmp_path)), 16 * GIB, 16 * GIB)
    quarter = next(result for result in results if "0.25 of a card is 4.3 GB" in result.said)
    assert not quarter.ok and "a larger share in the profile's resources" in quarter.said


@pytest.mark.parametrize(
    ("total", "said"),
    [
        (141, "all of it stays"),
        (78, "both experts stay on the card, the text encoder comes and goes"),
        (60, "one expert at a time: 44.6 GB"),
        (40, workers.SLOW),
    ],
)
def test_wan_tells_what_waits_in_memory(tmp_path: Path, total: int, said: str) -> None:
    results = on_the_gpu(all_of(gpu_workers(tmp_path)), total * GIB, total * GIB)
    wan = found(results)["on the GPU: wan2.2-i2v-a14b"]
    assert wan.ok and said in wan.said and wan.note == (total == 40)


def test_workers_of_one_machine_share_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 192)
    pipelines = gpu_workers(tmp_path)
    results = found(on_this_machine(pipelines, 8, 2000 * GIB))
    assert all(result.ok and not result.note for result in results.values())
    short = found(on_this_machine(pipelines, 8, 100 * GIB))["synthetic_interactions"]
    assert not short.ok and "of 107.4 GB of memory; fewer (--set workers=N" in short.said
    [wan] = [w for w in pipelines["synthetic_interactions"] if "image_to_video" in w.roles]
    alone = {"synthesise": [replace(wan, resources=replace(wan.resources, workers=8))]}
    assert found(on_this_machine(alone, 8, 512 * GIB))["synthesise"].said.startswith(
        "8 workers here need 572.2 GB of 549.8 GB"
    )


def test_one_gpu_is_enough_where_groups_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wan's worker alone, and then the small models beside the language model; Wan's turn takes more."""
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 16)
    result = found(on_this_machine(gpu_workers(tmp_path), 1, 200 * GIB))["synthetic_interactions"]
    assert result.ok and not result.note and result.said.startswith("1 workers here need 71.5 GB of 214.7 GB")


def test_a_pipeline_that_needs_more_machines_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 2)
    results = on_this_machine(gpu_workers(tmp_path), 1, 100 * GIB)
    assert all(result.note and "not on this machine alone: " in result.said for result in results)
