"""Settings of a run: a pipeline's own, a profile, `--set key=value`. Unknown keys are refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from backends.openai_endpoint import served_model
from backends.roles import Roles, build_roles
from backends.vision_language_model import AnswerError
from manifests.screen import Screen


class SettingsError(Exception):
    """A setting, profile or screen is wrong; the message names it and the nearest right one."""


class VlmSettings(BaseModel):
    """A vision-language model behind an OpenAI-compatible endpoint; it takes the place of the profile's.

    The key is read from the environment, never from here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str | None = Field(None, description="Base URL, such as http://localhost:8000/v1 of vLLM.")
    model: str | None = Field(None, description="Model to ask; default: the one that the endpoint serves.")
    concurrency: int = Field(16, ge=1, description="Questions in flight at once, for each worker.")
    timeout_s: float = Field(120.0, gt=0, description="Longest time for one request, s.")
    attempts: int = Field(5, ge=1, description="Requests for one question, with growing pauses.")
    max_requests: int | None = Field(
        None, ge=0, description="Most requests that all runs into one output folder may make together."
    )
    temperature: float | None = Field(
        0.0, ge=0, description="null: the endpoint's own (GPT-5 takes no other)."
    )
    max_tokens: int = Field(8192, ge=16, description="Longest answer, tokens.")
    video: bool = Field(
        True,
        description="Show a clip as one video (vLLM); false: as pictures (the OpenAI API takes no video).",
    )
    batch: bool = Field(False, description="Ask by the Batch API: half the price, answers within a day.")
    batch_poll_s: float = Field(30.0, gt=0, description="Time between two looks at the batches, s.")
    key_variable: str = Field(
        "OPENAI_API_KEY",
        pattern=r"^[A-Z_][A-Z0-9_]*$",
        description="Environment variable that holds the key; none is needed for vLLM.",
    )
    input_price: float | None = Field(None, ge=0, description="US dollars for a million prompt tokens.")
    output_price: float | None = Field(None, ge=0, description="US dollars for a million answer tokens.")

    @field_validator("endpoint")
    @classmethod
    def _without_secrets(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^@?#\s]+", value):
            raise ValueError(
                "give an address such as http://localhost:8000/v1, without user or key "
                "(the key is read from the variable that key_variable names)"
            )
        return value


class Settings(BaseModel):
    """What every pipeline takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    seed: int = Field(0, description="Seed of every random choice.")
    source: str | None = Field(None, description="Name of the data set in sample ids; default: the folder's.")
    workers: int | None = Field(None, ge=1, description="Processes that compute; default: as many as fit.")
    rows_per_part: int = Field(8, ge=1, description="Most samples that are committed together.")
    vlm: VlmSettings = VlmSettings()


class RoleChoice(BaseModel):
    """Which implementation fills a role; further keys are its settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str = Field(description="Name of the implementation.")


class StageResources(BaseModel):
    """What one worker of a stage takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: float = Field(1.0, ge=0)
    gpus: float = Field(0.0, ge=0)
    workers: int | None = Field(None, ge=1)


class Profile(BaseModel):
    """Implementations and resources of a run, and settings that differ from the defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str = ""
    roles: dict[str, RoleChoice]
    resources: dict[str, StageResources] = Field(
        default_factory=dict, description="Stage name, or `default`, to what one worker of it takes."
    )
    screens: dict[str, str] = Field(
        default_factory=dict, description="Pipeline to its screen, where it differs from the pipeline's own."
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="As after --set, nested.")

    def resources_of(self, stage: str) -> StageResources:
        """What one worker of a stage takes: its own entry, else `default`, else one CPU."""
        return self.resources.get(stage) or self.resources.get("default") or StageResources()


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Validate; errors are one readable line each.

    Raises:
        SettingsError: a key is unknown (the nearest right one is named) or a value is wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_say(model, e, where) for e in error.errors())) from None


def _say(model: type[BaseModel], error: Any, where: str) -> str:
    location = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{where}: {location}: {error['msg']}"
    known = list(_fields_at(model, error["loc"][:-1]))
    close = get_close_matches(str(error["loc"][-1]), known, 1, cutoff=0.4)
    parent = "".join(f"{part}." for part in error["loc"][:-1])
    nearest = f"did you mean {parent}{close[0]}?" if close else f"there are: {', '.join(known)}"
    return f"{where}: unknown key {location}; {nearest}"


def _fields_at(model: type[BaseModel], path: Sequence[Any]) -> Mapping[str, Any]:
    for part in path:
        field = model.model_fields.get(str(part))
        model = (_model_in(field.annotation) if field else None) or model
    return model.model_fields


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in `X`, `X | None`, `list[X]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for a in get_args(annotation) if (found := _model_in(a)) is not None), None)


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`["a.b=1", "c=true"]` as nested values; values are read as YAML.

    Raises:
        SettingsError: one has no `=` or no key.
    """
    nested: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"--set {text}: write key=value, for instance --set quality.fps=4")
        here = nested
        *parents, last = key.strip().split(".")
        for part in parents:
            here = here.setdefault(part, {})
            if not isinstance(here, dict):
                raise SettingsError(f"--set {text}: {part} was already given a value")
        try:
            here[last] = yaml.safe_load(value)
        except yaml.YAMLError:
            here[last] = value
    return nested


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the nested values of `over` laid on top."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def _load_yaml(name: str, kind: str) -> tuple[dict[str, Any], str]:
    """A YAML file by path, or by its name in configs/<kind>/."""
    folder = resources.files("configs") / kind
    known = sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))
    stem = name.removesuffix(".yaml")
    if Path(name).is_file():
        try:
            text, where = Path(name).read_text(encoding="utf-8"), name
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"cannot read {name}: {error}") from None
    elif stem in known:
        text, where = (folder / f"{stem}.yaml").read_text(), f"configs/{kind}/{stem}.yaml"
    else:
        raise SettingsError(f"no {kind[:-1]} {name!r}: neither a file nor one of {', '.join(known)}")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{where} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{where} must be a mapping of keys to values")
    return values, where


def load_profile(name: str) -> Profile:
    """A profile by name or file.

    Raises:
        SettingsError: there is none, or it is wrong.
    """
    return parse(Profile, *_load_yaml(name, "profiles"))


def profile_roles(profile: Profile, vlm: VlmSettings, answers: Path) -> Roles:
    """The models of a profile, not loaded yet.

    Args:
        profile: names an implementation for each role.
        vlm: an endpoint here takes the place of the profile's vision-language model.
        answers: folder in which a language model keeps its answers.

    Raises:
        SettingsError: it names a role, implementation or setting that does not exist, or the endpoint does
            not say which model it serves.
    """
    choices = {name: choice.model_dump() for name, choice in profile.roles.items()}
    if choices.get("vision_language_model", {}).get("use") == "openai_endpoint":
        raise SettingsError(f"profile {profile.name}: give the endpoint under settings: vlm: endpoint")
    if vlm.endpoint is not None:
        try:
            model = vlm.model or served_model(vlm.endpoint, str(answers), vlm.key_variable)
        except AnswerError as error:
            raise SettingsError(f"vlm.endpoint: {error}") from None
        sent = vlm.model_dump(exclude={"input_price", "output_price", "batch_poll_s"})
        choices["vision_language_model"] = {**sent, "use": "openai_endpoint", "model": model}
    if choices.get("vision_language_model", {}).get("use") in ("openai_endpoint", "vllm"):
        choices["vision_language_model"].setdefault("folder", str(answers))
    try:
        return build_roles(choices)
    except ValueError as error:
        raise SettingsError(f"profile {profile.name}: {error}") from None


def load_screen(name: str) -> Screen:
    """A screen by name or file.

    Raises:
        SettingsError: there is none, or it is wrong.
    """
    return parse(Screen, *_load_yaml(name, "screens"))
