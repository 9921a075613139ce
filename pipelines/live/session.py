"""One person who watches an avatar: its frames, what is said and done, and a record of it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from backends.sound.audio_embedder import RATE, AudioEmbedder
from manifests import storage
from media.write import VideoWriter
from pipelines.live.ear import Ear, Heard
from prompts.vocabulary import interaction_sentence
from trainer.data.batch import Batch
from trainer.generate import CRF, Trained
from trainer.stream import Block, Stream

QUALITY = 90  # of JPEG


@dataclass(frozen=True)
class Avatar:
    """What sessions begin with."""

    trained: Trained  # distilled
    batch: Batch  # the portrait and its features, as `Stream` takes them
    seed: int
    embedder: AudioEmbedder | None  # of training, set up; None: it knew no sound

    @property
    def fps(self) -> float:
        """Frames a second that were trained."""
        return self.trained.config.data.buckets.fps

    @property
    def touch_frames(self) -> int:
        """How long a touch lasts: a training clip, as training knows no end of one."""
        buckets = self.trained.config.data.buckets
        return buckets.frames_within(buckets.max_frames)

    @property
    def portrait(self) -> npt.NDArray[np.uint8]:
        """[H, W, 3], as cut for the network."""
        return np.ascontiguousarray(self.batch.video[0, :, 0].permute(1, 2, 0).numpy())


@dataclass(frozen=True)
class Shown:
    """A frame for the page."""

    facts: dict[str, Any]
    jpeg: bytes


class Session:
    """A stream that is watched, from its first frame to the end.

    Args:
        avatar: who is watched.
        folder: where NNNN.jsonl, the record, is written; None: nowhere.
        keeps_clip: NNNN.mp4, what was seen and heard, too.
    """

    def __init__(self, avatar: Avatar, folder: Path | None = None, keeps_clip: bool = False) -> None:
        self._begun = time.perf_counter()
        self._avatar = avatar
        self._stream = Stream(avatar.trained, avatar.batch, avatar.seed)
        self._ear = None if avatar.embedder is None else Ear(avatar.embedder, avatar.fps)
        self._frames, self._busy, self._let_go_at = 0, 0.0, 0
        self._first_s: float | None = None
        self._open, self._lock = ExitStack(), threading.Lock()
        self._record = self._clip = None
        self._spoken: list[npt.NDArray[np.float32]] = []
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path = storage.next_numbered(folder, ".jsonl")
            self._record = self._open.enter_context(path.open("x", encoding="utf-8"))
            if keeps_clip:
                height, width = avatar.portrait.shape[:2]
                size, sound = (width, height), None if self._ear is None else RATE
                self._clip = VideoWriter(path.with_suffix(".mp4"), size, avatar.fps, CRF, sound)
        self.note("begun", at=datetime.now(UTC).isoformat(), seed=avatar.seed, fps=avatar.fps)

    @property
    def block_frames(self) -> int:
        """How many frames a block has, the first one excepted."""
        return self._stream.block_frames

    def touch(self, x: float, y: float, kind: str) -> int:
        """Touched at shares x, y of the picture, how by a type of the vocabulary; the number of the touch."""
        with self._lock:
            number = self._stream.touch(x, y, interaction_sentence(kind))
            self._let_go_at = self._frames + self._avatar.touch_frames
        self.note("touch", number=number, x=x, y=y, kind=kind)
        return number

    def hear(self, samples: npt.NDArray[np.float32], live: bool) -> None:
        """As `Ear.hear`; nothing where training knew no sound."""
        if self._ear is not None:
            self._ear.hear(samples, live)

    def make(self) -> list[Shown]:
        """The next block, with its figures at the first frame."""
        heard = None if self._ear is None else self._ear.take(self._stream.frames_ahead)
        if heard is not None:
            self._stream.hear(heard.rows)
        with self._lock:
            if 0 < self._let_go_at <= self._frames:
                self._stream.release()
                self._let_go_at = 0
        begun = time.perf_counter()
        block = next(self._stream)
        self._busy += time.perf_counter() - begun
        self._frames += len(block.frames)
        self._first_s = self._first_s or time.perf_counter() - self._begun
        self._keep(block, heard)
        figures: dict[str, Any] = {
            "frames_per_second": self._frames / self._busy,
            "first_frame_s": self._first_s,
            "reaction_s": block.reaction_s,
            "seconds": block.seconds,
        }
        self.note("block", first=block.first, frames=len(block.frames), touches=block.touches, **figures)
        if heard is not None:
            figures["sound"] = [heard.begin_s, heard.begin_s + len(heard.samples) / RATE]
        last = block.first + len(block.frames) - 1
        return [
            Shown(
                {
                    "frame": block.first + i,
                    "last": last,
                    "touches": block.touches,
                    **(figures if not i else {}),
                },
                jpeg(image),
            )
            for i, image in enumerate(block.frames)
        ]

    def _keep(self, block: Block, heard: Heard | None) -> None:
        if self._clip is None:
            return
        for image in block.frames:
            self._clip.add(image)
        spoken = np.zeros(round(self._frames / self._avatar.fps * RATE) - sum(map(len, self._spoken)))
        if heard is not None:
            spoken[: len(heard.samples)] = heard.samples[: len(spoken)]
        self._spoken.append(spoken.astype(np.float32))

    def note(self, event: str, **facts: Any) -> None:
        """A line of the record, at once."""
        with self._lock:
            if self._record is not None and not self._record.closed:
                line = {"event": event, "s": round(time.perf_counter() - self._begun, 4), **facts}
                self._record.write(json.dumps(line) + "\n")
                self._record.flush()

    def close(self) -> None:
        """End the record and the clip."""
        self.note("ended", frames=self._frames)
        if self._clip is not None:
            if self._spoken:
                self._clip.sound = np.concatenate(self._spoken)
            self._clip.close()
        self._open.close()


def jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    """RGB [H, W, 3] as JPEG."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return data.tobytes()
