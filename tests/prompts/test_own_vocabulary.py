"""Types of touch of one's own: they are asked for, accepted, balanced over and part of fingerprints."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from ray import cloudpickle

from backends.bodies.hand_detector import MediaPipeHands
from backends.bodies.person_mask import SelfieSegmentation
from backends.video.image_to_video import Animation
from backends.video.image_warp import ImageWarp
from configs.reading import SettingsError
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.program import Program, compile_pipeline, fingerprint
from pipelines.engine.reasons import changed
from pipelines.requests import Request, resolve
from pipelines.selection import choose
from prompts.vocabulary import REGIONS, VOCABULARY, Vocabulary, interaction_sentence, load_vocabulary
from stages.contacts import Contacts
from stages.contract import Stage
from stages.interaction import Interaction
from stages.reactions import Reactions
from stages.synthesise import Synthesise
from stages.touch_point import TouchPoint
from tests.support.noting import Noting, clip_of

HUG = "types: {hugged: affectionate}\n"
HUGGED = {
    "what_happens": "A woman hugs a man.",
    "interaction_type": "hugged",
    "region": "chest",
    "acting": "other",
}


class PromptAlone(ImageWarp):
    """A model that goes by the prompt alone."""

    uses_point = False  # type: ignore[misc]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "my_types.yaml").write_text(HUG)
    return tmp_path / "my_types.yaml"


@pytest.fixture
def hug(file: Path) -> Vocabulary:
    return load_vocabulary(str(file))


def pipeline(name: str, *overrides: str) -> Pipeline:
    return resolve(Request(name, "", overrides=overrides))[3]


def program(pipe: Pipeline) -> Program:
    fields = pipe.follows.fields if pipe.follows is not None else ()
    return compile_pipeline(pipe.name, pipe.stages, pipe.max_seconds, 0, fields, pipe.media)


def stage_of(pipe: Pipeline, name: str) -> Any:
    return next(stage for stage in pipe.stages if stage.name == name)


def test_a_file_adds_to_the_papers_types(hug: Vocabulary, tmp_path: Path) -> None:
    assert list(hug.types) == [*VOCABULARY.types, "hugged"]
    assert hug.group_of("hugged") == "affectionate" and hug.group_of("poked") == "aggressive"
    assert interaction_sentence("hugged") == "The person is reacting right after being hugged."
    assert load_vocabulary(None) is VOCABULARY
    other = tmp_path / "other.yaml"
    other.write_text("types: {poked: neutral, spat on: aggressive}\nby_hand: {spat on: false}\n")
    again = load_vocabulary(str(other))
    assert again.group_of("poked") == "neutral" and len(again.types) == 12
    assert [word for word in again.types if not again.needs_hand(word)] == [
        *("kissed", "blown on", "kicked", "spat on")
    ]
    assert VOCABULARY.group_of("poked") == "aggressive"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("types: {hugged: loving}", "types.hugged: Input should be 'affectionate', 'gentle', 'neutral' or"),
        ("types: {Hugged: gentle}", "types: 'Hugged' is no type of touch; write a participle in lower-case"),
        ("types: {'hugged ': gentle}", "types: 'hugged ' is no type of touch"),
        ("types: {none: gentle}", "types: 'none' is no type of touch"),
        ("types: {on: gentle}", "types: True is no type of touch"),
        ("types: [hugged]", "types: Input should be a valid dictionary"),
        ("type: {hugged: gentle}", "unknown key type; did you mean types"),
        ("verbs: {hugged: hug}", "verbs: hugged is not under types"),
        (f"{HUG}verbs: {{hugged: kiss}}", "verbs: 'kiss' cannot stand for hugged: it is kissed's"),
        (f"{HUG}verbs: {{hugged: poked}}", "verbs: 'poked' cannot stand for hugged: it is poked's"),
        ("by_hand: {hugged: false}", "by_hand: hugged is not under types"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as refused:
        pipeline("portraits", f"vocabulary={path}")
    assert f"vocabulary {path}: {message}" in str(refused.value)


@pytest.mark.parametrize(("text", "message"), [(None, "No such file"), ("- hugged", "must be a mapping")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "nowhere.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=rf"{path}.*{message}"):
        load_vocabulary(str(path))


def test_an_answer_is_refused_without_the_type_and_accepted_with_it(hug: Vocabulary) -> None:
    model = Noting(Interaction=HUGGED)
    stage = Interaction(model)
    with pytest.raises(ValidationError, match="'pinched' or 'scratched'"):
        stage.score(clip_of(stage))
    row = stage.with_vocabulary(hug).score(clip_of(stage))
    assert (row["interaction_type"], row["interaction_group"]) == ("hugged", "affectionate")
    before, after = (question.prompt for question in model.questions)
    assert after == before.replace('"scratched";', '"scratched", "hugged";') != before
    assert stage.vocabulary is VOCABULARY


def test_geometry_answers_in_the_same_words(hug: Vocabulary) -> None:
    model = Noting()
    stage = Interaction(model).with_vocabulary(hug)
    known = {"contact_region": "nose", "contact_seconds": 0.3, "contact_motion": 0.0}
    assert stage.score(clip_of(stage, **known))["interaction_type"] == "tapped"
    schema = model.questions[0].answer.model_json_schema()["properties"]["interaction_type"]
    assert schema["anyOf"][0]["enum"] == list(hug.types)


def test_reactions_are_asked_for_each_type_of_the_vocabulary(file: Path) -> None:
    stage = stage_of(pipeline("portraits", f"vocabulary={file}"), "reactions")
    assert stage.questions == 12
    row = stage.score(clip_of(stage, frames=1, regions=[{"region": "nose"}]))
    by_type = {r["interaction_type"]: r for r in row["reactions"]}
    assert list(by_type) == [*VOCABULARY.types, "hugged"]
    assert by_type["hugged"] == by_type["kissed"] | {"interaction_type": "hugged"}


def test_the_settings_choose_among_the_types(file: Path) -> None:
    both = [f"vocabulary={file}", "reactions.types=[hugged, kissed]"]
    assert stage_of(pipeline("portraits", *both), "reactions").config.types == ("kissed", "hugged")
    pattern = r"reactions\.types: there is no interaction type 'hugged'; choose one of kissed, .*scratched$"
    with pytest.raises(SettingsError, match=pattern):
        pipeline("portraits", both[1])


def test_a_touch_without_a_hand_is_not_checked_by_hands(hug: Vocabulary) -> None:
    handless = hug.model_copy(update={"by_hand": {**hug.by_hand, "hugged": False}})
    touch = {
        "interaction_type": "hugged",
        "interaction_region": "nose",
        "start_points": np.full((1, 22, 3), 0.5, np.float32),
        "hand_gaps": np.full((1, 22), 9, np.float32),
        "unsure_gaps": np.full((1, 22), 9, np.float32),
    }
    for vocabulary, near in ((hug, False), (handless, None)):
        stage = TouchPoint(Noting()).with_vocabulary(vocabulary)
        row = stage.score(clip_of(stage, **touch))
        assert row["hand_came_near"] is near
        assert row["interaction_prompt"] == "The person is reacting right after being hugged."


def test_the_choice_balances_over_an_added_type(hug: Vocabulary) -> None:
    reactions = [
        {"region": region, "interaction_type": word, "interaction_group": group}
        for region in REGIONS[:10]
        for word, group in hug.types.items()
    ]
    portraits = [{"sample_id": f"p{i}", "reactions": reactions} for i in range(8)]
    chosen = choose(portraits, 48, 0)
    types = Counter(choice.reaction["interaction_type"] for choice in chosen)
    assert types["hugged"] == types["kissed"] == types["caressed"] == 4
    assert types["stroked"] == types["blown on"] == 6


def test_a_clip_is_made_of_an_added_type(hug: Vocabulary) -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    asked: dict[str, Any] = {
        "image": image,
        "prompt": "She smiles.",
        "negative_prompt": "",
        "seed": 7,
        "point": (0.5, 0.3),
    }
    with pytest.raises(ValueError, match="there is no interaction type 'hugged'; choose one of kissed, "):
        Animation(**asked, interaction_type="hugged")
    warp = ImageWarp(num_frames=5, max_area=64 * 96)
    hugged, kissed, poked = (
        warp.animate(Animation(**asked, interaction_type=word, vocabulary=hug))
        for word in ("hugged", "kissed", "poked")
    )
    np.testing.assert_array_equal(hugged, kissed)
    assert (hugged != poked).any()


# Of stages that read nothing computed, seed 0, with the paper's eleven.
PAPERS = {
    "interaction": "6b596198d3c37e34",
    "reactions": "aa00d83642661c47",
    "touch_point": "da8a4cd495c63ee8",
    "synthesise": "98c83dc65fc1a2ed",
    "contacts": "50556bb46b924849",
}


def stages() -> list[Stage]:
    model = Noting()
    contacts = Contacts(MediaPipeHands(), SelfieSegmentation())
    return [Interaction(model), Reactions(model), TouchPoint(model), Synthesise(ImageWarp()), contacts]


def fingerprints(vocabulary: Vocabulary) -> dict[str, str]:
    return {s.name: fingerprint(s.with_vocabulary(vocabulary), {}, 0) for s in stages()}


def test_the_papers_types_leave_every_fingerprint_as_it_is(tmp_path: Path) -> None:
    assert {stage.name: fingerprint(stage, {}, 0) for stage in stages()} == PAPERS
    (tmp_path / "verbs.yaml").write_text("types: {poked: aggressive}\nverbs: {poked: prod}\n")
    assert fingerprints(VOCABULARY) == fingerprints(load_vocabulary(str(tmp_path / "verbs.yaml"))) == PAPERS
    in_any_order = Reactions.Config(types=("punched", "kissed"))
    assert fingerprint(Reactions(Noting(), config=in_any_order), {}, 0) == "a1b0087a766e5fe6"


@pytest.mark.parametrize(
    "text", [HUG, "types: {poked: neutral}", "by_hand: {tapped: false}"], ids=["type", "group", "hand"]
)
def test_other_types_change_the_fingerprints_of_stages_that_depend_on_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    mine = load_vocabulary(str(tmp_path / "mine.yaml"))
    changed_ones = {name for name, value in fingerprints(mine).items() if value != PAPERS[name]}
    assert changed_ones == {"interaction", "reactions", "touch_point", "synthesise"}
    by_prompt = Synthesise(PromptAlone())
    assert fingerprint(by_prompt, {}, 0) == fingerprint(by_prompt.with_vocabulary(mine), {}, 0)


@pytest.mark.parametrize(
    ("name", "due"),
    [("real_interactions", {"interaction", "clip_start", "touch_point"}), ("portraits", {"reactions"})],
)
def test_in_a_pipeline_no_other_stage_runs_again(file: Path, name: str, due: set[str]) -> None:
    before, now = program(pipeline(name)), program(pipeline(name, f"vocabulary={file}"))
    differing = {n for n, value in now.fingerprints.items() if value != before.fingerprints[n]}
    assert differing == due
    was, is_now = before.describe()[max(due)], now.describe()[max(due)]
    assert "vocabulary" not in was and ["hugged", "affectionate"] in is_now["vocabulary"]["types"]
    assert changed(is_now, was, max(due)).endswith("vocabulary changed")


def test_both_steps_of_synthetic_clips_take_the_types(file: Path) -> None:
    pipe = pipeline("synthetic_interactions", f"vocabulary={file}")
    assert pipe.follows is not None
    for stage in (stage_of(pipe, "synthesise"), stage_of(pipe.follows.pipeline, "reactions")):
        assert stage.vocabulary.group_of("hugged") == "affectionate"


def test_the_words_travel_with_the_stage(file: Path, tmp_path: Path) -> None:
    """As Ray sends it, with a prompt of one's own too."""
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "interaction.md").write_text("$caption $types $regions")
    own = [f"vocabulary={file}", f"prompts={tmp_path / 'prompts'}"]
    sent = stage_of(pipeline("real_interactions", *own), "interaction")
    travelled = pickle.loads(cloudpickle.dumps(sent))
    assert travelled.vocabulary == sent.vocabulary and "hugged" in travelled.vocabulary.types
    assert fingerprint(travelled, {}, 0) == fingerprint(sent, {}, 0)
    travelled.model = Noting(Interaction=HUGGED)
    assert travelled.score(clip_of(travelled))["interaction_type"] == "hugged"
