"""Checkpoints of random weights, small enough for a CPU."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import torch

from trainer.config import ModelConfig
from trainer.networks.load import backbone_of, quiet
from trainer.networks.protocol import Size

WIDTH = 32  # of text and image features
IMAGE_SIDE = 32  # px; 8 x 8 patches: 17 tokens
# By the names that `model.random` has.
SIZES: Final = {
    "tiny": Size(heads=2, head_dim=12, layers=2, learns=False),
    "small": Size(heads=4, head_dim=32, layers=4, learns=True),
}


def model_folder(config: ModelConfig, output: Path) -> Path:
    """The checkpoint that a run begins with: its folder, or random weights that are written below `output`.

    Several processes may ask at once: the folder appears whole, and the weights are the same in each.
    """
    if config.random is None:
        return Path(str(config.folder))
    folder = output / f"random-{config.random}-{config.backbone}"
    if not folder.is_dir():
        making = output / f".{folder.name}-{uuid4().hex}"
        save_random_model(making, config.backbone, config.random)
        try:
            making.replace(folder)
        except OSError:
            shutil.rmtree(making)
            if not folder.is_dir():
                raise
    return folder


def save_random_model(folder: Path, backbone: str, size: str = "tiny", seed: int = 0) -> Path:
    """Save a checkpoint of random weights in the layout of the published ones, and give its folder back.

    A CLIP encoder is included; in the size `tiny` all is under 1 MB. The tokenizer's pieces are single
    characters. The global generator is left as it was.
    """
    with quiet():
        for name, part in random_parts(backbone, size, seed).items():
            part.save_pretrained(folder / name)
    return folder


def random_parts(backbone: str, size: str = "tiny", seed: int = 0) -> dict[str, Any]:
    """The parts of such a checkpoint by the names of their folders."""
    tokenizer = tiny_tokenizer()
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = backbone_of(backbone).random_parts(_t5_settings(tokenizer), SIZES[size])
        parts["tokenizer"] = tokenizer
        parts["image_encoder"], parts["image_processor"] = _clip()
    return parts


def _t5_settings(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "d_model": WIDTH,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
    }


def _clip() -> tuple[Any, Any]:
    from transformers import CLIPVisionConfig, CLIPVisionModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    encoder = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=IMAGE_SIDE,
            patch_size=8,
        )
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIDE}, crop_size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    )
    return encoder, processor


def tiny_tokenizer() -> Any:
    """A T5 tokenizer whose pieces are single characters."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(chr(code), -3.0) for code in range(33, 127)]
    return T5Tokenizer(vocab=pieces, extra_ids=0)
