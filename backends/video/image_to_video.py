"""A clip that begins with a picture: the role, what it is asked, and the size of what it makes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from prompts.vocabulary import VOCABULARY, InteractionGroup, Vocabulary

# 480P as Wan counts it: any shape with so many pixels.
AREA_480P: Final = 832 * 480

Gpu = Literal["H100", "A100", "H20"]


@dataclass(frozen=True)
class Published:
    """Seconds that others measured for one clip on one GPU, and who they are."""

    seconds: float
    source: str


@dataclass(frozen=True)
class Animation:
    """One clip to make.

    Attributes:
        image: the portrait, uint8 RGB [H, W, 3]; the clip's first frame.
        prompt: what the person does and feels.
        negative_prompt: what the clip must not show.
        seed: 0 to 2**63 - 1; the same seed gives the same clip.
        point: x and y of the touch, 0-1 of the portrait's width and height.
        interaction_type: of the vocabulary.
        vocabulary: the types of touch that there are.

    Raises:
        ValueError: one of them is not so.
    """

    image: npt.NDArray[np.uint8]
    prompt: str
    negative_prompt: str
    seed: int
    point: tuple[float, float]
    interaction_type: str
    vocabulary: Vocabulary = VOCABULARY

    def __post_init__(self) -> None:
        shape = self.image.shape
        if self.image.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(f"the portrait must be uint8 [H, W, 3], got {self.image.dtype} {list(shape)}")
        self.vocabulary.group_of(self.interaction_type)
        if not all(0 <= value <= 1 for value in self.point):
            raise ValueError(f"the point must lie in the picture, 0-1, got {self.point}")
        if not self.prompt.strip():
            raise ValueError("the prompt is empty")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"the seed must be 0 to 2**63 - 1, got {self.seed}")

    @property
    def interaction_group(self) -> InteractionGroup:
        """The group of the type."""
        return self.vocabulary.group_of(self.interaction_type)


class ImageToVideo(Protocol):
    """Makes a clip out of a portrait."""

    @property
    def id(self) -> str:
        """Implementation, version and every setting that changes the clip."""
        ...

    @property
    def name(self) -> str:
        """Short name for `synthesis_by`; one that is no model begins with `stand_in_`."""
        ...

    @property
    def fps(self) -> float:
        """Frames a second of the clips."""
        ...

    @property
    def uses_point(self) -> bool:
        """Whether point and type change the clip; False for a model that goes by the prompt alone."""
        ...

    def published_seconds(self, gpu: Gpu) -> Published | None:
        """What others published for one clip of these settings; None: nobody did."""
        ...

    def setup(self) -> None:
        """Load the weights; calling it again does nothing."""
        ...

    def animate(self, request: Animation) -> npt.NDArray[np.uint8]:
        """The clip, uint8 RGB [T, H, W, 3], H and W even; the same request gives the same clip."""
        ...


def fit_size(width: int, height: int, max_area: int, multiple: int) -> tuple[int, int]:
    """Width and height of a clip of a picture: multiples of `multiple`, at most `max_area` pixels.

    Small pictures are enlarged, as Wan's own code does: the area is the one the model was trained on.
    Of all such sizes the one that stretches the picture least and still uses the area is taken, 1 % of
    stretch counting as 10 % of area. Between 1:2 and 2:1 at 480P, multiples of 16 stretch by 1.5 % at most.

    Raises:
        ValueError: not even `multiple` x `multiple` fits.
    """
    most = max_area // multiple
    if most < multiple:
        raise ValueError(f"{max_area} pixels do not hold {multiple}x{multiple}")
    aspect = width / height
    ideal = min(max(math.sqrt(max_area * aspect), multiple), most)
    best = (math.inf, multiple, multiple)
    for columns in range(max(1, int(ideal / multiple / 1.5)), math.ceil(ideal / multiple * 1.5) + 1):
        w = columns * multiple
        limit = most // w  # rows of cells that still fit
        for rows in {math.floor(w / aspect / multiple), math.ceil(w / aspect / multiple)}:
            h = min(max(rows, 1), limit) * multiple
            if h:
                cost = 10 * abs(math.log(w / h / aspect)) + math.log(max_area / (w * h))
                best = min(best, (cost, w, h))
    return best[1], best[2]


def resized(image: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """The whole picture, uint8 RGB, at another size; points as shares of its sides stay where they are."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.array(picture.resize((width, height), Image.Resampling.LANCZOS), np.uint8)
