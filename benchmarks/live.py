"""What a stream costs: an avatar's frames against the bare transformer and VAE at the same shapes.

The stream makes whole blocks up to `--frames` frames, with a touch halfway. The bare transformer is that of
diffusers, called as often as the stream calls its own, on the latents of one block: it has neither a memory
to look at nor the new layers. The bare VAE decodes the clip in one call, in the stream's precision. Weights
are random: speed does not depend on their values. On a CPU all but the first frame and the reaction is
processor time, the same on a machine that does other things, too. InterAvatar's measure is 80 frames of
512 x 512 in 5 s.

    python -m benchmarks.live                               # a small Wan on a CPU
    python -m benchmarks.live --device cuda --true-size     # Wan2.1-1.3B, 512 x 512
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor

from trainer.config import TrainConfig
from trainer.data.batch import Batch
from trainer.generate import Trained
from trainer.networks.causal import CausalWan
from trainer.networks.encoders import Encoders, PictureSettings
from trainer.networks.tiny import random_parts
from trainer.networks.wan import BACKBONE
from trainer.stream import PARTS, Block, Stream

GOAL_FRAMES, GOAL_S = 80, 5.0
SENTENCE = "The person is reacting right after being poked."


@dataclass(frozen=True)
class Measured:
    """Seconds, all of them of `frames` frames but the first and the reaction."""

    frames: int
    first_frame: float  # from the portrait
    reaction: float  # from a touch to the first frames that know of it
    parts: dict[str, float]  # of the stream, by `trainer.stream.PARTS`
    transformer: float  # bare
    vae: float  # bare

    @property
    def stream(self) -> float:
        """All parts."""
        return sum(self.parts.values())


def small_parts() -> dict[str, Any]:
    """Parts for a CPU: a transformer 384 wide with 4 layers, a VAE a twelfth as wide as Wan's."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    parts = random_parts("wan")
    shape = {"num_attention_heads": 6, "attention_head_dim": 64, "num_layers": 4, "ffn_dim": 1536}
    wide = dict(parts["transformer"].config) | shape | {"added_kv_proj_dim": 384, "freq_dim": 256}
    return parts | {
        "transformer": WanTransformer3DModel.from_config(wide),
        "vae": AutoencoderKLWan(base_dim=8),
    }


def true_parts() -> dict[str, Any]:
    """Wan2.1-1.3B with the CLIP branch, its VAE, umT5-XXL in bfloat16 and ViT-H, on the current device."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    text = UMT5Config(
        vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    clip = CLIPVisionConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16,
        image_size=224, patch_size=14,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        text_encoder = UMT5EncoderModel(text)
    finally:
        torch.set_default_dtype(before)
    return {
        "transformer": WanTransformer3DModel(
            num_attention_heads=12, in_channels=36, ffn_dim=8960, num_layers=30, image_dim=1280,
            added_kv_proj_dim=1536,
        ),
        "vae": AutoencoderKLWan(),
        "text_encoder": text_encoder,
        "tokenizer": random_parts("wan")["tokenizer"],
        "image_encoder": CLIPVisionModel(clip),
    }  # fmt: skip


def trained_of(parts: dict[str, Any], device: str) -> Trained:
    """A distilled network around such parts, as a checkpoint's is; the paper's conditions, four steps."""
    config = TrainConfig.model_validate(
        {
            **{"name": "benchmark", "output": "none", "steps": 5, "stage": "self_forcing", "init": "none"},
            "data": {"shards": ["none"]},
            "model": {"random": "tiny"},
        }
    )
    settings = config.distill
    with torch.device(device):
        model = CausalWan(parts["transformer"], config.model, settings.block, settings.window)
    side = parts["image_encoder"].config.image_size
    encoders = Encoders(
        BACKBONE,
        parts["vae"],
        parts["text_encoder"],
        parts["tokenizer"],
        parts["image_encoder"],
        PictureSettings(side, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        device,
    )
    return Trained(model.to(device).eval().requires_grad_(False), encoders, config, {})


def batch_of(trained: Trained, side: int) -> Batch:
    """A portrait of noise with all conditions but touch."""
    shape, yes, no = trained.config.model, torch.tensor([True]), torch.tensor([False])
    video = torch.randint(0, 256, (1, 3, 1, side, side), dtype=torch.uint8)
    return Batch(
        sample_ids=["one"],
        runs=[""],
        slots=[0],
        video=video,
        reference=video[:, :, 0],
        known=torch.tensor([1]),
        prompts=["a person looks at the camera"],
        points=torch.zeros(1, 2),
        identity=torch.randn(1, shape.identity_dim),
        attributes=torch.randn(1, 257, shape.attribute_dim),
        audio=torch.zeros(1, 1, shape.audio_dim),
        has_points=no,
        has_identity=yes,
        has_attributes=yes,
        has_audio=no,
        has_reference=yes,
    )


def measure(trained: Trained, side: int, frames: int) -> Measured:
    """Stream, then the bare parts; each was called before it is timed."""
    batch, width = batch_of(trained, side), trained.config.model.audio_dim
    warm = Stream(trained, batch)
    for _ in range(2):
        next(warm)
    begun = time.perf_counter()
    stream = Stream(trained, batch, clock=clock_of(trained.encoders.device))
    made: list[Block] = []
    first = reaction = 0.0
    while (count := sum(len(block.frames) for block in made)) < frames:
        stream.hear(torch.randn(stream.frames_ahead, width).numpy())
        if not reaction and count >= frames / 2:
            stream.touch(0.5, 0.5, SENTENCE)
        made.append(next(stream))
        first = first or time.perf_counter() - begun
        reaction = reaction or made[-1].reaction_s or 0.0
    parts = {part: sum(block.seconds[part] for block in made) for part in PARTS}
    passes = len(made) * (len(trained.config.distill.steps) + 1)  # one remembers
    latents = torch.randn(1, 16, len(made) * trained.config.distill.block, side // 8, side // 8)
    return Measured(
        frames=count,
        first_frame=first,
        reaction=reaction,
        parts=parts,
        transformer=bare_transformer(trained, latents, passes),
        vae=bare_vae(trained, latents),
    )


@torch.no_grad()
def bare_transformer(trained: Trained, latents: torch.Tensor, passes: int) -> float:
    """Seconds of `passes` passes over the latents of one block."""
    net: Any = trained.model.transformer
    processors = net.attn_processors
    net.set_attn_processor(WanAttnProcessor())
    device, shape = trained.encoders.device, net.config
    given = {
        "hidden_states": torch.randn(1, 36, trained.config.distill.block, *latents.shape[3:], device=device),
        "timestep": torch.tensor([500.0], device=device),
        "encoder_hidden_states": torch.randn(1, 512, shape.text_dim, device=device),
        "encoder_hidden_states_image": torch.randn(1, 257, shape.image_dim, device=device),
    }
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            net(**given)
            return seconds_of(lambda: net(**given), passes, device)
    finally:
        net.set_attn_processor(processors)


@torch.no_grad()
def bare_vae(trained: Trained, latents: torch.Tensor) -> float:
    """Seconds to decode a clip."""
    device = trained.encoders.device
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    vae = copy.deepcopy(trained.encoders.vae).to(dtype)
    short, whole = latents[:, :, :2].to(device, dtype), latents.to(device, dtype)
    vae.decode(short)
    return seconds_of(lambda: vae.decode(whole), 1, device)


def seconds_of(call: Callable[[], object], times: int, device: torch.device) -> float:
    """Seconds that calls take."""
    now = clock_of(device)
    begun = now()
    for _ in range(times):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return now() - begun


def clock_of(device: torch.device) -> Callable[[], float]:
    """What work on a device is timed by, once it is done."""
    return time.perf_counter if device.type == "cuda" else time.process_time


def text_of(found: Measured, side: int) -> str:
    """What is printed of it."""
    rows = [
        ("conditions", found.parts["conditions"], None),
        ("transformer", found.parts["transformer"], found.transformer),
        ("vae", found.parts["vae"], found.vae),
        ("all", found.stream, found.transformer + found.vae),
    ]
    lines = ["| part | stream, s | bare, s | ratio |", "| --- | --- | --- | --- |"]
    for name, stream, bare in rows:
        of_bare = "| | |" if bare is None else f"| {bare:.2f} | {stream / bare:.2f} |"
        lines.append(f"| {name} | {stream:.2f} {of_bare}")
    lines.append("")
    lines.append(f"{found.frames} frames of {side} x {side}: {found.frames / found.stream:.1f} frames/s")
    lines.append(
        f"first frame after {found.first_frame:.2f} s, a touch is answered after {found.reaction:.2f} s"
    )
    if found.frames >= GOAL_FRAMES and side >= 512:
        share = found.stream * GOAL_FRAMES / found.frames
        met = "within" if share <= GOAL_S else "not within"
        lines.append(f"{GOAL_FRAMES} frames in {share:.2f} s: {met} {GOAL_S:g} s")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--true-size", action="store_true", help="weights of the size of Wan2.1-1.3B")
    parser.add_argument("--frames", type=int, default=81, help="at least this many")
    parser.add_argument("--side", type=int, help="of the picture, px; default: 512 at true size, else 128")
    args = parser.parse_args(arguments)
    side = args.side or (512 if args.true_size else 128)
    torch.manual_seed(0)
    with torch.device(args.device):
        parts = true_parts() if args.true_size else small_parts()
    on_cuda = args.device.startswith("cuda")
    gpu = torch.cuda.get_device_name(args.device) if on_cuda else "no GPU"
    print(f"{gpu}; {platform.node()}, {torch.get_num_threads()} threads; torch {torch.__version__}\n")
    print(text_of(measure(trained_of(parts, args.device), side, args.frames), side))
    if on_cuda:
        print(f"peak memory {torch.cuda.max_memory_allocated(args.device) / 1e9:.1f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
