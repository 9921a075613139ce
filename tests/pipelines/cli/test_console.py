"""One way to end a command: the same kind of error has the same code, and no secret reaches the output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
import typer
from rich.table import Table
from typer.testing import CliRunner

from backends.store.copied_weights import ModelStoreError
from backends.store.model_catalogue import CatalogueError
from configs.errors import UsageError, UserError
from configs.reading import SettingsError
from manifests.shards import MissingShards, ShardError
from manifests.storage import AddressError, StorageError
from media.files import MediaError
from pipelines.cli import app as cli
from pipelines.cli import console
from pipelines.cli.console import readable_errors
from pipelines.engine.pipeline import RunError
from pipelines.engine.source import InputError
from trainer.checkpoint import CheckpointError, MissingCheckpoint
from trainer.data.latent_cache import LatentError

PASSWORD, SIGNATURE, KEY, VARIABLE = "s3cr3t-word", "c2lnbmF0dXJl", "sk-abcdef0123456789", "hf_0123456789abc"
TOLD = (
    f"cannot read s3://user:{PASSWORD}@host/clip.mp4?X-Amz-Signature={SIGNATURE}, with {KEY} and {VARIABLE}"
)


class StoreClientError(Exception):
    """As an object store's client raises it."""


StoreClientError.__module__ = "botocore.exceptions"

# Whose commands have two words.
GROUPS = ("models", "evaluate", "benchmark")
# Command to where it can fail.
COMMANDS = {
    ("run", "talking_head", "--input", "in", "--output", "out"): "pipelines.requests.prepare",
    ("plan", "talking_head", "--input", "in"): "pipelines.estimate.cost.estimates",
    ("screen", "out"): "pipelines.cli.status.read_record",
    ("status", "out"): "pipelines.cli.status.read_record",
    ("report", "out"): "pipelines.cli.status.read_record",
    ("compare", "out", "other"): "pipelines.compare.compare.compare_runs",
    ("review", "out"): "pipelines.cli.status.read_record",
    ("repair", "out"): "pipelines.engine.repair.is_run",
    ("validate", "out", "--labels", "labels.csv"): "pipelines.validate.labels.read_labels",
    ("duplicates", "out"): "pipelines.collection.runs.open_collection",
    ("find", "out", "hands"): "pipelines.collection.runs.open_collection",
    ("card", "out"): "pipelines.collection.runs.open_collection",
    ("doctor",): "pipelines.doctor.examine.examine",
    ("people", "out"): "pipelines.collection.runs.open_collection",
    ("split", "out"): "pipelines.collection.runs.open_collection",
    ("shards", "out", "--output", "shards"): "pipelines.shards.plan.open_runs",
    ("ledger", "out", "--output", "ledger.csv"): "pipelines.collection.ledger.write_ledger",
    ("forget", "out", "--id", "a"): "pipelines.collection.forget.runs_at",
    ("export", "out", "--clips", "clips"): "pipelines.export.rows.open_run",
    ("train", "--config", "tiny"): "trainer.config.load_config",
    ("export-model", "c", "--output", "o"): "trainer.export.export_model",
    ("latents", "--config", "tiny", "--output", "cache"): "trainer.config.load_config",
    (
        "sample",
        "--checkpoint",
        "c",
        "--image",
        __file__,
        "--output",
        "o.mp4",
    ): "pipelines.requests.load_profile",
    ("live", "--checkpoint", __file__, "--image", __file__): "pipelines.requests.load_profile",
    ("evaluate", "study", "a", "b", "--output", "o.html"): "pipelines.evaluation.study.write_study",
    ("evaluate", "votes", "k", "a"): "pipelines.evaluation.study_key.read_key",
    ("evaluate", "measure", "a", "--output", "o"): "pipelines.evaluation.inputs.parse_methods",
    (
        "benchmark",
        "talking",
        "--input",
        "in",
        "--output",
        "out",
    ): "pipelines.evaluation.make_cases.make_cases",
    ("models", "list"): "backends.store.model_store.ModelStore",
    ("models", "fetch"): "backends.store.model_store.ModelStore",
    ("models", "record", "a"): "backends.store.model_store.ModelStore",
}


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of each command."""
    if not hasattr(command, "commands"):
        yield words
        return
    for name, below in command.commands.items():
        yield from leaves(below, (*words, name))


def test_every_command_is_tried() -> None:
    tried = {words[: 2 if words[0] in GROUPS else 1] for words in COMMANDS}
    assert tried == set(leaves(typer.main.get_command(cli.app)))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError(TOLD), 1),
        (InputError(TOLD), 2),
        (ValueError(TOLD), 1),
        (FileNotFoundError(TOLD), 1),
        (pa.ArrowNotImplementedError(TOLD), 1),
        (StoreClientError(TOLD), 1),
        (KeyError(TOLD), 1),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: "-".join(words[:2]))
def test_no_command_shows_a_secret(
    words: tuple[str, ...], error: Exception, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(COMMANDS[words], fails)
    monkeypatch.setenv("HF_TOKEN", VARIABLE)
    done = CliRunner(env={"COLUMNS": "60"}).invoke(cli.app, words)
    assert done.exit_code == code, done.output
    assert "cannot read s3://host/clip.mp4" in done.stderr and "with [key] and [key]" in done.stderr
    assert not [word for word in (PASSWORD, SIGNATURE, KEY, VARIABLE) if word in done.output]
    assert ("Traceback" in done.stderr) == isinstance(error, KeyError)


@pytest.mark.parametrize(
    "words",
    [
        ("run", "talking_head", "--engine", f"s3://user:{PASSWORD}@host/a"),
        ("status", "out", f"s3://user:{PASSWORD}@host/a"),
        (f"s3://user:{PASSWORD}@host/a",),
        ("status", f"s3://user:{PASSWORD}@host/a"),
        ("shards", f"s3://user:{PASSWORD}@host/a", "--output", "shards"),
        ("models", f"s3://user:{PASSWORD}@host/a"),
    ],
    ids=str,
)
def test_wrong_words_do_not_come_back_with_their_secrets(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 2 and "s3://" in done.stderr and PASSWORD not in done.output


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (SettingsError, 2),
        (InputError, 2),
        (CatalogueError, 2),
        (AddressError, 2),
        (MissingShards, 2),
        (MissingCheckpoint, 2),
        (RunError, 1),
        (MediaError, 1),
        (ModelStoreError, 1),
        (StorageError, 1),
        (ShardError, 1),
        (CheckpointError, 1),
        (LatentError, 1),
    ],
)
def test_what_a_kind_of_error_ends_with(kind: type[UserError], code: int) -> None:
    assert issubclass(kind, UserError) and issubclass(kind, UsageError) == (code == 2)
    with pytest.raises(typer.Exit) as ended, readable_errors():
        raise kind("wrong")
    assert ended.value.exit_code == code


def test_ctrl_c_and_a_missing_package_say_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, readable_errors("interrupted; nothing was written"):
        raise KeyboardInterrupt
    assert ended.value.exit_code == 1 and capsys.readouterr().err == "interrupted; nothing was written\n"
    with pytest.raises(typer.Exit) as ended, readable_errors(packages="pip install 'interavatar[train]'"):
        raise ImportError("No module named 'accelerate'")
    said = capsys.readouterr().err
    assert said == "error: No module named 'accelerate'; pip install 'interavatar[train]'\n"


@pytest.mark.parametrize(
    ("message", "way_out"),
    [
        ("Unable to locate credentials", "give them in the environment"),
        ("Could not connect to the endpoint URL", "run the same command again to go on"),
    ],
)
def test_what_an_object_stores_client_says_has_a_way_out(
    message: str, way_out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = type("ClientError", (Exception,), {"__module__": "botocore.exceptions"})
    with pytest.raises(typer.Exit) as ended, readable_errors():
        raise kind(message)
    assert ended.value.exit_code == 1
    assert f"error: object store: {message}; {way_out}" in capsys.readouterr().err


def test_an_exit_passes() -> None:
    with pytest.raises(typer.Exit) as ended, readable_errors():
        raise typer.Exit(3)
    assert ended.value.exit_code == 3


def test_lines_and_tables_in_a_pipe_are_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    line = f"manifest  /{'folder/' * 20}manifest [made/shards] :smile:"
    console.out().print(line)
    assert capsys.readouterr().out == f"{line}\n"
    view = Table("stage", "models")
    view.add_row("faces", "m" * 100)
    console.out().print(view)
    assert "m" * 100 in capsys.readouterr().out
