"""Networks and encoders from folders of weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors import safe_open

from configs.errors import UserError
from trainer.config import ModelConfig
from trainer.networks.protocol import Backbone, Network

FETCH: Final = "`interavatar models fetch --for train-wan` (train-ltx) brings all that the shipped runs name"
FLOATS: Final = frozenset({"BF16", "F16", "F32"})  # as safetensors names them


def backbone_of(name: str) -> Backbone:
    """What `trainer/networks/NAME.py` says of its network; `name` is one of `trainer.backbones.BACKBONES`."""
    return cast(Backbone, import_module(f"trainer.networks.{name}").BACKBONE)


def load_backbone(config: ModelConfig, folder: Path, fps: float = 16.0) -> Network:
    """The network with its new layers: the transformer's weights from `folder`, float32, on the CPU.

    The new layers draw their first weights from torch's global generator: seed it before.

    Args:
        config: the backbone and the widths of the conditions.
        folder: has transformer and, unless the config names one, image_encoder, whose width counts.
        fps: frame rate of the clips, frames/s.

    Raises:
        WeightsError: the transformer is missing or does not fit.
    """
    from transformers import CLIPVisionConfig

    backbone = backbone_of(config.backbone)
    transformer = load_part(backbone.transformer, folder / "transformer")
    width = CLIPVisionConfig.from_pretrained(image_encoder_folder(config, folder)).hidden_size
    try:
        return backbone.network(transformer, config, width, fps)
    except ValueError as error:
        raise WeightsError(f"{folder / 'transformer'}: {error}") from None


class WeightsError(UserError):
    """A checkpoint cannot be used; the message names the folder and the way out."""


def load_part(kind: Any, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """One part of a checkpoint, from safetensors, with every weight in its place.

    Both libraries only warn about weights that are missing and make them up; here that is an error.

    Args:
        kind: a class of diffusers or transformers with `from_pretrained`.
        folder: holds its config.json and its weights.
        dtype: of the weights; parts that the class itself keeps in float32 stay so.

    Raises:
        WeightsError: files or weights are missing, or of another shape.
    """
    return _load_part(kind, folder, dtype)[0]


def check_part(kind: Any, folder: Path) -> int:
    """The number of weights of one part, loaded in bfloat16 and let go of; stricter than `load_part`.

    Args:
        kind: a class of diffusers or transformers with `from_pretrained`.
        folder: holds its config.json and its weights.

    Raises:
        WeightsError: as `load_part`; or there are weights that it has no place for, or others than floats of
            16 or 32 bits.
    """
    model, unexpected = _load_part(kind, folder, torch.bfloat16)
    if unexpected:
        raise WeightsError(
            f"{folder}: {len(unexpected)} weights have no place in {kind.__name__}, first {unexpected[0]}; "
            "it is of another model"
        )
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            types = {name: weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
        other = [f"{name} is {dtype}" for name, dtype in sorted(types.items()) if dtype not in FLOATS]
        if other:
            raise WeightsError(
                f"{file}: {other[0]}; training begins with weights of {', '.join(sorted(FLOATS))}"
            )
    return sum(weight.numel() for weight in model.parameters())


def _load_part(kind: Any, folder: Path, dtype: torch.dtype) -> tuple[Any, list[str]]:
    """The part, and the names of weights in its files that it has no place for; raises as `load_part`."""
    try:
        class_name = json.loads((folder / "config.json").read_text()).get("_class_name", kind.__name__)
    except FileNotFoundError:
        raise WeightsError(
            f"{folder}: no config.json of {kind.__name__} there; see `model` in the config; {FETCH}"
        ) from None
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{folder}/config.json: not readable ({error}); fetch it again") from None
    if class_name != kind.__name__:  # diffusers names the class, transformers does not
        raise WeightsError(
            f"{folder}: holds a {class_name}, needed is {kind.__name__}; is model.backbone right?"
        )
    with quiet():
        try:
            model, loading = kind.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,  # a pickled checkpoint could run code
                output_loading_info=True,
                **{"torch_dtype" if kind.__module__.startswith("diffusers") else "dtype": dtype},
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise WeightsError(
                f"{folder}: {kind.__name__} cannot be loaded from safetensors there: {error}"
            ) from None
    wrong = sorted({*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])})
    if wrong:
        raise WeightsError(
            f"{folder}: {len(wrong)} weights of {kind.__name__} are missing or of another shape, first "
            f"{wrong[0]}; is this the checkpoint that the config means?"
        )
    return model, sorted(loading["unexpected_keys"])


def image_encoder_folder(config: ModelConfig, folder: Path) -> Path:
    """Where the CLIP image encoder lies: the config's own, else beside the checkpoint's other parts.

    Raises:
        WeightsError: nowhere.
    """
    encoder = Path(config.image_encoder) if config.image_encoder else folder / "image_encoder"
    if not encoder.is_dir():
        raise WeightsError(
            f"{encoder}: no CLIP image encoder there; name a folder of one as model.image_encoder; {FETCH}"
        )
    return encoder


@contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars and warnings of diffusers and transformers; what is wrong is raised."""
    import diffusers
    import transformers

    logs: list[Any] = [diffusers.utils.logging, transformers.utils.logging]
    levels = [log.get_verbosity() for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)
            log.enable_progress_bar()
