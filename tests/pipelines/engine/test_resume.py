"""What a rerun does after changes: errors, gates, retries, cuts, lost files, returning stages."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from backends.video.image_warp import ImageWarp
from manifests import store
from manifests.screen import Screen, rescreen
from manifests.text import public_url, without_secrets
from pipelines.engine import passes
from pipelines.engine.pipeline import Pipeline, RunError, Split
from pipelines.engine.program import compile_pipeline, fingerprint
from pipelines.engine.run import Run
from pipelines.engine.source import InputError
from pipelines.estimate.earlier_runs import work_left
from stages.constant_rate import ConstantRate
from stages.contract import Column, Stage
from stages.probe import Probe
from stages.synthesise import Synthesise
from tests.pipelines.engine.test_engine import computed
from tests.support.earlier_versions import make_version
from tests.support.helpers import (
    SCREEN,
    execute,
    make_files,
    make_run,
    manifest,
    quiet,
    same_manifest,
    toy_stages,
)
from tests.support.toys import Length, Other, Square


def test_a_stage_that_goes_and_comes_back_is_computed_again(tmp_path: Path) -> None:
    log, files = tmp_path / "log", make_files(tmp_path / "in", 3)
    stages = toy_stages(log)
    execute(stages, files, tmp_path / "out")
    execute(stages[:2], files, tmp_path / "out")
    assert "root" not in manifest(tmp_path / "out")
    computed(log)
    execute(stages, files, tmp_path / "out")
    assert computed(log) == {"root": 3, "other": 3} and manifest(tmp_path / "out")["root"].notna().all()


def test_retrying_errors_leaves_gates_as_they_are(tmp_path: Path) -> None:
    log, files = tmp_path / "log", make_files(tmp_path / "in", 4)
    stages = toy_stages(log, raise_on="clip0001.mp4", stop_on="clip0002.mp4")
    frame = pd.DataFrame({"uri": sorted(p.name for p in files.iterdir()), "licence": "unknown"})
    frame.to_csv(files / "l.csv", index=False)
    execute(stages, files / "l.csv", tmp_path / "out")
    computed(log)
    frame.assign(licence="CC0").to_csv(files / "l.csv", index=False)
    execute(stages, files / "l.csv", tmp_path / "out", retry_errors="all")
    assert computed(log) == {"square": 1}
    rows = manifest(tmp_path / "out")
    assert rows["stopped"].notna().sum() == 1 and set(rows["licence"]) == {"CC0"}


@pytest.mark.parametrize("version", [1, 2])
def test_a_folder_of_an_earlier_version_goes_on_and_computes_only_what_is_new(
    tmp_path: Path, version: int
) -> None:
    log, files, out = tmp_path / "log", make_files(tmp_path / "in", 4), tmp_path / "out"
    stages = toy_stages(log, raise_on="clip0001.mp4", stop_on="clip0002.mp4")
    execute(stages, files, out)
    before = manifest(out)
    make_version(version, *store.manifest_files(out / "manifest"))
    for number, file in enumerate(store.manifest_files(out / "manifest")):
        shutil.copy(file, out / "manifest" / store.PARTS / f"{number}-a-killed-run.parquet")
    told = {1: "square: told to", 2: {"stage": "square", "reason": "told to", "waits": False}}
    assert manifest(out)["stopped"].dropna().tolist() == [told[version]]
    computed(log)
    run = make_run(stages, files, out)
    assert not len(work_left(run.program(), run.listing, out).ids)
    record = run.execute(quiet())
    assert computed(log) == {} and record["counts"]["computed"] == 0
    assert same_manifest(manifest(out), before)
    make_files(tmp_path / "in", 5)
    make_version(version, *store.manifest_files(out / "manifest"))
    execute(stages, files, out)
    assert computed(log) == {"length": 1, "square": 1, "root": 1, "other": 1}


@pytest.mark.parametrize("version", [1, 2])
def test_a_screen_writes_all_files_of_an_earlier_version_anew(tmp_path: Path, version: int) -> None:
    files, out = make_files(tmp_path / "in", 4), tmp_path / "out"
    execute(toy_stages(stop_on="clip0002.mp4"), files, out)
    before = manifest(out)
    make_version(version, *store.manifest_files(out / "manifest"))
    assert rescreen(out / "manifest", SCREEN)["changed"] == 0
    assert same_manifest(manifest(out), before)


def test_an_error_is_forgotten_when_the_column_that_its_stage_reads_changes(tmp_path: Path) -> None:
    class Picky(Other):
        reads = ("note",)

        def score(self, clip: Any) -> dict[str, Any]:
            return {"other": {"good": "fine"}[clip["note"]]}

    files = make_files(tmp_path / "in", 2)
    frame = pd.DataFrame({"uri": ["clip0000.mp4", "clip0001.mp4"], "note": ["bad", "good"]})

    def run() -> dict[str, Any]:
        frame.to_csv(files / "l.csv", index=False)
        made = make_run(
            [Length(), Picky()], files / "l.csv", tmp_path / "out", screen=Screen(name="s", rules=[])
        )
        return made.execute(quiet())

    assert run()["counts"]["errors"] == 1
    frame["note"] = "good"
    record = run()
    assert record["counts"]["errors"] == 0 and record["counts"]["computed"] == 1


def test_lost_and_damaged_arrays_are_said_and_made_again_by_the_next_run(tmp_path: Path) -> None:
    log, files = tmp_path / "log", make_files(tmp_path / "in", 2)
    execute(toy_stages(log), files, tmp_path / "out")
    (pack,) = (tmp_path / "out" / "features").rglob("*.pack")
    data = bytearray(pack.read_bytes())
    data[80:90] = b"\xff" * 10  # in the first compressed array: zlib raises an error of its own
    pack.write_bytes(data[:-10])  # the second ends before its end
    changed = toy_stages(log)
    changed[2].__class__.version += 1
    try:
        execute(changed, files, tmp_path / "out")
        errors = manifest(tmp_path / "out")["error"]
        assert errors.map(lambda e: e["message"]).str.contains("the arrays of square cannot be read").all()
        computed(log)
        execute(changed, files, tmp_path / "out")
        assert computed(log)["square"] == 2 and manifest(tmp_path / "out")["error"].isna().all()
    finally:
        changed[2].__class__.version -= 1


class Halves(Stage):
    """Pretends that every video lasts a given time."""

    writes = {"seconds": Column("float", "s", "")}

    def score(self, clip: Any) -> dict[str, Any]:
        return {"seconds": 8.0 if clip["source_uri"].endswith("clip0000.mp4") else 1.0}


def split_run(files: Path, out: Path, pieces: int, log: Path | str = "", **square: Any) -> Run:
    """A run that cuts the first file into so many pieces; 0: no cutting."""

    def ranges(row: Mapping[str, Any]) -> list[tuple[float, float]]:
        long = row["seconds"] > 2
        return [(8 * i / pieces, 8 * (i + 1) / pieces) for i in range(pieces)] if long else []

    run = make_run(toy_stages(log, **square), files, out)
    cut = Split([Halves()], ranges, 100.0) if pieces else None
    return replace(run, pipeline=Pipeline("toy", run.pipeline.stages, "toy", 30, cut))


def spans(out: Path) -> list[tuple[float, float]]:
    rows = manifest(out)
    rows = rows[rows["source_uri"].str.endswith("clip0000.mp4")].sort_values("start_s")
    return list(zip(rows["start_s"].fillna(-1), rows["end_s"].fillna(-1), strict=True))


def test_a_video_is_in_the_manifest_whole_or_in_pieces_never_both(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 3), tmp_path / "out"
    split_run(files, out, 0).execute(quiet())
    assert spans(out) == [(-1, -1)] and len(manifest(out)) == 3
    record = split_run(files, out, 2).execute(quiet())
    assert spans(out) == [(0, 4), (4, 8)] and len(manifest(out)) == 4
    assert record["counts"]["superseded"] == 1 and record["videos"]["clips"] == 4
    split_run(files, out, 4).execute(quiet())
    assert spans(out) == [(0, 2), (2, 4), (4, 6), (6, 8)]
    ids = set(manifest(out)["sample_id"])
    again = split_run(files, out, 4).execute(quiet())
    assert again["counts"]["reused"] == 6 and set(manifest(out)["sample_id"]) == ids
    split_run(files, out, 0).execute(quiet())
    assert spans(out) == [(-1, -1)]


def test_old_pieces_stay_until_the_new_ones_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, out = make_files(tmp_path / "in", 1), tmp_path / "out"
    split_run(files, out, 2).execute(quiet())
    original = Square.score

    def interrupted(self: Square, clip: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Square, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        split_run(files, out, 4).execute(quiet())
    assert spans(out) == [(0, 4), (4, 8)]
    monkeypatch.setattr(Square, "score", original)
    split_run(files, out, 4).execute(quiet())
    assert spans(out) == [(0, 2), (2, 4), (4, 6), (6, 8)]


def test_another_pipeline_or_another_folder_of_the_same_name_is_refused(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "a" / "in", 2), tmp_path / "out"
    run = make_run(toy_stages(), files, out)
    run.execute(quiet())
    other = replace(run, pipeline=replace(run.pipeline, name="other"))
    with pytest.raises(InputError, match="holds a run of toy"):
        other.execute(quiet())
    files = make_files(tmp_path / "b" / "in", 2)
    (files / "clip0001.mp4").write_bytes(b"yy")
    with pytest.raises(InputError, match="--set source=NAME"):
        execute(toy_stages(), files, out)
    assert len(manifest(out)) == 2


def test_rows_that_were_not_committed_fail_the_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, out = make_files(tmp_path / "in", 4), tmp_path / "out"
    execute(toy_stages(), files, out)
    run = make_run(toy_stages(raise_on="x"), files, out)
    monkeypatch.setattr(passes, "run_inline", lambda *_: iter(()))
    with pytest.raises(RunError, match="of 4 samples to compute 0 were committed"):
        run.execute(quiet())


def test_other_pictures_change_the_stages_that_see_them_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[Stage] = [Probe(), Synthesise(ImageWarp())]
    before = [fingerprint(stage, {}, 0) for stage in stages]
    monkeypatch.setattr("pipelines.engine.program.MEDIA_VERSION", 99)
    after = [fingerprint(stage, {}, 0) for stage in stages]
    assert before[0] != after[0] and before[1] == after[1]


def test_stages_that_see_the_picture_depend_on_who_made_the_file() -> None:
    stages = [Probe(), ConstantRate(), Probe2()]
    one = compile_pipeline("p", stages, 30, 0).fingerprints
    stages[1] = ConstantRate(config=ConstantRate.Config(crf=30))
    two = compile_pipeline("p", stages, 30, 0).fingerprints
    assert one["probe"] == two["probe"] and one["probe2"] != two["probe2"]


class Probe2(Probe):
    """Another stage that sees the sound."""

    writes = {"second": Column("int", "", "")}


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://user:secret@host/a.mp4", "https://host/a.mp4"),
        ("https://h/a.mp4?id=7&X-Amz-Signature=abc&X-Amz-Date=1", "https://h/a.mp4?id=7"),
        ("https://h/a.mp4?sig=abc&se=2026", "https://h/a.mp4"),
        ("s3://bucket/a b.mp4", "s3://bucket/a b.mp4"),
    ],
)
def test_addresses_lose_their_secrets(url: str, public: str) -> None:
    assert public_url(url) == public
    assert "secret" not in without_secrets(f"cannot open '{url}': 403")
    assert "abc" not in without_secrets(f"cannot open {url}")
