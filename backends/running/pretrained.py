"""Loading PyTorch models from the model store: the device, its precision, and no weight left to chance."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from backends.store.weights import Weights


def torch_device(device: str | None) -> str:
    """A device by name; None: CUDA where there is one, else "cpu".

    From here on float32 means float32 in the whole process: pyannote.audio switches TF32 off when it first
    runs, and what other models give must not depend on whether it has.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if device is not None:
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def autocast(device: str) -> AbstractContextManager[Any]:
    """For inference: bfloat16 where it is safe on CUDA (weights stay float32), float32 on a CPU."""
    import torch

    return torch.autocast("cuda", torch.bfloat16, enabled=device.startswith("cuda"))


def load_pretrained(kind: Any, model: Weights, device: str, dtype: Any = None, config: Any = None) -> Any:
    """A transformers model from its folder, on the device, for inference.

    transformers only warns about weights that are missing and makes them up; here that is an error.

    Args:
        kind: class with `from_pretrained`.
        model: its folder, in the layout of the Hugging Face hub with safetensors.
        device: as `torch_device` gives it.
        dtype: of the weights; None: float32.
        config: in place of the one in the folder.

    Raises:
        OSError: configuration or weights are not there.
        ValueError: weights are missing or of another shape.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    loud = logging.get_verbosity()
    logging.set_verbosity_error()  # of what the files hold beside this model
    try:
        net, found = kind.from_pretrained(
            str(model.folder),
            local_files_only=True,
            use_safetensors=True,  # a pickled checkpoint could run code
            dtype=dtype or torch.float32,
            **({} if config is None else {"config": config}),
            output_loading_info=True,
        )
    finally:
        logging.set_verbosity(loud)
    wrong = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if wrong:
        raise ValueError(
            f"{model.folder}: {len(wrong)} weights of {kind.__name__} are missing or of another shape, "
            f"the first is {wrong[0]}"
        )
    return net.to(device).eval().requires_grad_(False)
