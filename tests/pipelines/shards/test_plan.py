"""The plan of shards: every sample once, near the size, under a safe name; whole rows of one moment."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.roles import embedder_of
from manifests import shards as format
from manifests import store
from manifests.schema import to_rows
from pipelines.engine.pipeline import RunError
from pipelines.shards import media as shard_media
from pipelines.shards.plan import ShardPlan, assign, make_keys, make_plan, open_runs
from pipelines.shards.rows import laid_out
from pipelines.shards.sizes import estimated_bytes
from tests.support.random_runs import SCHEMA, random_rows, random_run

SIZE = 3_000_000

Named = st.tuples(st.sampled_from(["a", "b", "c"]), st.text(min_size=1, max_size=12))


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(Named, st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 900), st.randoms()
)
def test_the_plan_has_every_sample_once(named: dict[tuple[str, str], int], size: int, random: Any) -> None:
    names, sizes = list(named), list(named.values())
    shards = assign(names, sizes, size)
    assert sorted(i for shard in shards for i in shard) == list(range(len(names)))
    totals = [sum(sizes[i] for i in shard) for shard in shards]
    assert all(len(shard) > 0 for shard in shards)
    assert all(total <= size or len(shard) == 1 for total, shard in zip(totals, shards, strict=True))
    following = [sizes[shard[0]] for shard in shards[1:]]
    assert all(t + n > size for t, n in zip(totals, following, strict=False))  # none was closed early
    # The order in which the manifests give them does not matter.
    order = list(range(len(names)))
    random.shuffle(order)
    again = assign([names[i] for i in order], [sizes[i] for i in order], size)
    assert [[names[i] for i in s] for s in shards] == [[names[order[i]] for i in s] for s in again]
    keys = make_keys(names)
    assert len({key.lower() for key in keys}) == len(names)
    assert all(key.isascii() and key.replace("-", "").replace("_", "").isalnum() for key in keys)
    assert all(key[0] not in "-_" and len(key) <= 93 for key in keys)


def test_keys_are_the_ids_where_they_can_be() -> None:
    keys = make_keys(
        [("a", "clip-1"), ("a", "x"), ("b", "x"), ("a", "../../etc/a.b"), ("a", "__"), ("b", "CLIP-2")]
    )
    assert keys[0] == "clip-1" and keys[5] == "CLIP-2"
    assert keys[1].startswith("x-") and keys[2].startswith("x-") and keys[1] != keys[2]
    assert keys[3].startswith("etc_a_b-") and keys[4].startswith("sample-")


def size_of(row: Mapping[str, Any]) -> int:
    """The size of a sample by its row, one value after the other."""
    own = row["media_uri"] != row["source_uri"]
    frames = row.get("num_frames") or 0
    seconds = frames / row["fps"] if row.get("fps") else 0.0
    pixels = (row.get("width") or 0) * (row.get("height") or 0) * frames
    as_is = (
        row.get("video_codec") == "h264"
        and row.get("pixel_format") == "yuv420p"
        and not (row.get("mirrored") or row.get("rotation") or row.get("variable_frame_rate"))
    )
    whole = row.get("start_s") is None and row.get("end_s") is None
    bits = row.get("bitrate_per_pixel")
    if as_is and whole and not own and row.get("source_size"):
        video = float(row["source_size"])
    elif own and bits is not None and math.isfinite(bits) and bits > 0:
        video = bits * pixels / 8
    else:
        video = 0.1 * pixels / 8
    total = 12_288 + video + (32_000 * seconds if row.get("has_audio") else 0)
    if row.get("attribute_embedder"):
        total += embedder_of("attribute_embedder", row["attribute_embedder"]).bytes_per_clip
    if row.get("audio_embedder") and row.get("has_audio"):
        total += embedder_of("audio_embedder", row["audio_embedder"]).bytes_per_second * seconds
    return math.ceil(total)


def foreseen(row: Mapping[str, Any]) -> int:
    return int(estimated_bytes(pa.Table.from_pylist([dict(row)]))[0])


def test_the_size_of_a_sample_is_foreseen() -> None:
    row = {
        "media_uri": "a.mp4", "source_uri": "a.mp4", "start_s": None, "end_s": None, "source_size": 10**6,
        "width": 100, "height": 100, "num_frames": 250, "fps": 25.0, "has_audio": True,
        "video_codec": "h264", "pixel_format": "yuv420p", "mirrored": False, "rotation": 0,
        "variable_frame_rate": False,
    }  # fmt: skip
    assert foreseen(row) == 12_288 + 10**6 + 10 * 32_000
    part = row | {"start_s": 2.0}
    assert foreseen(part) == 12_288 + 250 * 100 * 100 * 0.1 / 8 + 320_000
    for shown in ({"mirrored": True}, {"rotation": 90}):  # encoded anew, as a part is
        assert foreseen(row | shown) == foreseen(part)
    made = row | {"media_uri": "made.mp4", "bitrate_per_pixel": 0.2, "has_audio": False}
    assert foreseen(made) == 12_288 + 250 * 100 * 100 * 0.2 / 8
    heard = row | {"attribute_embedder": "dinov2 x", "audio_embedder": "wav2vec2(x, y)"}
    assert foreseen(heard) - foreseen(row) == 257 * 1024 * 2 + 10 * 50 * 768 * 2


def test_sizes_of_many_rows_are_those_of_each() -> None:
    rows = random_rows(4000, seed=0)
    found = estimated_bytes(pa.Table.from_pylist(rows, schema=SCHEMA)).tolist()
    assert found == [size_of(row) for row in rows]
    assert len(set(found)) > 500


def test_columns_of_other_types_and_columns_that_are_not_there_have_no_size() -> None:
    bare = {"media_uri": "a.mp4", "source_uri": "a.mp4"}
    assert foreseen(bare) == 12_288
    odd = {"width": "wide", "fps": "25", "num_frames": [1], "video_codec": 5, "audio_embedder": 1.5}
    assert foreseen(bare | odd | {"has_audio": "yes", "rotation": ""}) == 12_288
    assert foreseen(bare | {"num_frames": 100, "fps": float("nan"), "has_audio": True}) == 12_288
    tiny = {"num_frames": 100, "fps": 1e-300, "has_audio": True}
    assert foreseen(bare | tiny) == 2**62


def rows_of(run: Path, allow_preview: bool) -> tuple[list[dict[str, Any]], list[bool], pa.Table]:
    """The rows that go into shards, by sample_id, and which of them are previews."""
    table = store.read(run / "manifest").sort_by("sample_id")
    rows = to_rows(table)
    made = [
        not r["keep"] and r["drop_reasons"] == ["stand_in"] and str(r["synthesis_by"]).startswith("stand_in")
        for r in rows
    ]
    take = [bool(r["keep"]) or (p and allow_preview) for r, p in zip(rows, made, strict=True)]
    kept = table.filter(pa.array(take, pa.bool_())).combine_chunks()
    return (
        [r for r, t in zip(rows, take, strict=True) if t],
        [p for p, t in zip(made, take, strict=True) if t],
        kept,
    )


def keys_of(samples: Sequence[tuple[str, str]]) -> list[str]:
    wished = [re.sub(r"[^A-Za-z0-9_-]", "_", name)[:80].lstrip("_-") for _, name in samples]
    taken = Counter(key.lower() for key in wished)
    return [
        key
        if key == name and taken[key.lower()] == 1
        else f"{key or 'sample'}-{hashlib.sha256(f'{run}{chr(0)}{name}'.encode()).hexdigest()[:12]}"
        for (run, name), key in zip(samples, wished, strict=True)
    ]


def shards_of(samples: Sequence[tuple[str, str]], sizes: Sequence[int]) -> list[list[int]]:
    shuffled = [hashlib.sha256(f"0{chr(0)}{run}{chr(0)}{name}".encode()).digest() for run, name in samples]
    shards: list[list[int]] = []
    for i in sorted(range(len(samples)), key=shuffled.__getitem__):
        if not shards or sum(sizes[k] for k in shards[-1]) + sizes[i] > SIZE:
            shards.append([])
        shards[-1].append(i)
    return shards


def digest_of(plan: ShardPlan, previews: Sequence[Sequence[bool]], tables: Sequence[pa.Table]) -> str:
    heads = [[r.name, str(r.folder), r.pipeline, p] for r, p in zip(plan.runs, previews, strict=True)]
    text = json.dumps([format.VERSION, shard_media.VERSION, heads, plan.shards])
    digest = hashlib.sha256(text.encode())
    for table in tables:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        digest.update(sink.getvalue())
    return digest.hexdigest()[:16]


def without_nan(rows: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(rows, default=str)  # NaN is NaN as a text


@pytest.mark.parametrize("allow_preview", [False, True])
@pytest.mark.parametrize("rows_per_file", [10**6, 90])
def test_a_plan_is_what_a_plain_look_at_the_rows_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allow_preview: bool, rows_per_file: int
) -> None:
    """Of manifests of one file the digest, too: shards that were written before stay."""
    folders = [
        random_run(tmp_path / name, random_rows(count, seed), rows_per_file)
        for seed, (name, count) in enumerate({"one": 700, "two": 250, "none": 0}.items())
    ]
    plain = [rows_of(folder, allow_preview) for folder in folders]
    opened = open_runs(list(map(str, folders)), {"two": 3.0}, allow_preview)
    plan = make_plan(opened, SIZE)
    assert [run.ids.to_pylist() for run in plan.runs] == [
        [r["sample_id"] for r in rows] for rows, _, _ in plain
    ]
    assert [run.preview.tolist() for run in plan.runs] == [previews for _, previews, _ in plain]
    assert any(any(previews) for _, previews, _ in plain) == allow_preview
    samples = [
        (run.name, r["sample_id"]) for run, (rows, _, _) in zip(opened, plain, strict=True) for r in rows
    ]
    flags = [flag for _, previews, _ in plain for flag in previews]
    rows = [row for found, _, _ in plain for row in found]
    assert plan.shards == shards_of(samples, [size_of(row) for row in rows]) and len(plan.shards) > 10
    assert list(plan.keys) == keys_of(samples)
    if rows_per_file > 1000:
        assert plan.digest == digest_of(plan, [p for _, p, _ in plain], [table for _, _, table in plain])
    monkeypatch.setattr("pipelines.shards.rows.BLOCK", 50)  # shards of some 10 samples
    wanted = [number for number in range(len(plan.shards)) if number % 3]
    with laid_out(plan, wanted) as laid:
        seen = []
        for number, found in laid:
            seen.append(number)
            members = plan.shards[number]
            assert without_nan([s.row for s in found]) == without_nan([rows[i] for i in members])
            assert [(s.run, s.key, s.preview) for s in found] == [
                (samples[i][0], plan.keys[i], flags[i]) for i in members
            ]
            assert all(s.folder == tmp_path / s.run for s in found)
    assert seen == wanted and max(map(len, plan.shards)) < 50 < len(rows) / 4
    with laid_out(plan, []) as laid:
        assert list(laid) == []


def test_the_digest_knows_every_row_that_goes_in_and_no_other(tmp_path: Path) -> None:
    rows = random_rows(300, seed=5)

    def digest(changed: list[dict[str, Any]]) -> str:
        run = random_run(tmp_path / "run", changed, 50)
        return make_plan(open_runs([str(run)], {}, False), SIZE).digest

    calm = digest(rows)
    assert digest(rows) == calm
    kept = [i for i, row in enumerate(rows) if row["keep"]]
    dropped = [i for i, row in enumerate(rows) if not row["keep"]]
    for at in (kept[0], kept[-1]):
        for change in ({"caption": "other"}, {"words": ["b"]}, {"stages": [("probe", "9")]}, {"odd": 7.0}):
            assert digest([row | change if i == at else row for i, row in enumerate(rows)]) != calm
    assert digest([row | {"caption": "other"} if i in dropped else row for i, row in enumerate(rows)]) == calm
    assert digest([row | {"keep": False} if i == kept[3] else row for i, row in enumerate(rows)]) != calm


def change_one(run: Path) -> None:
    """A manifest judged again: one file is replaced, its rows are as many as before."""
    file = store.manifest_files(run / "manifest")[1]
    table = store.read_file(file)
    store.write_table(file, store.with_values(table, "caption", ["another"] * table.num_rows))


def test_a_manifest_that_changes_while_it_is_planned_is_refused(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", random_rows(300, seed=6), 100)
    opened = open_runs([str(run)], {}, False)
    change_one(run)
    with pytest.raises(
        RunError, match="was changed while its shards were planned; run the same command again"
    ):
        make_plan(opened, SIZE)
    plan = make_plan(open_runs([str(run)], {}, False), SIZE)
    (run / "manifest" / "manifest-00002.parquet").unlink()
    with pytest.raises(RunError, match="was changed"), laid_out(plan, [0]):
        pass


def test_shards_get_the_rows_that_were_planned(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", random_rows(300, seed=7), 100)
    plan = make_plan(open_runs([str(run)], {}, False), SIZE)
    with laid_out(plan, range(len(plan.shards))) as laid:
        change_one(run)
        captions = [sample.row["caption"] for _, samples in laid for sample in samples]
    assert len(captions) == len(plan.keys) and "another" not in captions


def test_a_plan_holds_no_whole_rows(tmp_path: Path) -> None:
    """A file's rows are in memory at once, not all rows."""
    rows = [row | {"caption": "x" * 5000, "keep": True} for row in random_rows(2000, seed=8)]
    run = random_run(tmp_path / "run", rows, 100)
    before = pa.total_allocated_bytes()
    opened = open_runs([str(run)], {}, False)
    plan = make_plan(opened, SIZE)
    with laid_out(plan, range(len(plan.shards))) as laid:
        next(iter(laid))
    held = pa.total_allocated_bytes() - before
    assert len(plan.keys) == 2000 and held < 200_000 < 2000 * 5000
