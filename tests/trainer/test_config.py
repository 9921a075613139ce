"""A training run's YAML and `--set` are read as those of the pipelines: same names, same errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.reading import SettingsError
from tests.conftest import ROOT
from trainer.config import load_config

TINY = ROOT / "configs" / "train" / "tiny.yaml"


def test_a_run_by_its_name_and_by_its_file() -> None:
    assert load_config("tiny") == load_config("tiny.yaml") == load_config(TINY)


def test_settings_are_laid_over_the_file() -> None:
    config = load_config(
        "tiny", ["steps=7", "data.workers=0", "data.shards=[a, b]", "optimiser.betas=[0, 1]"]
    )
    assert (config.steps, config.data.workers, config.data.shards) == (7, 0, ["a", "b"])
    assert config.optimiser.betas == (0, 1) and config.model == load_config("tiny").model


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepz=2", r"^configs/train/tiny\.yaml with --set: unknown key stepz; did you mean steps\?$"),
        ("data.worker=2", r"unknown key data\.worker; did you mean data\.workers\?"),
        ("steps=many", r"with --set: steps: Input should be a valid integer"),
        ("steps", r"^--set steps: write key=value"),
        ("distill.window=2", r"window 2 is shorter than a block of 3 latent steps"),
        ("data.buckets.step=3", r"with --set: wan takes 4 n \+ 1 frames: set data\.buckets\.step to 4"),
    ],
)
def test_a_wrong_setting_is_named_with_the_nearest_right_one(override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_config("tiny", [override])


def test_a_missing_file_names_the_runs_there_are(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no training run .tinny.: .* nor one of .*tiny, wan"):
        load_config("tinny")
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(SettingsError, match=r"list\.yaml must be a mapping"):
        load_config(path)
