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

# The image encoder of Wan 2.1, and of LTX here: OpenCLIP's ViT-H/14.
VIT_H: Final[dict[str, Any]] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
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
    backbone = backbone_of(config.backbone)
    transformer = load_part(backbone.transformer, folder / "transformer")
    try:
        return backbone.network(transformer, config, _image_dim(config, folder), fps)
    except ValueError as error:
        raise WeightsError(f"{folder / 'transformer'}: {error}") from None


def empty_network(
    config: ModelConfig, folder: Path | None, fps: float = 16.0, layers: int | None = None
) -> Network:
    """The network of `load_backbone` without its weights: where tensors need no contents (FakeTensorMode).

    Args:
        config: the backbone and the widths of the conditions.
        folder: of the diffusers checkpoint; where it is not there, the network has the published shape.
        fps: frame rate of the clips, frames/s.
        layers: blocks of the transformer; None: as many as it has.
    """
    backbone = backbone_of(config.backbone)
    shape = transformer_shape(config, folder) | ({} if layers is None else {"num_layers": layers})
    transformer = backbone.transformer.from_config(shape)
    return backbone.network(transformer, config, _image_dim(config, folder), fps)


def empty_encoders(config: ModelConfig, folder: Path | None) -> dict[str, Any]:
    """VAE, text encoder and CLIP, of the published shapes where the folder has none; see `empty_network`."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    backbone = backbone_of(config.backbone)

    def there(name: str) -> Any:
        has = folder is not None and (folder / name / "config.json").is_file()
        return str(folder / name) if folder is not None and has else None

    vae, text = there("vae"), there("text_encoder")
    t5: Any = backbone.text_encoder.config_class
    text_shape = t5(**backbone.published_text_encoder) if text is None else t5.from_pretrained(text)
    image = config.image_encoder or there("image_encoder")
    has_image = image is not None and Path(image).is_dir()
    vae_shape: Any = backbone.vae.load_config(vae) if vae else dict(backbone.published_vae)
    return {
        "vae": backbone.vae.from_config(vae_shape),
        "text_encoder": backbone.text_encoder(text_shape),
        "image_encoder": CLIPVisionModel(
            CLIPVisionConfig.from_pretrained(image) if has_image else CLIPVisionConfig(**VIT_H)
        ),
    }


def transformer_shape(config: ModelConfig, folder: Path | None) -> dict[str, Any]:
    """The config of the transformer in a diffusers checkpoint; the published one where it is not there."""
    backbone = backbone_of(config.backbone)
    if folder is not None and (folder / "transformer" / "config.json").is_file():
        return dict(backbone.transformer.load_config(str(folder / "transformer")))
    return dict(backbone.published)


def _image_dim(config: ModelConfig, folder: Path | None) -> int:
    """Width of the CLIP encoder's features; the published one where there is no folder."""
    from transformers import CLIPVisionConfig

    if folder is None or not folder.is_dir():
        return backbone_of(config.backbone).published_image_dim
    return int(CLIPVisionConfig.from_pretrained(image_encoder_folder(config, folder)).hidden_size)


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
    before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, (level, had_bar) in zip(logs, before, strict=True):
            log.set_verbosity(level)
            if had_bar:
                log.enable_progress_bar()
