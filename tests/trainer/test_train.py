"""The loop on a tiny network of random weights and toy shards."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from typer.testing import CliRunner

from configs.reading import SettingsError
from manifests.shards import MissingShards
from pipelines.cli import train as train_cli
from tests.support.checkpoints import average_of, tensors_of, weights_of
from tests.support.shard_toys import EMBEDDERS, toy_shards
from trainer import run as loop
from trainer import validation
from trainer.checkpoint import CheckpointError, load_weights, newest, path_of, read_info
from trainer.config import TrainConfig, load_config
from trainer.data.loader import collate
from trainer.data.source import ClipSource
from trainer.flow import add_noise, draw_noise, draw_sigmas, flow_loss, velocity
from trainer.networks.encoders import Encoders, encode
from trainer.networks.load import load_backbone
from trainer.networks.tiny import model_folder
from trainer.optimiser import NonFiniteLoss, adamw, check_finite, learning_rate
from trainer.processes import together
from trainer.scalars import mean_losses
from trainer.train import train

ROOT = Path(__file__).resolve().parents[2]
WIDTHS = {"identity_dim": 16, "attribute_dim": 24, "audio_dim": 20}
FRAMES = 9
DATA = {"workers": 0, "buckets": {"min_frames": FRAMES, "max_frames": FRAMES, "area": 64 * 64}}
# For comparing gradients: no clipping hides their scale; and as Adam divides by their size, which for weights
# without influence is rounding alone, steps are small.
UNCLIPPED = {"warmup_steps": 0, "learning_rate": 1e-6, "max_gradient_norm": 1e9}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Clips as long as the bucket: there is but one place to begin.
    folder = tmp_path_factory.mktemp("train") / "shards"
    runs = {"talking": 1.0, "touched": 1.0}
    return toy_shards(folder, clips=4, seconds=FRAMES / 16, runs=runs, interactions=2, **WIDTHS)


Configure = Callable[..., TrainConfig]


@pytest.fixture()
def configure(shards: Path, tmp_path: Path) -> Configure:
    def make(name: str = "toy", **changes: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "name": name,
            "output": str(tmp_path / name),
            "steps": 4,
            "batch": 4,
            "precision": "fp32",
            "checkpoint_every": 100,
            "log_every": 2,
            "data": DATA | {"shards": [str(shards)]},
            "model": {"random": "tiny", **WIDTHS},
            "optimiser": {"warmup_steps": 0, "learning_rate": 1e-3},
        }
        return TrainConfig.model_validate(values | changes)

    return make


def assert_same_bits(one: Path, other: Path) -> None:
    a, b = tensors_of(one), tensors_of(other)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def scalars_of(config: TrainConfig) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(Path(config.output) / "tensorboard" / config.name))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def stopping_at(step: int) -> Callable[..., Tensor]:
    """`draw_noise` that sends SIGTERM to this process while it works on a step."""

    def draw(latents: Tensor, seed: int, at: int, slots: Any) -> Tensor:
        if at == step and 0 in slots:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw_noise(latents, seed, at, slots)

    return draw


def test_the_loss_falls(configure: Configure, shards: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On two clips, with nothing dropped, to under 0.6 of what it was for the same noise.

    From 1.5; a network that knew the clips and nothing of their noise would come to 1.
    """
    config = configure(
        steps=60,
        batch=2,
        shift=1.0,
        ema=0,
        log_every=60,
        dropout={"each": 0, "all": 0, "interaction_captions": 0},
        data=DATA | {"shards": [str(shards)], "weights": {"talking": 0}},
        model={"random": "tiny", "gradient_checkpointing": False, **WIDTHS},
        optimiser={"learning_rate": 7e-3, "warmup_steps": 5},
    )
    trained = train(config)
    assert "2 clips are left out: weight 0" in capfd.readouterr().err
    folder = model_folder(config.model, Path(config.output))
    encoders = Encoders.load(config.model, folder)
    source = ClipSource(config, config.seed)
    batch = collate([source.load(pick) for pick in source.plan(0)])
    latents, conditions = encode(batch, encoders)

    @torch.no_grad()
    def loss_of(model: nn.Module) -> float:
        found = []
        for step in range(4):  # noise that training never drew
            sigma, noise = draw_sigmas(99, step, batch.slots, 1.0), draw_noise(latents, 99, step, batch.slots)
            predicted = model(add_noise(latents, noise, sigma), sigma, conditions)
            found.append(flow_loss(predicted, velocity(latents, noise)).mean().item())
        return sum(found) / len(found)

    torch.manual_seed(config.seed)
    model = load_backbone(config.model, folder)
    before = loss_of(model)
    load_weights(trained, model)
    after = loss_of(model)
    assert after < 0.6 * before, (before, after)


def test_an_interrupted_run_ends_as_if_nothing_had_happened(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = train(configure("whole"))
    config = configure("stopped")
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr("trainer.train.draw_noise", stopping_at(1))
        stopped = train(config)
    assert stopped == path_of(Path(config.output), 2) and read_info(stopped)["step"] == 2
    assert signal.getsignal(signal.SIGTERM) == handler
    capfd.readouterr()
    gone_on = train(config)
    assert "going on after step 2" in capfd.readouterr().err
    assert gone_on == path_of(Path(config.output), 4)
    assert_same_bits(whole, gone_on)
    # The log has each step once, whichever process wrote it.
    assert [step for step, _ in scalars_of(config)["loss"]] == [2, 4]
    assert scalars_of(config)["loss"] == scalars_of(configure("whole"))["loss"]


def test_a_finished_run_is_left_alone(configure: Configure) -> None:
    config = configure(steps=1)
    made = train(config)
    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    assert train(config) == made
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before


def test_a_cut_checkpoint_costs_only_the_steps_since_the_one_before(configure: Configure) -> None:
    config = configure(checkpoint_every=2)
    made = train(config)
    whole = tensors_of(made)
    path = made / "__0_0.distcp"
    path.write_bytes(path.read_bytes()[:1000])
    assert newest(Path(config.output)) == path_of(Path(config.output), 2)
    again = tensors_of(train(config))
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_accumulation_changes_nothing(configure: Configure) -> None:
    settings = {"steps": 2, "optimiser": UNCLIPPED}
    one = tensors_of(train(configure("one", micro_batch=4, **settings)))
    four = tensors_of(train(configure("four", micro_batch=1, **settings)))
    assert max((one[name] - four[name]).abs().max().item() for name in one) < 1e-6


def test_the_next_stage_begins_with_the_average_of_the_last(configure: Configure) -> None:
    first = train(configure("first", steps=2))
    frozen = {"learning_rate": 1e-30, "warmup_steps": 0, "weight_decay": 0}
    second = train(configure("second", steps=1, init=str(Path(configure("first").output)), optimiser=frozen))
    average, begun = average_of(first), weights_of(second)
    assert all(torch.equal(average[name], begun[name]) for name in average)


def test_features_of_other_embedders_than_before_are_refused(configure: Configure, tmp_path: Path) -> None:
    first = configure("first", steps=1)
    train(first)
    others = EMBEDDERS | {"audio_embedder": "other-audio"}
    shards = toy_shards(tmp_path / "others", seconds=FRAMES / 16, embedders=others, **WIDTHS)
    for changes in ({"output": first.output, "steps": 2}, {"init": first.output}):
        with pytest.raises(SettingsError, match="audio_embedder toy-audio, the shards are of other-audio"):
            train(configure("second", data=DATA | {"shards": [str(shards)]}, **changes))


def test_sample_clips_lack_nothing(configure: Configure) -> None:
    config = configure(dropout={"all": 1})
    source = ClipSource(config)
    first = source.load(source.plan(0)[0])
    assert not (first.has_reference | first.has_audio | first.has_identity).any() and first.prompts == [""]
    with together() as processes:
        shown = validation.shown(config, None, source).load(0, processes)
    assert (shown.has_reference & shown.has_audio & shown.has_identity).all() and shown.prompts != [""]
    assert not source.load(source.plan(0)[0]).has_audio.any()  # the source drops as before


def test_only_the_new_layers_are_trained(configure: Configure) -> None:
    config = configure(steps=2, optimiser={"trainable": "adapters", "warmup_steps": 0, "learning_rate": 1e-3})
    after = weights_of(train(config))
    torch.manual_seed(config.seed)
    before = load_backbone(config.model, model_folder(config.model, Path(config.output))).state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved and not any(name.startswith("transformer.") for name in moved)


def test_what_the_log_says(configure: Configure) -> None:
    config = configure(steps=3)
    train(config)
    said = scalars_of(config)
    assert [step for step, _ in said["loss"]] == [2, 3]  # every second step, and the last
    runs = [value for name in ("talking", "touched") for _, value in said[f"loss_by_run/{name}"]]
    assert len(runs) == 4 and all(math.isfinite(value) for value in runs)
    # Two of each run in every batch: their mean is the whole's.
    assert (runs[0] + runs[2]) / 2 == pytest.approx(said["loss"][0][1])
    assert any(name.startswith("loss_by_noise/") for name in said)
    assert said["learning_rate"][0] == (2, pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi / 3))))
    assert all(value > 0 for name in ("gradient_norm", "samples_per_second") for _, value in said[name])
    assert all(0 <= value <= 1 for _, value in said["data_wait"])


def test_sample_clips_are_written(configure: Configure) -> None:
    config = configure(steps=2, samples={"every": 2})
    weights = train(config)
    (clip,) = (Path(config.output) / "samples" / "step-00000002").iterdir()
    assert clip.stat().st_size > 1000
    # Sampling left the weights as they were.
    assert_same_bits(weights, train(configure("without", steps=2)))


def test_a_loss_that_is_not_finite_names_its_sample(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = {"skip": 0, "back": 0}
    config = configure(steps=3, checkpoint_every=1, micro_batch=4, non_finite=never)
    wrong = ClipSource(config, config.seed).plan(1)[2].sample_id

    def poisoned(latents: Tensor, seed: int, step: int, slots: Any) -> Tensor:
        noise = draw_noise(latents, seed, step, slots)
        if step == 1:
            noise[2, 0, 0, 0, 0] = math.nan
        return noise

    monkeypatch.setattr("trainer.train.draw_noise", poisoned)
    with pytest.raises(NonFiniteLoss, match=rf"^step 1: the loss is not finite; samples: {wrong}\. Look"):
        train(config)
    assert newest(Path(config.output)) == path_of(Path(config.output), 1)


def test_an_infinite_gradient_names_the_batch() -> None:
    check_finite(0, ["a", "b"], [1.0, 2.0], 3.0)
    with pytest.raises(
        NonFiniteLoss, match="the gradient, though no single loss, is not finite; samples: a, b"
    ):
        check_finite(7, ["a", "b"], [1.0, 2.0], math.inf)
    with pytest.raises(NonFiniteLoss, match="step 7: the loss is not finite; samples: b"):
        check_finite(7, ["a", "b"], [1.0, math.inf], math.inf)


def test_another_network_in_the_same_output_is_refused(configure: Configure) -> None:
    train(configure(steps=1))
    config = configure(steps=2)
    wider = config.model_copy(update={"model": config.model.model_copy(update={"audio_tokens": 13})})
    with pytest.raises(SettingsError, match=r"model\.audio_tokens was 12, is 13; set another"):
        train(wider)


def test_a_batch_that_cannot_be_shared(configure: Configure) -> None:
    assert loop.parts_of_share(configure(micro_batch=2), processes=2) == 1
    assert loop.parts_of_share(configure(), processes=2) == 2
    with pytest.raises(SettingsError, match=r"batch 4 cannot be shared by 3 processes.*a multiple of 3"):
        loop.parts_of_share(configure(), processes=3)
    with pytest.raises(SettingsError, match="a multiple of 8"):
        loop.parts_of_share(configure(micro_batch=4), processes=2)


@pytest.mark.parametrize("changes", [{"output": "s3://bucket/run"}, {"name": "../up"}, {"name": ""}])
def test_folders_that_cannot_be(configure: Configure, changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        loop.output_folder(configure().model_copy(update=changes))


def test_an_absent_init(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Encoders, "load", lambda *_: pytest.fail("weights are loaded before it is looked for")
    )
    with pytest.raises(CheckpointError, match="nowhere: no complete checkpoint here"):
        train(configure(init=str(tmp_path / "nowhere")))


def test_missing_shards_are_said_before_anything_is_written(configure: Configure, tmp_path: Path) -> None:
    data = DATA | {"shards": [str(tmp_path / "nowhere")]}
    config = configure(data=data, output=str(tmp_path / "anew"))
    with pytest.raises(MissingShards, match="nowhere is no finished folder of shards"):
        train(config)
    assert not (tmp_path / "anew").exists()


def test_learning_rate(configure: Configure) -> None:
    config = configure(steps=12, optimiser={"learning_rate": 1.0, "warmup_steps": 4})
    rates = [learning_rate(config, step) for step in (0, 3, 4, 6, 8, 11)]
    # 4 steps up, then half a cosine over 8: cos(pi k / 8) for k = 0, 2, 4, 7.
    down = [1.0, 0.5 + math.sqrt(2) / 4, 0.5, 0.5 - 0.5 * math.cos(math.pi / 8)]
    assert rates == pytest.approx([0.25, 1.0, *down])


def test_what_decays(configure: Configure) -> None:
    decaying, others = adamw(nn.Linear(3, 2), configure()).param_groups
    assert [p.ndim for p in decaying["params"]] == [2] and decaying["weight_decay"] == 0.01
    assert [p.ndim for p in others["params"]] == [1] and others["weight_decay"] == 0.0


def test_mean_losses() -> None:
    rows = [("a", 0.0, 1.0), ("a", 0.25, 2.0), ("b", 0.5, 3.0), ("b", 1.0, 6.0)]
    assert mean_losses(rows) == {
        "loss": 3.0,
        "loss_by_run/a": 1.5,
        "loss_by_run/b": 4.5,
        "loss_by_noise/0.00-0.25": 1.0,
        "loss_by_noise/0.25-0.50": 2.0,
        "loss_by_noise/0.50-0.75": 3.0,
        "loss_by_noise/0.75-1.00": 6.0,
    }


def test_an_unknown_key_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: a\noutput: b\nsteps: 1\ndata: {shards: [s]}\nmodel: {random: tiny}\nxyz: 1\n")
    with pytest.raises(SettingsError, match=r"mine\.yaml: unknown key xyz; there are: name, output"):
        load_config(path)


def test_the_command(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()
    app.command()(train_cli.train)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(configure().model_dump(mode="json")))

    def run(*overrides: str) -> tuple[int, str]:
        arguments = [part for text in overrides for part in ("--set", text)]
        result = CliRunner().invoke(app, ["--config", str(path), *arguments])
        return result.exit_code, result.output + capfd.readouterr().err

    code, said = run("stepz=2")
    assert code == 2 and "mine.yaml with --set: unknown key stepz; did you mean steps?" in said
    code, said = run("data.shards=[nowhere]")
    assert code == 2 and "nowhere is no finished folder of shards" in said
    with monkeypatch.context() as patch:
        patch.setattr("trainer.train.draw_noise", stopping_at(0))
        code, said = run("steps=2")
    assert code == 1 and "1 of 2 steps are done; the same command goes on" in said
    code, said = run("steps=2")
    assert code == 0 and "step-00000002" in said


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "train").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_configs_that_come_along(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    if path.stem == "tiny":
        return
    # InterAvatar C.1.
    wanted = {"wan_stage1": 80_000, "wan_stage2": 40_000, "ltx_stage1": 120_000, "ltx_stage2": 40_000}
    assert config.steps == wanted.get(path.stem, config.steps)
    assert config.batch == {"wan": 64, "ltx": 128}[config.model.backbone]
    assert config.is_causal or config.optimiser.learning_rate == 2e-5
    assert not config.data.allow_preview
    if not config.is_causal:
        longest = {"wan": 101, "ltx": 129}[config.model.backbone]
        assert config.data.buckets.frames_within(1000) == longest
    assert loop.parts_of_share(config, processes=64) == config.batch // 64
