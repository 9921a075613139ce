"""What a run costs: floating-point operations and memory of the network that would be trained.

Nothing is loaded and nothing computed: torch goes through the very code of a step with tensors that have a
shape and no contents, and its own counters look on.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from manifests.buckets import Bucket
from trainer.config import TrainConfig
from trainer.data.batch import Conditions
from trainer.flow import flow_loss
from trainer.networks.conditions import latent_steps
from trainer.networks.load import backbone_of, empty_encoders, empty_network, transformer_shape
from trainer.networks.protocol import Network

CLIP_TOKENS: Final = 257  # of ViT-H at 224 px
ATTRIBUTE_TOKENS: Final = 257  # of DINOv2-L at 224 px


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


# What attention is called on a CPU, where tensors without contents live; torch counts CUDA's names alone.
_ATTENTION: Final = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def flops_by_bucket(config: TrainConfig, folder: Path | None) -> Callable[[Bucket], float]:
    """What a sample of a bucket costs in a step: forward and backward pass, floating-point operations.

    Thrice the forward pass; what is computed again where activations are not kept does not count (as MFU has
    it). The network is built once, with the first bucket that is asked for.
    """
    mode = FakeTensorMode()

    @cache
    def network() -> Network:
        return empty_network(config.model, folder, config.data.buckets.fps)

    @cache
    def flops(bucket: Bucket) -> float:
        with _no_contents(mode):
            return 3 * _forward_flops(network(), config, bucket)

    return flops


def forward_flops(config: TrainConfig, folder: Path | None, bucket: Bucket) -> float:
    """Of one sample's forward pass."""
    return flops_by_bucket(config, folder)(bucket) / 3


def _forward_flops(network: Network, config: TrainConfig, bucket: Bucket) -> float:
    noisy, conditions = empty_inputs(network, config, bucket)
    counter = FlopCounterMode(display=False, custom_mapping=_ATTENTION)
    with torch.no_grad(), counter:
        network(noisy, torch.empty(len(noisy)), conditions)
    return float(counter.get_total_flops())


def activation_bytes(config: TrainConfig, folder: Path | None, bucket: Bucket) -> float:
    """What the passes of `micro_batch` samples hold at most, forth and back, weights and gradients apart."""

    def both_passes(network: Network) -> None:
        noisy, conditions = empty_inputs(network, config, bucket, config.micro_batch)
        with _autocast(config):
            predicted = network(noisy, torch.empty(len(noisy)), conditions)
        flow_loss(predicted, noisy).mean().backward()

    return _of_all_layers(config, folder, lambda network: network, both_passes)


def rollout_bytes(config: TrainConfig, folder: Path | None, bucket: Bucket) -> float:
    """What generating `micro_batch` clips by the causal student, and its backward pass, hold at most."""
    from trainer.networks.causal import CausalWan, rollout_noise, rollout_sigmas

    sigmas = rollout_sigmas(config.distill.steps, config.distill.shift)

    def rollout(network: Network) -> None:
        _, conditions = empty_inputs(network, config, bucket, config.micro_batch)
        noise = rollout_noise(conditions, len(sigmas), 0, 0, range(config.micro_batch))
        with _autocast(config):
            clean = network(noise, sigmas, conditions, 0)
        clean.square().mean().backward()

    def causal(network: Any) -> Network:
        return CausalWan(network.transformer, config.model, config.distill.block, config.distill.window)

    return _of_all_layers(config, folder, causal, rollout)


def _of_all_layers(
    config: TrainConfig,
    folder: Path | None,
    form: Callable[[Network], Network],
    passes: Callable[[Network], None],
) -> float:
    """Peak bytes of passes: of two and of three blocks; each further one adds as much as the third."""
    peaks = []
    for layers in (2, 3):
        with _no_contents():
            network = form(empty_network(config.model, folder, config.data.buckets.fps, layers))
            peaks.append(peak_bytes(network, partial(passes, network)))
    two, three = peaks
    return two + (int(transformer_shape(config.model, folder)["num_layers"]) - 2) * (three - two)


def encoding_bytes(config: TrainConfig, folder: Path | None, bucket: Bucket) -> float:
    """What encoding the longest clips of a micro-batch by the VAE holds at most, its weights apart."""
    with _no_contents():
        vae = empty_encoders(config.model, folder)["vae"]
        video = torch.zeros(config.micro_batch, 3, bucket.frames, bucket.height, bucket.width)
        with torch.no_grad():
            return peak_bytes(vae, lambda: vae.encode(video))


def _autocast(config: TrainConfig) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16", cache_enabled=False)


@dataclass(frozen=True)
class Sizes:
    """How many numbers a network has."""

    all: int
    trained: int
    outside: int  # of the blocks and adapters
    largest_block: int  # with its adapter


def sizes_of(config: TrainConfig, folder: Path | None) -> Sizes:
    """Of the network that is trained, low-rank additions included."""
    from trainer.lora import add_lora
    from trainer.optimiser import freeze

    with _no_contents():
        network = empty_network(config.model, folder, config.data.buckets.fps)
        if config.optimiser.trainable == "lora":
            add_lora(network, config.lora)
        freeze(network, config)
        modules: Any = network
        pairs = zip(network.blocks(), modules.adapters, strict=True)
        blocks = [parameters_of(block) + parameters_of(adapter) for block, adapter in pairs]
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        return Sizes(parameters_of(network), trained, parameters_of(network) - sum(blocks), max(blocks))


def encoder_sizes(config: TrainConfig, folder: Path | None) -> dict[str, int]:
    """Numbers of the frozen encoders by the names of their folders."""
    with _no_contents():
        return {name: parameters_of(part) for name, part in empty_encoders(config.model, folder).items()}


def peak_bytes(module: nn.Module, what: Callable[[], object]) -> float:
    """What `what` holds at most besides the weights of a module and their gradients."""

    def let_go(parameter: Tensor) -> None:
        parameter.grad = None  # of sharded weights gradients are scattered as soon as they are there

    hooks = [p.register_post_accumulate_grad_hook(let_go) for p in module.parameters() if p.requires_grad]
    try:
        with _Held() as held:
            what()
    finally:
        for hook in hooks:
            hook.remove()
    return held.peak


class _Held(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, as long as they live; not those made before.

    torch's own MemTracker takes a module that is called more than once for an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0.0
        self._seen: WeakSet[Any] = WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [t.untyped_storage() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage in self._seen or any(storage is one for one in given):
                continue
            self._seen.add(storage)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return made

    def _free(self, size: int) -> None:
        self.now -= size


@contextmanager
def _no_contents(mode: FakeTensorMode | None = None) -> Iterator[None]:
    with mode or FakeTensorMode(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")  # of a CPU's norm
        yield


def parameters_of(module: nn.Module) -> int:
    """Numbers that a module holds."""
    return sum(parameter.numel() for parameter in module.parameters())


def empty_inputs(
    network: Network, config: TrainConfig, bucket: Bucket, count: int = 1
) -> tuple[Tensor, Conditions]:
    """Noisy latents and conditions of `count` clips of a bucket."""
    model, backbone = config.model, backbone_of(config.model.backbone)
    shape: Any = network.transformer.config
    steps = latent_steps(bucket.frames, backbone.frame_step)
    height, width = bucket.height // backbone.pixels, bucket.width // backbone.pixels
    position: Any = network.position
    channels, image_dim = int(shape.out_channels), int(position.linear_1.out_features)
    yes = torch.ones(count, dtype=torch.bool)
    conditions = Conditions(
        text=torch.zeros(count, backbone.text_tokens, backbone.text_width(shape)),
        text_mask=torch.ones(count, backbone.text_tokens, dtype=torch.bool),
        image=torch.zeros(count, CLIP_TOKENS, image_dim),
        reference=torch.zeros(count, channels, 1, height, width),
        image_latents=torch.zeros(count, channels, steps, height, width),
        known=torch.ones(count, dtype=torch.int64),
        points=torch.zeros(count, 2),
        identity=torch.zeros(count, model.identity_dim),
        attributes=torch.zeros(count, ATTRIBUTE_TOKENS, model.attribute_dim),
        audio=torch.zeros(count, bucket.frames, model.audio_dim),
        has_points=yes,
        has_identity=yes,
        has_attributes=yes,
        has_audio=yes,
        has_reference=yes,
    )
    return torch.zeros(count, channels, steps, height, width), conditions
