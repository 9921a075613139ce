"""What `plan` foretells: stages that are left, hours, bytes, requests; and what it does not know."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from backends.store.model_store import ModelStore
from backends.video.image_to_video import Gpu
from backends.video.wan import PUBLISHED_SECONDS
from manifests import store
from pipelines import catalogue
from pipelines.cli import app as cli
from pipelines.engine.pipeline import Pipeline, Split
from pipelines.engine.settings import Settings
from pipelines.engine.source import InputError
from pipelines.estimate.cost import Asked, Estimate, estimates
from pipelines.requests import Request, load_profile, prepare
from stages.clip import Clip
from stages.contract import Column, Stage
from tests.support.helpers import linked, make_files, quiet
from tests.support.misbehaving_server import MisbehavingServer
from tests.support.schema_answers import answer
from tests.support.toys import Length, Root, Square

WAN = "wan2.2-i2v-a14b"


class Half(Stage):
    """A stage of the cutting of videos."""

    reads = ("source_uri",)
    writes = {"half": Column("float", "s", "Where every video is cut.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        return {"half": 1.0}


class ToySettings(Settings):
    length: Length.Config = Length.Config()
    square: Square.Config = Square.Config()
    root: Root.Config = Root.Config()
    split: bool = False


def build(models: Any, settings: ToySettings) -> Pipeline:
    stages = [
        Length(config=settings.length),
        Square(config=settings.square),
        Root(config=settings.root),
    ]
    cut = Split([Half()], lambda row: [(0.0, row["half"]), (row["half"], 2.0)], max_seconds=9)
    return Pipeline("toy", stages, "visual", max_seconds=30, split=cut if settings.split else None)


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = {"reason": "too_long", "column": "length", "max": 99, "source": "a toy needs none"}
    screen = tmp_path / "toy.yaml"
    screen.write_text(yaml.safe_dump({"name": "toy", "rules": [rule]}))

    def made(models: Any, settings: ToySettings) -> Pipeline:
        pipeline = build(models, settings)
        return Pipeline(pipeline.name, pipeline.stages, str(screen), pipeline.max_seconds, pipeline.split)

    monkeypatch.setitem(catalogue.PIPELINES, "toy", (ToySettings, made))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return make_files(tmp_path / "in", 5)


def profile(folder: Path, name: str, roles: Mapping[str, Any] | None = None, **resources: Any) -> str:
    """The laptop's profile under another name, with other models and resources."""
    values = load_profile("laptop").model_dump(exclude_defaults=True)
    values |= {"name": name, "roles": values["roles"] | (roles or {})}
    values["resources"] = values["resources"] | resources
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return str(folder / f"{name}.yaml")


def execute(pipeline: str, source: Path, output: Path, *overrides: str, **more: Any) -> None:
    for run in prepare(Request(pipeline, str(source), output, overrides=overrides, **more)):
        run.execute(quiet())


def foretell(
    pipeline: str,
    source: Path,
    output: Path | None,
    *overrides: str,
    like: Path | None = None,
    gpu: Gpu = "H100",
    **more: Any,
) -> list[Estimate]:
    return estimates(Request(pipeline, str(source), output, overrides=overrides, **more), like, gpu)


def change(output: Path, seconds: Mapping[str, float] | None = None, **values: Any) -> None:
    """Give the stages of the run in a folder, and its record, other values."""
    (file,) = (output / "runs").glob("*.json")
    record = json.loads(file.read_text()) | values
    for stage, spent in (seconds or {}).items():
        record["stages"][stage]["seconds"] = spent
    file.write_text(json.dumps(record))


def samples_of(made: Estimate) -> dict[str, float]:
    return {stage.name: stage.samples for stage in made.stages}


def test_before_a_first_run_nothing_is_known_but_the_samples(files: Path) -> None:
    (made,) = foretell("toy", files, None)
    assert (made.todo, made.reused) == (5, 0)
    assert made.unknown == ["length", "square", "root"] and made.decode is None
    assert (made.cpu_seconds, made.gpu_seconds, made.written_bytes, made.asked) == (0, 0, None, [])
    assert samples_of(made) == {"length": 5, "square": 5, "root": 5}


def test_seconds_of_the_last_run_are_multiplied_by_what_is_left(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    execute("toy", files, out, limit=2)
    change(out, {"length": 2.0, "square": 4.0, "root": 8.0})
    (made,) = foretell("toy", files, out, "cluster.cpus=4")
    assert (made.todo, made.reused, made.unknown) == (3, 2, [])
    assert [stage.seconds for stage in made.stages] == [1.0, 2.0, 4.0]
    assert made.cpu_seconds == pytest.approx(3 * 7) and made.wall_seconds == pytest.approx(3 * 7 / 4)
    assert all(stage.source.startswith("run 2") for stage in made.stages)
    (one,) = foretell("toy", files, out, "cluster.cpus=4", "workers=1")
    assert one.wall_seconds == pytest.approx(3 * 7)  # one worker works on one sample at a time
    (half,) = foretell(
        "toy", files, out, "cluster.cpus=4", profile=profile(tmp_path, "laptop", default={"cpus": 0.5})
    )
    assert half.cpu_seconds == pytest.approx(3 * 7 / 2)


def test_a_changed_setting_costs_only_the_stages_behind_it(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    execute("toy", files, out, limit=4)
    change(out, {"length": 4.0, "square": 8.0, "root": 16.0})
    (made,) = foretell("toy", files, out, "root.log=x")
    assert (made.todo, made.reused) == (5, 0)
    assert samples_of(made) == {"length": 1, "square": 1, "root": 5}
    assert made.cpu_seconds == pytest.approx(1 * 1 + 1 * 2 + 5 * 4)
    assert made.stages[2].source.endswith(", other settings") and "other" not in made.stages[1].source


def test_a_gate_lets_through_as_many_as_before(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    execute("toy", files, out, "square.stop_on=clip0000.mp4", limit=2)
    change(out, {"length": 2.0, "square": 2.0, "root": 5.0})
    (made,) = foretell("toy", files, out, "square.stop_on=clip0000.mp4")
    assert samples_of(made) == {"length": 3, "square": 3, "root": 1.5}
    assert made.cpu_seconds == pytest.approx(3 + 3 + 1.5 * 5)


def test_threads_share_what_ray_measured_but_not_what_one_process_measured(
    files: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    four = profile(tmp_path, "laptop", default={"cpus": 4, "threads": 4})
    execute("toy", files, out, limit=2, profile=four)
    change(out, {"length": 8.0, "square": 0.0, "root": 0.0})
    (inline,) = foretell("toy", files, out, profile=four)
    assert inline.cpu_seconds == pytest.approx(3 * 4 * 4)
    change(out, engine="ray")
    (ray,) = foretell("toy", files, out, profile=four)
    assert ray.stages[0].seconds == 4 and ray.stages[0].held == 1
    assert ray.cpu_seconds == pytest.approx(3 * 1 * 4)


def test_a_gpu_that_is_not_there_gives_no_wall_time(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    execute("toy", files, out, limit=2)
    change(out, {"length": 2.0, "square": 36.0, "root": 2.0})
    asks = profile(tmp_path, "laptop", square={"cpus": 1, "gpus": 0.5})
    (made,) = foretell("toy", files, out, "cluster.gpus=0", profile=asks)
    assert made.gpu_seconds == pytest.approx(3 * 18 * 0.5) and made.wall_seconds is None
    (made,) = foretell("toy", files, out, "cluster.gpus=1", "cluster.cpus=100", profile=asks)
    assert made.wall_seconds == pytest.approx(27)
    (made,) = foretell("toy", files, out, "device=cpu", profile=asks)
    assert made.gpu_seconds == 0 and made.unknown  # was measured where the device was left open


def test_runs_of_another_profile_count_only_when_named(files: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", profile(tmp_path, "other")
    execute("toy", files, out, limit=2)
    (made,) = foretell("toy", files, out, profile=other)
    assert len(made.unknown) == 3
    (made,) = foretell("toy", files, tmp_path / "new", like=out, profile=other)
    assert made.unknown == [] and made.todo == 5 and made.cpu_seconds > 0
    with pytest.raises(InputError, match="holds no run of toy"):
        foretell("toy", files, None, like=files)
    clip = make_files(tmp_path / "clips", 1)
    with pytest.raises(InputError, match="holds no run of talking_head"):
        foretell("talking_head", clip, None, like=out)


def test_other_models_are_not_taken_for_these(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    execute("toy", files, out)
    (file,) = (out / "runs").glob("*.json")
    record = json.loads(file.read_text())
    record["stages"]["square"]["models"] = ["a larger one"]
    file.write_text(json.dumps(record))
    (made,) = foretell("toy", files, None, like=out)
    assert made.unknown == ["square"]
    assert made.notes == ["not used, because measured with other models: square"]


def test_what_samples_write_is_what_earlier_ones_wrote(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    execute("toy", files, out, limit=2)
    arrays = sum(p.stat().st_size for p in (out / "features").rglob("*.pack")) / 2
    rows = sum(p.stat().st_size for p in store.manifest_files(out / "manifest")) / 2
    (made,) = foretell("toy", files, out)
    assert made.written_bytes == pytest.approx(3 * (arrays + rows))


def test_the_input_is_read_by_each_group_of_stages(tmp_path: Path) -> None:
    clips = make_files(tmp_path / "clips", 4)  # of 1, 2, 3 and 4 bytes
    (made,) = foretell("talking_head", clips, None)
    assert made.read_bytes == 10 and made.unknown_sizes == 0 and "decode" in made.unknown
    apart = profile(tmp_path, "apart", quality={"cpus": 2})
    (made,) = foretell("talking_head", clips, None, profile=apart)
    assert made.read_bytes == 30  # before quality, quality, and after it
    listed = tmp_path / "clips" / "l.csv"
    listed.write_text("uri\nclip0003.mp4\nhttps://example.org/a.mp4\n")
    (made,) = foretell("talking_head", listed, None)
    assert (made.read_bytes, made.unknown_sizes) == (4, 1)


def test_videos_become_clips(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    videos, clips = foretell("toy", files, None, "split=true")
    assert (videos.pipeline, videos.todo, clips.todo) == ("toy_videos", 5, 5)
    assert clips.notes == ["5 videos are not cut yet; assumed: one clip for each"]
    execute("toy", files, out, "split=true", limit=2)
    videos, clips = foretell("toy", files, out, "split=true")
    assert (videos.todo, videos.reused, videos.unknown) == (3, 2, [])
    assert (clips.todo, clips.reused, clips.unknown) == (6, 4, [])
    assert clips.notes == ["3 videos are not cut yet; assumed: 2.0 clips for each, as in the last run"]
    execute("toy", files, out, "split=true")
    videos, clips = foretell("toy", files, out, "split=true")
    assert (videos.todo, clips.todo, clips.reused, clips.notes) == (0, 0, 10, [])


# Image-to-video, whose seconds are published.


@pytest.fixture
def weights(tmp_path: Path) -> Callable[..., str]:
    """`weights(is_random)`: a model store with Wan in it, as a setting."""

    def make(is_random: bool = False) -> str:
        folder = tmp_path / f"store-{is_random}"
        (folder / WAN).mkdir(parents=True, exist_ok=True)
        (folder / WAN / "model_index.json").write_text("{}")
        if is_random:
            ModelStore(str(folder)).record([WAN], random_weights=True)
        return f"models={folder}"

    return make


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"never opened")
    return folder


def clips_of(
    pictures: Path, tmp_path: Path, settings: Sequence[str], gpu: Gpu = "H100", gpus: float = 1
) -> Estimate:
    wan = profile(
        tmp_path, "wan", {"image_to_video": {"use": "wan", "model": WAN}}, synthesise={"gpus": gpus}
    )
    made = foretell("synthetic_interactions", pictures, None, "clips=50000", *settings, profile=wan, gpu=gpu)
    return made[1]


@pytest.mark.parametrize(
    ("gpu", "area", "hours"),
    [
        ("H100", 832 * 480, 4552.8),
        ("A100", 832 * 480, 11250),
        ("H20", 832 * 480, 15514),
        ("H100", 1280 * 720, 14665),
        ("A100", 1280 * 720, 39042),
        ("H20", 1280 * 720, 56319),
    ],
)
def test_fifty_thousand_clips_cost_what_is_published(
    pictures: Path, tmp_path: Path, weights: Callable[..., str], gpu: Gpu, area: int, hours: float
) -> None:
    settings = (weights(), f"roles.image_to_video.max_area={area}", "cluster.gpus=10", "cluster.cpus=1000")
    made = clips_of(pictures, tmp_path, settings, gpu)
    assert made.todo == 50_000 and made.gpu_seconds / 3600 == pytest.approx(hours, rel=1e-4)
    assert made.wall_seconds == pytest.approx(made.gpu_seconds / 10)
    assert (
        made.stages[0].seconds == PUBLISHED_SECONDS[area][gpu]
        and made.stages[0].source == f"published, {gpu}"
    )
    assert "synthesise" not in made.unknown and "faces" in made.unknown
    (source,) = made.published
    assert "README" in source and source.endswith(f"one {gpu}")


def test_what_is_not_published_stays_unknown(
    pictures: Path, tmp_path: Path, weights: Callable[..., str]
) -> None:
    for settings in (
        [weights(), "roles.image_to_video.num_inference_steps=20"],
        [weights(), "roles.image_to_video.num_frames=49"],
        [weights(), "roles.image_to_video.max_area=500000"],
        [weights(), "device=cpu"],
        [weights(is_random=True)],
    ):
        made = clips_of(pictures, tmp_path, settings)
        assert "synthesise" in made.unknown and made.gpu_seconds == 0 and not made.published, settings
    assert "stand_in_random" in made.stages[0].models[0]
    made = clips_of(pictures, tmp_path, [weights()], gpus=2)  # takes two, the published code uses one
    assert made.gpu_seconds / 3600 == pytest.approx(2 * 4552.8, rel=1e-4)


def test_the_plan_says_it_all_in_words(pictures: Path, tmp_path: Path, weights: Callable[..., str]) -> None:
    wan = profile(tmp_path, "wan", {"image_to_video": {"use": "wan", "model": WAN}}, synthesise={"gpus": 1})
    command = ["plan", "synthetic_interactions", "--input", str(pictures), "--profile", wan]
    settings = ["clips=50000", "cluster.cpus=64", "cluster.gpus=8", weights()]
    command += [word for setting in settings for word in ("--set", setting)]
    done = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    assert "synthetic_interactions, profile wan: 50000 samples to compute, 0 reused" in done.stdout
    assert "GPU time   at least 4,553 H100-hours" in done.stdout
    assert "wall time  at least 569:05:50 on 64 CPUs and 8 GPUs" in done.stdout  # 4,552.8 hours by 8
    assert "published: Wan2.2's README" in done.stdout and "(--gpu names another)" in done.stdout
    assert "lower bounds: nobody measured probe, shots, faces" in done.stdout
    assert "both runs together:" in done.stdout and not (tmp_path / "portraits").exists()


# Real runs.


def test_finished_portraits_say_how_many_clips_are_left(samples: Path, tmp_path: Path) -> None:
    one, out = samples / "images" / "uniface_man2.jpg", tmp_path / "out"
    first, second = foretell("synthetic_interactions", one, out, "clips=1")
    assert (first.todo, second.todo, second.unknown_sizes) == (1, 1, 1)
    assert second.notes == ["1 clips are asked for; fewer are made if the kept portraits give no more"]
    execute("synthetic_interactions", one, out, "clips=1")
    first, second = foretell("synthetic_interactions", one, out, "clips=3")
    assert (first.todo, first.reused, second.todo, second.reused) == (0, 1, 2, 1)
    assert second.unknown == [] and second.notes == [] and second.read_bytes == 2 * one.stat().st_size
    media = [p.stat().st_size for p in (out / "clips" / "media").rglob("*.mp4")]
    assert second.written_bytes is not None and second.written_bytes > 2 * sum(media)
    record = json.loads((out / "clips" / "run.json").read_text())
    spent = sum(stage["seconds"] for stage in record["stages"].values()) + record["decode_seconds"]
    assert second.cpu_seconds == pytest.approx(2 * spent, rel=0.01)


def test_requests_and_their_price_follow_from_the_first_ones(samples: Path, tmp_path: Path) -> None:
    names = ("uniface_man2.jpg", "uniface_woman1.jpg")
    portraits = linked(tmp_path / "portraits", [samples / "images" / name for name in names])
    with MisbehavingServer(answer) as server:
        asks = (f"vlm.endpoint={server.url}", "vlm.model=org/tiny-vl")
        (before,) = foretell("portraits", portraits, None, *asks)
        assert before.asked == [Asked("vlm", "tiny-vl", 2 * (1 + 1 + 11))]
        execute("portraits", portraits, tmp_path / "out", *asks, limit=1)
        vlm = json.loads((tmp_path / "out" / "run.json").read_text())["vlm"]
        (made,) = foretell("portraits", portraits, tmp_path / "out", *asks)
        (asked,) = made.asked
        assert made.todo == 1 and asked.usd is None
        assert asked.requests == pytest.approx(vlm["requests"]) and vlm["requests"] == 13
        assert asked.prompt_tokens == pytest.approx(vlm["prompt_tokens"]) and vlm["prompt_tokens"]
        prices = ("vlm.input_price=2", "vlm.output_price=10")
        (made,) = foretell("portraits", portraits, tmp_path / "out", *asks, *prices)
        assert made.asked[0].usd == pytest.approx(
            (2 * vlm["prompt_tokens"] + 10 * vlm["completion_tokens"]) / 1e6
        )
        remote = {s.name: s.resources for s in made.stages if s.name in ("reactions", "portrait_kind")}
        assert all(takes.cpus == 0 and takes.concurrency == 16 for takes in remote.values())
        chats = len(server.chats())
        (done,) = foretell("portraits", portraits, tmp_path / "out", *asks, limit=1)
        assert done.todo == 0 and done.asked[0].requests == 0
        assert len(server.chats()) == chats == 13  # a plan asks nothing


def test_the_placement_and_its_bill(files: Path, tmp_path: Path) -> None:
    """Square takes a GPU for 30 s, root half of one for 5 s: for three samples three of four GPUs and one."""
    out = tmp_path / "out"
    gpus = profile(tmp_path, "laptop", square={"gpus": 1}, root={"gpus": 0.5})
    execute("toy", files, out, profile=gpus, limit=2)
    change(out, {"length": 0.0, "square": 60.0, "root": 10.0})
    cluster = ["cluster.cpus=16", "cluster.gpus=4"]
    (made,) = foretell("toy", files, out, *cluster, "cluster.gpu_hour_usd=36", profile=gpus)
    (turn,) = made.turns
    assert [(pool.steps[0].name, pool.size) for pool in turn.pools] == [
        ("length", 3),
        ("square", 3),
        ("root", 2),
    ]
    assert [pool.busy for pool in turn.pools] == [0, 1, pytest.approx(0.25)]
    assert (
        made.placed_seconds == turn.seconds == pytest.approx(3 * 30 / 3 + 35)
    )  # three samples, the last one's way
    assert made.gpus_usd == pytest.approx(65 * 4 / 3600 * 36)
    said = (
        CliRunner()
        .invoke(
            cli.app,
            ["plan", "toy", "--input", str(files), "--output", str(out), "--profile", gpus]
            + [part for one in [*cluster, "cluster.gpu_hour_usd=36"] for part in ("--set", one)],
        )
        .output
    )
    assert "placement  3 x (1 CPU) for length, idle 100%" in said
    assert "3 x (1 CPU, 1 GPU) for square, idle 0%" in said
    assert "bill       about 0:01:05 so placed: 260 GPU-seconds, of which 62% idle, 2.60 US dollars" in said
    (one,) = foretell("toy", files, out, "cluster.cpus=16", "cluster.gpus=1", profile=gpus)
    assert [[pool.steps[0].name for pool in turn.pools] for turn in one.turns] == [
        ["length", "square"],
        ["root"],
    ]
    (none,) = foretell("toy", files, out, "cluster.cpus=16", "cluster.gpus=0", profile=gpus)
    assert none.turns == [] and any(
        "cannot be placed: the stages need at least" in note for note in none.notes
    )


def test_two_language_models_are_told_apart(samples: Path, tmp_path: Path) -> None:
    """Requests and prices of the vision-language model and of the one that writes the reactions."""
    portraits = linked(tmp_path / "portraits", [samples / "images" / "uniface_man2.jpg"])
    with MisbehavingServer(answer) as server, MisbehavingServer(answer) as writer:
        asks = (
            *(f"vlm.endpoint={server.url}", "vlm.model=org/tiny-vl", "vlm.input_price=1"),
            *("vlm.output_price=1", f"reaction_writer.endpoint={writer.url}"),
            *("reaction_writer.model=gpt-5-mini", "reaction_writer.input_price=2"),
        )
        (before,) = foretell("portraits", portraits, None, *asks)
        assert before.asked == [Asked("vlm", "tiny-vl", 2), Asked("reaction_writer", "gpt-5-mini", 11)]
        execute("portraits", portraits, tmp_path / "out", *asks)
        record = json.loads((tmp_path / "out" / "run.json").read_text())
        assert (len(server.chats()), len(writer.chats())) == (2, 11)
        assert (record["vlm"]["requests"], record["reaction_writer"]["requests"]) == (2, 11)
        assert record["vlm"]["cost_usd"] == pytest.approx(2 * 110 / 1e6)
        assert record["reaction_writer"]["cost_usd"] is None  # one price alone is none
        more = linked(tmp_path / "more", [samples / "images" / "uniface_woman1.jpg"])
        prices = ("reaction_writer.output_price=10",)
        (made,) = foretell("portraits", more, tmp_path / "out", *asks, *prices, like=tmp_path / "out")
        assert [(a.key, a.requests, a.prompt_tokens) for a in made.asked] == [
            ("vlm", pytest.approx(2), pytest.approx(200)),
            ("reaction_writer", pytest.approx(11), pytest.approx(1100)),
        ]
        assert made.asked[0].usd == pytest.approx(2 * 110 / 1e6)
        assert made.asked[1].usd == pytest.approx(11 * (2 * 100 + 10 * 10) / 1e6)
