"""Evaluations of clips with objects, from a list to columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.engine.input_error import InputError
from pipelines.evaluation.inputs import Methods
from pipelines.evaluation.runs import prepare_evaluation
from tests.support.helpers import manifest, quiet


def boxes(*starts: float) -> str:
    """Bottles that stand still, twice a second, in another order each time."""
    return json.dumps(
        [
            {"name": "bottle", "t": i / 2, "box": [x, 0.3, x + 0.08, 0.7]}
            for i in range(6)
            for x in (starts if i % 2 else starts[::-1])
        ]
    )


def test_clips_with_boxes_and_a_reference_picture(samples: Path, tmp_path: Path) -> None:
    """One shows no face, and one has no boxes."""
    videos, pictures = samples / "videos", samples / "images"
    bottles, signing = str(videos / "intel_bottles_noperson.mp4"), str(videos / "intel_asl_learn.mkv")
    rows = [
        {
            "id": "bottles",
            "generated": bottles,
            "reference_image": str(pictures / "facealign_grass.jpg"),
            "object_boxes": boxes(0.2, 0.5, 0.7),
            "contact_spans": "[[0, 2]]",
        },
        {"id": "signing", "generated": signing, "reference_image": str(pictures / "uniface_man2.jpg")},
    ]
    (tmp_path / "ours.jsonl").write_text("\n".join(map(json.dumps, rows)))
    wanted = ("hq", "oq", "pi", "dino", "dd")
    evaluation = prepare_evaluation(
        Methods({"ours": str(tmp_path / "ours.jsonl")}), tmp_path / "out", wanted, engine="inline"
    )
    record = evaluation.execute(quiet())
    assert record["counts"]["ids_in"] == record["counts"]["ids_out"] == 2
    found = manifest(tmp_path / "out").set_index("pair")

    still = found.loc["bottles"]
    assert still["error"] is None and still["dd_farneback"] == 0 == still["oq_motion_efficientnet_lite0"]
    assert still["oq_consistency_efficientnet_lite0"] > 0.9 and still["pi_mediapipe"] == 0
    assert 0 < still["dino_ref_efficientnet_lite0"] < 0.8

    hands = found.loc["signing"]
    assert hands["error"] is None and hands["hq_mediapipe"] == pytest.approx(
        min(1, hands["hq_motion_mediapipe"] / 0.24) * hands["hq_sharpness_mediapipe"] / 275
    )
    assert hands[["oq_efficientnet_lite0", "pi_mediapipe"]].isna().all()
    assert 0 < hands["dino_subject_efficientnet_lite0"] < 0.8


def test_boxes_that_nobody_can_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"generated": "a.mp4", "object_boxes": "three bottles"}')
    with pytest.raises(
        InputError, match=r"a\.jsonl: row 1: column object_boxes of the input list: Invalid JSON"
    ):
        prepare_evaluation(Methods({"ours": str(tmp_path / "a.jsonl")}), tmp_path / "out", ("oq",))
