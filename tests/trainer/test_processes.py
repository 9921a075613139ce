"""Several processes train as one does, and stop as one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from torch import Tensor

from tests.support.checkpoints import tensors_of
from tests.support.shard_toys import toy_shards
from tests.trainer.data.test_source import overwrite
from tests.trainer.test_train import DATA, FRAMES, UNCLIPPED, WIDTHS
from trainer.checkpoint import newest, path_of, read_info
from trainer.config import load_config
from trainer.train import train

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 200


@pytest.fixture()
def config(tmp_path: Path) -> Path:
    toy_shards(tmp_path / "shards", clips=4, seconds=FRAMES / 16, interactions=2, **WIDTHS)
    values: dict[str, Any] = {
        "name": "toy",
        "output": str(tmp_path / "two"),
        "steps": 4,
        "checkpoint_every": 2,
        "batch": 4,
        "precision": "fp32",
        "data": DATA | {"shards": [str(tmp_path / "shards")]},
        "model": {"random": "tiny", **WIDTHS},
        "optimiser": UNCLIPPED,
    }
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def start(config: Path, *overrides: str, processes: int = 1, restarts: int = 0) -> subprocess.Popen[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    torchrun += [f"--max-restarts={restarts}", "--monitor-interval=0.1"]
    command = [
        sys.executable,
        *(torchrun if processes > 1 else ()),
        "-m",
        "tests.support.run_train",
        str(config),
    ]
    return subprocess.Popen(
        [*command, *overrides],
        cwd=ROOT,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": str(int(restarts > 0))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    try:
        said, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, said
    return said


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_two_processes_equal_one(config: Path, tmp_path: Path) -> None:
    """Each holds half of the network: weights, average and optimiser after four steps within 1e-5."""
    finish(start(config, processes=2))
    two = newest(tmp_path / "two")
    assert two is not None and read_info(two)["processes"] == 2
    assert sorted(path.name for path in two.glob("*.distcp")) == ["__0_0.distcp", "__1_0.distcp"]
    torch.set_num_threads(1)
    one = train(load_config(config, [f"output={tmp_path / 'one'}"]))
    assert largest_difference(tensors_of(one), tensors_of(two)) < 1e-5

    # What two began, one goes on with, and what one began, two.
    for output, processes in (("two", 1), ("one", 2)):
        last = path_of(tmp_path / output, 4)
        shutil.rmtree(last)
        finish(start(config, f"output={tmp_path / output}", processes=processes))
        assert read_info(last)["processes"] == processes
    assert largest_difference(tensors_of(path_of(tmp_path / "one", 4)), tensors_of(two)) < 1e-5


def test_sigterm_to_all_processes_saves_and_stops(config: Path, tmp_path: Path) -> None:
    """As a scheduler sends it: to the training process and to the workers that decode for it."""
    output = tmp_path / "long"
    settings = ["steps=100000", "data.workers=1", "checkpoint_every=1", "log_every=1", f"output={output}"]
    process = start(config, *settings)
    deadline = time.monotonic() + TIMEOUT_S
    while newest(output) is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)  # it takes seconds to begin
    os.killpg(process.pid, signal.SIGTERM)
    said = finish(process)
    stopped = newest(output)
    assert stopped is not None
    done = read_info(stopped)["step"]
    assert f"stopped and saved after step {done}; the same command goes on" in said
    assert "Traceback" not in said
    # The same command goes on from there.
    settings[0] = f"steps={done + 1}"
    finish(start(config, *settings, "allow:steps"))
    assert newest(output) == path_of(output, done + 1)


def test_a_machine_that_is_lost_costs_the_steps_since_the_last_checkpoint(
    config: Path, tmp_path: Path
) -> None:
    """torchrun starts both again when one of them dies; the end is that of a run that nothing happened to."""
    torch.set_num_threads(1)
    steps = ["steps=12", "checkpoint_every=1", "keep_checkpoints=2"]
    alone = train(load_config(config, [*steps, f"output={tmp_path / 'one'}"]))
    process = start(config, *steps, processes=2, restarts=1)
    deadline = time.monotonic() + TIMEOUT_S
    while newest(tmp_path / "two") is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)  # it takes seconds to begin
    workers = [p for p in psutil.Process(process.pid).children() if "run_train" in " ".join(p.cmdline())]
    assert len(workers) == 2
    workers[1].kill()
    said = finish(process)
    assert said.count("going on after step") == 1 and "training on 4 clips" in said
    last = newest(tmp_path / "two")
    assert last == path_of(tmp_path / "two", 12)
    assert largest_difference(tensors_of(alone), tensors_of(last)) < 1e-5


def test_what_a_process_cannot_read_ends_all_of_them_and_is_saved_first(config: Path, tmp_path: Path) -> None:
    """One process alone meets too many bad clips: the others end with its reason, none waits for ever."""
    settings = ["steps=50", "checkpoint_every=100", "data.max_bad_clips=0"]
    overwrite(tmp_path / "shards", "toy-0003", ".mp4", b"\0" * 10**6)
    process = start(config, *settings, processes=2)
    said, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode != 0
    assert "1 clips cannot be read, data.max_bad_clips allows 0; the last: sample toy-0003 of toy" in said
    assert newest(tmp_path / "two") is None  # it was one of the first step's


def test_a_held_out_clip_that_one_process_cannot_read_ends_all_of_them(config: Path, tmp_path: Path) -> None:
    """The only one of its run: nothing takes its place. The others hear of it; what was done is saved."""
    shards = tmp_path / "more"
    runs = {"many": 1.0, "one": 1.0}
    toy_shards(shards, clips=4, seconds=FRAMES / 16, runs=runs, **WIDTHS)
    settings = [f"data.shards=[{shards}]", "validation.share=0.5", "validation.every=1"]
    overwrite(shards, "one-0003", ".mp4", b"\0" * 10**6)
    process = start(config, *settings, "watchdog_s=60", processes=2)
    said, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode != 0
    assert "sample one-0003 of one" in said and "cannot go on: sample" in said
    assert newest(tmp_path / "two") == path_of(tmp_path / "two", 1)
