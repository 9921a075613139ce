"""The frozen encoders around the network: video VAE, text encoder, CLIP (InterAvatar §3.2, §3.4)."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config import ModelConfig, TrainConfig
from trainer.data.batch import Batch, Conditions
from trainer.data.decode import to_unit
from trainer.data.latent_cache import EncoderIds, LatentCache
from trainer.networks.conditions import known_steps, latent_steps, where_present
from trainer.networks.load import FETCH, WeightsError, backbone_of, image_encoder_folder, load_part
from trainer.networks.marker import draw_marker
from trainer.networks.protocol import Backbone

SETTINGS: Final = "preprocessor_config.json"
_HEAD: Final = 2**20  # bytes of a file of weights that tell it from others


@dataclass(frozen=True)
class PictureSettings:
    """How a picture is prepared for CLIP: side in pixels, mean and deviation of each channel (0-1)."""

    side: int
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    @classmethod
    def read(cls, path: Path, side: int) -> PictureSettings:
        """From a `preprocessor_config.json`; `side` is the encoder's own.

        Raises:
            WeightsError: the file is missing or says no means and deviations.
        """
        try:
            settings = json.loads(path.read_text())
            mean, deviation = (
                tuple(float(v) for v in settings[name]) for name in ("image_mean", "image_std")
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{path}: not the settings of a CLIP image processor ({error!r})") from None
        if len(mean) != 3 or len(deviation) != 3 or not all(v > 0 for v in deviation):
            raise WeightsError(f"{path}: image_mean and image_std need three values, those of std above 0")
        return cls(side, mean, deviation)

    def prepare(self, pictures: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] to float32 [B, 3, side, side].

        The whole picture is squeezed to the square, as in Wan's own code; a cut to the middle, which the
        published settings ask for, could lose the touched point. Otherwise as CLIPImageProcessor does it.
        """
        # Along the width, then the height, in 8 bits after each, as Pillow has it.
        small = pictures.float()
        for size in ((pictures.shape[2], self.side), (self.side, self.side)):
            small = functional.interpolate(small, size=size, mode="bicubic", antialias=True)
            small = small.round().clamp(0, 255)
        small = small / 255
        mean, deviation = (
            torch.tensor(values, device=pictures.device)[:, None, None]
            for values in (self.mean, self.deviation)
        )
        return (small - mean) / deviation


class Encoders:
    """VAE, text encoder and CLIP image encoder of a checkpoint, frozen.

    VAE and CLIP compute in float32, as the libraries' examples do; the text encoder in `dtype`. What
    comes out is float32, on `device`, without gradient, and the same inside an autocast region as outside.
    """

    def __init__(
        self,
        backbone: Backbone,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        image_encoder: Any,
        pictures: PictureSettings,
        device: torch.device | str,
    ) -> None:
        self.backbone = backbone
        self.device = torch.device(device)
        self.vae, self.text_encoder, self.image_encoder = (
            part.to(self.device).eval().requires_grad_(False) for part in (vae, text_encoder, image_encoder)
        )
        self.tokenizer = tokenizer
        self.pictures = pictures

    @classmethod
    def load(
        cls,
        config: ModelConfig,
        folder: Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Encoders:
        """From a checkpoint in diffusers' layout.

        Args:
            config: says which backbone; `image_encoder` names a folder of CLIP (config.json, safetensors,
                preprocessor_config.json) that takes the place of the checkpoint's own.
            folder: has vae, text_encoder, tokenizer, image_encoder and image_processor.
            device: where the encoders run.
            dtype: of the text encoder.

        Raises:
            WeightsError: a part is missing or does not fit.
        """
        from transformers import AutoTokenizer, CLIPVisionModel

        backbone = backbone_of(config.backbone)
        image_folder, settings = _image_parts(config, folder)
        image_encoder = load_part(CLIPVisionModel, image_folder)
        if not (folder / "tokenizer").is_dir():
            raise WeightsError(f"{folder}: no tokenizer; needed is a checkpoint in diffusers' layout")
        return cls(
            backbone=backbone,
            vae=load_part(backbone.vae, folder / "vae"),
            text_encoder=load_part(backbone.text_encoder, folder / "text_encoder", dtype),
            tokenizer=AutoTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True),
            image_encoder=image_encoder,
            pictures=PictureSettings.read(settings, image_encoder.config.image_size),
            device=device,
        )

    @cached_property
    def id(self) -> str:
        """Names the VAE by its weights, so that latents of another one are never taken for its own."""
        digest = hashlib.sha256()
        mean, deviation = (value.flatten().tolist() for value in self._scale())
        digest.update(json.dumps([mean, deviation]).encode())
        for name, weight in sorted(self.vae.state_dict().items()):
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
        return f"{self.backbone.name}-vae-{digest.hexdigest()[:16]}"

    @torch.no_grad()
    def latents(self, video: Tensor) -> Tensor:
        """[B, 3, F, H, W] in [-1, 1] to float32 [B, C, T, h, w], normalised.

        F is `backbone.frame_step` n + 1, T = n + 1. The mode of the posterior, without noise.
        """
        with self._exact():
            mode = self.vae.encode(video.to(self.device, torch.float32)).latent_dist.mode()
        mean, deviation = self._scale()
        return (mode - mean) / deviation

    @torch.no_grad()
    def image_latents(self, video: Tensor, known: Tensor, frames: int) -> Tensor:
        """z_img (§3.2): the latents of the known frames, float32 [B, C, T, h, w], normalised.

        For Wan they are encoded with grey frames (0) behind them, as in its own code and in diffusers'
        pipeline; LTX's have zeros behind them. All zeros where nothing is known. Both VAEs are causal: a
        known step is what it is in the latents of the whole clip.

        Args:
            video: [B, 3, K, H, W] in [-1, 1], the known frames and perhaps later ones, which are not read.
            known: latent steps that are known, from step 0 on, [B].
            frames: of the clip, K or more.
        """
        step, grey = self.backbone.frame_step, self.backbone.grey_frames
        known = known.to(self.device)
        last_known = (known - 1) * step  # number of the frame; below 0: none
        seen = max(min(frames, grey), int(last_known.max()) + 1) if known.any() else 1
        shown = video[:, :, :seen].to(self.device, torch.float32)
        behind = torch.arange(shown.shape[2], device=self.device) > last_known.unsqueeze(1)
        shown = shown.masked_fill(behind[:, None, :, None, None], 0)
        shown = functional.pad(shown, (0, 0, 0, 0, 0, seen - shown.shape[2]))
        latents = self.latents(shown)
        rest = latent_steps(frames, step) - latents.shape[2]
        last = latents[:, :, -1:].expand(-1, -1, rest, -1, -1)
        latents = torch.cat([latents, last], dim=2)
        if not grey:
            latents = torch.where(known_steps(known, latents.shape[2]), latents, 0)
        return where_present(known > 0, latents)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """[B, C, T, h, w], normalised, to float32 [B, 3, F, H, W] in [-1, 1]."""
        mean, deviation = self._scale()
        scaled = latents.to(self.device, torch.float32) * deviation + mean
        with self._exact():
            return self.backbone.decode(self.vae, scaled).clamp(-1, 1)

    @torch.no_grad()
    def text(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens float32 [B, L, D], zeros beyond the prompt, and which count, bool [B, L].

        L is `backbone.text_tokens`; what is longer is cut. An empty prompt is the end token alone, as the
        pipelines' unconditional pass has it.
        """
        length = self.backbone.text_tokens
        given = self.tokenizer(
            [self.backbone.clean_prompt(prompt) for prompt in prompts],
            padding="longest",
            max_length=length,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.device)
        with self._exact():
            states = self.text_encoder(given.input_ids, given.attention_mask).last_hidden_state.float()
        mask = given.attention_mask.bool()
        rest = length - mask.shape[1]
        tokens = functional.pad(states * mask[..., None], (0, 0, 0, rest))
        return tokens, functional.pad(mask, (0, rest))

    @torch.no_grad()
    def image(self, pictures: Tensor, points: Tensor, has_points: Tensor) -> Tensor:
        """CLIP's penultimate hidden state of the marked pictures, float32 [B, 1 + places, D].

        Args:
            pictures: [B, 3, H, W] uint8.
            points: [B, 2], x and y in shares of the picture.
            has_points: [B] bool; no marker is drawn where it is False.
        """
        marked = [
            draw_marker(picture, x, y) if has_point else picture
            for picture, (x, y), has_point in zip(
                pictures.to(self.device), points.tolist(), has_points.tolist(), strict=True
            )
        ]
        with self._exact():
            seen = self.image_encoder(self.pictures.prepare(torch.stack(marked)), output_hidden_states=True)
        return torch.as_tensor(seen.hidden_states[-2])

    def _scale(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation that latents are normalised by, [C, 1, 1, 1] each."""
        mean, deviation = (values.to(self.device) for values in self.backbone.latent_scale(self.vae))
        return mean.view(-1, 1, 1, 1), deviation.view(-1, 1, 1, 1)

    def _exact(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, enabled=False)


class CachedEncoders(Encoders):
    """The VAE alone: prompts come from the latent cache, all else stands in the batches that it gives."""

    def __init__(self, config: TrainConfig, folder: Path, device: torch.device | str = "cpu") -> None:
        """From a checkpoint in diffusers' layout, beside the cache that `data.latents` names.

        Raises:
            WeightsError: the VAE is missing or does not fit, or no file names the other encoders.
            LatentError: there is no cache of these encoders.
        """
        self.backbone = backbone_of(config.model.backbone)
        self.device = torch.device(device)
        vae = load_part(self.backbone.vae, folder / "vae")
        self.vae = vae.to(self.device).eval().requires_grad_(False)
        ids = encoder_ids(config, folder, self)
        self.cache = LatentCache.find(str(config.data.latents), config.data.buckets.fps, ids)
        self._read_text = lru_cache(maxsize=16)(self.cache.read_text)

    def text(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """See `Encoders.text`; LatentError: the cache lacks a prompt."""
        tokens, masks = zip(*(self._read_text(prompt) for prompt in prompts), strict=True)
        return torch.stack(tokens).to(self.device).float(), torch.stack(masks).to(self.device)


def encoder_ids(config: TrainConfig, folder: Path, encoders: Encoders) -> EncoderIds:
    """Names of the encoders in a checkpoint's folder, as the precision of a run has them.

    The VAE by all of its weights; the larger ones, which need not be loaded for it, by the size and the
    beginning of each file.
    """
    clip, settings = _image_parts(config.model, folder)
    image = _digest_of(*_files(clip), *_files(settings.parent))
    text = _digest_of(*(path for part in ("text_encoder", "tokenizer") for path in _files(folder / part)))
    return EncoderIds(
        pictures=f"{encoders.id}-clip-{image}-{config.precision}",
        text=f"{encoders.backbone.name}-text-{text}-{config.precision}",
    )


def _image_parts(config: ModelConfig, folder: Path) -> tuple[Path, Path]:
    """Folder of the CLIP image encoder, and the file that says how pictures are prepared for it."""
    clip = image_encoder_folder(config, folder)
    return clip, (clip if config.image_encoder else folder / "image_processor") / SETTINGS


def _files(folder: Path) -> list[Path]:
    """Weights and settings of a part.

    Raises:
        WeightsError: there are none.
    """
    found = [path for path in sorted(folder.glob("*")) if path.suffix in (".json", ".safetensors", ".model")]
    if not found:
        raise WeightsError(f"{folder}: nothing there names the encoder; {FETCH}")
    return found


def _digest_of(*files: Path) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.name} {path.stat().st_size} ".encode() + file.read(_HEAD))
    return digest.hexdigest()[:16]


def encode(batch: Batch, encoders: Encoders) -> tuple[Tensor, Conditions]:
    """What one step needs: clean latents float32 [B, C, T, h, w] and the conditions, on the encoders' device.

    Latents in the batch are taken as they are.
    """
    latents = batch.latents
    if latents is None:
        latents = encoders.latents(to_unit(batch.video))
    return latents.to(encoders.device), encode_conditions(batch, encoders)


def encode_conditions(batch: Batch, encoders: Encoders, frames: int | None = None) -> Conditions:
    """What a batch is conditioned on, on the encoders' device; of its video the known frames alone are read.

    A dropped reference gives zeros for the reference latent and for CLIP's features.

    Args:
        batch: what it has of the latent cache is taken as it is.
        encoders: of the network that it is for.
        frames: that z_img covers; None: those of the sound. A stream, whose end is not known, has all that it
            needs with `backbone.grey_frames`.
    """
    device = encoders.device
    given = batch.image_latents
    if given is None:
        given = encoders.image_latents(to_unit(batch.video), batch.known, frames or batch.audio.shape[1])
    tokens, mask = batch.text, batch.text_mask
    if tokens is None or mask is None:
        tokens, mask = encoders.text(batch.prompts)
    image, reference = batch.image, batch.reference_latent
    if image is None:
        image = encoders.image(batch.reference, batch.points, batch.has_points)
    if reference is None:
        reference = encoders.latents(to_unit(batch.reference).unsqueeze(2))
    kept = batch.has_reference.to(device)
    conditions = Conditions(
        text=tokens.to(device).float(),
        text_mask=mask,
        image=where_present(kept, image.to(device)),
        reference=where_present(kept, reference.to(device)),
        image_latents=given,
        known=batch.known,
        points=batch.points,
        identity=batch.identity,
        attributes=batch.attributes,
        audio=batch.audio,
        has_points=batch.has_points,
        has_identity=batch.has_identity,
        has_attributes=batch.has_attributes,
        has_audio=batch.has_audio,
        has_reference=batch.has_reference,
    )
    return conditions.to(device)
