"""Settings of a run: a pipeline's own, a profile, `--set key=value`. Unknown keys are refused."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class VlmSettings(BaseModel):
    """A vision-language model behind an OpenAI-compatible endpoint; it takes the place of the profile's.

    Without an endpoint the other keys mean nothing. The key is read from the environment, never from here.
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
    temperature: Annotated[float, Field(ge=0)] | Literal["server"] | None = Field(
        None,
        description="null: 0, but none is sent to OpenAI's models that reason (gpt-5, o3, ...), which take "
        "only their own; server: none is sent.",
    )
    max_tokens: int = Field(
        8192, ge=16, description="Longest answer, tokens; what a model writes while it reasons counts."
    )
    reasoning_effort: str | None = Field(
        None,
        pattern=r"^[a-z]+$",
        description="How long a model reasons: minimal, low, medium or high for GPT-5. null: none is sent.",
    )
    video: bool | None = Field(
        None,
        description="Show a clip as one video; false: as pictures. null: as pictures to the OpenAI API and "
        "its models, which take no video; as one video to any other server.",
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
    gpu_hour_usd: float | None = Field(
        None, ge=0, description="US dollars that one GPU costs for an hour, for the bill that `plan` shows."
    )


class SourceSettings(BaseModel):
    """What an input list or an input folder may lead to; what it may not is an error of its row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schemes: list[str] = Field(
        default_factory=list,
        description="Schemes, such as https, that addresses in a list may have beside the list's own; local "
        "files it may always name. Of chained addresses (simplecache::https://...) every scheme counts.",
    )
    hosts: list[str] | None = Field(
        None,
        description="Hosts (of s3:// buckets) that addresses in a list may name beside the list's own. "
        "Default: any but link-local ones such as 169.254.169.254, from which clouds hand out keys.",
    )
    follow_links: bool = Field(False, description="Follow symbolic links that lead out of the input folder.")


class Settings(BaseModel):
    """What every pipeline takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    seed: int = Field(0, description="Seed of every random choice.")
    source: str | None = Field(None, description="Name of the data set in sample ids; default: the folder's.")
    sources: SourceSettings = SourceSettings()
    workers: int | None = Field(None, ge=1, description="Processes that compute; default: as many as fit.")
    rows_per_part: int | None = Field(
        None,
        ge=1,
        description="Most samples that are committed together; by default as many as take a minute by the "
        "times of the last run in the folder, 256 at most, and 8 where there was none.",
    )
    deadline_s: float | None = Field(
        None,
        gt=0,
        description="Longest time that one stage may take for one sample, s; its worker is killed then, and "
        "tries again. Default: an hour, or 30 times the stage's mean where that is longer.",
    )
    device: Literal["cuda", "cpu"] | None = Field(
        None, description="Where models run that can use a GPU; cpu: no stage asks for one. Default: CUDA."
    )
    models: str | None = Field(
        None,
        description="The model store: a folder all workers see, or an fsspec URL. Default: the environment "
        "variable INTERAVATAR_MODELS, else ~/.cache/interavatar/models.",
    )
    prompts: str | None = Field(
        None,
        description="A folder whose files take the place of those of the same names in prompts/; another "
        "text makes the stages that ask it run again.",
    )
    vocabulary: str | None = Field(
        None,
        description="A YAML file with types of touch beside the paper's; other types make the stages that "
        "speak of them run again.",
    )
    roles: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Laid over the profile's settings of roles, such as roles.image_to_video.num_frames=49.",
    )
    cluster: ClusterSettings = ClusterSettings()
    vlm: VlmSettings = VlmSettings()
    reaction_writer: VlmSettings = VlmSettings()

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
