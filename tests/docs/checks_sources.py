"""What must be so after the commands of docs/sources.md."""

from __future__ import annotations

from pathlib import Path

from tests.docs.checks import At, after
from tests.pipelines.sources import trees

PAGE = "docs/sources.md"


def make_data_sets(folder: Path) -> None:
    """The reader's data sets."""
    clip, person = (folder / "videos" / name for name in ("clip00.mp4", "a_person.mp4"))
    trees.ravdess(trees.Builder(folder / "RAVDESS", person, person))
    trees.celebv_hq(trees.Builder(folder / "CelebV-HQ", clip, clip))
    hdtf = trees.Builder(folder / "HDTF", clip, clip)
    hdtf.text("HDTF_dataset/RD_annotion_time.txt", "Radio1.mp4 00:00-00:01\nRadio2.mp4 00:00-00:01\n")
    hdtf.text("HDTF_dataset/RD_crop_wh.txt", "Radio1_0.mp4 240 360 120 360\n")
    hdtf.text("HDTF_dataset/RD_resolution.txt", "Radio1.mp4 720\nRadio2.mp4 720\n")
    hdtf.media("Radio1.mp4", "Radio2.mp4", "other.mp4")


@after(PAGE, "interavatar plan talking_head --input ravdess:/your/RAVDESS")
def _(at: At) -> None:
    assert "3" in at.done.said


@after(PAGE, "python 1")
def _(at: At) -> None:
    (shown,) = at.values
    assert set(shown["source"]) == {"RAVDESS"} and set(shown["licence"]) == {"CC-BY-NC-SA-4.0"}
    assert set(shown["identity"]) == {"Actor_01", "Actor_12"}
    assert set(shown.iloc[:, 2]) == {"happy", "fearful"}


@after(PAGE, "interavatar run talking_head --input hdtf:/your/HDTF --output hdtf")
def _(at: At) -> None:
    rows = at.rows("hdtf").set_index("source_uri")
    assert set(rows.source) == {"HDTF"} and sorted(rows.width.dropna()) == [60]
    assert [error["message"] for error in rows.error if error is not None] == [
        "HDTF publishes no window for the clip Radio2_0"
    ]
    assert "1 .mp4 not in the data set's list" in at.done.said
