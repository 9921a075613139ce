"""Shares of wins by hand, intervals that know of clips and raters, and answers that are refused."""

from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines.cli.study import votes as votes_command
from pipelines.cli.typer_app import new_app
from pipelines.evaluation.study_key import Comparison, StudyError, StudyKey, read_key
from pipelines.evaluation.votes import COLUMNS, count_votes, interval, wilson
from pipelines.evaluation.votes_text import as_csv, markdown


def key_of(methods: str = "ab", clips: int = 4, questions: int = 1) -> StudyKey:
    """The first method of each pair stands left in even clips."""
    comparisons = []
    for one, other in itertools.combinations(methods, 2):
        for clip in range(clips):
            left, right = (one, other) if clip % 2 == 0 else (other, one)
            comparisons.append(
                Comparison(
                    id=f"{one}{other}{clip}",
                    clip=f"clip{clip}",
                    left=left,
                    right=right,
                    left_file="",
                    right_file="",
                )
            )
    return StudyKey(
        study="0123456789abcdef",
        seed=0,
        questions={f"q{n}": f"Question {n}?" for n in range(1, questions + 1)},
        methods={name: f"/{name}" for name in methods},
        comparisons=comparisons,
        files={},
    )


def write(path: Path, rows: list[tuple[str, str, str, str]], study: str = "0123456789abcdef") -> Path:
    """Answers of (rater, comparison, answer, time) to q1."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for rater, comparison, answer, at in rows:
            writer.writerow((study, rater, comparison, "q1", answer, at))
    return path


def test_shares_by_hand(tmp_path: Path) -> None:
    """a wins on clip 0 (left) and 1 (right), ties on 2, loses on 3 (left says b)."""
    rows = [("Ada", "ab0", "left", "1"), ("Ada", "ab1", "right", "2")]
    rows += [("Ada", "ab2", "tie", "3"), ("Ada", "ab3", "left", "4")]
    counted = count_votes(key_of(), [write(tmp_path / "a.csv", rows)])
    one, other = counted.shares
    assert (one.method, one.against, one.votes, one.wins, one.ties, one.losses) == ("a", "b", 4, 2, 1, 1)
    assert one.rate == 0.625 and other.rate == 0.375
    assert one.low == pytest.approx(1 - other.high) and one.high == pytest.approx(1 - other.low)
    assert 0 <= one.low < one.rate < one.high <= 1
    assert counted.sides == (2, 1, 1) and counted.notes == []


def test_three_methods_against_all_and_each(tmp_path: Path) -> None:
    key = key_of("abc", 1)
    rows = [("Ada", "ab0", "left", ""), ("Ada", "ac0", "left", ""), ("Ada", "bc0", "tie", "")]
    counted = count_votes(key, [write(tmp_path / "a.csv", rows)])
    assert [(s.method, s.against, s.rate) for s in counted.shares] == [
        *(("a", "", 1.0), ("b", "", 0.25), ("c", "", 0.25)),
        *(
            ("a", "b", 1.0),
            ("a", "c", 1.0),
            ("b", "a", 0.0),
            ("b", "c", 0.5),
            ("c", "a", 0.0),
            ("c", "b", 0.5),
        ),
    ]


def test_the_last_answer_of_a_rater_counts(tmp_path: Path) -> None:
    late = write(tmp_path / "late.csv", [("Ada", "ab0", "right", "2"), ("Ada", "ab2", "left", "2")])
    early = write(tmp_path / "early.csv", [("Ada", "ab0", "left", "1"), ("Ada", "ab2", "left", "1")])
    counted = count_votes(key_of(), [late, early])
    assert (counted.votes, counted.shares[0].wins, counted.shares[0].losses) == (2, 1, 1)
    assert counted.notes == [
        "1 answers were given twice alike, and count once",
        "Ada changed 1 answers: the last ones count",
        "Ada gave 2 of 4 answers",
    ]


def test_intervals_know_of_clips_and_raters() -> None:
    """Votes that differ by clip alone are as many as clips; independent ones have the binomial's width."""
    clips, raters = (grid.ravel() for grid in np.meshgrid(np.arange(20), np.arange(20)))
    by_clip = interval((clips % 2).astype(float), clips, raters)
    alone = interval((np.arange(20) % 2).astype(float), np.arange(20), np.zeros(20, int))
    assert by_clip[1] - by_clip[0] == pytest.approx(alone[1] - alone[0], abs=0.05)
    assert alone[1] - alone[0] == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 20), abs=0.05)
    random = np.random.default_rng(0).integers(0, 2, 400).astype(float)
    mixed = interval(random, clips, raters)
    # The pigeonhole bootstrap of independent votes is too wide, by up to the root of three (Owen 2007).
    width = 2 * 1.96 * np.sqrt(0.25 / 400)
    assert width < mixed[1] - mixed[0] < 1.9 * width
    assert interval(random, clips, raters) == mixed != interval(random, clips, raters, seed=1)


def test_votes_that_are_all_alike_have_an_interval(tmp_path: Path) -> None:
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    rows = [
        (f"r{rater}", f"ab{clip}", ("left", "right")[clip % 2], "") for rater in range(9) for clip in range(4)
    ]
    (one, _) = count_votes(key_of(), [write(tmp_path / "a.csv", rows)]).shares
    assert (one.rate, one.low, one.high) == (1.0, *wilson(1.0, 4))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no answers of a study"),
        ("study,rater\n", "no answers of a study"),
        (f"{','.join(COLUMNS)}\n", "no answer in"),
        (
            f"{','.join(COLUMNS)}\nother,Ada,ab0,q1,left,1\n",
            "line 2: an answer of the study 'other', the key",
        ),
        (
            f"{','.join(COLUMNS)}\n0123456789abcdef,Ada,zz,q1,left,1\n",
            "line 2: the study has no comparison 'zz'",
        ),
        (f"{','.join(COLUMNS)}\n0123456789abcdef,Ada,ab0,q9,left,1\n", "no comparison 'ab0' 'q9'"),
        (f"{','.join(COLUMNS)}\n0123456789abcdef,Ada,ab0,q1,best,1\n", "'best' is none of left, tie, right"),
        (f"{','.join(COLUMNS)}\n0123456789abcdef, ,ab0,q1,left,1\n", "the rater has no name"),
        (f"{','.join(COLUMNS)}\n0123456789abcdef,Ada\n", "2 cells instead of 6"),
        (f'{",".join(COLUMNS)}\n"0123', "no CSV"),
    ],
)
def test_answers_that_do_not_belong_are_refused(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(text)
    with pytest.raises(StudyError, match=said):
        count_votes(key_of(), [file])


def test_what_spreadsheets_make_of_answers(tmp_path: Path) -> None:
    text = "\ufeff" + ";".join(COLUMNS) + "\r\n0123456789abcdef;'=Ada;ab0;q1;left;1\r\n\r\n"
    (tmp_path / "a.csv").write_bytes(text.encode())
    same = write(tmp_path / "b.csv", [("=Ada", "ab0", "left", "1")])
    counted = count_votes(key_of(), [tmp_path / "a.csv", same])
    assert (counted.votes, counted.raters) == (1, 1)


def test_foreign_text_in_the_results(tmp_path: Path) -> None:
    key = key_of().model_copy(
        update={"methods": {"a": "/a", "b": "/b"}, "questions": {"q1": "=SUM(A1) | <b>"}}
    )
    rows = [("R|\n<i>", "ab0", "left", "")]
    counted = count_votes(key, [write(tmp_path / "a.csv", rows)])
    shown = markdown(counted)
    assert r"## =SUM(A1) \| &lt;b>" in shown and r"R\|\\n&lt;i>" in shown
    table = list(csv.DictReader(io.StringIO(as_csv(counted))))
    assert table[0]["question"] == "'=SUM(A1) | <b>" and table[0]["rate"] == "1.000000"


def test_the_command(tmp_path: Path) -> None:
    app = new_app()
    app.command()(votes_command)
    key, answers = tmp_path / "key.json", write(tmp_path / "a.csv", [("Ada", "ab0", "left", "")])
    key.write_text(key_of().model_dump_json())
    assert read_key(key) == key_of()
    done = CliRunner().invoke(app, [str(key), str(answers), "--output", str(tmp_path / "votes.csv")])
    assert done.exit_code == 0, done.output
    assert "| a | b | 1 | 1 | 0 | 0 | 100.0% | 20.7% to 100.0% |" in done.stdout
    assert "- Ada gave 1 of 4 answers" in done.stdout
    assert (tmp_path / "votes.csv").read_text().startswith("question,method,against,")
    key.write_text('{"study": 1}')
    done = CliRunner().invoke(app, [str(key), str(answers)])
    assert done.exit_code == 2 and "no key of a study" in done.stderr
    done = CliRunner().invoke(app, [str(tmp_path / "gone.json"), str(answers)])
    assert done.exit_code == 1 and "gone.json" in done.stderr
