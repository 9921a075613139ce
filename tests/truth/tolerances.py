"""How far a score may lie from the original's when the same clip or picture comes in another file.

What is no number must be the same, and numbers of columns that are not named here too. Measured on 2.4 s of a
talking head and of a touched head in 22 variants each (`tests.truth.variants`); twice what was seen, rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# What describes the file rather than what is seen and heard.
OF_THE_FILE = frozenset(
    [
        "container",
        "video_codec",
        "pixel_format",
        "audio_codec",
        "audio_rate",
        "audio_channels",
        "content_hash",
        "header_fps",
        "rotation",
        "mirrored",
        "picture_format",
        "picture_hash",
        "bitrate_per_pixel",
        "audio_start_offset_s",
    ]
)


@dataclass(frozen=True)
class Near:
    """So far from the original's number, in its unit or as a share of it, whichever is more; and why.

    missing: of a list of places, how many may be in one of the two alone.
    """

    absolute: float
    relative: float
    why: str
    missing: int = 0


_CLOCK = "zero of the clock is where sound begins: MPEG-TS keeps the 23 ms that an AAC encoder adds in front"
_STAMPS = "Matroska rounds time stamps to a millisecond"
_CELL = "boxes follow the detector's cells of 1 % of the picture"
_JITTER = "a landmark is sure to a pixel or two; this adds them up"
_LOSSY = "pictures are encoded again: noise and edges change"
_FEW = "few points have texture, and which do depends on noise"

TOLERANCES: Mapping[str, Near] = {
    "duration_s": Near(0.002, 0, _STAMPS),
    "fps": Near(0, 0.001, _STAMPS),
    "decoded_share": Near(0.002, 0, _STAMPS),
    "longest_shot_s": Near(0.002, 0, _STAMPS),
    "cut_times": Near(0.03, 0, _CLOCK),
    "shot_starts": Near(0.03, 0, _CLOCK),
    "shot_ends": Near(0.03, 0, _CLOCK),
    "contact_start_s": Near(0.03, 0, _CLOCK),
    "face_embedding_time_s": Near(0.03, 0, _CLOCK),
    "attribute_time_s": Near(0.03, 0, _CLOCK),
    "audio_peak": Near(0, 0.1, "codecs do not keep peaks"),
    "loudness_dbfs": Near(0.5, 0, "the level of speech, and the voice detector's windows lie elsewhere"),
    "speech_ratio": Near(0.1, 0, "the voice detector decides in windows of 32 ms, and ends are padded"),
    "speech_s": Near(0.25, 0, "as speech_ratio"),
    "snr_db": Near(1.5, 0, "pauses are short, and codecs change what is in them"),
    "main_speaker_share": Near(0.1, 0, "as speech_ratio"),
    "overlap_share": Near(0.1, 0, "as speech_ratio"),
    "audio_clipped_share": Near(0.001, 0, "codecs do not keep peaks"),
    "face_height": Near(0, 0.05, _CELL),
    "face_height_px": Near(0, 0.05, _CELL),
    "face_score": Near(0.03, 0, _LOSSY),
    "face_center_x": Near(0.012, 0, _CELL),
    "face_center_y": Near(0.012, 0, _CELL),
    "head_yaw": Near(0.5, 0, _JITTER),
    "head_pitch": Near(0.5, 0, _JITTER),
    "head_roll": Near(0.5, 0, _JITTER),
    "head_yaw_range": Near(1.0, 0.2, _JITTER),
    "head_pitch_range": Near(1.0, 0.2, _JITTER),
    "head_roll_range": Near(1.0, 0.2, _JITTER),
    "head_yaw_max_abs": Near(0.7, 0, _JITTER),
    "head_motion": Near(1.0, 0.35, _JITTER),
    "head_translation": Near(0.01, 0.15, _JITTER),
    "mouth_motion": Near(0.002, 0.1, _JITTER),
    "mouth_moves_in_speech": Near(0.002, 0.1, _JITTER),
    "eyes_open": Near(0.01, 0, _JITTER),
    "luminance": Near(2.0, 0, "swscale cuts off up to a level and a half, by format and matrix"),
    "luminance_min": Near(2.0, 0, "as luminance"),
    "luminance_max": Near(2.0, 0, "as luminance"),
    "contrast": Near(0.6, 0, "as luminance"),
    "overexposed_share": Near(0.003, 0, "as luminance: pixels near the limit"),
    "underexposed_share": Near(0.008, 0, "as luminance: pixels near the limit"),
    "blur_frame": Near(0, 0.15, _LOSSY),
    "blur_face": Near(0, 0.15, _LOSSY),
    "brisque": Near(15, 0, "its support vectors overshoot: 7 between two encodings of one picture"),
    "letterbox_share": Near(0.005, 0, "bars end between two rows"),
    "visibility_ratio": Near(0.05, 0, _FEW),
    "points_kept": Near(0.06, 0, _FEW),
    "subject_motion": Near(0.002, 0.12, _JITTER),
    "camera_motion": Near(0.002, 0.1, _FEW),
    "camera_zoom": Near(0.006, 0, _FEW),
    "background_points": Near(0.06, 0, _FEW),
    "person_share": Near(0.012, 0, "the mask's border"),
    "temporal_consistency": Near(0.03, 0, _LOSSY),
    "temporal_consistency_min": Near(0.03, 0, _LOSSY),
    "identity_consistency": Near(0.025, 0, _LOSSY),
    "identity_consistency_min": Near(0.025, 0, _LOSSY),
    "people_aspect": Near(0.005, 0, "odd sides are rounded when pictures are made smaller"),
    "contact_probability": Near(0.1, 0, "a logistic sum of what is measured once more"),
    "contact_seconds": Near(0.1, 0, "a frame sampled"),
    "contact_resting_s": Near(0.2, 0, "two frames sampled"),
    "contact_motion": Near(0.2, 0.3, _JITTER),
    "contact_gap": Near(0.05, 0, _JITTER),
    "regions": Near(0.02, 0, "keypoints are sure to a pixel or two; one may be just sure enough", missing=1),
    "num_regions": Near(1, 0, "as regions"),
    "interaction_x": Near(0.02, 0, "as regions"),
    "interaction_y": Near(0.02, 0, "as regions"),
    "interaction_gap": Near(0.05, 0, "as contact_gap"),
    "animal_probability": Near(0.05, 0, _LOSSY),
    "drawn_probability": Near(0.05, 0, _LOSSY),
}

ANYTHING = Near(float("inf"), 0, "it is meant to change")


@dataclass(frozen=True)
class Change:
    """What a variant changes: what is then expected of a number, and how near it must be.

    expected: the number that is right, of all of the original's columns.
    near: instead of the usual tolerance.
    """

    expected: Callable[[Mapping[str, Any]], Any] | None = None
    near: Near | None = None


def _any(*names: str) -> dict[str, Change]:
    return {name: Change(near=ANYTHING) for name in names}


_SIZE = _any("width", "height", "short_side", "face_height_px")
_SHARP = _any("blur_frame", "blur_face", "brisque")
# Of a rate: counts, and what adds up jitter once a sampled frame.
_RATE = {
    **_any("fps", "num_frames"),
    "head_motion": Change(near=Near(1.0, 0.5, "jitter once a sampled frame, and other frames")),
    "contact_motion": Change(near=Near(0.2, 1.0, "as head_motion")),
    "contact_resting_s": Change(near=Near(0.7, 0, "frames are counted, at uneven times")),
}
_SIDES = ("left_hand_share", "right_hand_share")
_MODEL = "the networks were taught no mirror: their answers differ by so much"
_ARM = "as others; an arm at the picture's edge, hand and elbow, may be found in one of the two alone"
_MIRRORED: dict[str, Change] = {
    **{a: Change(lambda o, b=b: o[b]) for a, b in (_SIDES, _SIDES[::-1])},  # type: ignore[misc]
    "face_center_x": Change(lambda o: 1 - o["face_center_x"]),
    "head_yaw": Change(lambda o: -o["head_yaw"], Near(3, 0, _MODEL)),
    "head_roll": Change(lambda o: -o["head_roll"], Near(3, 0, _MODEL)),
    "head_pitch": Change(near=Near(1.5, 0, _MODEL)),
    **_any("reactions"),  # their words follow the regions' names
    "head_yaw_range": Change(near=Near(2, 0.4, _MODEL)),
    "head_pitch_range": Change(near=Near(2, 0.4, _MODEL)),
    "head_roll_range": Change(near=Near(2, 0.4, _MODEL)),
    "head_yaw_max_abs": Change(near=Near(3, 0, _MODEL)),
    "head_translation": Change(near=Near(0.02, 0.3, _MODEL)),
    "mouth_motion": Change(near=Near(0.003, 0.2, _MODEL)),
    "mouth_moves_in_speech": Change(near=Near(0.003, 0.2, _MODEL)),
    "visible_parts": Change(lambda o: _swapped(o["visible_parts"])),
    "contact_hand": Change(lambda o: _swapped([o["contact_hand"]])[0]),
    "contact_region": Change(lambda o: _swapped([o["contact_region"]])[0]),
    "interaction_region": Change(lambda o: _swapped([o["interaction_region"]])[0]),
    "contact_motion": Change(near=Near(0.2, 1.0, _MODEL)),
    "contact_resting_s": Change(near=Near(0.5, 0, _MODEL)),
    "contact_seconds": Change(near=Near(0.5, 0, _MODEL)),
    "regions": Change(lambda o: _mirrored(o["regions"]), Near(0.05, 0, _ARM, missing=2)),
    "num_regions": Change(near=Near(2, 0, _ARM)),
    "face_score": Change(near=Near(0.06, 0, _MODEL)),
    "blur_face": Change(near=Near(0, 0.35, "the detector's box is another one, by a twentieth")),
    "eyes_open": Change(near=Near(0.04, 0, _MODEL)),
}


def _higher(original: Mapping[str, Any]) -> float:
    """How much longer the shorter side is in a picture that is padded to 1.3 of its height."""
    return min(original["width"], int(original["height"] * 0.65) * 2) / float(original["short_side"])


def _swapped(names: list[str | None]) -> list[str | None]:
    other = {"left": "right", "right": "left"}
    return [name and "_".join(other.get(word, word) for word in name.split("_")) for name in names]


def _mirrored(regions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r | {"region": _swapped([r["region"]])[0], "x": 1 - r["x"]} for r in regions]


CHANGES: Mapping[str, Mapping[str, Change]] = {
    "webp": _SHARP,  # chroma at half the size, and smooth
    "odd sides": _SIZE,
    "wide pixels": _SHARP,
    "three quarters": {**_SIZE, **_SHARP, "contact_motion": Change(near=Near(0.2, 1.0, _JITTER))},
    "crf 28": {**_SHARP, "regions": Change(near=Near(0.05, 0, _LOSSY, missing=1))},
    "30 a second": _RATE,
    "50 a second": _RATE,
    "15 a second": _RATE,
    "voice in the middle": {
        "loudness_dbfs": Change(
            lambda o: o["loudness_dbfs"] - 3.01, Near(0.2, 0, "ITU-R BS.775: to both sides with -3 dB")
        ),
        "audio_peak": Change(lambda o: o["audio_peak"] * 0.5**0.5, Near(0, 0.03, "as loudness_dbfs")),
    },
    "mirrored": _MIRRORED,
    "brighter": {
        **_any("luminance", "luminance_min", "luminance_max", "contrast", "overexposed_share"),
        **_any("underexposed_share", "blur_frame", "blur_face", "brisque"),
    },
    "cropped": {
        **_SIZE,
        **_SHARP,
        **_any("face_height", "face_center_x", "face_center_y", "person_share", "background_points"),
        **_any("luminance", "luminance_min", "luminance_max", "contrast", "subject_motion"),
        **_any("overexposed_share", "underexposed_share", "visibility_ratio", "regions"),
        **_any("contact_motion", "contact_resting_s", "contact_seconds", "camera_motion"),
    },
    "padded": {
        **_SIZE,
        **_SHARP,
        **_any("face_center_y", "person_share", "background_points", "contrast"),
        **_any("luminance", "luminance_min", "luminance_max", "subject_motion", "people_aspect"),
        **_any("overexposed_share", "visibility_ratio", "regions"),
        **_any("contact_motion", "contact_resting_s", "contact_seconds", "camera_motion"),
        "face_height": Change(lambda o: o["face_height"] / _higher(o), Near(0, 0.08, _CELL)),
        "letterbox_share": Change(lambda o: 0.2308, Near(0.006, 0, "bars of 15 % of the picture each")),
        "underexposed_share": Change(
            lambda o: 0.2308 + o["underexposed_share"] / 1.3, Near(0.01, 0, "black bars")
        ),
    },
}


def too_far(
    original: Mapping[str, Any], other: Mapping[str, Any], variant: str
) -> dict[str, tuple[Any, Any]]:
    """Columns that are not as they should be in a variant: what is expected, and what was found."""
    assert original.keys() == other.keys()
    original, other = _of_regions_in(other, original), _of_regions_in(original, other)
    wrong = {}
    for name, value in original.items():
        if name in OF_THE_FILE:
            continue
        change = CHANGES.get(variant, {}).get(name, Change())
        expected = value if change.expected is None else change.expected(original)
        near = change.near or TOLERANCES.get(name, Near(0, 0, ""))
        if near is not ANYTHING and not _is_near(expected, other[name], near):
            wrong[name] = (expected, other[name])
    return wrong


def _of_regions_in(other: Mapping[str, Any], row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row without reactions to regions that the other has not, as those have none there."""
    if not row.get("reactions"):
        return row
    there = {place["region"] for place in other["regions"]}
    return {**row, "reactions": [one for one in row["reactions"] if one["region"] in there]}


def _is_near(expected: Any, found: Any, near: Near) -> bool:
    if (
        isinstance(expected, float | int)
        and isinstance(found, float | int)
        and not isinstance(expected, bool)
    ):
        return abs(expected - found) <= max(near.absolute, near.relative * abs(expected)) + 1e-9
    if isinstance(expected, list) and any(isinstance(one, dict) and "x" in one for one in expected):
        return _are_places_near(expected, found, near)
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        if near.absolute:
            return all(_is_near(a, b, near) for a, b in zip(expected, found, strict=True))
        return sorted(map(str, expected)) == sorted(map(str, found))
    return bool(expected == found)


def _are_places_near(expected: list[dict[str, Any]], found: list[dict[str, Any]], near: Near) -> bool:
    """Whether regions are where they should be; `near.missing` of them may be in one of the two alone."""
    first, second = ({place["region"]: place for place in places} for places in (expected, found))
    both = first.keys() & second.keys()
    near_by = all(
        abs(first[name][axis] - second[name][axis]) <= near.absolute for name in both for axis in "xy"
    )
    return near_by and len(first.keys() ^ second.keys()) <= near.missing
