"""What a training run would take: memory of a GPU by kind, days; computed before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from configs.reading import SettingsError
from manifests.buckets import Bucket
from trainer.config import TrainConfig
from trainer.cost import (
    Sizes,
    activation_bytes,
    encoder_sizes,
    encoding_bytes,
    forward_flops,
    rollout_bytes,
    sizes_of,
)
from trainer.run import parts_of_share

GIB: Final = 2**30
# What is not counted here, and is assumed: CUDA's own, NCCL's buffers, gaps between allocations.
RESERVE: Final = 6 * GIB
# Of one GPU of 989 TFLOP/s, bfloat16, in training: an assumption, not a measurement.
ASSUMED_TFLOPS: Final = 350.0


class DoesNotFit(SettingsError):
    """The run needs more memory than a GPU has; the message says what takes it, and what would help."""


@dataclass(frozen=True)
class Plan:
    """What a run takes."""

    gpus: int
    parameters: dict[str, int]  # numbers of the network and of each encoder that is loaded
    memory: dict[str, float]  # bytes on one GPU, by kind, at their most
    micro_batches: int  # forward passes that a GPU's share of a batch takes
    flops: float  # of one sample in a step, what is computed again included; encoders apart
    days: float  # for all steps, at `tflops`, without encoders, loading and saving
    tflops: float  # of one GPU

    @property
    def total(self) -> float:
        """Bytes on one GPU."""
        return sum(self.memory.values())

    def check(self, limit: float) -> None:
        """Raise DoesNotFit if a GPU of `limit` bytes is too small."""
        if self.total <= limit:
            return
        most = sorted(self.memory.items(), key=lambda pair: -pair[1])[:3]
        said = ", ".join(f"{kind} {size / GIB:.1f}" for kind, size in most)
        raise DoesNotFit(
            f"{self.total / GIB:.1f} GiB on each of {self.gpus} GPUs of {limit / GIB:.0f} GiB: {said}. What "
            "helps: micro_batch 1, model.gradient_checkpointing, more GPUs in a machine, data.latents, "
            "data.buckets with fewer frames, optimiser.trainable lora"
        )


def plan(
    config: TrainConfig,
    gpus: int,
    per_machine: int = 8,
    tflops: float = ASSUMED_TFLOPS,
    folder: Path | None = None,
) -> Plan:
    """Compute what a run takes, at its longest bucket.

    Args:
        config: of the run.
        gpus: how many.
        per_machine: of them in one machine; weights are cut into shares within a machine.
        tflops: what a GPU is taken to do, TFLOP/s.
        folder: of the diffusers checkpoint; what is not there has the published shape.

    Raises:
        SettingsError: the batch cannot be shared by so many.
    """
    micro_batches = parts_of_share(config, gpus)
    bucket, shares = longest_bucket(config), min(gpus, per_machine)
    sizes, encoders = sizes_of(config, folder), encoder_sizes(config, folder)
    if config.data.latents is not None:
        encoders = {"vae": encoders["vae"]}  # all that is loaded
    forward = forward_flops(config, folder, bucket)
    flops = forward * _passes(config)
    return Plan(
        gpus=gpus,
        parameters={"network": sizes.all, "trained": sizes.trained} | encoders,
        memory=_memory(config, folder, bucket, shares, sizes, encoders),
        micro_batches=micro_batches,
        flops=flops,
        days=config.steps * config.batch * flops / (gpus * tflops * 1e12) / 86400,
        tflops=tflops,
    )


def longest_bucket(config: TrainConfig) -> Bucket:
    """The bucket with the most frames; all have about as many pixels."""
    buckets = config.data.buckets
    width, height = buckets.size_of(1.0)
    return Bucket(buckets.frames_within(buckets.max_frames), width, height)


def _passes(config: TrainConfig) -> float:
    """Forward passes that a sample costs in a step, on average; a backward pass is as long as two."""
    both = 4 if config.model.gradient_checkpointing else 3
    if config.stage == "flow":
        return both
    if config.stage == "ode":
        return both + 1  # what is remembered; the teacher's way is computed once a clip
    distill = config.distill
    rollout = (len(distill.steps) + 1) / 2 + 1  # noise levels until the exit, and what is remembered
    teacher = 2 if distill.guidance != 1 else 1
    return rollout + both + (both - 1 + teacher + 1) / distill.critic_steps


def _memory(
    config: TrainConfig,
    folder: Path | None,
    bucket: Bucket,
    shares: int,
    sizes: Sizes,
    encoders: dict[str, int],
) -> dict[str, float]:
    half = 2 if config.precision == "bf16" else 4
    distils = config.is_causal
    trained = 2 if config.stage == "self_forcing" else 1  # networks: student and critic, or the one
    memory: dict[str, float] = {
        "weights": 4 * trained * sizes.all / shares,
        "gradients": 4 * trained * sizes.trained / shares,
        "optimiser": 8 * trained * sizes.trained / shares,
        "average": 4 * sizes.trained / shares if config.ema else 0.0,
    }
    if distils:
        memory["teacher"] = half * sizes.all / shares
    if shares > 1:
        # What is gathered: one block while the next one comes, and its gradients; what is outside stays.
        outside = sizes.outside * (4 * trained + (half if distils else 0))
        memory["gathered"] = outside + 3 * 4 * sizes.largest_block
    passes = activation_bytes(config, folder, bucket)
    if distils:
        passes = max(passes, rollout_bytes(config, folder, bucket))
    memory["activations"] = passes
    size = {"vae": 4, "image_encoder": 4, "text_encoder": half}
    memory["encoders"] = float(sum(size[name] * count for name, count in encoders.items()))
    if config.data.latents is None and not distils:
        # They are done before the passes begin: only what they need beyond those counts.
        memory["encoding"] = max(0.0, encoding_bytes(config, folder, bucket) - passes)
    memory["assumed reserve"] = RESERVE
    return memory
