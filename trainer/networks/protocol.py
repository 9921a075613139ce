"""What a network is to the rest of the trainer: the module that is trained, and the checkpoint around it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from trainer.config import ModelConfig
from trainer.data.batch import Conditions


class Network(nn.Module):
    """A pretrained transformer with the new layers around it: what loops train and samplers call."""

    frame_step: int  # frames of a latent step after the first
    transformer: Any  # the pretrained part, a module of diffusers; all else is new
    adapters: nn.ModuleList  # one behind each block of the transformer
    checkpointing: bool  # compute blocks again in the backward pass

    def forward(
        self, noisy: Tensor, sigma: Tensor, conditions: Conditions, skipped: Collection[int] = ()
    ) -> Tensor:
        """The velocity eps - x.

        Args:
            noisy: [B, C, T, h, w].
            sigma: noise levels, [B] in [0, 1].
            conditions: audio of frame_step (T - 1) + 1 rows.
            skipped: blocks that are left out with their adapters, for skip guidance.

        Returns:
            [B, C, T, h, w] in the type of `noisy`.

        Raises:
            ValueError: the audio has another length, or there is no such block.
        """
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks, in their order; `adapters` has one for each."""
        raise NotImplementedError

    def blocks_without(self, skipped: Collection[int]) -> list[int]:
        """Numbers of the blocks that are not skipped.

        Raises:
            ValueError: there is no such block.
        """
        count = len(self.adapters)
        if not set(skipped) <= set(range(count)):
            raise ValueError(f"blocks {sorted(skipped)} of a network that has 0 to {count - 1}")
        return [index for index in range(count) if index not in skipped]

    def new_parameters(self) -> dict[str, nn.Parameter]:
        """The weights that the pretrained transformer does not have, low-rank additions included, by name."""
        own = "transformer."
        return {n: p for n, p in self.named_parameters() if not n.startswith(own) or ".lora_" in n}


@dataclass(frozen=True)
class Size:
    """Of a transformer of random weights."""

    heads: int
    head_dim: int
    layers: int
    learns: bool  # wide enough for a picture, and its autoencoder gives one back

    @property
    def width(self) -> int:
        """Of its tokens."""
        return self.heads * self.head_dim


class Backbone(Protocol):
    """A published video diffusion model: its parts in diffusers' layout, and the network made of it."""

    name: str  # in `trainer.backbones.BACKBONES`
    frame_step: int  # frames of a latent step after the first
    pixels: int  # of a latent, each way
    text_tokens: int  # of a prompt that are read; later ones are cut
    published: Mapping[
        str, Any
    ]  # config of the public transformer that the paper trains, for computing costs
    published_vae: Mapping[str, Any]  # likewise
    published_text_encoder: Mapping[str, Any]
    published_image_dim: int  # width of the features of the CLIP encoder beside it
    # z_img goes on behind the known frames with that many grey ones in all, after which the VAE has forgotten
    # them and its latents stay the same; 0: it has the known frames alone
    grey_frames: int
    skipped_blocks: tuple[int, ...]  # for skip guidance, as the published code for it has them
    transformer: Any  # class of diffusers
    vae: Any  # class of diffusers
    text_encoder: Any  # class of transformers
    pipeline: str  # class of diffusers that makes a video of a picture with these parts

    def network(self, transformer: Any, config: ModelConfig, image_dim: int, fps: float) -> Network:
        """The network around a loaded transformer.

        Args:
            transformer: of the class `self.transformer`.
            config: the widths of the conditions.
            image_dim: width of the features that the CLIP image encoder gives.
            fps: frame rate of the clips, frames/s.

        Raises:
            ValueError: the transformer has another shape; the message says which.
        """
        ...

    def text_width(self, shape: Any) -> int:
        """Width of the text tokens that a transformer of this config takes."""
        ...

    def clean_prompt(self, prompt: str) -> str:
        """A prompt as the published pipeline reads it."""
        ...

    def latent_scale(self, vae: Any) -> tuple[Tensor, Tensor]:
        """Mean and deviation, [C] each, that the latents of a loaded VAE are normalised by."""
        ...

    def decode(self, vae: Any, latents: Tensor) -> Tensor:
        """[B, C, T, h, w], not normalised, to [B, 3, F, H, W] in about [-1, 1]."""
        ...

    def random_parts(self, t5: Mapping[str, Any], size: Size) -> dict[str, Any]:
        """vae, text_encoder and transformer of random weights, small enough for a CPU.

        Args:
            t5: settings of a small T5 encoder; its width, `d_model`, is that of the CLIP features, too.
            size: of the transformer.
        """
        ...
