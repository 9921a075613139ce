"""The red marker at the touched point (InterAvatar §3.4: seen by the CLIP encoder alone)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

# Red ring, as in Shtedritski et al. (2023): it leaves what it marks in view. The paper says "small" and no
# more; at 480p the ring is 48 px across, at CLIP's 224 px about one and a half patches of 14 px.
RADIUS: Final = 0.05  # of the outer edge, share of the picture's shorter side
THICKNESS: Final = 0.0125  # of the ring, likewise; at least one pixel
RED: Final = (255, 0, 0)


def draw_marker(picture: Tensor, x: float, y: float) -> Tensor:
    """A copy of the picture with a ring around a point.

    Args:
        picture: [3, H, W] uint8, RGB.
        x, y: shares of width and height, origin top left. A ring near the border is cut by it.
    """
    height, width = picture.shape[-2:]
    side = min(height, width)
    rows = (torch.arange(height, device=picture.device) + 0.5 - y * height)[:, None]
    columns = (torch.arange(width, device=picture.device) + 0.5 - x * width)[None, :]
    distance = torch.hypot(rows, columns)
    outer, thickness = RADIUS * side, max(1.0, THICKNESS * side)
    ring = (distance <= outer) & (distance > outer - thickness)
    red = torch.tensor(RED, dtype=picture.dtype, device=picture.device)[:, None, None]
    return torch.where(ring, red, picture)
