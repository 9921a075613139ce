"""Seeing a network learn: held-out persons, sample clips, trackers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from configs.reading import SettingsError
from media.decode import decode
from media.requests import Frames
from tests.support.checkpoints import weights_of
from tests.support.shard_toys import toy_shards
from tests.trainer.test_train import DATA, FRAMES, WIDTHS, scalars_of
from trainer import sharding
from trainer.checkpoint import newest
from trainer.config import TrainConfig
from trainer.data.source import ClipSource, is_held_out
from trainer.flow import add_noise, draw_noise, flow_loss, velocity
from trainer.networks.encoders import Encoders, encode
from trainer.networks.tiny import model_folder
from trainer.processes import Processes, together
from trainer.start import initial_network
from trainer.trackers import WeightsAndBiases
from trainer.train import train
from trainer.validation import LEVELS, held_out, shown, validation_loss

Configure = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validation") / "shards"
    runs = {"talking": 1.0, "touched": 1.0}
    persons = [f"person-{number % 5 + 4}" for number in range(12)]
    return toy_shards(
        folder, clips=12, seconds=FRAMES / 16, runs=runs, interactions=6, persons=persons, **WIDTHS
    )


@pytest.fixture()
def configure(shards: Path, tmp_path: Path) -> Configure:
    def make(name: str = "toy", **changes: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "name": name,
            "output": str(tmp_path / name),
            "steps": 2,
            "batch": 2,
            "micro_batch": 2,
            "precision": "fp32",
            "log_every": 1,
            "data": DATA | {"shards": [str(shards)]},
            "model": {"random": "tiny", **WIDTHS},
            "optimiser": {"warmup_steps": 0, "learning_rate": 1e-3},
            "validation": {"share": 0.4, "every": 1, "clips": 3},
        }
        return TrainConfig.model_validate(values | changes)

    return make


def test_persons_are_held_out_whole_and_for_good(configure: Configure, shards: Path) -> None:
    config = configure()
    train_on, held = ClipSource(config), ClipSource(config, held_out=True)

    def persons(source: ClipSource) -> set[str]:
        return {source.entry(row)["person"] for row in source.rows()}

    assert persons(train_on) & persons(held) == set() and len(persons(train_on) | persons(held)) == 5
    assert persons(held) == {f"person-{n}" for n in range(4, 9) if is_held_out(f"person-{n}", 0.4)} != set()
    assert train_on.left_out["held out for validation"] == len(held.rows())
    assert len(held.rows()) + len(train_on.rows()) == 12
    # A larger share holds out those, and others.
    assert all(is_held_out(f"p{n}", 0.5) for n in range(200) if is_held_out(f"p{n}", 0.2))
    assert sum(is_held_out(f"p{n}", 0.2) for n in range(5000)) == pytest.approx(1000, abs=100)


def test_shares_that_hold_nothing_out_are_an_error(configure: Configure) -> None:
    assert held_out(configure(validation={"share": 0}), None) is None
    with pytest.raises(SettingsError, match=r"validation.share 1e-06 holds no clip out: .*; set a larger"):
        held_out(configure(validation={"share": 1e-6}), None)


def test_the_loss_is_that_of_the_held_clips_under_each_noise_level(configure: Configure) -> None:
    config = configure()
    folder = model_folder(config.model, Path(config.output))
    encoders = Encoders.load(config.model, folder)
    torch.manual_seed(1)
    network = initial_network(config, folder, None)
    held = held_out(config, None)
    assert held is not None and len(held.picks) == 3
    with together() as processes:
        said = validation_loss(network, encoders, held, processes)
        again = validation_loss(network, encoders, held, processes)
    assert said == again
    expected = {level: [] for level in LEVELS}
    with torch.no_grad():
        for number in range(3):
            batch = held.source.load(held.picks[number])
            assert bool(batch.has_reference.all() and batch.has_audio.all())
            latents, conditions = encode(batch, encoders)
            for level in LEVELS:
                noise = draw_noise(latents, 0, 1 << 62, batch.slots)
                sigma = torch.tensor([level])
                guess = network(add_noise(latents, noise, sigma), sigma, conditions)
                expected[level].append(flow_loss(guess, velocity(latents, noise)).item())
    for level, low in zip(LEVELS, (0.0, 0.25, 0.5, 0.75), strict=True):
        name = f"validation/loss_by_noise/{low:.2f}-{low + 0.25:.2f}"
        assert said[name] == pytest.approx(sum(expected[level]) / 3)
    assert said["validation/loss"] == pytest.approx(sum(map(sum, expected.values())) / 12)
    assert {name for name in said if "by_run" in name} <= {
        "validation/loss_by_run/talking",
        "validation/loss_by_run/touched",
    }


def test_a_run_validates_with_its_average_and_leaves_training_as_it_was(configure: Configure) -> None:
    config = configure(samples={"every": 2, "clips": 2, "prompts": ["A person waves."]})
    made = train(config)
    scalars = scalars_of(config)
    assert [step for step, _ in scalars["validation/loss"]] == [1, 2]
    clips = sorted((Path(config.output) / "samples" / "step-00000002").iterdir())
    assert [path.name[:2] for path in clips] == ["00", "01"]
    seen = Frames(fps=16, short_side=32)
    assert [len(decode(path, [seen]).frames[seen][1]) for path in clips] == [FRAMES, FRAMES]
    quiet = train(configure("quiet", validation={"share": 0.4, "every": 100}))
    one, other = weights_of(made), weights_of(quiet)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_shared_network_keeps_nothing_gathered(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a pass with the average gathered must not be what the next step of training goes through."""
    config = configure()
    folder = model_folder(config.model, Path(config.output))
    encoders = Encoders.load(config.model, folder)
    held = held_out(config, encoders.id)
    assert held is not None
    latents, conditions = encode(held.source.load(held.picks[0]), encoders)
    monkeypatch.setattr(sharding, "_mesh", lambda processes: init_device_mesh("cpu", (1,)))
    with together():
        network = initial_network(config, folder, None)
        shared: Any = sharding.shard(network, Processes(0, 2, 2, torch.device("cpu")))
        with torch.no_grad():
            shared(latents, torch.tensor([0.5]), conditions)
        assert {type(weight.data) for weight in shared.parameters()} == {DTensor}


def test_sample_clips_are_of_held_out_persons_and_their_prompts_are_replaced(configure: Configure) -> None:
    config = configure(samples={"every": 1, "clips": 2})
    held, source = held_out(config, None), ClipSource(config)
    assert held is not None
    assert [pick.sample_id for pick in shown(config, held, source).picks] == [
        pick.sample_id for pick in held.picks[:2]
    ]
    picks = shown(config, None, source).picks
    assert [pick.sample_id for pick in picks] == [pick.sample_id for pick in source.plan(0)[:2]]


# --- trackers


def test_a_real_wandb_run_offline(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What wandb itself wrote, read by its own reader of such files."""
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    monkeypatch.setenv("WANDB_MODE", "offline")
    config = configure(trackers=["wandb"], samples={"every": 2})
    train(config)
    (file,) = Path(config.output).glob("wandb/offline-run-*/run-*.wandb")
    store, numbers = DataStore(), []
    store.open_for_scan(str(file))
    while (data := store.scan_data()) is not None:
        record: Any = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            numbers.append(
                {(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item}
            )
    losses = [(row["step"], row["loss"]) for row in numbers if "loss" in row]
    assert [step for step, _ in losses] == [1, 2] and all(0 < loss < 10 for _, loss in losses)
    assert any("validation/loss" in row for row in numbers)
    clips = [row for row in numbers if any(name.startswith("clips/") for name in row)]
    assert len(clips) == 1 and clips[0]["step"] == 2
    first = (Path(config.output) / "wandb-id").read_text()
    assert first in file.name
    again = WeightsAndBiases(Path(config.output), "toy", {}, resumed=True)
    again.close()
    assert again.run.id == first
    assert newest(Path(config.output)) is not None


def test_a_tracker_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SettingsError, match="wandb is not installed: pip install wandb"):
        WeightsAndBiases(tmp_path, "toy", {}, resumed=False)


# --- what is trained


class Counted(nn.Module):
    """Gives a velocity of zero."""

    def forward(self, noisy: Tensor, sigma: Tensor, conditions: Any) -> Tensor:
        return torch.zeros_like(noisy)


def test_the_loss_of_knowing_nothing(configure: Configure) -> None:
    """Of a network that always says zero: the mean square of eps - x, whatever the noise level."""
    config = configure()
    folder = model_folder(config.model, Path(config.output))
    encoders = Encoders.load(config.model, folder)
    held = held_out(config, None)
    assert held is not None
    squares = []
    for number in range(3):
        batch = held.source.load(held.picks[number])
        latents, _ = encode(batch, encoders)
        squares.append(velocity(latents, draw_noise(latents, 0, 1 << 62, batch.slots)).square().mean().item())
    with together() as processes:
        said = validation_loss(Counted(), encoders, held, processes)
    assert said["validation/loss"] == pytest.approx(sum(squares) / 3)
