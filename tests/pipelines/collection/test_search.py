"""Samples are found by what they show, among what was stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from manifests.features import load_features
from manifests.screen import EVERYTHING
from media.decode import decode
from media.requests import Frames
from pipelines.cli.app import app
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.run import Run
from pipelines.engine.settings import Settings
from pipelines.engine.source import list_input
from pipelines.requests import load_profile, profile_roles
from stages.consistency import Consistency
from stages.faces import Faces
from stages.probe import Probe
from tests.support.clips import ffmpeg
from tests.support.copies import cut
from tests.support.helpers import manifest, quiet

NAMES = ("edtalk_obama", "liveportrait_woman_lake", "sam2_man_juggle", "intel_bottles_noperson")


@pytest.fixture(scope="module")
def run(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four short clips, and a file that is none."""
    root = tmp_path_factory.mktemp("search")
    (root / "in").mkdir()
    for name in NAMES:
        cut(samples / "videos" / f"{name}.mp4", root / "in" / f"{name}.mp4", 0, 2)
    (root / "in" / "broken.mp4").write_bytes(b"no video")
    profile, settings = load_profile("laptop"), Settings()
    models = profile_roles(profile, settings, root)
    stages = [
        Probe(),
        Faces(models.face_detector),
        Consistency(models.image_embedder, models.face_embedder),
    ]
    pipeline = Pipeline("looks", stages, "looks", max_seconds=30)
    made = Run(pipeline, list_input(str(root / "in")), root / "out", profile, settings, EVERYTHING, "inline")
    made.execute(quiet())
    return root / "out"


def test_the_stored_vector_is_the_mean_of_the_pictures(run: Path) -> None:
    rows = manifest(run)
    row = rows[rows["source_uri"].str.endswith("sam2_man_juggle.mp4")].iloc[0].to_dict()
    embedder = profile_roles(load_profile("laptop"), Settings(), run).image_embedder
    asked = Frames(2.0, 480)
    _, images = decode(Path(row["source_uri"]), [asked]).frames[asked]
    stored = load_features(run, row, "consistency")["image_embedding"]
    assert stored.shape == (1280,) and abs(float(np.linalg.norm(stored)) - 1) < 1e-5
    looked_at = [images[i] for i in np.linspace(0, len(images) - 1, 3).astype(int)]
    mean = embedder.embed(looked_at).mean(0)
    np.testing.assert_allclose(stored, mean / np.linalg.norm(mean), atol=1e-5)


def test_clips_like_another_one_come_first(run: Path, samples: Path, tmp_path: Path) -> None:
    later = cut(samples / "videos" / "sam2_man_juggle.mp4", tmp_path / "later.mp4", 4, 2)
    rows = tmp_path / "rows.parquet"
    said = CliRunner().invoke(
        app, ["find", str(run), "--like", str(later), "--count", "3", "--output", str(rows)]
    )
    assert said.exit_code == 0, said.output
    # The broken one, and the one without a face, which a gate stops.
    assert "2 samples were not looked at: consistency was not computed" in said.output
    found = pq.read_table(rows)
    assert Path(found["source_uri"][0].as_py()).name == "sam2_man_juggle.mp4" and found.num_rows == 3
    similar = found["similarity"].to_pylist()
    assert similar == sorted(similar, reverse=True) and similar[0] > 0.9 > similar[1]
    html = (run / "found.html").read_text()
    assert "sam2_man_juggle.mp4" in html and "broken.mp4" not in html
    assert "of 3 kept" in html, "a report of what was found alone"


def test_a_picture_is_looked_for_as_a_clip_is(run: Path, samples: Path, tmp_path: Path) -> None:
    picture = tmp_path / "lake.jpg"
    ffmpeg("-i", samples / "videos" / "liveportrait_woman_lake.mp4", "-frames:v", "1", picture)
    said = CliRunner(env={"COLUMNS": "200"}).invoke(
        app, ["find", str(run), "--like", str(picture), "--count", "1"]
    )
    assert said.exit_code == 0 and "liveportrait_woman_lake.mp4" in said.output


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["a man juggles"], 1, "which knows no words"),
        ([], 2, "give a sentence or --like FILE"),
        (["a man", "--like", "x.jpg"], 2, "give a sentence or --like FILE"),
        (["--like", "/nowhere/x.mp4"], 1, "/nowhere/x.mp4"),
    ],
)
def test_what_cannot_be_looked_for_says_what_can(run: Path, words: list[str], code: int, says: str) -> None:
    said = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["find", str(run), *words])
    assert said.exit_code == code and says in said.output and "Traceback" not in said.output
