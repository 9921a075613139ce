"""The language models of a run whose requests are counted: their settings, their answers, what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backends.language.answer_cache import read_usage
from backends.language.vision_language_model import VisionLanguageModel
from backends.roles import Roles
from pipelines.engine.settings import Settings, VlmSettings

# Role of a language model to its key, of its settings and of what run.json says of it. The second role is
# filled only where a profile or an endpoint does so: else the first one's model is asked.
KEYS: Final[Mapping[str, str]] = {
    "vision_language_model": "vlm",
    "reaction_writer": "reaction_writer",
}


@dataclass(frozen=True)
class AskedModel:
    """One language model of a run.

    Attributes:
        key: of its settings, and of what run.json says of it.
        model: itself, as the stages have it.
        settings: of its endpoint; without one they give only prices.
        folder: where it keeps its answers and counts its requests; no two models share one.
    """

    key: str
    model: VisionLanguageModel
    settings: VlmSettings
    folder: Path

    def usage(self) -> dict[str, int]:
        """What it has been asked so far, by all runs into this folder."""
        return vars(read_usage(self.folder)).copy()

    def spent_since(self, before: Mapping[str, int]) -> dict[str, Any]:
        """Requests, tokens and US dollars since `before`; dollars are null without prices in the settings."""
        spent: dict[str, Any] = {name: count - before[name] for name, count in self.usage().items()}
        cost = self.price(spent["prompt_tokens"], spent["completion_tokens"])
        return spent | {"cost_usd": None if cost is None else round(cost, 6)}

    def price(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """US dollars for so many tokens; None without prices in the settings."""
        s = self.settings
        if s.input_price is None or s.output_price is None:
            return None
        return (prompt_tokens * s.input_price + completion_tokens * s.output_price) / 1e6


def endpoints(settings: Settings) -> dict[str, VlmSettings]:
    """The endpoints in the settings, by the role that each fills."""
    given: dict[str, VlmSettings] = {role: getattr(settings, key) for role, key in KEYS.items()}
    return {role: vlm for role, vlm in given.items() if vlm.endpoint is not None}


def answers_of(role: str, folder: Path) -> Path:
    """Where the model of a role keeps its answers, in the folder of a run's answers."""
    return folder if role == "vision_language_model" else folder / role


def asked_models(roles: Roles, settings: Settings, folder: Path) -> list[AskedModel]:
    """The language models of a run: the vision-language model, and a writer of reactions of its own.

    Args:
        roles: the models.
        settings: of their endpoints.
        folder: of the answers.
    """
    by_role: dict[str, VisionLanguageModel] = {role: getattr(roles, role) for role in KEYS}
    if roles.reaction_writer is roles.vision_language_model:
        del by_role["reaction_writer"]
    return [
        AskedModel(KEYS[role], model, getattr(settings, KEYS[role]), answers_of(role, folder))
        for role, model in by_role.items()
    ]
