"""All metrics, and which of their numbers each paper prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from metrics.ase import Ase
from metrics.clip_re import ClipRe
from metrics.clip_text import ClipText
from metrics.contact import Contact
from metrics.dino import Dino
from metrics.dynamic_degree import DynamicDegree
from metrics.fid import Fid
from metrics.flow_error import FlowError
from metrics.fvd import Fvd
from metrics.hand_quality import HandQuality
from metrics.idc import IdcDino
from metrics.idc_face import IdcFace
from metrics.lpips import Lpips
from metrics.metric import Metric
from metrics.object_quality import ObjectQuality
from metrics.psnr import Psnr
from metrics.sid import Sid
from metrics.ssim import Ssim
from metrics.sync import Sync
from metrics.temporal_consistency import TemporalConsistency
from metrics.variance import Variance
from metrics.vlm_qa import VlmQa

METRICS: tuple[type[Metric], ...] = (
    IdcDino,
    IdcFace,
    Ase,
    Sync,
    Fid,
    Fvd,
    VlmQa,
    ClipRe,
    ClipText,
    HandQuality,
    ObjectQuality,
    Contact,
    Dino,
    TemporalConsistency,
    DynamicDegree,
    Ssim,
    Psnr,
    Lpips,
    FlowError,
    Sid,
    Variance,
)

# In the order of the papers' tables: InterAvatar Table 1 and Sync-D; InteractAvatar Tables 1 to 3; EAI-Avatar
# Tables 1 and 2.
SETS: Mapping[str, Sequence[str]] = {
    "interavatar": ("idc_dino", "ase", "sync_c", "sync_d", "fid", "fvd"),
    "grounded": (
        *("vlm_qa", "clip_re", "clip_text", "hq", "oq", "pi", "dino_subject", "dino_ref", "temp_c", "dd"),
        "sync_c",
    ),
    "dyadic": (
        *("ssim", "psnr", "lpips", "fid", "sync_c", "tc", "sid_expression", "sid_pose", "var_expression"),
        "var_pose",
    ),
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
            close = get_close_matches(word.lower(), known, 1)
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
