"""Lists by columns: the same values as when each row is taken by itself."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from manifests.licences import TRUTHS
from manifests.text import holds_secret, public_text, public_url
from media.crop import CROP
from pipelines.engine import addresses, source
from pipelines.engine.addresses import ADDRESS, PROBLEM, Allowed, ListedMedia
from pipelines.engine.ids import sample_id
from pipelines.engine.looking import file_size
from pipelines.engine.settings import SourceSettings
from pipelines.engine.source import list_input

SCHEMES = ["https", "s3", "memory", "simplecache"]
SETTINGS = [
    SourceSettings(),
    SourceSettings(schemes=SCHEMES),
    SourceSettings(schemes=SCHEMES, hosts=["h", "b"]),
]

ADDRESSES = [
    *("a.mp4", "sub/a.mp4", "./a.mp4", "sub/../a.mp4", "../a.mp4", "..", ".", "a/", "a//b", ".a", "..a"),
    *("a/.b/c", "/a.mp4", "//a.mp4", "/", "/a/./b", "/a/../b", "/a/...", "/.a/..b", "", "  ", "\u3000"),
    *(" a ", "a\nb.mp4", "é.mp4", "😀/ü.mp4", "a\0b", "x" * 63, "x" * 64, "x" * 256, "é" * 128),
    *("d/" * 140 + "a", "C:\\a.mp4", "s3://b/a.mp4", "s3://b", "s3://b/", "s3://b//a", "s3:///a"),
    *("S3://b/a", "s3://B/a", "s3://b:80/a", "s3://b:/a", "s3://b/a b.mp4", "s3://b/é.mp4", "s3://b/a#x"),
    *("s3://b/a?x=1&y=[2]", "s3://b/a?X-Amz-Signature=d0n0ttell", "s3://u:d0n0ttell@b/a", "s3://b/a@c"),
    *("s3://b/a::c", "simplecache::s3://b/a", "s3://é/a", "s3://b/a\nb", "s3://b/a\tb", "s3://b/a "),
    *(" s3://b/a", "s3://[x]/a", "s3://[::1]/a", "s3://b/../a", "s3://b/http://c/d", "https://h/a;b"),
    *("https://h/%41", "https://h/a?", "https://h/a#", "https://h\\a", "https://ho_st/a"),
    *("http://169.254.169.254/a", "https://169.254.169.254/a", "https://h.:1/a", "https://h/" + "a" * 300),
    *("https://h/" + "a" * 9000, "file:///a", "file:////a", "file://h/a", "FILE:///a", "a://b", "1a://b/c"),
    *("a:b://c", "://b", "a/s3://b", "/s3://b", "s3:/b", "s3//b", "e+x.y-z://b/a", "s3://-/a"),
    *("https://h:99:8/a", "gs://b/a"),
]
PIECES = st.sampled_from(
    [*"/.a?@#: []%;\\\n\t\0&=é", "://", "::", "s3://b", "https://h", "..", "x" * 70, ".mp4"]
)
URIS = st.none() | st.sampled_from(ADDRESSES) | st.lists(PIECES, max_size=8).map("".join)
SECONDS = st.none() | st.sampled_from([0.0, -0.0, 1.0, 1.0004, 2.5, -1.0, float("nan"), float("inf")])
NAMES = st.sampled_from([None, "", "s", "Ä"])
LISTS = st.lists(st.tuples(URIS, NAMES, SECONDS, SECONDS), min_size=1, max_size=16)


def row_by_row(path: str, table: pa.Table, allowed: SourceSettings) -> list[dict[str, Any]]:
    """The samples of a list as dicts, without one look at more than one row but for counting copies."""
    rows, seen = [], Counter[tuple[str, ...]]()
    folder = str(Path(path).absolute().parent)
    columns = (table[name].to_pylist() for name in ("uri", "source", "start_s", "end_s", "note"))
    for number, (uri_given, name, start_s, end_s, note) in enumerate(zip(*columns, strict=True), 1):
        start_s, start_problem = second(start_s, "start_s", number)
        end_s, end_problem = second(end_s, "end_s", number)
        broken = start_problem or end_problem or addresses._broken(uri_given, number)
        if broken is None:
            uri, inside = resolved(uri_given, path, folder)
            broken = addresses._too_long(uri, number)
        problem = broken
        if broken is not None:
            uri, inside = "", f"row {number}"
        else:
            problem = addresses._wrong_range(start_s, end_s, number)
            problem = problem or Allowed(path, allowed).problem(uri, number)
        public = public_text(uri) if holds_secret(uri) else uri
        of = name or PurePosixPath(path).stem
        key = (of, inside, *("" if s is None else f"{s:.3f}" for s in (start_s, end_s)))
        size = None if "://" in uri or problem else file_size(uri)
        row = {
            "sample_id": sample_id(of, inside, start_s, end_s, seen[key]),
            "source": of,
            "source_uri": public,
            "start_s": start_s,
            "end_s": end_s,
            **dict.fromkeys(CROP),
            "parent_id": None,
            "source_size": size,
            **dict.fromkeys(["licence", *TRUTHS]),
            "note": note,
        }
        seen[key] += 1
        rows.append(row | {k: v for k, v in ((ADDRESS, uri), (PROBLEM, problem)) if v not in (None, public)})
    return rows


def second(value: float | None, name: str, number: int) -> tuple[float | None, str | None]:
    if value == float("inf"):
        return None, f"row {number} has inf as {name}, which is no number of seconds such as 1.5"
    return (None if value != value else value), None


def resolved(uri: str, path: str, folder: str) -> tuple[str, str]:
    if "://" in uri:
        return uri, public_url(uri)
    if "://" in path:
        return (uri, uri) if uri.startswith("/") else (f"{path.rpartition('/')[0]}/{uri}", uri)
    full = os.path.normpath(os.path.join(folder, uri))  # noqa: PTH118 - pathlib keeps `..`
    below = folder.rstrip("/") + "/"
    return full, full.removeprefix(below) if full.startswith(below) else uri


def table_of(rows: list[tuple[Any, ...]]) -> pa.Table:
    uri, name, start_s, end_s = zip(*rows, strict=True)
    seconds = [pa.array(values, pa.float64()) for values in (start_s, end_s)]
    texts = [pa.array(values, pa.string()) for values in (uri, name)]
    note = pa.array(range(len(rows)), pa.int32())
    return pa.table([*texts, *seconds, note], names=["uri", "source", "start_s", "end_s", "note"])


def check(path: str, table: pa.Table, allowed: SourceSettings) -> None:
    rows = row_by_row(path, table, allowed)
    assert list_input(path, sources=allowed).rows == rows
    for limit in (1, len(rows) // 2):
        assert list_input(path, sources=allowed, limit=limit).rows == rows[:limit]


@pytest.fixture(autouse=True, scope="module")
def few_rows_at_once() -> Iterator[None]:
    """Blocks end inside the lists."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "ROWS_AT_ONCE", 5)
        yield


EVERY = [(uri, name, None, None) for uri in ADDRESSES for name in (None, "s")]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(LISTS, st.sampled_from(SETTINGS))
@example(EVERY, SETTINGS[0])
@example(EVERY, SETTINGS[1])
@example(EVERY, SETTINGS[2])
def test_a_list_by_columns_is_the_list_row_by_row(
    rows: list[tuple[Any, ...]], allowed: SourceSettings
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "l.parquet"
        (Path(folder) / "a.mp4").write_bytes(b"abc")
        # Absolute addresses below the list's folder are relative ones.
        table = table_of(
            [*rows, (f"{folder}/a.mp4", None, None, 2.0), (f"{folder}//a.mp4", None, None, None)]
        )
        pq.write_table(table, path)
        check(str(path), table, allowed)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(LISTS, st.sampled_from(SETTINGS))
@example(EVERY, SETTINGS[1])
def test_so_is_a_list_on_a_server(rows: list[tuple[Any, ...]], allowed: SourceSettings) -> None:
    rows = [row for row in rows if row[0] is None or is_address(f"memory://b/c/{row[0]}")]
    table = table_of([*rows, ("a.mp4", None, None, None)])
    with fsspec.open("memory://b/c/l.parquet", "wb") as file:
        pq.write_table(table, file)
    check("memory://b/c/l.parquet", table, allowed)


def is_address(text: str) -> bool:
    """Whether the address can be taken apart."""
    try:
        holds_secret(text)
        return True
    except ValueError:
        return False


def test_nearly_all_rows_of_a_common_list_are_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would take ten times as long for them."""
    asked = []
    row = ListedMedia.row

    def noted(self: ListedMedia, given: str | None, *rest: Any) -> tuple[str, str, str | None]:
        asked.append(given)
        return row(self, given, *rest)

    monkeypatch.setattr(ListedMedia, "row", noted)
    plain = [
        f"{below}clip {i}.mp4" for below in ("", "/data/é/", "s3://b/c/", "https://h:1/") for i in range(9)
    ]
    odd = ["../a.mp4", "gs://b/a.mp4", "https://h/a.mp4?x=1", "", None]
    pq.write_table(pa.table({"uri": [*plain, *odd]}), tmp_path / "l.parquet")
    listing = list_input(str(tmp_path / "l.parquet"), sources=SourceSettings(schemes=["s3", "https"]))
    assert asked == odd and listing.ids.null_count == 0 and len(listing) == len(plain) + len(odd)
