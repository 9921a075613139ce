"""The stages that ask a language model: what they make of answers, and of none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.language.vision_language_model import AnswerError, Deferred, Question
from prompts.people import People
from prompts.vocabulary import REGIONS, VOCABULARY
from stages.artifacts import Anatomy, Artifacts
from stages.ask import MAX_FRAMES, ask
from stages.caption import Caption, composed
from stages.clip import FrameSequence
from stages.interaction import Interaction
from stages.people_count import PeopleCount
from stages.portrait import PortraitKind
from stages.reactions import Reactions
from stages.touch_point import TouchPoint
from tests.support.noting import Noting, clip_of

NOSE, HAIR = REGIONS.index("nose"), REGIONS.index("hair")


def test_the_input_lists_caption_is_kept_unless_told_otherwise() -> None:
    model = Noting(Caption={"caption": "Seen."})
    assert Caption(model).score(clip_of(Caption(model), input_caption=" Given. ")) == {
        "caption": "Given.",
        "caption_by": "source",
    }
    assert model.questions == []
    stage = Caption(model, config=Caption.Config(keep_source=False))
    assert stage.score(clip_of(stage, input_caption="Given.")) == {
        "caption": "Seen.",
        "caption_by": "stand_in_measured",
    }


def test_a_stand_ins_caption_names_what_was_measured() -> None:
    said = composed({"num_people": 1, "framing": "head", "head_yaw": 30.0, "camera_motion": 0.0})
    assert said == (
        "One person is in view, seen close up. The head is turned to their left. The camera is still."
    )
    assert composed({"num_people": 0}) == "No person is in view."
    assert composed({}) == "A video."


def test_a_clip_is_shown_as_a_video_of_few_frames_and_a_picture_as_a_picture() -> None:
    model = Noting()
    stage = Anatomy(model)
    stage.score(clip_of(stage, frames=60))
    stage.score(clip_of(stage, frames=1))
    video, picture = model.questions
    assert len(video.images) == MAX_FRAMES and video.fps == pytest.approx((MAX_FRAMES - 1) / 29.5, abs=1e-3)
    assert len(picture.images) == 1 and picture.fps is None


def test_frames_without_a_time_between_them_are_one_picture() -> None:
    """Models may refuse several single pictures; a video of no length cannot be shown."""
    model = Noting()
    still = FrameSequence(np.zeros(4), [np.full((8, 8, 3), i, np.uint8) for i in range(4)])
    ask(model, "How many?", People, still, lambda: People(people=0))
    (question,) = model.questions
    assert question.fps is None and [int(image.mean()) for image in question.images] == [0]


@pytest.mark.parametrize(
    ("people", "stopped"),
    [(0, "no person"), (1, None), (2, None), (3, "3 people, of whom at most 2 are wanted")],
)
def test_more_than_two_people_end_the_questions(people: int, stopped: str | None) -> None:
    stage = PeopleCount(Noting(People={"people": people}))
    row = stage.score(clip_of(stage, num_people_max=1))
    assert row == {"people_count": people, "people_count_by": "stand_in_measured"}
    assert stage.stop(row) == stopped


def test_an_interaction_fills_type_group_and_region() -> None:
    said = {
        "what_happens": "A hand ruffles the hair.",
        "interaction_type": "caressed",
        "region": "hair",
        "acting": "other",
    }
    stage = Interaction(Noting(Interaction=said))
    assert stage.score(clip_of(stage)) == {
        "interaction_found": True,
        "interaction_type": "caressed",
        "interaction_group": "affectionate",
        "interaction_region": "hair",
        "interaction_acting": "other",
        "interaction_description": "A hand ruffles the hair.",
        "interaction_by": "stand_in_measured",
    }


def test_no_interaction_is_said_and_leaves_the_rest_empty() -> None:
    stage = Interaction(Noting())
    row = stage.score(clip_of(stage, contact_region=None))
    assert row.pop("interaction_found") is False and row.pop("interaction_by") == "stand_in_measured"
    assert set(row.values()) == {None}


def test_geometry_answers_for_the_stand_in() -> None:
    stage = Interaction(Noting())
    known = {"contact_region": "nose", "contact_seconds": 0.3, "contact_motion": 0.0}
    row = stage.score(clip_of(stage, **known, contact_by_other=False))
    assert (row["interaction_region"], row["interaction_acting"]) == ("nose", "self")
    assert row["interaction_group"] == VOCABULARY.group_of(row["interaction_type"])
    assert row["interaction_description"] == "The person's own hand is at the nose."


def touch(people: int = 1, kind: str = "stroked", **more: Any) -> dict[str, Any]:
    points = np.full((people, 22, 3), (np.nan, np.nan, 0), np.float32)
    points[:, NOSE] = [(0.25 + 0.5 * p, 0.5, 0.9) for p in range(people)]
    gaps = np.full((people, 22), np.nan, np.float32)
    gaps[:, NOSE] = [0.1 + 0.9 * p for p in range(people)]
    return {
        "interaction_type": kind,
        "interaction_region": "nose",
        "start_points": points,
        "hand_gaps": gaps,
        "unsure_gaps": np.full((people, 22), np.nan, np.float32),
        **more,
    }


def test_the_point_of_the_only_person_needs_no_question() -> None:
    model = Noting()
    stage = TouchPoint(model)
    row = stage.score(clip_of(stage, **touch()))
    assert model.questions == []
    assert row == {
        "interaction_person": 0,
        "interaction_person_by": None,
        "interaction_x": 0.25,
        "interaction_y": 0.5,
        "region_visible": True,
        "interaction_gap": pytest.approx(0.1),
        "hand_came_near": True,
        "touch_uncertain": None,
        "interaction_prompt": "The person is reacting right after being stroked.",
    }


def test_of_two_people_the_model_says_which_and_geometry_checks_it() -> None:
    stage = TouchPoint(Noting(WhichPerson={"person": "right"}))
    row = stage.score(clip_of(stage, **touch(people=2)))
    assert (row["interaction_person"], row["interaction_x"]) == (1, 0.75)
    assert row["interaction_person_by"] == "stand_in_measured"
    assert row["hand_came_near"] is False and row["interaction_gap"] == pytest.approx(1.0)


def test_a_region_that_the_first_frame_does_not_show_gets_no_point() -> None:
    stage = TouchPoint(Noting())
    row = stage.score(clip_of(stage, **touch(interaction_region="hair")))
    assert row["region_visible"] is False and row["interaction_x"] is None and row["interaction_y"] is None
    assert row["hand_came_near"] is False  # no hand was measured near it either


@pytest.mark.parametrize("kind", ["kissed", "blown on", "kicked"])
def test_a_touch_without_a_hand_is_not_checked_by_hands(kind: str) -> None:
    stage = TouchPoint(Noting())
    assert stage.score(clip_of(stage, **touch(kind=kind)))["hand_came_near"] is None


def test_without_an_interaction_there_is_no_point() -> None:
    stage = TouchPoint(Noting())
    row = stage.score(clip_of(stage, **touch(interaction_type=None)))
    assert set(row.values()) == {None}


@pytest.mark.parametrize(
    ("answer", "stopped"),
    [
        ({"depiction": "photo", "people": 1}, None),
        ({"depiction": "photo", "people": 2}, "2 people"),
        ({"depiction": "no_person", "people": 0}, "no_person, not a photograph of a person"),
        # Said by the model alone: not sure enough to take the regions away.
        ({"depiction": "painting", "people": 0}, None),
        ({"depiction": "animal", "people": 0}, None),
    ],
)
def test_what_surely_shows_no_one_person_stops(answer: dict[str, Any], stopped: str | None) -> None:
    stage = PortraitKind(Noting(Depiction=answer))
    row = stage.score(clip_of(stage, frames=1))
    assert (row["depiction"], row["people_count"]) == (answer["depiction"], answer["people"])
    assert stage.stop(row) == stopped


def regions(*names: str) -> list[dict[str, Any]]:
    return [{"region": name, "x": 0.5, "y": 0.5, "confidence": 1.0} for name in names]


def test_reactions_cover_every_visible_region_and_type() -> None:
    model = Noting()
    stage = Reactions(model)
    row = stage.score(clip_of(stage, frames=1, regions=regions("nose", "left_eye")))
    asked = {(r["region"], r["interaction_type"]) for r in row["reactions"]}
    assert asked == {(r, t) for r in ("nose", "left_eye") for t in VOCABULARY.types}
    assert len(model.questions) == len(VOCABULARY.types) and len(row["reactions"]) == 22
    flinch = next(
        r for r in row["reactions"] if (r["region"], r["interaction_type"]) == ("left_eye", "poked")
    )
    assert "left eye" in flinch["action"] and flinch["intensity"] == "strong"
    assert flinch["interaction_group"] == "aggressive"


def test_types_are_configured_and_a_part_the_model_does_not_see_is_left_out() -> None:
    seen = {"action": "The man blinks.", "emotion": "The man smiles.", "intensity": "mild"}
    model = Noting(Reactions={"nose": seen, "left_eye": None})
    stage = Reactions(model, config=Reactions.Config(types=("tapped",)))
    row = stage.score(clip_of(stage, frames=1, regions=regions("left_eye", "nose")))
    assert row["reactions"] == [
        {"region": "nose", "interaction_type": "tapped", "interaction_group": "neutral", **seen}
    ]


def test_without_a_visible_region_nothing_is_asked() -> None:
    model = Noting()
    assert Reactions(model).score(clip_of(Reactions(model), regions=[]))["reactions"] == []
    assert model.questions == []


def test_all_questions_of_a_portrait_are_queued_before_it_waits() -> None:
    class Later(Noting):
        def answer(self, question: Question) -> Any:
            self.questions.append(question)
            raise Deferred("waits for a batch of requests")

    model = Later()
    stage = Reactions(model)
    with pytest.raises(Deferred):
        stage.score(clip_of(stage, frames=1, regions=regions("nose")))
    assert len(model.questions) == len(VOCABULARY.types)


def test_artifacts_by_measurement_leave_open_what_was_not_measured() -> None:
    stage = Artifacts(Noting())
    row = stage.score(clip_of(stage, subtitle_share=0.5, persistent_text=False, num_people_max=2))
    assert row == {
        "artifact_watermark": False,
        "artifact_subtitles": True,
        "artifact_several_people": True,
        "artifact_face_occluded": None,
        "artifact_distorted": None,
        "artifacts_by": "stand_in_measured",
    }
    assert Anatomy(Noting()).score(clip_of(Anatomy(Noting())))["anatomy"] is None


def test_a_stand_in_without_measurements_says_what_is_missing() -> None:
    with pytest.raises(AnswerError, match=r"vlm\.endpoint"):
        Noting().answer(Question("?", Interaction, measured=None))  # type: ignore[arg-type]
