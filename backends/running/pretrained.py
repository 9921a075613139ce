"""Loading PyTorch models from the model store: the device, its precision, and no weight left to chance."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, get_args

from backends.store.weights import Weights

Precision = Literal["float32", "bfloat16", "float16"]


def torch_device(device: str | None) -> str:
    """A device by name; None: CUDA where there is one, else "cpu".

    From here on float32 means float32 in PyTorch, in the whole process: TF32 is a switch of the process, not
    of a model or a thread; pyannote.audio switches it off when it first runs, and what other models give must
    not depend on whether it has.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if device is not None:
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def autocast(device: str, precision: Precision | None = None) -> AbstractContextManager[Any]:
    """For inference: a precision where it is safe, in this thread alone; weights stay float32.

    precision: None: bfloat16 on CUDA, float32 on a CPU; else this one on either.
    """
    import torch

    if precision is None:
        precision = "bfloat16" if device.startswith("cuda") else "float32"
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(device.partition(":")[0], dtype, enabled=precision != "float32")


def check_precision(precision: str) -> None:
    """Raises ValueError where there is no such precision."""
    known = get_args(Precision)
    if precision not in known:
        raise ValueError(f"there is no precision {precision!r}; choose one of {', '.join(known)}")


def load_state(net: Any, path: Path, device: str, what: str) -> Any:
    """A network of torch with the weights of a file, on the device, for inference.

    Args:
        net: without its weights.
        path: of a state dict.
        device: as `torch_device` gives it.
        what: whose weights they have to be, for the error.

    Raises:
        ValueError: they are another network's.
    """
    import torch

    try:
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except RuntimeError as error:
        raise ValueError(f"{path}: not the weights of {what}: {error}") from error
    return net.to(device).eval().requires_grad_(False)


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
