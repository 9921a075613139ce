"""A Wan 2.2 image-to-video checkpoint of random weights, small enough for a CPU: every part in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from trainer.networks.tiny import tiny_tokenizer


def save_tiny_wan(folder: Path, scale: float = 3.0) -> Path:
    """Save a pipeline like Wan-AI/Wan2.2-I2V-A14B-Diffusers, about 0.4 MB, and give its folder back.

    scale: by how much the random weights of the transformers are enlarged, so that prompts, guidance and
    noise all show in 8-bit pictures.
    """
    from diffusers import (
        AutoencoderKLWan,
        UniPCMultistepScheduler,
        WanImageToVideoPipeline,
        WanTransformer3DModel,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )
    tokenizer = tiny_tokenizer()
    text_encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=32,
            d_kv=8,
            d_ff=37,
            num_layers=2,
            num_heads=4,
            relative_attention_num_buckets=8,
        )
    )
    experts = [
        WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=36,
            out_channels=16,
            text_dim=32,
            freq_dim=256,
            ffn_dim=32,
            num_layers=2,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=128,
        )
        for _ in range(2)
    ]
    with torch.no_grad():
        for expert in experts:
            for weight in expert.parameters():
                weight.mul_(scale)
    # The published conversion says 3.0 too; the paper's settings say 5.0.
    scheduler = UniPCMultistepScheduler(
        flow_shift=3.0, prediction_type="flow_prediction", use_flow_sigmas=True
    )
    pipe = WanImageToVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        image_encoder=None,
        image_processor=None,
        transformer=experts[0],
        transformer_2=experts[1],
        vae=vae,
        scheduler=scheduler,
        boundary_ratio=0.9,
    )
    pipe.save_pretrained(folder)
    return folder


def save_tiny_lightning(folder: Path, blocks: int = 2, width: int = 24, ffn: int = 32) -> Path:
    """Save random LoRA for both experts of `save_tiny_wan` as lightx2v/Wan2.2-Lightning lays them out."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    draw = torch.Generator().manual_seed(0)
    layers = {f"{kind}_attn.{name}": (width, width) for kind in ("self", "cross") for name in "qkvo"}
    layers |= {"ffn.0": (width, ffn), "ffn.2": (ffn, width)}
    for file in ("high_noise_model", "low_noise_model"):
        tensors = {}
        for block in range(blocks):
            for layer, (into, out) in layers.items():
                name = f"diffusion_model.blocks.{block}.{layer}"
                tensors[f"{name}.lora_down.weight"] = torch.randn(4, into, generator=draw)
                tensors[f"{name}.lora_up.weight"] = torch.randn(out, 4, generator=draw)
                tensors[f"{name}.alpha"] = torch.tensor(2.0)
        save_file(tensors, folder / f"{file}.safetensors")
    return folder


def edit_index(folder: Path, **changes: Any) -> None:
    """Change entries of a saved pipeline's `model_index.json`."""
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
