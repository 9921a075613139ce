"""Files, manifests and answers in an object store; the server speaks S3."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError

from backends.language.answer_cache import AnswerCache, CachedAnswer, Usage, read_usage
from backends.language.vision_language_model import BudgetError
from manifests import journal, storage, store
from manifests.schema import ERROR, STAGES, STOPPED, to_table
from manifests.screen import Rule, Screen, rescreen
from manifests.storage import ReplacedError, StorageError, folder_of
from pipelines.engine.attempts import ATTEMPTS, Attempt
from tests.support.helpers import execute, make_files, toy_stages
from tests.support.object_store import new_folder, s3_server

Bucket = Callable[[], Path]
SCHEMA = pa.schema(
    [("sample_id", pa.string()), ("value", pa.int64()), ("media_uri", pa.string()), ("stages", STAGES)]
)


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """Makes new empty folders in a bucket."""
    with s3_server():
        yield new_folder


def objects(run: Path) -> dict[str, bytes]:
    fs, inside = storage.filesystem(run)
    return {name.removeprefix(f"{inside}/"): fs.cat_file(name) for name in fs.find(inside)}


def test_a_reader_sees_every_row_once_at_any_moment(
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "ROWS_PER_FILE", 40)
    folder = bucket() / "manifest"
    store.prepare(folder, SCHEMA)
    seen: list[dict[str, int]] = []
    problems: list[Exception] = []
    end = threading.Event()

    def look() -> None:
        while not end.is_set():
            try:
                table = store.read(folder)
                ids = table["sample_id"].to_pylist()
                assert len(ids) == len(set(ids))
                seen.append(dict(zip(ids, table["value"].to_pylist(), strict=True)))
            except Exception as error:
                problems.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for turn in range(12):
            rows = [{"sample_id": f"s{i:03d}", "value": turn} for i in range(turn, turn * 10 + 10)]
            store.commit(folder, to_table(rows, SCHEMA), "r")
            store.merge(folder, SCHEMA)
    finally:
        end.set()
        reader.join()
    assert not problems and len(seen) > 5
    for before, after in pairwise(seen):
        assert set(before) <= set(after) and all(after[name] >= before[name] for name in before)
    final = pd.read_parquet(str(folder))
    assert len(final) == 120 and not storage.files(folder / store.PARTS)
    assert dict(zip(final["sample_id"], final["value"], strict=True)) == {
        f"s{i:03d}": min(i, 11) for i in range(120)
    }


def rows(values: dict[str, int]) -> pa.Table:
    return pa.Table.from_pylist([{"sample_id": k, "value": v} for k, v in values.items()], schema=SCHEMA)


def values(manifest: Path) -> dict[str, int]:
    table = store.read(manifest)
    ids = table["sample_id"].to_pylist()
    assert len(ids) == len(set(ids))
    return dict(zip(ids, table["value"].to_pylist(), strict=True))


@pytest.mark.parametrize("late", [{"a": 3}, {"d": 3}, {"a": 3, "d": 3, "e": 3, "f": 3}])
def test_a_writer_that_was_away_cannot_overwrite_what_another_wrote(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, late: dict[str, int]
) -> None:
    """It sleeps between reading and writing; the other replaces a file, and adds one, meanwhile."""
    monkeypatch.setattr(store, "ROWS_PER_FILE", 4)
    manifest = bucket() / "manifest"
    store.prepare(manifest, SCHEMA)
    store.commit(manifest, rows({"a": 1, "b": 1, "c": 1}), "r")
    store.merge(manifest, SCHEMA)
    parts = [store.commit(manifest, rows(late), "late")]
    original = store.conform

    def asleep(table: pa.Table, schema: pa.Schema) -> pa.Table:
        monkeypatch.setattr(store, "conform", original)
        store.commit(manifest, rows({"a": 2, "x": 2, "y": 2, "z": 2}), "other")
        store.merge(manifest, SCHEMA, run_id="other")
        return original(table, schema)

    newest = store._newest

    def before_reading_the_files(table: pa.Table) -> pa.Table:
        monkeypatch.setattr(store, "_newest", newest)
        monkeypatch.setattr(store, "conform", asleep)
        return newest(table)

    monkeypatch.setattr(store, "_newest", before_reading_the_files)
    with pytest.raises(ReplacedError, match=r"manifest-0000\d.parquet was replaced by another writer"):
        store.merge(manifest, SCHEMA, run_id="late")
    assert values(manifest) == {"a": 2, "b": 1, "c": 1, "x": 2, "y": 2, "z": 2} and parts


def test_a_file_of_the_same_name_that_another_made_is_not_overwritten(bucket: Bucket) -> None:
    path = bucket() / "x"
    storage.put(path, b"1", storage.ABSENT)
    storage.put(path, b"1", storage.ABSENT)  # as a request that is sent again
    with pytest.raises(ReplacedError):
        storage.put(path, b"2", storage.ABSENT)
    version = storage.listed(path.parent)[0].version
    storage.put(path, b"3", version)
    for data, replaces in ((b"4", version), (b"4", '"0"')):
        with pytest.raises(ReplacedError):
            storage.put(path, data, replaces)
    assert storage.read_bytes(path) == b"3"
    storage.remove([path])
    with pytest.raises(ReplacedError):
        storage.put(path, b"4", version)
    assert not storage.files(path.parent)


def test_a_store_that_knows_no_conditions_takes_every_file(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (bucket(), folder_of("memory://without-conditions/run")):
        storage.put(folder / "x", b"1")
        fs, _ = storage.filesystem(folder)
        original = fs.pipe_file

        def pipe(path: str, data: bytes, **more: Any) -> Any:
            if "IfMatch" in more:
                error = OSError(errno.ENOSYS, "A header you provided implies functionality")
                error.__cause__ = ClientError({"Error": {"Code": "NotImplemented"}}, "PutObject")
                raise error
            return original(path, data, **more)  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(fs, "pipe_file", pipe)
            storage.put(folder / "x", b"2", '"0"')
        assert storage.read_bytes(folder / "x") == b"2"


def test_a_screen_that_was_away_gives_way(bucket: Bucket) -> None:
    manifest = bucket() / "manifest"
    schema = pa.schema([*SCHEMA, ("keep", pa.bool_()), ("drop_reasons", pa.list_(pa.string()))])
    schema = pa.schema([*schema, ("stopped", STOPPED), ("error", ERROR)])
    store.prepare(manifest, schema)
    store.commit(manifest, store.conform(rows({"a": 1, "b": 5}), schema), "r")
    store.merge(manifest, schema)
    screen = Screen(name="s", rules=[Rule(reason="low", column="value", min=3)])

    def other() -> None:
        store.commit(manifest, store.conform(rows({"a": 7}), schema), "other")
        store.merge(manifest, schema, run_id="other")

    with pytest.raises(ReplacedError):
        rescreen(manifest, screen, check_lock=other)
    assert values(manifest) == {"a": 7, "b": 5} and not storage.files(manifest / journal.FOLDER)
    assert rescreen(manifest, screen)["kept"] == 2


def test_a_file_replaced_while_it_is_read_is_read_again(bucket: Bucket) -> None:
    path = bucket() / "x.parquet"
    rng = np.random.default_rng(0)
    tables = [pa.table({n: rng.random(200_000) for n in "abcdef"}) for _ in range(2)]  # several requests
    store.write_table(path, tables[0], row_group_size=20_000)
    fs, inside = storage.filesystem(path)
    attempts: list[pa.Table] = []

    def read() -> pa.Table:
        with fs.open(inside, "rb") as file:
            opened = pa.parquet.ParquetFile(file)
            if not attempts:
                attempts.append(None)
                store.write_table(path, tables[1], row_group_size=20_000)
            return opened.read(columns=["b"])

    assert storage.steady(read).equals(tables[1].select(["b"]))


def test_media_appear_whole_or_not_at_all(bucket: Bucket, tmp_path: Path) -> None:
    for folder in (bucket(), tmp_path / "run"):
        target = folder / "media" / "aa" / "clip.mp4"
        with pytest.raises(RuntimeError), storage.making(target) as path:
            path.write_bytes(b"half")
            raise RuntimeError
        assert not storage.files(target.parent)
        with storage.making(target) as path:
            assert path.suffix == ".mp4"
            path.write_bytes(b"whole")
            assert not target.exists()
        assert target.read_bytes() == b"whole" and len(storage.files(target.parent)) == 1


def begun(path: Path) -> Attempt:
    note = Attempt(path, "run")
    note.begin()
    return note


def test_deaths_on_a_sample_are_counted(bucket: Bucket) -> None:
    path = bucket() / ATTEMPTS / "sample"
    first = begun(path)
    first.stage("length")  # not noted: a request for each stage of each sample would be dear
    assert path.read_text() == "run"
    second = begun(path)
    second.stage("length")
    second.stage("square")
    assert [death.stage for death in second.deaths] == ["start-up"]
    third = begun(path)
    third.stage("length")
    assert [d.stage for d in third.deaths] == ["start-up", "square"] and not third.is_hopeless
    last = begun(path)
    assert [d.stage for d in last.deaths] == ["start-up", "square", "length"] and last.is_hopeless


def test_what_a_killed_writer_left_is_swept_away(tmp_path: Path) -> None:
    files, run = make_files(tmp_path / "in", 2), tmp_path / "out"
    execute(toy_stages(), files, run)
    kept = {p for p in run.rglob("*") if p.is_file()}
    leftovers = (
        "media/ab/clip-0123-deadbeef.tmp.mp4",
        "features/square/cd/_clip-0123.npz.12345678.tmp",
        "_run.json.12345678.tmp",
        "runs/_x.json.12345678.tmp",
        "manifest/_parts/_y.parquet.12345678.tmp",
    )
    for name in leftovers:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(b"half")
    execute(toy_stages(), files, run)
    left = {p for p in run.rglob("*") if p.is_file()}
    assert kept <= left and len(left) == len(kept) + 1  # the new run's record


def test_a_local_folder_stays_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert folder_of("out") == Path("out") and folder_of(str(tmp_path)) == tmp_path
    assert folder_of(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert not storage.is_remote(folder_of("out"))
    with pytest.raises(StorageError, match="::"):
        folder_of("simplecache::s3://bucket/x")
    with pytest.raises(StorageError, match="password"):
        folder_of("s3://bucket/x?X-Amz-Signature=abc")


def test_a_store_with_folders_renames(monkeypatch: pytest.MonkeyPatch) -> None:
    run = folder_of("memory://folders/run")
    monkeypatch.setattr(storage, "OBJECT_STORES", frozenset())
    fs, _ = storage.filesystem(run)
    moved: list[str] = []
    original = type(fs).mv

    def move(self: Any, source: str, target: str, **more: Any) -> None:
        assert not self.exists(target) or self.cat_file(target) == b"old"
        moved.append(target)
        original(self, source, target, **more)

    monkeypatch.setattr(type(fs), "mv", move)
    storage.put(run / "a.json", b"old")
    storage.put(run / "a.json", b"new")
    with storage.making(run / "media" / "b.mp4") as path:
        path.write_bytes(b"clip")
    assert moved == ["/folders/run/a.json", "/folders/run/a.json", "/folders/run/media/b.mp4"]
    assert objects(run) == {"a.json": b"new", "media/b.mp4": b"clip"}
    storage.remove_tree(run)
    storage.remove_tree(run)
    assert not storage.files(run) and not storage.files(run / "media")


def test_answers_are_kept_and_counted_there(bucket: Bucket) -> None:
    folder = bucket() / "answers"
    caches = [AnswerCache(str(folder)), AnswerCache(folder)]
    key, answer = "ab" + "0" * 62, CachedAnswer("{}", "m", 3, 4)
    assert read_usage(folder) == Usage() and caches[0].read(key) is None
    caches[0].write(key, answer)
    assert caches[1].read(key) == answer

    def ask(number: int) -> None:
        cache = caches[number % 2]
        cache.reserve(None)
        cache.count_reply(10, 1, failed=number == 5)
        cache.count_cached()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(40)))
    assert read_usage(str(folder)) == Usage(40, 40, 1, 400, 40)
    assert len(storage.files(folder / "counts")) == 2
    caches[1].remove(key)
    caches[1].remove(key)
    assert caches[0].read(key) is None
    with pytest.raises(BudgetError, match="cannot be locked"):
        caches[0].reserve(5)
    assert read_usage(folder).requests == 40


class Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("is_after", [False, True])
def test_a_merge_that_dies_at_any_request_can_be_done_again(
    is_after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROWS_PER_FILE", 3)
    left = 0

    def mortal(original: Callable[..., Any]) -> Callable[..., Any]:
        def request(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0 and not is_after:
                raise Died
            done = original(*args)
            if left < 0:
                raise Died
            return done

        return request

    def commit(values: dict[str, int]) -> None:
        rows = [{"sample_id": k, "value": v, "stages": {"a": f"f{v}"}} for k, v in values.items()]
        store.commit(manifest, to_table(rows, SCHEMA))

    deaths = 0
    for number in range(20):
        manifest = folder_of(f"memory://deaths-{is_after}-{number}/manifest")
        store.prepare(manifest, SCHEMA)
        commit({"a": 1, "b": 1, "c": 1, "d": 1})
        store.merge(manifest, SCHEMA)
        commit({"b": 2, "e": 2})
        commit({"d": 3, "f": 3, "g": 3})
        with monkeypatch.context() as patch:
            left = number
            patch.setattr(storage, "put", mortal(storage.put))
            patch.setattr(storage, "_remove", mortal(storage._remove))
            try:
                store.merge(manifest, SCHEMA)
            except Died:
                deaths += 1
        now = store.read(manifest)
        ids = now["sample_id"].to_pylist()
        assert len(ids) == len(set(ids)) and set("abcd") <= set(ids)
        store.merge(manifest, SCHEMA)
        after = store.read(manifest)
        values = dict(zip(after["sample_id"].to_pylist(), after["value"].to_pylist(), strict=True))
        assert values == {"a": 1, "b": 2, "c": 1, "d": 3, "e": 2, "f": 3, "g": 3}
    assert 5 <= deaths < 20
