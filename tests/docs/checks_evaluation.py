"""What must be so after the commands of docs/evaluation.md."""

from __future__ import annotations

import json

import pandas as pd

from tests.docs.checks import At, after
from tests.support.evaluation_clips import NAMES

PAGE = "docs/evaluation.md"
METHODS = ["ours", "theirs", "others"]
ALL = " ".join(f"--method {name}=made/{name}" for name in METHODS)


@after(PAGE, f"interavatar evaluate {ALL} --reference real --output evaluation")
def _(at: At) -> None:
    found = json.loads((at.folder / "evaluation/metrics.json").read_text())
    assert found["methods"] == [*METHODS, "reference"]
    fid = next(figure for figure in found["figures"] if figure["metric"] == "fid")
    values = [fid["values"][""][name]["value"] for name in METHODS]
    assert values[0] == min(values) and "FID (efficientnet_lite0) ↓" in at.done.said
    rows = at.rows("evaluation")
    assert len(rows) == 4 * len(NAMES) and {"method", "pair", "ase_brisque"} <= set(rows.columns)
    for name in ("table.md", "table.tex", "table_intervals.tex", "table.csv", "report.html", "clips.parquet"):
        assert (at.folder / "evaluation" / name).is_file(), name


@after(PAGE, "interavatar evaluate --method ours=made/ours --reference real --output dyadic --metrics dyadic")
def _(at: At) -> None:
    assert at.rows("dyadic").ssim.notna().sum() == len(NAMES)


@after(PAGE, "interavatar evaluate made/ours --output alone --metrics ase,temp_c")
def _(at: At) -> None:
    assert "no reference: only what is measured on its clips alone has numbers" in at.done.said
    assert at.rows("alone").temp_c_efficientnet_lite0.between(0.5, 1).all()


@after(PAGE, "python 1")
def _(at: At) -> None:
    table, described = at.values
    assert list(table.index) == ["others", "ours", "reference", "theirs"]
    assert isinstance(described, pd.DataFrame) and described["count"].max() <= len(NAMES)
    assert at.record("evaluation")["counts"]["computed"] == 0
