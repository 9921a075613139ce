"""A checkpoint is whole or not there, and holds all that a run needs to go on."""

from __future__ import annotations

import errno
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.metadata import BytesStorageMetadata

from tests.support.checkpoints import average_of, save, tensors_of
from trainer import checkpoint as checkpoints
from trainer.checkpoint import CheckpointError, State, load_weights, newest, read_info, restore
from trainer.config import TrainConfig, load_config
from trainer.ema import Ema
from trainer.processes import together


class Parts:
    """A model, its average and its optimiser, after `steps` steps."""

    def __init__(self, steps: int = 0, width: int = 3, average: bool = True) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(width, 2)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.ema = Ema(self.model, 0.9)
        self.state = State({"network": (self.model, self.optimiser)}, self.ema if average else None)
        for step in range(steps):
            self.step(step)

    def step(self, step: int) -> None:
        self.model(torch.arange(float(self.model.in_features))).square().sum().backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.ema.update(step)

    def save(self, config: TrainConfig, step: int) -> Path:
        return save(config, step, self.state, {"embedders": {"a": "b"}})

    def restore(self, checkpoint: Path) -> int:
        with together():
            return restore(checkpoint, self.state)


@pytest.fixture()
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "name": "toy",
            "output": str(tmp_path / "out"),
            "steps": 10,
            "keep_checkpoints": 2,
            "data": {"shards": ["s"]},
            "model": {"random": "tiny"},
        }
    )


def state_of(parts: Parts) -> dict[str, Any]:
    moments = parts.optimiser.state_dict()["state"]
    flat = {f"{name} {i}": value for i, of in moments.items() for name, value in of.items()}
    average = {f"average {name}": value for name, value in parts.ema.average.items()}
    return dict(parts.model.state_dict()) | average | flat


def test_what_is_saved_is_what_was_there_when_saving_began(config: TrainConfig) -> None:
    """Training goes on while a checkpoint is written."""
    parts = Parts(2)
    before = {name: value.clone() for name, value in state_of(parts).items()}
    with together() as processes:
        saver = checkpoints.Saver(Path(config.output), config, processes, parts.state)
        saver.begin(2, {"embedders": {}})
        assert newest(Path(config.output)) is None
        for step in range(2, 5):
            parts.step(step)
        made = saver.finish(wait=True)
    assert made is not None and saver.finish() is None
    other = Parts(1)
    assert other.restore(made) == 2
    after = state_of(other)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(before["weight"], parts.model.weight)


def test_a_disk_that_is_full_leaves_what_was_there(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, output = Parts(1), Path(config.output)
    first = parts.save(config, 1)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        patch.setattr(checkpoints, "_sync", full)
        with pytest.raises(CheckpointError, match=r"step-00000002 could not be written: .*No space left"):
            parts.save(config, 2)
    assert list((output / "checkpoints").iterdir()) == [first]
    assert newest(output) == first
    assert parts.save(config, 2) == newest(output)


def test_the_optimiser_keeps_the_settings_of_its_configuration(config: TrainConfig) -> None:
    """They may have been changed on purpose (--allow optimiser.weight_decay)."""
    made = Parts(2).save(config, 2)
    other = Parts()
    other.optimiser = torch.optim.AdamW(other.model.parameters(), lr=0.1, weight_decay=0.5, betas=(0.5, 0.6))
    other.state = State({"network": (other.model, other.optimiser)}, other.ema)
    other.restore(made)
    (group,) = other.optimiser.param_groups
    assert (group["weight_decay"], group["betas"]) == (0.5, (0.5, 0.6))
    assert other.optimiser.state[other.model.weight]["step"] == 2


def test_all_comes_back_bit_for_bit(config: TrainConfig) -> None:
    old = Parts(3)
    made = old.save(config, 3)
    new = Parts(1)
    assert new.restore(made) == 3
    for parts in (old, new):
        parts.step(3)  # the optimiser's moments show in the next step
    before, after = state_of(old), state_of(new)
    assert before.keys() == after.keys() and len(before) == 2 + 2 + 2 * 3
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_it_says(config: TrainConfig) -> None:
    made = Parts(1).save(config, 20)
    assert made == Path(config.output) / "checkpoints" / "step-00000020"
    info = read_info(made)
    sizes = {str(p.relative_to(made)): p.stat().st_size for p in made.iterdir() if p.name != "trainer.json"}
    assert info["files"] == sizes and sizes.keys() == {".metadata", "__0_0.distcp", "config.yaml"}
    assert info["networks"] == ["network"]
    assert (info["step"], info["backbone"], info["stand_in"]) == (20, "wan", "random weights")
    assert info["model"] is None and info["embedders"] == {"a": "b"} and info["processes"] == 1
    assert load_config(made / "config.yaml") == config


def test_the_average_is_loaded_unless_the_weights_are_asked_for(config: TrainConfig) -> None:
    parts = Parts(3)
    made = parts.save(config, 3)
    for ema, wanted in ((True, parts.ema.average), (False, parts.model.state_dict())):
        model = nn.Linear(3, 2)
        load_weights(made, model, ema)
        assert torch.equal(model.weight, wanted["weight"]) and torch.equal(model.bias, wanted["bias"])
    assert not torch.equal(parts.ema.average["weight"], parts.model.weight)


def test_a_run_without_an_average_gives_its_weights(config: TrainConfig) -> None:
    parts = Parts(2, average=False)
    made = parts.save(config, 2)
    assert average_of(made) == {}
    model = nn.Linear(3, 2)
    load_weights(made, model)
    assert torch.equal(model.weight, parts.model.weight)
    # An average that begins now begins at the weights as they are.
    new = Parts(1)
    new.restore(made)
    assert torch.equal(new.ema.average["weight"], parts.model.weight)


@pytest.mark.parametrize("damage", ["cut", "gone", "no info", "half info", "temporary"])
def test_what_is_not_whole_is_passed_over(config: TrainConfig, damage: str) -> None:
    parts, output = Parts(1), Path(config.output)
    first, second = parts.save(config, 1), parts.save(config, 2)
    assert newest(output) == second
    if damage == "cut":
        path = second / "__0_0.distcp"
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "gone":
        (second / ".metadata").unlink()
    elif damage == "no info":
        (second / "trainer.json").unlink()
    elif damage == "half info":
        (second / "trainer.json").write_text('{"version": 2, "fi')
    else:
        second.rename(second.with_name(f"_{second.name}.tmp"))
    assert newest(output) == first
    with pytest.raises(CheckpointError, match=str(second)):
        read_info(second)
    # The step is done again, and its remains are no hindrance.
    assert parts.save(config, 2) == second and newest(output) == second


def test_a_save_that_is_killed_leaves_nothing_that_counts(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, output = Parts(1), Path(config.output)
    first = parts.save(config, 1)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "_sync", killed)
        parts.save(config, 2)
    assert newest(output) == first
    leftover = [p.name for p in (output / "checkpoints").iterdir() if p != first]
    assert leftover == ["_step-00000002.tmp"]
    checkpoints.sweep(output)
    assert list((output / "checkpoints").iterdir()) == [first]


def test_only_the_newest_are_kept(config: TrainConfig) -> None:
    parts, output = Parts(1), Path(config.output)
    for step in (9, 10, 100):
        parts.save(config, step)
    assert [p.name for p in sorted((output / "checkpoints").iterdir())] == ["step-00000010", "step-00000100"]


def test_another_network_is_refused_by_name(config: TrainConfig) -> None:
    made = Parts(1).save(config, 1)
    with pytest.raises(CheckpointError, match=r"is of another network .*weight, \(2, 3\) there"):
        load_weights(made, nn.Linear(4, 2))
    with pytest.raises(CheckpointError, match=r"is of another network .*2\.bias, absent there, \(2,\) here"):
        load_weights(made, nn.ModuleDict({"2": nn.Linear(3, 2)}))
    with pytest.raises(CheckpointError, match="is of another network"):
        Parts(0, width=5).restore(made)


def test_no_checkpoint(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    with pytest.raises(CheckpointError, match=r"no complete checkpoint here; give a folder such as"):
        checkpoints.find(tmp_path)


def test_a_run_is_found_by_its_folder(config: TrainConfig) -> None:
    made = Parts(1).save(config, 1)
    assert checkpoints.find(Path(config.output)) == checkpoints.find(made) == made


def test_another_version_is_refused(config: TrainConfig) -> None:
    made = Parts(1).save(config, 1)
    info = json.loads((made / "trainer.json").read_text())
    (made / "trainer.json").write_text(json.dumps(info | {"version": 1}))
    with pytest.raises(CheckpointError, match="not a checkpoint of version 2; use the release that wrote it"):
        read_info(made)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        checkpoints.held(tmp_path),
        pytest.raises(CheckpointError, match="another process is training here"),
        checkpoints.held(tmp_path),
    ):
        pass
    with checkpoints.held(tmp_path):
        pass


def test_the_average_moves_as_written() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    ema = Ema(model, 0.9)
    model.weight.data.fill_(2.0)
    ema.update(0)  # decay 1/10: 0.1 * 1 + 0.9 * 2
    assert ema.average["weight"].item() == pytest.approx(1.9)
    model.weight.data.fill_(0.0)
    ema.update(1000)  # decay 0.9
    assert ema.average["weight"].item() == pytest.approx(1.71)
    with ema.applied():
        assert model.weight.item() == pytest.approx(1.71)
    assert model.weight.item() == 0.0


def test_frozen_weights_and_buffers_are_saved_beside_the_average(config: TrainConfig) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].requires_grad_(False)
    ema = Ema(model, 0.5)
    assert set(ema.average) == {"1.weight", "1.bias"}
    trained = [p for p in model.parameters() if p.requires_grad]
    made = save(config, 1, State({"network": (model, torch.optim.AdamW(trained))}, ema))
    assert average_of(made).keys() == ema.average.keys()
    assert not any("exp_avg.0." in name for name in tensors_of(made))
    model[1].running_mean.fill_(7)
    other = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    load_weights(made, other)
    assert torch.equal(other[0].weight, model[0].weight) and other[1].running_mean.tolist() == [0, 0]


def with_list(checkpoint: Path, data: bytes) -> Path:
    """The checkpoint with another list of tensors, which its size does not give away."""
    (checkpoint / ".metadata").write_bytes(data)
    info = json.loads((checkpoint / "trainer.json").read_text())
    info["files"][".metadata"] = len(data)
    (checkpoint / "trainer.json").write_text(json.dumps(info))
    return checkpoint


class Harmful:
    """A pickle of it makes a file where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_strangers_list_of_tensors_runs_no_code(config: TrainConfig, tmp_path: Path) -> None:
    data = pickle.dumps(Harmful(tmp_path / "ran"))
    made = with_list(Parts(1).save(config, 1), data)
    with pytest.raises(CheckpointError, match=r"\.metadata: .* has no place in a list of tensors"):
        load_weights(made, nn.Linear(3, 2))
    assert not (tmp_path / "ran").exists()
    assert pickle.loads(data) is None and (tmp_path / "ran").exists()  # it would have


def test_what_is_no_tensor_is_not_read(config: TrainConfig) -> None:
    """Bytes in the place of a weight would be unpickled."""
    made = Parts(1).save(config, 1)
    metadata = pickle.loads((made / ".metadata").read_bytes())
    metadata.state_dict_metadata["average.weight"] = BytesStorageMetadata()
    with pytest.raises(CheckpointError, match="holds something else than tensors"):
        load_weights(with_list(made, pickle.dumps(metadata)), nn.Linear(3, 2))
