"""Where the hair is: the question of InterAvatar appendix B.1 that a vision-language model answers."""

from __future__ import annotations

from pydantic import Field

from prompts.prompt import Answer, Prompt


class HairBox(Answer):
    """A box around one person's visible hair, in pixels of the image as it was sent."""

    visible: bool = Field(description="whether any head hair of this person can be seen")
    x0: float | None = Field(description="left edge, pixels; null when not visible")
    y0: float | None = Field(description="top edge, pixels; null when not visible")
    x1: float | None = Field(description="right edge, pixels; null when not visible")
    y1: float | None = Field(description="bottom edge, pixels; null when not visible")

    @property
    def edges(self) -> tuple[float, float, float, float] | None:
        """x0, y0, x1, y1; None unless visible with all four."""
        if not self.visible or None in (edges := (self.x0, self.y0, self.x1, self.y1)):
            return None
        return edges  # type: ignore[return-value]


HAIR = Prompt("hair", HairBox)


def check_box(answer: HairBox, width: int, height: int) -> None:
    """Refuse what the schema cannot.

    Raises:
        ValueError: an edge is missing though hair is visible, or given though it is not; the box lies
            outside the image of `width` x `height` pixels, or has no area.
    """
    edges = (answer.x0, answer.y0, answer.x1, answer.y1)
    if not answer.visible:
        if any(edge is not None for edge in edges):
            raise ValueError("no hair is visible, so the box must be null")
        return
    box = answer.edges
    if box is None:
        raise ValueError("hair is visible, so all four edges must be numbers")
    x0, y0, x1, y1 = box
    if not (x0 >= 0 and x1 <= width and y0 >= 0 and y1 <= height):  # also refuses NaN
        raise ValueError(
            f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is outside the image of {width} x {height}"
        )
    if x1 - x0 < 1 or y1 - y0 < 1:
        raise ValueError(f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) has no area")
