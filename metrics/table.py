"""All metrics, and which of their numbers each paper prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from metrics.fid import Fid
from metrics.metric import Metric
from metrics.psnr import Psnr
from metrics.ssim import Ssim

METRICS: tuple[type[Metric], ...] = (Fid, Ssim, Psnr)

# In the order of the papers' tables.
SETS: Mapping[str, Sequence[str]] = {
    "interavatar": ("fid",),
    "grounded": (),
    "dyadic": ("ssim", "psnr", "fid"),
}


def figures_of(words: Sequence[str]) -> list[str]:
    """Names of numbers that a user asks for, none twice, without the networks that stand in them.

    Args:
        words: names of sets, metrics and numbers.

    Raises:
        ValueError: there is none of a name.
    """
    of_metric = {kind.name: [figure.name for figure in kind.figures] for kind in METRICS}
    each = {name: [name] for names in of_metric.values() for name in names}
    known = {**each, **of_metric, **SETS}
    found: dict[str, None] = {}
    for word in words:
        if word not in known:
            close = get_close_matches(word, known, 1)
            meant = f"did you mean {close[0]}? " if close else ""
            single = ", ".join(name for name in known if name not in SETS)
            raise ValueError(
                f"there is no metric {word!r}; {meant}there are the sets {', '.join(SETS)}, and {single}"
            )
        found |= dict.fromkeys(known[word])
    return list(found)


def metrics_of(figures: Sequence[str]) -> list[type[Metric]]:
    """The metrics that give these numbers, in the order of `METRICS`."""
    return [kind for kind in METRICS if any(figure.name in figures for figure in kind.figures)]
