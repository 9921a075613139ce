"""The benchmark of scale does what it says it measures; times are nobody's business here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks import scale
from manifests import store

ROWS, MERGED, PER_FILE = 1000, 900, 400


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[scale.Place]:
    """A finished run of three files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "ROWS_PER_FILE", PER_FILE)
        place = scale.Place(tmp_path_factory.mktemp("scale"), ROWS, MERGED)
        scale.make_run(place)
        yield place


def outcomes(run: Path) -> dict[str, int]:
    table = store.read(run / "manifest", ["keep", "error", "stopped"])
    kept, failed, stopped = (
        pc.sum(table["keep"]),
        *(pc.sum(pc.is_valid(table[n])) for n in ("error", "stopped")),
    )
    return {"kept": kept.as_py(), "failed": failed.as_py(), "stopped": stopped.as_py()}


def test_the_run_is_one_of_many_columns(place: scale.Place) -> None:
    table = store.read(place.run / "manifest")
    assert [store.num_rows(file) for file in store.manifest_files(place.run / "manifest")] == [400, 400, 200]
    assert table.num_rows == len(set(table["sample_id"].to_pylist())) == ROWS
    assert 130 <= table.num_columns <= 160
    assert sum(pa.types.is_floating(field.type) for field in table.schema) >= scale.SCORES
    found = outcomes(place.run)
    assert 600 < found["kept"] < 720 and 0 < found["failed"] < 30 and 0 < found["stopped"] < 30
    stages = {len(done) for done in table.filter(table["keep"])["stages"].to_pylist()}
    assert stages == {scale.STAGES}


EXPECTED = {
    "rerun": {"ids_in": ROWS, "computed": 0, "reused": ROWS, "manifest_rows": ROWS},
    "limit": {"ids_in": 10, "computed": 0, "reused": 10, "manifest_rows": ROWS},
    "add": {"ids_in": 1000, "computed": 1000, "reused": 0, "manifest_rows": ROWS + 1000},
    "folder": {"listed": ROWS},
    "paths": {"listed": ROWS},
    "urls": {"listed": ROWS},
    **{
        f"merge-{which}-{size}": {"merged": merged, "manifest_rows": rows, "waiting": 0}
        for size in (256, 8)
        for which, merged, rows in (
            ("new", MERGED, ROWS + MERGED),
            ("one", PER_FILE, ROWS),  # each row of the file more than once: the newest counts
            ("all", MERGED, ROWS),
        )
    },
}


@pytest.mark.parametrize("name", scale.MEASURES)
def test_each_measure_does_what_it_measures(place: scale.Place, name: str) -> None:
    before = outcomes(place.run)
    with scale.copied(place):
        scale.MEASURES[name].ready(place)
        found = scale.measured(place, name)
    assert all(seconds > 0 for seconds in found.seconds.values()) and found.seconds
    assert 10**7 < found.peak < 10**10
    if name in EXPECTED:
        assert found.counts == EXPECTED[name]
    elif name == "screen":
        assert found.counts["rows"] == ROWS
        assert 250 < found.counts["kept"] == found.counts["kept_there"] < 450
        assert found.counts["changed"] > before["kept"] - found.counts["kept"]
    elif name == "compare":
        assert 500 < found.counts.pop("changed") < 700
        # Five stages' scores, and of the first one's columns those whose values are not all the same.
        assert found.counts == {"removed": 10, "in_both": 990, "scores": 5 * 6 + 5, "columns": 12}
    elif name == "shards":
        assert found.counts["samples"] == found.counts["kept"] == before["kept"]
        assert found.counts["shards"] > 1
    else:
        assert name == "report" and found.counts["bytes"] > 100_000
    assert outcomes(place.run) == before  # what measures change is a copy


def test_lines_of_measures_in_processes_of_their_own(
    place: scale.Place, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = place.folder.rename(place.folder.with_name(str(ROWS)))
    try:
        options = ["--rows", str(ROWS), "--merged", str(MERGED), "--folder", str(folder.parent)]
        scale.main([*options, "--measures", "urls", "merge-new-256"])
    finally:
        folder.rename(place.folder)
    urls, merge = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r" +1000 rows  list addresses +\d+\.\d s \(CPU +\d+\.\d\) +0\.\d\d GB  list \d+\.\d", urls
    )
    assert re.fullmatch(
        r" +1000 rows  merge parts of 256: new rows +\d+\.\d s \(CPU +\d+\.\d\) +0\.\d\d GB  \d+ rows/s",
        merge,
    )
