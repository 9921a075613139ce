"""Results of an evaluation as tables, and as a file."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metrics.metric import Better
from metrics.results import Figure, Results, Value, read_results, write_results
from metrics.tables import comma_separated, digits, latex, markdown, notes, places, shown_tables, write_tables

PROTOCOL = {"models": ["net 1@abc"], "settings": {"fps": 2.0}, "pictures": ["2 pictures a second"]}
ABOUT = {
    "clips": 3,
    "errors": 1,
    "left_out": 1,
    "damaged": 0,
    "first_errors": ["ada"],
    "seconds": [4.0, 4.0, 4.0],
    "fps": [25.0, 25.0, 30.0],
    "width": None,
    "height": None,
}


def figure(name: str, better: Better, **values: float | None) -> Figure:
    return Figure(
        name=name,
        title=name.upper(),
        unit="",
        better=better,
        meaning=f"What {name} is.",
        metric=name,
        is_shown=True,
        protocol=PROTOCOL,
        values={
            "": {
                m: Value(v, clips=2) if v is not None else Value(None, note="why not")
                for m, v in values.items()
            }
        },
    )


def results(
    *figures: Figure, methods: tuple[str, ...] = ("a", "b", "c", "reference"), **others: Any
) -> Results:
    given: dict[str, Any] = {
        "methods": list(methods),
        "datasets": [""],
        "figures": list(figures),
        "not_measured": {},
        "clips": {method: {"": ABOUT} for method in methods},
        "notes": {},
        "level": 0.95,
        "draws": 100,
        "seed": 0,
        "profile": "laptop",
    }
    return Results(**{**given, **others})


SCORE = figure("ssim", "higher", a=0.5, b=0.75, c=0.75, reference=None)
DISTANCE = figure("fid", "lower", a=12.345, b=None, c=1234.5, reference=None)


def test_best_and_second_best() -> None:
    assert places(SCORE, "") == {"b": 1, "c": 1, "a": 2}
    assert places(DISTANCE, "") == {"a": 1, "c": 2}
    assert places(figure("fid", "lower", a=1.0, b=None, reference=0.0), "") == {}
    four = figure("x", "higher", a=1.0, b=2.0, c=3.0, d=4.0)
    assert places(four, "") == {"d": 1, "c": 2}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((0.0, "0.000"), (0.98765, "0.988"), (12.345, "12.35"), (123.45, "123.5"), (1234.5, "1234")),
        *((-1.5, "-1.500"), (0.0123456, "0.0123"), (-0.00098, "-0.000980"), (1e-12, "0.00000000")),
    ],
)
def test_digits(value: float, shown: str) -> None:
    assert digits(value) == shown


def test_markdown() -> None:
    one = replace(SCORE, values={"": {**SCORE.values[""], "a": Value(0.5, 0.25, 0.625, 2)}})
    lines = markdown(results(one, DISTANCE)).splitlines()
    assert lines[:6] == [
        "| Method | clips | SSIM ↑ | FID ↓ |",
        "| --- | --: | --: | --: |",
        "| a | 2 | *0.500* [0.250, 0.625] | **12.35** |",
        "| b | 2 | **0.750** | - |",
        "| c | 2 | **0.750** | *1234* |",
        "| reference | 2 | - | - |",
    ]


def test_foreign_names_begin_nothing() -> None:
    name = "a|b <script>`*_&%$#[x](y)\\"
    one = figure("ssim", "higher", **{name: 0.5, "=cmd()": 0.25})
    found = results(one, methods=(name, "=cmd()"), notes={name: ["<b>"]})
    row = markdown(found).splitlines()[2]
    assert row.startswith(r"| a\|b \<script\>\`\*_&%$#\[x\](y)\\ | 2 |")
    named = r"a\textbar{}b \textless{}script\textgreater{}`*\_\&\%\$\#{[}x](y)\textbackslash{}"
    assert rf"{named} & \textbf{{0.500}} \\" in latex(found)
    rows = list(csv.reader(io.StringIO(comma_separated(found))))
    assert [row[0] for row in rows] == ["method", name, "'=cmd()"]


def test_latex_of_two_data_sets() -> None:
    values = {
        "HDTF": {"a": Value(1.0), "b": Value(2.0)},
        "RAVDESS": {"a": Value(4.0), "b": Value(3.0, 2.5, 3.5)},
    }
    one = replace(DISTANCE, values=values)
    found = results(
        one,
        methods=("a", "b"),
        datasets=["HDTF", "RAVDESS"],
        clips={m: dict.fromkeys(values, ABOUT) for m in ("a", "b")},
    )
    assert [line for line in latex(found).splitlines() if not line.startswith("%")] == [
        r"\begin{tabular}{lcc}",
        r"\toprule",
        r" & \multicolumn{1}{c}{HDTF} & \multicolumn{1}{c}{RAVDESS} \\",
        r"\cmidrule(lr){2-2} \cmidrule(lr){3-3}",
        r"Method & FID$\downarrow$ & FID$\downarrow$ \\",
        r"\midrule",
        r"a & \textbf{1.000} & \underline{4.000} \\",
        r"b & \underline{2.000} & \textbf{3.000} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert r"\textbf{3.000} {\scriptsize [2.500, 3.500]}" in latex(found, with_intervals=True)
    assert [table["dataset"] for table in shown_tables(found)["tables"]] == ["HDTF", "RAVDESS"]


def test_what_stands_beside_the_numbers() -> None:
    found = results(
        SCORE,
        figure("fid", "lower", a=1.0, b=2.0, c=None, reference=None),
        notes={"a": ["1 of 3 clips has no real partner: x"]},
        not_measured={"clip_text": "it reads no texts"},
    )
    said = notes(found)
    assert (
        "a: 3 clips, 1 of them with errors, left out, errors of ada, 4 s, 25 to 30 pictures a second." in said
    )
    late = results(SCORE, clips={m: {"": ABOUT | {"errors": 3}} for m in ("a", "b", "c", "reference")})
    assert "a: 3 clips, 1 of them with errors, left out, 2 with errors that count in what was measured" in (
        "\n".join(notes(late))
    )
    assert "a: 1 of 3 clips has no real partner: x." in said
    assert "SSIM: What ssim is. 2 pictures a second, fps 2.0; net 1@abc." in said
    assert "FID, c: why not." in said
    assert "clip_text is not measured: it reads no texts." in said


def test_a_value_over_fewer_clips_says_so() -> None:
    one = replace(SCORE, values={"": {**SCORE.values[""], "a": Value(0.5, clips=1, facts={"pictures": 9})}})
    said = notes(results(one))
    assert "SSIM, a: over 1 of 2 clips." in said and "SSIM, a: pictures 9." in said


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = results(SCORE, DISTANCE)
    path = write_results(found, tmp_path)
    before = path.read_bytes()
    assert read_results(tmp_path) == found
    write_results(found, tmp_path)
    assert path.read_bytes() == before and read_results(tmp_path / "nowhere") is None
    assert {path.name for path in write_tables(found, tmp_path)} == {
        *("table.md", "table.tex", "table_intervals.tex", "table.csv")
    }
    (line, *_) = csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text()))
    assert (line["method"], line["number"], float(line["value"])) == ("a", "ssim", 0.5)
    assert json.loads(line["protocol"]) == PROTOCOL


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "is damaged"), ('{"format": 0}', "of another version"), ("[]", "of another version")],
)
def test_results_that_cannot_be_read(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=f"metrics.json (is )?{said.removeprefix('is ')}|{said}"):
        read_results(tmp_path)
