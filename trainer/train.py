"""The training loop, from top to bottom (InterAvatar C.1, stages 1 and 2; stage 3 is `self_forcing.py`).

    python -m pipelines train --config configs/train/tiny.yaml
    torchrun --nproc-per-node 8 -m pipelines train --config configs/train/wan_stage1.yaml

What a step sees and draws is a function of (seed, step, place in the batch) alone: not of the number of
processes, of accumulation, of the loader's workers, or of how often the run was interrupted.
"""

from __future__ import annotations

import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from trainer import checkpoint as checkpoints
from trainer.config import ConfigError, TrainConfig
from trainer.data.loader import loader
from trainer.data.source import ClipSource
from trainer.ema import Ema
from trainer.flow import add_noise, draw_noise, draw_sigmas, flow_loss, velocity
from trainer.generate import sample, write_clip
from trainer.networks.encoders import Encoders, encode
from trainer.networks.load import load_backbone
from trainer.run import (
    about,
    adamw,
    begin,
    check_finite,
    clip_and_gather,
    first_clip,
    learning_rate,
    said_anywhere,
    set_learning_rate,
    stop_signals,
)
from trainer.scalars import Scalars


def train(config: TrainConfig) -> Path:
    """Train to `config.steps`, going on from the newest complete checkpoint in `config.output`.

    Every process of a group calls it (torchrun, accelerate launch, the loop of Ray Train's TorchTrainer).
    SIGTERM or Ctrl-C saves and ends after the step at hand.

    Returns:
        The newest checkpoint.

    Raises:
        ConfigError: the configuration fits neither the processes nor what was trained here before.
        CheckpointError: a checkpoint cannot be used, or another process trains here.
        NonFiniteLoss: see there.
    """
    if config.stage != "flow":
        raise ConfigError(f"stage {config.stage} is not trained by flow matching")
    with begin(config) as run:
        # The network; its new layers begin the same in every process.
        accelerator, output, newest = run.accelerator, run.output, run.newest
        encoders, source = run.encoders, run.source
        main, rank, world = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
        set_seed(config.seed)
        network = load_backbone(config.model, run.folder, config.data.buckets.fps)
        if run.before is not None and newest is None:
            checkpoints.load_weights(run.before, network)
        model, optimiser = accelerator.prepare(network, adamw(network, config))
        ema = Ema(accelerator.unwrap_model(model), config.ema) if config.ema else None
        first = checkpoints.restore(newest, accelerator, ema) if newest is not None else 0

        scalars = Scalars(output / "tensorboard" / config.name, first, config.steps, config.log_every, main)
        batches: Any = loader(config, source, first, rank, world, config.accumulation)
        with scalars, closing(batches), stop_signals() as stop:
            scalars.say(about(source))
            if first:
                scalars.say(f"going on after step {first}")
            for step in range(first, config.steps):
                rate = set_learning_rate(optimiser, learning_rate(config, step))
                waiting_since = time.monotonic()
                share = next(batches)  # of this process, in `accumulation` parts
                waited = time.monotonic() - waiting_since

                losses = []
                for number, batch in enumerate(share, 1):
                    latents, conditions = encode(batch, encoders)
                    sigma = draw_sigmas(config.seed, step, batch.slots, config.shift).to(latents.device)
                    noise = draw_noise(latents, config.seed, step, batch.slots)
                    with accelerator.no_sync(model) if number < len(share) else nullcontext():
                        predicted = model(add_noise(latents, noise, sigma), sigma, conditions)
                        loss = flow_loss(predicted, velocity(latents, noise))
                        accelerator.backward(loss.mean() / len(share))
                    losses.append(loss.detach())

                every_loss, norm = clip_and_gather(accelerator, model, losses, config)
                picks = source.plan(step)
                check_finite(step, [pick.sample_id for pick in picks], every_loss, norm)
                optimiser.step()
                optimiser.zero_grad()
                if ema is not None:
                    ema.update(step)

                done = step + 1
                sigmas = draw_sigmas(config.seed, step, range(config.batch), config.shift).tolist()
                scalars.add(done, [pick.run for pick in picks], sigmas, every_loss, norm, rate, waited)
                stopping = said_anywhere(accelerator, stop.is_set())
                if config.sample_every and done % config.sample_every == 0:
                    with ema.applied() if ema is not None else nullcontext():
                        clip = sample_clip(model, encoders, source, config)
                    if main:
                        write_clip(output / "samples" / f"step-{done:08d}.mp4", clip, config.data.buckets.fps)
                if done % config.checkpoint_every == 0 or done == config.steps or stopping:
                    newest = checkpoints.save(output, done, accelerator, config, ema, run.facts)
                if stopping:
                    scalars.say(f"stopped and saved after step {done}; the same command goes on")
                    break
    assert newest is not None
    return newest


@torch.no_grad()
def sample_clip(model: nn.Module, encoders: Encoders, source: ClipSource, config: TrainConfig) -> Tensor:
    """The first clip of step 0 made anew from all of its conditions: uint8 [3, F, H, W].

    Every process makes it: under FSDP each one has only a part of the network.
    """
    batch = first_clip(source)
    _, conditions = encode(batch, encoders)
    frames = batch.audio.shape[1]  # with cached latents, `video` is the first frame alone
    return sample(model, encoders, conditions, frames, seed=config.seed, shift=config.shift)[0]
