"""Lists of any origin are read as they were meant, or refused with the row."""

from __future__ import annotations

import codecs
import csv
import datetime
import json
import tempfile
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import store
from manifests.schema import manifest_schema, to_rows, to_table
from pipelines.engine.list_values import ListError
from pipelines.engine.lists import read_list
from pipelines.engine.source import InputError, list_input
from tests.support.file_server import file_server


def read(folder: Path, text: str | bytes, suffix: str = ".csv") -> pa.Table:
    file = folder / f"l{suffix}"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    table, problems = read_list(file, suffix)
    assert problems == {}
    return table


def columns(folder: Path, text: str | bytes, suffix: str = ".csv") -> dict[str, list[Any]]:
    return read(folder, text, suffix).to_pydict()


# CSV and TSV.


def test_line_breaks_stand_in_quoted_values_of_any_size(tmp_path: Path) -> None:
    notes = [f'Clip {i}.\n"{"word, " * 60}"\r\n{i}' for i in range(8000)]
    notes[5000] = "long\n" * 600_000  # 3 MB
    with (tmp_path / "l.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "start_s", "note"])
        writer.writerows([f"{i}.mp4", i, note] for i, note in enumerate(notes))
    table, _ = read_list(tmp_path / "l.csv", ".csv")
    assert table["note"].to_pylist() == notes
    assert table["start_s"].to_pylist() == [float(i) for i in range(8000)]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from('",;\t|\n\r 01.e-+'))
NUMERALS = st.from_regex(r"[-+]?0{0,2}[0-9]{1,22}(\.[0-9]{1,4})?(e[+-]?[0-9]{1,2})?", fullmatch=True)
VALUES = st.lists(TEXTS | NUMERALS, min_size=1, max_size=5) | st.lists(NUMERALS, min_size=1, max_size=5)


def written_anew(values: list[Any]) -> list[list[str]]:
    """All ways to write the values of a column."""
    decimals = range(23)
    ways = [
        [str(v) for v in values],
        [str(v).removesuffix(".0") for v in values],
        [str(v).lower() for v in values],
    ]
    ways.append([str(v).upper() for v in values])
    if all(isinstance(v, float) for v in values):
        ways += [[f"{v:.{d}f}" for v in values] for d in decimals]
    return ways


@settings(derandomize=True, deadline=None, max_examples=300)
@given(VALUES, st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_values_survive_a_csv(values: list[str], separator: str, end: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "l.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
            writer.writerow(["uri", "x"])
            writer.writerows(["a.mp4", value] for value in values)
        column = read_list(Path(folder) / "l.csv", ".csv")[0]["x"]
    assert [value is None for value in column.to_pylist()] == [value == "" for value in values]
    kept, given = column.drop_null().to_pylist(), [value for value in values if value]
    if column.type == pa.string():
        assert kept == given
    else:
        assert given in written_anew(kept)


@pytest.mark.parametrize(
    ("values", "kind", "kept"),
    [
        ("7 12 -3", pa.int64(), [7, 12, -3]),
        ("9223372036854775807 0", pa.int64(), [2**63 - 1, 0]),
        ("0.5 -1.25 1e-05", pa.float64(), [0.5, -1.25, 1e-05]),
        ("1 2.5", pa.float64(), [1.0, 2.5]),
        ("0.50 1.00 12.25", pa.float64(), [0.5, 1.0, 12.25]),
        ("0.1234567890123456 1.0", pa.float64(), [0.1234567890123456, 1.0]),
        ("True False", pa.bool_(), [True, False]),
        ("true true", pa.bool_(), [True, True]),
        ("FALSE TRUE", pa.bool_(), [False, True]),
        ("007 12", pa.string(), None),
        ("12345678901234567890 1", pa.string(), None),
        ("9223372036854775808", pa.string(), None),
        ("0.12345678901234567890", pa.string(), None),
        ("1.10 1.9", pa.string(), None),
        ("1.0 1", pa.string(), None),
        ("1e5 2e5", pa.string(), None),
        ("+1 2", pa.string(), None),
        ("nan 1.5", pa.string(), None),
        ("inf -inf", pa.string(), None),
        ("NA 1", pa.string(), None),
        ("null NULL", pa.string(), None),
        ("1_000 2", pa.string(), None),
        (".5 1.", pa.string(), None),
        ("0x10 1", pa.string(), None),
        ("٣ ٤", pa.string(), None),
        ("True yes", pa.string(), None),
        ("True true", pa.string(), None),
        ("2024-01-01 2024-02-01", pa.string(), None),
        ("2024-01-01T10:00:00.123456789Z 2024-02-01T10:00:00Z", pa.string(), None),
        ("10:00:00 11:00:00", pa.string(), None),
    ],
)
@pytest.mark.parametrize("gap", [False, True])
def test_a_column_is_numeric_only_where_its_text_can_be_written_anew(
    tmp_path: Path, values: str, kind: pa.DataType, kept: list[Any] | None, gap: bool
) -> None:
    texts = values.split() + [""] * gap
    table = read(tmp_path, "uri,x\n" + "".join(f"a.mp4,{text}\n" for text in texts))
    assert table["x"].type == kind
    assert table["x"].to_pylist() == (kept or values.split()) + [None] * gap


def test_names_and_our_own_values_are_without_blanks_around_them(tmp_path: Path) -> None:
    table = read(tmp_path, 'uri, start_s , end_s,"licence ", note\n a.mp4 , 0, 2 , CC0, " a, 007"\n')
    assert table.to_pydict() == {
        "uri": ["a.mp4"],
        "start_s": [0.0],
        "end_s": [2.0],
        "licence": ["CC0"],
        "note": [" a, 007"],
    }
    # Without a blank in the header, a blank before a text is its own.
    table = read(tmp_path, "uri,start_s,note\na.mp4 , 1.5,  b\n")
    assert table.to_pydict() == {"uri": ["a.mp4"], "start_s": [1.5], "note": ["  b"]}


def test_what_is_missing_of_our_own_columns_may_be_written_as_r_and_pandas_do(tmp_path: Path) -> None:
    text = "uri,start_s,end_s,licence,source,note\nNA,NA,nan,N/A,null,NA\nb.mp4,,2.,None,s,null\n"
    assert columns(tmp_path, text) == {
        "uri": ["NA", "b.mp4"],
        "start_s": [None, None],
        "end_s": [None, 2.0],
        "licence": [None, None],
        "source": [None, "s"],
        "note": ["NA", "null"],
    }


def test_files_with_odd_names_are_found(tmp_path: Path) -> None:
    names = ["a, b.mp4", 'say "hi".mp4', "100%25.mp4", "ünï-日本.mp4", "two  blanks.mp4"]
    with (tmp_path / "l.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["uri"], *([f" {name} "] for name in names)])
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(b"x" * (number + 1))
    rows = list_input(str(tmp_path / "l.csv")).rows
    assert [row["source_uri"] for row in rows] == [str(tmp_path / name) for name in names]
    assert [row["source_size"] for row in rows] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("separator", list(",;\t|"))
@pytest.mark.parametrize("quote", ["", '"'])
def test_the_separator_is_that_of_the_header(tmp_path: Path, suffix: str, separator: str, quote: str) -> None:
    header = separator.join(f"{quote}{name}{quote}" for name in ("note", "uri", "start_s"))
    table = read(tmp_path, f'{header}\n"a,b;c\td|e"{separator}a.mp4{separator}1\n', suffix)
    assert table.to_pydict() == {"note": ["a,b;c\td|e"], "uri": ["a.mp4"], "start_s": [1.0]}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marks_line_ends_and_blank_lines(tmp_path: Path, end: str, encoding: str) -> None:
    lines = ["", "uri,note", "a.mp4,é", "", 'b.mp4,"x', 'y"', "", "   ", ""]
    assert columns(tmp_path, end.join(lines).encode(encoding)) == {
        "uri": ["a.mp4", "b.mp4"],
        "note": ["é", f"x{end}y"],
    }


def test_utf_16_of_big_endian_is_read(tmp_path: Path) -> None:
    text = codecs.BOM_UTF16_BE + "uri\nä.mp4\n".encode("utf-16-be")
    assert columns(tmp_path, text) == {"uri": ["ä.mp4"]}


def test_empty_columns_without_a_name_are_left_out(tmp_path: Path) -> None:
    assert columns(tmp_path, "uri,,\na.mp4,,\nb.mp4,,\n") == {"uri": ["a.mp4", "b.mp4"]}
    assert columns(tmp_path, ",uri\n0,a.mp4\n1,b.mp4\n") == {"": [0, 1], "uri": ["a.mp4", "b.mp4"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uri,a, a\nx,1,2\n", "two columns have the name 'a'"),
        ("uri,,\nx,1,2\n", "two columns have the name ''"),
        ("path;start\nx;1\n", "no column `uri`.*it has: path, start .separated by ';'"),
        ("uri start_s\nx 1\n", "it has: uri start_s .columns are separated by"),
        ("uri,start_s\na,1\n\nb\n", r"row 2 \(line 4\) has 1 values, and the header 2"),
        ('uri,note\n"a\nb",1\nb,c,d\n', r"row 2 \(line 4\) has 3 values, and the header 2"),
        ('uri,note\na,b\nc,"hello\nb,2\nc,3\n', r"row 2 \(line 5\): a double quote is opened and not closed"),
        ('uri,note\na,"b"c\n', r"row 1 \(line 2\): ',' expected after '\"'"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("uri,start_s\n", "is empty"),
        ("uri", "is empty"),
        ("uri,x\na,é\n".encode("latin-1"), "not UTF-8 text; save the list as UTF-8.*iconv"),
        ("é,uri\na,b\n".encode("latin-1"), "not UTF-8 text; save the list as UTF-8"),
        ("uri,x\na,b\n".encode("utf-16-le"), "no UTF-8 text; save the list as UTF-8"),
        (codecs.BOM_UTF16_LE + b"u\0r\0i\0\n\0a", "not UTF-16.* text; save the list as UTF-8"),
    ],
)
def test_a_broken_list_is_refused_by_name_and_row(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ListError, match=message):
        read(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        list_input(str(tmp_path / "l.csv"))
    assert str(tmp_path / "l.csv") in str(caught.value)


@pytest.mark.parametrize("text", ["soon", "1,5", "00:01:30", "1_000", "1e999", "inf", "٣"])
def test_seconds_that_are_no_number_are_a_problem_of_their_row(tmp_path: Path, text: str) -> None:
    (tmp_path / "l.csv").write_text(f"uri;start_s;end_s\na;1.5;2\nb;;{text}\n")
    table, problems = read_list(tmp_path / "l.csv", ".csv")
    assert table["end_s"].to_pylist() == [2.0, None]
    assert problems == {2: f"row 2 has {text!a} as end_s, which is no number of seconds such as 1.5"}


# JSON lines.


def test_json_values_are_what_they_are(tmp_path: Path) -> None:
    rows = [
        {
            "uri": "a.mp4",
            "id": "007",
            "day": "2024-01-01",
            "big": 12345678901234567890,
            "n": 1,
            "deep": {"day": "2024-01-01"},
        },
        {
            "uri": "b.mp4",
            "start_s": "1.5",
            "big": 7,
            "n": 2.5,
            "tags": ["x", "2024-01-01T00:00:00Z"],
            "deep": {"k": [1]},
        },
    ]
    text = "\ufeff\n" + "\n\n".join(json.dumps(row) for row in rows) + "\n\n"
    table = read(tmp_path, text, ".jsonl")
    assert table.to_pydict() == {
        "uri": ["a.mp4", "b.mp4"],
        "id": ["007", None],
        "day": ["2024-01-01", None],
        "big": ["12345678901234567890", "7"],
        "n": [1.0, 2.5],
        "deep": [{"day": "2024-01-01", "k": None}, {"day": None, "k": [1]}],
        "start_s": [None, 1.5],
        "tags": [None, ["x", "2024-01-01T00:00:00Z"]],
    }
    assert table.schema.field("deep").type == pa.struct({"day": pa.string(), "k": pa.list_(pa.int64())})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"uri": "a", "x": 1}\n{"uri": "b"}\n\n{"uri": "b", "x": "y"}\n', "row 3: x does not fit"),
        ('{"uri": "a", "x": [1]}\n{"uri": "b", "x": ["y"]}\n', "row 2: x does not fit"),
        ('{"uri": "a", "x": 9007199254740993}\n{"uri": "b", "x": 0.5}\n', "row 2: x does not fit"),
        ('{"uri": "a", "x": {"y": 18446744073709551616}}\n', "x holds whole numbers beyond 64 bits"),
        ('{"uri": "a", "x": {}}\n', "column x of type struct.* cannot be kept"),
        ('{"uri": \n', r"row 1 \(line 1\) is no JSON:"),
        ('\n{"uri": "a", "x": "\\ud800"}\n', r"row 1 \(line 2\) has half a surrogate pair in 'x'"),
        ('{"path": "a"}\n', "no column `uri`.*it has: path"),
        ("\n\n", "is empty"),
        ('{"uri": "é"}'.encode("latin-1"), "not UTF-8 text"),
    ],
)
def test_json_lines_that_cannot_be_columns_are_refused_by_row(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(ListError, match=message):
        read(tmp_path, text, ".jsonl")


# Parquet, and through a manifest.

VIEW, WORDS = pa.string_view(), pa.dictionary(pa.int32(), pa.string())
KINDS: dict[str, tuple[pa.DataType, list[Any], pa.DataType]] = {
    "view": (VIEW, ["text of more than twelve bytes", None], pa.string()),
    "bytes_view": (pa.binary_view(), [b"xy", None], pa.binary()),
    "large_text": (pa.large_string(), ["x", None], pa.large_string()),
    "words": (WORDS, ["x", None], pa.string()),
    "list_of_views": (pa.list_(VIEW), [["x"], None], pa.list_(pa.string())),
    "large_list": (pa.large_list(VIEW), [["x", None], None], pa.large_list(pa.string())),
    "list_view": (pa.list_view(pa.int64()), [[1], [2, 3]], pa.list_(pa.int64())),
    "views_in_views": (pa.large_list_view(VIEW), [None, ["x", "y"]], pa.large_list(pa.string())),
    "fixed_list": (pa.list_(pa.float32(), 2), [[0.5, 1.0], None], pa.list_(pa.float32(), 2)),
    "list_of_words": (pa.list_(WORDS), [["x"], None], pa.list_(pa.string())),
    "struct": (
        pa.struct([("a", VIEW), ("b", pa.list_(pa.struct([("c", WORDS)])))]),
        [{"a": "x", "b": [{"c": "y"}]}, None],
        pa.struct([("a", pa.string()), ("b", pa.list_(pa.struct([("c", pa.string())])))]),
    ),
    "map": (
        pa.map_(pa.string(), VIEW),
        [[("k", "v")], None],
        pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())])),
    ),
    "decimal": (pa.decimal128(20, 2), [Decimal("1.20"), None], pa.decimal128(20, 2)),
    "nanoseconds": (pa.timestamp("ns"), [1700000000123456789, None], pa.timestamp("ns")),
    "summer": (
        pa.timestamp("us", "Europe/Berlin"),
        [1729992600000000, None],
        pa.timestamp("us", "Europe/Berlin"),
    ),
    "day": (pa.date32(), [datetime.date(2024, 1, 1), None], pa.date32()),
    "time": (pa.time64("ns"), [5_000_000, None], pa.time64("us")),
    "duration": (pa.duration("us"), [5, None], pa.duration("us")),
    "half": (pa.float16(), [1.5, None], pa.float16()),
    "unsigned": (pa.uint64(), [2**64 - 1, None], pa.uint64()),
    "nothing": (pa.null(), [None, None], pa.string()),
    "list_of_nothing": (pa.list_(pa.null()), [[None], None], pa.list_(pa.string())),
    "uuid": (pa.uuid(), [uuid.UUID(int=7).bytes, None], pa.binary(16)),
}


def write_kinds(file: Path, **more: Any) -> dict[str, pa.Array]:
    """A list with a column of each kind; the columns as a manifest should have them."""
    made, expected = {}, {}
    for name, (kind, values, plain) in KINDS.items():
        storage = pa.array(values, pa.time64("ns") if name == "time" else plain)
        try:
            made[name] = pa.array(values, kind)
        except pa.ArrowException:  # no way from Python to this type
            made[name] = storage.cast(kind)
        expected[name] = storage.cast(plain)
    pq.write_table(pa.table({"uri": ["a.mp4", "b.mp4"], **made, **more}), file)
    return expected


def test_every_type_of_parquet_passes_through_the_manifest(tmp_path: Path) -> None:
    expected = write_kinds(tmp_path / "l.parquet")
    manifest = tmp_path / "manifest"
    for _ in range(2):  # and a run that goes on
        listing = list_input(str(tmp_path / "l.parquet"))
        schema = store.prepare(manifest, manifest_schema({}, listing.input_fields))
        store.merge(manifest, schema)
        for row in listing.rows:
            table = to_table([row | {"stages": {}}], schema)
            store.commit(manifest, to_table(to_rows(table), schema))
        assert store.merge(manifest, schema) == 2
        stored = store.read(manifest).sort_by("source_uri")
        for name, column in expected.items():
            assert stored[name].combine_chunks().equals(column.cast(stored[name].type)), name
            assert stored[name].to_pylist() == column.to_pylist(), name


def test_every_type_of_parquet_passes_through_a_limit(tmp_path: Path) -> None:
    write_kinds(tmp_path / "l.parquet")
    whole, first = (list_input(str(tmp_path / "l.parquet"), limit=limit).table for limit in (None, 1))
    assert first.equals(whole.slice(0, 1), check_metadata=True)


def test_a_list_of_views_names_media_and_ranges(tmp_path: Path) -> None:
    table = pa.table(
        {
            "uri": pa.array(["a.mp4", "b.mp4"], VIEW),
            "source": pa.array(["s", None]).dictionary_encode(),
            "licence": pa.array([b"CC0", None], pa.binary()),
            "start_s": pa.array([Decimal("1.5"), None], pa.decimal128(5, 1)),
            "end_s": pa.array([2, 3], pa.int8()),
        }
    )
    pq.write_table(table, tmp_path / "l.parquet")
    a, b = list_input(str(tmp_path / "l.parquet")).rows
    assert (a["source"], a["licence"], a["start_s"], a["end_s"]) == ("s", "CC0", 1.5, 2.0)
    assert (b["source"], b["licence"], b["start_s"], b["end_s"]) == ("l", None, None, 3.0)


def test_times_of_day_that_python_would_round_are_refused(tmp_path: Path) -> None:
    time = pa.array([123456789012], pa.time64("ns"))
    pq.write_table(pa.table({"uri": ["a.mp4"], "at": time}), tmp_path / "l.parquet")
    with pytest.raises(InputError, match=r"column at of type time64.ns. cannot be kept"):
        list_input(str(tmp_path / "l.parquet"))


def test_text_of_parquet_that_is_no_utf_8_is_refused_by_column(tmp_path: Path) -> None:
    text = pa.array([b"a", b"\xe9"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"uri": ["a.mp4", "b.mp4"], "note": text}), tmp_path / "l.parquet")
    with pytest.raises(InputError, match=r"column note of type string cannot be kept.*UTF8"):
        list_input(str(tmp_path / "l.parquet"))


def test_folders_above_a_list_are_no_columns(tmp_path: Path) -> None:
    (tmp_path / "day=1").mkdir()
    pq.write_table(pa.table({"uri": ["a.mp4"]}), tmp_path / "day=1" / "l.parquet")
    assert read_list(tmp_path / "day=1" / "l.parquet", ".parquet")[0].column_names == ["uri"]


# Lists elsewhere.


def test_large_lists_of_a_server_without_ranges_are_read(tmp_path: Path) -> None:
    names = [f"{i:0200d}.mp4" for i in range(40_000)]
    (tmp_path / "l.csv").write_text("uri\n" + "\n".join(names))
    noise = [uuid.uuid5(uuid.NAMESPACE_URL, str(i)).hex * 8 for i in range(40_000)]
    pq.write_table(pa.table({"uri": names, "noise": noise}), tmp_path / "l.parquet", compression=None)
    (tmp_path / "broken.csv").write_text("uri\n" + "\n".join(names))
    key = "?X-Amz-Signature=d0n0ttell/x.y"
    with file_server(tmp_path) as address:
        for name in ("l.csv", "l.parquet", f"l.csv{key}"):
            rows = list_input(f"{address}/{name}").rows
            assert [row["source_uri"] for row in rows] == [f"{address}/{name}" for name in names]
            assert {row["source"] for row in rows} == {"l"}
        for name, message in [
            ("broken.csv", "broke off"),
            ("missing.csv", "no such file"),
            ("secret.csv", "refuses the file .403."),
        ]:
            with pytest.raises(InputError, match=f"{name}.*{message}|{message}.*{name}") as caught:
                list_input(f"{address}/{name}{key}")
            assert "d0n0ttell" not in str(caught.value)
