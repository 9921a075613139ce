"""Reviews: none is lost, each reviewer's last word counts, and what they decide goes before the screen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from manifests import reviews, storage, store
from manifests.journal import DamagedError
from manifests.outcomes import with_outcomes
from manifests.reviews import Review, ReviewLog
from manifests.schema import ERROR, SOURCE_COLUMNS, STOPPED, manifest_schema
from manifests.screen import Rule, Screen, compare, rescreen
from tests.conftest import ROOT
from tests.support.object_store import new_folder, s3_server

Bucket = Callable[[], Path]
SCREEN = Screen(name="s", rules=[Rule(reason="low", column="score", min=2)])
SHORT = pa.schema(
    [
        *(("sample_id", pa.string()), ("score", pa.float64()), ("synthesis_by", pa.string())),
        *(("keep", pa.bool_()), ("drop_reasons", pa.list_(pa.string()))),
        *(("stopped", STOPPED), ("error", ERROR)),
    ]
)


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3_server():
        yield new_folder


def say(sample: str, reviewer: str, verdict: Any, **more: Any) -> Review:
    return Review(sample_id=sample, reviewer=reviewer, verdict=verdict, **more)


def said(run: Path) -> list[tuple[str, str, str]]:
    rows = reviews.read(run).to_pylist()
    return [(row["sample_id"], row["reviewer"], row["verdict"]) for row in rows]


def decided(run: Path) -> dict[str, str]:
    table = reviews.decided(reviews.read(run))
    return dict(zip(*(table[name].to_pylist() for name in ("sample_id", "review")), strict=True))


# The log.


def test_pandas_reads_all_reviews(tmp_path: Path) -> None:
    one, other = ReviewLog(tmp_path), ReviewLog(tmp_path)
    shown: dict[str, Any] = {
        "screen": "s",
        "screen_hash": SCREEN.hash,
        "keep": False,
        "drop_reasons": ["low"],
    }
    at = one.append([say("a", "Ada", "keep", note="sharp enough", **shown)])
    other.append([say("b", "Bo", "flag")])
    one.append([say("a", "Ada", "clear"), say("c", "Ada", "drop")])
    rows = pd.read_parquet(tmp_path / "reviews.parquet").sort_values("at").reset_index(drop=True)
    assert rows["sample_id"].tolist() == ["a", "b", "a", "c"] and rows["at"][0] == at
    assert rows["verdict"].tolist() == ["keep", "flag", "clear", "drop"]
    first = rows.iloc[0]
    assert (first.note, first.screen, first.screen_hash) == ("sharp enough", "s", SCREEN.hash)
    assert not first.keep and first.drop_reasons.tolist() == ["low"]
    assert str(rows["at"].dtype) == "datetime64[us, UTC]" and rows["at"][2] == rows["at"][3]
    assert reviews.read(tmp_path).schema.equals(reviews.SCHEMA)


def test_a_run_without_reviews_has_none(tmp_path: Path) -> None:
    table = reviews.read(tmp_path)
    assert table.num_rows == 0 and table.schema.equals(reviews.SCHEMA)
    assert reviews.latest(table).num_rows == 0 and reviews.decided(table).num_rows == 0


def test_what_one_log_is_told_later_is_later(tmp_path: Path) -> None:
    log = ReviewLog(tmp_path)
    times = [log.append([say("a", "Ada", "keep")]) for _ in range(20)]
    assert times == sorted(set(times)) and len(reviews.files(tmp_path)) == 1


def test_a_log_goes_on_in_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "ROWS_PER_FILE", 3)
    log = ReviewLog(tmp_path)
    for number in range(8):
        log.append([say(f"s{number}", "Ada", "keep")])
    assert [sample for sample, _, _ in said(tmp_path)] == [f"s{number}" for number in range(8)]
    assert [pq.read_metadata(path).num_rows for path in reviews.files(tmp_path)] == [3, 3, 2]


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_writers_at_once_lose_nothing_and_readers_see_only_whole_reviews(
    tmp_path: Path, bucket: Bucket, where: str
) -> None:
    run = tmp_path if where == "folder" else bucket()
    one, two = ReviewLog(run), ReviewLog(run)
    seen: list[Counter[str]] = []
    problems: list[Exception] = []
    end = threading.Event()

    def write(log: ReviewLog, name: str) -> None:
        for number in range(25):
            log.append([say(f"{name}{number}", name, "keep"), say(f"{name}{number}", name, "drop")])

    def look() -> None:
        while not end.is_set():
            try:
                seen.append(Counter(sample for sample, _, _ in said(run)))
            except Exception as error:
                problems.append(error)

    writers = [
        threading.Thread(target=write, args=given)
        for given in ((one, "a"), (one, "b"), (two, "c"), (two, "d"))
    ]
    reader = threading.Thread(target=look)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    end.set()
    reader.join()
    assert not problems and seen
    assert all(count == 2 for counts in seen for count in counts.values())  # appended together, seen together
    assert Counter(said(run)) == Counter(
        (f"{name}{number}", name, verdict)
        for name in "abcd"
        for number in range(25)
        for verdict in ("keep", "drop")
    )
    assert len(pd.read_parquet(str(run / "reviews.parquet"))) == 200


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    program = (
        "import sys, itertools; from pathlib import Path; from manifests.reviews import Review, ReviewLog\n"
        "log = ReviewLog(Path(sys.argv[1]))\n"
        "for n in itertools.count():\n"
        "    log.append([Review(sample_id=str(n), reviewer='Ada', verdict='keep')]); print(n, flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        answered = [int(writer.stdout.readline()) for _ in range(15)]
        os.kill(writer.pid, signal.SIGKILL)
        answered += [int(line) for line in writer.stdout if line.endswith("\n")]
    found = [int(sample) for sample, _, _ in said(tmp_path)]
    assert found[: len(answered)] == answered and found == list(range(len(found)))
    assert len(pd.read_parquet(tmp_path / "reviews.parquet")) == len(found)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    ReviewLog(tmp_path).append([say("a", "Ada", "keep")])
    (path,) = reviews.files(tmp_path)
    whole = path.read_bytes()
    other = path.with_name("other.parquet")
    for data in (whole[:-20], b"", b"PAR1"):
        other.write_bytes(data)
        with pytest.raises(DamagedError, match=rf"other.parquet cannot be read .* repair {tmp_path}"):
            reviews.read(tmp_path)
    pq.write_table(pa.table({"sample_id": ["a"]}), other)
    with pytest.raises(DamagedError, match=r"other.parquet .*no column reviewer"):
        reviews.read(tmp_path)
    other.rename(other.with_name("_other.parquet"))
    assert said(tmp_path) == [("a", "Ada", "keep")]


@pytest.mark.parametrize(
    "wrong",
    [{"verdict": "maybe"}, {"note": "x" * 2001}, {"reviewer": ""}, {"sample_id": ""}, {"at": "2026-01-01"}],
)
def test_a_wrong_review_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Review.model_validate({"sample_id": "a", "reviewer": "Ada", "verdict": "keep"} | wrong)


# What is decided.


def test_the_majority_of_last_words_decides(tmp_path: Path) -> None:
    log = ReviewLog(tmp_path)
    log.append([say("a", "Ada", "drop"), say("a", "Ada", "keep")])
    log.append([say("b", "Ada", "keep"), say("b", "Bo", "drop")])
    log.append(
        [say("c", "Ada", "keep"), say("c", "Bo", "drop"), say("c", "Cy", "drop"), say("c", "Di", "flag")]
    )
    log.append([say("d", "Ada", "keep"), say("d", "Ada", "flag")])
    log.append([say("e", "Ada", "drop"), say("e", "Bo", "keep"), say("e", "Ada", "clear")])
    assert decided(tmp_path) == {"a": "keep", "c": "drop", "e": "keep"}
    last = reviews.latest(reviews.read(tmp_path)).to_pylist()
    words = [(row["sample_id"], row["reviewer"], row["verdict"]) for row in last]
    assert ("e", "Ada", "clear") not in words and ("d", "Ada", "flag") in words and len(words) == 9


WORDS = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(["Ada", "Bo", "Cy"]),
    st.sampled_from(["keep", "drop", "flag", "clear"]),
)


def naive(words: list[tuple[str, str, str]]) -> dict[str, str]:
    last = {(sample, reviewer): verdict for sample, reviewer, verdict in words}
    votes: Counter[str] = Counter()
    for (sample, _), verdict in last.items():
        votes[sample] += {"keep": 1, "drop": -1}.get(verdict, 0)
    return {sample: "keep" if vote > 0 else "drop" for sample, vote in votes.items() if vote}


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(WORDS, max_size=15))
def test_decisions_are_those_of_a_plain_count(words: list[tuple[str, str, str]]) -> None:
    rows = [{"sample_id": s, "reviewer": r, "verdict": v, "at": n} for n, (s, r, v) in enumerate(words)]
    table = reviews.decided(pa.Table.from_pylist(rows, schema=reviews.SCHEMA))
    assert {row["sample_id"]: row["review"] for row in table.to_pylist()} == naive(words)


# Screens and reviews.

REVIEWED = pa.schema([*SHORT, ("review", pa.string())])


def judge(review: str | None, **values: Any) -> list[str]:
    row = {"sample_id": "a", "review": review, **values}
    keep, reasons = SCREEN.verdicts(pa.Table.from_pylist([row], schema=REVIEWED))
    assert keep.tolist() == [not reasons.to_pylist()[0]]
    return reasons.to_pylist()[0]


def test_reviewers_go_before_rules_and_nulls() -> None:
    for values, why in (({"score": 1.0}, ["low"]), ({}, ["missing:score"]), ({"score": 3.0}, [])):
        assert judge(None, **values) == judge("flag", **values) == why
        assert judge("keep", **values) == []
        assert judge("drop", **values) == ["review", *why]


def test_reviewers_do_not_go_before_errors_gates_and_stand_ins() -> None:
    error = {"stage": "probe", "kind": "MediaError", "message": "m", "traceback": "", "fingerprint": ""}
    stop = {"stage": "faces", "reason": "no face", "waits": False}
    assert judge("keep", score=1.0, error=error) == ["error:probe"]
    assert judge("keep", score=1.0, stopped=stop) == ["stopped:faces"]
    assert judge("keep", score=1.0, synthesis_by="stand_in_warp") == ["stand_in"]
    assert judge("drop", score=3.0, synthesis_by="stand_in_warp") == ["stand_in", "review"]


def test_a_rule_of_that_name_gives_the_reason_once() -> None:
    screen = Screen(name="s", rules=[Rule(reason="review", column="score", min=2)])
    rows = [{"review": "drop", "score": 1.0}, {"score": 1.0}, {"review": "keep", "score": 1.0}]
    assert screen.verdicts(pa.Table.from_pylist(rows, schema=REVIEWED))[1].to_pylist() == [["review"]] * 2 + [
        []
    ]


def test_rows_of_pandas_are_judged_with_their_reviews() -> None:
    rows = pd.DataFrame({"score": [1.0, 1.0, 3.0], "review": ["keep", None, "drop"]})
    assert SCREEN.judge(rows)["drop_reasons"].tolist() == [[], ["low"], ["review"]]
    assert SCREEN.judge(rows.assign(review=None))["keep"].tolist() == [False, False, True]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two files of a manifest that knows no reviews; a0 and b0 are low."""
    for number, name in enumerate("ab"):
        rows = [{"sample_id": f"{name}{i}", "score": i + 1.0} for i in range(3)]
        table = SCREEN.apply(pa.Table.from_pylist(rows, schema=SHORT))
        store.write_table(tmp_path / "manifest" / f"manifest-0000{number}.parquet", table)
    return tmp_path


def screened(run: Path) -> dict[str, Any]:
    return rescreen(run / "manifest", SCREEN, known=[reviews.decided(reviews.read(run))])


def verdicts(run: Path) -> dict[str, Any]:
    rows = pd.read_parquet(run / "manifest")
    said = rows["review"].astype(object).where(rows["review"].notna(), None)
    return {
        name: (bool(keep), list(why), review)
        for name, keep, why, review in zip(
            rows["sample_id"], rows["keep"], rows["drop_reasons"], said, strict=True
        )
    }


def states(run: Path) -> list[tuple[int, int]]:
    return [(f.stat().st_ino, f.stat().st_mtime_ns) for f in store.manifest_files(run / "manifest")]


def test_screening_puts_reviews_into_the_manifest(run: Path) -> None:
    log = ReviewLog(run)
    log.append(
        [
            say("a0", "Ada", "keep"),
            say("a1", "Ada", "drop"),
            say("a2", "Ada", "keep"),
            say("no", "Ada", "drop"),
        ]
    )
    before = states(run)
    difference = compare(run / "manifest", SCREEN, [reviews.decided(reviews.read(run))])
    assert (difference.to_keep, difference.to_drop, states(run)) == (["a0"], ["a1"], before)
    assert screened(run) == {"rows": 6, "kept": 4, "dropped": 2, "changed": 2}
    wanted = {
        **{"a0": (True, [], "keep"), "a1": (False, ["review"], "drop"), "a2": (True, [], "keep")},
        **{"b0": (False, ["low"], None), "b1": (True, [], None), "b2": (True, [], None)},
    }
    assert verdicts(run) == wanted
    after = states(run)
    assert screened(run)["changed"] == 0 and states(run) == after
    assert rescreen(run / "manifest", SCREEN)["changed"] == 0 and states(run) == after  # they stay
    log.append([say("a0", "Ada", "clear"), say("a1", "Bo", "keep"), say("a2", "Ada", "clear")])
    assert screened(run)["changed"] == 2
    assert verdicts(run) == wanted | {
        **{"a0": (False, ["low"], None), "a1": (True, [], None), "a2": (True, [], None)},
    }
    assert states(run)[1] == after[1]


def test_without_reviews_a_manifest_of_before_stays_as_it_is(run: Path) -> None:
    before = states(run)
    assert screened(run)["changed"] == 0 and states(run) == before
    assert "review" not in pd.read_parquet(run / "manifest").columns


def test_a_column_of_an_input_list_is_no_review(tmp_path: Path) -> None:
    given = pa.field("review", pa.string(), metadata={"from": "input list"})
    schema = pa.schema([*SHORT, given])
    table = pa.Table.from_pylist([{"sample_id": "a", "score": 1.0, "review": "keep"}], schema=schema)
    store.write_table(tmp_path / "manifest" / "manifest-00000.parquet", SCREEN.apply(table))
    before = states(tmp_path)
    ReviewLog(tmp_path).append([say("a", "Ada", "keep")])
    assert screened(tmp_path)["kept"] == 0 and states(tmp_path) == before


def test_a_rule_may_ask_for_reviews(run: Path) -> None:
    screen = Screen(name="s", rules=[Rule(reason="not_wanted", column="review", equals="keep")])
    ReviewLog(run).append([say("a0", "Ada", "keep"), say("b1", "Ada", "drop")])
    rescreen(run / "manifest", screen, known=[reviews.decided(reviews.read(run))])
    kept = {name: why for name, (_, why, _) in verdicts(run).items()}
    without = {name: ["missing:review"] for name in ("a1", "a2", "b0", "b2")}
    assert kept == without | {"a0": [], "b1": ["review", "not_wanted"]}


def test_the_column_stands_where_the_schema_has_it(run: Path) -> None:
    schema = manifest_schema({})
    empty = schema.empty_table().drop_columns(["review"])
    decided = pa.table([["a"], ["keep"]], schema=reviews.DECIDED)
    assert with_outcomes(empty, [decided]).schema.equals(schema, check_metadata=True)
    assert "review" not in SOURCE_COLUMNS and storage.files(run / "reviews.parquet") == []
