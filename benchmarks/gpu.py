"""The gpu profile's models on one GPU: samples a second, and what holds them up.

Random weights of the true sizes (speed does not depend on their values), real decoding: threads decode 720p
clips made for this, as the pipeline does, and several samples are worked on at once. For each model: samples
a second, how busy the GPU is (nvidia-smi), the most memory PyTorch held, and the share of their time in which
the threads that run the model wait for decoding. Qwen2.5-VL runs in transformers here, in production in vLLM;
of Wan one step of its transformer runs, without guidance.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --device cpu --tiny    # the same code on a CPU; its figures mean nothing
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.bodies.sam2 import Sam2
from backends.pictures.attribute_embedder import DinoV2
from backends.pictures.cotracker import CoTracker3
from backends.pictures.openclip import OpenClipEmbedder
from backends.running.batching import is_out_of_memory
from backends.store.weights import Weights
from benchmarks import random_weights
from benchmarks.media import run_ffmpeg
from media.decode import decode
from media.requests import Frames

Images = Sequence[npt.NDArray[np.uint8]]
Work = Callable[[Images], object]
SECONDS = 6  # of a clip


@dataclass(frozen=True)
class Setting:
    """Where and how large: device, tiny weights or true ones, a folder for them."""

    device: str
    tiny: bool
    folder: Path

    def weights(self, name: str, build: Callable[..., None]) -> Weights:
        """Random weights on disk, for a model that is loaded from there as in production."""
        folder = self.folder / name
        folder.mkdir()
        build(folder, small=self.tiny)
        return Weights(name, folder, is_random=True)


@dataclass(frozen=True)
class Case:
    """One model: its name, what a sample is, the frames it sees (None: none), how to make it."""

    name: str
    sample: str
    frames: Frames | None
    make: Callable[[Setting], Work]
    at_once: bool = True


@dataclass(frozen=True)
class Measured:
    """Samples a second; GPU busy 0-1, None if unknown; peak memory, bytes, None without CUDA; waiting for
    decoding 0-1, None if nothing is decoded.
    """

    rate: float
    busy: float | None
    peak: int | None
    waiting: float | None


def cotracker(setting: Setting) -> Work:
    """As the stage Motion asks: a grid of points through 6 s."""
    weights = setting.weights("cotracker3", random_weights.cotracker3)
    shape = (32, 48) if setting.tiny else (384, 512)
    model = CoTracker3(weights, setting.device, interp_shape=shape)
    model.setup()
    most, points = (2, 2) if setting.tiny else (model.offline_frames, 16)
    return lambda images: model.track(images[:most], points)


def openclip(setting: Setting) -> Work:
    """As Consistency asks: one frame a second."""
    model = OpenClipEmbedder(setting.weights("openclip", random_weights.openclip), setting.device)
    model.setup()
    return lambda images: model.embed(images[::2])


def dinov2(setting: Setting) -> Work:
    """As Attributes asks: one frame."""
    model = DinoV2(setting.weights("dinov2", random_weights.dinov2), setting.device)
    model.setup()
    return lambda images: model.embed(images[:1])


def sam2(setting: Setting) -> Work:
    """As Motion asks with one person: one frame, one box."""
    model = Sam2(setting.weights("sam2", random_weights.sam2), setting.device)
    model.setup()
    box = np.array([[0.3, 0.1, 0.7, 0.9]], np.float32)
    return lambda images: model.logits(images[0], box)


def qwen(setting: Setting) -> Work:
    """One frame and a question of 64 tokens, 64 tokens of answer."""
    import torch
    from transformers import Qwen2VLImageProcessor

    net = _on(setting, lambda: random_weights.qwen(setting.tiny))
    side = 28 * 28
    processor = Qwen2VLImageProcessor(
        min_pixels=4 * side, max_pixels=16 * side if setting.tiny else 1280 * side
    )
    new = 4 if setting.tiny else 64

    def answer(images: Images) -> object:
        made = processor(images=[images[0]], return_tensors="pt").to(setting.device)
        tokens = int(made["image_grid_thw"].prod()) // 4  # 2 x 2 patches make a token
        ids = torch.tensor([[3, *[1] * tokens, 4, *range(5, 69)]], device=setting.device)
        with torch.inference_mode():
            return net.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=(ids == 1).int(),
                pixel_values=made["pixel_values"].to(net.dtype),
                image_grid_thw=made["image_grid_thw"],
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
            )

    return answer


def wan(size: str, latents: tuple[int, int, int]) -> Callable[[Setting], Work]:
    """One step of the transformer over latents [T, H, W]."""

    def make(setting: Setting) -> Work:
        import torch

        net = _on(setting, lambda: random_weights.wan(size, setting.tiny))
        where: dict[str, Any] = {"device": setting.device, "dtype": net.dtype}
        shape = (2, 4, 4) if setting.tiny else latents
        noisy = torch.randn(1, net.config.in_channels, *shape, **where)
        text = torch.randn(1, 512, net.config.text_dim, **where)
        when = torch.tensor([500.0], device=setting.device)

        def step(images: Images) -> object:
            with torch.inference_mode():
                net(hidden_states=noisy, timestep=when, encoder_hidden_states=text)
            if setting.device.startswith("cuda"):
                torch.cuda.synchronize()  # nothing comes back that would wait for the GPU
            return None

        return step

    return make


CASES = (
    Case("CoTracker3", "6 s at 12.5 fps, 16 x 16 points", Frames(12.5, 360), cotracker),
    Case("CLIP ViT-L/14", "7 frames", Frames(2, 480), openclip),
    Case("DINOv2-L", "1 frame", Frames(2, 480), dinov2),
    Case("SAM 2.1-L", "1 frame, 1 box", Frames(2, 480), sam2),
    Case("Qwen2.5-VL-7B", "1 frame, 64 tokens asked, 64 answered", Frames(2, 480), qwen, at_once=False),
    Case("Wan 1.3B", "1 step, 81 frames at 832 x 480", None, wan("1.3B", (21, 60, 104)), at_once=False),
    Case("Wan 5B", "1 step, 81 frames at 1280 x 704", None, wan("5B", (21, 44, 80)), at_once=False),
)


def _on(setting: Setting, make: Callable[[], Any]) -> Any:
    """A model made on the device, bfloat16 on CUDA, float32 else."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if setting.device.startswith("cuda") else torch.float32)
    try:
        with torch.device(setting.device):
            return make().eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def videos(folder: Path, count: int = 4) -> list[Path]:
    """720p test pictures in motion, 25 frames a second, H.264."""
    made = []
    for i in range(count):
        made.append(folder / f"{i}.mp4")
        source = f"testsrc2=size=1280x720:rate=25:duration={SECONDS},hue=h={90 * i}"
        h264 = ("-vcodec", "libx264", "-preset", "veryfast", "-crf", 20, "-pix_fmt", "yuv420p")
        run_ffmpeg("-f", "lavfi", "-i", source, *h264, made[-1])
    return made


class Feeder:
    """Threads that decode clips again and again into a short queue."""

    def __init__(self, clips: Sequence[Path], frames: Frames, threads: int) -> None:
        self._frames = frames
        self._queue: queue.Queue[Images | Exception] = queue.Queue(threads)
        self._is_over = threading.Event()
        self._clips = cycle(clips)
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._decode, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Feeder:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def take(self) -> Images:
        """The next clip's frames; raises what decoding raised."""
        found = self._queue.get()
        if isinstance(found, Exception):
            raise found
        return found

    def _decode(self) -> None:
        while not self._is_over.is_set():
            with self._lock:
                clip = next(self._clips)
            found: Images | Exception
            try:
                found = decode(clip, [self._frames]).frames[self._frames][1]
            except Exception as error:
                found = error
            while not self._is_over.is_set():
                with suppress(queue.Full):
                    self._queue.put(found, timeout=0.1)
                    break


class Busy:
    """How busy the GPU is, as nvidia-smi says five times a second; `share` is None where it cannot tell."""

    def __init__(self, device: str) -> None:
        self.share: float | None = None
        self._process: subprocess.Popen[str] | None = None
        if device.startswith("cuda") and shutil.which("nvidia-smi"):
            import torch

            # By its own id: CUDA and nvidia-smi may count differently.
            uuid = str(torch.cuda.get_device_properties(device).uuid)
            self._command = ["nvidia-smi", "-i", uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"]
            self._command += ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
        else:
            self._command = []

    def __enter__(self) -> Busy:
        if self._command:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        lines, _ = self._process.communicate()
        values = [float(line) for line in lines.split() if line.isdigit()]
        self.share = sum(values) / len(values) / 100 if values else None


def measure(case: Case, setting: Setting, clips: Sequence[Path], args: argparse.Namespace) -> Measured:
    """Make a model, warm it up with two samples, and keep it at work for `args.seconds`."""
    import torch

    on_cuda = setting.device.startswith("cuda")
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(setting.device)
    work = case.make(setting)
    workers = args.at_once if case.at_once else 1
    if case.frames is None:
        rate, busy, _ = _keep_busy(work, lambda: [], workers, setting, args.seconds)
        waiting = None
    else:
        with Feeder(clips, case.frames, args.decoders) as feeder:
            rate, busy, waiting = _keep_busy(work, feeder.take, workers, setting, args.seconds)
    return Measured(rate, busy, torch.cuda.max_memory_allocated(setting.device) if on_cuda else None, waiting)


def _keep_busy(
    work: Work, take: Callable[[], Images], workers: int, setting: Setting, seconds: float
) -> tuple[float, float | None, float]:
    """Samples a second, GPU busy, and the workers' share of time in `take`."""
    for _ in range(2):
        work(take())
    counts, waits, errors = [0] * workers, [0.0] * workers, []
    start = time.perf_counter()

    def loop(i: int) -> None:
        try:
            while counts[i] == 0 or time.perf_counter() < start + seconds:
                before = time.perf_counter()
                images = take()
                waits[i] += time.perf_counter() - before
                work(images)
                counts[i] += 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(workers)]
    with Busy(setting.device) as busy:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.perf_counter() - start
    if errors:
        raise errors[0]
    return sum(counts) / wall, busy.share, sum(waits) / (workers * wall)


def row(case: Case, found: Measured | None) -> str:
    """One line of the table; None: it did not fit."""
    if found is None:
        return f"| {case.name} | {case.sample} | out of memory | | | |"
    busy = "?" if found.busy is None else f"{100 * found.busy:.0f} %"
    peak = "?" if found.peak is None else f"{found.peak / 2**30:.1f} GiB"
    waiting = "decodes nothing" if found.waiting is None else f"{100 * found.waiting:.0f} %"
    return f"| {case.name} | {case.sample} | {found.rate:.3g} | {busy} | {peak} | {waiting} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 2 without the device asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 ..., cpu")
    parser.add_argument("--tiny", action="store_true", help="tiny weights, to try this out")
    parser.add_argument("--only", nargs="*", metavar="MODEL", help="models whose names begin so")
    parser.add_argument("--seconds", type=float, default=30, help="time measured for each model")
    parser.add_argument("--at-once", type=int, default=4, help="samples worked on at once")
    cores = os.cpu_count() or 2
    parser.add_argument("--decoders", type=int, default=max(1, cores - 1), help="threads that decode")
    args = parser.parse_args(argv)
    import torch

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "There is no CUDA device here, so nothing is measured (see --help for a trial run).",
            file=sys.stderr,
        )
        return 2
    chosen = [c for c in CASES if not args.only or any(c.name.startswith(name) for name in args.only)]
    gpu = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else "no GPU"
    print(f"{gpu}; {platform.node()}, {cores} cores; torch {torch.__version__}", end="; ")
    print(f"{args.decoders} threads decode 720p, {args.at_once} samples at once\n")
    if args.tiny:
        print("Tiny weights: these figures say nothing about the models.\n")
    print("| model | a sample | samples/s | GPU busy | peak memory | waiting for decoding |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = videos(folder)
        setting = Setting(args.device, args.tiny, folder)
        for case in chosen:
            found = None
            try:
                found = measure(case, setting, clips, args)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            print(row(case, found), flush=True)
            gc.collect()
            if args.device.startswith("cuda"):
                torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
