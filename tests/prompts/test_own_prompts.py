"""A folder of one's own prompts: its texts are asked and part of fingerprints, and travel with the stage."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from configs.reading import SettingsError
from pipelines.requests import Request, resolve
from prompts.caption import CAPTION
from prompts.interaction import INTERACTION
from prompts.prompt import own_texts
from stages.contract import Stage


def stages(folder: Path) -> dict[str, Stage]:
    request = Request("real_interactions", "", overrides=[f"prompts={folder}"])
    return {stage.name: stage for stage in resolve(request)[3].stages}


def test_a_text_of_ones_own_takes_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "caption.md").write_text("Say what you see.\n")
    (tmp_path / "notes.txt").write_text("no prompt")
    (mine,) = stages(tmp_path)["caption"].prompts
    (other,) = stages(tmp_path)["interaction"].prompts
    assert mine.fill() == "Say what you see." and mine.answer is CAPTION.answer
    assert mine.hash != CAPTION.hash and other.hash == INTERACTION.hash
    (travelled,) = pickle.loads(pickle.dumps(stages(tmp_path)["caption"].prompts))
    assert travelled.hash == mine.hash and travelled.fill() == mine.fill()
    assert CAPTION.fill() != mine.fill()


def test_the_same_text_has_the_same_hash(tmp_path: Path) -> None:
    (tmp_path / "caption.md").write_text(CAPTION.text)
    assert own_texts(tmp_path) == {"caption": CAPTION.text}
    assert stages(tmp_path)["caption"].prompts[0].hash == CAPTION.hash


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("interaction", "$caption $types", r"interaction\.md has no placeholder \$regions"),
        ("caption", "for $you", r"caption\.md has an unknown placeholder \$you"),
        ("captoin", "", r"there is no prompt captoin; there are: anatomy, artifacts, caption, "),
        ("caption", "\xff", r"caption\.md is not UTF-8"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / f"{name}.md").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match=rf"prompts: {tmp_path}: {message}"):
        stages(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"prompts: .*nowhere: .*No such file"):
        stages(tmp_path / "nowhere")
