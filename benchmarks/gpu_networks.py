"""The small networks of the gpu profile at work beside decoding, and the libraries' own networks alone.

For each: samples a second as the pipeline works (threads decode 720p clips made for this, several samples at
once), how busy the GPU is (nvidia-smi), the most memory PyTorch held, the share of their time in which the
threads that run the model wait for decoding; and the same network called by itself on pictures that lie
on the device, prepared.
"""

from __future__ import annotations

import gc
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
from backends.running.pretrained import autocast
from benchmarks import random_weights
from benchmarks.gpu_rows import Row, Setting, failed, timed
from benchmarks.media import run_ffmpeg
from media.decode import decode
from media.requests import Frames

Images = Sequence[npt.NDArray[np.uint8]]
Work = Callable[[Images], object]
SECONDS = 6  # of a clip
AT_ONCE = 4  # samples worked on


@dataclass(frozen=True)
class Case:
    """One network: its name, what a sample is, the frames it sees, how to make it.

    `make` gives what works on a sample as the stages ask it, and the bare network's call for one.
    """

    name: str
    sample: str
    frames: Frames
    make: Callable[[Setting], tuple[Work, Callable[[], object]]]


def cotracker(setting: Setting) -> tuple[Work, Callable[[], object]]:
    """As the stage Motion asks: a grid of points through 6 s."""
    import torch
    from cotracker.predictor import CoTrackerPredictor

    weights = setting.weights("cotracker3", random_weights.cotracker3)
    shape = (32, 48) if setting.tiny else (384, 512)
    model = CoTracker3(weights, setting.device, interp_shape=shape)
    model.setup()
    most, points = (2, 2) if setting.tiny else (SECONDS * 25 // 2 + 1, 16)
    bare = CoTrackerPredictor(checkpoint=str(weights.file("scaled_offline.pth")), offline=True, window_len=60)
    bare.interp_shape = shape
    bare = bare.to(setting.device).eval()
    video = torch.zeros(1, most, 3, 360, 640, device=setting.device)

    def alone() -> object:
        with torch.inference_mode():
            return bare(video, grid_size=points)

    return (lambda images: model.track(images[:most], points)), alone


def openclip(setting: Setting) -> tuple[Work, Callable[[], object]]:
    """As Consistency asks: one frame a second."""
    import open_clip
    import torch

    weights = setting.weights("openclip", random_weights.openclip)
    model = OpenClipEmbedder(weights, setting.device)
    model.setup()
    tower = open_clip.create_model(f"local-dir:{weights.folder}", device="cpu").visual
    side = open_clip.transform.PreprocessCfg(**tower.preprocess_cfg).size
    pixels = torch.zeros(SECONDS + 1, 3, *(side if isinstance(side, tuple) else (side, side)))
    return (lambda images: model.embed(images[::2])), _alone(tower, pixels, setting)


def dinov2(setting: Setting) -> tuple[Work, Callable[[], object]]:
    """As Attributes asks: one frame."""
    import torch
    from transformers import Dinov2Model

    weights = setting.weights("dinov2", random_weights.dinov2)
    model = DinoV2(weights, setting.device)
    model.setup()
    bare = Dinov2Model.from_pretrained(weights.folder)
    return (lambda images: model.embed(images[:1])), _alone(bare, torch.zeros(1, 3, 224, 224), setting)


def sam2(setting: Setting) -> tuple[Work, Callable[[], object]]:
    """As Motion asks with one person: one frame, one box."""
    import torch
    from transformers import Sam2Model

    weights = setting.weights("sam2", random_weights.sam2)
    model = Sam2(weights, setting.device)
    model.setup()
    box = np.array([[0.3, 0.1, 0.7, 0.9]], np.float32)
    bare = Sam2Model.from_pretrained(weights.folder)
    side = bare.config.prompt_encoder_config.image_size
    boxes = torch.tensor([[[0.3, 0.1, 0.7, 0.9]]], device=setting.device) * side
    alone = _alone(bare, torch.zeros(1, 3, side, side), setting, input_boxes=boxes, multimask_output=False)
    return (lambda images: model.logits(images[0], box)), alone


def _alone(net: Any, pixels: Any, setting: Setting, **more: Any) -> Callable[[], object]:
    """The call of a network on prepared pictures, in the precision that the backends take."""
    import torch

    ready = net.to(setting.device).eval().requires_grad_(False)
    given = pixels.to(setting.device)

    def call() -> object:
        with torch.inference_mode(), autocast(setting.device):
            return ready(given, **more)

    return call


CASES = (
    Case("CoTracker3", "6 s at 12.5 fps, 16 x 16 points", Frames(12.5, 360), cotracker),
    Case("CLIP ViT-L/14", "7 frames", Frames(2, 480), openclip),
    Case("DINOv2-L", "1 frame", Frames(2, 480), dinov2),
    Case("SAM 2.1-L", "1 frame, 1 box", Frames(2, 480), sam2),
)


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


def networks(setting: Setting) -> Iterator[Row]:
    """A line for each network."""
    clips = videos(setting.folder)
    share = setting.left / len(CASES)
    for number, case in enumerate(CASES):
        try:
            # Making the weights and loading them takes its time, too.
            yield measure(case, setting, clips, seconds=0 if setting.tiny else min(share / 4, 10))
        except Exception as error:
            yield failed(case.name, error)
        gc.collect()
        if setting.on_cuda:
            import torch

            torch.cuda.empty_cache()
        if setting.left < share / 2 and number + 1 < len(CASES):
            yield Row(f"{len(CASES) - number - 1} more networks", said="no time was left")
            return


def measure(case: Case, setting: Setting, clips: Sequence[Path], seconds: float) -> Row:
    """Make a model, warm it up with two samples, keep it at work for a time; then the bare network."""
    import torch

    if setting.on_cuda:
        torch.cuda.reset_peak_memory_stats(setting.device)
    work, bare = case.make(setting)
    at_once = 1 if setting.tiny else AT_ONCE
    threads = 1 if setting.tiny else max(1, (os.cpu_count() or 2) - 1)
    with Feeder(clips, case.frames, threads) as feeder:
        rate, busy, waiting = _keep_busy(work, feeder.take, at_once, setting, seconds)
    peak = torch.cuda.max_memory_allocated(setting.device) if setting.on_cuda else None
    alone = timed(bare, setting, seconds / 3)
    return Row(case.name, case.sample, rate, alone, busy, peak, waiting)


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
