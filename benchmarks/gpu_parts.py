"""The parts of the GPU benchmark that are more than one small network: each yields its lines as they come."""

from __future__ import annotations

import io
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import random_weights
from benchmarks.gpu_rows import Row, Setting, failed, timed


def captions(setting: Setting) -> Iterator[Row]:
    """Questions about clips to a Qwen2.5-VL-7B: vLLM's `LLM.chat` with all at once, then our captioner."""
    # The engine, too, would be forked, after the tokenizer's threads have started here, and wait for them.
    os.environ["VLLM_WORKER_MULTIPROCESSING_METHOD"] = "spawn"
    import vllm
    from pydantic import Field

    from backends.language.vision_language_model import AnswerError, Question
    from backends.language.vllm_chat import VllmChat, _Job, _messages
    from prompts.caption import CAPTION
    from prompts.prompt import Answer

    class Short(Answer):
        """As much as a caption, so that answers of random weights end."""

        caption: str = Field(min_length=1, max_length=200)

    count, frames, size = (4, 1, (64, 64)) if setting.tiny else (64, 8, (480, 854))
    rng = np.random.default_rng(0)

    def questions() -> list[Question]:
        """With pictures of their own: what vLLM has read before it does not read again."""
        made = []
        for _ in range(count):
            # Coarse noise: pictures of pixels that have nothing to do with each other cannot be encoded.
            coarse = rng.integers(0, 256, (frames, size[0] // 8 + 1, size[1] // 8 + 1, 3), np.uint8)
            video = np.repeat(np.repeat(coarse, 8, 1), 8, 2)[:, : size[0], : size[1]]
            made.append(Question(CAPTION.fill(), Short, list(video), fps=2.0))
        return made

    weights = setting.weights("qwen", random_weights.qwen_folder)
    vllm.LLM = partial(vllm.LLM, load_format="dummy")  # weights are drawn, not read
    given: dict[str, Any] = {"dtype": "bfloat16", "gpu_memory_utilization": 0.85}
    if not setting.on_cuda:
        given = {"dtype": "float32", "device": "cpu", "gpu_memory_utilization": 0.1}
        given["max_pixels"] = 64 * 28 * 28
    begun = time.perf_counter()
    answers = str(setting.folder / "answers")
    model = VllmChat(weights, answers, max_model_len=8192, max_tokens=512, batch_size=count, **given)
    model.setup()
    ready = time.perf_counter() - begun
    sample = f"{frames} frames of {size[1]} x {size[0]}, a caption of up to 200 letters"
    chat: Callable[..., Any] = model._llm.chat
    tokens = 0

    def bare() -> None:
        nonlocal tokens
        asked = questions()
        params = [model._sampling(_Job(q, "", None)) for q in asked]  # type: ignore[arg-type]
        done = chat([_messages(q) for q in asked], params, use_tqdm=False)
        tokens = sum(len(output.outputs[0].token_ids) for output in done)

    bare()
    begun = time.perf_counter()
    bare()
    alone = count / (time.perf_counter() - begun)
    yield Row(
        "vLLM's LLM.chat", sample, alone, said=f"{tokens / count:.0f} tokens each; ready in {ready:.0f} s"
    )
    wrong = 0

    def ask(question: Question) -> None:
        nonlocal wrong
        try:
            model.answer(question)
        except AnswerError:
            wrong += 1

    asked = questions()
    begun = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(ask, asked))
    rate = count / (time.perf_counter() - begun)
    yield Row(
        "our captioner", sample, rate, alone, said=f"{wrong} of {count} without an answer" if wrong else ""
    )


def wan_steps(setting: Setting) -> Iterator[Row]:
    """One denoising step, without guidance, of one expert of Wan2.2-I2V-A14B at 81 frames of 832 x 480."""
    import torch

    from backends.video.wan_speed import running, try_attention

    sample = "1 step of one expert, 81 frames at 832 x 480"
    net = _wan(setting)
    step = _step(net, setting)
    seconds = 0 if setting.tiny else 4
    plain = timed(step, setting, seconds)
    kind = "bfloat16" if setting.on_cuda else "float32"
    yield Row(f"Wan A14B, diffusers as it comes, {kind}", sample, plain, peak=_peak(setting))
    cuda = ("_native_cudnn", "_native_flash", "_flash_3", "flash", "sage")
    for name in cuda if setting.on_cuda else ("_native_math",):
        what = f"Wan A14B, attention {name}"
        try:
            try_attention(name, setting.device)
            with running(name, eager=False):
                yield Row(what, sample, timed(step, setting, seconds), plain)
        except Exception as error:
            yield failed(what, error)
    what = "Wan A14B, compiled blocks"
    if setting.tiny:
        yield Row(what, said="left out with --tiny: compiling takes a minute")
    else:
        try:
            net.compile_repeated_blocks()
            begun = time.perf_counter()
            step()
            spent = time.perf_counter() - begun
            rate = timed(step, setting, seconds)
            yield Row(what, sample, rate, plain, said=f"first step {spent:.0f} s")
        except Exception as error:
            yield failed(what, error)
    del net, step
    what = "Wan A14B, weights in float8"
    try:
        if setting.on_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(setting.device)
        net = _wan(setting)
        net.enable_layerwise_casting(
            torch.float8_e4m3fn, torch.bfloat16 if setting.on_cuda else torch.float32
        )
        if setting.on_cuda:
            torch.cuda.reset_peak_memory_stats(setting.device)
        yield Row(what, sample, timed(_step(net, setting), setting, seconds), plain, peak=_peak(setting))
    except Exception as error:
        yield failed(what, error)


def _wan(setting: Setting) -> Any:
    """One expert on the device."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if setting.on_cuda else torch.float32)
    try:
        with torch.device(setting.device):
            return random_weights.wan("A14B", setting.tiny).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def _step(net: Any, setting: Setting) -> Callable[[], object]:
    import torch

    where: dict[str, Any] = {
        "device": setting.device,
        "dtype": torch.bfloat16 if setting.on_cuda else torch.float32,
    }
    shape = (2, 4, 4) if setting.tiny else (21, 60, 104)
    noisy = torch.randn(1, net.config.in_channels, *shape, **where)
    text = torch.randn(1, 512, net.config.text_dim, **where)
    when = torch.tensor([500.0], device=setting.device)

    def step() -> object:
        with torch.no_grad():
            return net(hidden_states=noisy, timestep=when, encoder_hidden_states=text)

    return step


def _peak(setting: Setting) -> int | None:
    import torch

    return torch.cuda.max_memory_allocated(setting.device) if setting.on_cuda else None


def training(setting: Setting) -> Iterator[Row]:
    """A step of the trainer's loop with cached latents, a bare one of the same Wan2.1-1.3B; tiny encoders."""
    import torch

    from benchmarks import train_step
    from tests.support.shard_toys import toy_shards
    from trainer.data.source import ClipSource
    from trainer.data.write_latents import write_latents
    from trainer.networks.encoders import Encoders, encoder_ids

    side, steps = (64, 5) if setting.tiny else (640, 7)
    folder = setting.folder / "training"
    toy_shards(folder / "shards", clips=2, seconds=train_step.FRAMES / 16, size=(side, side))
    if setting.tiny:
        train_step.save_model(folder / "model", layers=1, heads=1)
    else:
        _save_wan(folder / "model")
    config = train_step.configure(folder, steps, side, batch=1)
    config = config.model_copy(update={"precision": "bf16" if setting.on_cuda else "fp32"})
    device = torch.device(setting.device)
    encoders = Encoders.load(config.model, folder / "model", device)
    ids = encoder_ids(config, folder / "model", encoders)
    write_latents(ClipSource(config, 0), encoders, ids, folder / "latents")
    cached = config.data.model_copy(update={"latents": str(folder / "latents")})
    sample = f"1 step, {train_step.FRAMES} frames of {side} x {side}, {config.precision}"
    bare = 1 / statistics.median(_bare_training_steps(config, folder / "model", encoders, steps))
    yield Row("bare forward, backward, AdamW", sample, bare, peak=_peak(setting))
    in_loop = train_step.loop_steps(config.model_copy(update={"data": cached}))
    took = statistics.median(wall for wall, _ in in_loop)
    yield Row("the trainer's loop", sample, 1 / took, bare, peak=_peak(setting))


def _save_wan(folder: Path) -> None:
    """A tiny checkpoint with the transformer of Wan2.1-1.3B."""
    from diffusers import WanTransformer3DModel

    from trainer.networks.tiny import save_random_model

    save_random_model(folder, "wan")
    tiny = WanTransformer3DModel.load_config(str(folder / "transformer"))
    shape = {"num_attention_heads": 12, "attention_head_dim": 128, "num_layers": 30, "ffn_dim": 8960}
    made = WanTransformer3DModel.from_config(tiny, **shape, added_kv_proj_dim=1536, freq_dim=256)
    made.save_pretrained(folder / "transformer")


def _bare_training_steps(config: Any, folder: Path, encoders: Any, count: int) -> Sequence[float]:
    """Seconds of each but the first two; latents and conditions are encoded before."""
    import torch

    from trainer.data.loader import collate
    from trainer.data.source import ClipSource
    from trainer.flow import add_noise, draw_noise, draw_sigmas, flow_loss, velocity
    from trainer.networks.encoders import encode
    from trainer.networks.load import load_backbone
    from trainer.optimiser import adamw

    device = encoders.device
    torch.manual_seed(config.seed)
    model = load_backbone(config.model, folder).to(device)
    optimiser = adamw(model, config)
    source = ClipSource(config, config.seed)
    batch = collate([source.load(pick) for pick in source.plan(0)])
    latents, conditions = encode(batch, encoders)
    sigma = draw_sigmas(0, 0, batch.slots, config.shift).to(device)
    noise = draw_noise(latents, 0, 0, batch.slots)
    noisy, target = add_noise(latents, noise, sigma), velocity(latents, noise)
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss = flow_loss(model(noisy, sigma, conditions), target).mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - begun)
    return took[2:]


def decoding(setting: Setting) -> Iterator[Row]:
    """A clip to RGB: PyAV alone, ours at two frames a second, NVDEC through PyAV and torchcodec."""
    import av

    from benchmarks.gpu_networks import SECONDS, videos
    from media.decode import decode
    from media.requests import Frames

    (clip,) = videos(setting.folder, 1)
    seconds = 0 if setting.tiny else 2
    sample = f"{SECONDS} s of 720p H.264, 25 frames/s"

    def through_pyav(**options: Any) -> None:
        with av.open(str(clip), **options) as container:
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")

    def through_torchcodec(device: str) -> None:
        from torchcodec.decoders import VideoDecoder

        decoder = VideoDecoder(str(clip), device=device)
        for start in range(0, len(decoder), 50):
            decoder[start : start + 50]

    bare = timed(through_pyav, setting, seconds)
    yield Row("PyAV, every frame to RGB", sample, bare)
    ours = timed(lambda: decode(clip, [Frames(2, 480)]), setting, seconds)
    yield Row("ours, 2 frames/s of 480 px", sample, ours, bare)
    ways: dict[str, Callable[[], None]] = {"torchcodec": lambda: through_torchcodec("cpu")}
    if setting.on_cuda:
        from av.codec.hwaccel import HWAccel

        strict = HWAccel(device_type="cuda", allow_software_fallback=False)
        ways["PyAV, NVDEC"] = lambda: through_pyav(hwaccel=strict)
        ways["torchcodec, NVDEC"] = lambda: through_torchcodec(setting.device)
    for what, way in ways.items():
        try:
            yield Row(what, sample, timed(way, setting, seconds), bare)
        except Exception as error:
            yield failed(what, error)


def precision(setting: Setting) -> Iterator[Row]:
    """What half precision and TF32 change in the results of small models: `benchmarks.precision`."""
    from benchmarks import precision as compared

    shape = (32, 48) if setting.tiny else (384, 512)
    frames = 4 if setting.tiny else 48
    cases: dict[str, tuple[Callable[..., None], Callable[..., Any]]] = {
        "wav2vec2": (random_weights.wav2vec2, compared.wav2vec2),
        "SyncNet": (random_weights.syncnet, partial(compared.syncnet, seconds=2 if setting.tiny else 4)),
        "CoTracker3": (random_weights.cotracker3, partial(compared.cotracker, frames=frames, shape=shape)),
    }
    for what, (build, compare) in cases.items():
        try:
            found = compare(setting.weights(f"precision-{what}", build), setting.device)
        except Exception as error:
            yield failed(what, error)
            continue
        for name, apart in found.items():
            said = f"from float32 by {apart.mean:.2g} on average, {apart.largest:.2g} at most"
            yield Row(f"{what}, {name}", said=said)


def end_to_end(setting: Setting) -> Iterator[Row]:
    """talking_head with the gpu profile on the real samples at 720p, and reading the same clips alone.

    SAM 2, CoTracker, CLIP and DINOv2 have their true sizes, all else is tiny; the whole time counts, from the
    first import on to the last sample.
    """
    from rich.console import Console

    from benchmarks.media import copies, real_clips, to_720p
    from manifests.screen import load_screen
    from media.decode import decode
    from pipelines.engine.progress import Progress
    from pipelines.engine.ray_session import ray_session
    from pipelines.engine.run import Run
    from pipelines.engine.source import list_input
    from pipelines.requests import load_profile, profile_roles
    from pipelines.talking_head import TalkingHeadSettings, talking_head
    from tests.models import tiny_store

    clips, seconds = (1, 1.0) if setting.tiny else (8, 6.0)
    short = to_720p(real_clips()[:clips], setting.folder / "720p", seconds)
    folder = copies(short, setting.folder / "in", len(short))
    if not setting.tiny:
        true = {
            "sam2.1-hiera-large": random_weights.sam2,
            "cotracker3": random_weights.cotracker3,
            "openclip-vit-l-14": random_weights.openclip,
            "dinov2-large": random_weights.dinov2,
        }
        tiny_store.BUILDERS = {**tiny_store.BUILDERS, **true}  # type: ignore[misc]
    store = tiny_store.build(setting.folder / "store")
    roles: dict[str, Any] = {}
    if setting.tiny:
        roles = {
            "vision_language_model": {"use": "stand_in_measured"},
            "point_tracker": {"use": "cotracker3", "model": "cotracker3", "interp_shape": [48, 64]},
        }
    else:
        # A language model of 6 MB: what it costs at its true size is a part of its own.
        roles["vision_language_model"] = {
            "max_model_len": 8192,
            "max_tokens": 1024,
            "gpu_memory_utilization": 0.2,
        }
    values: dict[str, Any] = {"models": store.location, "device": setting.device, "roles": roles}
    if setting.tiny:
        values["motion"] = {"fps": 2, "grid_size": 4, "short_side": 64}
    settings = TalkingHeadSettings.model_validate(values)
    profile = load_profile("gpu")

    def run(engine: Any) -> dict[str, Any]:
        pipeline = talking_head(profile_roles(profile, settings, setting.folder / "answers"), settings)
        screen, listing = load_screen("talking_head_gpu"), list_input(str(folder))
        this = Run(pipeline, listing, setting.folder / "out", profile, settings, screen, engine)
        return this.execute(Progress(Console(file=io.StringIO())))

    begun = time.perf_counter()
    if setting.tiny:
        record = run("inline")
    else:
        with ray_session():
            record = run("ray")
    wall = time.perf_counter() - begun
    begun = time.perf_counter()
    video = sum(float(decode(path, []).frame_times[-1]) for path in sorted(folder.iterdir()))
    floor = time.perf_counter() - begun
    errors = record["counts"].get("errors", 0)
    said = f"{len(short)} clips, {errors} errors; the ratio is to reading the clips alone"
    yield Row("talking_head, start included", "1 s of video", video / wall, video / floor, said=said)
