"""What the guides in docs/ (new_stage.md and its like) promise; checks are known once this is imported.

The files that a guide shows are written into the checkout, its lines put into the files that it names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
import pytest

from manifests.schema import COMMON_COLUMNS
from tests.docs.checks import At, after
from tests.docs.checks_readme import readers_of
from tests.docs.pages import Done, files_of

RUN = "interavatar run {} --input /your/videos --output out --limit 3"
ON_TALKING_HEAD = RUN.format("talking_head")


def written(page: str, *blocks: str) -> None:
    """The blocks are files; the page names them."""

    def write(at: At) -> None:
        (path,) = [path for path, text in files_of(page).items() if text == at.shown]
        file = at.folder / path
        assert file.parent.is_dir() and not file.exists()
        file.write_text(at.shown)

    for block in blocks:
        after(page, block)(write)


def put_in(at: At, path: str, places: Sequence[str], lines: Sequence[str] | None = None) -> None:
    """Put each line (of the block) before the first line of a file that matches its place."""
    file = at.folder / path
    text = file.read_text()
    for line, place in zip(lines or at.shown.splitlines(), places, strict=True):
        text, count = re.subn(
            place, lambda found, line=line: f"{line}\n{found[0]}", text, count=1, flags=re.MULTILINE
        )
        assert count == 1, place
    file.write_text(text)


def run_inline(at: At, command: str) -> Done:
    return at.reader.type(command.replace("interavatar run", "interavatar run --engine inline"))


def computed(at: At) -> dict[str, int]:
    """Stage -> samples that the last run computed, without those that computed none."""
    return {name: of["computed"] for name, of in at.record("out")["stages"].items() if of["computed"]}


def generated(at: At, page: str) -> str:
    """A page that the checkout's code makes: a function of `pipelines.cli.docs`, with its arguments."""
    done = at.reader.type(f"python -c 'from pipelines.cli.docs import *; print({page})'")
    assert done.status == 0, done.said
    return done.said


def row_of(rows: pd.DataFrame, name: str) -> pd.Series:
    return rows[rows.source_uri.str.endswith(f"/{name}")].iloc[0]


# docs/new_stage.md

written("docs/new_stage.md", "python 1")


@after("docs/new_stage.md", "text 1")
def _(at: At) -> None:
    """The three lines put the stage into the pipeline; then all follows that the page names."""
    (at.folder / "stages" / "colour.py").rename(at.folder / "colour.py")
    run = "interavatar run talking_head --input /shared/videos --output out"
    assert run_inline(at, run).status == 0
    (at.folder / "colour.py").rename(at.folder / "stages" / "colour.py")
    put_in(at, "pipelines/talking_head.py", (r"^from stages\.", r"^    split: ", r"^        Faces\("))
    refused = run_inline(at, f"{run} --set colour.fps=-1")
    assert refused.status == 2 and "colour.fps: Input should be greater than 0" in refused.said
    done = run_inline(at, f"{run} --set colour.fps=2")
    assert done.status == 0, done.said
    assert computed(at) == {"colour": 2}
    assert at.rows("out").saturation.between(0, 1).all()
    meaning = r"Mean HSV saturation of sampled frames\."
    assert re.search(rf"\| `saturation` \| \w+ \| 0-1 \| {meaning} \|", generated(at, "manifest_page()"))


# docs/new_backend.md

written("docs/new_backend.md", "python 1")


@after("docs/new_backend.md", "text 1")
def _(at: At) -> None:
    added, *entry = at.shown.splitlines()
    put_in(at, "backends/roles.py", (r"^from backends\.pictures\.cotracker",), [added])
    file = at.folder / "backends" / "roles.py"
    text, count = re.subn(r'^    "image_embedder": \{.*?\},$', "\n".join(entry), file.read_text(), flags=re.M)
    assert count == 1 and '"openclip": OpenClipEmbedder,' in text
    file.write_text(text)


@after("docs/new_backend.md", ON_TALKING_HEAD)
def _(at: At) -> None:
    assert row_of(at.rows("out"), "a_person.mp4").image_embedder.startswith("efficientnet-lite0 ")


COLOURS = "--set roles.image_embedder.use=colour_histogram --set roles.image_embedder.bins="


@after("docs/new_backend.md", f"{ON_TALKING_HEAD} {COLOURS}8")
def _(at: At) -> None:
    assert set(computed(at)) == {"consistency", *readers_of("consistency")}
    person = row_of(at.rows("out"), "a_person.mp4")
    assert person.image_embedder == "colour-histogram-1 8 bins"
    assert 0.9 < person.temporal_consistency <= 1.0001  # the same picture, moved a little
    refused = run_inline(at, f"{ON_TALKING_HEAD} {COLOURS}1")
    assert refused.status == 2 and "bins must be 2 to 16, not 1" in refused.said


# docs/new_pipeline.md

written("docs/new_pipeline.md", "python 1", "yaml 1")


@after("docs/new_pipeline.md", "text 1")
def _(at: At) -> None:
    put_in(at, "pipelines/catalogue.py", (r"^from pipelines\.engine\.pipeline", r'^    "portraits": '))


@after("docs/new_pipeline.md", RUN.format("close_ups"))
def _(at: At) -> None:
    rows = at.rows("out")
    assert len(rows) == 3 and set(rows.pipeline) == {"close_ups"}
    assert 0.2 < row_of(rows, "a_person.mp4").face_height < 0.25
    assert list(row_of(rows, "a_person.mp4").drop_reasons) == ["face_small"]
    page = generated(at, 'settings_page("close_ups")')
    assert "| `max_seconds` | `60.0` | A longer sample is an error, s. |" in page
    assert "## faces" in page and "## Screen close_ups" in page and "| `face_small` | `face_height` |" in page


@after("docs/new_pipeline.md", f"{RUN.format('close_ups')} --set faces.fps=4")
def _(at: At) -> None:
    assert computed(at) == {"faces": 2, "quality": 1}  # which reads the boxes of the one that has a face


# docs/new_screen.md

written("docs/new_screen.md", "yaml 1")


@after("docs/new_screen.md", "interavatar screen out --screen my_screen.yaml")
def _(at: At) -> None:
    assert "screen my_screen: " in at.done.said and "of 3, " in at.done.said
    rows = at.rows("out")
    assert "low_resolution" in row_of(rows, "clip00.mp4").drop_reasons
    assert "low_resolution" not in row_of(rows, "a_person.mp4").drop_reasons  # 320 px; talking_head wants 360
    assert "too_short" in row_of(rows, "clip00.mp4").drop_reasons  # of talking_head


@after("docs/new_screen.md", "python 1")
def _(at: At) -> None:
    reasons, grainy = at.values
    assert reasons["low_resolution"] == 1 and reasons["error:probe"] == 1 and len(grainy) <= 3


# docs/collections.md


@after("docs/collections.md", "interavatar people out --output people.parquet")
def _(at: At) -> None:
    rows, people = at.rows("out"), pd.read_parquet(at.folder / "people.parquet")
    assert people["clips"].tolist() == [1] and people["gender"].isna().all()
    assert rows["person_id"].dropna().tolist() == people["person_id"].tolist()
    assert row_of(rows, "a_person.mp4").person_similarity == pytest.approx(1)


written("docs/collections.md", "yaml 1", "yaml 2")


@after("docs/collections.md", "interavatar duplicates out")
def _(at: At) -> None:
    assert "mirrored │ 0" in at.done.said and at.rows("out")["duplicate_of"].isna().all()


@after("docs/collections.md", "interavatar screen out --screen closer.yaml")
def _(at: At) -> None:
    assert "screen closer: kept " in at.done.said


@after("docs/collections.md", "interavatar find out --like portrait.jpg")
def _(at: At) -> None:
    assert "a_person.mp4" in at.done.said and (at.folder / "out" / "found.html").is_file()


@after("docs/collections.md", "interavatar card out --output CARD.md")
def _(at: At) -> None:
    assert "## Sources and licences" in (at.folder / "CARD.md").read_text()


@after("docs/collections.md", "interavatar split out --check")
def _(at: At) -> None:
    # Copies were looked for further up the page, and there are none: that is known.
    assert "not known" not in at.done.said and "leak of" not in at.done.said
    assert at.rows("out")["duplicate_group"].notna().any()
    assert set(at.rows("out")["split"]) <= {"train", "validation", "test"}


@after("docs/collections.md", "interavatar screen out --screen few_of_each.yaml")
def _(at: At) -> None:
    assert "screen few_of_each: kept " in at.done.said


# docs/new_prompt.md

written("docs/new_prompt.md", "text 1", "python 1", "python 2")


@after("docs/new_prompt.md", "text 2")
def _(at: At) -> None:
    put_in(at, "pipelines/talking_head.py", (r"^from stages\.head", r"^    \]$"))


@after("docs/new_prompt.md", f"{ON_TALKING_HEAD} --set vlm.endpoint=http://localhost:8000/v1")
def _(at: At) -> None:
    person = row_of(at.rows("out"), "a_person.mp4")
    assert person.glasses_by == at.server.models[0] and person.glasses == False  # noqa: E712 - NumPy's
    text = at.folder / "prompts" / "glasses.md"
    text.write_text(text.read_text().replace("Sunglasses", "Dark glasses"))
    asked = len(at.server.chats())
    command = f"{ON_TALKING_HEAD} --set vlm.endpoint=http://localhost:8000/v1"
    assert run_inline(at, command).status == 0
    assert computed(at) == {"wears_glasses": 1} and len(at.server.chats()) > asked
    assert run_inline(at, ON_TALKING_HEAD).status == 0
    person = row_of(at.rows("out"), "a_person.mp4")
    assert person.glasses_by == "stand_in_measured" and pd.isna(person.glasses)


# docs/new_score.md


@after("docs/new_score.md", "text 1")
def _(at: At) -> None:
    assert "luminance_range" not in COMMON_COLUMNS
    assert run_inline(at, ON_TALKING_HEAD).status == 0
    put_in(
        at,
        "stages/quality.py",
        (r"^    reads = ", r'^        "contrast": Score', r'^            "contrast": '),
    )


@after("docs/new_score.md", "text 2")
def _(at: At) -> None:
    put_in(at, "configs/screens/talking_head.yaml", (r"^  - \{reason: too_dark",))


@after("docs/new_score.md", ON_TALKING_HEAD)
def _(at: At) -> None:
    assert set(computed(at)) == {"quality", *readers_of("quality")}
    person = row_of(at.rows("out"), "a_person.mp4")
    assert person.luminance_range == person.luminance_max - person.luminance_min
    assert "| `luminance_range` | float | 0-255 |" in generated(at, "manifest_page()")
    assert "| `exposure_changes` | `luminance_range` |" in generated(at, 'settings_page("talking_head")')


@after("docs/new_score.md", "python 1")
def _(at: At) -> None:
    described, fell = at.values
    assert described["count"] == 1 and described["max"] < 60  # of the one that has a face
    assert list(fell.columns) == ["source_uri", "luminance_range"] and fell.empty


# docs/new_metric.md

written("docs/new_metric.md", "python 1")


@after("docs/new_metric.md", "text 1")
def _(at: At) -> None:
    imported, entry, *lines = at.shown.splitlines()
    put_in(at, "metrics/catalogue.py", (r"^from metrics\.flow_error", r"^    Fid,"), [imported, entry])
    put_in(
        at, "pipelines/evaluate.py", (r"^from metrics\.flow_error", r"^    fid: ", r"^        Fid\("), lines
    )


MEASURE = "interavatar evaluate --method ours=made/ours --reference real --metrics flicker,ssim --output out"


@after("docs/new_metric.md", MEASURE)
def _(at: At) -> None:
    rows = at.rows("out")
    assert computed(at) == {"probe": len(rows), "flicker": len(rows), "ssim": len(rows)}
    assert rows.flicker.between(0.5, 1).all() and "Flickering ↑" in (at.folder / "out/table.md").read_text()
    assert "## flicker" in generated(at, "metrics_page()")
    assert "| `flicker.fps` | `8.0` |" in generated(at, 'settings_page("evaluate")')


@after("docs/new_metric.md", f"{MEASURE} --set flicker.fps=4")
def _(at: At) -> None:
    assert computed(at) == {"flicker": len(at.rows("out"))}
