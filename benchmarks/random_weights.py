"""Random weights of the models, laid out as the model store holds the real ones.

Each takes an empty folder. `small` keeps the architecture and the file layout, for tests on a CPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def sam2(folder: Path, small: bool = False) -> None:
    """`facebook/sam2.1-hiera-large`, which is published as the video model; small: pictures of 128 x 128."""
    import torch
    from transformers import (
        Sam2HieraDetConfig,
        Sam2ImageProcessor,
        Sam2VideoConfig,
        Sam2VideoModel,
        Sam2VisionConfig,
    )
    from transformers.models.sam2_video.configuration_sam2_video import (
        Sam2VideoMaskDecoderConfig,
        Sam2VideoPromptEncoderConfig,
    )

    backbone: dict[str, Any] = {
        "hidden_size": 144,
        "num_attention_heads": 2,
        "blocks_per_stage": [2, 6, 36, 4],
        "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "window_size_per_stage": [8, 4, 16, 8],
        "global_attention_blocks": [23, 33, 43],
        "window_positional_embedding_background_size": [7, 7],
    }
    vision: dict[str, Any] = {"backbone_channel_list": [1152, 576, 288, 144]}
    prompt: dict[str, Any] = {}
    decoder: dict[str, Any] = {}
    memory: dict[str, Any] = {}
    side = 1024
    if small:
        side = 128
        backbone = {
            "hidden_size": 12,
            "num_attention_heads": 1,
            "image_size": [side, side],
            "blocks_per_stage": [1, 2, 1, 1],
            "embed_dim_per_stage": [12, 24, 48, 96],
            "num_attention_heads_per_stage": [1, 1, 2, 4],
            "global_attention_blocks": [2],
            "window_positional_embedding_background_size": [2, 2],
        }
        vision = {
            "backbone_channel_list": [96, 48, 24, 12],
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        }
        prompt = {"hidden_size": 32, "image_size": side, "patch_size": 16}
        decoder = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
        memory = {
            "memory_attention_hidden_size": 32,
            "memory_attention_num_layers": 1,
            "memory_attention_feed_forward_hidden_size": 64,
            "memory_attention_rope_feat_sizes": [8, 8],
            "memory_encoder_hidden_size": 32,
            "memory_encoder_output_channels": 16,
            "mask_downsampler_embed_dim": 32,
            "memory_fuser_embed_dim": 32,
            "memory_fuser_intermediate_dim": 64,
        }
    config = Sam2VideoConfig(
        vision_config=Sam2VisionConfig(backbone_config=Sam2HieraDetConfig(**backbone), **vision),
        # As objects: transformers 5.19 reads a dict for the decoder as one for the prompts.
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(**prompt),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(**decoder),
        image_size=side,
        enable_temporal_pos_encoding_for_object_pointers=True,
        enable_occlusion_spatial_embedding=True,
        **memory,
    )
    torch.manual_seed(0)
    net = Sam2VideoModel(config)
    for head in net.mask_decoder.output_hypernetworks_mlps:
        torch.nn.init.normal_(head.proj_out.weight, std=1e4 if small else 1)  # else masks are 0 but for noise
    net.save_pretrained(folder)
    Sam2ImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)


def cotracker3(folder: Path, small: bool = False) -> None:
    """Both models, 25 million weights each; there is no smaller one, as the package builds no other."""
    import torch
    from cotracker.models.build_cotracker import build_cotracker

    for name, offline, window in (("scaled_offline", True, 60), ("scaled_online", False, 16)):
        torch.manual_seed(0)
        torch.save(build_cotracker(offline=offline, window_len=window).state_dict(), folder / f"{name}.pth")


def openclip(folder: Path, small: bool = False) -> None:
    """OpenAI's ViT-L/14 in open_clip's layout; small: two layers for pictures of 32 x 32, vectors of 16."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    model = open_clip.get_model_config("ViT-L-14-quickgelu")
    if small:
        model = {
            "embed_dim": 16,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
            "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        }
    preprocess = {
        "mean": list(open_clip.OPENAI_DATASET_MEAN),
        "std": list(open_clip.OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**model).state_dict(), folder / "open_clip_model.safetensors")


def dinov2(folder: Path, small: bool = False) -> None:
    """`facebook/dinov2-large`; small: two layers of 32 with the same patches."""
    import torch
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    width, layers, heads = (32, 2, 2) if small else (1024, 24, 16)
    config = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=518,
        patch_size=14,
    )
    torch.manual_seed(0)
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)


def wav2vec2(folder: Path, small: bool = False) -> None:
    """`facebook/wav2vec2-base-960h`, with a CTC head; small: 32 wide with the same strides, 0.1 MB."""
    import torch
    from safetensors.torch import save_file
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    width: dict[str, Any] = {}
    if small:
        width = {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "conv_dim": [16] * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
        }
    config = Wav2Vec2Config(vocab_size=32, architectures=["Wav2Vec2ForCTC"], **width)
    torch.manual_seed(0)
    state = Wav2Vec2ForCTC(config).state_dict()
    state.pop("wav2vec2.masked_spec_embed", None)  # not in the published file, which has older names too
    state = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in state.items()
    }
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    config.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)


def syncnet(folder: Path, small: bool = False) -> None:
    """SyncNet's state dict in the form of the public file: not zipped, 52 MB. Its size cannot be chosen."""
    import torch

    from backends.sound.syncnet import build_net

    torch.manual_seed(0)
    state = build_net().state_dict()
    torch.save(state, folder / "syncnet_v2.model", _use_new_zipfile_serialization=False)


def wan(size: str, small: bool = False) -> Any:
    """A transformer of Wan image-to-video, on the default device, in the default precision; not saved.

    size: "1.3B" of 2.1 (without CLIP); "5B" or one expert of "A14B" of 2.2.
    """
    from diffusers import WanTransformer3DModel

    heads, layers, ffn, channels, out = {
        "1.3B": (12, 30, 8960, 36, 16),
        "5B": (24, 30, 14336, 48, 48),
        "A14B": (40, 40, 13824, 36, 16),
    }[size]
    width: dict[str, int] = {
        "num_layers": layers,
        "attention_head_dim": 128,
        "text_dim": 4096,
        "ffn_dim": ffn,
    }
    if small:
        heads = 2
        width = {"num_layers": 2, "attention_head_dim": 12, "text_dim": 32, "ffn_dim": 32}
    return WanTransformer3DModel(num_attention_heads=heads, in_channels=channels, out_channels=out, **width)


def qwen_folder(folder: Path, small: bool = False) -> None:
    """What vLLM needs of a Qwen2.5-VL-7B to draw its weights itself (`load_format="dummy"`): all but these.

    The tokenizer is the tests' small one; the network's vocabulary has its true size.
    """
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    from tests.support import tiny_vlm

    words = tiny_vlm.tokenizer()
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in tiny_vlm.SPECIAL}
    if small:
        config = tiny_vlm.model(ids, -(-len(words) // 64) * 64).config
    else:
        text: dict[str, Any] = {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128000,
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
            "bos_token_id": ids["endoftext"],
            "eos_token_id": ids["im_end"],
            "pad_token_id": ids["endoftext"],
        }
        vision: dict[str, Any] = {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "fullatt_block_indexes": [7, 15, 23, 31],
        }
        config = Qwen2_5_VLConfig(
            text_config=text,
            vision_config=vision,
            image_token_id=ids["image_pad"],
            video_token_id=ids["video_pad"],
            vision_start_token_id=ids["vision_start"],
            vision_end_token_id=ids["vision_end"],
            tie_word_embeddings=False,
            dtype="bfloat16",
        )
    config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    config.save_pretrained(folder)
    sides = {"min_pixels": 4 * 28 * 28, "max_pixels": (64 if small else 1280) * 28 * 28}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sides),
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(**sides),
        chat_template=tiny_vlm.CHAT,
    ).save_pretrained(folder)
