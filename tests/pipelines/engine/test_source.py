"""Listing an input: stable ids, nothing passed over in silence, and clear refusals."""

from __future__ import annotations

import itertools
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.crop import CROP
from media.files import PICTURE_SUFFIXES
from pipelines.engine import folders, looking
from pipelines.engine.addresses import Allowed
from pipelines.engine.ids import sample_id
from pipelines.engine.settings import SourceSettings
from pipelines.engine.source import ADDRESS, PROBLEM, InputError, Listing, list_input

NAMES = ["a.mp4", "b.MOV", "sub/c.mkv", "sub/deep/d d.webm"]


def make_tree(root: Path, names: list[str] = NAMES) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * len(name))
    return root


def ids(listing: Listing, root: Path | str = "") -> dict[str, str]:
    """Path relative to `root` -> id."""
    return {row["source_uri"].removeprefix(f"{root}/"): row["sample_id"] for row in listing.rows}


def write_list(path: Path, frame: pd.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True)
    return path


@pytest.fixture
def memory() -> Iterator[Any]:
    """An empty fsspec memory file system."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


# Ids.


def test_ids_survive_moving_the_folder(tmp_path: Path) -> None:
    one = make_tree(tmp_path / "here" / "clips")
    two = make_tree(tmp_path / "elsewhere" / "deeper" / "clips")
    first, second = ids(list_input(str(one)), one), ids(list_input(str(two)), two)
    assert first == second and set(first) == set(NAMES) and len(set(first.values())) == 4
    renamed = make_tree(tmp_path / "other")
    assert not set(ids(list_input(str(renamed)), renamed).values()) & set(first.values())
    assert ids(list_input(str(renamed), source="clips"), renamed) == first


def test_ids_do_not_depend_on_how_the_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(tmp_path / "clips")
    expected = ids(list_input(str(root)), root)
    (tmp_path / "link").symlink_to(root)
    assert list(ids(list_input(str(tmp_path / "link"))).values()) == list(expected.values())
    monkeypatch.chdir(root)
    for name in (".", "../clips/", "sub/.."):
        listing = list_input(name)
        assert ids(listing, root) == expected
        assert all(Path(row["source_uri"]).is_absolute() for row in listing.rows)


def test_a_folder_and_its_glob_give_the_same_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree(tmp_path / "clips")
    assert ids(list_input(f"{root}/**/*.*"), root) == ids(list_input(str(root)), root)
    monkeypatch.chdir(root)
    assert ids(list_input("*.mp4"), root) == {"a.mp4": sample_id("clips", "a.mp4", None, None)}


def test_a_single_file_has_the_id_it_has_in_its_folder(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "clips", ["a.mp4", "b.MOV"])
    make_tree(tmp_path / "far", ["target.mp4"])
    (root / "link.mp4").symlink_to(tmp_path / "far" / "target.mp4")
    expected = ids(list_input(str(root)), root)
    for name in ("a.mp4", "b.MOV", "link.mp4"):
        assert ids(list_input(str(root / name)), root) == {name: expected[name]}


def test_an_id_is_made_of_source_path_and_range_only() -> None:
    variants = itertools.product(["s", "t"], ["a/b.mp4", "a/c.mp4", "b.mp4"], [None, 0.0, 1.5], [None, 2.0])
    made = [sample_id(*v, copy=copy) for v in variants for copy in (0, 1)]
    assert len(set(made)) == len(made)
    assert sample_id("s", "a/b.mp4", 1.5, None) == sample_id("s", "a/b.mp4", 1.5, None)
    assert sample_id("s", "/home/me/Secret/My Clip (1).mp4", None, None).startswith("my-clip-1-")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
SECONDS = st.none() | st.floats(0, 1e5, allow_nan=False).map(lambda s: round(s, 3))
KEYS = st.tuples(TEXT, TEXT, SECONDS, SECONDS)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(KEYS, max_size=8, unique=True))
def test_any_ids_are_unique_and_safe_as_file_names(keys: list[tuple[Any, ...]]) -> None:
    made = [sample_id(*key) for key in keys]
    assert len(set(made)) == len(made)
    for name in made:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*-[0-9a-f]{16}", name) and len(name) <= 57


CLOSE = st.none() | st.sampled_from([0.0, 1.0, 1.0001, 1.0004, 1.0006, 2.0])


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["a.mp4", "b.mp4"]), CLOSE, CLOSE), min_size=1, max_size=8))
def test_every_row_of_a_list_has_its_own_id(rows: list[tuple[str, float | None, float | None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "l.parquet"
        write_list(path, pd.DataFrame(rows, columns=["uri", "start_s", "end_s"]))
        made = [row["sample_id"] for row in list_input(str(path)).rows]
    assert len(made) == len(rows) and len(set(made)) == len(made)


# Folders.


def test_other_files_are_counted_by_suffix(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path / "c", [*NAMES, "n.txt", "sub/m.TXT", ".hidden.mp4", "readme", "x.mp4.part", "._a.mp4"]
    )
    listing = list_input(str(root))
    assert set(ids(listing, root)) == set(NAMES)
    assert listing.ignored == {".txt": 2, ".mp4": 2, "none": 1, ".part": 1}
    assert [row["source_size"] for row in listing.rows] == [
        len(row["source_uri"].removeprefix(f"{root}/")) for row in listing.rows
    ]
    assert {row["source"] for row in listing.rows} == {"c"}


def test_the_order_is_the_same_every_time(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "c", [f"{i % 3}/{i}.mp4" for i in range(20)])
    first = [row["sample_id"] for row in list_input(str(root)).rows]
    assert first == [row["sample_id"] for row in list_input(str(root)).rows] and len(first) == 20


def test_loops_of_linked_folders_end(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "c")
    (root / "back").symlink_to(root)
    (root / "sub" / "up").symlink_to(root)
    outside = make_tree(tmp_path / "outside", ["e.mp4"])
    (root / "more").symlink_to(outside)
    follow = SourceSettings(follow_links=True)
    assert set(ids(list_input(str(root), sources=follow), root)) == {*NAMES, "more/e.mp4"}


def test_links_out_of_the_folder_are_rows_with_an_error(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "c", ["a.mp4", "sub/b.mp4"])
    far = make_tree(tmp_path / "far", ["e.mp4", "f.mp4", "g.mp4/h.mp4"])
    beside = make_tree(tmp_path / "c2", ["i.mp4"])
    for link, target in [
        ("e.mp4", far / "e.mp4"),
        ("notes.txt", far / "e.mp4"),
        ("inside.mp4", root / "sub" / "b.mp4"),
        ("near", root / "sub"),
        ("more", far),
        ("sub/beside", beside),
        ("g.mp4", far / "g.mp4"),
    ]:
        (root / link).symlink_to(target)

    def problems(path: Path, **settings: Any) -> dict[str, str | None]:
        listing = list_input(str(path), sources=SourceSettings(**settings))
        assert len({row["sample_id"] for row in listing.rows}) == len(listing.rows)
        return {row["source_uri"].removeprefix(f"{root}/"): row.get(PROBLEM) for row in listing.rows}

    found = problems(root)
    good = ["a.mp4", "inside.mp4", "near/b.mp4"]
    bad = ["e.mp4", "g.mp4", "more", "near/beside"]
    assert sorted(found) == sorted([*good, *bad]) and [found[name] for name in good] == [None] * 3
    for name in bad:
        said = f"'{Path(name).name}' is reached by a symbolic link that leads out of the input folder; "
        assert found[name] == f"{said}--set sources.follow_links=true follows it"
    followed = problems(root, follow_links=True)
    assert set(followed.values()) == {None} and {"more/e.mp4", "near/beside/i.mp4", "e.mp4"} < set(followed)

    globbed = problems(root / "*" / "*.mp4")
    assert {name for name, problem in globbed.items() if problem} == {
        "more/e.mp4",
        "more/f.mp4",
        "more/g.mp4",
        "g.mp4/h.mp4",
    }
    assert set(problems(root / "*" / "*.mp4", follow_links=True).values()) == {None}
    assert problems(root / "e.mp4") == {"e.mp4": None}  # it was asked for


def test_what_cannot_be_read_is_a_row(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "c", ["a.mp4", "movie.mp4/inner.mkv"])
    (root / "gone.mp4").symlink_to(root / "nowhere.mp4")
    (root / "self.mp4").symlink_to(root / "self.mp4")
    (root / os.fsdecode(b"\xe9.mp4")).write_bytes(b"x")
    rows = {row["source_uri"].removeprefix(f"{root}/"): row for row in list_input(str(root)).rows}
    latin = f"file://{root}/%E9.mp4"
    assert set(rows) == {"a.mp4", "movie.mp4", "movie.mp4/inner.mkv", "gone.mp4", "self.mp4", latin}
    assert rows["gone.mp4"]["source_size"] is None and rows["self.mp4"]["source_size"] is None
    assert len({row["sample_id"] for row in rows.values()}) == 6


def test_a_folder_without_permission_is_a_row() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = make_tree(Path(name), ["a.mp4", "locked/b.mp4"])
        root.chmod(0o755)
        (root / "locked").chmod(0)
        is_root = os.geteuid() == 0
        try:
            if is_root:
                os.seteuid(65534)
            listing = list_input(str(root), source="s")
            whole = list_input(str(root / "locked"), source="s")
        finally:
            if is_root:
                os.seteuid(0)
            (root / "locked").chmod(0o755)
    assert [row["source_uri"] for row in listing.rows] == [str(root / "a.mp4"), str(root / "locked")]
    assert [row["sample_id"] for row in listing.rows] == [
        sample_id("s", name, None, None) for name in ("a.mp4", "locked")
    ]
    (row,) = whole.rows
    assert (row["source_uri"], row["sample_id"]) == (
        str(root / "locked"),
        sample_id("s", ".", None, None),
    )


@pytest.mark.parametrize("name", ["missing", "missing.mp4", "missing/*.mp4", "missing.csv", "n" * 300])
def test_an_input_that_is_not_there_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=re.escape(str(tmp_path / name.partition("/")[0]))):
        list_input(str(tmp_path / name))


def test_an_overlong_glob_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        list_input(f"{tmp_path}/{'n' * 300}*.mp4")


def test_an_input_without_media_is_refused_and_says_what_it_holds(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "c", ["n.txt", "m.jpg"])
    for path in (root, root / "*.jpg"):
        with pytest.raises(InputError, match=rf"no media in {re.escape(str(path))} .*other files"):
            list_input(str(path))


def test_a_single_file_of_another_kind_is_refused_and_a_list_may_name_it(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "c", ["n.txt", "m.jpg", "clip"])
    for name in ("n.txt", "m.jpg", "clip"):
        with pytest.raises(InputError, match=rf"{name} is not media of this pipeline.* a list .*\.jsonl"):
            list_input(str(root / name))
    assert len(list_input(str(root / "m.jpg"), suffixes=PICTURE_SUFFIXES).rows) == 1
    (root / "l.csv").write_text("uri\nclip\n")
    assert [row["source_uri"] for row in list_input(str(root / "l.csv")).rows] == [str(root / "clip")]


def test_names_with_glob_characters_are_names_where_they_exist(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "c [1]", ["a[2].mp4", "what?.mp4"])
    assert set(ids(list_input(str(root)), root)) == {"a[2].mp4", "what?.mp4"}
    assert set(ids(list_input(str(root / "a[2].mp4")), root)) == {"a[2].mp4"}


# Limits.


def test_a_limit_gives_the_first_samples(tmp_path: Path, memory: Any) -> None:
    root = make_tree(tmp_path / "c", [*NAMES, "n.txt", "sub/deep/e.mp4", "z/f.mp4"])
    frame = pd.DataFrame(
        {"uri": ["a.mp4", "", "a.mp4", "sub/c.mkv", "a.mp4"], "x": ["1", "2", "3", "4", "b"]}
    )
    inputs = [str(root), f"{root}/**/*.mp4", str(root / "a.mp4"), "memory://bucket/clips"]
    inputs += [str(write_list(tmp_path / f"l.{kind}", frame)) for kind in ("parquet", "csv", "jsonl")]
    (tmp_path / "parts.parquet").mkdir()
    inputs.append(str(write_list(tmp_path / "parts.parquet" / "0.parquet", frame).parent))
    for name in NAMES:
        memory.pipe(f"/bucket/clips/{name}", b"x" * len(name))
    for path in inputs:
        whole = list_input(path)
        for limit in range(len(whole) + 2):
            listing = list_input(path, limit=limit)
            assert listing.table.equals(whole.table.slice(0, limit), check_metadata=True), (path, limit)


def test_a_limit_looks_at_no_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree(tmp_path / "c", [f"{i}/{j}.mp4" for i in range(5) for j in range(5)])
    looked: list[str] = []
    monkeypatch.setattr(os, "lstat", noting(os.lstat, looked))
    monkeypatch.setattr(os, "scandir", noting(os.scandir, looked))
    assert len(list_input(str(root), limit=7)) == 7
    assert not any(path.startswith(f"{root}/{i}") for path in looked for i in (2, 3, 4))
    assert [path for path in looked if path.endswith(".mp4")] == [
        f"{root}/{name}.mp4" for name in ("0/0", "0/1", "0/2", "0/3", "0/4", "1/0", "1/1")
    ]


def noting(work: Any, noted: list[str]) -> Any:
    def noting_work(path: Any, **options: Any) -> Any:
        noted.append(os.fspath(path))
        return work(path, **options)

    return noting_work


def test_a_limit_reads_a_parquet_list_no_further(tmp_path: Path) -> None:
    path = tmp_path / "l.parquet"
    table = pa.table({"uri": [f"{i:09d}.mp4" for i in range(1000)]})
    pq.write_table(table, path, row_group_size=100, compression="gzip", use_dictionary=False)
    row_group = pq.ParquetFile(path).metadata.row_group(9).column(0)
    with path.open("r+b") as file:
        file.seek(row_group.data_page_offset)
        file.write(b"\xff" * row_group.total_compressed_size)
    with pytest.raises(InputError, match="cannot read the list"):
        list_input(str(path))
    for limit in (10, 100, 101, 900):
        assert len(list_input(str(path), limit=limit)) == limit
    with pytest.raises(InputError, match="cannot read the list"):
        list_input(str(path), limit=901)


def test_a_limit_leaves_the_types_of_columns_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("uri,x,y\na.mp4,1,1\nb.mp4,2,2\nc.mp4,c,2.5\n")
    listing = list_input(str(tmp_path / "l.csv"), limit=2)
    assert [(row["x"], row["y"]) for row in listing.rows] == [("1", 1.0), ("2", 2.0)]


def test_it_is_told_how_many_were_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "FILES_AT_ONCE", 4)
    root = make_tree(tmp_path / "c", [f"{i}.mp4" for i in range(10)])
    told: list[int] = []
    list_input(str(root), told=told.append)
    assert told == [4, 8, 10]


def test_many_files_have_their_own_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked at by several threads."""
    monkeypatch.setattr(looking, "FILES_A_TURN", 3)
    root = make_tree(tmp_path / "c", [f"{'x' * (i % 9)}{i}.mp4" for i in range(50)])
    (root / "0.mp4").unlink()
    (root / "0.mp4").symlink_to(root / "nowhere.mp4")
    pq.write_table(pa.table({"uri": sorted(file.name for file in root.iterdir())}), root / "l.parquet")
    for path in (root, root / "l.parquet"):
        sizes = {Path(row["source_uri"]).name: row["source_size"] for row in list_input(str(path)).rows}
        assert len(sizes) == 50 and sizes.pop("0.mp4") is None
        assert all(size == len(name) for name, size in sizes.items())


# Lists.


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_list_gives_ranges_and_keeps_its_columns(tmp_path: Path, kind: str) -> None:
    root = make_tree(tmp_path / "c")
    frame = pd.DataFrame(
        {
            "uri": ["a.mp4", "sub/c.mkv"],
            "start_s": [None, 1.5],
            "end_s": [2.0, None],
            "licence": ["CC0", None],
            "speaker": ["x", "y"],
            "age": [3, 4],
            "score": [0.5, 1.0],
            "ok": [True, False],
            "caption": ["c1", "c2"],
            "length": [1, 2],
        }
    )
    listing = list_input(str(write_list(root / f"my.{kind}", frame)), owned=frozenset({"length"}))
    a, c = listing.rows
    assert (a["source"], a["source_uri"]) == ("my", str(root / "a.mp4"))
    assert (a["start_s"], a["end_s"], c["start_s"], c["end_s"]) == (None, 2.0, 1.5, None)
    assert (a["licence"], c["licence"], a["source_size"]) == ("CC0", None, 5)
    assert a["sample_id"] == sample_id("my", "a.mp4", None, 2.0)
    assert c["sample_id"] == sample_id("my", "sub/c.mkv", 1.5, None)
    assert [(f.name, f.type) for f in listing.input_fields] == [
        ("speaker", listing.input_fields[0].type),
        ("age", pa.int64()),
        ("score", pa.float64()),
        ("ok", pa.bool_()),
        ("input_caption", listing.input_fields[4].type),
        ("input_length", pa.int64()),
    ]
    assert (a["speaker"], a["age"], a["score"], a["ok"]) == ("x", 3, 0.5, True)
    assert (a["input_caption"], a["input_length"]) == ("c1", 1) and a.get("caption") is None
    assert listing.input_fields[1].metadata[b"meaning"] == b"Column `age` of the input list."


def test_an_absolute_uri_inside_the_lists_folder_is_the_relative_one(tmp_path: Path) -> None:
    def listed(root: Path, uris: list[str]) -> list[str]:
        path = write_list(root / "l.csv", pd.DataFrame({"uri": uris}))
        return [row["sample_id"] for row in list_input(str(path)).rows]

    one, two = make_tree(tmp_path / "one"), make_tree(tmp_path / "two")
    relative = listed(one, ["a.mp4", "sub/c.mkv"])
    assert listed(one, [str(one / "a.mp4"), str(one / "sub/c.mkv")]) == relative
    assert listed(two, [str(two / "a.mp4"), "./sub/../sub/c.mkv"]) == relative


def test_urls_in_a_list_stay_as_written(tmp_path: Path) -> None:
    uris = ["s3://bucket/a.mp4", "https://host/b.mp4?x=1&y=[2]"]
    path = write_list(tmp_path / "l.jsonl", pd.DataFrame({"uri": uris, "source": ["big", None]}))
    rows = list_input(str(path), sources=SourceSettings(schemes=["s3", "https"])).rows
    assert not any(PROBLEM in row or ADDRESS in row for row in rows)
    assert [row["source_uri"] for row in rows] == uris and [row["source"] for row in rows] == ["big", "l"]
    assert rows[0]["sample_id"] == sample_id("big", uris[0], None, None)
    assert rows[0]["source_size"] is None


def test_a_range_listed_twice_stays_two_rows_with_stable_ids(tmp_path: Path) -> None:
    path = write_list(tmp_path / "l.csv", pd.DataFrame({"uri": ["a.mp4", "b.mp4", "a.mp4", "a.mp4"]}))
    made = [row["sample_id"] for row in list_input(str(path)).rows]
    assert made == [row["sample_id"] for row in list_input(str(path)).rows] and len(set(made)) == 4
    assert made[2] == sample_id("l", "a.mp4", None, None, copy=1)
    more = write_list(tmp_path / "l.csv", pd.DataFrame({"uri": ["c.mp4", "a.mp4", "a.mp4", "a.mp4"]}))
    assert [row["sample_id"] for row in list_input(str(more)).rows][1:] == [made[0], made[2], made[3]]


def test_an_empty_uri_is_a_row(tmp_path: Path) -> None:
    path = write_list(tmp_path / "l.jsonl", pd.DataFrame({"uri": ["a.mp4", None, "", "  "]}))
    rows = list_input(str(path)).rows
    assert [row["source_uri"] == "" for row in rows] == [False, True, True, True]
    assert [row.get(PROBLEM) for row in rows] == [None, *(f"row {i} has no uri" for i in (2, 3, 4))]
    assert len({row["sample_id"] for row in rows}) == 4


def test_a_list_gives_crops(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(
        "uri,crop_x0,crop_y0,crop_x1,crop_y1\n"
        "a.mp4,,,,\na.mp4,0.25,0,0.75,1\na.mp4,0.25,0,0.5,1\na.mp4,0.5,0,0.5,1\n"
        "a.mp4,0,0,1.5,1\na.mp4,0,0,1,\na.mp4,left,0,1,1\n"
    )
    rows = list_input(str(tmp_path / "l.csv")).rows
    assert [[row[name] for name in CROP] for row in rows[:3]] == [
        [None] * 4,
        [0.25, 0, 0.75, 1],
        [0.25, 0, 0.5, 1],
    ]
    assert len({row["sample_id"] for row in rows}) == 7
    without = {"uri": ["a.mp4"]}
    assert (
        rows[0]["sample_id"]
        == list_input(str(write_list(tmp_path / "l.csv", pd.DataFrame(without)))).ids[0].as_py()
    )
    assert all(PROBLEM not in row for row in rows[:3])
    for row, said in zip(
        rows[3:],
        (
            "row 4: the crop from x 0.5 to 0.5 is no part of a picture",
            "row 5: the crop from x 0 to 1.5",
            "row 6: a crop has all of crop_x0",
            "row 7 has 'left' as crop_x0, which is no number from 0 to 1 such as 0.25",
        ),
        strict=True,
    ):
        assert said in row[PROBLEM] and [row[name] for name in CROP] == [None] * 4


def test_not_a_number_means_no_bound(tmp_path: Path) -> None:
    nan = float("nan")
    pq.write_table(
        pa.table({"uri": ["a.mp4", "a.mp4"], "start_s": pa.array([nan, nan])}), tmp_path / "l.parquet"
    )
    rows = list_input(str(tmp_path / "l.parquet")).rows
    assert [row["start_s"] for row in rows] == [None, None]
    assert len({row["sample_id"] for row in rows}) == 2


def test_columns_that_would_share_a_name_are_kept_apart_or_refused(tmp_path: Path) -> None:
    path = write_list(tmp_path / "l.csv", pd.DataFrame({"uri": ["a.mp4"], "keep": [1], "input_keep": [2]}))
    try:
        listing = list_input(str(path))
    except InputError as error:
        assert "input_keep" in str(error)
    else:
        names = [f.name for f in listing.input_fields]
        assert len(set(names)) == 2 and sorted(listing.rows[0][n] for n in names) == [1, 2]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "path,start_s\na.mp4,1\n", "no column `uri`.*it has: path, start_s"),
        ("l.csv", "uri,start_s\n", "is empty"),
        ("l.csv", "", "cannot read the list"),
        ("l.jsonl", "", "cannot read the list|is empty"),
        ("l.jsonl", "{broken", "cannot read the list"),
        ("l.parquet", "no parquet", "cannot read the list"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        list_input(str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)


ROWS: list[tuple[dict[str, Any], str]] = [
    ({"uri": "a\0b.mp4"}, r"has a uri with a NUL character: 'a\\x00b.mp4'"),
    (
        {"uri": "http://user:d0n0ttell@[x]/a.mp4?sig=d0n0ttell"},
        r"has a uri that is no address: 'http://\[x\]/a.mp4' \(",
    ),
    ({"uri": "s" * 256 + ".mp4"}, r"has a uri that is too long: '.*sss\.\.\."),
    ({"uri": "sub/" * 1100 + "a.mp4"}, "has a uri that is too long"),
    ({"uri": 7}, "has no text as uri: 7"),
    ({"uri": "half \ud83d.mp4"}, r"has half a surrogate pair in 'uri': 'half \\ud83d.mp4'"),
    ({"uri": "a.mp4", "start_s": "soon\x1b]0;x"}, r"has 'soon\\x1b\]0;x' as start_s, which is no number"),
    ({"uri": "a.mp4", "start_s": "1,5"}, "has '1,5' as start_s"),
    ({"uri": "a.mp4", "end_s": True}, "has True as end_s"),
    ({"uri": "a.mp4", "end_s": [1]}, r"has \[1\] as end_s"),
    ({"uri": "a.mp4", "end_s": "inf"}, "has 'inf' as end_s"),
    ({"uri": "a.mp4", "start_s": -1}, "has the start_s -1: a file begins at 0"),
    ({"uri": "a.mp4", "start_s": 3, "end_s": 2}, "has the end_s 2, which is not after its start, 3"),
    ({"uri": "a.mp4", "end_s": 0}, "has the end_s 0, which is not after its start, 0"),
    ({"uri": None}, "has no uri"),
]


def test_a_bad_row_is_one_row_with_an_error(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    lines = [json.dumps(row | {"x": 1}) for row, _ in ROWS]
    good = [json.dumps({"uri": "a.mp4", "x": 2}), json.dumps({"uri": "a.mp4", "end_s": 2.5, "x": 3})]
    path.write_text("\n".join([good[0], *lines, '{"uri": ', "[1]", good[1]]))
    rows = list_input(str(path)).rows
    assert len(rows) == len(ROWS) + 4 and len({row["sample_id"] for row in rows}) == len(rows)
    first, *bad, half, array, last = rows
    for number, (row, (_, message)) in enumerate(zip(bad, ROWS, strict=True), 2):
        assert re.search(rf"^row {number}( \(line {number}\))? {message}", row[PROBLEM]), row[PROBLEM]
        assert len(row[PROBLEM]) < 300 and row[PROBLEM].isprintable() and "d0n0ttell" not in str(row)
    assert half[PROBLEM].startswith(f"row {len(ROWS) + 2} (line {len(ROWS) + 2}) is no JSON: Expecting value")
    assert "is no JSON object ({...})" in array[PROBLEM]
    assert PROBLEM not in first and PROBLEM not in last
    # The ids of good rows are those they have without the bad ones, and stay.
    assert [first["sample_id"], last["sample_id"]] == [
        sample_id("l", "a.mp4", None, None),
        sample_id("l", "a.mp4", None, 2.5),
    ]
    again = list_input(str(path)).rows
    assert [row["sample_id"] for row in again] == [row["sample_id"] for row in rows]


@pytest.mark.parametrize(
    ("uri", "own", "settings", "problem"),
    [
        ("http://h/a.mp4", "l.csv", {}, "may not name http:// of .*; --set sources.schemes=.http. allows it"),
        ("HTTP://h/a.mp4", "l.csv", {"schemes": ["https"]}, r"--set sources.schemes=\[http,https\] allows"),
        ("https://h/a.mp4", "l.csv", {"schemes": ["HTTPS"]}, None),
        ("s3://b/a.mp4", "l.csv", {}, "may not name s3://"),
        ("s3://b/a.mp4", "s3://c/l.csv", {}, None),
        ("https://h/a.mp4", "s3://c/l.csv", {}, "may not name https://"),
        ("file:///x/a.mp4", "s3://c/l.csv", {}, None),
        ("simplecache::http://h/a.mp4", "l.csv", {}, "may not name http and simplecache:// of"),
        ("simplecache::http://h/a.mp4", "l.csv", {"schemes": ["simplecache"]}, "http,simplecache. allows it"),
        ("simplecache::http://h/a", "l.csv", {"schemes": ["simplecache", "http"], "hosts": ["h"]}, None),
        (
            "simplecache::http://i/a",
            "l.csv",
            {"schemes": ["simplecache", "http"], "hosts": ["h"]},
            "host 'i'",
        ),
        (
            "https://h:1/a",
            "l.csv",
            {"schemes": ["https"], "hosts": ["g"]},
            r"sources.hosts=\[g,h\] allows it",
        ),
        ("http://u:p@H/a", "l.csv", {"schemes": ["http"], "hosts": ["h"]}, None),
        ("http://h@g/a", "l.csv", {"schemes": ["http"], "hosts": ["h"]}, "host 'g'"),
        ("s3://b/a.mp4", "s3://c/l.csv", {"hosts": []}, "host 'b'"),
        ("s3://c/a.mp4", "s3://c/l.csv", {"hosts": []}, None),
        ("http://169.254.169.254/a", "l.csv", {"schemes": ["http"]}, "host '169.254.169.254'"),
        ("http://10.0.0.1/a", "l.csv", {"schemes": ["http"]}, None),
    ],
)
def test_what_a_list_may_name(uri: str, own: str, settings: dict[str, Any], problem: str | None) -> None:
    said = Allowed(own, SourceSettings(**settings)).problem(uri, 3)
    if problem is None:
        assert said is None
    else:
        assert said is not None and said.startswith("row 3: a list may not name") and re.search(problem, said)


def test_an_address_is_listed_without_its_secrets(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    signed = "https://host/a.mp4?id=1&X-Amz-Signature=d0n0ttell&X-Amz-Expires=9"
    user = "simplecache::https://user:d0n0ttell@host/b.mp4"
    path.write_text(f"uri\n{signed}\n{user}\nhttps://host/c.mp4?id=1#x\n")
    rows = list_input(str(path), sources=SourceSettings(schemes=["https", "simplecache"])).rows
    public = ["https://host/a.mp4?id=1", "simplecache::https://host/b.mp4", "https://host/c.mp4?id=1#x"]
    assert [row["source_uri"] for row in rows] == public
    assert [row.get(ADDRESS) for row in rows] == [signed, user, None]
    path.write_text(f"uri\n{signed.replace('d0n0ttell', 'tomorrow')}\n")
    (row,) = list_input(str(path), sources=SourceSettings(schemes=["https"])).rows
    assert row["sample_id"] == rows[0]["sample_id"] and row["source_uri"] == public[0]


# URLs.


def test_a_url_folder_glob_and_file_give_the_same_ids(memory: Any) -> None:
    for name in [*NAMES, "n.txt", ".h.mp4"]:
        memory.pipe(f"/bucket/clips/{name}", b"x" * len(name))
    folder = list_input("memory://bucket/clips")
    expected = ids(folder, "memory:///bucket/clips") or ids(folder)
    expected = {uri.partition("/clips/")[2] or uri: made for uri, made in expected.items()}
    assert expected == {n: sample_id("clips", n, None, None) for n in NAMES}
    assert folder.ignored == {".txt": 1, ".mp4": 1}
    assert [row["source_size"] for row in folder.rows] == [len(n) for n in NAMES]
    assert list_input("memory://bucket/clips/").rows == folder.rows
    assert list_input("memory://bucket/clips/**").rows == folder.rows
    assert list_input("memory://bucket/clips/a.mp4").rows == folder.rows[:1]


def test_a_url_in_brackets_is_a_name_where_it_exists(memory: Any) -> None:
    memory.pipe("/bucket/clips [1]/a[2].mp4", b"x")
    (row,) = list_input("memory://bucket/clips [1]/a[2].mp4").rows
    assert row["sample_id"] == sample_id("clips [1]", "a[2].mp4", None, None)
    assert len(list_input("memory://bucket/clips [1]").rows) == 1


def test_a_list_at_a_url_is_relative_to_itself(memory: Any) -> None:
    memory.pipe("/bucket/l.csv", b"uri,start_s\nclips/a.mp4,1\nmemory://other/b.mp4,\n")
    a, b = list_input("memory://bucket/l.csv").rows
    assert (a["source"], a["source_uri"], a["start_s"]) == ("l", "memory://bucket/clips/a.mp4", 1.0)
    assert a["sample_id"] == sample_id("l", "clips/a.mp4", 1.0, None)
    assert b["source_uri"] == "memory://other/b.mp4"


@pytest.mark.parametrize("url", ["memory://nothing", "memory://nothing/*.mp4", "memory://no.csv", "nofs://x"])
def test_a_url_that_leads_nowhere_is_refused_by_name(memory: Any, url: str) -> None:
    with pytest.raises(InputError, match=re.escape(url)):
        list_input(url)
