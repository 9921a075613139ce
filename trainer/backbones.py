"""The networks that can be trained, by name: what is known of each before torch is imported.

A further one is a file `trainer/networks/NAME.py` whose `BACKBONE` is a
`trainer.networks.protocol.Backbone`, and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Facts:
    """What a configuration is checked against."""

    title: str  # as its authors call it
    frame_step: int  # frames of a latent step after the first: a clip has frame_step n + 1
    causal: bool  # whether `trainer.networks.causal` can make it generate block by block


BACKBONES: Final[dict[str, Facts]] = {
    "wan": Facts("Wan2.1", frame_step=4, causal=True),
    "ltx": Facts("LTX-Video", frame_step=8, causal=False),
}
