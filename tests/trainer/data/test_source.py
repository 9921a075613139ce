from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys
from contextlib import closing
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from botocore.exceptions import EndpointConnectionError

from configs.reading import SettingsError
from manifests.shards import ShardError, ShardsFolder, read_arrays
from manifests.storage import StorageError
from pipelines.cli.console import readable_errors
from tests.support.shard_toys import SENTENCE, toy_shards
from trainer.config import TrainConfig
from trainer.data import source as trainer_data
from trainer.data.batch import Batch
from trainer.data.clip import ClipError
from trainer.data.loader import collate, loader
from trainer.data.source import ClipSource, Pick

NONE = {"each": 0, "all": 0, "interaction_captions": 0}


def config(*shards: Path | str, **values: Any) -> TrainConfig:
    data = {"shards": [str(folder) for folder in shards], "workers": 0, **values.pop("data", {})}
    data.setdefault("buckets", {"area": 64 * 64, "min_frames": 9, "max_frames": 17})
    model = {"random": "tiny", "identity_dim": 8, "attribute_dim": 6, "audio_dim": 4} | values.pop(
        "model", {}
    )
    base = {"name": "t", "output": "o", "steps": 4, "batch": 4, "micro_batch": 4, "dropout": NONE}
    return TrainConfig.model_validate({**base, **values, "data": data, "model": model})


def toys(folder: Path, clips: int = 6, **values: Any) -> Path:
    return toy_shards(folder, clips, identity_dim=8, attribute_dim=6, audio_dim=4, **values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of 2 s in the runs a and b; the first of each is touched."""
    return toys(tmp_path_factory.mktemp("toys"), interactions=2, runs={"a": 1, "b": 1})


def picks_of(source: ClipSource, sample_id: str, count: int = 1) -> list[Pick]:
    found = (p for step in range(1000) for p in source.plan(step) if p.sample_id == sample_id)
    return list(islice(found, count))


def same(a: Batch, b: Batch) -> bool:
    for field in fields(Batch):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if not (torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y):
            return False
    return True


def stored(folder: Path, sample_id: str) -> dict[str, np.ndarray]:
    shards = ShardsFolder(folder)
    (row,) = (r for r in shards.index.to_pylist() if r["sample_id"] == sample_id)
    return read_arrays(shards.read(row)["npz"])


def overwrite(folder: Path, sample_id: str, suffix: str, data: bytes) -> None:
    """Damage one member in its tar."""
    (row,) = (r for r in ShardsFolder(folder).index.to_pylist() if r["sample_id"] == sample_id)
    (member,) = (m for m in row["members"] if m["name"].endswith(suffix))
    with (folder / row["shard"]).open("r+b") as tar:
        tar.seek(member["offset"])
        tar.write(data.ljust(member["size"], b" ")[: member["size"]])


def test_an_interaction_clip_begins_with_its_first_frame(folder: Path) -> None:
    source = ClipSource(config(folder))
    for pick in picks_of(source, "a-0000", 4):
        batch = source.load(pick)
        assert batch.video.shape == (1, 3, 17, 64, 64) and batch.video.dtype == torch.uint8
        assert batch.video[0, 2, 0].float().mean() < 3  # blue is the time
        assert batch.prompts == [f"{SENTENCE}\nA person looks into the camera, number 0."]
        assert batch.points.tolist() == [[0.25, 0.75]] and batch.has_points.tolist() == [True]
        assert (batch.sample_ids, batch.runs, batch.slots) == (["a-0000"], ["a"], [pick.slot])


def test_other_clips_begin_anywhere_and_the_sound_with_them(folder: Path) -> None:
    source, kept = ClipSource(config(folder)), stored(folder, "a-0002")
    begins = []
    for pick in picks_of(source, "a-0002", 12):
        batch = source.load(pick)
        begin = float(batch.video[0, 2, 0].float().mean()) / 255 * 2  # s
        begins.append(begin)
        assert batch.points.tolist() == [[0.0, 0.0]] and batch.has_points.tolist() == [False]
        # The sound is noise, which fits at one moment only: that which the picture shows.
        middles = np.arange(len(kept["audio"])) / 50 + 0.0125
        errors = [
            np.abs(
                np.interp(t + np.arange(17) / 16, middles, kept["audio"][:, 0]) - batch.audio[0, :, 0].numpy()
            )
            for t in np.linspace(0, 2 - 17 / 16, 400)
        ]
        best = np.linspace(0, 2 - 17 / 16, 400)[int(np.argmin([e.max() for e in errors]))]
        assert best == pytest.approx(begin, abs=0.05)
    assert min(begins) < 0.25 and max(begins) > 0.7 and max(begins) < 2 - 17 / 16 + 0.05


def time_of(picture: torch.Tensor) -> float:
    """When in its clip of 2 s a picture [3, H, W] is, s: blue says it."""
    return float(picture[2].float().mean()) / 255 * 2


@pytest.mark.parametrize("known", [0.0, 1.0])
def test_the_reference_is_the_first_frame_or_any_other(folder: Path, known: float) -> None:
    """Where it is, is drawn from the whole clip; the rates say how often, and nothing else moves."""
    times: dict[float, list[tuple[float, float]]] = {}
    for elsewhere in (0.0, 0.5, 1.0):
        rates = {"elsewhere": elsewhere, "motion": known}
        source = ClipSource(config(folder, reference=rates, dropout={"each": 0.2}))
        for pick in picks_of(source, "b-0003", 24):
            batch = source.load(pick)
            assert batch.reference.shape == (1, 3, 64, 64) and batch.reference.dtype == torch.uint8
            assert batch.known.tolist() == [(2 if known else 1) * int(batch.has_reference)]
            times.setdefault(elsewhere, []).append(
                (time_of(batch.video[0, :, 0]), time_of(batch.reference[0]))
            )
    starts = [[start for start, _ in drawn] for drawn in times.values()]
    assert starts[0] == starts[1] == starts[2]
    assert all(start == reference for start, reference in times[0.0])
    anywhere = [reference for _, reference in times[1.0]]
    assert min(anywhere) < 0.3 and max(anywhere) > 1.6  # beyond any first frame, which lies before 15/16 s
    mixed = [start == reference for start, reference in times[0.5]]
    assert 5 <= sum(mixed) <= 19
    assert all(
        a == b for a, b, same_frame in zip(times[0.5], times[1.0], mixed, strict=True) if not same_frame
    )


def test_the_reference_of_an_interaction_is_the_frame_with_its_point(folder: Path) -> None:
    source = ClipSource(config(folder, reference={"elsewhere": 1, "motion": 0.5}))
    seen = set()
    for pick in picks_of(source, "a-0000", 16):
        batch = source.load(pick)
        assert torch.equal(batch.reference[0], batch.video[0, :, 0])
        assert time_of(batch.reference[0]) < 0.03 and batch.points.tolist() == [[0.25, 0.75]]
        seen.add(int(batch.known))
    assert seen == {1, 2}


def test_a_dropped_reference_takes_the_known_frames_along(folder: Path) -> None:
    source = ClipSource(config(folder, dropout=NONE | {"each": 1}))
    assert source.load(picks_of(source, "b-0003")[0]).known.tolist() == [0]


def test_features_are_those_of_the_clip(folder: Path) -> None:
    source, kept = ClipSource(config(folder)), stored(folder, "b-0003")
    batch = source.load(picks_of(source, "b-0003")[0])
    assert np.array_equal(batch.identity[0], kept["identity"]) and batch.identity.dtype == torch.float32
    assert np.array_equal(batch.attributes[0], kept["attributes"].astype(np.float32))
    assert batch.audio.shape == (1, 17, 4)
    has = (batch.has_identity, batch.has_attributes, batch.has_audio, batch.has_reference)
    assert all(value.tolist() == [True] for value in has)


def test_what_is_dropped_is_zero_and_says_so(folder: Path) -> None:
    source = ClipSource(config(folder, dropout=NONE | {"each": 1}))
    batch = source.load(picks_of(source, "a-0000")[0])
    for name in ("points", "identity", "attributes", "audio"):
        assert not getattr(batch, name).any() and not getattr(batch, f"has_{name}").any()
    assert batch.prompts == [""] and not batch.has_reference.any()
    assert batch.attributes.shape == (1, 5, 6)
    assert batch.video.any()  # what is to be predicted


def test_dropout_follows_seed_step_and_slot(folder: Path) -> None:
    settings = config(folder, dropout={"each": 0.5})
    first, again, other = (ClipSource(settings, seed) for seed in (0, 0, 1))
    names = ("has_identity", "has_attributes", "has_audio", "has_reference")
    drawn = [
        [bool(getattr(s.load(s.plan(k)[0]), n)) for k in range(8) for n in names]
        for s in (first, again, other)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    pick = first.plan(3)[1]
    assert same(first.load(pick), pickle.loads(pickle.dumps(again)).load(pick))


def test_the_caption_of_an_interaction_falls_alone(folder: Path) -> None:
    source = ClipSource(config(folder, dropout=NONE | {"interaction_captions": 1}))
    assert source.load(picks_of(source, "b-0001")[0]).prompts == [SENTENCE]
    assert source.load(picks_of(source, "a-0004")[0]).prompts == ["A person looks into the camera, number 4."]


def test_clips_without_features_join_others(tmp_path: Path) -> None:
    bare = toys(tmp_path / "bare", 2, features=False, sound=False, runs={"bare": 1})
    full = toys(tmp_path / "full", 2, runs={"full": 1})
    source = ClipSource(config(bare, full))
    assert source.shares == {"bare": 0.5, "full": 0.5}
    batch = collate([source.load(pick) for pick in source.plan(0)])
    assert sorted(batch.runs) == ["bare", "bare", "full", "full"]
    full_ones = torch.tensor([run == "full" for run in batch.runs])
    for name in ("identity", "attributes", "audio"):
        assert torch.equal(getattr(batch, f"has_{name}"), full_ones)
        assert not getattr(batch, name)[~full_ones].any() and getattr(batch, name)[full_ones].any()
    assert batch.attributes.shape == (4, 5, 6) and batch.audio.shape == (4, 17, 4)
    alone = ClipSource(config(bare))
    assert alone.load(alone.plan(0)[0]).attributes.shape == (1, 1, 6)


def test_attributes_of_different_numbers_of_rows_are_refused(tmp_path: Path) -> None:
    few = toys(tmp_path / "few", 1, attribute_tokens=3)
    source, other = ClipSource(config(few)), ClipSource(config(toys(tmp_path / "many", 1)))
    with pytest.raises(ClipError, match=r"toy-0000, toy-0000 have \[3, 5\] rows"):
        collate([source.load(source.plan(0)[0]), other.load(other.plan(0)[0])])


def batches_of(
    settings: TrainConfig, first: int, steps: int, rank: int = 0, world: int = 1, parts: int = 1
) -> list[list[Batch]]:
    size = settings.batch // world // parts
    settings = settings.model_copy(update={"micro_batch": size})
    batches = loader(settings, ClipSource(settings), first, rank, world)
    with closing(batches):
        return [micro for micro, _ in islice(batches, steps)]


def test_the_number_of_workers_changes_nothing(folder: Path) -> None:
    alone, one, two = (
        batches_of(config(folder, data={"workers": n}, dropout={}), 0, 5, 0, 1, 2) for n in (0, 1, 2)
    )
    for a, b, c in zip(alone, one, two, strict=True):
        assert len(a) == 2 and a[0].slots + a[1].slots == [0, 1, 2, 3]
        assert all(same(x, y) and same(x, z) for x, y, z in zip(a, b, c, strict=True))
    assert not multiprocessing.active_children()


def test_any_step_can_be_the_first(folder: Path) -> None:
    settings = config(folder, dropout={})
    whole, later = batches_of(settings, 0, 5), batches_of(settings, 3, 2)
    assert all(same(a, b) for (a,), (b,) in zip(whole[3:], later, strict=True))


def test_processes_share_the_batch_out(folder: Path) -> None:
    settings = config(folder, dropout={})
    ((whole,),) = batches_of(settings, 2, 1)
    parts = [part for rank in (0, 1) for part in batches_of(settings, 2, 1, rank, 2, 2)[0]]
    assert [part.slots for part in parts] == [[0], [1], [2], [3]]
    assert same(collate(parts), whole)


def test_the_loader_leaves_the_global_generator_alone(folder: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    batches_of(config(folder), 0, 1)
    assert torch.rand(()) == expected


def test_a_batch_that_cannot_be_shared_out_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match="batch 4 cannot be cut into 3 processes x 4 clips"):
        loader(config(folder), ClipSource(config(folder)), 0, 0, 3)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    runs = {"a": 1.0, "b": 3.0, "c": 1.0}
    shards = toys(tmp_path, 9, runs=runs, seconds=[2, 2, 2, 2, 0.5], previews=3, errors=2)
    source = ClipSource(config(shards, data={"weights": {"c": 0}}))
    # a: 0 3 6p; b: 1 4(short) 7p; c: 2 5 8; errors: 9 10.
    short = "shorter than 9 frames at 16 fps"
    assert source.left_out == {"not in a shard": 2, "weight 0": 3, "preview": 2, short: 1}
    assert source.shares == {"a": 0.25, "b": 0.75}
    assert [source.entry(row)["sample_id"] for row in source.rows()] == ["a-0000", "b-0001", "a-0003"]
    seen = ClipSource(config(shards, data={"weights": {"c": 0}, "allow_preview": True}))
    assert seen.left_out == {"not in a shard": 2, "weight 0": 3, short: 1}


def test_nothing_left_says_why(tmp_path: Path) -> None:
    shards = toys(tmp_path, 3, previews=2, seconds=[0.5, 2, 2])
    with pytest.raises(
        SettingsError, match=r"no clip to train on in .*1 shorter than 9 .*2 preview; data.allow_preview"
    ):
        ClipSource(config(shards))
    with pytest.raises(SettingsError, match="3 weight 0"):
        ClipSource(config(shards, data={"weights": {"toy": 0}}))


def test_weights_must_name_runs_and_be_numbers_from_0(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"data.weights names d; the shards hold a, b"):
        ClipSource(config(folder, data={"weights": {"d": 1}}))
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match="the weight of b is"):
            ClipSource(config(folder, data={"weights": {"b": wrong}}))


def test_a_run_has_one_weight_in_all_folders(tmp_path: Path) -> None:
    one = toys(tmp_path / "one", 2, runs={"a": 1, "b": 1})
    same_weights = toys(tmp_path / "same", 2, runs={"a": 1})
    assert ClipSource(config(one, same_weights)).shares == {"a": 0.5, "b": 0.5}
    other = toys(tmp_path / "other", 2, runs={"a": 0})
    with pytest.raises(SettingsError, match=r"weight of a is 1 in .*one and 0 in .*other: .*data\.weights"):
        ClipSource(config(one, other))
    chosen = ClipSource(config(one, other, data={"weights": {"a": 3}}))
    assert chosen.shares == {"a": 0.75, "b": 0.25}


def test_samples_are_left_out_by_id(folder: Path) -> None:
    source = ClipSource(config(folder, data={"exclude": ["a-0002", "b-0005"]}))
    assert source.left_out == {"excluded": 2}
    assert [source.entry(row)["sample_id"] for row in source.rows()] == [
        "a-0000",
        "b-0001",
        "b-0003",
        "a-0004",
    ]
    with pytest.raises(SettingsError, match=r"data\.exclude names x, y; the shards hold no such sample"):
        ClipSource(config(folder, data={"exclude": ["y", "a-0000", "x"]}))


def test_embedders_must_agree(tmp_path: Path) -> None:
    names = {"face_embedder": "f", "attribute_embedder": "x", "audio_embedder": "y"}
    one = toys(tmp_path / "one", 2, runs={"one": 1}, embedders=names)
    two = toys(tmp_path / "two", 2, runs={"two": 1}, embedders=names | {"audio_embedder": "z"})
    with pytest.raises(SettingsError, match="audio_embedder differs between the clips: y and z"):
        ClipSource(config(one, two))
    # A run that is left out does not count.
    assert ClipSource(config(one, two, data={"weights": {"two": 0}})).embedders == names


def test_widths_must_be_the_networks(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"audio of toy-audio is 4 wide, model.audio_dim is 768"):
        ClipSource(config(folder, model={"audio_dim": 768}))


def test_a_folder_that_holds_no_shards_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no finished folder of shards"):
        ClipSource(config(tmp_path))


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".mp4", b"\0" * 10**6, "not a readable media file"),
        (".npz", b"\0" * 10**6, "arrays of a sample are damaged"),
        (".json", b"{", "json is damaged"),
        (".json", b"[1]", "json is no row"),
        (".json", json.dumps({"caption": 3}).encode(), "no text"),
        (
            ".json",
            json.dumps({"interaction_prompt": "x", "interaction_x": 7, "interaction_y": 0}).encode(),
            r"the point \(7, 0\)",
        ),
    ],
)
def test_a_damaged_clip_is_named(tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    shards = toys(tmp_path, 1)
    overwrite(shards, "toy-0000", suffix, content)
    settings = config(shards, data={"workers": suffix == ".mp4"})
    with pytest.raises(ClipError, match=f"^sample toy-0000 of toy in shard-000000.tar: .*{message}") as error:
        batches_of(settings, 0, 1)
    assert str(error.value).endswith("leave it out: add toy-0000 to data.exclude")


def test_a_lost_shard_names_the_clip(tmp_path: Path) -> None:
    shards = toys(tmp_path, 1)
    source = ClipSource(config(shards))
    (shards / "shard-000000.tar").unlink()
    with pytest.raises(ClipError, match=r"^sample toy-0000 of toy in shard-000000.tar: .* is gone"):
        source.load(source.plan(0)[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_store_that_does_not_answer_is_one_message(
    folder: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any) -> bytes:
        raise EndpointConnectionError(endpoint_url="http://store")

    settings = config(folder, data={"workers": workers})
    monkeypatch.setattr("manifests.shards._read_range", unreachable)
    with pytest.raises(
        StorageError, match=r"^sample \S+ of . in shard-00000.\.tar cannot be reached: Could not"
    ):
        batches_of(settings, 0, 1)


def test_the_command_says_what_a_store_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as stopped, readable_errors():
        raise EndpointConnectionError(endpoint_url="http://store")
    assert stopped.value.exit_code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and 'connect to the endpoint URL: "http://store"' in said


def test_a_scheduler_does_not_end_the_workers_but_their_process_does(folder: Path) -> None:
    settings = config(folder, data={"workers": 1})
    with closing(loader(settings, ClipSource(settings))) as batches:
        next(batches)
        (worker,) = multiprocessing.active_children()
        subprocess.run(["/bin/kill", "-TERM", str(worker.pid)], check=True)
        subprocess.run(["/bin/kill", "-INT", str(worker.pid)], check=True)
        assert len(list(islice(batches, 8))) == 8
        assert worker.is_alive()
        worker.terminate()
        worker.join(20)
        assert worker.exitcode == 0


def test_an_interpreter_ends_though_its_loader_is_open(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.trainer.data.test_source import *\n"
        "settings = config(Path(sys.argv[1]), data={'workers': 2})\n"
        "batches = loader(settings, ClipSource(settings)); next(batches)\n"
        "kept = batches.gi_frame  # as a traceback keeps it\n"
        "raise SystemExit(3)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], timeout=60, check=False)
    assert done.returncode == 3


def test_features_that_are_no_numbers_or_of_another_width_are_errors() -> None:
    model = config(Path("x")).model
    times = np.arange(3) / 16
    for wrong in (np.full(8, np.nan), np.ones(7), np.ones((1, 8))):
        with pytest.raises(ClipError, match="identity"):
            trainer_data.features_at({"identity": wrong.astype(np.float32)}, times, model)
    with pytest.raises(ClipError, match="no audio_hz"):
        trainer_data.features_at({"audio": np.ones((5, 4), np.float16)}, times, model)
