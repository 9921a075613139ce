"""Both interaction pipelines against a real vLLM server: to the end, and a rerun asks nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipelines.requests import Request, load_profile, prepare
from prompts.vocabulary import REGIONS, VOCABULARY
from tests.support.helpers import linked, quiet
from tests.support.vllm_server import VllmServer


def execute(pipeline: str, source: Path, output: Path, profile: str, *overrides: str) -> list[dict[str, Any]]:
    request = Request(pipeline, str(source), output, profile=profile, overrides=overrides)
    return [run.execute(quiet()) for run in prepare(request)]


def lenient(folder: Path) -> str:
    """A profile that keeps every portrait: what a random model says of a picture is random."""
    rule = {"reason": "none", "column": "short_side", "min": 1, "source": "every picture has a side"}
    (folder / "all.yaml").write_text(yaml.safe_dump({"name": "all", "rules": [rule]}))
    profile = load_profile("laptop").model_dump() | {"screens": {"portraits": str(folder / "all.yaml")}}
    path = folder / "lenient.yaml"
    path.write_text(yaml.safe_dump(profile))
    return str(path)


def test_real_interactions(vllm_server: VllmServer, samples: Path, tmp_path: Path) -> None:
    names = ("intel_asl_learn.mkv", "intel_asl_brother.mkv")
    clips = linked(tmp_path / "clips", [samples / "videos" / name for name in names])
    settings = (f"vlm.endpoint={vllm_server.url}", "people_count.max_people=99", "vlm.attempts=2")
    before, (hits, looked_for) = vllm_server.requests(), vllm_server.cached_tokens()
    (record,) = execute("real_interactions", clips, tmp_path / "out", "laptop", *settings)
    rows = pd.read_parquet(tmp_path / "out" / "manifest")
    assert record["counts"]["ids_in"] == record["counts"]["ids_out"] == 2
    assert record["vlm"]["requests"] == vllm_server.requests() - before >= 2 * 3
    # The server reads a clip's video for the caption alone: every later question about it finds a block of
    # 128 tokens at least. Before the video all questions have too little in common for one.
    now_hits, now_looked_for = vllm_server.cached_tokens()
    assert now_looked_for - looked_for == record["vlm"]["prompt_tokens"]
    later = rows[["people_count_by", "interaction_by", "artifacts_by", "anatomy_by"]].notna().to_numpy().sum()
    assert later >= 2 and now_hits - hits >= 128 * later
    assert record["vlm"]["prompt_tokens"] > 1000 and record["vlm"]["completion_tokens"] > 100
    assert set(rows["caption_by"]) == {vllm_server.model} == set(rows["people_count_by"])
    assert rows["caption"].str.len().gt(0).all() and rows["people_count"].between(0, 99).all()
    for error in rows["error"].dropna():  # a random model contradicts itself, and is not believed
        assert error["kind"] == "AnswerError"
    found = rows[rows["interaction_found"].fillna(False).astype(bool)]
    assert found["interaction_type"].isin(VOCABULARY.types).all()
    assert found["interaction_region"].isin(REGIONS).all()

    asked = vllm_server.requests()
    (record,) = execute("real_interactions", clips, tmp_path / "out", "laptop", *settings)
    assert record["vlm"]["requests"] == 0 and record["counts"]["computed"] == 0
    assert vllm_server.requests() == asked


def test_synthetic_interactions(vllm_server: VllmServer, samples: Path, tmp_path: Path) -> None:
    names = ("uniface_man2.jpg", "tddfa_man_gown.jpg")
    pictures = linked(tmp_path / "pictures", [samples / "images" / name for name in names])
    settings = (
        f"vlm.endpoint={vllm_server.url}",
        "portrait_kind.stop_unless_one_person=false",
        "reactions.types=[kissed, punched]",
        "clips=2",
    )
    arguments = ("synthetic_interactions", pictures, tmp_path / "out", lenient(tmp_path), *settings)
    first, second = execute(*arguments)
    portraits = pd.read_parquet(tmp_path / "out" / "portraits" / "manifest")
    clips = pd.read_parquet(tmp_path / "out" / "clips" / "manifest")
    assert first["counts"]["ids_out"] == 2 and first["vlm"]["requests"] >= 2 * 2
    good = portraits[portraits["error"].isna()]
    assert len(good) >= 1, [error["message"] for error in portraits["error"]]
    assert set(good["reactions_by"]) == {vllm_server.model}
    assert {r["interaction_type"] for row in good["reactions"] for r in row} <= {"kissed", "punched"}
    assert second["counts"]["ids_out"] == len(clips) >= 1
    assert set(clips["caption_by"]) == {vllm_server.model} and clips["synthesis_by"].notna().all()
    said = clips[clips["error"].isna()]
    assert set(said["artifacts_by"]) <= {vllm_server.model}

    asked = vllm_server.requests()
    first, second = execute(*arguments)
    assert first["vlm"]["requests"] == second["vlm"]["requests"] == 0
    assert first["counts"]["computed"] == second["counts"]["computed"] == 0
    assert vllm_server.requests() == asked
