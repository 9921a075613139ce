"""The training loop, from top to bottom (InterAvatar C.1, stages 1 and 2; stage 3 is `self_forcing.py`).

    python -m pipelines train --config configs/train/tiny.yaml
    torchrun --nproc-per-node 8 -m pipelines train --config configs/train/wan_stage1.yaml

What a step sees and draws is a function of (seed, step, place in the batch) alone: not of the number of
processes, of accumulation, of the loader's workers, or of how often the run was interrupted.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor, nn

from configs.reading import SettingsError
from trainer import checkpoint as checkpoints
from trainer import run as loop
from trainer.config import TrainConfig
from trainer.data.source import ClipSource
from trainer.flow import add_noise, draw_noise, draw_sigmas, flow_loss, velocity
from trainer.generate import sample
from trainer.networks.encoders import Encoders, encode, encode_conditions
from trainer.networks.load import load_backbone


def train(config: TrainConfig) -> Path:
    """Train to `config.steps`, going on from the newest complete checkpoint in `config.output`.

    Every process of a group calls it (torchrun, accelerate launch, the loop of Ray Train's TorchTrainer).
    SIGTERM or Ctrl-C saves and ends after the step at hand.

    Returns:
        The newest checkpoint.

    Raises:
        SettingsError: the configuration fits neither the processes nor what was trained here before.
        CheckpointError: a checkpoint cannot be used, or another process trains here.
        NonFiniteLoss: see there.
    """
    if config.stage != "flow":
        raise SettingsError(f"stage {config.stage} is not trained by flow matching")
    with loop.begin(config) as run:
        network = load_backbone(config.model, run.folder, config.data.buckets.fps)
        if run.before is not None and run.newest is None:
            checkpoints.load_weights(run.before, network)
        model, optimiser = run.accelerator.prepare(network, loop.adamw(network, config))
        ema = loop.average_of(run, model)

        def clip() -> Tensor:
            return sample_clip(model, run.encoders, run.source, config)

        with closing(loop.steps(run, ema, clip)) as steps:
            for step in steps:
                rate = loop.set_learning_rate(optimiser, loop.learning_rate(config, step.number))
                losses = []
                for batch, last_part in step.parts:
                    latents, conditions = encode(batch, run.encoders)
                    sigma = draw_sigmas(config.seed, step.number, batch.slots, config.shift)
                    sigma = sigma.to(latents.device)
                    noise = draw_noise(latents, config.seed, step.number, batch.slots)
                    with loop.gathering(run, model, last_part):
                        predicted = model(add_noise(latents, noise, sigma), sigma, conditions)
                        loss = flow_loss(predicted, velocity(latents, noise))
                        run.accelerator.backward(loss.mean() / config.accumulation)
                    losses.append(loss.detach())

                every_loss, norm = loop.clip_and_check(run, step, model, losses)
                optimiser.step()
                optimiser.zero_grad()
                if ema is not None:
                    ema.update(step.number)
                sigmas = draw_sigmas(config.seed, step.number, range(config.batch), config.shift)
                step.report(sigmas.tolist(), every_loss, norm, rate)
    assert run.newest is not None
    return run.newest


@torch.no_grad()
def sample_clip(model: nn.Module, encoders: Encoders, source: ClipSource, config: TrainConfig) -> Tensor:
    """The first clip of step 0 made anew from all of its conditions: uint8 [3, F, H, W].

    Every process makes it: under FSDP each one has only a part of the network.
    """
    batch = loop.first_clip(source)
    conditions = encode_conditions(batch, encoders)
    frames = batch.audio.shape[1]
    return sample(model, encoders, conditions, frames, seed=config.seed, shift=config.shift)[0]
