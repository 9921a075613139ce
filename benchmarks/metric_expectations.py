"""Which way each number of an evaluation must move on which version of clips, by its definition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Moves = Literal["rises", "falls", "stays"]


@dataclass(frozen=True)
class Group:
    """Versions that are measured alike.

    Attributes:
        name: of the group.
        versions: of the clips.
        numbers: what is measured on each of them.
        has_real: beside the real clips.
        settings: of the metrics, for fewer pictures.
    """

    name: str
    versions: Sequence[str]
    numbers: Sequence[str]
    has_real: bool = True
    settings: Sequence[str] = ()


@dataclass(frozen=True)
class Expected:
    """How a number must move.

    Attributes:
        number: its name without the network's.
        version: on which.
        moves: which way.
        why: by the definition.
        than: the version that it is compared with.
        within: what counts as staying, in the number's unit.
    """

    number: str
    version: str
    moves: Moves
    why: str
    than: str = "copy"
    within: float = 0.0

    def holds(self, value: float, other: float) -> bool:
        """Whether a value moves so from another."""
        if self.moves == "stays":
            return abs(value - other) <= self.within
        return value > other if self.moves == "rises" else value < other


GROUPS = (
    Group(
        "looks",
        ("copy", "blurred", "noisy_weak", "noisy", "other_person"),
        ("ssim", "psnr", "lpips", "fid", "ase", "dino_subject", "dino_ref"),
    ),
    Group(
        "motion",
        ("copy", "still", "sped_up", "repeated"),
        ("fvd", "temp_c", "dd", "dd_flow", "tc"),
        settings=("fvd.windows=2", "flow_error.windows=2"),
    ),
    Group(
        "face",
        ("copy", "blurred", "half_another", "still", "turning"),
        (
            *("idc_dino", "idc_dino_adjacent", "idc_face"),
            *("sid_expression", "sid_pose", "var_expression", "var_pose"),
            *("hq", "hq_motion", "hq_sharpness"),
        ),
    ),
    Group(
        "sound",
        ("copy", "late_200ms", "late_400ms", "late_1s", "other_voice"),
        ("sync_c", "sync_d", "sync_offset_s"),
        has_real=False,
    ),
    Group(
        "things",
        ("thing", "thing_fast", "thing_still", "thing_changes"),
        ("oq", "oq_motion", "oq_consistency"),
        has_real=False,
    ),
    Group("touch", ("in_reach", "out_of_reach"), ("pi",), has_real=False),
    Group("texts", ("copy", "other_person"), ("clip_text", "clip_re")),
)

_WORSE = "less of the partner's structure is left"
EXPECTED = (
    Expected("ssim", "blurred", "falls", _WORSE),
    Expected("ssim", "noisy_weak", "falls", _WORSE),
    Expected("ssim", "noisy", "falls", "stronger noise", than="noisy_weak"),
    Expected("ssim", "other_person", "falls", "pictures of somebody else"),
    Expected("psnr", "blurred", "falls", "the error is larger"),
    Expected("psnr", "noisy_weak", "falls", "the error is larger"),
    Expected("psnr", "noisy", "falls", "stronger noise", than="noisy_weak"),
    Expected("psnr", "other_person", "falls", "pictures of somebody else", than="blurred"),
    Expected("lpips", "blurred", "rises", "it looks different"),
    Expected("lpips", "noisy_weak", "rises", "it looks different"),
    Expected("lpips", "noisy", "rises", "stronger noise", than="noisy_weak"),
    Expected("lpips", "other_person", "rises", "pictures of somebody else"),
    Expected("fid", "blurred", "rises", "pictures of another distribution"),
    Expected("fid", "noisy_weak", "rises", "pictures of another distribution"),
    Expected("fid", "noisy", "rises", "stronger noise", than="noisy_weak"),
    Expected(
        "fid", "other_person", "stays", "the same pictures under other names are the same set", within=0.01
    ),
    Expected("ase", "blurred", "falls", "people dislike blur"),
    Expected("ase", "noisy_weak", "falls", "people dislike noise"),
    Expected("ase", "noisy", "falls", "people dislike noise"),
    Expected("ase", "noisy", "falls", "stronger noise", than="noisy_weak"),
    Expected("dino_subject", "other_person", "falls", "another person than in the reference picture"),
    Expected("dino_ref", "other_person", "falls", "another picture than the reference"),
    Expected("dino_ref", "blurred", "falls", "the reference is sharp"),
    Expected("fvd", "still", "rises", "real clips move"),
    Expected("fvd", "sped_up", "rises", "real clips move more slowly"),
    Expected("fvd", "repeated", "rises", "real clips do not stop and go"),
    Expected("temp_c", "still", "rises", "neighbouring pictures are equal"),
    Expected("temp_c", "sped_up", "falls", "neighbouring pictures are twice as far apart in time"),
    Expected("dd", "still", "falls", "nothing moves"),
    Expected("dd", "sped_up", "rises", "everything moves twice as far"),
    Expected("dd_flow", "still", "falls", "nothing moves"),
    Expected("dd_flow", "sped_up", "rises", "everything moves twice as far"),
    Expected("tc", "still", "rises", "the partner moves, this does not"),
    Expected("tc", "sped_up", "rises", "everything moves twice as far as in the partner"),
    Expected("tc", "repeated", "rises", "every other pair does not move, the others move twice as far"),
    Expected("idc_dino", "half_another", "falls", "somebody else from the middle on"),
    Expected("idc_dino", "still", "rises", "all faces are the first one"),
    Expected("idc_dino_adjacent", "half_another", "falls", "somebody else from the middle on"),
    Expected("idc_dino_adjacent", "still", "rises", "all faces are the one before"),
    Expected("idc_face", "half_another", "falls", "somebody else from the middle on"),
    Expected("idc_face", "still", "rises", "all faces are the first one"),
    Expected("sid_expression", "still", "falls", "one expression a clip"),
    Expected("sid_pose", "still", "falls", "one pose a clip"),
    Expected("var_expression", "still", "falls", "one expression a clip, whose deviation from itself is 0"),
    Expected("var_pose", "turning", "rises", "heads roll by 12 degrees to either side"),
    Expected("hq", "still", "falls", "hands do not move"),
    Expected("hq_motion", "still", "falls", "hands do not move"),
    Expected("hq_sharpness", "blurred", "falls", "hands are blurred"),
    Expected("sync_c", "other_voice", "falls", "the sound is somebody else's"),
    Expected("sync_c", "late_200ms", "stays", "lips and sound match as well at another shift", within=0.5),
    Expected("sync_c", "late_1s", "falls", "the sound is further off than what is searched"),
    Expected("sync_d", "other_voice", "rises", "the sound is somebody else's"),
    Expected("sync_offset_s", "late_200ms", "rises", "the sound comes 0.2 s later"),
    Expected("sync_offset_s", "late_400ms", "rises", "0.2 s later still", than="late_200ms"),
    Expected("oq", "thing_fast", "rises", "the thing moves three times as fast", than="thing"),
    Expected("oq", "thing_still", "falls", "the thing does not move", than="thing"),
    Expected("oq", "thing_changes", "falls", "the thing becomes another one", than="thing"),
    Expected("oq_motion", "thing_fast", "rises", "it moves three times as fast", than="thing"),
    Expected("oq_motion", "thing_still", "falls", "it does not move", than="thing"),
    Expected("oq_motion", "thing_changes", "stays", "it moves alike", than="thing", within=1e-6),
    Expected("oq_consistency", "thing_changes", "falls", "the thing becomes another one", than="thing"),
    Expected("pi", "in_reach", "rises", "the object is where hands are", than="out_of_reach"),
    Expected("clip_text", "other_person", "falls", "the text is of another clip"),
    Expected("clip_re", "other_person", "falls", "the text is of another clip"),
)
