"""Image-to-video by Wan 2.2 (diffusers), the paper's generator."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from backends.running.batching import is_out_of_memory
from backends.store.weights import Weights
from backends.video.image_to_video import AREA_480P, Animation, Gpu, Published, fit_size, resized

Offload = Literal["none", "model", "sequential"]
# From the fastest to the one that needs the least memory of the GPU.
OFFLOADS: Final[tuple[Offload, ...]] = ("none", "model", "sequential")

# Memory beside the weights, for each pixel of the clip. Wan's table of single GPUs gives peaks of 41.0 GiB
# at 832x480 and 59.7 GiB at 1280x720 for 81 frames with one expert loaded (14,288,901,184 weights of two
# bytes, 26.6 GiB): 477 and 476 bytes a pixel remain.
WORKING_BYTES: Final = 480

# Seconds for one clip of Wan2.2-I2V-A14B, 81 frames in 40 steps, by pixels of a frame.
PUBLISHED_SECONDS: Final[Mapping[int, Mapping[Gpu, float]]] = {
    832 * 480: {"H100": 327.8, "A100": 810.0, "H20": 1117.0},
    1280 * 720: {"H100": 1055.9, "A100": 2811.0, "H20": 4055.0},
}
PUBLISHED_BY: Final = (
    "Wan2.2's README, Computational Efficiency on Different GPUs: Wan's own code with offload on one {gpu}"
)


def choose_offload(free: int, parts: Mapping[str, int], working: int) -> Offload:
    """What of the pipeline waits in the computer's memory while it is not used.

    Args:
        free: bytes free on the GPU before anything is loaded.
        parts: bytes of each component; the VAE stays loaded beside the others once it has been used.
        working: bytes needed beside the weights.
    """
    if sum(parts.values()) + working <= free:
        return "none"
    largest = max(size for name, size in parts.items() if name != "vae")
    if largest + parts.get("vae", 0) + working <= free:
        return "model"
    return "sequential"


class WanImageToVideo:
    """Wan2.2-I2V-A14B: two transformers of 14B, one for high noise and one for low noise; 16 frames a second.

    The noise is drawn on the CPU, so it does not depend on the device. Weights are bfloat16 on a GPU and
    float32 on a CPU, the VAE always float32. On a GPU the parts stay loaded or wait in the computer's
    memory as the free memory allows; a clip that does not fit is tried again with less, and so are those
    after it. The whole picture is resized, not cropped, so a point of it is the same point of the clip.

    Args:
        model: the weights, a diffusers pipeline.
        num_frames: 4 n + 1; the model was trained on 81.
        num_inference_steps: denoising steps of both transformers together.
        guidance_scale: of the high-noise transformer, above 1.
        guidance_scale_2: of the low-noise transformer. Wan's own configuration names the two the other
            way round, low noise first.
        flow_shift: of the noise schedule; 5.0 is Wan's own, the diffusers conversion says 3.0.
        max_area: pixels of a frame; 832 x 480, or 1280 x 720.
        max_prompt_tokens: what the text encoder reads; 512 is the model's own.
        device: "cuda" or "cpu"; None: CUDA where there is one.

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
        num_inference_steps: int = 40,
        guidance_scale: float = 3.5,
        guidance_scale_2: float = 3.5,
        flow_shift: float = 5.0,
        max_area: int = AREA_480P,
        max_prompt_tokens: int = 512,
        device: str | None = None,
    ) -> None:
        if not guidance_scale > 1:  # diffusers looks at the first alone to decide whether to guide at all
            raise ValueError(f"guidance_scale must be above 1, got {guidance_scale:g}")
        self.model = model
        self.num_frames = num_frames
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self.guidance_scale_2 = guidance_scale_2
        self.flow_shift = flow_shift
        self.max_area = max_area
        self.max_prompt_tokens = max_prompt_tokens
        self.device = device
        self.offload: Offload = "none"
        self._is_placed = False
        self._device = "cpu"
        self._multiple = 16
        self._pipe: Any = None

    @cached_property
    def id(self) -> str:
        """Implementation, version and settings."""
        settings = (
            f"frames={self.num_frames}, "
            f"steps={self.num_inference_steps}, guidance={self.guidance_scale:g}/{self.guidance_scale_2:g}, "
            f"flow_shift={self.flow_shift:g}, max_area={self.max_area}, tokens={self.max_prompt_tokens}"
        )
        return f"wan({self.model}, {settings})"

    @property
    def name(self) -> str:
        """The name of the weights."""
        return self.model.label

    def published_seconds(self, gpu: Gpu) -> Published | None:
        """Of the real weights, with the settings that Wan's authors measured."""
        is_real = self.model.name == "wan2.2-i2v-a14b" and not self.model.is_random
        if not is_real or (self.num_frames, self.num_inference_steps) != (81, 40):
            return None
        seconds = PUBLISHED_SECONDS.get(self.max_area, {}).get(gpu)
        return None if seconds is None else Published(seconds, PUBLISHED_BY.format(gpu=gpu))

    def setup(self) -> None:
        """Load the pipeline into the computer's memory; it goes to the GPU with the first clip.

        Raises:
            ValueError: the checkpoint is not a Wan 2.2 image-to-video model with two transformers.
            ImportError: ftfy is missing, which diffusers cleans prompts with and does not ask for.
        """
        if self._pipe is not None:
            return
        import ftfy  # noqa: F401
        import torch

        wan = _import_quietly()
        self._check(wan)
        self._device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        weights = torch.bfloat16 if self._device.startswith("cuda") else torch.float32
        pipe = wan.WanImageToVideoPipeline.from_pretrained(
            str(self.model.folder),
            dtype={"default": weights, "vae": torch.float32},
            use_safetensors=True,  # a pickled checkpoint could run code
        )
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, flow_shift=self.flow_shift)
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
            self.offload = choose_offload(free, _sizes(pipe), working)
        self._pipe = pipe

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
            import torch

            self._pipe.remove_all_hooks()
            self._pipe.to("cpu")
            self._pipe.vae.clear_cache()  # of a decoding that was cut short
            gc.collect()
            torch.cuda.empty_cache()
            if self.offload == "none":
                self._pipe.to(self._device)
            elif self.offload == "model":
                self._pipe.enable_model_cpu_offload(device=self._device)
            else:
                self._pipe.enable_sequential_cpu_offload(device=self._device)
        self._is_placed = True

    def _generate(self, request: Animation) -> npt.NDArray[np.uint8]:
        import torch

        height, width = request.image.shape[:2]
        width, height = fit_size(width, height, self.max_area, self._multiple)
        frames = self._pipe(
            image=Image.fromarray(resized(request.image, width, height)),
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            width=width,
            height=height,
            num_frames=self.num_frames,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            guidance_scale_2=self.guidance_scale_2,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            max_sequence_length=self.max_prompt_tokens,
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


def _sizes(pipe: Any) -> dict[str, int]:
    """Bytes of each component that has weights."""
    return {
        name: sum(t.numel() * t.element_size() for t in (*part.parameters(), *part.buffers()))
        for name, part in pipe.components.items()
        if hasattr(part, "parameters")
    }
