"""Checkpoints: one of random weights, small enough for a CPU, and the network out of any."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from trainer.config import Backbone, ModelConfig
from trainer.networks.load import quiet

WIDTH = 32  # of text and image features
IMAGE_SIDE = 32  # px; 8 x 8 patches: 17 tokens


def model_folder(config: ModelConfig, output: Path) -> Path:
    """The checkpoint that a run begins with: its folder, or random weights that are written below `output`.

    Several processes may ask at once: the folder appears whole, and the weights are the same in each.
    """
    if config.folder is not None:
        return Path(config.folder)
    folder = output / f"random-{config.backbone}"
    if not folder.is_dir():
        making = output / f".{folder.name}-{uuid4().hex}"
        save_random_model(making, config.backbone)
        try:
            making.replace(folder)
        except OSError:
            shutil.rmtree(making)
            if not folder.is_dir():
                raise
    return folder


def save_random_model(folder: Path, backbone: Backbone, seed: int = 0) -> Path:
    """Save a checkpoint of random weights in the layout of the published ones, and give its folder back.

    wan: Wan2.1 image-to-video (36 input channels, a CLIP branch), about 0.5 MB. ltx: LTX-Video, about
    1 MB, and a CLIP encoder beside it. The tokenizer's pieces are single characters. The global generator
    is left as it was.
    """
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = _wan_parts() if backbone == "wan" else _ltx_parts()
        parts["image_encoder"], parts["image_processor"] = _clip()
        for name, part in parts.items():
            part.save_pretrained(folder / name)
    return folder


def _wan_parts() -> dict[str, Any]:
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    tokenizer = tiny_tokenizer()
    return {
        "vae": AutoencoderKLWan(
            base_dim=3,
            z_dim=16,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
        ),
        "tokenizer": tokenizer,
        "text_encoder": UMT5EncoderModel(UMT5Config(**_t5_settings(tokenizer))),
        "transformer": WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=36,
            out_channels=16,
            text_dim=WIDTH,
            freq_dim=32,
            ffn_dim=48,
            num_layers=2,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            image_dim=WIDTH,
            added_kv_proj_dim=24,
            rope_max_seq_len=128,
        ),
    }


def _ltx_parts() -> dict[str, Any]:
    from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
    from transformers import T5Config, T5EncoderModel

    tokenizer = tiny_tokenizer()
    return {
        "vae": AutoencoderKLLTXVideo(
            latent_channels=16,
            block_out_channels=(4, 4, 4, 4),
            decoder_block_out_channels=(4, 4, 4, 4),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
        ),
        "tokenizer": tokenizer,
        "text_encoder": T5EncoderModel(T5Config(**_t5_settings(tokenizer), feed_forward_proj="gated-gelu")),
        "transformer": LTXVideoTransformer3DModel(
            in_channels=16,
            out_channels=16,
            num_attention_heads=2,
            attention_head_dim=12,
            cross_attention_dim=24,
            num_layers=2,
            caption_channels=WIDTH,
        ),
    }


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
