"""What the shards hold of one clip, beside its pictures: texts, the touched point, features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from configs.errors import UserError
from manifests.shards import ShardError, read_arrays
from manifests.storage import StorageError, is_client_error
from trainer.config import ModelConfig
from trainer.data.decode import DecodeError

Floats = npt.NDArray[np.float32]
# One row of audio_features spans this long, s (wav2vec2's window).
AUDIO_SPAN = 0.025


class ClipError(UserError, ValueError):
    """A clip cannot be used for training; the message names it and its shard."""


@dataclass(frozen=True)
class Clip:
    """What the shards say of one clip."""

    video: bytes
    point: tuple[float, float] | None  # touched, in shares of the first frame
    sentence: str | None  # of an interaction clip
    caption: str | None
    arrays: Mapping[str, npt.NDArray[Any]]  # see `manifests.shards.read_arrays`

    @property
    def digest(self) -> str:
        """Names what is encoded: the video, and the touched point, which moves the cut."""
        return hashlib.sha256(self.video + json.dumps(self.point).encode()).hexdigest()


@contextmanager
def naming(entry: Mapping[str, Any]) -> Iterator[None]:
    """Say of what is wrong with a clip which one it is: `entry` is its row of the index.

    Raises:
        ClipError: in the place of DecodeError, ShardError and ClipError.
        StorageError: in the place of what a disk or an object store's client raises.
    """
    name = f"sample {entry['sample_id']} of {entry['run']} in {entry['shard']}"
    try:
        yield
    except (DecodeError, ShardError, ClipError) as error:
        raise ClipError(
            f"{name}: {error}; write the shards again, or leave it out: "
            f"add {entry['sample_id']} to data.exclude"
        ) from None
    except Exception as error:
        if not isinstance(error, OSError) and not is_client_error(error):
            raise
        raise StorageError(f"{name} cannot be reached: {error}; the same command goes on") from None


def read_clip(members: Mapping[str, bytes]) -> Clip:
    """What a sample's members say, nothing decoded yet.

    Args:
        members: by suffix; see `ShardsFolder.read`.

    Raises:
        ClipError, ShardError: a member is missing or damaged.
    """
    try:
        video, arrays, record = members["mp4"], read_arrays(members["npz"]), json.loads(members["json"])
    except KeyError as error:
        raise ClipError(f"it has no .{error.args[0]}") from None
    except ValueError as error:
        raise ClipError(f"its .json is damaged ({error})") from None
    if not isinstance(record, dict):
        raise ClipError("its .json is no row")
    sentence, caption = record.get("interaction_prompt"), record.get("caption")
    if not all(text is None or isinstance(text, str) for text in (sentence, caption)):
        raise ClipError("its .json has a prompt or caption that is no text")
    x, y = record.get("interaction_x"), record.get("interaction_y")
    point = None
    if sentence is not None and x is not None and y is not None:
        if not all(isinstance(share, int | float) and 0 <= share <= 1 for share in (x, y)):
            raise ClipError(f"its .json has the point ({x}, {y}), not shares of the picture")
        point = float(x), float(y)
    return Clip(video, point, sentence, caption, arrays)


def features_at(
    arrays: Mapping[str, npt.NDArray[Any]], times: npt.NDArray[np.float64], model: ModelConfig
) -> dict[str, tuple[Floats, bool]]:
    """The features of a clip and whether it has them; zeros where not, one row of attributes.

    Args:
        arrays: see `manifests.shards.read_arrays`.
        times: of the frames on the clip's clock, s.
        model: says how wide they are.

    Returns:
        identity [D], attributes [N, D], audio [F, D].

    Raises:
        ClipError: another width or number of axes, or something that is no number.
    """
    absent = {
        "identity": (model.identity_dim,),
        "attributes": (1, model.attribute_dim),
        "audio": (len(times), model.audio_dim),
    }
    given: dict[str, tuple[Floats, bool]] = {}
    for name, shape in absent.items():
        values = np.asarray(arrays.get(name, ()), np.float32)
        if not values.size:
            given[name] = np.zeros(shape, np.float32), False
            continue
        if values.ndim != len(shape) or values.shape[-1] != shape[-1] or not np.isfinite(values).all():
            raise ClipError(f"its {name} of shape {values.shape} is not {shape[-1]} wide or no number")
        if name == "audio":
            rate = float(arrays.get("audio_hz", 0))
            if not rate > 0:
                raise ClipError("its audio has no audio_hz")
            values = audio_rows(values, rate, times)
        given[name] = values, True
    return given


def audio_rows(
    features: npt.NDArray[np.floating[Any]], hz: float, times: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """The sound's features at times on the clip's clock (s): [T, D] at `hz` rows/s to [F, D].

    Row i stands for the middle of what it spans, i / hz to i / hz + 25 ms; between middles the rows are
    interpolated linearly, the first and last one hold beyond. After the sound has ended, by more than the
    distance of two frames, there is nothing: zeros.
    """
    rows = np.asarray(features, np.float32)
    place = np.clip((times - AUDIO_SPAN / 2) * hz, 0, len(rows) - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, len(rows) - 1)
    share = (place - below).astype(np.float32)[:, None]
    mixed = rows[below] * (1 - share) + rows[above] * share
    end = (len(rows) - 1) / hz + AUDIO_SPAN
    patience = float(times[1] - times[0]) if len(times) > 1 else 0.0
    mixed[times > end + patience] = 0
    return mixed
