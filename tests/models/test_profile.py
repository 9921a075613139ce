"""The gpu profile from the command line on a CPU: doctor, and all pipelines with tiny random weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from backends.store.model_catalogue import known_models
from backends.store.model_store import ModelStore
from manifests.features import load_features
from prompts.vocabulary import REGIONS, VOCABULARY
from tests.models.tiny_store import SETTINGS, VLM
from tests.support.helpers import linked
from tests.support.misbehaving_server import MisbehavingServer, picky
from tests.support.schema_answers import answer

ROOT = Path(__file__).resolve().parent.parent.parent
# CoTracker has no smaller network, and its time goes with frames and points.
QUICK = ("motion.fps=2", "motion.grid_size=4", "motion.short_side=64")
RANDOM = "stand_in_random_"

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]


def interavatar(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, on the gpu profile."""
    command = [sys.executable, "-m", "pipelines", *arguments, "--profile", "gpu"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "VLLM_LOGGING_LEVEL": "ERROR", "COLUMNS": "400"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1100)


def given(store: ModelStore, *more: str) -> list[str]:
    overrides = (*SETTINGS, f"models={store.location}", *more)
    return [word for override in overrides for word in ("--set", override)]


def run(pipeline: str, source: Path, output: Path, store: ModelStore, *settings: str) -> None:
    settings = tuple(given(store, *QUICK, *settings))
    done = interavatar("run", pipeline, "--input", str(source), "--output", str(output), *settings)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


def complete(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """A finished run: ids in are ids out, and no sample is an error but for a random model's nonsense."""
    record, rows = json.loads((folder / "run.json").read_text()), pd.read_parquet(folder / "manifest")
    assert record["status"] == "finished"
    assert record["counts"]["ids_in"] == record["counts"]["ids_out"] == len(rows)
    for error in rows["error"].dropna():
        assert error["kind"] == "AnswerError", error
    return record, rows


def test_doctor_lists_every_missing_file(tmp_path: Path) -> None:
    done = interavatar("doctor", "--set", f"models={tmp_path / 'nothing'}", "--set", "device=cpu")
    assert done.returncode == 1, done.stderr
    for name, entry in known_models().items():
        is_used = entry.roles and name != "wan2.2-i2v-a14b-lightning"
        for file in entry.files if is_used else ():
            assert str(tmp_path / "nothing" / name / file) in done.stdout, file


def test_doctor_is_green_with_a_store(tiny_store: ModelStore) -> None:
    done = interavatar("doctor", *given(tiny_store, *VLM))
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert RANDOM + "qwen2.5-vl-7b-instruct@" in done.stdout  # it was loaded, and says what it is
    assert RANDOM + "wan2.2-i2v-a14b@" in done.stdout


def test_a_wrong_weight_stops_a_run_before_the_first_sample(
    tiny_store: ModelStore, samples: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "store"
    shutil.copytree(tiny_store.location, copy, ignore=shutil.ignore_patterns(".verified*"))
    wrong = copy / "dinov2-large" / "model.safetensors"
    data = bytearray(wrong.read_bytes())
    data[-1] ^= 1
    wrong.write_bytes(data)
    (copy / "syncnet" / "syncnet_v2.model").unlink()
    clips = linked(tmp_path / "clips", [samples / "videos" / "retalking_woman_glasses.mp4"])
    arguments = ("--input", str(clips), "--output", str(tmp_path / "out"))
    done = interavatar("run", "talking_head", *arguments, *given(ModelStore(copy), *VLM))
    assert done.returncode == 1
    assert str(wrong) in done.stderr and str(copy / "syncnet" / "syncnet_v2.model") in done.stderr
    assert "wan2.2" not in done.stderr  # talking_head does not load it
    assert not (tmp_path / "out" / "manifest").exists()


def test_talking_head(tiny_store: ModelStore, samples: Path, tmp_path: Path) -> None:
    names = ("retalking_woman_glasses.mp4", "intel_asl_learn.mkv")
    clips = linked(tmp_path / "clips", [samples / "videos" / name for name in names])
    run("talking_head", clips, tmp_path / "out", tiny_store, *VLM)
    record, rows = complete(tmp_path / "out")
    assert record["counts"]["kept"] == 0  # of what random weights say nothing is kept
    assert rows["drop_reasons"].map(lambda reasons: "stand_in" in reasons).all()
    for column in (
        "image_embedder",
        "face_embedder",
        "point_tracker",
        "attribute_embedder",
        "audio_embedder",
    ):
        assert rows[column].str.contains(RANDOM).all(), column
    assert rows["caption_by"].str.startswith(RANDOM).all()
    assert rows["lip_sync_by"].dropna().str.startswith(RANDOM).all()
    for row in rows.to_dict("records"):
        tokens = load_features(tmp_path / "out", row, "attributes")["attribute_features"]
        assert tokens.ndim == 2 and tokens.dtype == np.float16
        sound = load_features(tmp_path / "out", row, "audio_features")["audio_features"]
        assert sound.dtype == np.float16 and (len(sound) > 0) == row["has_audio"]
        keypoints = load_features(tmp_path / "out", row, "body")["pose_keypoints"]
        assert keypoints.shape[1:] == (133, 3)
        identity = load_features(tmp_path / "out", row, "consistency")["face_embedding"]
        assert identity.shape == (512,)

    run("talking_head", clips, tmp_path / "out", tiny_store, *VLM)
    again, _ = complete(tmp_path / "out")
    assert again["counts"]["computed"] == 0 and again["counts"]["reused"] == 2


def test_real_interactions(tiny_store: ModelStore, samples: Path, tmp_path: Path) -> None:
    clips = linked(tmp_path / "clips", [samples / "videos" / "intel_asl_brother.mkv"])
    run("real_interactions", clips, tmp_path / "out", tiny_store, *VLM, "people_count.max_people=99")
    record, rows = complete(tmp_path / "out")
    assert record["vlm"]["requests"] >= 3 and rows["caption_by"].str.startswith(RANDOM).all()
    found = rows[rows["interaction_found"].fillna(False).astype(bool)]
    assert found["interaction_type"].isin(VOCABULARY.types).all()
    assert found["interaction_region"].isin(REGIONS).all()


@pytest.fixture
def lenient(tmp_path: Path) -> str:
    """A screen that keeps every portrait: what a random model says of a picture is random."""
    rule = {"reason": "none", "column": "short_side", "min": 1, "source": "every picture has a side"}
    screen = tmp_path / "all.yaml"
    screen.write_text(yaml.safe_dump({"name": "all", "rules": [rule]}))
    return str(screen)


def test_synthetic_interactions(tiny_store: ModelStore, samples: Path, tmp_path: Path, lenient: str) -> None:
    pictures = linked(tmp_path / "pictures", [samples / "images" / "uniface_man2.jpg"])
    settings = (
        # A random language model takes minutes to word the reactions of all regions.
        "roles.vision_language_model.use=stand_in_measured",
        "portrait_kind.stop_unless_one_person=false",
        f"portraits_screen={lenient}",
        "reactions.types=[kissed]",
        "clips=2",
    )
    run("synthetic_interactions", pictures, tmp_path / "out", tiny_store, *settings)
    _, portraits = complete(tmp_path / "out" / "portraits")
    _, clips = complete(tmp_path / "out" / "clips")
    assert len(portraits) == 1 and len(clips) == 2
    assert (clips["synthesis_by"] == RANDOM + "wan2.2-i2v-a14b").all() and (clips["num_frames"] == 17).all()
    assert not clips["keep"].any() and clips["drop_reasons"].map(lambda r: "stand_in" in r).all()


def test_qwen_looks_and_a_model_that_reasons_writes(
    tiny_store: ModelStore, samples: Path, tmp_path: Path, lenient: str
) -> None:
    """The papers' two language models in one run: vLLM in the worker, and what GPT-5 mini takes."""
    pictures = linked(tmp_path / "pictures", [samples / "images" / "uniface_man2.jpg"])
    with MisbehavingServer(answer) as server:
        server.refuses = picky
        settings = (
            *VLM,
            "portrait_kind.stop_unless_one_person=false",
            f"portraits_screen={lenient}",
            "clips=1",
            f"reaction_writer.endpoint={server.url}",
            "reaction_writer.model=gpt-5-mini",
        )
        run("synthetic_interactions", pictures, tmp_path / "out", tiny_store, *settings)
        asked = [chat.body["model"] for chat in server.chats()]
    assert asked == ["gpt-5-mini"] * 11
    record, portraits = complete(tmp_path / "out" / "portraits")
    assert record["vlm"]["requests"] >= 2 and record["reaction_writer"]["requests"] == 11
    qwen = RANDOM + "qwen2.5-vl-7b-instruct"
    (portrait,) = portraits.to_dict("records")
    assert portrait["depiction_by"] == qwen and portrait["hair_by"].startswith(qwen)
    assert portrait["reactions_by"] == "gpt-5-mini"
    record, clips = complete(tmp_path / "out" / "clips")
    (clip,) = clips.to_dict("records")
    assert (clip["caption_by"], clip["artifacts_by"], clip["anatomy_by"]) == ("gpt-5-mini", qwen, qwen)
    assert record["vlm"]["requests"] >= 2 and record["reaction_writer"]["requests"] == 0
