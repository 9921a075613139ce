"""From a portrait to a clip of a trained network, by the four commands of the README."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from tests.conftest import ROOT
from tests.support.helpers import linked

PORTRAIT = "uniface_woman1.jpg"


def interavatar(*arguments: object) -> str:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_portrait_to_network_to_clip(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the tiny run's folders are relative
    portraits = linked(tmp_path / "portraits", [samples / "images" / PORTRAIT])
    made = ("--output", "made", "--engine", "inline")
    interavatar("run", "synthetic_interactions", "--input", portraits, *made, "--set", "clips=4")
    interavatar("shards", "made", "--output", "shards", "--allow-preview", "--engine", "inline")
    index = pd.read_parquet("shards/index.parquet")
    assert len(index) == 4 and index["preview"].all() and index["error"].isna().all()
    assert index["is_interaction"].all() and (index["identity_dim"] == 128).all()

    config = ROOT / "configs" / "train" / "tiny.yaml"
    settings = ("--set", "steps=4", "--set", "checkpoint_every=2", "--set", "samples.every=4")
    interavatar("train", "--config", config, *settings)
    info = json.loads(Path("tiny/checkpoints/step-00000004/trainer.json").read_text())
    assert info["stand_in"] == "random weights and a toy autoencoder"
    assert info["embedders"]["face_embedder"] == index["face_embedder"].iloc[0]

    clip = tmp_path / "clip.mp4"
    voice = samples / "audio" / "whisper_jfk_en.wav"
    heard = ("--audio", voice, "--at", "0.5,0.4", "--interaction", "poke", "--steps", 2)
    said = interavatar(
        "sample", "--checkpoint", "tiny", "--image", portraits / PORTRAIT, *heard, "--output", clip
    )
    assert "176 frames" in said and "11.00 s" in said  # the whole of what is said, part after part
    with av.open(str(clip)) as container:
        assert len(container.streams.audio) == 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 176 and frames[0].shape[0] % 16 == frames[0].shape[1] % 16 == 0
