"""Which models of the store training begins with: parts of a checkpoint in diffusers' layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Start:
    """What one backbone's training begins with.

    Attributes:
        backbone: name in `trainer.backbones.BACKBONES`.
        folder: where it is put together, as `model.folder` of the shipped configurations names it.
        parts: folder of each part -> model of the store that has it.
    """

    backbone: str
    folder: str
    parts: Mapping[str, str]

    @property
    def models(self) -> list[str]:
        """The models that it is made of."""
        return list(dict.fromkeys(self.parts.values()))


CLIP: Final = {"image_encoder": "wan2.1-clip", "image_processor": "wan2.1-clip"}
WAN: Final = dict.fromkeys(("vae", "text_encoder", "tokenizer"), "wan2.1-encoders") | CLIP
LTX: Final = dict.fromkeys(("transformer", "vae", "text_encoder", "tokenizer"), "ltx-video-2b") | CLIP

# By the names of `interavatar models fetch --for`. The paper describes Wan2.1-1.3B with a mask, the first
# frame and CLIP; Wan published the 1.3B as text-to-video alone. Fun-InP is that network trained further with
# all three inputs, so it is the nearest start; the text-to-video one is widened by zeros.
STARTS: Final[Mapping[str, Start]] = {
    "train-wan": Start("wan", "models/Wan2.1-1.3B", {"transformer": "wan2.1-fun-v1.1-1.3b-inp"} | WAN),
    "train-wan-t2v": Start("wan", "models/Wan2.1-T2V-1.3B", {"transformer": "wan2.1-t2v-1.3b"} | WAN),
    "train-ltx": Start("ltx", "models/LTX-Video", LTX),
}
