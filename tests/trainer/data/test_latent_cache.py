from __future__ import annotations

import json
from contextlib import closing
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from manifests.buckets import Bucket
from manifests.shards import ShardsFolder
from tests.support.object_store import new_folder, s3_server
from tests.trainer.data.test_source import config, overwrite, picks_of, toys
from trainer.config import TrainConfig
from trainer.data import latent_cache
from trainer.data.batch import Batch
from trainer.data.clip import Clip
from trainer.data.decode import to_unit
from trainer.data.latent_cache import EncoderIds, LatentCache, LatentError, spread, window_starts
from trainer.data.loader import collate, loader
from trainer.data.source import Choice, ClipSource, Pick
from trainer.data.write_latents import Written, write_latents


class Halves:
    """Stand-ins: a VAE of every fourth frame at an eighth of the size, two channels, not linear; a CLIP of
    rows of the picture, and of the point; a text encoder of letters."""

    def __init__(self, name: str = "vae-1") -> None:
        self.ids = EncoderIds(name, "text-1")
        self.device = torch.device("cpu")
        self.calls: list[tuple[str, int]] = []

    def latents(self, video: Tensor) -> Tensor:
        assert video.dtype == torch.float32 and video.min() >= -1 and video.max() <= 1
        self.calls.append(("latents", len(video)))
        small = torch.nn.functional.avg_pool3d(video[:, :2, ::4], (1, 8, 8))
        return small.sin() * 3

    def image_latents(self, video: Tensor, known: Tensor, frames: int) -> Tensor:
        """Behind the known steps their own ones at a third: a tail that is not zero."""
        latents = self.latents(video)
        count = int(known[0])
        return torch.cat([latents[:, :, :count], latents[:, :, count:] / 3], dim=2)

    def image(self, pictures: Tensor, points: Tensor, has_points: Tensor) -> Tensor:
        assert pictures.dtype == torch.uint8
        self.calls.append(("image", len(pictures)))
        rows = pictures.float().mean(3).transpose(1, 2)
        marks = (points * has_points[:, None]).sum(1)
        return rows + marks[:, None, None]

    def text(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        self.calls.append(("text", len(prompts)))
        tokens, mask = torch.zeros(len(prompts), 120, 3), torch.zeros(len(prompts), 120, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            letters = torch.tensor([*map(float, prompt.encode()), 1.0])
            tokens[row, : len(letters)] = letters[:, None]
            mask[row, : len(letters)] = True
        return tokens, mask


def write(source: ClipSource, encoders: Any, folder: Path | str, *share: int, **values: Any) -> Written:
    """By stand-ins, whose ids are their own."""
    batch, rank, world = values.get("batch", 1), *(share or (0, 1))
    return write_latents(source, encoders, encoders.ids, folder, batch, rank, world)


def cached(settings: TrainConfig, folder: Path) -> TrainConfig:
    return settings.model_copy(update={"data": settings.data.model_copy(update={"latents": str(folder)})})


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two buckets; the touched clips are wider than the bucket, so the point moves the cut."""
    sizes = [(128, 64), (64, 64), (64, 64)]
    return toys(tmp_path_factory.mktemp("toys"), 5, size=sizes, seconds=[2, 2, 0.8], interactions=2)


def settings(shards: Path, **values: Any) -> TrainConfig:
    data = {"buckets": {**SQUARE, **values.pop("buckets", {})}, **values.pop("data", {})}
    return config(shards, data=data, **values)


SQUARE = {"area": 64 * 64, "min_frames": 9, "max_frames": 17, "aspects": (1.0,)}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def windows_in(folder: Path) -> list[Path]:
    return [path for path in files(folder) if "pictures" in path.parts and "latents" in load_file(path)]


def test_the_cache_says_what_the_encoders_say(shards: Path, tmp_path: Path) -> None:
    """Of every clip, whatever was drawn for it, in both of its buckets."""
    encoder, plain = Halves(), settings(shards, data={"windows": 2, "references": 3}, dropout=MANY)
    assert write(ClipSource(plain), encoder, tmp_path, batch=3).new == 5
    source = ClipSource(cached(plain, tmp_path))
    seen: dict[str, set[Any]] = {"known": set(), "prompts": set(), "points": set(), "starts": set()}
    elsewhere = set()
    for step in range(40):
        for pick in source.plan(step):
            batch = source.load(pick)
            alive, choice = loaded_alive(source, pick)
            pictures = to_unit(alive.video)
            assert batch.latents is not None and torch.equal(batch.latents, encoder.latents(pictures))
            known = int(batch.known)
            given = encoder.image_latents(pictures, batch.known, pictures.shape[2])
            given = given if known else torch.zeros_like(given)
            assert batch.image_latents is not None
            assert torch.equal(batch.image_latents[:, :, :known], given[:, :, :known])
            rounded = given[:, :, known:].bfloat16().float()
            assert torch.equal(batch.image_latents[:, :, known:], rounded)
            reference = encoder.latents(to_unit(alive.reference)[:, :, None])
            assert torch.equal(torch.as_tensor(batch.reference_latent), reference)
            image = encoder.image(alive.reference, alive.points, alive.has_points)
            assert torch.equal(torch.as_tensor(batch.image), image)
            text, mask = encoder.text(alive.prompts)
            assert torch.equal(torch.as_tensor(batch.text), text.bfloat16())
            assert torch.equal(torch.as_tensor(batch.text_mask), mask)
            for field in ("sample_ids", "prompts"):
                assert getattr(batch, field) == getattr(alive, field)
            for field in (
                "points",
                "audio",
                "identity",
                "attributes",
                "known",
                "has_points",
                "has_reference",
            ):
                assert torch.equal(getattr(batch, field), getattr(alive, field)), field
            seen["known"].add(known)
            seen["prompts"].add(batch.prompts[0])
            seen["points"].add(bool(batch.has_points))
            seen["starts"].add((pick.sample_id, choice.start))
            elsewhere.add((pick.sample_id, choice.reference - choice.start))
    assert seen["known"] == {0, 1, 2} and seen["points"] == {False, True}
    # With caption, without, and without anything: the touched; the others with caption or without.
    assert len(seen["prompts"]) == 2 * 2 + 3 + 1 - 1  # both sentences are the same
    # 2 s at 16 frames/s have 32 frames: windows of 17 begin at 0 and 15; 0.8 s have but one.
    assert {start for name, start in seen["starts"] if name in ("toy-0000", "toy-0001")} == {0.0}
    assert {start for name, start in seen["starts"] if name == "toy-0003"} == {0.0, 15 / 16}
    assert {start for name, start in seen["starts"] if name == "toy-0002"} == {0.0}
    assert {offset for name, offset in elsewhere if name == "toy-0002"} == {0.0, 6 / 16, 12 / 16}
    assert {offset for name, offset in elsewhere if name == "toy-0000"} == {0.0}
    # The short clip has 13 frames, 0.8 s.
    assert {f.parent.parent.name for f in windows_in(tmp_path)} == {"16-17x64x64", "16-13x64x64"}
    assert {f.relative_to(tmp_path).parts[:3] for f in files(tmp_path)} == {
        ("v4", "pictures", "vae-1"),
        ("v4", "texts", "text-1"),
    }


MANY = {"each": 0.3, "all": 0, "interaction_captions": 0.5}


def loaded_alive(source: ClipSource, pick: Pick) -> tuple[Batch, Choice]:
    """A pick as its frames, from the places that the cache has."""
    choices = []

    def choose(*arguments: Any) -> Choice:
        choices.append(ClipSource._choose(source, *arguments))
        return choices[0]

    alive = copy(source)
    vars(alive)["latents"], vars(alive)["_choose"] = None, choose
    return alive.load(pick), choices[0]


def test_which_frames_windows_begin_with() -> None:
    assert window_starts(101, 101, 4) == [0] and window_starts(400, 101, 1) == [0]
    assert window_starts(400, 101, 4) == [0, 100, 199, 299]
    assert window_starts(125, 101, 4) == [0] and window_starts(127, 101, 4) == [0, 26]
    assert window_starts(200, 101, 8) == [0, 33, 66, 99]
    assert spread(32, 1) == [0] and spread(32, 3) == [0, 16, 31] and spread(2, 5) == [0, 1]


def test_batches_of_a_bucket(shards: Path, tmp_path: Path) -> None:
    one, many = Halves(), Halves()
    source = ClipSource(settings(shards, data={"windows": 2}))
    write(source, one, tmp_path / "one")
    write(source, many, tmp_path / "many", batch=4)
    assert max(size for _, size in one.calls) == 1 and max(size for _, size in many.calls) == 4
    names = [path.relative_to(tmp_path / "one") for path in files(tmp_path / "one")]
    assert names == [path.relative_to(tmp_path / "many") for path in files(tmp_path / "many")]
    for name in names:
        a, b = load_file(tmp_path / "one" / name), load_file(tmp_path / "many" / name)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_more_windows_are_added_to_those_that_are_there(shards: Path, tmp_path: Path) -> None:
    few, more = settings(shards), settings(shards, data={"windows": 2, "references": 5})
    write(ClipSource(few), Halves(), tmp_path)
    there = files(tmp_path)
    source = ClipSource(cached(more, tmp_path))
    (pick,) = [next(p for s in range(99) for p in source.plan(s) if p.sample_id == "toy-0003")]
    missing = "is not there: run `interavatar latents` again with the same data.windows and data.references"
    with pytest.raises(LatentError, match=missing):
        for step in range(40):
            source.load(replace(pick, step=step))
    assert write(ClipSource(more), Halves(), tmp_path).new == 3  # untouched
    assert set(there) < set(files(tmp_path))
    assert all(source.load(replace(pick, step=step)).latents is not None for step in range(40))


def test_sample_prompts_and_the_empty_one_are_there(shards: Path, tmp_path: Path) -> None:
    source = ClipSource(settings(shards, samples={"prompts": ["A person waves.", "Grüße"]}))
    encoder = Halves()
    write(source, encoder, tmp_path, 1, 2)
    cache = LatentCache.find(str(tmp_path), 16.0)
    with pytest.raises(LatentError, match=r"the prompt 'A person waves.', is not there: .*samples\.prompts"):
        cache.read_text("A person waves.")
    write(source, encoder, tmp_path)
    for prompt in ("", "A person waves.", "Grüße"):
        tokens, mask = cache.read_text(prompt)
        assert torch.equal(tokens, encoder.text([prompt])[0][0].bfloat16()) and int(mask.sum()) >= 1
    cache.text_path("").write_bytes(b"half")
    with pytest.raises(LatentError, match="is damaged"):
        cache.read_text("")
    write(source, encoder, tmp_path)
    assert not cache.read_text("")[0][1:].any()


def test_batches_carry_latents(shards: Path, tmp_path: Path) -> None:
    plain = settings(shards)
    write(ClipSource(plain), Halves(), tmp_path)
    with_latents = cached(plain, tmp_path)
    batch: Batch = next(loader(with_latents, ClipSource(with_latents)))[0][0]
    assert batch.latents is not None and batch.image_latents is not None
    steps = (batch.audio.shape[1] - 1) // 4 + 1
    assert batch.latents.shape == batch.image_latents.shape == (4, 2, steps, 8, 8)
    assert batch.video.shape == (4, 3, 0, 64, 64) and batch.reference.shape == (4, 3, 0, 0)
    assert batch.text is not None and batch.text_mask is not None and batch.image is not None
    assert batch.text.shape == (4, 120, 3) and batch.text_mask.shape == (4, 120)
    assert batch.image.shape == (4, 64, 3)


def test_it_goes_on_where_it_stopped(shards: Path, tmp_path: Path) -> None:
    source = ClipSource(settings(shards))

    class Stopped(Halves):
        def image(self, pictures: Tensor, points: Tensor, has_points: Tensor) -> Tensor:
            if len(files(tmp_path)) > 8:
                raise KeyboardInterrupt
            return super().image(pictures, points, has_points)

    with pytest.raises(KeyboardInterrupt):
        write(source, Stopped(), tmp_path)
    there = {path: path.stat().st_mtime_ns for path in files(tmp_path)}
    assert len(there) > 8
    encoder = Halves()
    written = write(source, encoder, tmp_path)
    assert written.new + written.found == 5 and written.found >= 1
    assert all(path.stat().st_mtime_ns == time for path, time in there.items())
    whole = Halves()
    assert write(source, whole, tmp_path / "anew").new == 5
    assert len(files(tmp_path / "anew")) == len(files(tmp_path)) / 2
    assert len(encoder.calls) < len(whole.calls)
    again = Halves()
    assert write(source, again, tmp_path).new == 0 and again.calls == []


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("trainer.data.latent_cache.save_file", torn)
    source = ClipSource(settings(toys(tmp_path / "shards", 1)))
    with pytest.raises(OSError, match="disk full"):
        write(source, Halves(), tmp_path / "latents")
    assert files(tmp_path / "latents") == []


def test_processes_share_the_clips_out(shards: Path, tmp_path: Path) -> None:
    source = ClipSource(settings(shards))
    assert [write(source, Halves(), tmp_path, rank, 2).new for rank in (0, 1)] == [3, 2]
    alone = Halves()
    assert write(source, alone, tmp_path).found == 5 and alone.calls == []


def test_vae_rate_and_bucket_are_kept_apart(shards: Path, tmp_path: Path) -> None:
    write(ClipSource(settings(shards)), Halves(), tmp_path)
    assert write(ClipSource(settings(shards)), Halves("vae-2"), tmp_path).new == 5
    assert write(ClipSource(settings(shards, buckets={"fps": 12.5})), Halves(), tmp_path).new == 5
    assert write(ClipSource(settings(shards, buckets={"area": 80 * 80})), Halves(), tmp_path).new == 5
    names = {"/".join(path.relative_to(tmp_path).parts[2:4]) for path in windows_in(tmp_path)}
    assert {"vae-1/16-17x64x64", "vae-2/16-17x64x64", "vae-1/12.5-17x64x64", "vae-1/16-17x80x80"} <= names


def test_which_encoders_are_read(shards: Path, tmp_path: Path) -> None:
    with_latents = cached(settings(shards), tmp_path)
    with pytest.raises(LatentError, match=r"holds no latent cache, needed is v4.*interavatar latents"):
        loader(with_latents, ClipSource(with_latents))
    for name in ("vae-1", "vae-2"):
        write(ClipSource(settings(shards)), Halves(name), tmp_path)
    with pytest.raises(LatentError, match="pictures of vae-1, vae-2, none of one encoder alone"):
        loader(with_latents, ClipSource(with_latents))
    for pictures, text, said in (
        ("vae-3", "text-1", "pictures of vae-1, vae-2, none of vae-3: run .* with the same model and prec"),
        ("vae-1", "text-2", "texts of text-1, none of text-2"),
    ):
        with pytest.raises(LatentError, match=said):
            loader(with_latents, ClipSource(with_latents, ids=EncoderIds(pictures, text)))
    source = ClipSource(with_latents, ids=EncoderIds("vae-2", "text-1"))
    assert source.latents is not None and source.latents.ids.pictures == "vae-2"
    assert source.load(source.plan(0)[0]).latents is not None


@pytest.mark.parametrize("before", ["wan-vae-0123456789abcdef", "v3"])
def test_an_earlier_cache_is_named(shards: Path, tmp_path: Path, before: str) -> None:
    (tmp_path / before / "16-17x64x64").mkdir(parents=True)
    source = ClipSource(cached(settings(shards), tmp_path))
    said = rf"an earlier latent cache \({before}\), needed is v4: run `interavatar latents` again; what is th"
    with pytest.raises(LatentError, match=said):
        source.load(source.plan(0)[0])
    write(ClipSource(settings(shards)), Halves(), tmp_path)
    assert source.load(source.plan(0)[0]).latents is not None


def test_missing_damaged_and_outdated_files_say_what_to_do(tmp_path: Path) -> None:
    shards, folder = toys(tmp_path / "shards", 1), tmp_path / "latents"
    write(ClipSource(settings(shards)), Halves(), folder)
    source = ClipSource(cached(settings(shards), folder))
    (pick,), (path,) = picks_of(source, "toy-0000"), windows_in(folder)
    whole, tensors = path.read_bytes(), load_file(path)

    path.unlink()
    with pytest.raises(LatentError, match=f"{path.name} is not there: run `interavatar latents` again"):
        source.load(pick)
    for damaged in (whole[:100], b"", b"\xff" * 100):
        path.write_bytes(damaged)
        with pytest.raises(LatentError, match=f"{path.name} is damaged .*: delete it"):
            source.load(pick)
    save_file(tensors, path)
    with pytest.raises(LatentError, match="is damaged"):
        source.load(pick)
    save_file(tensors, path, {"made_of": Clip(b"another video", None, None, None, {}).digest})
    with pytest.raises(LatentError, match="earlier version of its clip: run"):
        source.load(pick)


def test_a_clip_made_anew_or_touched_elsewhere_has_other_latents() -> None:
    made_of = [(b"v", None), (b"w", None), (b"v", (0.1, 0.2)), (b"v", (0.2, 0.1))]
    names = {Clip(video, point, None, None, {}).digest for video, point in made_of}
    assert len(names) == 4
    cache, bucket = LatentCache(Path("x"), EncoderIds("vae", "text"), 16.0), Bucket(9, 64, 64)
    rows = [
        {
            "run": run,
            "sample_id": name,
            "members": [{"name": "a.json", "size": 9}, {"name": "a.mp4", "size": size}],
        }
        for run, name, size in (("r", "a", 5), ("r", "a", 6), ("r", "b", 5), ("s", "a", 5))
    ]
    assert len({cache.clip_path(row, bucket, "window", 0) for row in rows}) == 4
    assert cache.clip_path(rows[0], bucket, "window", 0) == cache.clip_path(
        dict(rows[0]), bucket, "window", 0
    )
    assert len({cache.clip_path(rows[0], bucket, k, n) for k in ("window", "reference") for n in (0, 1)}) == 4


def test_files_of_another_version_are_not_taken(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of how pictures are made raises the version, and nothing made before it is read."""
    plain = settings(shards)
    with monkeypatch.context() as before:
        before.setattr("trainer.data.latent_cache.VERSION", latent_cache.VERSION - 1)
        assert write(ClipSource(plain), Halves(), tmp_path).new == 5
    source = ClipSource(cached(plain, tmp_path))
    with pytest.raises(LatentError, match=r"an earlier latent cache \(v3\), needed is v4"):
        source.load(source.plan(0)[0])
    assert write(ClipSource(plain), Halves(), tmp_path).new == 5
    assert source.load(source.plan(0)[0]).latents is not None


def test_a_clip_that_changed_is_encoded_again(tmp_path: Path) -> None:
    shards, folder = toys(tmp_path / "shards", 3, size=(128, 64)), tmp_path / "latents"
    write(ClipSource(settings(shards)), Halves(), folder)
    (row,) = (r for r in ShardsFolder(shards).index.to_pylist() if r["sample_id"] == "toy-0000")
    record = json.loads(ShardsFolder(shards).read(row)["json"])
    overwrite(shards, "toy-0000", ".json", json.dumps(record | {"interaction_x": 0.85}).encode())
    source = ClipSource(cached(settings(shards), folder))
    (pick,) = picks_of(source, "toy-0000")
    with pytest.raises(LatentError, match="earlier version of its clip: run"):
        source.load(pick)
    assert source.latents is not None
    other = next(row for row in source.rows() if row != pick.row)
    path = source.latents.clip_path(source.entry(other), source.bucket(other), "window", 0)
    path.write_bytes(b"{" * 50)
    written = write(ClipSource(settings(shards)), Halves(), folder)
    assert (written.new, written.found) == (2, 1)  # the changed and the damaged one
    for row in source.rows():
        assert source.load(Pick(0, 0, row, source.bucket(row), "toy", "x")).latents is not None
    assert len(windows_in(folder)) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_latents_and_training_in_an_object_store(shards: Path, workers: int) -> None:
    with s3_server():
        place = new_folder()
        for file in files(shards):
            (place / file.name).write_bytes(file.read_bytes())
        remote = config(
            str(place), data={"workers": workers, "buckets": SQUARE, "latents": str(place.parent / "latents")}
        )
        plain = remote.model_copy(update={"data": remote.data.model_copy(update={"latents": None})})
        source, latents = ClipSource(plain), str(place.parent / "latents")
        assert write(source, Halves(), latents).new == 5
        assert write(source, Halves(), latents).found == 5
        for settings_, has in ((plain, False), (remote, True)):
            with closing(loader(settings_, ClipSource(settings_))) as batches:
                batch = next(batches)[0][0]
            assert len(batch.sample_ids) == 4 and (batch.latents is not None) == has
            here = ClipSource(settings(shards))
            first = collate([here.load(pick) for pick in here.plan(0)])
            assert has or torch.equal(batch.video, first.video)


def test_a_damaged_clip_stops_no_other(tmp_path: Path) -> None:
    shards = toys(tmp_path / "shards", 3)
    overwrite(shards, "toy-0001", ".mp4", b"\0" * 10**6)
    source = ClipSource(settings(shards))
    with pytest.raises(LatentError, match="1 of 3 clips have no latents; the first: sample toy-0001 of toy"):
        write(source, Halves(), tmp_path / "latents")
    assert len(windows_in(tmp_path / "latents")) == 2


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b"])
def test_an_id_that_is_no_folder_name_is_refused(shards: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(LatentError, match="cannot name a folder"):
        write(ClipSource(settings(shards)), Halves(name), tmp_path / "latents")
