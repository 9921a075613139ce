"""Where the hair is: the question of InterAvatar appendix B.1 that a vision-language model answers."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import Field, create_model

from prompts.prompt import Answer, Prompt


# Qwen2.5-VL learnt to ground in this key and unit (its cookbook `spatial_understanding`). Four numbers with
# the same bounds: the strict mode of the OpenAI API knows lists, but none of which each place has a schema.
class Box(Answer):
    """x and y of two opposite corners, in pixels of the image as it was sent."""

    bbox_2d: list[float] = Field(min_length=4, max_length=4)

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom; corners given the other way round name the same box."""
        (x0, x1), (y0, y1) = sorted(self.bbox_2d[::2]), sorted(self.bbox_2d[1::2])
        return x0, y0, x1, y1


class HairBox(Answer):
    """A box around one person's visible hair; null when none can be seen."""

    hair: Box | None

    @property
    def edges(self) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom; None without visible hair."""
        return None if self.hair is None else self.hair.edges


def hair_box_model(width: int, height: int) -> type[HairBox]:
    """The schema for an image of this size, pixels: no number is larger than its longer side."""
    side: Any = Annotated[int, Field(ge=0, le=max(width, height))]
    corners: Any = (list[side], Field(min_length=4, max_length=4))
    box = create_model("Box", __base__=Box, bbox_2d=corners)
    return cast(type[HairBox], create_model("HairBox", __base__=HairBox, hair=(box | None, ...)))


HAIR = Prompt("hair", HairBox)


def check_box(answer: HairBox, width: int, height: int) -> None:
    """Refuse what the schema lets through.

    Raises:
        ValueError: the box lies outside the image of `width` x `height` pixels, or has no area.
    """
    if answer.edges is None:
        return
    x0, y0, x1, y1 = answer.edges
    if not (x0 >= 0 and x1 <= width and y0 >= 0 and y1 <= height):  # also refuses NaN
        raise ValueError(
            f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is outside the image of {width} x {height}"
        )
    if x1 - x0 < 1 or y1 - y0 < 1:
        raise ValueError(f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) has no area")
