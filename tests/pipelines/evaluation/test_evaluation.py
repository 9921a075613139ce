"""Evaluations from folders of clips to numbers and tables."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from skimage.metrics import structural_similarity
from typer.testing import CliRunner

import interavatar as ia
from configs.errors import UsageError
from configs.reading import SettingsError
from media.decode import decode
from metrics.compared import ComparedConfig
from metrics.results import Results, read_results
from pipelines.cli import app as cli
from pipelines.engine.input_error import InputError
from pipelines.engine.pipeline import Engine
from pipelines.evaluation.inputs import Methods
from pipelines.evaluation.runs import prepare_evaluation
from tests.conftest import ROOT
from tests.support.evaluation_clips import NAMES, make_methods
from tests.support.helpers import manifest, quiet
from tests.support.object_store import new_folder, s3_server

FAST = ("draws=50", "fid.frames=4")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_methods(tmp_path_factory.mktemp("toy"))


def three(toy: Path) -> Methods:
    return Methods({name: str(toy / name) for name in ("copy", "blurred", "noisy")}, str(toy / "real"))


def evaluated(
    methods: Methods,
    output: Path,
    metrics: Sequence[str] = ("ssim", "psnr", "fid"),
    more: Sequence[str] = (),
    engine: Engine = "inline",
) -> tuple[dict[str, Any], Results]:
    """The run's record and the numbers."""
    evaluation = prepare_evaluation(methods, output, metrics, overrides=[*FAST, *more], engine=engine)
    record = evaluation.execute(quiet())
    return record, evaluation.results()


def values(results: Results, name: str, dataset: str = "") -> dict[str, float | None]:
    (figure,) = (figure for figure in results.figures if figure.name == name)
    return {method: value.value for method, value in figure.values[dataset].items()}


@pytest.fixture(scope="module")
def done(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("done")
    evaluated(three(toy), output)
    return output


def test_methods_come_out_in_their_true_order(done: Path) -> None:
    results = read_results(done)
    assert results is not None and results.methods == ["copy", "blurred", "noisy", "reference"]
    for name, direction in (("ssim", -1), ("psnr", -1), ("fid_efficientnet_lite0", 1)):
        found = values(results, name)
        assert found.pop("reference") is None
        ordered = [direction * value for value in found.values() if value is not None]
        assert len(ordered) == 3 and ordered[0] == min(ordered), name
    for figure in results.figures:
        for method in ("copy", "blurred", "noisy"):
            value = figure.values[""][method]
            assert value.low is not None and value.high is not None and value.value is not None
            assert value.low < value.high and value.clips == len(NAMES)
    assert results.clips["copy"][""]["seconds"] == pytest.approx([0.8] * 3)


def test_a_column_is_what_the_library_gives(toy: Path, done: Path) -> None:
    row = manifest(done).query("method == 'blurred' and pair == 'cleo'").iloc[0]
    pictures = [decode(toy / name / "cleo.mp4", [ComparedConfig().request]) for name in ("blurred", "real")]
    made, real = (p.frames[ComparedConfig().request][1] for p in pictures)
    import cv2

    expected = np.mean(
        [
            structural_similarity(
                *(cv2.resize(image, (256, 256), interpolation=cv2.INTER_LINEAR) / 255 for image in pair),
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1.0,
                channel_axis=2,
            )
            for pair in zip(made, real, strict=True)
        ]
    )
    assert row["ssim"] == pytest.approx(expected, abs=1e-9)


def test_a_stand_in_is_never_printed_as_the_metric(done: Path) -> None:
    for file in ("table.md", "table.tex", "table.csv", "report.html"):
        if (done / file).exists():
            text = (done / file).read_text()
            assert "FID" in text and not re.search(r"FID(?! \(efficientnet)", text), file
    assert "fid_efficientnet_lite0" in json.loads((done / "metrics.json").read_text())["figures"][2]["name"]


def test_the_same_again_computes_nothing_and_says_the_same(toy: Path, done: Path, tmp_path: Path) -> None:
    again = shutil.copytree(done, tmp_path / "again")
    before = (again / "metrics.json").read_bytes()
    record, _ = evaluated(three(toy), again)
    assert record["counts"]["computed"] == 0
    assert (again / "metrics.json").read_bytes() == before


@pytest.mark.ray
def test_neither_workers_nor_order_nor_blocks_change_a_bit(toy: Path, done: Path, tmp_path: Path) -> None:
    backwards = Methods(dict(reversed(three(toy).places.items())), three(toy).reference)
    record, results = evaluated(
        backwards, tmp_path / "ray", ["fid", "psnr", "ssim"], ["rows_per_part=3"], engine="ray"
    )
    assert record["counts"]["computed"] == 4 * len(NAMES)
    one = read_results(done)
    assert one is not None
    for figure in one.figures:
        (other,) = (each for each in results.figures if each.name == figure.name)
        assert other.values[""] == figure.values[""]


def test_a_changed_setting_recomputes_what_depends_on_it(toy: Path, done: Path, tmp_path: Path) -> None:
    again = shutil.copytree(done, tmp_path / "again")
    record, results = evaluated(three(toy), again, more=["ssim.fps=2"])
    counts = {name: stage["computed"] for name, stage in record["stages"].items()}
    assert counts == {"probe": 0, "fid": 0, "ssim": 4 * len(NAMES), "psnr": 0}
    assert results.figures[0].protocol["settings"]["fps"] == 2


def test_a_broken_clip_is_data(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy / "copy", tmp_path / "copy")
    (tmp_path / "copy/ada.mp4").write_bytes(b"no video")
    (tmp_path / "copy/lonely.mp4").write_bytes((toy / "real/bert.mp4").read_bytes())
    record, results = evaluated(
        Methods({"copy": str(tmp_path / "copy")}, str(toy / "real")), tmp_path / "out"
    )
    assert record["counts"]["errors"] == 1
    assert results.clips["copy"][""] | {"clips": 7, "errors": 1} == results.clips["copy"][""]
    assert results.figures[0].values[""]["copy"].clips == len(NAMES) - 1
    said = (tmp_path / "out/table.md").read_text()
    assert "copy: 7 clips, 1 of them with errors, left out, errors of ada, " in said
    assert "1 of 7 clips have no real partner: lonely" in said
    assert "SSIM, copy: over 5 of 6 clips" in said


def test_what_was_measured_before_an_error_counts(toy: Path, tmp_path: Path) -> None:
    """A real clip that cannot be read costs its partner what compares them, and nothing else."""
    shutil.copytree(toy / "real", tmp_path / "real")
    (tmp_path / "real/ada.mp4").write_bytes(b"no video")
    methods = Methods({"copy": str(toy / "copy")}, str(tmp_path / "real"))
    record, results = evaluated(methods, tmp_path / "out", ["fid", "ssim"])
    assert record["counts"]["errors"] == 2
    clips = {figure.name: figure.values[""]["copy"].clips for figure in results.figures}
    assert clips == {"fid_efficientnet_lite0": len(NAMES), "ssim": len(NAMES) - 1}
    assert results.figures[0].values[""]["copy"].facts["real_clips"] == len(NAMES) - 1
    of_copy, of_real = (results.clips[method][""] for method in ("copy", "reference"))
    assert (of_copy["errors"], of_copy["left_out"]) == (1, 0)
    assert (of_real["errors"], of_real["left_out"]) == (1, 1)
    said = (tmp_path / "out/table.md").read_text()
    assert "copy: 6 clips, 1 with errors that count in what was measured before" in said
    assert "SSIM, copy: over 5 of 6 clips" in said


def test_two_clips_are_no_distribution(toy: Path, tmp_path: Path) -> None:
    for name in NAMES[:2]:
        for method in ("copy", "real"):
            (tmp_path / method).mkdir(exist_ok=True)
            shutil.copy(toy / method / f"{name}.mp4", tmp_path / method)
    methods = Methods({"copy": str(tmp_path / "copy")}, str(tmp_path / "real"))
    _, results = evaluated(methods, tmp_path / "out")
    assert [figure.metric for figure in results.figures] == ["ssim", "psnr"]
    assert results.not_measured["fid_efficientnet_lite0"].startswith(
        "2 made clips have pictures: a distribution takes 5"
    )
    assert values(results, "ssim")["copy"] is not None


def test_each_data_set_has_numbers_of_its_own(toy: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "reference_video": [str(toy / "real" / f"{name}.mp4") for name in NAMES],
            "dataset": ["HDTF"] * 3 + ["RAVDESS"] * 3,
        }
    )
    frame.to_csv(tmp_path / "cases.csv", index=False)
    methods = Methods({"noisy": str(toy / "noisy")}, str(tmp_path / "cases.csv"))
    _, results = evaluated(methods, tmp_path / "out", ["ssim"])
    assert results.datasets == ["HDTF", "RAVDESS"]
    whole = manifest(tmp_path / "out").query("method == 'noisy'")
    for name, part in whole.groupby("dataset"):
        assert values(results, "ssim", str(name))["noisy"] == pytest.approx(part["ssim"].mean(), abs=1e-12)
    assert r"\multicolumn{1}{c}{HDTF}" in (tmp_path / "out/table.tex").read_text()


def test_what_cannot_be_asked_for(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no metric 'sssim'; did you mean ssim\?"):
        prepare_evaluation(three(toy), tmp_path / "out", ["sssim"])
    with pytest.raises((SettingsError, UsageError), match="metrics"):
        prepare_evaluation(three(toy), tmp_path / "out", [])


def test_on_the_command_line(toy: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(toy / "noisy"), "--reference", str(toy / "real"), "--metrics", "ssim,psnr"]
    words += ["--output", str(tmp_path / "out"), "--engine", "inline", "--set", "draws=20", "--limit", "3"]
    done = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(cli.app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["number", "noisy", "reference"] in lines
    (table,) = (line for line in lines if line[:2] == ["SSIM", "↑"])
    results = read_results(tmp_path / "out")
    assert results is not None and table[2] == f"{values(results, 'ssim')['noisy']:.3f}"
    report = (tmp_path / "out/report.html").read_text()
    assert '<section id="numbers">' in report and f">{table[2]} <span" in report
    again = CliRunner().invoke(cli.app, [*words[:-1], "1"], catch_exceptions=False)
    assert "the manifest also has 4 rows of clips that are not among these" in again.stdout
    said = CliRunner().invoke(cli.app, ["evaluate", "--help"]).output
    assert "measure" in said
    refused = CliRunner().invoke(cli.app, ["evaluate", "--output", str(tmp_path / "x")])
    assert refused.exit_code == 2 and "nothing to measure" in refused.output


def test_from_python(toy: Path, tmp_path: Path) -> None:
    found = ia.evaluate(
        {"noisy": toy / "noisy", "copy": toy / "copy"},
        reference=toy / "real",
        output=tmp_path / "out",
        metrics=["ssim"],
        settings={"draws": 20},
        limit=2,
        progress=False,
    ).set_index("method")
    rows = manifest(tmp_path / "out").query("method == 'noisy'")
    assert found.loc["noisy", "value"] == pytest.approx(rows["ssim"].mean(), abs=1e-12)
    assert found.loc["noisy", "low"] <= found.loc["noisy", "value"] <= found.loc["noisy", "high"]
    assert np.isnan(found.loc["reference", "value"]) and found.loc["reference", "note"] is not None
    assert found["clips"].to_dict() == {"noisy": 2, "copy": 2, "reference": 0}


def test_killed_on_the_way_it_says_the_same(toy: Path, done: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "pipelines",
        "evaluate",
        "--engine",
        "inline",
        "--metrics",
        "ssim,psnr,fid",
    ]
    words += [word for setting in (*FAST, "rows_per_part=1") for word in ("--set", setting)]
    words += [w for name, place in three(toy).places.items() for w in ("--method", f"{name}={place}")]
    words += ["--reference", str(toy / "real"), "--output", str(tmp_path / "out")]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(list((tmp_path / "out/manifest/_parts").glob("*"))) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "out/metrics.json").exists()
    record, _ = evaluated(three(toy), tmp_path / "out")
    assert 0 < record["counts"]["computed"] < 4 * len(NAMES)
    assert (tmp_path / "out/metrics.json").read_bytes() == (done / "metrics.json").read_bytes()


def test_clips_and_numbers_may_lie_in_an_object_store(toy: Path, tmp_path: Path) -> None:
    with s3_server():
        store = new_folder()
        for method in ("noisy", "real"):
            for name in NAMES[:2]:
                (store / method / f"{name}.mp4").write_bytes((toy / method / f"{name}.mp4").read_bytes())
        methods = Methods({"noisy": str(store / "noisy")}, str(store / "real"))
        record, results = evaluated(methods, store / "evaluation", ["ssim"])
        assert record["counts"]["errors"] == 0 and record["counts"]["computed"] == 4
        assert read_results(store / "evaluation") == results
        again, _ = evaluated(methods, store / "evaluation", ["ssim"])
        assert again["counts"]["computed"] == 0
    here = Methods({"noisy": str(toy / "noisy")}, str(toy / "real"))
    evaluation = prepare_evaluation(here, tmp_path / "out", ["ssim"], overrides=FAST, limit=2)
    evaluation.execute(quiet())
    assert values(evaluation.results(), "ssim") == values(results, "ssim")


def test_clips_that_were_made_anew_are_measured_anew(toy: Path, tmp_path: Path) -> None:
    """One has another size, and one was only written at another time."""
    shutil.copytree(toy / "copy", tmp_path / "made")
    methods = Methods({"made": str(tmp_path / "made")}, str(toy / "real"))
    _, before = evaluated(methods, tmp_path / "out", ["ssim"])
    shutil.copy(toy / "noisy/bert.mp4", tmp_path / "made/bert.mp4")
    os.utime(tmp_path / "made/ada.mp4", ns=(0, 1_000_000_000))
    record, after = evaluated(methods, tmp_path / "out", ["ssim"])
    assert record["counts"]["computed"] == 2
    assert (values(after, "ssim")["made"] or 1) < (values(before, "ssim")["made"] or 0)


def test_what_the_folder_of_an_evaluation_may_be(toy: Path, tmp_path: Path) -> None:
    methods = Methods({"noisy": str(toy / "noisy"), "copy": str(toy / "copy")}, str(toy / "real"))
    with pytest.raises(SettingsError, match=r"noisy/out lies in .*noisy: clips made beside"):
        prepare_evaluation(methods, toy / "noisy/out", ["ssim"])
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="file is a file: name a folder"):
        prepare_evaluation(methods, tmp_path / "file", ["ssim"])
    evaluated(methods, tmp_path / "out", ["ssim"], ["max_seconds=0.1"])
    with pytest.raises(InputError, match=r"out holds clips of copy, not given now: give all methods again"):
        prepare_evaluation(
            Methods({"noisy": str(toy / "noisy")}, str(toy / "real")), tmp_path / "out", ["ssim"]
        )
    with pytest.raises(InputError, match=r"out holds an evaluation, not clips"):
        prepare_evaluation(Methods({"m": str(tmp_path / "out")}), tmp_path / "other", ["ase"])
    with pytest.raises(UsageError, match=r"ssim cannot be measured: each clip needs a real partner"):
        prepare_evaluation(Methods({"m": str(toy / "noisy")}), tmp_path / "other", ["ssim"])
    both = prepare_evaluation(Methods({"m": str(toy / "noisy")}), tmp_path / "other", ["dyadic", "ase"])
    assert both.not_measured["ssim"].startswith("each clip needs a real partner (--reference")
