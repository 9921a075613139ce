"""Settings of a run: a pipeline's own, a profile, `--set key=value`. Unknown keys are refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from backends.model_store import ModelStore
from backends.openai_endpoint import served_model
from backends.roles import Roles, build_roles, weights_of
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


class ClusterSettings(BaseModel):
    """What the cluster has, or can grow to: for one that scales by itself, and for `plan`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: float | None = Field(None, gt=0, description="CPUs; default: what is there when the run starts.")
    gpus: float | None = Field(None, ge=0, description="GPUs; likewise.")


class Settings(BaseModel):
    """What every pipeline takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    seed: int = Field(0, description="Seed of every random choice.")
    source: str | None = Field(None, description="Name of the data set in sample ids; default: the folder's.")
    workers: int | None = Field(None, ge=1, description="Processes that compute; default: as many as fit.")
    rows_per_part: int = Field(8, ge=1, description="Most samples that are committed together.")
    device: Literal["cuda", "cpu"] | None = Field(
        None, description="Where models run that can use a GPU; cpu: no stage asks for one. Default: CUDA."
    )
    models: str | None = Field(
        None,
        description="The model store: a folder all workers see, or an fsspec URL. Default: the environment "
        "variable INTERAVATAR_MODELS, else ~/.cache/interavatar/models.",
    )
    roles: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Laid over the profile's settings of roles, such as roles.image_to_video.num_frames=49.",
    )
    cluster: ClusterSettings = ClusterSettings()
    vlm: VlmSettings = VlmSettings()

    @field_validator("models")
    @classmethod
    def _no_secrets(cls, value: str | None) -> str | None:
        if value is not None and "://" in value and re.search(r"[@?#]|::", value):
            raise ValueError(
                "a store's URL has no user, password or query; credentials come from the environment"
            )
        return value


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
    threads: int | None = Field(
        None,
        ge=1,
        description="Blocks of samples that one worker has in hand at once, so that it decodes one while a "
        "model works on another; only where every model may be called from several threads, as those of the "
        "gpu profile may.",
    )
    runtime_env: dict[str, Any] | None = Field(
        None,
        description="Ray's `runtime_env` of the workers, such as {py_executable: /opt/vllm/bin/python}.",
    )


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


def profile_roles(profile: Profile, settings: Settings, answers: Path) -> Roles:
    """The models of a profile, not loaded yet.

    Args:
        profile: names an implementation for each role.
        settings: `roles` is laid over the profile's; an endpoint in `vlm` takes the place of its
            vision-language model.
        answers: folder in which a language model keeps its answers.

    Raises:
        SettingsError: it names a role, implementation, setting or model that does not exist, or the endpoint
            does not say which model it serves.
    """
    choices = _choices(profile, settings)
    vlm = settings.vlm
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
        return build_roles(choices, ModelStore(settings.models), settings.device)
    except ValueError as error:
        raise SettingsError(f"profile {profile.name}: {error}") from None


def profile_weights(profile: Profile, settings: Settings, roles: Collection[str] | None = None) -> list[str]:
    """Names of the models in the model store that some roles of a profile need, in their order.

    Args:
        profile: names an implementation for each role.
        settings: laid over it.
        roles: whose models; None: of all.

    Raises:
        SettingsError: as `profile_roles`.
    """
    choices = _choices(profile, settings)
    if settings.vlm.endpoint is not None:
        choices.pop("vision_language_model", None)
    try:
        return weights_of({n: c for n, c in choices.items() if roles is None or n in roles})
    except ValueError as error:
        raise SettingsError(f"profile {profile.name}: {error}") from None


def _choices(profile: Profile, settings: Settings) -> dict[str, dict[str, Any]]:
    choices = {name: choice.model_dump() for name, choice in profile.roles.items()}
    for role, over in settings.roles.items():
        choices[role] = merged({} if "use" in over else choices.get(role, {}), over)
    if choices.get("vision_language_model", {}).get("use") == "openai_endpoint":
        raise SettingsError(f"profile {profile.name}: give the endpoint under settings: vlm: endpoint")
    return choices


def load_screen(name: str) -> Screen:
    """A screen by name or file.

    One that says `extends: NAME` has the rules of that screen too; a rule of its own with the same reason and
    column takes the other's place.

    Raises:
        SettingsError: there is none, or it is wrong.
    """
    return _screen(name, ())


def _screen(name: str, below: tuple[str, ...]) -> Screen:
    values, where = _load_yaml(name, "screens")
    base = values.pop("extends", None)
    if base is None:
        return parse(Screen, values, where)
    if where in below:
        raise SettingsError(f"{where} extends itself: {' -> '.join((*below, where))}")
    under = _screen(str(base), (*below, where))
    own = parse(Screen, values, where)
    mine = {(rule.reason, rule.column): rule for rule in own.rules}
    rules = [mine.pop((rule.reason, rule.column), rule) for rule in under.rules]
    return own.model_copy(update={"rules": [*rules, *mine.values()]})
