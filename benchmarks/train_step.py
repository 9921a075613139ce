"""What the loop costs: its step against a bare forward, backward and optimiser step of the same network.

The bare step has its latents and conditions in memory. The loop has besides: clips from a worker, cached
latents, text encoder and CLIP, noise, clipping, the average of the weights, scalars. The network is a Wan of
random weights, large enough that a step takes about a second on one core; the encoders are tiny, so their
share at the published sizes is not measured here. Processor time is the main thread's share of the work, the
same on a machine that does other things, too; it leaves out what the worker does and the waiting for it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from rich.console import Console
from rich.table import Table

from tests.support.shard_toys import toy_shards
from trainer import run as loop
from trainer.config import TrainConfig
from trainer.data.loader import collate
from trainer.data.source import ClipSource
from trainer.data.write_latents import write_latents
from trainer.flow import add_noise, draw_noise, draw_sigmas, flow_loss, velocity
from trainer.networks.encoders import Encoders, encode, encoder_ids
from trainer.networks.load import load_backbone
from trainer.networks.tiny import save_random_model
from trainer.optimiser import adamw
from trainer.scalars import Scalars
from trainer.train import train

WIDTHS = {"identity_dim": 512, "attribute_dim": 1024, "audio_dim": 768}
FRAMES = 33


def save_model(folder: Path, layers: int, heads: int) -> Path:
    """A tiny checkpoint with a larger transformer: heads of 64 dimensions, as many layers as said."""
    from diffusers import WanTransformer3DModel

    save_random_model(folder, "wan")
    tiny = WanTransformer3DModel.load_config(str(folder / "transformer"))
    shape = {"num_attention_heads": heads, "attention_head_dim": 64, "num_layers": layers}
    wide = {"ffn_dim": 256 * heads, "added_kv_proj_dim": 64 * heads, "freq_dim": 256}
    WanTransformer3DModel.from_config(tiny, **shape, **wide).save_pretrained(folder / "transformer")
    return folder


def configure(folder: Path, steps: int, side: int, batch: int) -> TrainConfig:
    """A run on toy clips of one bucket, with cached latents."""
    values: dict[str, Any] = {
        "name": "benchmark",
        "output": str(folder / "out"),
        "steps": steps,
        "batch": batch,
        "micro_batch": batch,
        "precision": "fp32",
        "checkpoint_every": steps + 1,
        "log_every": 1,
        "data": {
            "shards": [str(folder / "shards")],
            "workers": 1,
            "buckets": {"min_frames": FRAMES, "max_frames": FRAMES, "area": side * side},
        },
        "model": {"folder": str(folder / "model"), **WIDTHS},
    }
    return TrainConfig.model_validate(values)


def now() -> tuple[float, float]:
    """Seconds on the wall's clock, and of processor time of this process."""
    return time.perf_counter(), time.process_time()


def between(begun: tuple[float, float], ended: tuple[float, float]) -> tuple[float, float]:
    """Both differences."""
    return ended[0] - begun[0], ended[1] - begun[1]


class Clock(Scalars):
    """The loop's scalars, which also note when each step ended."""

    ends: list[tuple[float, float]] = []

    def add(self, *values: Any, **named: Any) -> None:
        """See `Scalars.add`."""
        super().add(*values, **named)
        self.ends.append(now())


def loop_steps(config: TrainConfig) -> list[tuple[float, float]]:
    """What each of the loop's steps took, the first two and the last one (it saves) excepted."""
    Clock.ends = []
    loop.Scalars = Clock  # type: ignore[misc]
    train(config)
    return [between(*pair) for pair in itertools.pairwise(Clock.ends[1:])]


def bare_steps(
    config: TrainConfig, count: int
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """What each bare step took, the first two excepted; and encoding the same batch, with its noise."""
    folder = Path(str(config.model.folder))
    encoders = Encoders.load(config.model, folder)
    torch.manual_seed(config.seed)
    model = load_backbone(config.model, folder)
    optimiser = adamw(model, config)
    source = ClipSource(config, config.seed, encoder_ids(config, folder, encoders))
    batch = collate([source.load(pick) for pick in source.plan(0)])
    sigma = draw_sigmas(0, 0, batch.slots, config.shift)
    steps, encoding = [], []
    for _ in range(count):
        begun = now()
        latents, conditions = encode(batch, encoders)
        noise = draw_noise(latents, 0, 0, batch.slots)
        noisy, target = add_noise(latents, noise, sigma), velocity(latents, noise)
        encoded = now()
        flow_loss(model(noisy, sigma, conditions), target).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        steps.append(between(encoded, now()))
        encoding.append(between(begun, encoded))
    return steps[2:], encoding[2:]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="of each round, two of them to warm up")
    parser.add_argument("--rounds", type=int, default=3, help="loop and bare steps take turns so often")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4, help="of 64 dimensions")
    parser.add_argument("--side", type=int, default=192, help="of a frame, px")
    parser.add_argument("--batch", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    in_loop, bare, encoding = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        toy_shards(folder / "shards", clips=4, seconds=FRAMES / 16, size=(arguments.side,) * 2)
        save_model(folder / "model", arguments.layers, arguments.heads)
        config = configure(folder, arguments.steps, arguments.side, arguments.batch)
        encoders = Encoders.load(config.model, folder / "model")
        ids = encoder_ids(config, folder / "model", encoders)
        write_latents(ClipSource(config, 0), encoders, ids, folder / "latents")
        cached = config.data.model_copy(update={"latents": str(folder / "latents")})
        for number in range(arguments.rounds):
            here = {"output": str(folder / f"out{number}"), "data": cached}
            in_loop += loop_steps(config.model_copy(update=here))
            taken, spent = bare_steps(config.model_copy(update=here), arguments.steps)
            bare += taken
            encoding += spent
    view = Table("median of", "wall s", "processor s", "wall overhead", "processor overhead")
    base = [statistics.median(clock) for clock in zip(*bare, strict=True)]
    for what, taken in (("bare step", bare), ("loop's step", in_loop), ("encoders, noise", encoding)):
        middle = [statistics.median(clock) for clock in zip(*taken, strict=True)]
        over = [f"{m / b - 1:+.1%}" if taken is in_loop else "" for m, b in zip(middle, base, strict=True)]
        view.add_row(what, *(f"{m:.3f}" for m in middle), *over)
    Console().print(view)


if __name__ == "__main__":
    main()
