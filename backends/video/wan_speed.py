"""What makes Wan faster or smaller: attention, compiled blocks, float8, distilled weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any, Final, Literal

import numpy as np

from backends.store.weights import Weights

Quantisation = Literal["float8"]

# The layout of lightx2v's Wan2.2-Lightning: one LoRA for each expert.
DISTILLED_FILES: Final = {
    "transformer": "high_noise_model.safetensors",
    "transformer_2": "low_noise_model.safetensors",
}
# Its authors trained on the times 1000, 937.5, 833.3 and 625: four even steps, shifted by 5
# (https://github.com/ModelTC/LightX2V-Wan2.2-Lightning/issues/3).
DISTILLED_STEPS: Final = 4


def is_exact(attention: str | None) -> bool:
    """Whether an attention backend differs from another by rounding alone; SageAttention rounds to 8 bits."""
    return attention is None or "sage" not in attention


def try_attention(name: str, device: str) -> None:
    """One forward pass of a network of one block with Wan's width of head.

    Args:
        name: of diffusers' attention backends.
        device: the pass runs there, in bfloat16 on CUDA, else in float32.

    Raises:
        ValueError: there is no such backend, or it does not work here; the message says why.
    """
    import torch
    from diffusers import WanTransformer3DModel, attention_backend
    from diffusers.models.attention_dispatch import AttentionBackendName

    make: Callable[..., Any] = WanTransformer3DModel
    known = sorted(backend.value for backend in AttentionBackendName)
    if name not in known:
        close = get_close_matches(name, known, 1)
        nearest = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        raise ValueError(f"diffusers has no attention backend {name!r}; {nearest}")
    kind = torch.bfloat16 if device.startswith("cuda") else torch.float32
    small = {"num_attention_heads": 1, "attention_head_dim": 128, "num_layers": 1, "ffn_dim": 8}
    net = make(text_dim=8, **small).to(device, kind).eval()
    channels = net.config.in_channels
    try:
        with torch.no_grad(), attention_backend(name):
            net(
                hidden_states=torch.ones(1, channels, 1, 16, 16, device=device, dtype=kind),
                timestep=torch.ones(1, device=device),
                encoder_hidden_states=torch.ones(1, 512, 8, device=device, dtype=kind),
            )
    except Exception as error:  # of whatever package the backend is made of
        raise ValueError(f"attention backend {name!r} does not work on {device}: {error}") from None


def try_compiling(device: str) -> None:
    """Compile one addition: torch.compile needs a C++ compiler for a CPU, Triton a C compiler for a GPU.

    Raises:
        ValueError: it does not work here.
    """
    import torch

    try:
        torch.compile(lambda x: x + 1, fullgraph=True)(torch.zeros(8, device=device))
    except Exception as error:  # torch has a class for each way in which it fails
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"compile_blocks: torch.compile does not work on {device}: {first} "
            "(it needs gcc and g++, as in Debian's package build-essential, and Python's headers)"
        ) from None


def merge_distilled(pipe: Any, weights: Weights) -> None:
    """Add the LoRA of each expert to it; nothing of them is left beside the weights.

    Raises:
        FileNotFoundError: a file is missing.
        ImportError: peft is missing, which diffusers reads LoRA with.
        ValueError: a file holds no LoRA.
        RuntimeError: the LoRA is of a network of other sizes.
    """
    import peft  # noqa: F401

    for part, file in DISTILLED_FILES.items():
        pipe.load_lora_weights(
            str(weights.folder),
            weight_name=weights.file(file).name,
            adapter_name=part,
            load_into_transformer_2=part == "transformer_2",
            use_safetensors=True,
            local_files_only=True,
        )
        pipe.fuse_lora(components=[part], adapter_names=[part])
    pipe.unload_lora_weights()


def distilled_scheduler(diffusers: Any, steps: int, shift: float) -> Any:
    """Euler's steps over even times, shifted: what the distilled weights were trained on.

    Left to itself the scheduler spreads its times down to 0: for four steps 1000, 909, 717 and 24.
    """
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    sigmas = np.linspace(1, 0, steps + 1)[:-1].tolist()
    scheduler.set_timesteps = partial(scheduler.set_timesteps, sigmas=sigmas)
    return scheduler


def keep_in_float8(pipe: Any, compute: Any) -> None:
    """Keep the experts' linear weights as float8 (e4m3, without a scale); layers compute in `compute`."""
    import torch

    for part in (pipe.transformer, pipe.transformer_2):
        part.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=compute)


@contextmanager
def running(attention: str | None, eager: bool) -> Iterator[None]:
    """Diffusers' attention backend inside the block; None: as it is. `eager`: nothing compiled is run."""
    with ExitStack() as stack:
        if attention is not None:
            from diffusers import attention_backend

            stack.enter_context(attention_backend(attention))
        if eager:
            import torch

            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
