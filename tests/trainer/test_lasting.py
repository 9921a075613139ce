"""A run that lasts: bad clips, numbers that are not finite, full disks, changed settings, errors."""

from __future__ import annotations

import json
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.summary.writer import record_writer
from torch import Tensor

from configs.reading import SettingsError
from manifests.storage import StorageError
from tests.support.checkpoints import tensors_of, weights_of
from tests.support.shard_toys import toy_shards
from tests.trainer.data.test_source import overwrite
from tests.trainer.test_train import DATA, FRAMES, WIDTHS, assert_same_bits, scalars_of
from trainer import checkpoint as checkpoints
from trainer.checkpoint import CheckpointError, newest, path_of, read_info
from trainer.config import TrainConfig
from trainer.data.source import ClipSource
from trainer.flow import draw_noise
from trainer.left_out import BadClips
from trainer.optimiser import NonFiniteLoss, learning_rate
from trainer.resume import continued
from trainer.run import stop_signals
from trainer.train import train
from trainer.validation import held_out

Configure = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture()
def configure(tmp_path: Path) -> Configure:
    shards = toy_shards(tmp_path / "shards", clips=4, seconds=FRAMES / 16, **WIDTHS)

    def make(name: str = "toy", **changes: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "name": name,
            "output": str(tmp_path / name),
            "steps": 3,
            "batch": 2,
            "micro_batch": 2,
            "precision": "fp32",
            "checkpoint_every": 1,
            "log_every": 1,
            "data": DATA | {"shards": [str(shards)]},
            "model": {"random": "tiny", **WIDTHS},
            "optimiser": {"warmup_steps": 0, "learning_rate": 1e-3},
        }
        return TrainConfig.model_validate(values | changes)

    return make


def skipped(config: TrainConfig) -> list[dict[str, Any]]:
    lines = (Path(config.output) / "skipped.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


# --- clips


def break_clip(config: TrainConfig, number: int) -> str:
    overwrite(Path(config.data.shards[0]), f"toy-{number:04d}", ".mp4", b"\0" * 10**6)
    return f"toy-{number:04d}"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_clip_that_cannot_be_read_is_replaced_and_named(
    configure: Configure, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    config = configure()
    config = config.model_copy(update={"data": config.data.model_copy(update={"workers": workers})})
    bad = break_clip(config, 1)
    made = train(config)
    assert read_info(made)["step"] == 3
    (row,) = skipped(config)
    assert (row["sample_id"], row["run"]) == (bad, "toy") and "not a readable media file" in row["reason"]
    said = capfd.readouterr().err
    assert f"left out, 1 of at most 100: sample {bad} of toy" in said
    assert {value for _, value in scalars_of(config)["bad_clips"]} == {1.0}
    # Another clip of the same run took its place, whichever process asked.
    source = ClipSource(config)
    pick = next(pick for step in range(3) for pick in source.plan(step) if pick.sample_id == bad)
    assert source.other(pick, 1) == source.other(pick, 1) != pick


def test_too_many_bad_clips_end_the_run_which_saves_first(configure: Configure) -> None:
    config = configure(steps=8, checkpoint_every=100)
    config = config.model_copy(update={"data": config.data.model_copy(update={"max_bad_clips": 1})})
    for number in (1, 2):
        break_clip(config, number)
    source = ClipSource(config)
    seen: set[str] = set()
    for last in range(8):
        seen |= {pick.sample_id for pick in source.plan(last)} & {"toy-0001", "toy-0002"}
        if len(seen) == 2:
            break
    with pytest.raises(
        BadClips, match=r"2 clips cannot be read, data.max_bad_clips allows 1; the last: sample"
    ):
        train(config)
    assert {row["sample_id"] for row in skipped(config)} == seen
    assert newest(Path(config.output)) == (path_of(Path(config.output), last) if last else None)


def test_a_store_that_does_not_answer_ends_the_run_and_costs_no_step(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(configure("whole", steps=3))
    config = configure(checkpoint_every=100)
    load = ClipSource.load

    def gone(self: ClipSource, pick: Any) -> Any:
        if pick.step == 2:
            raise StorageError("the disk is gone")
        return load(self, pick)

    with monkeypatch.context() as patch:
        patch.setattr(ClipSource, "load", gone)
        with pytest.raises(StorageError, match="the disk is gone"):
            train(config)
    assert newest(Path(config.output)) == path_of(Path(config.output), 2)
    assert not (Path(config.output) / "skipped.jsonl").exists()  # the world's fault is not the clip's
    assert_same_bits(train(config), whole)


def test_an_error_of_any_kind_saves_first(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(checkpoint_every=100)

    def failing(latents: Tensor, seed: int, step: int, slots: Any) -> Tensor:
        if step == 2:
            raise RuntimeError("CUDA error: out of luck")
        return draw_noise(latents, seed, step, slots)

    with monkeypatch.context() as patch:
        patch.setattr("trainer.train.draw_noise", failing)
        with pytest.raises(RuntimeError, match="out of luck"):
            train(config)
    assert newest(Path(config.output)) == path_of(Path(config.output), 2)
    assert_same_bits(train(config), train(configure("whole")))


def test_a_held_out_clip_that_cannot_be_read_does_not_end_the_run(configure: Configure) -> None:
    config = configure(steps=1, validation={"share": 0.7, "every": 1}, samples={"every": 1})
    held = held_out(config, None)
    assert held is not None and len(held.picks) > 1
    bad = held.picks[0].sample_id
    assert break_clip(config, int(bad[-4:])) == bad
    assert read_info(train(config))["step"] == 1
    assert len(scalars_of(config)["validation/loss"]) == 1
    assert len(list((Path(config.output) / "samples" / "step-00000001").iterdir())) == 1


# --- numbers


def poisoning(*steps: int) -> Callable[..., Tensor]:
    def draw(latents: Tensor, seed: int, step: int, slots: Any) -> Tensor:
        noise = draw_noise(latents, seed, step, slots)
        return noise * math.nan if step in steps else noise

    return draw


def test_a_step_without_numbers_is_left_out(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = configure()
    monkeypatch.setattr("trainer.train.draw_noise", poisoning(1))
    train(config)
    said = capfd.readouterr().err
    assert "left out: step 1: the loss is not finite; samples: toy-" in said
    first, second = (weights_of(path_of(Path(config.output), step)) for step in (1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.isfinite(value).all() for value in tensors_of(path_of(Path(config.output), 3)).values())
    assert [row["step"] for row in skipped(config)] == [1]
    assert [step for step, _ in scalars_of(config)["loss"]] == [1, 3]


def test_many_such_steps_go_back_to_the_last_good_weights_then_end(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = configure(steps=9, checkpoint_every=2, non_finite={"skip": 1, "back": 1})
    monkeypatch.setattr("trainer.train.draw_noise", poisoning(3, 4, 6, 7, 8))
    with pytest.raises(NonFiniteLoss, match="step 7"):
        train(config)
    said = capfd.readouterr().err
    second = path_of(Path(config.output), 2)
    assert f"back to the weights of {second}, later clips: step 4" in said
    # Step 3 was left out, step 4 went back to the weights after step 2; then steps 5 to 7 went on from there.
    saved = {path.name for path in (Path(config.output) / "checkpoints").iterdir()}
    assert {"step-00000004", "step-00000006", "step-00000007"} == saved
    # At step 4 the checkpoint was not written yet: it holds what was restored.
    assert [row["step"] for row in skipped(config)] == [3, 4, 6, 7]


# --- disks


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config, sync, calls = configure(), checkpoints._sync, []

    def full_once(path: Path) -> None:
        calls.append(path)
        if "step-00000001" in str(path):
            raise OSError(28, "No space left on device")
        sync(path)

    monkeypatch.setattr(checkpoints, "_sync", full_once)
    made = train(config)
    assert made == path_of(Path(config.output), 3) and calls
    assert "step-00000001 could not be written: [Errno 28] No space left on device" in capfd.readouterr().err
    saved = sorted(path.name for path in (Path(config.output) / "checkpoints").iterdir())
    assert saved == ["step-00000002", "step-00000003"]


def test_clips_that_cannot_be_written_do_not_end_the_run(
    configure: Configure, capfd: pytest.CaptureFixture[str]
) -> None:
    config = configure(steps=2, samples={"every": 1})
    Path(config.output).mkdir()
    (Path(config.output) / "samples").write_text("where the folder should be")
    assert read_info(train(config))["step"] == 2
    said = capfd.readouterr().err
    assert "samples/step-00000001: clips cannot be written" in said and "Not a directory" in said


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's
def test_a_full_disk_ends_neither_the_run_nor_its_saving(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is tracked, and the list of what was left out, are lost; what was learned is not."""
    config, write = configure(), record_writer.RecordWriter.write

    def full(self: Any, data: bytes) -> None:
        if b"gradient_norm" in data:
            raise OSError(28, "No space left on device")
        write(self, data)

    monkeypatch.setattr(record_writer.RecordWriter, "write", full)
    Path(config.output, "skipped.jsonl").mkdir(parents=True)
    break_clip(config, 1)
    assert read_info(train(config))["step"] == 3
    said = capfd.readouterr().err
    assert said.count("TensorBoard: [Errno 28] No space left on device; training goes on without it") == 1
    assert "skipped.jsonl could not be written" in said and "left out, 1 of at most 100" in said


def test_the_last_checkpoint_must_be_written(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config, sync = configure(), checkpoints._sync

    def full(path: Path) -> None:
        if "step-00000003" in str(path):
            raise OSError(28, "No space left on device")
        sync(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_sync", full)
        with pytest.raises(CheckpointError, match="step-00000003 could not be written"):
            train(config)
    assert newest(Path(config.output)) == path_of(Path(config.output), 2)
    assert_same_bits(train(config), train(configure("whole")))


# --- settings


def stopped_at(config: TrainConfig, step: int) -> TrainConfig:
    """A run whose newest checkpoint is that of a step."""
    train(config)
    for number in range(step + 1, config.steps + 1):
        shutil.rmtree(path_of(Path(config.output), number))
    return config


def test_changed_settings_are_refused_by_name_or_taken_on_purpose(configure: Configure) -> None:
    stopped_at(configure(), 2)
    changed = configure(seed=7, shift=3.0, checkpoint_every=50, log_every=7)
    with pytest.raises(
        SettingsError,
        match=r"trained otherwise: seed was 0, is 7; shift was 5.0, is 3.0; .*--allow seed --allow shift$",
    ):
        train(changed)
    with pytest.raises(SettingsError, match=r"otherwise: shift was 5.0, is 3.0"):
        train(changed, ["seed"])
    info = read_info(train(changed, ["seed", "shift"]))
    assert info["changed"] == [
        {"step": 2, "name": "seed", "was": 0, "is": 7},
        {"step": 2, "name": "shift", "was": 5.0, "is": 3.0},
    ]


def test_groups_of_settings_are_allowed_together(configure: Configure) -> None:
    config = stopped_at(configure(), 1)
    other = {"each": 0.3, "all": 0.2}
    with pytest.raises(SettingsError, match=r"--allow dropout\.all --allow dropout\.each"):
        train(configure(dropout=other))
    assert len(read_info(train(configure(dropout=other), ["dropout"]))["changed"]) == 2
    assert Path(config.output) == Path(configure().output)


def test_another_network_is_never_gone_on_with(configure: Configure) -> None:
    stopped_at(configure(), 1)
    model = {"random": "tiny", **WIDTHS, "audio_tokens": 13}
    with pytest.raises(
        SettingsError, match=r"another network: model.audio_tokens was 12, is 13; set another"
    ):
        train(configure(model=model), ["model"])


def test_fewer_steps_than_are_done(configure: Configure) -> None:
    stopped_at(configure(), 2)
    with pytest.raises(SettingsError, match=r"steps 1: .*step-00000002 has done 2; set more"):
        train(configure(steps=1), ["steps"])


def test_the_cosine_goes_on_where_the_number_of_steps_changes(configure: Configure) -> None:
    config = stopped_at(configure(steps=4, optimiser={"warmup_steps": 0, "learning_rate": 1.0}), 2)
    longer = configure(steps=6, optimiser={"warmup_steps": 0, "learning_rate": 1.0})
    with pytest.raises(SettingsError, match=r"steps was 4, is 6; .*--allow steps"):
        train(longer)
    made = train(longer, ["steps"])
    schedule = read_info(made)["schedule"]
    assert schedule == [[0, 4], [2, 6]]
    rates = [learning_rate(longer, step, schedule) for step in range(6)]
    # Half a cosine: 0 and 1/4 of it before, then the other half in four steps.
    phases = [0, 1 / 4, 1 / 2, 5 / 8, 3 / 4, 7 / 8]
    assert rates == pytest.approx([0.5 * (1 + math.cos(math.pi * phase)) for phase in phases])
    assert [rate for _, rate in scalars_of(longer)["learning_rate"]][-4:] == pytest.approx(rates[-4:])
    # At its end it cannot be made longer.
    with pytest.raises(SettingsError, match=r"at the end of its cosine.*init: "):
        train(configure(steps=8, optimiser={"warmup_steps": 0, "learning_rate": 1.0}), ["steps"])
    assert config.steps == 4


def test_at_the_end_of_the_ode_stage_its_rate_is_0_too(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, short = train(configure(steps=1)), configure(steps=1, stage="ode", init="somewhere")
    monkeypatch.setattr("trainer.resume.load_config", lambda path: short)
    longer = short.model_copy(update={"steps": 2})
    with pytest.raises(SettingsError, match=r"at the end of its cosine.*begin in another output$"):
        continued(longer, made, ["steps"])
    assert learning_rate(longer, 1, [[0, 1], [1, 2]]) == pytest.approx(0)


def test_what_another_start_noted_of_its_processes_is_gone(configure: Configure) -> None:
    """A run that goes on with fewer processes must not take one that is no more for the late one."""
    config = configure(steps=1)
    old = Path(config.output) / "heartbeats" / "7.json"
    old.parent.mkdir(parents=True)
    old.write_text('{"rank": 7, "host": "gone", "step": 0, "phase": "clips", "since": 0}')
    train(config)
    assert not old.exists()


# --- signals


def test_a_second_sigterm_is_the_first_one_again() -> None:
    """A scheduler sends it to all processes, and torchrun passes on its own: neither may cost the saving."""
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            signal.signal(number, lambda number, frame: heard.append(number))
        with stop_signals() as stop:
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
                signal.raise_signal(number)
            assert stop.is_set() and heard == []
            signal.raise_signal(signal.SIGINT)
            assert heard == [signal.SIGINT]
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGINT, signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_run_that_is_to_stop_makes_no_clips_before_it_saves(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(steps=3, samples={"every": 1})

    def asked_to_stop(latents: Tensor, seed: int, step: int, slots: Any) -> Tensor:
        signal.raise_signal(signal.SIGTERM)
        return draw_noise(latents, seed, step, slots)

    monkeypatch.setattr("trainer.train.draw_noise", asked_to_stop)
    assert train(config) == path_of(Path(config.output), 1)
    assert not (Path(config.output) / "samples").exists()


def test_another_vae_is_refused(configure: Configure) -> None:
    config = stopped_at(configure(), 1)
    (weights,) = Path(config.output).glob("random-*/vae/*.safetensors")
    save_file({name: value * 1.7 for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    with pytest.raises(SettingsError, match=r"the VAE wan-vae-\w+, model.folder has wan-vae-\w+: name"):
        train(config)
