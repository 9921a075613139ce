"""An avatar in real time: blocks of frames while sound and touches arrive (InterAvatar §1, C.1).

A distilled network generates block after block from a memory that rolls, and the VAE decodes each at once.
What is heard and where the person is touched counts from the next block on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from configs.reading import SettingsError
from trainer.data.batch import Batch, Conditions
from trainer.data.decode import to_bytes
from trainer.data.dropout import prompt_of
from trainer.generate import Trained
from trainer.networks.causal import CausalWan, block_noise, rollout_sigmas
from trainer.networks.encoders import encode_conditions
from trainer.networks.streaming_decoder import StreamingDecoder

PARTS = ("conditions", "transformer", "vae")  # what a block's time is spent on


@dataclass(frozen=True)
class Block:
    """Frames that were made together."""

    frames: npt.NDArray[np.uint8]  # [F, H, W, 3]
    first: int  # number of the first one in the stream
    touches: int  # how many it knows of
    reaction_s: float | None  # from the last touch to these frames, the first that know of it
    seconds: dict[str, float]  # by PARTS


@dataclass(frozen=True)
class _Touch:
    number: int  # from 1; 0: none yet
    at: float  # time.perf_counter
    point: tuple[float, float] | None  # None: not touched, or no longer
    sentence: str | None


class Stream(Iterator[Block]):
    """Frames without end: 4 (n - 1) + 1 in the first block of n latent steps, 4 n in the others.

    `touch`, `release` and `hear` may be called from another thread while a block is made. The same seed, and
    the same calls before the same blocks, give the same frames; what is called later changes no earlier one.
    As long as nothing is called between blocks they are the frames of `Trained.sample`, up to rounding.
    """

    def __init__(
        self,
        trained: Trained,
        batch: Batch,
        seed: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Prepare the portrait.

        Args:
            trained: a distilled checkpoint.
            batch: of one clip: its first frame, prompt, identity and attributes; no touch, and its sound is
                not used.
            seed: of the noise.
            clock: that the parts of blocks are timed by, s.

        Raises:
            SettingsError: the checkpoint is not distilled.
        """
        if not isinstance(trained.model, CausalWan):
            raise SettingsError(
                f"the checkpoint is of stage {trained.config.stage}: only a distilled one generates while it "
                "is watched. Distil it, by a configuration like wan_stage3 with `init` set to it, or let "
                "`interavatar sample` make whole clips of it"
            )
        self._encoders, self._model, self._config = trained.encoders, trained.model, trained.config
        self._sigmas = rollout_sigmas(self._config.distill.steps, self._config.distill.shift)
        self._seed, self._batch, self._now = seed, batch, clock
        self._device = trained.encoders.device
        self._decoder = StreamingDecoder(trained.encoders)
        self._blocks = 0
        self._lock = threading.Lock()
        self._heard = np.zeros((0, self._config.model.audio_dim), np.float32)
        self._touch = self._known = _Touch(0, 0.0, None, None)
        grey = trained.encoders.backbone.grey_frames  # all that z_img ever says
        self._conditions = encode_conditions(batch, trained.encoders, grey)
        with torch.no_grad(), self._autocast():
            self._memory = self._model.begin(self._with_sound(self._heard), self._model.past)

    @property
    def frames_ahead(self) -> int:
        """How many frames the next block has."""
        return self.block_frames - (0 if self._blocks else self._model.frame_step - 1)

    @property
    def block_frames(self) -> int:
        """How many frames a block has, the first one excepted."""
        return self._model.frame_step * self._model.latent_block

    def hear(self, rows: npt.NDArray[np.float32]) -> None:
        """What is said, for the next frames that have heard nothing yet: [F, D_audio], one row a frame.

        A block hears the rows that are there when it begins; frames without one hear silence, zeros.

        Raises:
            ValueError: rows of another width.
        """
        if rows.ndim != 2 or rows.shape[1] != self._heard.shape[1]:
            raise ValueError(f"sound of shape {rows.shape}: needed are rows {self._heard.shape[1]} wide")
        with self._lock:
            self._heard = np.concatenate([self._heard, np.asarray(rows, np.float32)])

    def touch(self, x: float, y: float, sentence: str) -> int:
        """From the next block on: touched at shares x, y of the picture, as the sentence says; its number."""
        with self._lock:
            self._touch = _Touch(self._touch.number + 1, time.perf_counter(), (x, y), sentence)
            return self._touch.number

    def release(self) -> None:
        """From the next block on: not touched."""
        with self._lock:
            self._touch = replace(self._touch, point=None, sentence=None)

    def __next__(self) -> Block:
        """Make a block.

        Raises:
            ValueError: the network gave numbers that are not finite.
        """
        seconds = dict.fromkeys(PARTS, 0.0)
        first, count = self._blocks * self._model.latent_block, self._model.latent_block
        with self._lock:
            touch = self._touch
            rows, self._heard = np.split(self._heard, [self.frames_ahead])
        with torch.no_grad(), self._autocast():
            with self._clock(seconds, "conditions"):
                if touch is not self._known:
                    self._react(touch)
                given = self._model.given(self._with_sound(rows)).steps(1 if first else 0, count)
                shape = (self._conditions.reference.shape[1], count, *self._conditions.reference.shape[3:])
                noise = block_noise(shape, len(self._sigmas), self._seed, self._blocks, 0)[:, None]
            with self._clock(seconds, "transformer"):
                clean = self._model.denoise(noise.to(self._device), self._sigmas, given, first, self._memory)
                self._model.remember(clean, given, first, self._memory)
            with self._clock(seconds, "vae"):
                video = self._decoder.decode(clean)
                made = to_bytes(video)[0].permute(1, 2, 3, 0).cpu().numpy()
        if not (torch.isfinite(clean).all() and torch.isfinite(video).all()):
            raise ValueError("the network gave numbers that are not finite; use an older checkpoint")
        is_news = touch.number > self._known.number and touch.point is not None
        self._known = touch
        block = Block(
            frames=made,
            first=max(0, self._model.frame_step * (first - 1) + 1),
            touches=touch.number,
            reaction_s=time.perf_counter() - touch.at if is_news else None,
            seconds=seconds,
        )
        self._blocks += 1
        return block

    def _react(self, touch: _Touch) -> None:
        """Text, marker, position tokens, and the reference as it is seen under them."""
        point, has = touch.point or (0.0, 0.0), torch.tensor([touch.point is not None])
        caption = self._batch.prompts[0] or None
        points = torch.tensor([point])
        image = self._encoders.image(self._batch.reference, points, has)
        text, mask = self._encoders.text([prompt_of(touch.sentence, caption, frozenset())])
        self._conditions = replace(
            self._conditions,
            text=text,
            text_mask=mask,
            image=image,
            points=points.to(self._device),
            has_points=has.to(self._device),
        )
        self._model.see_reference(self._model.given(self._with_sound(self._heard[:0])), self._memory)

    def _with_sound(self, rows: npt.NDArray[np.float32]) -> Conditions:
        """The conditions with what the next block hears; none at all is a clip without sound.

        The audio encoder reads a single frame for its first latent step, so a row of no account stands before
        the rows of a later block.
        """
        before = 1 if self._blocks else 0
        audio = np.zeros((before + self.frames_ahead, rows.shape[1]), np.float32)
        audio[before : before + len(rows)] = rows
        return replace(
            self._conditions,
            audio=torch.from_numpy(audio)[None].to(self._device),
            has_audio=torch.tensor([len(rows) > 0], device=self._device),
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda")

    @contextmanager
    def _clock(self, seconds: dict[str, float], part: str) -> Iterator[None]:
        begun = self._now()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        seconds[part] = self._now() - begun
