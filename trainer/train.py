"""The training loop, from top to bottom (InterAvatar C.1, stages 1 and 2; stage 3 is `self_forcing.py`).

    python -m pipelines train --config configs/train/tiny.yaml
    torchrun --nproc-per-node 8 -m pipelines train --config configs/train/wan_stage1.yaml

What a step sees and draws is a function of (seed, step, place in the batch) alone: not of the number of
processes, of accumulation, of the loader's workers, or of how often the run was interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from configs.reading import SettingsError
from trainer import checkpoint as checkpoints
from trainer import run as loop
from trainer.config import TrainConfig
from trainer.cost import flops_by_bucket
from trainer.data.batch import Batch
from trainer.flow import add_noise, draw_noise, draw_sigmas, flow_loss, velocity
from trainer.generate import sample
from trainer.networks.encoders import encode, encode_conditions
from trainer.optimiser import adamw, freeze, learning_rate, set_learning_rate
from trainer.sharding import compile_parts, shard
from trainer.start import initial_network
from trainer.step import Report, Step
from trainer.validation import held_out, shown, validation_loss, write_samples


def train(config: TrainConfig, allow: Sequence[str] = ()) -> Path:
    """Train to `config.steps`, going on from the newest complete checkpoint in `config.output`.

    Every process of a group calls it (torchrun, the loop of Ray Train's TorchTrainer). SIGTERM or Ctrl-C
    saves and ends after the step at hand.

    Args:
        config: of the run.
        allow: settings that may differ from those that the run had until now; see `trainer.resume`.

    Returns:
        The newest checkpoint.

    Raises:
        SettingsError: the configuration fits neither the processes nor what was trained here before.
        CheckpointError: a checkpoint cannot be used, or another process trains here.
        NonFiniteLoss, BadClips: see there.
    """
    if config.stage != "flow":
        raise SettingsError(f"stage {config.stage} is not trained by flow matching")
    with loop.begin(config, allow) as run:
        network = initial_network(config, run.folder, run.init)
        freeze(network, config)
        model = shard(network, run.processes)
        if config.compile:
            compile_parts(model)
        optimiser = adamw(model, config)
        state = checkpoints.State({"network": (model, optimiser)}, loop.average_of(run, model))
        held = held_out(config, run.source.ids)

        def generate(batch: Batch) -> Tensor:
            conditions, frames = encode_conditions(batch, run.encoders), batch.audio.shape[1]
            return sample(model, run.encoders, conditions, frames, seed=config.seed, shift=config.shift)[0]

        def samples(folder: Path) -> list[Path]:
            clips = shown(config, held, run.source)
            return write_samples(folder, clips, config, run.processes, generate)

        def validate() -> Mapping[str, float]:
            assert held is not None
            with run.autocast():
                return validation_loss(model, run.encoders, held, run.processes)

        def one_step(step: Step) -> Report:
            rate = set_learning_rate(optimiser, learning_rate(config, step.number, run.schedule))
            losses = []
            for batch in step.share:
                latents, conditions = encode(batch, run.encoders)
                sigma = draw_sigmas(config.seed, step.number, batch.slots, config.shift).to(latents.device)
                noise = draw_noise(latents, config.seed, step.number, batch.slots)
                with run.autocast():
                    predicted = model(add_noise(latents, noise, sigma), sigma, conditions)
                loss = flow_loss(predicted, velocity(latents, noise))
                (loss.mean() / step.parts).backward()
                losses.append(loss.detach())
            every_loss, norm = loop.clip_and_check(run, step, model, losses)
            optimiser.step()
            optimiser.zero_grad()
            if state.ema is not None:
                state.ema.update(step.number)
            sigmas = draw_sigmas(config.seed, step.number, range(config.batch), config.shift)
            return Report(sigmas.tolist(), every_loss, norm, rate)

        around = loop.Around(samples, None if held is None else validate, flops_by_bucket(config, run.folder))
        return loop.train_steps(run, state, around, one_step)
