"""What README.md promises of its commands and snippets; the checks are known once this is imported."""

from __future__ import annotations

from pathlib import Path

import av
import pandas as pd
import yaml

from pipelines.catalogue import PIPELINES
from pipelines.engine.settings import Settings
from pipelines.requests import load_profile, profile_roles
from tests.docs.checks import At, after, asks_once, finished_job
from tests.docs.pages import blocks
from tests.docs.sandbox import LIMIT, TINY_CLIPS
from trainer.config import load_config

VIDEOS = TINY_CLIPS + 3  # one with a person, one long, one broken


@after("README.md", "interavatar run talking_head --input /your/videos --output out --limit 20")
def _(at: At) -> None:
    assert f"talking_head: {LIMIT} samples in, {LIMIT} out: " in at.done.said and "errors 1 (" in at.done.said
    assert (at.folder / "out" / "report.html").is_file()


@after("README.md", "python 1")
def _(at: At) -> None:
    assert len(at.names["rows"]) == LIMIT
    shown, reasons, unread = at.values
    assert list(shown.columns) == [
        "source_uri", "keep", "drop_reasons", "luminance", "head_yaw", "lip_sync_confidence",
    ]  # fmt: skip
    person = shown[shown.source_uri.str.endswith("/a_person.mp4")].iloc[0]
    assert 10 < person.luminance < 245 and abs(person.head_yaw) < 45
    assert reasons.sum() >= LIMIT and all(isinstance(reason, str) for reason in reasons.index if reason)
    ((uri, error),) = unread.itertuples(index=False)
    assert Path(uri).name == "broken.mp4" and error["stage"] == "probe"
    assert error["message"].startswith("not a readable media file")


@after("README.md", "interavatar plan talking_head --input /your/videos --output out")
def _(at: At) -> None:
    assert f"{VIDEOS - LIMIT} samples to compute, {LIMIT} reused" in at.done.said
    assert "CPU-seconds a sample" in at.done.said and "writes " in at.done.said


@after("README.md", "interavatar run talking_head --input /your/videos --output out")
def _(at: At) -> None:
    assert f"(computed {VIDEOS - LIMIT}, reused {LIMIT}, " in at.done.said


@after("README.md", "interavatar screen out --screen my_screen.yaml")
def _(at: At) -> None:
    assert f"screen talking_head: kept 0 of {VIDEOS}, 0 verdicts changed" in at.done.said


@after("README.md", "interavatar run talking_head --input /your/videos --output out --set overlays.every_s=1")
def _(at: At) -> None:
    stages = at.record("out")["stages"]
    assert {name for name, of in stages.items() if of["computed"]} == {"overlays", *readers_of("overlays")}
    assert stages["overlays"]["computed"] == stages["faces"]["reused"] - stages_stopped(at.rows("out"))


def readers_of(name: str) -> set[str]:
    """Stages of talking_head that read what a stage writes, or what its readers write."""
    model, build = PIPELINES["talking_head"]
    stages = build(profile_roles(load_profile("laptop"), Settings(), Path()), model()).stages
    written, found = set(next(s for s in stages if s.name == name).writes), set()
    for stage in stages:
        if written & set(stage.reads):
            found.add(stage.name)
            written |= set(stage.writes)
    return found


def stages_stopped(rows: pd.DataFrame) -> int:
    """Rows that ended at a gate."""
    return int(rows.stopped.notna().sum())


@after("README.md", "interavatar run talking_head --input /your/videos --output cut --set split=true")
def _(at: At) -> None:
    rows = at.rows("cut")
    cut = rows[rows.source_uri.str.endswith("/long.mp4")]
    assert len(cut) >= 2 and cut.parent_id.notna().all() and (cut.end_s - cut.start_s).between(2, 20).all()
    assert len(at.rows("cut/videos")) == VIDEOS


@after("README.md", "interavatar status out")
def _(at: At) -> None:
    assert ": finished" in at.done.said and f"in the manifest: {VIDEOS} (kept 0" in at.done.said


@after("README.md", "interavatar run real_interactions --input /your/videos --output touched")
def _(at: At) -> None:
    said = at.rows("touched").interaction_by.dropna()
    assert len(said) and set(said) == {"stand_in_measured"}


@after(
    "README.md", "interavatar run synthetic_interactions --input /your/portraits --output made --set clips=40"
)
def _(at: At) -> None:
    assert "portraits: 1 samples in, 1 out: kept 1" in at.done.said
    clips = at.rows("made/clips")
    assert len(clips) == 2 and not clips.keep.any()  # of clips that a stand-in makes
    assert all("stand_in" in reasons for reasons in clips.drop_reasons)


asks_once(
    "README.md",
    "interavatar run real_interactions --input /your/videos --output asked "
    "--set vlm.endpoint=http://localhost:8000/v1",
    "asked",
)


@after("README.md", "python 2")
def _(at: At) -> None:
    (shown,) = at.values
    assert len(shown) == 2 and shown.interaction_type.notna().all() and shown.caption.str.len().gt(0).all()
    assert shown.interaction_prompt.str.startswith("The person is reacting right after being ").all()
    assert shown.interaction_x.between(0, 1).all() and shown.interaction_y.between(0, 1).all()


@after("README.md", "interavatar models fetch --profile gpu")
def _(at: At) -> None:
    assert "dwpose: fetched" in at.done.said and "wan2.2-i2v-a14b: fetched" in at.done.said
    recorded = Path(at.reader.environment["HOME"]) / ".cache" / "interavatar" / "models" / "models.yaml"
    assert len(yaml.safe_load(recorded.read_text())) == at.done.said.count(": fetched")


@after("README.md", "ray get-auth-token --generate")
def _(at: At) -> None:
    token = (Path(at.reader.environment["HOME"]) / ".ray" / "auth_token").read_text().strip()
    assert len(token) >= 32 and token in at.done.said


README_JOB = (
    "ray job submit --address http://127.0.0.1:8265 --working-dir . -- python -m pipelines run talking_head "
    "--input /shared/videos --output /shared/out"
)


@after("README.md", README_JOB)
def _(at: At) -> None:
    finished_job(at)
    # The page's first snippet, on a run in which nothing went wrong.
    snippet = next(block.text for block in blocks("README.md") if block.language == "python")
    names, (*_, unread) = at.reader.execute(snippet.replace("out/manifest", "shared/out/manifest"))
    assert len(names["rows"]) == 2 and unread.empty


@after(
    "README.md", "interavatar run synthetic_interactions --input /your/portraits --output made --set clips=8"
)
def _(at: At) -> None:
    assert "(computed 2, reused 2, " in at.done.said and at.rows("made/clips").sample_id.is_unique


@after("README.md", "interavatar shards made --output shards --allow-preview")
def _(at: At) -> None:
    index = pd.read_parquet(at.folder / "shards" / "index.parquet")
    assert len(index) == 4 and index.preview.all() and index.error.isna().all()
    assert (at.folder / "shards" / "shard-000000.tar").is_file()


@after("README.md", "interavatar train --config configs/train/tiny.yaml")
def _(at: At) -> None:
    assert load_config(at.folder / "configs" / "train" / "tiny.yaml").steps == 400
    assert "step 4/4" in at.done.said and "checkpoint  tiny/checkpoints/step-00000004" in at.done.said
    again = at.reader.type("interavatar train --config configs/train/tiny.yaml")
    assert again.status == 0 and "step 4/4" not in again.said and "step-00000004" in again.said


@after(
    "README.md",
    "interavatar sample --checkpoint tiny --image portrait.jpg --audio voice.wav --at 0.5,0.4 "
    "--interaction poke --guidance 1 --output clip.mp4",
)
def _(at: At) -> None:
    with av.open(str(at.folder / "clip.mp4")) as container:
        assert len(container.streams.audio) == 1
        frames = list(container.decode(video=0))
    assert len(frames) == 16 and f"16 frames of {frames[0].width}x{frames[0].height}, 1.00 s" in at.done.said


@after(
    "README.md",
    "interavatar run talking_head --input celebv-hq:/your/CelebV-HQ --output celebv --screen visual",
)
def _(at: At) -> None:
    assert set(at.rows("celebv").source) == {"CelebV-HQ"} and at.rows("celebv").error.notna().sum() >= 1


@after("README.md", "interavatar duplicates ravdess hdtf celebv")
def _(at: At) -> None:
    rows = at.rows("ravdess")
    assert sorted(rows.duplicate_kind.dropna()) == ["packets"] * 2 and rows.keep.sum() == 1


@after("README.md", "interavatar people ravdess hdtf celebv")
def _(at: At) -> None:
    rows = at.rows("ravdess")  # one face, but two actors: what the data set says goes first
    assert rows.groupby("identity").person_id.nunique().tolist() == [1, 1] and rows.person_id.nunique() == 2
    assert at.rows("hdtf").person_id.isna().all()


@after("README.md", "interavatar split ravdess hdtf celebv --balance source")
def _(at: At) -> None:
    assert set(at.rows("ravdess").split) == {"train"}
    assert not at.rows("hdtf").split.isna().any() and not at.rows("celebv").split.isna().any()


@after("README.md", "interavatar shards ravdess hdtf celebv --split train --output train_shards")
def _(at: At) -> None:
    index = pd.read_parquet(at.folder / "train_shards" / "index.parquet")
    assert index["run"].tolist() == ["ravdess"] and index["error"].isna().all()


@after("README.md", "interavatar card ravdess hdtf celebv --output CARD.md")
def _(at: At) -> None:
    assert "| packets |" in (at.folder / "CARD.md").read_text()


@after(
    "README.md",
    "interavatar evaluate --method ours=/your/ours --method theirs=/your/theirs --reference /your/real "
    "--output evaluation",
)
def _(at: At) -> None:
    table = (at.folder / "evaluation/table.tex").read_text()
    assert r"FID (efficientnet\_lite0)$\downarrow$" in table and r"\textbf{" in table
