"""What a training run is: one YAML file, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from configs.reading import load_yaml, merged, parse, parse_overrides
from manifests.buckets import BucketConfig
from trainer.backbones import BACKBONES


class Part(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Part):
    """Which shards, in which mixture, cut to which buckets."""

    shards: list[str] = Field(min_length=1, description="Folders that `interavatar shards` wrote, or URLs.")
    weights: dict[str, float] = Field(
        default_factory=dict,
        description="Share of each run's samples in a batch, by its name in the mixing table; "
        "default: the table's weights. 0 leaves a run out.",
    )
    exclude: list[str] = Field(default_factory=list, description="Sample ids that are left out.")
    allow_preview: bool = Field(False, description="Train on clips that a stand-in made, too.")
    max_bad_clips: int = Field(
        100, ge=0, description="Clips that cannot be read are left out and named; more than this end the run."
    )
    latents: str | None = Field(None, description="Folder of the latent cache; null: encode while training.")
    windows: int = Field(
        1,
        ge=1,
        description="With `latents`: up to so many places in a clip where training may begin, evenly spread, "
        "no two within a quarter of a window of one another.",
    )
    references: int = Field(
        4,
        ge=1,
        description="With `latents`: frames of a clip, evenly spread, that its reference is drawn from where "
        "it is not the first one shown.",
    )
    buckets: BucketConfig = BucketConfig()
    workers: int = Field(2, ge=0, description="Processes that decode; 0: in the training process.")


class ModelConfig(Part):
    """The network and the encoders around it."""

    backbone: str = Field(
        "wan", description="; ".join(f"{name}: {facts.title}" for name, facts in BACKBONES.items()) + "."
    )
    folder: str | None = Field(
        None,
        description="A diffusers checkpoint: transformer, vae, text_encoder, tokenizer and image_encoder, "
        "with image_processor.",
    )
    random: Literal["tiny", "small"] | None = Field(
        None,
        description="Random weights of a network of the same architecture instead of a folder. small: wide "
        "enough to learn a few clips on a CPU, with wan and a toy autoencoder that shows them; tiny: for "
        "tests.",
    )
    image_encoder: str | None = Field(
        None, description="Folder of the CLIP image encoder where the checkpoint has none."
    )
    identity_dim: int = Field(512, ge=1, description="Width of face_embedding; ArcFace has 512.")
    identity_tokens: int = Field(
        4, ge=2, description="Tokens it becomes; a single one makes softmax constant."
    )
    attribute_dim: int = Field(1024, ge=1, description="Width of attribute_features; DINOv2-L has 1024.")
    audio_dim: int = Field(768, ge=1, description="Width of audio_features; wav2vec2-base has 768.")
    audio_tokens: int = Field(12, ge=1, description="Audio tokens for each latent step.")
    position_tokens: int = Field(4, ge=1, description="Tokens that carry the touched point.")
    gradient_checkpointing: bool = Field(
        True, description="Compute blocks again in the backward pass instead of keeping their activations."
    )

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, name: str) -> str:
        if name not in BACKBONES:
            raise ValueError(f"{name} is no network: choose one of {', '.join(BACKBONES)}")
        return name

    @model_validator(mode="after")
    def _one_origin(self) -> ModelConfig:
        if (self.folder is None) == (self.random is None):
            raise ValueError("give model.folder, or model.random, one of the two")
        return self


class DropoutConfig(Part):
    """How often a condition is left out (InterAvatar C.1)."""

    each: float = Field(0.1, ge=0, le=1, description="Probability for each condition alone.")
    all: float = Field(0.05, ge=0, le=1, description="Probability for all of them together.")
    interaction_captions: float = Field(
        0.5, ge=0, le=1, description="Probability for the caption of an interaction clip; its sentence stays."
    )


class ReferenceConfig(Part):
    """Which pictures of its own clip the network is given (InterAvatar §3.2, C.2); the rates are ours."""

    elsewhere: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Probability that the reference picture is another frame of the clip than the first. "
        "That of an interaction clip is the first, on which the touched point lies.",
    )
    motion: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Probability that the first two latent steps are known (Wan: the five frames of C.2; "
        "LTX: nine), as in a clip that continues another; else the first frame alone.",
    )


class OptimiserConfig(Part):
    """AdamW under a cosine schedule (InterAvatar C.1)."""

    learning_rate: float = Field(2e-5, gt=0, description="Highest rate (InterAvatar C.1).")
    warmup_steps: int = Field(500, ge=0, description="Steps in which the rate rises to it.")
    weight_decay: float = Field(0.01, ge=0, description="Of matrices; biases and norms do not decay.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="Of AdamW.")
    max_gradient_norm: float = Field(1.0, gt=0, description="Longer gradients are cut to this length.")
    trainable: Literal["all", "adapters", "lora"] = Field(
        "all",
        description="All weights; the new layers alone; or these and low-rank additions to the transformer's "
        "attentions (`lora`).",
    )


class LoraConfig(Part):
    """Low-rank additions to the pretrained transformer (Hu et al. 2021), by peft."""

    rank: int = Field(32, ge=1, description="Of each addition.")
    alpha: int = Field(32, ge=1, description="An addition counts alpha / rank times.")
    layers: list[str] = Field(
        default=["to_q", "to_k", "to_v", "to_out.0"],
        min_length=1,
        description="Linear layers of the transformer that get one, by the ends of their names.",
    )


class NonFiniteConfig(Part):
    """What happens when a loss or gradient is not finite. The weights are not touched by such a step."""

    skip: int = Field(3, ge=0, description="Steps in a row that are left out.")
    back: int = Field(
        2,
        ge=0,
        description="How often the run then goes on with the newest checkpoint's weights, its clips "
        "being later ones; after that it ends.",
    )


class ValidationConfig(Part):
    """Loss on clips of persons that are not trained on."""

    share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the persons (or source files) held out; 0: none, no validation.",
    )
    every: int = Field(1000, ge=1, description="Steps between validations.")
    clips: int = Field(64, ge=1, description="Clips that are looked at, the same each time.")


class SamplesConfig(Part):
    """Clips made with the averaged weights as training goes on, from the same conditions each time."""

    every: int | None = Field(None, ge=1, description="Steps between them; null: none.")
    clips: int = Field(1, ge=1, description="How many; of held-out persons where there are some.")
    prompts: list[str] = Field(
        default_factory=list, description="Texts that take the place of the first clips' own captions."
    )


class DistillConfig(Part):
    """Self-Forcing (stage 3): see `trainer/self_forcing.py`; its student also in `trainer/ode.py`."""

    teacher: str | None = Field(
        None,
        description="Checkpoint of the real score, which the critic begins with, too; null: that of `init`.",
    )

    steps: list[int] = Field(
        default=[1000, 750, 500, 250], min_length=1, description="Timesteps of the rollout."
    )
    block: int = Field(3, ge=1, description="Latent steps generated at once.")
    window: int = Field(
        21, ge=1, description="Latent steps that a block sees, its own included, beside the reference."
    )
    shift: float = Field(5.0, gt=0, description="Timestep shift.")
    critic_steps: int = Field(5, ge=1, description="Critic updates for each generator update.")
    learning_rate: float = Field(2e-6, gt=0, description="Of the generator.")
    critic_learning_rate: float = Field(4e-7, gt=0, description="Of the critic.")
    guidance: float = Field(4.0, ge=1, description="Guidance g of the real score, u + g (v - u).")

    @model_validator(mode="after")
    def _block_in_window(self) -> DistillConfig:
        if self.window < self.block:
            raise ValueError(f"window {self.window} is shorter than a block of {self.block} latent steps")
        return self


class OdeConfig(Part):
    """Regression on the teacher's ODE, between stages 2 and 3: see `trainer/ode.py`."""

    steps: int = Field(50, ge=1, description="Of the teacher from noise to a clean clip.")


class TrainConfig(Part):
    """A training run."""

    name: str = Field(description="Name of the run; names its TensorBoard folder.")
    output: str = Field(description="Folder of checkpoints, logs and sample clips.")
    stage: Literal["flow", "ode", "self_forcing"] = Field(
        "flow",
        description="Flow matching (stages 1 and 2); regression of the causal student on the teacher's ODE; "
        "or distillation by Self-Forcing (stage 3).",
    )
    init: str | None = Field(None, description="Checkpoint whose weights (its EMA) this run begins with.")
    steps: int = Field(ge=1, description="Optimiser steps.")
    batch: int = Field(64, ge=1, description="Samples in a step, over all processes.")
    micro_batch: int = Field(
        1, ge=1, description="Samples of one forward pass on one GPU; its share of the batch takes several."
    )
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Of the forward pass; weights are fp32.")
    seed: int = Field(0, description="Of order, starts, dropout and noise.")
    shift: float = Field(5.0, gt=0, description="Shift of the noise levels towards noise; 1: uniform.")
    ema: float = Field(0.999, ge=0, lt=1, description="Decay of the averaged weights; 0: none.")
    checkpoint_every: int = Field(1000, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(3, ge=1, description="The newest that stay.")
    log_every: int = Field(10, ge=1, description="Steps between lines and tracked scalars.")
    trackers: list[Literal["tensorboard", "wandb"]] = Field(
        default=["tensorboard"], description="Where scalars and clips go; wandb as its environment says."
    )
    compile: bool = Field(
        False, description="Compile blocks (torch.compile): all but those of a causal student."
    )
    peak_tflops: float | None = Field(
        None,
        gt=0,
        description="Of one GPU in bfloat16, for MFU; null: as published, where its name is known.",
    )
    watchdog_s: float = Field(
        1800, gt=0, description="Without progress for so long, s, the late process is named and the run ends."
    )
    validation: ValidationConfig = ValidationConfig()
    samples: SamplesConfig = SamplesConfig()
    non_finite: NonFiniteConfig = NonFiniteConfig()
    lora: LoraConfig = LoraConfig()
    data: DataConfig
    model: ModelConfig
    dropout: DropoutConfig = DropoutConfig()
    reference: ReferenceConfig = ReferenceConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    distill: DistillConfig = DistillConfig()
    ode: OdeConfig = OdeConfig()

    @property
    def is_causal(self) -> bool:
        """Whether its network generates block by block in few steps."""
        return self.stage != "flow"

    @model_validator(mode="after")
    def _steps_of_the_backbone(self) -> TrainConfig:
        backbone = BACKBONES[self.model.backbone]
        step = backbone.frame_step
        if self.data.buckets.step % step:
            raise ValueError(
                f"{self.model.backbone} takes {step} n + 1 frames: set data.buckets.step to {step}"
            )
        if self.stage != "flow" and not backbone.causal:
            causal = " or ".join(name for name, facts in BACKBONES.items() if facts.causal)
            raise ValueError(f"{self.model.backbone} has no causal form: {self.stage} distils {causal}")
        if self.stage != "flow" and self.init is None:
            raise ValueError(f"{self.stage} distils a trained network: give its checkpoint as init")
        return self


def load_config(name: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """A training run by its YAML file, or by its name in configs/train.

    Args:
        name: a path, or a name such as `tiny`.
        overrides: `a.b=value`, the value in YAML, laid over the file.

    Raises:
        SettingsError: there is no such file, it is no YAML, or a key is unknown or a value wrong.
    """
    values, where = load_yaml(str(name), "train")
    where = f"{where} with --set" if overrides else where
    return parse(TrainConfig, merged(values, parse_overrides(overrides)), where)
