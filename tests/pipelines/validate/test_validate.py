"""A run against labels: every number by hand, and the command as a person uses it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import pipelines.validate.validate as validating
from configs.reading import SettingsError
from manifests.screen import Rule, Screen
from pipelines.cli import app as cli
from pipelines.validate.claims import judge
from pipelines.validate.labels import Label, LabelError, read_labels
from pipelines.validate.measures import Floor, Floors, Measure, below, measure, read_floors
from pipelines.validate.validate import Validation, _shared_out, disagreements, validate
from stages.clip import Clip
from stages.contract import Column, Score, Stage
from tests.support.helpers import execute, make_files

# What the run says of clips 0, 1, 2, ...; a face is 100 px high in a picture of 400 x 200.
REGION = {"region": "nose", "x": 0.5, "y": 0.5, "confidence": 1.0}
SAID: list[dict[str, Any]] = [
    {"kind": "photo", "yaw": 10.0, "steady": True, "belief": 0.9, "regions": [REGION]},
    {"kind": "photo", "yaw": -5.0, "steady": False, "belief": 0.8, "regions": []},
    {"kind": "painting", "yaw": None, "steady": None, "belief": 0.3, "regions": [REGION]},
    {"kind": None, "yaw": 80.0, "steady": True, "belief": 0.85, "regions": None},
]
TOUCHES: list[dict[str, Any]] = [
    {"found": True, "region": "hair", "start": 1.0, "seconds": 2.0},
    {"found": True, "region": "nose", "start": 0.0, "seconds": 1.0},
    {"found": False, "region": None, "start": None, "seconds": None},
    {"found": None, "region": None, "start": None, "seconds": None},
]
JUDGE = Screen(name="strict", rules=[Rule(reason="turned_away", column="yaw", max=45, missing="pass")])


class Says(Stage):
    """What the tables above say of each clip, by its number."""

    writes: ClassVar = {
        "kind": Column("string", "", "Kind."),
        "yaw": Score("degrees", "Yaw."),
        "steady": Column("bool", "", "Steady."),
        "belief": Score("0-1", "Belief."),
        "regions": Column("regions", "", "Regions."),
        "face_height_px": Score("px", "Face."),
        "shot_starts": Column("floats", "s", "Shots."),
        "interaction_found": Column("bool", "", "Touch."),
        "contact_region": Column("string", "", "Region."),
        "contact_start_s": Score("s", "Touch."),
        "contact_seconds": Score("s", "Touch."),
    }

    def score(self, clip: Clip) -> dict[str, Any]:
        number = int(Path(clip["source_uri"]).stem[-4:])
        touch = TOUCHES[number]
        return SAID[number] | {
            "face_height_px": 100.0,
            "shot_starts": [0.0, 1.5] if number == 0 else [0.0],
            "interaction_found": touch["found"],
            "contact_region": touch["region"],
            "contact_start_s": touch["start"],
            "contact_seconds": touch["seconds"],
        }


class Touches(Stage):
    """The columns that every manifest has."""

    writes: ClassVar = {
        "width": Column("int", "px", "Width."),
        "height": Column("int", "px", "Height."),
        "interaction_region": Column("string", "", "Region."),
    }

    def score(self, clip: Clip) -> dict[str, Any]:
        number = int(Path(clip["source_uri"]).stem[-4:])
        return {"width": 400, "height": 200, "interaction_region": TOUCHES[number]["region"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("validated")
    execute([Says(), Touches()], make_files(work / "in", 4), work / "out", screen=JUDGE)
    return work / "out"


def clip(run: Path, number: int) -> str:
    return sorted(path.name for path in (run.parent / "in").iterdir())[number]


def found(run: Path, labels: Sequence[Label]) -> Validation:
    return validate(run, JUDGE, labels, str(run.parent / "in"))


def label(run: Path, number: int, claim: str, value: str, **more: Any) -> Label:
    return Label(clip(run, number), claim, value, **more)


def numbers(measures: Sequence[Measure], group: str = "") -> dict[str, float]:
    return {m.metric: m.value for m in measures if m.group == group}


def test_words(run: Path) -> None:
    truth = ("photo", "painting", "painting", "animal")
    measures = found(run, [label(run, i, "kind", value) for i, value in enumerate(truth)]).measures
    # Right: 0 and 2. Claimed: 0, 1, 2; the null of 3 is no claim, but no right answer either.
    share = {"accuracy": 0.5, "precision": pytest.approx(2 / 3), "recall": 0.5, "unanswered": 0.25}
    assert numbers(measures) == share
    assert numbers(measures, "painting") == {"precision": 1.0, "recall": 0.5, "unanswered": 0.0}
    photo = numbers(measures, "photo")  # 1 is called one and is none
    assert photo["precision"] == 0.5 and photo["recall"] == 1.0 and photo["false_alarms"] == 1.0
    assert numbers(measures, "animal") == {"recall": 0.0, "unanswered": 1.0}


def test_several_words_may_be_right(run: Path) -> None:
    (judged,) = found(run, [label(run, 0, "kind", "animal | photo")]).judged
    assert judged.outcome == "right" and judged.group == "photo"


def test_numbers_have_errors(run: Path) -> None:
    labels = [label(run, i, "yaw", v, tolerance=10.0) for i, v in enumerate(("12", "5", "0", "60"))]
    validation = found(run, labels)
    assert [x.error for x in validation.judged] == [-2.0, -10.0, None, 20.0]
    assert [x.outcome for x in validation.judged] == ["right", "right", "unanswered", "wrong"]
    assert numbers(validation.measures) == {
        "accuracy": 0.5,
        "precision": pytest.approx(2 / 3),
        "recall": 0.5,
        "unanswered": 0.25,
        "median_error": 10.0,
        "p90_error": pytest.approx(18.0),
        "bias": -2.0,
    }
    bare = found(run, [label(run, i, "yaw", v) for i, v in enumerate(("12", "5", "0"))])
    assert [x.outcome for x in bare.judged] == ["measured", "measured", "unanswered"]
    assert set(numbers(bare.measures)) == {"median_error", "p90_error", "bias", "unanswered"}


def test_yes_or_no_of_a_column_and_of_a_rule(run: Path) -> None:
    measures = found(
        run, [label(run, i, "steady", v) for i, v in enumerate(("yes", "yes", "no", "no"))]
    ).measures
    assert numbers(measures) == {
        "accuracy": 0.25,
        "unanswered": 0.25,
        "precision": 0.5,
        "recall": 0.5,
        "false_alarms": 0.5,
    }
    judged = found(run, [label(run, i, "turned_away", "yes" if i == 3 else "no") for i in range(4)]).judged
    assert [x.outcome for x in judged] == ["right"] * 4 and [x.said for x in judged] == ["no"] * 3 + ["yes"]


def test_a_score_is_judged_by_its_order(run: Path) -> None:
    measures = found(
        run, [label(run, i, "belief", v) for i, v in enumerate(("yes", "no", "no", "yes"))]
    ).measures
    assert numbers(measures) == {"roc_area": 1.0, "unanswered": 0.0}
    measures = found(
        run, [label(run, i, "belief", v) for i, v in enumerate(("no", "yes", "no", "yes"))]
    ).measures
    assert numbers(measures) == {"roc_area": 0.5, "unanswered": 0.0}  # 0.8 and 0.85 against 0.9 and 0.3


def test_points_are_measured_in_faces(run: Path) -> None:
    labels = [
        label(run, 0, "region", "nose", x=0.53, y=0.5),  # 12 px of 400, an eighth of the face
        label(run, 0, "region", "chest"),  # hidden, and not claimed
        label(run, 1, "region", "nose", x=0.5, y=0.5),
        label(run, 2, "region", "nose", x=0.5, y=0.9),  # 80 px of 200
        label(run, 3, "region", "nose", x=0.5, y=0.5),
    ]
    validation = found(run, labels)
    assert [x.outcome for x in validation.judged] == ["right", "right", "missed", "wrong", "unanswered"]
    assert validation.judged[0].error == pytest.approx(0.12)
    assert validation.judged[3].error == pytest.approx(0.8)
    of_noses = numbers(validation.measures, "nose")
    assert of_noses["precision"] == 0.5 and of_noses["recall"] == 0.25
    hidden = [label(run, 0, "region", "nose")]
    assert [x.outcome for x in found(run, hidden).judged] == ["wrong"]
    near = [label(run, 0, "region", "nose", x=0.55, y=0.5, tolerance=0.1)]
    assert [x.outcome for x in found(run, near).judged] == ["wrong"]


def test_touches_are_counted_by_clips_and_by_seconds(run: Path) -> None:
    labels = [
        label(run, 0, "touch", "left_ear", start_s=0.0, end_s=0.5),
        label(run, 0, "touch", "hair|left_face", start_s=2.0, end_s=4.0),
        label(run, 1, "touch", "none"),
        label(run, 2, "touch", "mouth", start_s=1.0, end_s=2.0),
        label(run, 3, "touch", "none"),
    ]
    validation = found(run, labels)
    assert [x.outcome for x in validation.judged] == ["right", "wrong", "missed", "unanswered"]
    assert validation.judged[0].said == "hair 1.0-3.0 s"
    assert numbers(validation.measures) == {
        "accuracy": 0.25,
        "precision": 0.5,
        "recall": 0.5,
        "false_alarms": 0.5,
        "unanswered": 0.25,
        "precision_s": pytest.approx(1 / 3),  # one second of the two and one that are claimed
        "recall_s": pytest.approx(1 / 3),
    }
    apart = [label(run, 0, "touch", "hair", start_s=3.5, end_s=4.0)]
    assert [x.outcome for x in found(run, apart).judged] == ["wrong"]


def test_cuts_are_found_where_they_are(run: Path) -> None:
    labels = [
        label(run, 0, "cut", "yes", start_s=1.6),
        label(run, 0, "cut", "yes", start_s=0.5),
        label(run, 1, "cut", "yes"),
        label(run, 2, "cut", "no"),
    ]
    judged = found(run, labels).judged
    assert {(x.label.media, x.label.start_s): x.outcome for x in judged} == {
        (clip(run, 0), 1.6): "right",
        (clip(run, 0), 0.5): "missed",
        (clip(run, 1), None): "missed",
        (clip(run, 2), None): "right",
    }


def test_intervals_draw_whole_sources() -> None:
    def one(source: str, outcome: Any) -> Any:
        from pipelines.validate.claims import Judged

        return Judged(Label("a", "b", "yes", source=source), "", outcome, "yes", "", True, True)

    # Ten labels of one source say no more than one: the interval holds all that either source says.
    judged = [one("left", "right")] * 10 + [one("right", "wrong")] * 10
    (precision,) = (m for m in measure(judged) if m.metric == "precision")
    assert (precision.value, precision.low, precision.high) == (0.5, 0.0, 1.0)
    assert (precision.labels, precision.sources) == (20, 2)
    many = [one(str(i), "right" if i % 2 else "wrong") for i in range(400)]
    (precision,) = (m for m in measure(many) if m.metric == "precision")
    assert precision.value == 0.5 and precision.low == pytest.approx(0.45, abs=0.02)
    assert measure(many) == measure(many)


def test_area_under_the_curve_is_scikit_learns() -> None:
    from sklearn.metrics import roc_auc_score

    from pipelines.validate.claims import Judged

    rng = np.random.default_rng(3)
    scores, truth = rng.integers(0, 6, 80).astype(float), rng.random(80) < 0.4
    judged = [
        Judged(Label(str(i), "s", "yes"), "", "measured", "", is_there=bool(t), score=float(s))
        for i, (s, t) in enumerate(zip(scores, truth, strict=True))
    ]
    (area,) = [m for m in measure(judged) if m.metric == "roc_area"]
    assert area.value == pytest.approx(roc_auc_score(truth, scores))


def test_reviews_are_labels(run: Path, tmp_path: Path) -> None:
    rows = pd.read_parquet(run / "manifest")
    reviews = pd.DataFrame({"sample_id": rows["sample_id"], "keep": [True, True, None, True]})
    reviews.to_parquet(tmp_path / "reviews.parquet")
    for wrong in ({"sample_id": [None], "keep": [True]}, {"sample_id": ["a"], "keep": ["no"]}):
        pd.DataFrame(wrong).to_parquet(tmp_path / "wrong.parquet")
        with pytest.raises(LabelError, match="row 0: sample_id is text, and keep true, false or null"):
            read_labels(tmp_path / "wrong.parquet")
    judged = found(run, read_labels(tmp_path / "reviews.parquet")).judged
    kept = dict(zip(rows["sample_id"], rows["keep"], strict=True))
    assert len(judged) == 3 and {x.label.media: x.said == "yes" for x in judged}.items() <= kept.items()


def test_a_label_of_a_time_belongs_to_the_clip_that_has_it() -> None:
    rows = [{"start_s": 0.0, "end_s": 5.0}, {"start_s": 5.0, "end_s": None}]
    first, second, both = (
        Label("a", "touch", "nose", 1.0, 2.0),
        Label("a", "touch", "nose", 6.0, 7.0),
        Label("a", "touch", "hair", 4.0, 6.0),
    )
    shared = _shared_out([first, second, both], rows)
    assert [members for _, members in shared] == [[first, both], [second, both]]


def test_a_touch_without_a_time_is_judged_by_its_region() -> None:
    row = {"interaction_found": True, "interaction_region": "mouth", "start_s": 20.0}
    labels = [Label("a", "touch", "hair", 21.0, 22.0), Label("a", "touch", "mouth", 27.0, 28.0)]
    for unknown in (
        {"contact_start_s": None, "contact_region": None},
        {"contact_start_s": 1.0, "contact_region": "hair", "contact_seconds": 1.0},  # another touch's time
    ):
        (judged,) = judge(labels, row | unknown, {})
        assert (judged.outcome, judged.said, judged.said_s) == ("right", "mouth", 0)
    at = {"contact_start_s": 7.0, "contact_region": "mouth", "contact_seconds": 0.0}
    (judged,) = judge(labels, row | at, {})
    assert (judged.outcome, judged.said) == ("right", "mouth 27.0-27.0 s")
    (judged,) = judge([Label("a", "touch", "mouth")], row | at, {})
    assert (judged.outcome, judged.said_s, judged.true_s, judged.shared_s) == ("right", 0, 0, 0)


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        (["painting"], True),
        (["too_dark"], False),
        ([], False),
        (["stopped:portrait_kind"], None),
        (["error:faces"], None),
        (["missing:depiction"], None),
        (["missing:luminance"], False),
    ],
)
def test_a_rule_that_never_came_to_judge_is_no_answer(reasons: list[str], said: bool | None) -> None:
    (judged,) = judge([Label("a", "painting", "no")], {"drop_reasons": reasons}, {"painting": {"depiction"}})
    assert judged.outcome == {True: "wrong", False: "right", None: "unanswered"}[said]


def test_a_cut_in_a_labelled_stretch() -> None:
    row = {"shot_starts": [0.0, 2.0], "start_s": 10.0}
    for start, end, outcome in ((10.0, 15.0, "wrong"), (12.5, 15.0, "right")):
        (judged,) = judge([Label("a", "cut", "no", start, end)], row, {})
        assert judged.outcome == outcome


def test_a_column_that_the_run_has_not() -> None:
    for claim, value in (("region", "nose"), ("touch", "nose"), ("cut", "no")):
        with pytest.raises(LabelError, match="needs the column"):
            judge([Label("a", claim, value)], {"width": 4}, {})


def test_labels_of_times_that_no_clip_holds_are_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"sample_id": "a", "source_uri": "/in/a.mp4", "start_s": 0.0, "end_s": 5.0, "shot_starts": [0.0]}
    monkeypatch.setattr(validating, "to_rows", lambda _: [row])
    late, here = (Label("a.mp4", "cut", "no", at, where=f"labels.csv, line {at:g}") for at in (7.0, 2.0))
    both = validate(run, JUDGE, [late, here], "/in")
    assert [x.label for x in both.judged] == [here] and both.outside == [late] and both.absent == []
    with pytest.raises(LabelError, match=r"labels.csv, line 7: no clip of .* holds that time"):
        validate(run, JUDGE, [late], "/in")


def test_runs_differ_in_a_touch_whichever_label_it_is_judged_by() -> None:
    row = {"interaction_found": True, "interaction_region": "mouth", "start_s": 0.0}
    row |= {"contact_start_s": 1.0, "contact_region": "mouth", "contact_seconds": 2.0}
    labels = [Label("a", "touch", "mouth", 1.0, 3.0), Label("a", "touch", "hair", 4.0, 9.0)]
    (differ,) = disagreements(judge(labels, row, {}), judge(labels, row | {"interaction_found": False}, {}))
    assert (differ.here.outcome, differ.there.outcome) == ("right", "missed")


def test_a_floor_names_a_metric_and_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "floors.yaml"
    for text, said in (
        ("{claim: touch, metric: precison, min: 0.9}", "no metric 'precison'; did you mean precision"),
        ("{claim: touch, metric: precision}", "a floor needs min or max"),
    ):
        path.write_text(f"floors:\n- {text}\n")
        with pytest.raises(SettingsError, match=said):
            read_floors(str(path))


def test_nothing_unanswered_is_a_number() -> None:
    judged = judge([Label("a", "kind", "photo")], {"kind": "photo"}, {})
    ceiling = Floors(floors=[Floor(claim="kind", metric="unanswered", max=0.1)])
    assert below(measure(judged), ceiling) == []


def test_runs_are_compared(run: Path) -> None:
    labels = [label(run, 0, "steady", "yes"), label(run, 1, "steady", "yes")]
    one = found(run, labels).judged
    other = [x if x.said == "yes" else x.__class__(x.label, "", "right", "yes", row=x.row) for x in one]
    (differ,) = disagreements(one, other)
    assert differ.label.media == clip(run, 1) and (differ.here.said, differ.there.said) == ("no", "yes")


HEADER = "media,claim,value,start_s,end_s,x,y,source,note\n"
WRONG = {
    HEADER.replace("value", "valeu"): "unknown column 'valeu'; did you mean value?",
    "media,claim\na,b\n": "there is no column 'value'",
    HEADER + "a.mp4,yaw,,,,,,,\n": "line 2: value is empty",
    HEADER + "a.mp4,yaw,1,,,,\n": "line 2: it has another number of columns",
    HEADER + "a.mp4,yaw,1,soon,,,,,\n": "line 2: start_s: 'soon' is no number",
    HEADER + "a.mp4,yaw,1,nan,,,,,\n": "line 2: start_s: 'nan' is no number",
    HEADER + "a.mp4,yaw,1,,1e999,,,,\n": "line 2: end_s: '1e999' is no number",
    HEADER + "a.mp4,region,nose,,,0.5,,,\n": "line 2: x and y are given together",
    HEADER + "a.mp4,region,nose,,,320,180,,\n": "line 2: x and y are shares of the picture, 0 to 1",
    "media,claim,value,tolerance\na.mp4,yaw,1,-3\n": "line 2: tolerance is below 0",
    "media,claim,value,value\na,b,c,d\n": "the column 'value' is there twice",
    HEADER + "a.mp4,touch,nose,2,1,,,,\n": "line 2: end_s is not after start_s",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_file_is_named_with_its_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(LabelError) as caught:
        read_labels(path)
    assert str(path) in str(caught.value) and WRONG[text] in str(caught.value)


def test_claims_that_cannot_be_judged(run: Path) -> None:
    with pytest.raises(LabelError, match="no column of this manifest"):
        found(run, [label(run, 0, "wingspan", "2")])
    with pytest.raises(LabelError, match="is a number"):
        found(run, [label(run, 0, "yaw", "left")])
    with pytest.raises(LabelError, match="no region 'knows'; did you mean nose"):
        found(run, [label(run, 0, "region", "knows", x=0.5, y=0.5)])
    with pytest.raises(LabelError, match="yes or no"):
        found(run, [label(run, 0, "steady", "very")])
    with pytest.raises(LabelError, match="kind is text such as 'photo'; label it with the text"):
        found(run, [label(run, 0, "kind", "yes")])
    with pytest.raises(LabelError, match="no region 'mouht'; did you mean mouth"):
        found(run, [label(run, 0, "touch", "hair|mouht", start_s=1.0, end_s=2.0)])
    with pytest.raises(LabelError, match="shot_starts holds no single word or number"):
        found(run, [label(run, 0, "shot_starts", "1.5")])
    with pytest.raises(LabelError, match="there are no labels"):
        found(run, [])
    with pytest.raises(LabelError, match="none of the 1 labelled files"):
        found(run, [Label("elsewhere.mp4", "yaw", "2")])


def test_the_command(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(run, out)
    csv = tmp_path / "labels.csv"
    rows = [f"{clip(run, i)},kind,photo,,,,,,\n" for i in range(3)] + ["gone.mp4,kind,photo,,,,,,\n"]
    csv.write_text(HEADER + "".join(rows))
    floors = tmp_path / "floors.yaml"
    floors.write_text("floors:\n- {claim: kind, metric: recall, min: 0.6}\n")
    command = ["validate", str(out), "--labels", str(csv), "--media", str(run.parent / "in")]
    done = CliRunner().invoke(cli.app, [*command, "--floors", str(floors)])
    assert done.exit_code == 0, done.output
    assert "recall" in done.stdout and "0.667" in done.stdout
    assert "1 labelled files are not in the run, such as gone.mp4" in done.stderr
    answers = pd.read_parquet(out / "validation.parquet")
    assert list(answers["outcome"]) == ["right", "right", "wrong"] and list(answers["said"])[2] == "painting"
    page = (out / "validation.html").read_text()
    assert "1 not right" in page and clip(run, 2) in page and "gone.mp4" in page
    floors.write_text(
        "floors:\n- {claim: kind, metric: recall, min: 0.7}\n- {claim: yaw, metric: bias, max: 1}\n"
    )
    done = CliRunner().invoke(cli.app, [*command, "--floors", str(floors), "--against", str(run)])
    assert done.exit_code == 1
    assert "kind recall: 0.667, the floor is 0.7" in done.stderr and "yaw bias: not measured" in done.stderr
    assert "0 labels are answered otherwise" in done.stdout
    done = CliRunner().invoke(cli.app, ["validate", str(tmp_path), "--labels", str(csv)])
    assert done.exit_code == 2 and "is not the folder of a run" in done.stderr
