"""Which parts of Wan lie on the GPU: what fits, and how they get there and back."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any, Final, Literal

Offload = Literal["none", "text_encoder", "model", "sequential"]
# From the fastest to the one that needs the least memory of the GPU.
OFFLOADS: Final[tuple[Offload, ...]] = ("none", "text_encoder", "model", "sequential")

# Memory beside the weights, for each pixel of the clip. Wan's table of single GPUs gives peaks of 41.0 GiB
# at 832x480 and 59.7 GiB at 1280x720 for 81 frames with one expert loaded (14,288,901,184 weights of two
# bytes, 26.6 GiB): 477 and 476 bytes a pixel remain.
WORKING_BYTES: Final = 480


def choose_offload(free: int, parts: Mapping[str, int], working: int) -> Offload:
    """What of the pipeline waits in the computer's memory while it is not used.

    Args:
        free: bytes free on the GPU before anything is loaded.
        parts: bytes of each component; the VAE stays loaded beside the others once it has been used.
        working: bytes needed beside the weights by all but the text encoder, which is done before.

    Returns:
        none: everything stays on the GPU. text_encoder: both experts and the VAE do. model: one component
        at a time is there. sequential: one layer at a time.
    """
    text = parts.get("text_encoder", 0)
    if sum(parts.values()) + working <= free:
        return "none"
    if sum(parts.values()) - text + max(working, text) <= free:
        return "text_encoder"
    largest = max(size for name, size in parts.items() if name != "vae")
    if largest + parts.get("vae", 0) + working <= free:
        return "model"
    return "sequential"


def sizes(pipe: Any) -> dict[str, int]:
    """Bytes of each component of a pipeline that has weights, as they are kept."""
    return {
        name: sum(t.numel() * t.element_size() for t in (*part.parameters(), *part.buffers()))
        for name, part in pipe.components.items()
        if hasattr(part, "parameters")
    }


def place(pipe: Any, offload: Offload, device: str) -> None:
    """Put a pipeline where `offload` says, from wherever it was."""
    import torch

    pipe.remove_all_hooks()
    pipe.to("cpu")
    pipe.vae.clear_cache()  # of a decoding that was cut short
    gc.collect()
    torch.cuda.empty_cache()
    if offload == "none":
        pipe.to(device)
    elif offload == "text_encoder":
        for part in (pipe.transformer, pipe.transformer_2, pipe.vae):
            part.to(device)
    elif offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.enable_sequential_cpu_offload(device=device)
