"""What stands with each implementation: the modules it imports, how its ids begin, what its arrays weigh."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.roles import IMPLEMENTATIONS, MEASURING, embedder_of, packages_of, weights_of
from pipelines.engine.settings import Settings
from pipelines.requests import load_profile, profile_roles, profile_weights


def test_what_an_implementation_imports_beside_the_dependencies() -> None:
    assert packages_of("diarizer", "pyannote") == ("torch", "pyannote.audio")
    assert packages_of("person_mask", "sam2") == packages_of("hair_segmenter", "sam2")
    assert packages_of("diarizer", "senko") == ()
    with pytest.raises(ValueError, match="there is no 'pyannot'"):
        packages_of("diarizer", "pyannot")


def test_the_laptop_needs_nothing_beside_the_dependencies() -> None:
    choices = load_profile("laptop").roles
    assert {packages_of(role, choice.use) for role, choice in choices.items()} == {()}


@pytest.mark.parametrize("role", ["attribute_embedder", "audio_embedder"])
def test_an_embedder_is_found_by_its_id(role: str, tmp_path: Path) -> None:
    models = profile_roles(load_profile("laptop"), Settings(), tmp_path)
    assert embedder_of(role, getattr(models, role).id) is type(getattr(models, role))
    for implementation in IMPLEMENTATIONS[role].values():
        assert embedder_of(role, f"{implementation.method}(weights@0123)") is implementation
    assert embedder_of(role, "one-of-another-version") is next(iter(IMPLEMENTATIONS[role].values()))


def test_weights_that_may_be_left_out(tmp_path: Path) -> None:
    wan, fast = "wan2.2-i2v-a14b", "wan2.2-i2v-a14b-lightning"
    choice = {"use": "wan", "model": wan}
    assert weights_of({"image_to_video": choice}) == [wan]
    assert weights_of({"image_to_video": choice | {"distilled": None}}) == [wan]
    assert weights_of({"image_to_video": choice | {"distilled": fast}}) == [wan, fast]
    profile, models = load_profile("gpu"), str(tmp_path)
    plain = profile_roles(profile, Settings(models=models), tmp_path).image_to_video
    assert plain.name == wan
    changed = Settings(models=models, roles={"image_to_video": {"distilled": fast}})
    made = profile_roles(profile, changed, tmp_path).image_to_video
    assert made.name == f"{wan}+{fast}" and f"distilled={fast}@" in made.id


def test_a_profile_without_the_roles_of_an_evaluation_measures_with_what_packages_hold(
    tmp_path: Path,
) -> None:
    whole = load_profile("laptop")
    older = whole.model_copy(update={"roles": {n: c for n, c in whole.roles.items() if n not in MEASURING}})
    assert len(older.roles) == len(whole.roles) - len(MEASURING)
    made, expected = (profile_roles(p, Settings(), tmp_path) for p in (older, whole))
    for role in MEASURING:
        assert getattr(made, role).id == getattr(expected, role).id
        assert getattr(made, role).network == MEASURING[role]
    assert made.subject_embedder is not made.image_embedder  # a run names the roles that it uses
    asked = Settings(roles={"clip_features": {"frames": 10}})
    assert profile_roles(older, asked, tmp_path).clip_features.frames == 10
    assert profile_weights(older, Settings()) == []
