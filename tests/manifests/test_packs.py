"""Packs of arrays: what was added comes back, whatever the disk, the threads and the size."""

from __future__ import annotations

import os
import random
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of_any

from manifests import packs, storage, store
from manifests.features import arrays_of, load_features, npz_of, place_of
from manifests.packs import PackFiles, PackObjects, Place
from manifests.schema import PLACES, STAGES, to_table, without_stale_arrays
from manifests.storage import folder_of

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("media_uri", pa.string()),
        ("stages", STAGES),
        ("arrays", PLACES),
    ]
)
FINGERPRINT = "0123456789abcdef"

ANY_ARRAY = arrays_of_any.arrays(
    dtype=st.sampled_from([np.float32, np.float16, np.int64, np.bool_, np.dtype("<U3")]),
    shape=arrays_of_any.array_shapes(min_dims=0, min_side=0, max_side=4),
)


def files_of(folder: Path, suffix: str = ".pack") -> list[Path]:
    return [path for path in folder.rglob(f"*{suffix}") if path.is_file()]


def add(writer: PackFiles | PackObjects, value: int, stage: str = "body") -> Place:
    return writer.add(stage, FINGERPRINT, npz_of({"value": np.full(20, value)}))


def value_at(folder: Path, place: Place) -> int:
    (value,) = set(arrays_of(packs.read(folder, place))["value"].tolist())
    return int(value)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to let a file of this process grow beyond it, in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("address", ["", "memory://packs/run"])
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.dictionaries(st.sampled_from("xyz"), ANY_ARRAY))))
@settings(max_examples=40, deadline=None)
def test_what_is_added_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    address: str,
    added: list[tuple[str, dict[str, np.ndarray]]],
) -> None:
    folder = folder_of(address) if address else tmp_path_factory.mktemp("run")
    writer = PackObjects(folder, "r") if address else PackFiles(folder, "r")
    rows = []
    for number, (stage, arrays) in enumerate(added):
        place = writer.add(stage, FINGERPRINT, npz_of(arrays))
        rows.append({"sample_id": f"s{number}", "stages": {stage: FINGERPRINT}, "arrays": [place]})
    writer.sync()
    for row, (stage, arrays) in zip(rows, added, strict=True):
        found = load_features(folder, row, stage)
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype and found[name].tobytes() == array.tobytes()
    assert len({row["arrays"][0]["file"] for row in rows}) == len({stage for stage, _ in added})


def test_many_threads_share_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACK_BYTES", 20_000)
    writer, gate = PackFiles(tmp_path, "r"), threading.Barrier(8)

    def work(thread: int) -> list[Place]:
        gate.wait()
        made = []
        for i in range(40):
            made.append(add(writer, 1000 * thread + i, "ab"[i % 2]))
            if i % 10 == 0:
                writer.sync()
        return made

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(work, range(8)))
    writer.sync()
    writer.close()
    for thread, places in enumerate(made):
        assert [value_at(tmp_path, place) for place in places] == [1000 * thread + i for i in range(40)]
    sizes = [path.stat().st_size for path in files_of(tmp_path)]
    assert sum(sizes) == sum(place["size"] for places in made for place in places)
    assert len(sizes) > 2 and all(size < 20_000 + 1000 for size in sizes)


def test_a_disk_that_is_full_ends_the_pack_and_no_arrays_are_lost(tmp_path: Path) -> None:
    writer = PackFiles(tmp_path, "r")
    before = [add(writer, value) for value in range(3)]
    written = sum(place["size"] for place in before)
    with largest_file(written + 50):
        with pytest.raises(OSError, match="File too large"):
            add(writer, 3)
        (pack,) = files_of(tmp_path)
        assert pack.stat().st_size == written + 50  # half written
        with largest_file(10), pytest.raises(OSError, match="File too large"):
            add(writer, 3)
        assert files_of(tmp_path) == [pack]  # nothing is left of one that holds nothing
    after = add(writer, 4)
    writer.sync()
    assert after["file"] != before[0]["file"] and after["offset"] == 0
    assert [value_at(tmp_path, place) for place in (*before, after)] == [0, 1, 2, 4]


def test_what_was_added_is_synced_once_and_a_failure_is_never_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, synced = PackFiles(tmp_path, "r"), []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(file.name))
    places = [add(writer, 1), add(writer, 2), add(writer, 3, "face")]
    writer.sync()
    assert sorted(synced) == sorted({tmp_path / place["file"] for place in places})
    writer.sync()
    assert len(synced) == 2
    add(writer, 4)

    def fails(file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left"):
        writer.sync()
    monkeypatch.setattr(os, "fsync", synced.append)
    with pytest.raises(OSError, match="No space left"):  # another thread's rows may lie in the same pack
        writer.sync()


def test_an_object_store_gets_one_object_for_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, put = folder_of("memory://one/run"), []
    monkeypatch.setattr(storage, "put", lambda path, data: put.append((path.name, len(data))))
    writer = PackObjects(folder, "r")
    places = [add(writer, 1, "a"), add(writer, 2, "b"), add(writer, 3, "a")]
    assert put == []
    writer.sync()
    sizes = {"a": places[0]["size"] + places[2]["size"], "b": places[1]["size"]}
    names = {place["stage"]: place["file"].rpartition("/")[2] for place in places}
    assert sorted(put) == sorted((names[stage], size) for stage, size in sizes.items())
    writer.sync()
    assert len(put) == 2


@pytest.mark.parametrize("address", ["", "memory://damaged/run"])
def test_a_damaged_range_names_the_pack_and_the_way_out(tmp_path: Path, address: str) -> None:
    folder = folder_of(address) if address else tmp_path
    writer = PackObjects(folder, "r") if address else PackFiles(folder, "r")
    first, last = add(writer, 1), add(writer, 2)
    writer.sync()
    path = folder / first["file"]
    data = bytearray(storage.read_bytes(path))
    data[60] ^= 0xFF

    def load(place: Place) -> dict[str, np.ndarray]:
        row = {"sample_id": "s", "stages": {"body": FINGERPRINT}, "arrays": [place]}
        return load_features(folder, row, "body")

    storage.write_bytes(path, bytes(data))
    said = rf"{folder}/{first['file']} is damaged from byte 0 on .*`interavatar repair {folder} --arrays`"
    with pytest.raises(ValueError, match=said):
        load(first)
    assert load(last)["value"].tolist() == [2] * 20
    for size in (len(data) - 1, last["offset"], 3):
        storage.write_bytes(path, bytes(data[:size]))
        with pytest.raises(ValueError, match=f"it ends before byte {len(data)}"):
            load(last)
    storage.remove([path])
    with pytest.raises(FileNotFoundError):
        load(last)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../other/a/b/c.pack",
        "features/../../c.pack",
        "features/a/b/c.npz",
        "features//b/c.pack",
    ],
)
def test_a_row_cannot_name_another_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no pack of a run"):
        packs.read(tmp_path, Place(stage="a", file=name, offset=0, size=1))


@pytest.mark.parametrize("places", [None, float("nan"), [], np.array([], object)])
def test_a_row_without_an_entry_has_its_arrays_in_a_file_of_their_own(tmp_path: Path, places: object) -> None:
    path = tmp_path / "features" / "body" / "01" / f"clip01-{FINGERPRINT}.npz"
    path.parent.mkdir(parents=True)
    np.savez_compressed(path, value=np.arange(3))
    row = {"sample_id": "clip01", "stages": [("body", FINGERPRINT)], "arrays": places}
    assert place_of(row, "body") is None
    assert load_features(tmp_path, row, "body")["value"].tolist() == [0, 1, 2]
    del row["arrays"]
    assert load_features(tmp_path, row, "body")["value"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("address", ["", "memory://unused/run"])
def test_packs_that_no_row_refers_to_are_deleted(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROWS_PER_FILE", 2)
    folder = folder_of(address) if address else tmp_path / "run"
    manifest = folder / "manifest"
    old = folder / "features" / "body" / "p1" / "clip-p1-f.npz"
    storage.write_bytes(old, b"an earlier version's")

    def pack(value: int) -> Place:
        writer = PackObjects(folder, "r") if address else PackFiles(folder, "r")
        place = add(writer, value, f"stage{value % 2}")
        writer.sync()
        return place

    def commit(*rows: tuple[str, Place]) -> None:
        made = [{"sample_id": n, "stages": {p["stage"]: FINGERPRINT}, "arrays": [p]} for n, p in rows]
        store.commit(manifest, to_table(made, SCHEMA))

    def there() -> set[str]:
        start = len(str(folder)) + 1
        return {str(path)[start:] for path in storage.below(folder / "features", ".pack")}

    places = [pack(value) for value in range(6)]
    store.prepare(manifest, SCHEMA)
    commit(*((f"s{i}", places[i]) for i in range(4)))
    store.merge(manifest, SCHEMA)
    commit(("s4", places[4]), ("s0", places[5]))  # not merged
    assert store.used_packs(manifest) == {place["file"] for place in places}
    packs.remove_unused(folder)
    assert there() == {place["file"] for place in places}
    store.merge(manifest, SCHEMA, remove={"s2"})
    packs.remove_unused(folder)
    assert there() == {places[i]["file"] for i in (1, 3, 4, 5)}
    store.merge(manifest, SCHEMA, remove={"s1", "s3", "s5", "s0"})
    packs.remove_unused(folder)
    assert there() == {places[4]["file"]} and storage.exists(str(old))
    assert address or not (folder / "features" / "stage1" / FINGERPRINT).exists()


def test_a_manifest_of_an_earlier_version_refers_to_no_packs(tmp_path: Path) -> None:
    schema = SCHEMA.remove(SCHEMA.get_field_index("arrays"))
    store.prepare(tmp_path, schema)
    store.commit(tmp_path, to_table([{"sample_id": "a", "stages": {"body": "f"}}], schema))
    assert store.used_packs(tmp_path) == set()


def test_entries_follow_the_stages() -> None:
    rng = random.Random(3)
    names = ["a", "b", "c"]

    def row(number: int) -> dict[str, object]:
        stages = rng.sample(names, rng.randrange(4))
        stored = rng.sample(names, rng.randrange(4))
        places = [Place(stage=s, file="f", offset=number, size=1) for s in stored]
        return {"sample_id": str(number), "stages": dict.fromkeys(stages, "f"), "arrays": places or None}

    rows = [row(number) for number in range(50)]
    kept = without_stale_arrays(to_table(rows, SCHEMA))
    assert kept.schema.equals(SCHEMA)
    for before, after in zip(rows, kept["arrays"].to_pylist(), strict=True):
        places = before["arrays"] or []
        assert after == [p for p in places if p["stage"] in before["stages"]]  # type: ignore[attr-defined]
    assert without_stale_arrays(to_table([], SCHEMA)).num_rows == 0


@pytest.fixture(autouse=True)
def _empty_memory() -> Iterator[None]:
    yield
    memory = fsspec.filesystem("memory")
    if memory.store:
        memory.store.clear()
