"""A pipeline that follows from another: two runs, the second with samples chosen from the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from configs.reading import SettingsError
from manifests import store
from manifests.schema import to_rows
from pipelines import catalogue
from pipelines.engine.pipeline import Follow, Pipeline
from pipelines.engine.settings import Settings
from pipelines.engine.source import Listing
from pipelines.estimate.cost import estimates
from pipelines.requests import Request, prepare
from pipelines.shards.plan import open_runs
from stages.clip import Clip
from stages.contract import Column, Stage
from tests.support.helpers import make_files, manifest, quiet
from tests.support.toys import Length

SOURCE = ("source", "source_uri", "media_uri", "start_s", "end_s", "source_size", "licence")


class Twice(Stage):
    """Twice what the chosen row was given."""

    reads = ("given",)
    writes = {"twice": Column("int", "", "Twice that.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        return {"twice": 2 * clip["given"]}


class FollowSettings(Settings):
    wanted: int = 3


def choose(folder: Path, listed: pa.ChunkedArray) -> Listing:
    """A sample of each kept row."""
    rows = [
        {name: row[name] for name in SOURCE}
        | {"sample_id": f"of-{row['sample_id']}", "parent_id": row["sample_id"], "given": row["length"]}
        for row in to_rows(store.read(folder / "manifest"))
        if row["keep"] and row["sample_id"] in listed.to_pylist()
    ]
    return Listing.of(rows, FIELDS)


FIELDS = [pa.field("given", pa.int64(), metadata={"from": "input list"})]


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screens = {}
    for name, column in (("short", "length"), ("twice", "twice")):
        rule = {"reason": "long", "column": column, "max": 99, "source": "a toy needs none"}
        screens[name] = str(tmp_path / f"{name}.yaml")
        Path(screens[name]).write_text(yaml.safe_dump({"name": name, "rules": [rule]}))

    def build(models: Any, settings: FollowSettings) -> Pipeline:
        first = Pipeline("firsts", [Length()], screens["short"], max_seconds=30)
        follows = Follow(first, choose, FIELDS, settings.wanted, "seconds", "nothing was kept")
        return Pipeline("toy_follow", [Twice()], screens["twice"], max_seconds=30, follows=follows)

    monkeypatch.setitem(catalogue.PIPELINES, "toy_follow", (FollowSettings, build))
    monkeypatch.setitem(catalogue.STEPS, "toy_follow", ("firsts", "seconds"))


def test_the_second_run_takes_what_the_first_has_kept(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 2), tmp_path / "out"
    first, second = prepare(Request("toy_follow", str(files), out))
    assert (first.folder, second.folder) == (out / "firsts", out / "seconds")
    assert len(second.listing) == 0 and not out.exists()
    for run in (first, second):
        record = run.execute(quiet())
    assert record["pipeline"] == "toy_follow" and record["counts"]["ids_in"] == 2
    rows = manifest(out / "seconds")
    assert rows["twice"].tolist() == [24, 24] and all(rows["sample_id"].str.startswith("of-"))
    assert catalogue.steps_in(out) == [out / "firsts", out / "seconds"]
    (opened,) = open_runs([str(out)], {}, allow_preview=False)
    assert (opened.name, opened.folder, len(opened.ids)) == ("out", out / "seconds", 2)


def test_the_same_request_again_computes_only_what_is_new(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 2), tmp_path / "out"
    for count in (2, 3):
        make_files(files, count)
        counts = [run.execute(quiet())["counts"] for run in prepare(Request("toy_follow", str(files), out))]
        assert [c["computed"] for c in counts] == ([2, 2] if count == 2 else [1, 1])


def test_what_is_wrong_with_the_second_is_said_before_the_first_runs(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 1), tmp_path / "out"
    wrong = tmp_path / "wrong.yaml"
    rule = {"reason": "r", "column": "no_such", "max": 1, "source": "a toy needs none"}
    wrong.write_text(yaml.safe_dump({"name": "wrong", "rules": [rule]}))
    with pytest.raises(SettingsError, match="no_such"):
        prepare(Request("toy_follow", str(files), out, screen=str(wrong)))
    assert not out.exists()


def test_too_few_are_said_in_the_words_of_the_pipeline(tmp_path: Path) -> None:
    run = prepare(Request("toy_follow", str(make_files(tmp_path / "in", 1)), tmp_path / "out"))[1]
    follows = run.pipeline.follows
    assert follows is not None and follows.shortfall(3) is None and follows.shortfall(0) == "nothing was kept"
    assert follows.shortfall(2) == "3 seconds were asked for; the kept firsts give no more than 2"


def test_the_plan_is_exact_once_the_first_is_finished(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 2), tmp_path / "out"
    request = Request("toy_follow", str(files), out)
    first, second = estimates(request)
    assert (first.todo, second.todo) == (2, 3)
    assert second.notes == ["3 seconds are asked for; fewer are made if the kept firsts give no more"]
    prepare(request)[0].execute(quiet())
    first, second = estimates(request)
    assert (first.todo, second.todo, second.notes) == (0, 2, [])
