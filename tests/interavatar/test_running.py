"""`ia.run` and `ia.read_manifest`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import interavatar as ia
from interavatar.settings import overrides
from manifests import store
from pipelines import catalogue
from pipelines.engine.record import read_run
from tests.docs.sandbox import astronaut
from tests.support.helpers import make_files
from tests.support.toys import Length, Square


class ToySettings(ia.Settings):
    length: Length.Config = Length.Config()
    square: Square.Config = Square.Config()


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline of toy stages beside the real ones."""
    screen = tmp_path / "toy.yaml"
    screen.write_text("{name: toy, rules: [{reason: too_long, column: length, max: 20}]}")

    def build(models: Any, settings: ToySettings) -> ia.Pipeline:
        stages = [Length(config=settings.length), Square(config=settings.square)]
        return ia.Pipeline("toy", stages, str(screen), max_seconds=30)

    monkeypatch.setitem(catalogue.PIPELINES, "toy", (ToySettings, build))  # type: ignore[arg-type]


def test_a_run_gives_its_rows_and_goes_on(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 3)
    first = ia.run("toy", input=files, output=tmp_path / "out", limit=2, progress=False)
    assert len(first) == 2 and first["keep"].all() and first["length"].tolist() == [12, 12]
    again = ia.run("toy", input=files, output=tmp_path / "out", settings={"length.add": 9}, progress=False)
    assert again["length"].tolist() == [21] * 3 and again["square"].tolist() == [441.0] * 3
    assert again["drop_reasons"].map(list).tolist() == [["too_long"]] * 3
    assert again.attrs["units"]["length"] == "characters"
    record = read_run(tmp_path / "out")
    assert record is not None and record["counts"]["computed"] == 3
    assert (tmp_path / "out" / "report.html").exists()


def test_only_rows_of_this_input_are_given(tmp_path: Path) -> None:
    ia.run("toy", input=make_files(tmp_path / "in", 3), output=tmp_path / "out", progress=False)
    one = ia.run("toy", input=tmp_path / "in" / "clip0001.mp4", output=tmp_path / "out", progress=False)
    assert [Path(uri).name for uri in one["source_uri"]] == ["clip0001.mp4"]
    assert len(ia.read_manifest(tmp_path / "out")) >= 3


def test_progress_goes_to_standard_error_if_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = make_files(tmp_path / "in", 2)
    ia.run("toy", input=files, output=tmp_path / "out", progress=False)
    assert capsys.readouterr() == ("", "")
    ia.run("toy", input=files, output=tmp_path / "out")
    said = capsys.readouterr()
    assert said.out == "" and "toy: 0 samples to compute, 2 reused" in said.err


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pipeline": "toys"}, ia.SettingsError, "no pipeline 'toys'"),
        (
            {"settings": {"length": {"ad": 1}}},
            ia.SettingsError,
            "unknown key length.ad; did you mean length.add",
        ),
        ({"profile": "laptops"}, ia.SettingsError, "no profile 'laptops'"),
        ({"screen": "nowhere"}, ia.SettingsError, "no screen 'nowhere'"),
        ({"input": "nothing_there"}, ia.InputError, "nothing_there"),
    ],
)
def test_what_is_wrong_is_one_clear_error(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    given: dict[str, Any] = {"pipeline": "toy", "input": make_files(tmp_path / "in", 1), **change}
    with pytest.raises(error, match=message):
        ia.run(given.pop("pipeline"), output=tmp_path / "out", progress=False, **given)
    assert not (tmp_path / "out").exists()


def test_a_pipeline_is_given_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ia.SettingsError, match=r"by its name; .* 'FILE\.py:NAME'"):
        ia.run(len, input=tmp_path, output=tmp_path / "out")  # type: ignore[arg-type]


def test_an_output_inside_the_input_is_refused(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 1)
    with pytest.raises(ia.SettingsError, match="lies inside --input"):
        ia.run("toy", input=files, output=files / "out")


@pytest.mark.slow
def test_of_two_steps_the_rows_of_the_second_are_given(tmp_path: Path) -> None:
    rows = ia.run(
        "synthetic_interactions",
        input=astronaut(),
        output=tmp_path / "out",
        settings={"clips": 2, "reactions": {"types": ["poked"]}},
        progress=False,
    )
    assert len(rows) == 2 and set(rows["interaction_type"]) == {"poked"}
    assert set(rows["parent_id"]) == set(ia.read_manifest(tmp_path / "out" / "portraits")["sample_id"])


def test_settings_may_be_nested_or_dotted() -> None:
    assert overrides({"a.b": 1, "a": {"c": {"d": [1, 2.5]}, "e": None}, "f": True, "g": "x: y"}) == [
        *("a.b=1", "a.c.d=[1, 2.5]", "a.e=null", "f=true", "g='x: y'"),
    ]
    assert overrides({"models": Path("/m"), "types": ("kissed", "blown on"), "s": "1"}) == [
        *("models=/m", "types=[kissed, blown on]", "s='1'"),
    ]


def test_a_manifest_of_several_files_is_read_with_units_and_meanings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROWS_PER_FILE", 2)
    ia.run("toy", input=make_files(tmp_path / "in", 5), output=tmp_path / "out", progress=False)
    assert len(store.manifest_files(tmp_path / "out" / "manifest")) == 3
    rows = ia.read_manifest(tmp_path / "out")
    pd.testing.assert_frame_equal(rows, ia.read_manifest(str(tmp_path / "out" / "manifest")))
    assert len(rows) == 5 and rows["length"].tolist() == [12] * 5
    assert rows["stages"][0].keys() == {"length", "square"}
    assert rows.attrs["meanings"]["length"] == "Length of the name."
    assert rows.attrs["units"]["width"] == "px"
    assert list(rows.attrs["units"]) == list(rows.attrs["meanings"]) == list(rows.columns)


def test_a_manifest_without_metadata_is_read_by_the_schema(tmp_path: Path) -> None:
    table = pa.table({"sample_id": ["a"], "width": [640], "mine": [1.0]})
    store.write_table(tmp_path / "manifest" / "manifest-00000.parquet", table)
    rows = ia.read_manifest(tmp_path)
    assert rows["width"].tolist() == [640]
    assert rows.attrs["units"] == {"sample_id": "", "width": "px", "mine": ""}


def test_a_folder_without_a_manifest_is_named_with_what_is_below(tmp_path: Path) -> None:
    with pytest.raises(ia.InputError, match=r"no manifest in .*give the --output of a run"):
        ia.read_manifest(tmp_path)
    store.write_table(tmp_path / "clips" / "manifest" / "manifest-00000.parquet", pa.table({"a": [1]}))
    with pytest.raises(ia.InputError, match=r"there is one in .*/clips$"):
        ia.read_manifest(tmp_path)
