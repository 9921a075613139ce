"""The pipelines by name, and from a command line's words to runs that are ready to execute."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from backends.roles import Roles
from manifests.screen import Screen
from manifests.storage import is_remote
from manifests.text import public_url
from pipelines.pipeline import Pipeline, stage_columns
from pipelines.portraits import PortraitsSettings, portraits
from pipelines.real_interactions import RealInteractionsSettings, real_interactions
from pipelines.run import Engine, Run
from pipelines.settings import (
    Profile,
    Settings,
    SettingsError,
    load_profile,
    load_screen,
    merged,
    parse,
    parse_overrides,
    profile_roles,
    profile_weights,
)
from pipelines.source import MEDIA_SUFFIXES, Listing, list_input
from pipelines.synthetic_interactions import (
    SyntheticInteractionsSettings,
    clip_fields,
    clips_to_make,
    synthetic_interactions,
)
from pipelines.talking_head import TalkingHeadSettings, talking_head
from stages.contract import Stage

PIPELINES: Mapping[str, tuple[type[Settings], Callable[..., Pipeline]]] = {
    "talking_head": (TalkingHeadSettings, talking_head),
    "real_interactions": (RealInteractionsSettings, real_interactions),
    "portraits": (PortraitsSettings, portraits),
    "synthetic_interactions": (SyntheticInteractionsSettings, synthetic_interactions),
}
# The two runs of synthetic_interactions, each in its own folder below --output.
PORTRAITS, CLIPS = "portraits", "clips"


@dataclass(frozen=True)
class Request:
    """What the user asked for, in the command line's words."""

    pipeline: str
    input: str
    output: Path | None = None
    profile: str = "laptop"
    screen: str | None = None
    overrides: Sequence[str] = ()
    limit: int | None = None
    engine: Engine = "inline"
    retry_errors: bool = False


def prepare(request: Request) -> Iterator[Run]:
    """The runs that the request asks for, in order; each must be executed before the next is drawn.

    All pipelines have one but synthetic_interactions, whose clips follow from its portraits.

    Raises:
        SettingsError: a name, setting, profile or screen is wrong; said before anything runs.
        InputError: the input cannot be listed.
    """
    profile, settings, roles, pipe = resolve(request)
    judge = _screen(request.screen, profile, pipe)
    folder = (request.output or Path()).absolute()  # workers may run in another directory
    first = portraits(roles, settings) if isinstance(settings, SyntheticInteractionsSettings) else None
    common = _common(request, profile, settings, folder, _weights(profile, settings, roles, pipe, first))
    if first is None:
        yield _checked(Run(pipe, _list(request, settings, pipe), folder, screen=judge, **common))
        return
    assert isinstance(settings, SyntheticInteractionsSettings)
    listing = _list(request, settings, first)
    screen = _screen(settings.portraits_screen, profile, first)
    _checked(Run(pipe, Listing([], clip_fields()), folder / CLIPS, screen=judge, **common))
    yield _checked(Run(first, listing, folder / PORTRAITS, screen=screen, **common))
    chosen = clips_to_make(folder / PORTRAITS, settings, {row["sample_id"] for row in listing.rows})
    yield _checked(Run(pipe, chosen, folder / CLIPS, screen=judge, **common))


def clips_before_choice(request: Request) -> Run | None:
    """The second run of synthetic_interactions before its clips are chosen; None for other pipelines.

    Raises:
        SettingsError: as `prepare`.
    """
    profile, settings, _, pipe = resolve(request)
    if not isinstance(settings, SyntheticInteractionsSettings):
        return None
    folder = (request.output or Path()).absolute()
    common = _common(request, profile, settings, folder, [])
    judge = _screen(request.screen, profile, pipe)
    return _checked(Run(pipe, Listing([], clip_fields()), folder / CLIPS, screen=judge, **common))


def _common(
    request: Request, profile: Profile, settings: Settings, folder: Path, weights: Sequence[str]
) -> dict[str, Any]:
    """What all runs of a request share."""
    said = public_url(request.input) if "://" in request.input else request.input
    return {
        "profile": profile,
        "settings": settings,
        "engine": request.engine,
        "retry_errors": request.retry_errors,
        "input": said,
        "answers": folder / "answers",
        "weights": weights,
    }


def _weights(profile: Profile, settings: Settings, roles: Roles, *pipes: Pipeline | None) -> list[str]:
    """Names of the models in the model store that these pipelines load."""
    used = {id(model) for pipe in pipes if pipe for stage in pipe.stages for model in stage.models}
    return profile_weights(
        profile, settings, {f.name for f in fields(roles) if id(getattr(roles, f.name)) in used}
    )


def resolve(request: Request) -> tuple[Profile, Settings, Roles, Pipeline]:
    """Profile, settings, models and pipeline.

    Raises:
        SettingsError: one of them is wrong.
    """
    if request.pipeline not in PIPELINES:
        raise SettingsError(f"there is no pipeline {request.pipeline!r}; there are: {', '.join(PIPELINES)}")
    profile = load_profile(request.profile)
    model, build = PIPELINES[request.pipeline]
    parse(model, profile.settings, f"profile {request.profile}: settings")
    overrides = parse_overrides(request.overrides)
    settings = parse(model, merged(profile.settings, overrides), "--set")
    _check_answers(request.output, settings)
    roles = _roles(request, profile, settings)
    pipe = build(roles, settings)
    _check_resources(profile)
    return profile, settings, roles, pipe


def _check_answers(output: Path | None, settings: Settings) -> None:
    """An object store has no locks, with which requests and batches are counted.

    Raises:
        SettingsError: the settings ask for what needs them.
    """
    if output is None or not is_remote(output):
        return
    asked = {"vlm.max_requests": settings.vlm.max_requests is not None, "vlm.batch": settings.vlm.batch}
    for name in (name for name, is_asked in asked.items() if is_asked):
        raise SettingsError(
            f"{name} needs a file system with locks, which {output} has not: take a local or shared folder "
            "as --output, and copy it there afterwards"
        )


def _roles(request: Request, profile: Profile, settings: Settings) -> Roles:
    if request.output is not None:
        return profile_roles(profile, settings, request.output.absolute() / "answers")
    with tempfile.TemporaryDirectory(prefix="interavatar-") as nowhere:
        return profile_roles(profile, settings, Path(nowhere))


def all_stages() -> list[tuple[Stage, list[str]]]:
    """Every stage once, with the laptop's models, and the names of the pipelines that have it."""
    roles = profile_roles(load_profile("laptop"), Settings(), Path())
    found: dict[str, tuple[Stage, list[str]]] = {}
    for name, (model, build) in PIPELINES.items():
        for stage in build(roles, model()).stages:
            found.setdefault(stage.name, (stage, []))[1].append(name)
    return list(found.values())


def _check_resources(profile: Profile) -> None:
    """A profile serves every pipeline, so its resources may name any stage of any.

    Raises:
        SettingsError: there is no such stage in any pipeline.
    """
    if not profile.resources:
        return
    known = ["default", *(stage.name for stage, _ in all_stages())]
    for name in profile.resources:
        if name not in known:
            close = get_close_matches(name, known, 1)
            nearest = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
            raise SettingsError(f"profile {profile.name}: resources: there is no stage {name}; {nearest}")


def _screen(named: str | None, profile: Profile, pipe: Pipeline) -> Screen:
    return load_screen(named or profile.screens.get(pipe.name) or pipe.screen)


def _list(request: Request, settings: Settings, pipe: Pipeline) -> Listing:
    owned = frozenset(stage_columns(pipe.stages))
    listing = list_input(request.input, settings.source, MEDIA_SUFFIXES[pipe.media], owned)
    listing.rows = listing.rows[: request.limit]
    return listing


def _checked(run: Run) -> Run:
    """The run, if its stages and screen fit together.

    Raises:
        SettingsError: they do not.
    """
    try:
        run.program()
    except ValueError as error:
        raise SettingsError(str(error)) from None
    except ImportError as error:  # a model's id names its package's version
        raise SettingsError(
            f"profile {run.profile.name}: the package {error.name} is not installed here "
            f"(`interavatar doctor --profile {run.profile.name}` names all that are missing)"
        ) from None
    return run
