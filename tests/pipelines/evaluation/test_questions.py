"""VLM-QA in an evaluation, by a real vLLM server: to the table, and a rerun asks nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.evaluation.inputs import Methods
from pipelines.evaluation.runs import Evaluation, prepare_evaluation
from prompts.vlm_qa import CATEGORIES
from tests.support.helpers import manifest, quiet
from tests.support.vllm_server import VllmServer

COLUMN = "vlm_qa_tiny_qwen_vl"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_model_answers_and_has_its_name_in_the_number(
    vllm_server: VllmServer, samples: Path, tmp_path: Path
) -> None:
    rows = [
        {
            "generated": str(samples / "videos" / video),
            "reference_image": picture and str(samples / "images" / picture),
            "text": "Two hands move three red cups.",
            "objects": '["cup"]',
        }
        for video, picture in (
            ("sam2_hands_cups.mp4", "facealign_grass.jpg"),
            ("intel_asl_book.mkv", "uniface_man2.jpg"),
            ("intel_asl_brother.mkv", None),
        )
    ]
    (tmp_path / "ours.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def prepared() -> Evaluation:
        methods = Methods({"ours": str(tmp_path / "ours.jsonl")})
        settings = [f"vlm.endpoint={vllm_server.url}", "draws=20"]
        return prepare_evaluation(methods, tmp_path / "out", ["vlm_qa"], overrides=settings, engine="inline")

    before = vllm_server.requests()
    first = prepared()
    record = first.execute(quiet())
    found = manifest(tmp_path / "out")
    assert found["error"].isna().all(), list(found["error"])
    # Nobody is asked about the clip without a reference picture.
    assert vllm_server.requests() - before == record["vlm"]["requests"] == 2
    assert found[f"vlm_qa_answers_{COLUMN.removeprefix('vlm_qa_')}"].notna().sum() == 2

    numbers = {figure.name: figure.values[""]["ours"] for figure in first.results().figures}
    assert set(numbers) == {COLUMN, *(COLUMN.replace("vlm_qa_", f"vlm_qa_{c}_", 1) for c in CATEGORIES)}
    for name, number in numbers.items():
        known = found[name].dropna()
        assert number.clips == len(known) and number.value == (
            pytest.approx(known.mean()) if len(known) else None
        )

    again = prepared().execute(quiet())
    assert again["counts"]["computed"] == 0 and vllm_server.requests() - before == 2
