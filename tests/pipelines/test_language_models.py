"""Two language models in one run: who fills which role, what each is asked, and what each takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from backends.language.openai_endpoint import OpenAIEndpoint
from backends.language.vision_language_model import MeasuredAnswers
from backends.language.vllm_chat import VllmChat
from backends.roles import Roles
from configs.reading import SettingsError
from pipelines.engine.pipeline import RunError
from pipelines.requests import Request, load_profile, prepare, profile_roles, profile_weights, settings_of
from tests.support.helpers import linked, quiet
from tests.support.misbehaving_server import MisbehavingServer, picky
from tests.support.schema_answers import answer

QWEN = ("vlm.endpoint=http://127.0.0.1:9/v1", "vlm.model=Qwen/Qwen2.5-VL-7B-Instruct")
GPT = ("reaction_writer.endpoint=http://127.0.0.1:9/v1", "reaction_writer.model=gpt-5-mini")


def roles_of(folder: Path, profile: str, *overrides: str) -> Roles:
    chosen = load_profile(profile)
    return profile_roles(chosen, settings_of(chosen, overrides), folder / "answers")


def execute(pipeline: str, source: Path, output: Path, *overrides: str) -> list[dict[str, Any]]:
    runs = prepare(Request(pipeline, str(source), output, overrides=overrides))
    return [run.execute(quiet()) for run in runs]


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer(answer) as running:
        yield running


@pytest.fixture
def reasoning() -> Iterator[MisbehavingServer]:
    """A server that refuses what gpt-5-mini refuses."""
    with MisbehavingServer(answer) as running:
        running.refuses = picky
        yield running


@pytest.fixture
def portrait(samples: Path, tmp_path: Path) -> Path:
    return linked(tmp_path / "portraits", [samples / "images" / "uniface_man2.jpg"])


def test_who_fills_the_roles(tmp_path: Path) -> None:
    made = roles_of(tmp_path, "laptop")
    assert isinstance(made.vision_language_model, MeasuredAnswers)
    assert made.reaction_writer is made.vision_language_model

    made = roles_of(tmp_path, "laptop", *QWEN)
    assert isinstance(made.vision_language_model, OpenAIEndpoint)
    assert made.reaction_writer is made.vision_language_model

    made = roles_of(tmp_path, "laptop", *GPT)
    assert isinstance(made.vision_language_model, MeasuredAnswers)
    assert isinstance(made.reaction_writer, OpenAIEndpoint) and made.reaction_writer.name == "gpt-5-mini"

    made = roles_of(tmp_path, "laptop", *QWEN, *GPT)
    assert made.vision_language_model.name == "Qwen2.5-VL-7B-Instruct"
    assert made.reaction_writer.name == "gpt-5-mini"
    folders = [model.folder for model in (made.vision_language_model, made.reaction_writer)]  # type: ignore[attr-defined]
    assert folders == [str(tmp_path / "answers"), str(tmp_path / "answers" / "reaction_writer")]

    made = roles_of(tmp_path, "laptop", *QWEN, "roles.reaction_writer.use=stand_in_measured")
    assert isinstance(made.vision_language_model, OpenAIEndpoint)
    assert isinstance(made.reaction_writer, MeasuredAnswers)


def test_the_gpu_profile_asks_one_model_unless_told_otherwise(tmp_path: Path) -> None:
    profile, store = load_profile("gpu"), f"models={tmp_path}"
    made = roles_of(tmp_path, "gpu", store)
    assert isinstance(made.vision_language_model, VllmChat)
    assert made.reaction_writer is made.vision_language_model
    made = roles_of(tmp_path, "gpu", store, *GPT)
    assert isinstance(made.vision_language_model, VllmChat)
    assert isinstance(made.reaction_writer, OpenAIEndpoint)
    own = ("roles.reaction_writer.use=vllm", "roles.reaction_writer.model=another")
    for overrides, weights in (
        ((), ["qwen2.5-vl-7b-instruct"]),
        (GPT, ["qwen2.5-vl-7b-instruct"]),
        (QWEN, []),
        (own, ["qwen2.5-vl-7b-instruct", "another"]),
        ((*QWEN, *own), ["another"]),
    ):
        settings = settings_of(profile, (store, *overrides))
        assert profile_weights(profile, settings, {"vision_language_model", "reaction_writer"}) == weights


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("reaction_writer.endpiont=http://a/v1", "reaction_writer.endpiont"),
        ("reaction_writer.endpoint=http://me:pw@a/v1", "without user or key"),
        ("roles.reaction_writer.use=openai_endpoint", "give the endpoint under settings: reaction_writer: e"),
        ("roles.reaction_writer.temperature=1", "names no implementation for the role 'reaction_writer'"),
        (
            "roles.vision_language_model.use=openai_endpoint",
            "give the endpoint under settings: vlm: endpoint",
        ),
        ("vlm.temperature=-1", "vlm.temperature"),
        ("vlm.temperature=cold", "vlm.temperature"),
    ],
)
def test_what_is_wrong_is_said(override: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        roles_of(tmp_path, "laptop", override)
    assert said in str(caught.value)


def test_each_model_is_asked_its_own_questions(
    server: MisbehavingServer, reasoning: MisbehavingServer, portrait: Path, tmp_path: Path
) -> None:
    """Qwen looks at the portrait and boxes the hair, a model that reasons writes: the paper's B.1."""
    settings = (
        *(f"vlm.endpoint={server.url}", "vlm.model=Qwen/Qwen2.5-VL-7B-Instruct"),
        *(f"reaction_writer.endpoint={reasoning.url}", "reaction_writer.model=gpt-5-mini"),
    )
    (record,) = execute("portraits", portrait, tmp_path / "out", *settings)
    (row,) = pd.read_parquet(tmp_path / "out" / "manifest").to_dict("records")
    assert (row["depiction_by"], row["reactions_by"]) == ("Qwen2.5-VL-7B-Instruct", "gpt-5-mini")
    assert row["hair_by"].startswith("Qwen2.5-VL-7B-Instruct")
    assert len(row["reactions"]) == 11 * row["num_regions"] > 0
    assert {r.body["model"] for r in server.chats()} == {"Qwen/Qwen2.5-VL-7B-Instruct"}
    assert {r.body["model"] for r in reasoning.chats()} == {"gpt-5-mini"}
    assert record["vlm"]["requests"] == len(server.chats()) == 2
    assert record["reaction_writer"]["requests"] == len(reasoning.chats()) == 11
    assert record["vlm"]["failed_requests"] == record["reaction_writer"]["failed_requests"] == 0
    # What was sent stands in the run's record.
    (told,) = record["stages"]["reactions"]["models"]
    assert told == "gpt-5-mini (temperature=default, max_tokens=8192, frames as pictures)"
    assert "temperature=0, max_tokens=8192, frames as mp4" in record["stages"]["portrait_kind"]["models"][0]

    (record,) = execute("portraits", portrait, tmp_path / "out", *settings)
    assert record["counts"]["computed"] == record["reaction_writer"]["requests"] == 0
    other = (*settings[:3], "reaction_writer.model=gpt-5")
    (record,) = execute("portraits", portrait, tmp_path / "out", *other)
    assert record["vlm"]["requests"] == 0 and record["reaction_writer"]["requests"] == 11


def test_a_model_that_reasons_answers_every_question_by_default(
    reasoning: MisbehavingServer, samples: Path, tmp_path: Path
) -> None:
    """Clips are shown to it as pictures, and no temperature is sent."""
    clips = linked(tmp_path / "clips", [samples / "videos" / "intel_asl_brother.mkv"])
    settings = (f"vlm.endpoint={reasoning.url}", "vlm.model=gpt-5-mini", "people_count.max_people=99")
    (record,) = execute("real_interactions", clips, tmp_path / "out", *settings)
    assert record["counts"]["errors"] == 0 and record["vlm"]["failed_requests"] == 0
    assert record["vlm"]["requests"] == len(reasoning.chats()) >= 5
    (row,) = pd.read_parquet(tmp_path / "out" / "manifest").to_dict("records")
    assert row["caption_by"] == row["anatomy_by"] == "gpt-5-mini"


def test_all_questions_about_a_clip_begin_with_the_same_bytes(
    server: MisbehavingServer, samples: Path, tmp_path: Path
) -> None:
    """So that what a server has read of one it need not read again: the video first, the question last."""
    clips = linked(tmp_path / "clips", [samples / "videos" / "intel_asl_brother.mkv"])
    for name, model in (("video", "org/tiny-vl"), ("pictures", "gpt-5-mini")):
        server.requests.clear()
        settings = (f"vlm.endpoint={server.url}", f"vlm.model={model}", "people_count.max_people=99")
        execute("real_interactions", clips, tmp_path / name, *settings)
        contents = [chat.body["messages"] for chat in server.chats()]
        assert all([m["role"] for m in messages] == ["user"] for messages in contents)
        parts = [[json.dumps(part) for part in messages[0]["content"]] for messages in contents]
        asked = [p for p in parts if '"image_url"' not in p[0]]  # the hair's box is asked of one picture
        assert len(asked) >= 5 and len({tuple(p[:-1]) for p in asked}) == 1, name
        assert len({p[-1] for p in asked}) == len(asked) and all("text" in json.loads(p[-1]) for p in asked)


def test_batches_of_two_models(
    server: MisbehavingServer, reasoning: MisbehavingServer, portrait: Path, tmp_path: Path
) -> None:
    settings = (
        *(f"vlm.endpoint={server.url}", "vlm.model=org/tiny-vl", "vlm.batch=true", "vlm.batch_poll_s=0.05"),
        *(f"reaction_writer.endpoint={reasoning.url}", "reaction_writer.model=gpt-5-mini"),
        *("reaction_writer.batch=true", "reaction_writer.batch_poll_s=0.05"),
        "reaction_writer.max_requests=11",
    )
    (record,) = execute("portraits", portrait, tmp_path / "out", *settings)
    assert record["counts"]["errors"] == 0 and server.chats() == reasoning.chats() == []
    assert len(server.submitted()) == record["vlm"]["requests"] == 2
    assert len(reasoning.submitted()) == record["reaction_writer"]["requests"] == 11


def test_a_batch_with_a_refused_setting_spoils_no_sample(
    reasoning: MisbehavingServer, portrait: Path, tmp_path: Path
) -> None:
    settings = (
        *(f"reaction_writer.endpoint={reasoning.url}", "reaction_writer.model=gpt-5-mini"),
        *("reaction_writer.batch=true", "reaction_writer.batch_poll_s=0.05"),
    )
    with pytest.raises(RunError, match="refuses a setting of the requests: HTTP 400: Unsupported value"):
        execute("portraits", portrait, tmp_path / "out", *settings, "reaction_writer.temperature=0")
    (row,) = pd.read_parquet(tmp_path / "out" / "manifest").to_dict("records")
    assert row["error"] is None and row["stopped"]["waits"]
    (record,) = execute("portraits", portrait, tmp_path / "out", *settings)
    assert record["counts"]["errors"] == 0 and record["reaction_writer"]["requests"] == 11
