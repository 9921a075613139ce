"""What the pages of docs/ promise, but the guides; the checks are known once this is imported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from ray._common.utils import get_default_ray_temp_dir
from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

from pipelines.validate.labels import read_labels
from pipelines.validate.measures import read_floors
from tests.docs.checks import At, after, asks_once, finished_job
from tests.support.traces import traces
from trainer.config import load_config

GPU_JOB = (
    "ray job submit --working-dir . -- python -m pipelines run talking_head --profile gpu "
    "--input /shared/videos --output /shared/out --set cluster.cpus=1088 --set cluster.gpus=32"
)


# docs/cluster.md


@after(
    "docs/cluster.md",
    "interavatar run talking_head --profile gpu --input /shared/videos --output /shared/first --limit 20",
)
def _(at: At) -> None:
    """Now with the laptop's models, for the command that follows."""
    command = "interavatar run talking_head --engine inline --input /shared/videos --output /shared/first"
    assert at.reader.type(command).status == 0


@after("docs/cluster.md", GPU_JOB)
def _(at: At) -> None:
    """Now with the laptop's models, for the commands that follow."""
    command, _, _ = GPU_JOB.replace(" --profile gpu", "").partition(" --set ")
    done = at.reader.type(command)
    assert done.status == 0 and "submitted successfully" in done.said, done.said


@after("docs/cluster.md", "ray job logs -f JOB")
def _(at: At) -> None:
    assert "talking_head: 2 samples to compute, 0 reused" in at.done.said
    assert "talking_head: 2 samples in, 2 out: " in at.done.said and "succeeded" in at.done.said


@after("docs/cluster.md", "ray job stop JOB")
def _(at: At) -> None:
    assert at.reader.own(" JOB").strip() in at.done.said


@after("docs/cluster.md", "interavatar status /shared/first")
@after("docs/cluster.md", "interavatar status /shared/out")
@after("docs/cluster.md", "interavatar status /shared/out --watch")
def _(at: At) -> None:
    assert ": finished" in at.done.said and "in the manifest: 2 (" in at.done.said


@after("docs/cluster.md", "yaml 1")
def _(at: At) -> None:
    """The file is the one that Ray writes."""
    (scraped,) = yaml.safe_load(at.shown)["scrape_configs"]
    (found,) = scraped["file_sd_configs"]
    assert found == {"files": [f"{get_default_ray_temp_dir()}/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]}


# docs/consent.md


@after(
    "docs/consent.md",
    "interavatar run talking_head --input terms.csv --output judged --screen commercial",
)
def _(at: At) -> None:
    free, other = at.rows("judged").sort_values("source_uri").itertuples()
    assert (free.commercial_use, other.commercial_use, other.derivatives) == (True, False, True)
    assert "no_commercial_use" in other.drop_reasons and "no_commercial_use" not in free.drop_reasons


FORGET = "interavatar forget out --list withdrawn.txt --shards shards"


@after("docs/consent.md", f"{FORGET} --dry-run --print-media")
def _(at: At) -> None:
    assert "1 rows" in at.done.said and str(at.folder / "videos" / "clip00.mp4") in at.done.said
    assert "1 samples; to be written anew: shard-000000.tar" in at.done.said and len(at.rows("out")) == 2


@after("docs/consent.md", f"{FORGET} --yes")
def _(at: At) -> None:
    assert at.done.said.rstrip().endswith("forgotten") and len(at.rows("out")) == 1
    assert not traces([at.folder / "out", at.folder / "shards"], ["clip00"])
    assert at.reader.type(f"{FORGET} --yes").said.startswith("out: nothing of it is here")


# docs/language_models.md


asks_once(
    "docs/language_models.md",
    "interavatar run real_interactions --input clips.jsonl --output out --set vlm.endpoint=http://localhost:8000/v1",
    "out",
)


# docs/models.md


@after("docs/models.md", "interavatar models fetch --models /shared/models")
def _(at: At) -> None:
    assert "qwen2.5-vl-7b-instruct: fetched" in at.done.said
    listed = at.reader.type("interavatar models list --models /shared/models")
    assert listed.status == 0 and "complete @" in listed.said and "missing" not in listed.said


# docs/real_interactions.md


@after("docs/real_interactions.md", "interavatar run real_interactions --input clips.jsonl --output out")
def _(at: At) -> None:
    rows = at.rows("out")
    assert set(rows.caption.dropna()) <= {"An astronaut smiles.", "A test picture."}
    assert "An astronaut smiles." in set(rows.caption) and set(rows.caption_by.dropna()) == {"source"}


@after(
    "docs/real_interactions.md",
    "interavatar run real_interactions --input clips.jsonl --output out "
    "--set vlm.endpoint=http://localhost:8000/v1",
)
def _(at: At) -> None:
    assert at.server.chats()
    said = at.rows("out").interaction_by.dropna()
    assert len(said) and set(said) == set(at.server.models)
    assert "An astronaut smiles." in set(at.rows("out").caption)  # kept as it is


# docs/review.md


@after("docs/review.md", "interavatar screen out --dry-run")
def _(at: At) -> None:
    assert "screen visual would keep " in at.done.said and "no verdict would change" in at.done.said


@after("docs/review.md", "interavatar screen out")
def _(at: At) -> None:
    assert at.done.said.startswith("screen visual: kept ") and "0 verdicts changed" in at.done.said


@after("docs/review.md", "python 1")
def _(at: At) -> None:
    said, rows = at.names["said"], at.names["rows"]
    assert said.sample_id.tolist() == rows.sample_id[:1].tolist() and said.note[0].startswith("another clip")
    assert at.reader.type("interavatar screen out").status == 0
    after_it = at.rows("out")
    assert after_it.review.fillna("").tolist() == ["drop", ""] and "review" in after_it.drop_reasons[0]


# docs/running.md


@after("docs/running.md", "pip install s3fs")
def _(at: At) -> None:
    assert "Requirement already satisfied: s3fs" in at.done.said


@after("docs/running.md", "interavatar run talking_head --input s3://bucket/videos --output s3://bucket/run")
def _(at: At) -> None:
    assert "talking_head: 2 samples in, 2 out: " in at.done.said and "manifest  s3://" in at.done.said


@after("docs/running.md", "interavatar status s3://bucket/run")
@after("docs/running.md", "interavatar status s3://bucket/run --watch")
def _(at: At) -> None:
    assert ": finished" in at.done.said


@after("docs/running.md", "python 1")
def _(at: At) -> None:
    rows, row, arrays = (at.names[name] for name in ("rows", "row", "arrays"))
    assert len(rows) == 2 and row.source_uri.endswith("/a_person.mp4")
    assert arrays and all(isinstance(array, np.ndarray) for array in arrays.values())


@after(
    "docs/running.md",
    "ray job submit --address http://127.0.0.1:8265 --working-dir . -- python -m pipelines run talking_head "
    "--input /shared/videos --output /shared/out",
)
def _(at: At) -> None:
    finished_job(at)


# docs/shards.md


def index(at: At, folder: str) -> pd.DataFrame:
    return pd.read_parquet(at.folder / folder / "index.parquet")


@after("docs/shards.md", "interavatar shards touched made --output shards")
def _(at: At) -> None:
    assert sorted(index(at, "shards").run) == ["made", "made", "touched", "touched"]


@after("docs/shards.md", "text 1")
def _(at: At) -> None:
    shown = [word for word in at.shown.split() if word.startswith("DIR/")]
    assert len(shown) == 4
    for word in shown:
        assert (at.folder / word.replace("DIR", "shards")).exists(), word


@after(
    "docs/shards.md",
    "interavatar shards real=runs/a clips=s3://bucket/run --output s3://bucket/shards --size 500MB "
    "--weight clips=2",
)
def _(at: At) -> None:
    assert "real: 2 samples" in at.done.said and "clips: 2 samples" in at.done.said
    assert "shards: 4 samples in 1 shards, errors 0" in at.done.said


@after("docs/shards.md", "interavatar shards made --output preview --allow-preview")
def _(at: At) -> None:
    assert "made: 2 samples" in at.done.said and len(index(at, "preview")) == 2


@after("docs/shards.md", "interavatar shards touched --output shards --for finetrainers")
def _(at: At) -> None:
    lines = (at.folder / "shards" / "finetrainers" / "metadata.jsonl").read_text().splitlines()
    assert len(lines) == 2 == len(index(at, "shards"))
    for line in map(json.loads, lines):
        assert set(line) == {"file_name", "caption"}
        assert (at.folder / "shards" / "finetrainers" / line["file_name"]).is_file()


@after("docs/shards.md", "interavatar shards touched made --split train --output train")
def _(at: At) -> None:
    assert json.loads((at.folder / "train" / "index.json").read_text())["split"] == "train"
    assert set(pd.read_parquet(at.folder / "touched" / "manifest")["split"]) == {"train"}


@after("docs/shards.md", "python 1")
def _(at: At) -> None:
    members = at.names["members"]
    assert set(members) == {"mp4", "wav", "json", "txt", "npz"}
    assert json.loads(members["json"])["run"] == at.names["row"]["run"]
    assert at.names["arrays"]["attributes"].shape == (3, 5)


@after("docs/shards.md", "python 2")
def _(at: At) -> None:
    assert at.names["video"][4:8] == b"ftyp" and "poked" in at.names["prompt"]


@after("docs/shards.md", "python 3")
def _(at: At) -> None:
    """That the samples are ours is tested in test_shards.py."""


# docs/synthetic_interactions.md


@after("docs/synthetic_interactions.md", "interavatar run portraits --input portraits/ --output out")
def _(at: At) -> None:
    (row,) = at.rows("out").to_dict("records")
    assert row["depiction"] == "photo" and len(row["regions"]) > 3 and len(row["reactions"]) > 3


@after(
    "docs/synthetic_interactions.md",
    "interavatar run synthetic_interactions --input portraits/ --output out --set clips=40",
)
def _(at: At) -> None:
    for run in ("out/portraits", "out/clips"):
        assert (at.folder / run / "report.html").is_file() and at.record(run)["status"] == "finished"
    clips = at.rows("out/clips")
    assert set(clips.portrait_id) == set(at.rows("out/portraits").sample_id)
    assert set(clips.synthesis_by) == {"stand_in_image_warp"}


# docs/training.md


def shards_of(at: At, stage: str) -> list[Path]:
    config = load_config(at.folder / "configs" / "train" / f"{stage}.yaml")
    return [at.folder / folder for folder in config.data.shards]


@after("docs/training.md", "interavatar train --config configs/train/wan_stage1.yaml")
def _(at: At) -> None:
    """It asks for no other shards than the page has made."""
    assert all((folder / "index.json").is_file() for folder in shards_of(at, "wan_stage1"))


@after(
    "docs/training.md",
    "interavatar shards out/synthetic_interactions --output shards/synthetic_interactions",
)
def _(at: At) -> None:
    """Nor does stage 2, which begins with what stage 1 leaves."""
    assert all((folder / "index.json").is_file() for folder in shards_of(at, "wan_stage2"))
    config = load_config(at.folder / "configs" / "train" / "wan_stage2.yaml")
    assert config.init == load_config(at.folder / "configs" / "train" / "wan_stage1.yaml").output


# docs/truth.md


@after("docs/truth.md", "interavatar validate out --labels /your/portraits/labels.csv")
def _(at: At) -> None:
    assert "accuracy" in at.done.said and "validation.html" in at.done.said
    answers = pd.read_parquet(at.folder / "out" / "validation.parquet")
    assert list(answers["outcome"]) == ["right"] and list(answers["said"]) == ["photo"]


@after("docs/truth.md", "text 1")
def _(at: At) -> None:
    (at.folder / "labels.csv").write_text(at.shown)
    labels = read_labels(at.folder / "labels.csv")
    assert len(labels) == 8 and [label.claim for label in labels][-3:] == ["touch", "cut", "keep"]
    assert labels[4].values == ("left_face", "mouth") and labels[3].tolerance == 10


@after("docs/truth.md", "text 2")
def _(at: At) -> None:
    (at.folder / "floors.yaml").write_text(at.shown)
    floors = read_floors(str(at.folder / "floors.yaml")).floors
    assert [floor.claim for floor in floors] == ["touch", "region", "head_yaw"]
