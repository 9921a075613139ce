"""Image-to-video by Wan 2.2 (diffusers), the paper's generator."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from backends.running.batching import is_out_of_memory
from backends.store.weights import Weights
from backends.video import wan_speed
from backends.video.image_to_video import AREA_480P, Animation, Gpu, Published, fit_size, resized
from backends.video.wan_offload import OFFLOADS, WORKING_BYTES, Offload, choose_offload, place, sizes
from backends.video.wan_speed import DISTILLED_FILES, DISTILLED_STEPS, Quantisation

# Wan's own settings.
STEPS: Final = 40
GUIDANCE: Final = 3.5
# Prompts whose encodings are kept, 4 MiB each at 512 tokens of 4096 numbers of two bytes.
REMEMBERED: Final = 32

# Seconds for one clip of Wan2.2-I2V-A14B, 81 frames in 40 steps, by pixels of a frame.
PUBLISHED_SECONDS: Final[Mapping[int, Mapping[Gpu, float]]] = {
    832 * 480: {"H100": 327.8, "A100": 810.0, "H20": 1117.0},
    1280 * 720: {"H100": 1055.9, "A100": 2811.0, "H20": 4055.0},
}
PUBLISHED_BY: Final = (
    "Wan2.2's README, Computational Efficiency on Different GPUs: Wan's own code with offload on one {gpu}"
)


class WanImageToVideo:
    """Wan2.2-I2V-A14B: two transformers of 14B, one for high noise and one for low noise; 16 frames a second.

    The noise is drawn on the CPU, so it does not depend on the device. Weights are bfloat16 on a GPU and
    float32 on a CPU, the VAE always float32. On a GPU the parts stay loaded or wait in the computer's
    memory as the free memory allows; a clip that does not fit is tried again with less, and so are those
    after it. The whole picture is resized, not cropped, so a point of it is the same point of the clip.

    Args:
        model: the weights, a diffusers pipeline.
        num_frames: 4 n + 1; the model was trained on 81.
        num_inference_steps: denoising steps of both transformers together; None: 40, or 4 if `distilled`.
        guidance_scale: of the high-noise transformer, above 1; None: 3.5, or 1 if `distilled`. 1 turns
            guidance off for both, so the negative prompt is not read; only distilled weights allow it.
        guidance_scale_2: of the low-noise transformer, likewise. Wan's own configuration names the two the
            other way round, low noise first.
        flow_shift: of the noise schedule; 5.0 is Wan's own, the diffusers conversion says 3.0.
        max_area: pixels of a frame; 832 x 480, or 1280 x 720.
        max_prompt_tokens: what the text encoder reads; 512 is the model's own.
        device: "cuda" or "cpu"; None: CUDA where there is one.
        distilled: weights that are added to both transformers so that few steps without guidance are enough
            (lightx2v's Wan2.2-Lightning, a LoRA for each); Euler's steps then.
        attention: an attention backend of diffusers, such as _flash_3, _native_cudnn or sage; None:
            PyTorch's own choice. Those that end in _hub download their code from Hugging Face.
        compile_blocks: compile the transformers' blocks when they first run, and once more for the first
            clip of another size.
        quantisation: float8 keeps the transformers' weights in half the memory, which changes the clip.

    Raises:
        ValueError: a setting that would be ignored or rounded.
    """

    packages = ("torch", "diffusers", "transformers", "ftfy")
    fps: Final = 16.0
    uses_point: Final = False

    def __init__(
        self,
        model: Weights,
        num_frames: int = 81,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_scale_2: float | None = None,
        flow_shift: float = 5.0,
        max_area: int = AREA_480P,
        max_prompt_tokens: int = 512,
        device: str | None = None,
        distilled: Weights | None = None,
        attention: str | None = None,
        compile_blocks: bool = False,
        quantisation: Quantisation | None = None,
    ) -> None:
        steps, guidance = (STEPS, GUIDANCE) if distilled is None else (DISTILLED_STEPS, 1.0)
        self.model = model
        self.distilled = distilled
        self.num_frames = num_frames
        self.num_inference_steps = steps if num_inference_steps is None else num_inference_steps
        self.guidance_scale = guidance if guidance_scale is None else guidance_scale
        self.guidance_scale_2 = guidance if guidance_scale_2 is None else guidance_scale_2
        self.flow_shift = flow_shift
        self.max_area = max_area
        self.max_prompt_tokens = max_prompt_tokens
        self.attention = attention
        self.compile_blocks = compile_blocks
        self.quantisation = quantisation
        self.device = device
        self.offload: Offload = "none"
        self._is_placed = False
        self._device = "cpu"
        self._multiple = 16
        self._pipe: Any = None
        self._embeddings: dict[str, Any] = {}
        # diffusers looks at the first scale alone to decide whether to guide at all.
        both_off = distilled is not None and self.guidance_scale == self.guidance_scale_2 == 1
        if not (self.guidance_scale > 1 or both_off):
            off = " (or both 1, which turns it off)" if distilled is not None else ""
            raise ValueError(f"guidance_scale must be above 1{off}, got {self.guidance_scale:g}")
        if quantisation not in (None, *get_args(Quantisation)):
            raise ValueError(f"quantisation must be float8 or null, got {quantisation!r}")
        if compile_blocks and quantisation is not None:
            raise ValueError(
                f"compile_blocks gains nothing with {quantisation}: weights are cast between all layers"
            )

    @cached_property
    def id(self) -> str:
        """Implementation, version and settings.

        Not the device, nor compiled blocks and attention that differ by rounding alone, as devices do.
        """
        settings = (
            f"frames={self.num_frames}, "
            f"steps={self.num_inference_steps}, guidance={self.guidance_scale:g}/{self.guidance_scale_2:g}, "
            f"flow_shift={self.flow_shift:g}, max_area={self.max_area}, tokens={self.max_prompt_tokens}"
        )
        if self.distilled is not None:
            settings += f", distilled={self.distilled}"
        if self.quantisation is not None:
            settings += f", quantisation={self.quantisation}"
        if not wan_speed.is_exact(self.attention):
            settings += f", attention={self.attention}"
        return f"wan({self.model}, {settings})"

    @property
    def name(self) -> str:
        """The name of the weights, of both where they are distilled."""
        if self.distilled is None:
            return self.model.label
        is_random = self.model.is_random or self.distilled.is_random
        names = f"{self.model.name}+{self.distilled.name}"
        return f"stand_in_random_{names}" if is_random else names

    @property
    def is_guided(self) -> bool:
        """Whether both transformers run twice a step, with the prompt and with the negative prompt."""
        return self.guidance_scale > 1

    def published_seconds(self, gpu: Gpu) -> Published | None:
        """Of the real weights, with the settings that Wan's authors measured."""
        is_real = self.model.name == "wan2.2-i2v-a14b" and not self.model.is_random
        is_plain = self.distilled is None and self.quantisation is None
        if not (is_real and is_plain) or (self.num_frames, self.num_inference_steps) != (81, 40):
            return None
        seconds = PUBLISHED_SECONDS.get(self.max_area, {}).get(gpu)
        return None if seconds is None else Published(seconds, PUBLISHED_BY.format(gpu=gpu))

    def setup(self) -> None:
        """Load the pipeline into the computer's memory; it goes to the GPU with the first clip.

        Raises:
            ValueError: the checkpoint is not a Wan 2.2 image-to-video model with two transformers, or what
                makes it faster does not work here: that is tried before the weights are read.
            FileNotFoundError: one of the distilled weights is missing.
            ImportError: ftfy is missing, which diffusers cleans prompts with and does not ask for, or peft,
                which reads distilled weights.
        """
        if self._pipe is not None:
            return
        import ftfy  # noqa: F401
        import torch

        wan = _import_quietly()
        self._check(wan)
        self._device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._try_options()
        weights = torch.bfloat16 if self._device.startswith("cuda") else torch.float32
        pipe = wan.WanImageToVideoPipeline.from_pretrained(
            str(self.model.folder),
            dtype={"default": weights, "vae": torch.float32},
            use_safetensors=True,  # a pickled checkpoint could run code
        )
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, flow_shift=self.flow_shift)
        if self.distilled is not None:
            wan_speed.merge_distilled(pipe, self.distilled)
            pipe.scheduler = wan_speed.distilled_scheduler(wan, self.num_inference_steps, self.flow_shift)
        if self.quantisation is not None:
            wan_speed.keep_in_float8(pipe, weights)
        if self.compile_blocks:
            pipe.transformer.compile_repeated_blocks()
            pipe.transformer_2.compile_repeated_blocks()
        if self.num_frames % pipe.vae_scale_factor_temporal != 1:
            raise ValueError(
                f"num_frames must be {pipe.vae_scale_factor_temporal} n + 1, got {self.num_frames}"
            )
        # diffusers asks for multiples of 16 whatever the checkpoint.
        cell = pipe.vae_scale_factor_spatial * pipe.transformer.config.patch_size[1]
        self._multiple = math.lcm(16, cell)
        if self._device.startswith("cuda"):
            free, _ = torch.cuda.mem_get_info(self._device)
            working = WORKING_BYTES * self.num_frames * self.max_area
            self.offload = choose_offload(free, sizes(pipe), working)
        self._pipe = pipe

    def _try_options(self) -> None:
        if self.distilled is not None:
            import peft  # noqa: F401

            for file in DISTILLED_FILES.values():
                self.distilled.file(file)
        if self.attention is not None:
            wan_speed.try_attention(self.attention, self._device)
        if self.compile_blocks:
            wan_speed.try_compiling(self._device)

    def _check(self, wan: Any) -> None:
        """Look at the checkpoint's configuration before 69 GB of weights are read."""
        folder = str(self.model.folder)
        index = wan.WanImageToVideoPipeline.load_config(folder)

        def has(part: str) -> bool:
            return (index.get(part) or [None])[0] is not None

        missing = [part for part in ("transformer", "transformer_2") if not has(part)]
        missing += [] if index.get("boundary_ratio") else ["boundary_ratio"]
        problem = f"has no {', no '.join(missing)}" if missing else None
        if not missing:
            vae, expert = (
                model.load_config(folder, subfolder=part)
                for model, part in ((wan.AutoencoderKLWan, "vae"), (wan.WanTransformer3DModel, "transformer"))
            )
            # Noise, the picture, and four channels that say which frames are given (the VAE's time factor).
            channels = 2 * vae.get("z_dim", 16) + vae.get("scale_factor_temporal", 4)
            if expert["in_channels"] != channels:
                problem = f"takes no picture: {expert['in_channels']} input channels instead of {channels}"
            elif "flow_shift" not in _scheduler_config(wan, folder):
                problem = "has a scheduler without flow_shift"
        if problem is not None:
            raise ValueError(
                f"{folder} {problem}; needed is Wan2.2-I2V-A14B in diffusers' layout, two transformers "
                "(transformer, transformer_2) that change places at boundary_ratio"
            )

    def animate(self, request: Animation) -> npt.NDArray[np.uint8]:
        """See `ImageToVideo.animate`; uint8 [num_frames, H, W, 3].

        Raises:
            ValueError: the prompt is longer than the text encoder reads, or the model gave no numbers.
            torch.OutOfMemoryError: the clip does not fit on the GPU even layer by layer.
        """

        self.setup()
        self._check_length("prompt", request.prompt)
        if self.is_guided:
            self._check_length("negative prompt", request.negative_prompt)
        while True:
            try:
                self._place()
                return self._generate(request)
            except RuntimeError as error:  # cuBLAS has no class of its own for it
                if not is_out_of_memory(error) or self.offload == OFFLOADS[-1]:
                    raise
            # Out here the error is gone, and with it the tensors its traceback holds.
            self.offload = OFFLOADS[OFFLOADS.index(self.offload) + 1]
            self._is_placed = False

    def _check_length(self, what: str, text: str) -> None:
        count = len(self._pipe.tokenizer(text).input_ids)
        if count > self.max_prompt_tokens:  # the pipeline would cut it without a word
            raise ValueError(f"the {what} has {count} tokens; at most {self.max_prompt_tokens} are read")

    def _place(self) -> None:
        """Put the pipeline where `offload` says."""
        if self._is_placed:
            return
        if self._device != "cpu":
            place(self._pipe, self.offload, self._device)
        self._is_placed = True

    def _embed(self, text: str) -> Any:
        """What the text encoder says of a prompt, on the device; the last ones are remembered.

        The same negative prompt comes with every clip. Prompts are encoded one by one: in a batch they would
        be rounded otherwise.
        """
        import torch

        if text not in self._embeddings:
            waits = self.offload == "text_encoder" and self._device != "cpu"
            if waits:
                self._pipe.text_encoder.to(self._device)
            with torch.no_grad():
                made, _ = self._pipe.encode_prompt(
                    text,
                    do_classifier_free_guidance=False,
                    max_sequence_length=self.max_prompt_tokens,
                    device=torch.device("cpu"),
                )
            if waits:
                self._pipe.text_encoder.to("cpu")
            while len(self._embeddings) >= REMEMBERED:
                del self._embeddings[next(iter(self._embeddings))]
            self._embeddings[text] = made
        # Last in the order: what has not been asked for the longest goes first.
        self._embeddings[text] = self._embeddings.pop(text)
        return self._embeddings[text].to(self._device)

    def _generate(self, request: Animation) -> npt.NDArray[np.uint8]:
        import torch

        height, width = request.image.shape[:2]
        width, height = fit_size(width, height, self.max_area, self._multiple)
        # Layer by layer, weights come and go inside the blocks: nothing that could be compiled as one.
        eager = self.compile_blocks and self.offload == "sequential"
        prompt = self._embed(request.prompt)
        negative = self._embed(request.negative_prompt) if self.is_guided else None
        with wan_speed.running(self.attention, eager):
            frames = self._pipe(
                image=Image.fromarray(resized(request.image, width, height)),
                prompt_embeds=prompt,
                negative_prompt_embeds=negative,
                width=width,
                height=height,
                num_frames=self.num_frames,
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
                guidance_scale_2=self.guidance_scale_2,
                generator=torch.Generator("cpu").manual_seed(request.seed),
                output_type="np",
            ).frames[0]
        if not np.isfinite(frames).all():
            raise ValueError("the model's frames are not all numbers (NaN or infinite)")
        return (frames * 255).round().astype(np.uint8)


def _import_quietly() -> Any:
    """diffusers, without its and transformers' progress bars and the warning that torchvision is missing.

    Wan 2.2 uses no CLIP, whose picture processor is what torchvision is wanted for.
    """
    import diffusers
    import transformers

    loud = logging.getLogger("transformers")
    level = loud.level
    loud.setLevel(logging.ERROR)
    try:
        diffusers.WanImageToVideoPipeline  # noqa: B018 - diffusers imports a class when it is first named
    finally:
        loud.setLevel(level)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    return diffusers


def _scheduler_config(wan: Any, folder: str) -> Mapping[str, Any]:
    config = wan.UniPCMultistepScheduler.load_config(folder, subfolder="scheduler")
    assert isinstance(config, Mapping)
    return config
