"""What training begins with: models of the store, put together as one folder in diffusers' layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoTokenizer, CLIPVisionModel

from backends.store.copied_weights import ModelStoreError
from backends.store.model_store import ModelStore
from backends.store.training_starts import Start
from manifests import storage
from trainer.networks.encoders import SETTINGS, PictureSettings
from trainer.networks.load import WeightsError, backbone_of, check_part, quiet

SOURCES: Final = "sources.yaml"
ORIGINAL: Final = "diffusion_pytorch_model.safetensors"  # Wan's own names, config.json beside it


def assemble(
    store: ModelStore, start: Start, folder: Path, say: Callable[[str], None] = lambda _: None
) -> int:
    """Make the folder, which appears whole, and check every weight in it; returns their number.

    Parts are links into the store; a transformer in Wan's own names is converted and written. Which model of
    the store each part is stands in `sources.yaml`, with its licence. A folder that is there already is
    checked again.

    Args:
        store: a folder of this machine that holds `start.models`.
        start: one of `backends.store.training_starts.STARTS`.
        folder: to make.
        say: called with a line before something that takes long.

    Raises:
        ModelStoreError: another folder is there, or the disk is full.
        WeightsError: a part lacks a weight, or has one too many, or one of another shape or type.
    """
    sources = {part: _source(store, model) for part, model in start.parts.items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = folder.with_name(f".{folder.name}.partial")
    with storage.locked(folder.with_name(f".{folder.name}.lock")):
        if folder.exists():
            if not _is_made_of(folder, sources):
                raise ModelStoreError(
                    f"{folder} is there already and is not made of {', '.join(start.models)}: move it away, "
                    "or give another --folder"
                )
            say(f"{folder}: there already; every weight is checked")
            return check(start.backbone, folder)
        shutil.rmtree(making, ignore_errors=True)  # of a process that was killed
        making.mkdir()
        try:
            for part, model in start.parts.items():
                held = store.weights(model).folder
                if part == "transformer" and (held / ORIGINAL).is_file():
                    say(f"{model}: converted to diffusers' names")
                    convert(held, making / part)
                else:
                    (making / part).symlink_to((held / part).absolute(), target_is_directory=True)
            (making / SOURCES).write_text(yaml.safe_dump(sources, sort_keys=False))
            say(f"{folder}: every weight is checked")
            weights = check(start.backbone, making)
            making.rename(folder)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
    return weights


def _source(store: ModelStore, name: str) -> dict[str, Any]:
    """What `sources.yaml` says of a part."""
    entry = store.entry(name)
    said = {
        "model": str(store.weights(name)),
        "repository": entry.source.huggingface,
        "revision": entry.source.revision,
        "licence": entry.licence,
        "licence_url": entry.licence_url,
    }
    return {key: value for key, value in said.items() if value is not None}


def _is_made_of(folder: Path, sources: Mapping[str, Any]) -> bool:
    try:
        return bool(yaml.safe_load((folder / SOURCES).read_text()) == sources)
    except (OSError, ValueError, yaml.YAMLError):
        return False


def check(backbone: str, folder: Path) -> int:
    """The number of weights in a checkpoint; each part is loaded, none has a weight too few or too many.

    Raises:
        WeightsError: of the first part that does not fit.
    """
    kinds = backbone_of(backbone)
    parts = {"transformer": kinds.transformer, "vae": kinds.vae, "text_encoder": kinds.text_encoder}
    weights = sum(
        check_part(kind, folder / part) for part, kind in (parts | {"image_encoder": CLIPVisionModel}).items()
    )
    PictureSettings.read(folder / "image_processor" / SETTINGS, 1)
    try:
        AutoTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder / 'tokenizer'}: not a tokenizer ({error})") from None
    return weights


def convert(source: Path, target: Path) -> None:
    """A transformer in Wan's own names, such as Wan2.1-Fun-1.3B-InP, as diffusers' `WanTransformer3DModel`.

    diffusers takes the shapes of such a file for those of text-to-video; here they are read off its weights.
    The weights keep their type.

    Args:
        source: holds config.json of Wan's `WanModel` and diffusion_pytorch_model.safetensors.
        target: folder to make.

    Raises:
        WeightsError: it is another network.
        ModelStoreError: too little space.
    """
    file = source / ORIGINAL
    free = shutil.disk_usage(target.parent).free
    if file.stat().st_size > free:
        raise ModelStoreError(
            f"{file.stat().st_size / 1e9:.1f} GB are to be written, {free / 1e9:.1f} GB are free in "
            f"{target.parent.parent}; give another --folder"
        )
    try:
        said = json.loads((source / "config.json").read_text())
        weights = load_file(file)
        shape = _shape(said, weights)
        with torch.device("meta"):
            transformer: Any = WanTransformer3DModel(**shape)
        transformer.load_state_dict(
            convert_wan_transformer_to_diffusers(weights), strict=True, assign=True
        )  # takes the weights out of `weights`, so that they are there once
    except KeyError as error:
        raise WeightsError(f"{source}: not a transformer of Wan 2.1: there is no {error}") from None
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{source}: not an image-to-video transformer of Wan 2.1: {error}") from None
    try:
        with quiet():
            transformer.save_pretrained(target)
    except SafetensorError as error:  # of the system's errors, such as a full disk, it makes its own
        raise ModelStoreError(f"{target}: {error}") from None


def _shape(said: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Settings of `WanTransformer3DModel`, of the original's config.json and weights."""
    patches = weights["patch_embedding.weight"]
    width = patches.shape[0]
    heads = int(said["num_heads"])
    return {
        "patch_size": tuple(patches.shape[2:]),
        "num_attention_heads": heads,
        "attention_head_dim": width // heads,
        "in_channels": patches.shape[1],
        "out_channels": int(said["out_dim"]),
        "text_dim": weights["text_embedding.0.weight"].shape[1],
        "freq_dim": weights["time_embedding.0.weight"].shape[1],
        "ffn_dim": weights["blocks.0.ffn.0.weight"].shape[0],
        "num_layers": int(said["num_layers"]),
        "cross_attn_norm": "blocks.0.norm3.weight" in weights,
        "qk_norm": "rms_norm_across_heads",
        "eps": float(said["eps"]),
        "image_dim": weights["img_emb.proj.1.weight"].shape[1],
        "added_kv_proj_dim": width,
    }
