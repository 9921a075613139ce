"""Points followed by CoTracker3 (Karaev et al. 2024), the paper's tracker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backends.pictures.point_tracker import grid
from backends.running.pretrained import Precision, autocast, check_precision, torch_device
from backends.store.weights import Weights

# Frames that the released models were trained to see at once; their checkpoints hold embeddings of so many.
_OFFLINE_WINDOW: Final = 60
_ONLINE_WINDOW: Final = 16


class CoTracker3:
    """CoTracker3: the offline model for short runs of frames, the online one for longer runs.

    The offline model sees all frames at once. Beyond `offline_frames` the online model follows the points
    through windows of 16 frames that overlap by 8, and of the pictures only one window is on the GPU. So
    memory grows with `offline_frames` and with the number of points, not with the clip. Either model also
    follows 36 points of its own that make the others' tracks steadier. Visible is what the package's
    predictors call so: offline a visibility above 0.9, online visibility times confidence above 0.6.

    Float32 by default, also on CUDA: its tracks are positions in pixels. One clip at a time, whose points are
    the batch. The package is not on PyPI, and its code and weights are for non-commercial use (CC-BY-NC 4.0).

    Args:
        model: folder with `scaled_offline.pth` and `scaled_online.pth`.
        device: "cuda", "cuda:0", "cpu"; None: CUDA where there is one.
        offline_frames: longest run for the offline model, which was trained on 60 frames and adapts its
            clock to others; 80 holds 6 s at 12.5 frames a second.
        interp_shape: height and width that frames are scaled to, multiples of 4; the models' own is 384, 512.
        precision: of the sums: "float32", "bfloat16" or "float16".

    Raises:
        ValueError: `offline_frames` is less than the online model's window, or there is no such precision.
    """

    packages = ("torch", "cotracker")

    def __init__(
        self,
        model: Weights,
        device: str | None = None,
        offline_frames: int = 80,
        interp_shape: Sequence[int] = (384, 512),
        precision: Precision = "float32",
    ) -> None:
        check_precision(precision)
        if offline_frames < _ONLINE_WINDOW:
            raise ValueError(f"offline_frames must be {_ONLINE_WINDOW} or more, got {offline_frames}")
        height, width = interp_shape
        self.model = model
        self.device = device
        self.offline_frames = offline_frames
        self.interp_shape = (int(height), int(width))
        self.precision = precision
        self._offline: Any = None
        self._online: Any = None
        self._lock: Any = None

    @cached_property
    def id(self) -> str:
        """Implementation, version, weights and settings; a precision that is not float32."""
        from cotracker.version import __version__

        height, width = self.interp_shape
        precision = "" if self.precision == "float32" else f" {self.precision}"
        return (
            f"cotracker {__version__} {self.model} {height}x{width} offline<={self.offline_frames}{precision}"
        )

    def setup(self) -> None:
        """Load both models.

        Raises:
            ImportError: the package is not installed.
            FileNotFoundError: weights are not there.
            RuntimeError: they are another model's.
        """
        if self._lock is not None:
            return
        from cotracker.predictor import CoTrackerOnlinePredictor, CoTrackerPredictor

        device = torch_device(self.device)
        offline = CoTrackerPredictor(checkpoint=None, offline=True, window_len=_OFFLINE_WINDOW)
        online = CoTrackerOnlinePredictor(checkpoint=None, offline=False, window_len=_ONLINE_WINDOW)
        self._offline = self._load(offline, "scaled_offline.pth", device)
        self._online = self._load(online, "scaled_online.pth", device)
        self._device = device
        self._lock = threading.Lock()

    def _load(self, predictor: Any, name: str, device: str) -> Any:
        import torch

        weights = torch.load(self.model.file(name), map_location="cpu", weights_only=True)
        predictor.model.load_state_dict(weights.get("model", weights))
        predictor.interp_shape = self.interp_shape
        return predictor.to(device).eval().requires_grad_(False)

    def track(
        self, images: Sequence[npt.NDArray[np.uint8]], grid_size: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """See `PointTracker.track`.

        Raises:
            torch.OutOfMemoryError: too many frames or points for this GPU; lower `offline_frames`.
        """
        import torch

        self.setup()
        frames = _stacked(images)
        height, width = images[0].shape[:2]
        points = grid(width, height, grid_size)
        # The first column is the frame in which a point is given.
        starts = torch.from_numpy(np.pad(points, ((0, 0), (1, 0))))[None].to(self._device)
        with self._lock, torch.inference_mode(), autocast(self._device, self.precision):
            found, seen = _once_more(lambda: self._tracks(frames, starts))
            tracks = np.array(found[0].float().cpu().numpy())
            visible = np.array(seen[0].cpu().numpy())
        tracks[0], visible[0] = points, True  # the online model moves even the points it was given
        return tracks, visible

    def visible_share(self, images: Iterable[npt.NDArray[np.uint8]], grid_size: int) -> float:
        """See `PointTracker.visible_share`.

        The offline model, whatever the number of frames. The points lie evenly over the network's picture up
        to 1/64 of its width from the border, with none of its own beside them; visible is a visibility above
        0.9, and every point in the first frame.

        Raises:
            torch.OutOfMemoryError: too many frames or points for this GPU.
        """
        import torch

        self.setup()
        frames = _stacked(list(images))
        with self._lock, torch.inference_mode(), autocast(self._device, self.precision):
            _, seen = _once_more(lambda: self._offline(self._video(frames), grid_size=grid_size))
            return float(seen.float().mean())

    def _tracks(self, frames: Any, starts: Any) -> tuple[Any, Any]:
        if len(frames) <= self.offline_frames:
            found, seen = self._offline(self._video(frames), queries=starts)
            return found, seen
        return self._follow(frames, starts)

    def _follow(self, frames: Any, starts: Any) -> tuple[Any, Any]:
        """The online model over overlapping windows; it joins them itself."""
        step = self._online.step
        self._online(self._video(frames[:1]), is_first_step=True, queries=starts, add_support_grid=True)
        found = None
        for start in range(0, len(frames) - step, step):
            window = self._video(frames[start : start + 2 * step])
            found = self._online(window, add_support_grid=True)
        assert found is not None  # there are more frames than one window
        return found

    def _video(self, frames: Any) -> Any:
        """Uint8 [T, 3, H, W] as the predictors take it: float [1, T, 3, H, W], 0-255, on the device."""
        return frames[None].to(self._device).float()


def _stacked(images: Sequence[npt.NDArray[np.uint8]]) -> Any:
    """Uint8 [T, 3, H, W]."""
    import torch

    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _once_more(run: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    """What `run` gives, at the second try when memory ran out: it may lie with another library here."""
    import torch

    with suppress(torch.OutOfMemoryError):
        return run()
    torch.cuda.empty_cache()
    return run()
