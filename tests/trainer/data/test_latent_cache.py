from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from manifests.buckets import Bucket
from manifests.shards import ShardsFolder
from tests.support.object_store import new_folder, s3_server
from tests.support.shard_toys import toy_shards
from tests.trainer.data.test_source import config, overwrite, picks_of, toys
from trainer.config import TrainConfig
from trainer.data import latent_cache
from trainer.data.batch import Batch
from trainer.data.clip import Clip
from trainer.data.latent_cache import LatentCache, LatentError
from trainer.data.loader import collate, loader
from trainer.data.source import ClipSource, Pick
from trainer.data.write_latents import write_latents


class Halves:
    """A stand-in for a VAE: every fourth frame at an eighth of the size, two channels, not linear."""

    def __init__(self, name: str = "vae-1") -> None:
        self.id = name
        self.calls = 0

    def latents(self, video: Tensor) -> Tensor:
        assert video.dtype == torch.float32 and video.min() >= -1 and video.max() <= 1
        self.calls += 1
        small = torch.nn.functional.avg_pool3d(video[:, :2, ::4], (1, 8, 8))
        return small.sin() * 3

    def image_latents(self, video: Tensor, known: Tensor, frames: int) -> Tensor:
        """Behind the known steps their own ones at a third: a tail that is not zero."""
        latents = self.latents(video)
        count = int(known[0])
        return torch.cat([latents[:, :, :count], latents[:, :, count:] / 3], dim=2)


def cached(settings: TrainConfig, folder: Path) -> TrainConfig:
    return settings.model_copy(update={"data": settings.data.model_copy(update={"latents": str(folder)})})


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two buckets; the touched clips are wider than the bucket, so the point moves the cut."""
    sizes = [(128, 64), (64, 64), (64, 64)]
    return toys(tmp_path_factory.mktemp("toys"), 5, size=sizes, seconds=[2, 2, 0.8], interactions=2)


def settings(shards: Path, **values: Any) -> TrainConfig:
    return config(shards, **{"data": {"buckets": {**SQUARE, **values.pop("buckets", {})}}, **values})


SQUARE = {"area": 64 * 64, "min_frames": 9, "max_frames": 17, "aspects": (1.0,)}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_cached_latents_equal_those_encoded_while_training(shards: Path, tmp_path: Path) -> None:
    encoder, plain = Halves(), settings(shards)
    assert write_latents(ClipSource(plain), encoder, tmp_path).new == 5
    live, source = ClipSource(plain), ClipSource(cached(plain, tmp_path))
    compared, seen = set(), set()
    for step in range(12):
        for pick in source.plan(step):
            batch = source.load(pick)
            assert batch.latents is not None and batch.image_latents is not None
            _, video = live.whole(pick.row)
            assert video is not None
            pictures = video[None].float() / 127.5 - 1
            assert torch.equal(batch.latents, encoder.latents(pictures))
            known = int(batch.known)
            given = encoder.image_latents(pictures, batch.known, video.shape[1])
            assert torch.equal(batch.image_latents[:, :, :known], given[:, :, :known])
            tail = given[:, :, known:]
            torch.testing.assert_close(batch.image_latents[:, :, known:], tail, atol=0.01, rtol=0.01)
            assert batch.video.shape == (1, 3, 0, 64, 64)
            seen.add(known)
            alive = live.load(pick)
            assert torch.equal(alive.known, batch.known)
            if pick.sample_id in ("toy-0000", "toy-0001"):  # touched: read live, they begin there, too
                assert torch.equal(alive.video, video[None])
                assert torch.equal(batch.reference[0], video[:, 0])
                assert torch.equal(alive.reference, batch.reference)
                assert torch.equal(alive.points, batch.points) and torch.equal(alive.audio, batch.audio)
            compared.add(pick.sample_id)
    assert len(compared) == 5 and seen == {1, 2}
    # The short clip has 13 frames, 0.8 s.
    assert {f.parent.parent.name for f in files(tmp_path)} == {"16-17x64x64", "16-13x64x64"}
    assert files(tmp_path)[0].relative_to(tmp_path).parts[0] == "vae-1"


def test_batches_carry_latents(shards: Path, tmp_path: Path) -> None:
    plain = settings(shards)
    write_latents(ClipSource(plain), Halves(), tmp_path)
    with_latents = cached(plain, tmp_path)
    batch: Batch = next(loader(with_latents, ClipSource(with_latents)))[0][0]
    assert batch.latents is not None and batch.image_latents is not None
    steps = (batch.audio.shape[1] - 1) // 4 + 1
    assert batch.latents.shape == batch.image_latents.shape == (4, 2, steps, 8, 8)
    assert batch.video.shape == (4, 3, 0, 64, 64) and batch.reference.shape == (4, 3, 64, 64)


def test_it_goes_on_where_it_stopped(shards: Path, tmp_path: Path) -> None:
    source = ClipSource(settings(shards))

    class Stopped(Halves):
        def latents(self, video: Tensor) -> Tensor:
            if self.calls == 6:  # three a clip
                raise KeyboardInterrupt
            return super().latents(video)

    with pytest.raises(KeyboardInterrupt):
        write_latents(source, Stopped(), tmp_path)
    there = {path: path.stat().st_mtime_ns for path in files(tmp_path)}
    assert len(there) == 2
    encoder = Halves()
    written = write_latents(source, encoder, tmp_path)
    assert (written.new, written.found, encoder.calls) == (3, 2, 9)
    assert all(path.stat().st_mtime_ns == time for path, time in there.items())
    assert write_latents(source, encoder, tmp_path).new == 0 and encoder.calls == 9


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("trainer.data.latent_cache.save_file", torn)
    source = ClipSource(settings(toys(tmp_path / "shards", 1)))
    with pytest.raises(OSError, match="disk full"):
        write_latents(source, Halves(), tmp_path / "latents")
    assert files(tmp_path / "latents") == []


def test_processes_share_the_clips_out(shards: Path, tmp_path: Path) -> None:
    source = ClipSource(settings(shards))
    assert [write_latents(source, Halves(), tmp_path, rank, 2).new for rank in (0, 1)] == [3, 2]
    assert write_latents(source, Halves(), tmp_path).found == 5


def test_vae_rate_and_bucket_are_kept_apart(shards: Path, tmp_path: Path) -> None:
    write_latents(ClipSource(settings(shards)), Halves(), tmp_path)
    assert write_latents(ClipSource(settings(shards)), Halves("vae-2"), tmp_path).new == 5
    assert write_latents(ClipSource(settings(shards, buckets={"fps": 12.5})), Halves(), tmp_path).new == 5
    assert write_latents(ClipSource(settings(shards, buckets={"area": 80 * 80})), Halves(), tmp_path).new == 5
    names = {"/".join(path.relative_to(tmp_path).parts[:2]) for path in files(tmp_path)}
    assert {"vae-1/16-17x64x64", "vae-2/16-17x64x64", "vae-1/12.5-17x64x64", "vae-1/16-17x80x80"} <= names


def test_which_vae_is_read(shards: Path, tmp_path: Path) -> None:
    with_latents = cached(settings(shards), tmp_path)
    with pytest.raises(LatentError, match=r"holds latents of no VAE.*interavatar latents"):
        loader(with_latents, ClipSource(with_latents))
    for name in ("vae-1", "vae-2"):
        write_latents(ClipSource(settings(shards)), Halves(name), tmp_path)
    with pytest.raises(LatentError, match="vae-1, vae-2, none of one VAE alone"):
        loader(with_latents, ClipSource(with_latents))
    with pytest.raises(LatentError, match="vae-1, vae-2, none of vae-3"):
        loader(with_latents, ClipSource(with_latents, vae="vae-3"))
    source = ClipSource(with_latents, vae="vae-2")
    assert source.latents is not None and source.latents.vae == "vae-2"
    assert source.load(source.plan(0)[0]).latents is not None


def test_missing_damaged_and_outdated_files_say_what_to_do(tmp_path: Path) -> None:
    shards, folder = toys(tmp_path / "shards", 1), tmp_path / "latents"
    write_latents(ClipSource(settings(shards)), Halves(), folder)
    source = ClipSource(cached(settings(shards), folder))
    (pick,), (path,) = picks_of(source, "toy-0000"), files(folder)
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
    cache, bucket = LatentCache(Path("x"), "vae", 16.0), Bucket(9, 64, 64)
    rows = [
        {
            "run": run,
            "sample_id": name,
            "members": [{"name": "a.json", "size": 9}, {"name": "a.mp4", "size": size}],
        }
        for run, name, size in (("r", "a", 5), ("r", "a", 6), ("r", "b", 5), ("s", "a", 5))
    ]
    assert len({cache.path(row, bucket) for row in rows}) == 4
    assert cache.path(rows[0], bucket) == cache.path(dict(rows[0]), bucket)


def test_latents_of_other_pictures_are_not_taken(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of how pictures are made raises the version, and nothing made before it is read."""
    plain, source = settings(shards), ClipSource(cached(settings(shards), tmp_path))
    with monkeypatch.context() as before:
        before.setattr("trainer.data.latent_cache.VERSION", latent_cache.VERSION - 1)
        assert write_latents(ClipSource(plain), Halves(), tmp_path).new == 5
    with pytest.raises(LatentError, match="is not there: run `interavatar latents` again"):
        source.load(source.plan(0)[0])
    assert write_latents(ClipSource(plain), Halves(), tmp_path).new == 5
    assert source.load(source.plan(0)[0]).latents is not None


def test_a_clip_that_changed_is_encoded_again(tmp_path: Path) -> None:
    shards, folder = toys(tmp_path / "shards", 3, size=(128, 64)), tmp_path / "latents"
    write_latents(ClipSource(settings(shards)), Halves(), folder)
    (row,) = (r for r in ShardsFolder(shards).index.to_pylist() if r["sample_id"] == "toy-0000")
    record = json.loads(ShardsFolder(shards).read(row)["json"])
    overwrite(shards, "toy-0000", ".json", json.dumps(record | {"interaction_x": 0.85}).encode())
    source = ClipSource(cached(settings(shards), folder))
    (pick,) = picks_of(source, "toy-0000")
    with pytest.raises(LatentError, match="earlier version of its clip: run"):
        source.load(pick)
    assert source.latents is not None
    other = next(row for row in source.rows() if row != pick.row)
    source.latents.path(source.entry(other), source.bucket(other)).write_bytes(b"{" * 50)
    written = write_latents(ClipSource(settings(shards)), Halves(), folder)
    assert (written.new, written.found) == (2, 1)  # the changed and the damaged one
    for row in source.rows():
        assert source.load(Pick(0, 0, row, source.bucket(row), "toy", "x")).latents is not None
    assert len(files(folder)) == 3


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
        assert write_latents(source, Halves(), latents).new == 5
        assert write_latents(source, Halves(), latents).found == 5
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
        write_latents(source, Halves(), tmp_path / "latents")
    assert len(files(tmp_path / "latents")) == 2


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b"])
def test_an_id_that_is_no_folder_name_is_refused(shards: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(LatentError, match="cannot name a folder"):
        write_latents(ClipSource(settings(shards)), Halves(name), tmp_path / "latents")


def test_the_real_vae(tmp_path: Path) -> None:
    from trainer.networks.encoders import Encoders, encode
    from trainer.networks.tiny import save_random_model

    shards = toy_shards(tmp_path / "shards", 2, interactions=2)
    plain = config(
        shards, batch=2, micro_batch=2, model={"identity_dim": 512, "attribute_dim": 1024, "audio_dim": 768}
    )
    encoders = Encoders.load(plain.model, save_random_model(tmp_path / "model", "wan"), "cpu")
    write_latents(ClipSource(plain), encoders, tmp_path / "latents")
    with_latents = cached(plain, tmp_path / "latents")
    live = next(loader(plain, ClipSource(plain)))[0][0]
    kept = next(loader(with_latents, ClipSource(with_latents, vae=encoders.id)))[0][0]
    (a, from_live), (b, from_kept) = encode(live, encoders), encode(kept, encoders)
    assert torch.allclose(a, b, atol=1e-5) and a.shape == (2, 16, 5, 8, 8)
    assert torch.allclose(from_live.reference, from_kept.reference, atol=1e-5)
    assert torch.equal(from_live.image, from_kept.image)
