"""A manifest opens as it is in the tools that read Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import store
from tests.support.helpers import execute, make_files, toy_stages

COUNT = 7


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seven rows in three files; one failed, one was stopped; the list has a map, a day and nulls."""
    monkeypatch.setattr(store, "ROWS_PER_FILE", 3)
    files = make_files(tmp_path / "in", COUNT)
    tags = pa.array([[("a", 1)]] * COUNT, pa.map_(pa.string(), pa.int64()))
    days = pa.array([1] * COUNT, pa.date32())
    listed = {"uri": sorted(file.name for file in files.iterdir()), "tags": tags, "day": days}
    pq.write_table(pa.table({**listed, "nothing": pa.nulls(COUNT)}), files / "list.parquet")
    stages = toy_stages(raise_on="clip0001.mp4", stop_on="clip0002.mp4")
    execute(stages, files / "list.parquet", tmp_path / "out")
    assert len(store.manifest_files(tmp_path / "out" / "manifest")) == 3
    return tmp_path / "out"


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("given", ["data_dir", "data_files", "one_file"])
def test_hugging_face_datasets_loads_every_column(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool, given: str
) -> None:
    datasets = pytest.importorskip("datasets")
    files = [str(path) for path in store.manifest_files(run / "manifest")]
    how: dict[str, Any] = {
        "data_dir": {"data_dir": str(run / "manifest")},
        "data_files": {"data_files": files},
        "one_file": {"data_files": files[0]},
    }[given]
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset("parquet", split="train", streaming=streaming, cache_dir=cache, **how)
    rows = store.read(run / "manifest") if given != "one_file" else store.read_file(Path(files[0]))
    assert list(loaded) == rows.to_pylist()
    assert loaded.column_names == rows.column_names
    assert loaded.features["stages"] == datasets.List(
        {"stage": datasets.Value("string"), "fingerprint": datasets.Value("string")}
    )


def test_hugging_face_datasets_reads_each_row_once_while_others_write(run: Path, tmp_path: Path) -> None:
    """By the documented pattern: `data_dir` takes files below `_next/` and `_parts/`, too."""
    datasets = pytest.importorskip("datasets")
    file = store.manifest_files(run / "manifest")[0]
    store.commit(run / "manifest", store.read_file(file), "a-run")
    store.write_table(run / "manifest" / "_next" / "manifest" / file.name, store.read_file(file))
    pattern = str(run / "manifest" / "*.parquet")
    loaded = datasets.load_dataset(
        "parquet", data_files=pattern, split="train", cache_dir=str(tmp_path / "c")
    )
    assert loaded["sample_id"][:] == store.read(run / "manifest")["sample_id"].to_pylist()


def test_pandas_reads_stages_as_entries(run: Path) -> None:
    rows = pd.read_parquet(run / "manifest").sort_values("source_uri")
    done = ["length", "square", "root", "other"]
    named = [[entry["stage"] for entry in stages] for stages in rows["stages"]]
    assert named == [done, done[:1], done[:2], *[done] * (COUNT - 3)]
    assert rows["tags"].map(list).tolist() == [[{"key": "a", "value": 1}]] * COUNT
