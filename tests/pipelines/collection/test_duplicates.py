"""Planted copies are found, and what only looks alike is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from manifests import store
from manifests.screen import EVERYTHING, Rule, Screen
from media.crop import CROP
from pipelines.cli.app import app
from pipelines.collection import duplicates
from pipelines.collection.copies import HZ, Signature, match
from pipelines.collection.duplicates import (
    Pair,
    _Classes,
    _order,
    _table,
    candidates,
    find_duplicates,
    vector_of,
)
from pipelines.collection.neighbours import EXACT, Neighbours
from pipelines.collection.runs import RUN, CollectedRun, open_collection
from pipelines.review.screening import screen_again
from stages.probe import Probe
from stages.signature import Signature as SignatureStage
from stages.signature import spectra, thumbnails
from tests.support.clips import ffmpeg
from tests.support.copies import FAST, KINDS, copy, cut
from tests.support.helpers import execute

SCREEN = Screen(
    name="copies", rules=[Rule(reason="duplicate", column="duplicate_distance", min=0.35, missing="pass")]
)
# Where clips begin, s; two of each video: other moments of one scene are no copies.
VIDEOS = {
    "edtalk_obama.mp4": (0, 4),
    "liveportrait_woman_lake.mp4": (0, 4),
    "latentsync_man_en.mp4": (0, 4),
    "sam2_man_juggle.mp4": (0, 4),
    "liveportrait_man_selfie_noaudio.mp4": (0, 4),
}
# What a kind of copy is called; all others are `near`.
CALLED = {
    "remuxed": "packets",
    "lossless": "pixels",
    "trimmed": "trimmed",
    "mirrored": "mirrored",
    "faster": "retimed",
}


def run(media: Path, output: Path) -> Path:
    """A run that probes media and takes signatures."""
    execute([Probe(), SignatureStage()], media, output, screen=SCREEN)
    return output


@pytest.fixture(scope="module")
def planted(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs: of clips, and of a copy of each kind of one clip of each video."""
    root = tmp_path_factory.mktemp("planted")
    for folder in ("clips", "copies"):
        (root / folder).mkdir()
    for name, starts in VIDEOS.items():
        stem = Path(name).stem
        clips = [cut(samples / "videos" / name, root / "clips" / f"{stem}.{s}.mp4", s, 4) for s in starts]
        for kind in KINDS:
            copy(clips[0], kind, root / "copies" / f"{stem}.{starts[0]}.{kind}.mkv")
    return run(root / "clips", root / "a"), run(root / "copies", root / "b")


def found(runs: Sequence[Path]) -> dict[str, tuple[str, str | None, float | None]]:
    """For the file of each sample that is a copy: of which file, how, how unlike."""
    tables = [
        store.read(
            folder / "manifest",
            ["sample_id", "source_uri", "duplicate_of", "duplicate_kind", "duplicate_distance"],
        )
        for folder in runs
    ]
    rows = pa.concat_tables(tables).to_pylist()
    files = {row["sample_id"]: Path(row["source_uri"]).name for row in rows}
    return {
        files[row["sample_id"]]: (
            files[row["duplicate_of"]],
            row["duplicate_kind"],
            row["duplicate_distance"],
        )
        for row in rows
        if row["duplicate_of"]
    }


def copies_of(runs: Sequence[Path]) -> dict[str, str]:
    """The ids of copies, each with what it is a copy of."""
    names = ["sample_id", "duplicate_of"]
    tables = [store.read(folder / "manifest", names).drop_null() for folder in runs]
    return dict(zip(*(pa.concat_tables(tables)[name].to_pylist() for name in names), strict=True))


@pytest.mark.slow
def test_every_planted_copy_is_found_and_nothing_else(
    planted: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = [str(folder) for folder in planted]
    said = CliRunner().invoke(app, ["duplicates", *arguments])
    assert said.exit_code == 0, said.output
    seen = found(planted)
    originals = {Path(row).name for row in (planted[0].parent / "clips").iterdir()}
    copies = {Path(row).name for row in (planted[1].parent / "copies").iterdir()}
    dropped = {name for name, (_, _, distance) in seen.items() if distance is not None and distance < 0.35}
    # One of a clip and its copies stays; bits a pixel decide which, where all else is alike.
    groups = {
        name: name.rsplit(".", 2)[0] if name in copies else name[: -len(".mp4")]
        for name in originals | copies
    }
    kept = sorted(groups[name] for name in (originals | copies) - dropped)
    assert kept == sorted({groups[name] for name in originals | copies}), "a group keeps one of its clips"
    for name, (of, _, _) in seen.items():
        assert groups[name] == groups[of], f"{name} is no copy of {of}"
    for folder in planted:
        rows = store.read(folder / "manifest", ["source_uri", "keep", "drop_reasons"]).to_pylist()
        for row in rows:
            is_copy = Path(row["source_uri"]).name in dropped
            assert (row["keep"], row["drop_reasons"]) == (not is_copy, ["duplicate"] if is_copy else [])
    again = CliRunner().invoke(app, ["duplicates", *reversed(arguments)])
    assert again.exit_code == 0 and found(planted) == seen, "another order, another answer"
    monkeypatch.setattr(duplicates, "_PAIRS_AT_ONCE", 100)
    table = find_duplicates(open_collection(arguments)).table
    in_processes = dict(zip(*(table[n].to_pylist() for n in ("sample_id", "duplicate_of")), strict=True))
    assert {k: v for k, v in in_processes.items() if v} == copies_of(planted)
    done = tmp_path / "done"

    def stopped(line: str) -> None:
        if line.endswith("pairs compared"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_duplicates(open_collection(arguments), done, stopped)
    kept = sorted(done.iterdir())
    assert kept and all(json.loads(file.read_text()) for file in kept[:1])
    whole = find_duplicates(open_collection(arguments), done)
    assert whole.table.equals(table) and len(whole.pairs) and set(kept) < set(done.iterdir())
    kept[0].write_text("[]")  # as if nothing in it had been alike: it is taken as it is
    assert len(find_duplicates(open_collection(arguments), done).pairs) < len(whole.pairs)
    kept[0].write_text('[[0, "')  # half a file is none
    assert find_duplicates(open_collection(arguments), done).table.equals(table)
    assert not [path for folder in planted for path in folder.glob("_duplicates")]
    strict = SCREEN.changed("duplicate", min=0.01)
    assert screen_again(planted[1], strict)[0]["kept"] > screen_again(planted[1], SCREEN)[0]["kept"]


@pytest.mark.slow
def test_kinds_are_called_by_their_names(planted: tuple[Path, Path], tmp_path: Path) -> None:
    media = planted[0].parent
    for kind, called in CALLED.items():
        folder = tmp_path / kind
        (folder / "in").mkdir(parents=True)
        if kind == "faster":  # 2 % of four seconds are two pictures: hardly to be told from none
            for name in VIDEOS:
                clip = media / "clips" / f"{Path(name).stem}.0.mp4"
                ffmpeg("-i", clip, "-an", *FAST, "-vf", "setpts=PTS/1.04", folder / "in" / f"{clip.stem}.mkv")
        for file in [*media.glob("clips/*.0.mp4"), *media.glob(f"copies/*.{kind}.mkv")]:
            if kind == "faster" and file.suffix == ".mkv":
                continue
            (folder / "in" / file.name).symlink_to(file)
        links = {"follow_links": True}
        execute([Probe(), SignatureStage()], folder / "in", folder / "out", screen=SCREEN, sources=links)
        table = find_duplicates(open_collection([str(folder / "out")])).table
        kinds = table["duplicate_kind"].drop_null().to_pylist()
        assert len(kinds) == len(VIDEOS), kind
        # One of them hardly moves: at which speed cannot be seen.
        assert kinds.count(called) >= len(VIDEOS) - (kind == "faster"), kind


def signature(pictures: np.ndarray, sound: np.ndarray | None = None) -> Signature:  # type: ignore[type-arg]
    times = np.arange(len(pictures)) / HZ
    return Signature.of(times, pictures, np.zeros((0, 16), np.uint8) if sound is None else sound)


def moving(seed: int, seconds: float = 6) -> np.ndarray:  # type: ignore[type-arg]
    """Thumbnails of blobs that wander."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.4, (round(seconds * HZ), 3, 2)).cumsum(0) + rng.uniform(3, 13, (1, 3, 2))
    y, x = np.mgrid[:16, :16]
    blobs = [
        np.exp(-((x - p[:, 0, None, None]) ** 2 + (y - p[:, 1, None, None]) ** 2) / 8)
        for p in steps.swapaxes(0, 1)
    ]
    return np.clip(60 * sum(blobs) + 40 + 3 * x, 0, 255).astype(np.uint8)


def test_a_part_is_found_where_it_lies() -> None:
    whole = moving(1, 8)
    part = match(signature(whole), signature(whole[25:65]))
    assert part is not None and part.distance < 0.01
    assert (part.offset_s, part.overlap_s, part.mirrored, part.speed) == (2.5, 4.0, False, 1.0)
    turned = match(signature(whole), signature(whole[10:, :, ::-1]), True)
    assert turned is not None and turned.distance < 0.01 and turned.mirrored and turned.offset_s == 1.0
    other = match(signature(whole), signature(moving(2, 8)))
    assert other is not None and other.distance > 0.6
    assert match(signature(whole), signature(whole[:5])) is None, "half a second tells nothing"


def test_slides_with_the_same_picture_are_told_apart_by_their_sound() -> None:
    slide = np.repeat(moving(3, 0.1)[:1], 50, 0)
    rng = np.random.default_rng(0)
    one, other = (rng.integers(20, 70, (50, 16)).astype(np.uint8) for _ in range(2))
    same = match(signature(slide, one), signature(slide, one))
    different = match(signature(slide, one), signature(slide, other))
    silent = match(signature(slide), signature(slide))
    assert same is not None and same.still and same.distance < 1e-6
    assert different is not None and different.distance == 1.0
    assert silent is not None and silent.distance < 1e-6


def test_borders_are_cut_off_and_a_dark_picture_is_left() -> None:
    rng = np.random.default_rng(0)
    inner = rng.integers(60, 200, (5, 64, 64)).astype(np.uint8)
    framed = np.full((5, 80, 100), 16, np.uint8)
    framed[:, 8:72, 18:82] = inner
    np.testing.assert_array_equal(thumbnails(framed), thumbnails(inner))
    framed[:, 2:8, 84:96] = 235  # a logo in the border
    np.testing.assert_array_equal(thumbnails(framed), thumbnails(inner))
    dark = np.full((5, 64, 64), 20, np.uint8)
    assert (thumbnails(dark) == 20).all()


def test_sound_is_in_its_band() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(32000) / 16000).astype(np.float32)
    heard = spectra(tone)
    edges = np.geomspace(100, 7000, 17)
    assert heard.shape == (20, 16)
    assert (heard[2:-2].argmax(1) == np.searchsorted(edges, 440) - 1).all()
    assert not spectra(np.zeros(32000, np.float32)).any() and not len(spectra(np.zeros(100, np.float32)))


def rows(*values: tuple[str, int, int, list[str]]) -> pa.Table:
    """A collection's rows: id, run, shorter side, reasons."""
    ids, runs, sides, reasons = zip(*values, strict=True)
    count = len(ids)
    return pa.table(
        {
            "sample_id": list(ids),
            RUN: pa.array(runs, pa.int32()),
            "short_side": list(sides),
            "drop_reasons": pa.array(reasons, pa.list_(pa.string())),
            "duration_s": [4.0] * count,
            "bitrate_per_pixel": [0.1] * count,
            **{name: pa.nulls(count) for name in ("error", "stopped")},
            "content_hash": list(ids),
            "picture_hash": pa.nulls(count, pa.string()),
        }
    )


def collected(*pipelines: str) -> list[CollectedRun]:
    rules = SCREEN.model_dump(mode="json")["rules"]
    return [
        CollectedRun(f"r{i}", Path(f"/r{i}"), {"pipeline": name, "screen": {"rules": rules}})
        for i, name in enumerate(pipelines)
    ]


def test_the_best_copy_stays_and_each_copy_is_measured_against_one_that_stays() -> None:
    table = rows(
        ("a", 0, 480, ["too_dark"]),
        ("b", 0, 360, []),
        ("c", 0, 720, ["duplicate"]),
        ("d", 1, 240, []),
        ("e", 2, 720, []),
    )
    pairs = [
        *(Pair(2, 0, 0.1, "near"), Pair(1, 2, 0.2, "near"), Pair(0, 1, 0.05, "near")),
        *(Pair(1, 3, 0.1, "near"), Pair(3, 2, 0.45, "near"), Pair(4, 0, 0.1, "mirrored")),
    ]
    runs = collected("talking_head", "talking_head", "real_interactions")
    got = _table(runs, table, _order(runs, table), pairs).to_pydict()
    alone = table.append_column("none", pa.nulls(5)).set_column(
        table.schema.get_field_index("content_hash"), "content_hash", pa.array(["x", None, "y", "z", "w"])
    )
    groups = _table(runs, alone, _order(runs, alone), [])["duplicate_group"].to_pylist()
    assert groups == ["a", None, "c", "d", "e"], "looked at and alone, or not looked at"
    # c is kept but for being a copy, and larger than b; b is c's, d is nearer to b but b goes, a is too dark.
    assert got["duplicate_of"] == ["c", "c", None, "c", None]
    assert got["duplicate_distance"] == [0.1, 0.2, None, 0.45, None]
    assert got["duplicate_group"] == ["e"] * 5 or got["duplicate_group"] == ["c"] * 5


def test_neighbours_are_those_of_all_comparisons() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(400, 32))
    vectors = (
        centres[rng.integers(0, 400, EXACT + 5000)] + 0.6 * rng.normal(size=(EXACT + 5000, 32))
    ).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    planted = vectors[:200] + 0.02 * rng.normal(size=(200, 32)).astype(np.float32)
    planted /= np.linalg.norm(planted, axis=1, keepdims=True)
    cosines, places = Neighbours(vectors).of(planted, 5)
    assert (places[:, 0] == np.arange(200)).mean() >= 0.99
    np.testing.assert_allclose(cosines[:, 0], (vectors[places[:, 0]] * planted).sum(1), atol=1e-5)
    again = Neighbours(vectors).of(planted, 5)
    np.testing.assert_array_equal(places, again[1])
    few = Neighbours(vectors[:3]).of(planted[:2], 9)
    assert few[0].shape == (2, 3) and Neighbours(vectors[:0]).of(planted[:2], 9)[1].shape == (2, 0)


def test_a_mirrored_clip_is_proposed() -> None:
    clips = [moving(seed) for seed in range(30)]
    vectors = np.stack([vector_of(clip) for clip in [*clips, clips[4][:, :, ::-1], clips[7][5:]]])
    assert {(4, 30, 1), (7, 31, 0)} <= set(map(tuple, candidates(vectors).tolist()))
    assert candidates(vectors[:1]).shape == (0, 3)


def test_a_run_without_signatures_says_so(tmp_path: Path, samples: Path) -> None:
    (tmp_path / "in").mkdir()
    cut(samples / "videos" / "edtalk_obama.mp4", tmp_path / "in" / "one.mp4", 0, 2, 96)
    execute([Probe()], tmp_path / "in", tmp_path / "out", screen=EVERYTHING)
    said = CliRunner().invoke(app, ["duplicates", str(tmp_path / "out")])
    assert said.exit_code == 0 and "not compared: 1 samples: signature was not computed" in said.output
    assert json.loads((tmp_path / "out" / "run.json").read_text())["counts"]["kept"] == 1


def test_two_crops_of_one_file_are_no_copies_of_each_other() -> None:
    table = rows(*((name, 0, 480, []) for name in "abcd"))
    place = table.schema.get_field_index("content_hash")
    table = table.set_column(place, "content_hash", pa.array(["x"] * 4))
    for name, values in zip(
        CROP, ([0, 0.5, 0.5, None], [0] * 3 + [None], [0.5, 1, 1, None], [1] * 3 + [None]), strict=True
    ):
        table = table.append_column(name, pa.array(values, pa.float64()))
    runs = collected("talking_head")
    found = [(pair.one, pair.other, pair.kind) for pair in _Classes(runs, table, _order(runs, table)).pairs()]
    assert found == [(1, 2, "packets")]


def test_a_collection_without_rows_has_no_order_to_find() -> None:
    table = rows(("a", 0, 480, [])).slice(0, 0)
    runs = collected("talking_head")
    assert _order(runs, table).tolist() == []
    assert _table(runs, table, _order(runs, table), []).num_rows == 0
