"""From a command line's words to runs that are ready to execute."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from backends.language.openai_endpoint import served_model
from backends.language.vision_language_model import AnswerError
from backends.roles import MEASURING, Roles, build_roles, weights_of
from backends.store.model_store import ModelStore
from configs.reading import SettingsError, load_yaml, merged, nearest, parse, parse_overrides
from manifests.screen import Screen, load_screen
from manifests.storage import is_remote
from manifests.text import public_url
from media.files import MEDIA_SUFFIXES
from media.temporary import temporary_folder
from pipelines.catalogue import STEPS
from pipelines.engine.addresses import ADDRESS, with_allowed
from pipelines.engine.asked import KEYS, answers_of, asked_models, endpoints
from pipelines.engine.pipeline import Follow, Pipeline
from pipelines.engine.program import stage_columns
from pipelines.engine.run import Engine, Run
from pipelines.engine.settings import Profile, Settings, VlmSettings
from pipelines.engine.source import Listing, Told, list_input
from pipelines.own import find_pipeline
from pipelines.sources.listing import list_source, named
from prompts.prompt import own_texts
from prompts.vocabulary import load_vocabulary
from stages.contract import Stage, stage_names


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
    retry_errors: str = ""


def prepare(request: Request, told: Told = lambda found: None) -> list[Run]:
    """The runs that the request asks for, to be executed in order: one, or two steps.

    A second step chooses its input when it is executed, from what the first has written by then.

    Args:
        request: what is asked for.
        told: is told now and then how many samples of the input were found so far.

    Raises:
        SettingsError: a name, setting, profile or screen is wrong; said before anything runs.
        InputError: the input cannot be listed.
    """
    _check_output(request)
    profile, settings, roles, pipe = resolve(request)
    judge = _screen(request.screen, profile, pipe)
    folder = (request.output or Path()).absolute()  # workers may run in another directory
    weights = _weights(profile, settings, roles, pipe)
    common = _common(request, profile, settings, folder, roles, weights)
    common["models"] = _models(profile, settings, roles, pipe)
    if pipe.follows is None:
        return [_checked(Run(pipe, _list(request, settings, pipe, told), folder, screen=judge, **common))]
    follows, first = pipe.follows, pipe.follows.pipeline
    before, own = (folder / name for name in STEPS[pipe.name])
    listing = _list(request, settings, first, told)
    choose = partial(_chosen, follows, before, listing)
    runs = [
        Run(first, listing, before, screen=_screen(follows.screen, profile, first), **common),
        Run(pipe, Listing.of([], list(follows.fields)), own, screen=judge, choose=choose, **common),
    ]
    return [_checked(run) for run in runs]


def _chosen(follows: Follow, folder: Path, listing: Listing) -> Listing:
    """What a second step takes from the first, whose manifest lacks the signatures of addresses."""
    chosen = follows.choose(folder, listing.ids)
    address = listing.table[ADDRESS].take(pc.index_in(chosen.table["parent_id"], value_set=listing.ids))
    at = chosen.table.schema.get_field_index(ADDRESS)
    return replace(chosen, table=chosen.table.set_column(at, ADDRESS, address))


def _check_output(request: Request) -> None:
    """The output is a folder, and the clips that are made in it do not become input.

    Raises:
        SettingsError: it is a file, or lies inside the input.
    """
    output, input = request.output, request.input
    if output is None:
        return
    input = (named(input) or ("", input))[1]
    if is_remote(output):
        is_inside = f"{output}/".startswith(f"{input.rstrip('/')}/")
    elif output.is_file():
        raise SettingsError(f"--output {output} is a file; name a folder, which need not be there yet")
    else:
        is_inside = Path(input).is_dir() and output.resolve().is_relative_to(Path(input).resolve())
    if is_inside:
        raise SettingsError(f"--output {output} lies inside --input {input}: its clips would become input")


def _common(
    request: Request,
    profile: Profile,
    settings: Settings,
    folder: Path,
    roles: Roles,
    weights: Sequence[str],
) -> dict[str, Any]:
    """What all runs of a request share."""
    return {
        "profile": profile,
        "settings": settings,
        "engine": request.engine,
        "retry_errors": request.retry_errors,
        "input": public_url(request.input) if "://" in request.input else request.input,
        "asked": asked_models(roles, settings, folder / "answers"),
        "weights": weights,
    }


def _weights(profile: Profile, settings: Settings, roles: Roles, pipe: Pipeline) -> list[str]:
    """Names of the models in the model store that the pipeline, and the one it follows from, load."""
    return profile_weights(profile, settings, _used(roles, pipe))


def _used(roles: Roles, pipe: Pipeline) -> list[str]:
    """The roles whose models the pipeline, and the one it follows from, ask."""
    before = pipe.follows.pipeline.stages if pipe.follows is not None else ()
    cut = pipe.split.stages if pipe.split is not None else ()
    used = {id(model) for stage in (*pipe.stages, *before, *cut) for model in stage.models}
    return [f.name for f in fields(roles) if id(getattr(roles, f.name)) in used]


def _models(profile: Profile, settings: Settings, roles: Roles, pipe: Pipeline) -> list[dict[str, Any]]:
    """What run.json says of each model: id, role, implementation, and its weights in the store by licence."""
    choices, store = _choices(profile, settings), ModelStore(settings.models)
    try:
        return [
            {
                "id": getattr(roles, role).id,
                "role": role,
                "implementation": choices[role]["use"],
                "weights": {name: store.entry(name).licence for name in weights_of({role: choices[role]})},
            }
            for role in _used(roles, pipe)
            if role in choices  # else the very model of another role fills it
        ]
    except ImportError as error:
        raise _not_installed(profile, error) from None


def resolve(request: Request) -> tuple[Profile, Settings, Roles, Pipeline]:
    """Profile, settings, models and pipeline.

    Raises:
        SettingsError: one of them is wrong.
    """
    model, build = find_pipeline(request.pipeline)
    profile = load_profile(request.profile)
    parse(model, profile.settings, f"profile {request.profile}: settings")
    overrides = parse_overrides(request.overrides)
    settings = parse(model, merged(profile.settings, overrides), "--set")
    _check_answers(request.output, settings)
    roles = _roles(request, profile, settings)
    pipe = build(roles, settings)
    if not isinstance(pipe, Pipeline):
        raise SettingsError(f"{request.pipeline} gives {type(pipe).__name__}, not a Pipeline")
    pipe = _with_vocabulary(_with_prompts(pipe, settings), settings)
    _check_resources(profile)
    return profile, settings, roles, pipe


def _with_prompts(pipe: Pipeline, settings: Settings) -> Pipeline:
    """The pipeline with the user's own texts of prompts.

    Raises:
        SettingsError: the folder cannot be read, or one of its files does not fit.
    """
    if settings.prompts is None:
        return pipe
    try:
        texts = own_texts(Path(settings.prompts))
        return _each_stage(pipe, lambda stage: stage.with_prompts(texts))
    except (OSError, ValueError) as error:
        raise SettingsError(f"prompts: {settings.prompts}: {error}") from None


def _with_vocabulary(pipe: Pipeline, settings: Settings) -> Pipeline:
    """The pipeline for the paper's types of touch and the user's own.

    Raises:
        SettingsError: the file cannot be read or does not fit, or a setting names a type that is not there.
    """
    vocabulary = load_vocabulary(settings.vocabulary)
    try:
        return _each_stage(pipe, lambda stage: stage.with_vocabulary(vocabulary))
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _each_stage(pipe: Pipeline, change: Callable[[Stage], Stage]) -> Pipeline:
    """The pipeline, and the one that it follows from, with changed stages."""
    follows = pipe.follows
    if follows is not None:
        follows = replace(follows, pipeline=_each_stage(follows.pipeline, change))
    return replace(pipe, stages=[change(stage) for stage in pipe.stages], follows=follows)


def _check_answers(output: Path | None, settings: Settings) -> None:
    """An object store has no locks, with which requests and batches are counted.

    Raises:
        SettingsError: the settings ask for what needs them.
    """
    if output is None or not is_remote(output):
        return
    for key in KEYS.values():
        vlm: VlmSettings = getattr(settings, key)
        wants = {"max_requests": vlm.max_requests is not None, "batch": vlm.batch}
        for name in (name for name, is_wanted in wants.items() if is_wanted):
            raise SettingsError(
                f"{key}.{name} needs a file system with locks, which {output} has not: take a local or "
                "shared folder as --output, and copy it there afterwards"
            )


def _roles(request: Request, profile: Profile, settings: Settings) -> Roles:
    if request.output is not None:
        return profile_roles(profile, settings, request.output.absolute() / "answers")
    with temporary_folder() as nowhere:
        return profile_roles(profile, settings, nowhere)


def _check_resources(profile: Profile) -> None:
    """A profile serves every pipeline, so its resources may name any stage of any.

    Raises:
        SettingsError: there is no such stage in any pipeline.
    """
    if not profile.resources:
        return
    known = ["default", *stage_names()]
    for name in profile.resources:
        if name not in known:
            raise SettingsError(
                f"profile {profile.name}: resources: there is no stage {name}{nearest(name, known)}"
            )


def _screen(named: str | None, profile: Profile, pipe: Pipeline) -> Screen:
    chosen = named or profile.screens.get(pipe.name) or pipe.screen
    return chosen if isinstance(chosen, Screen) else load_screen(chosen)


def _list(request: Request, settings: Settings, pipe: Pipeline, told: Told) -> Listing:
    owned = frozenset(stage_columns(pipe.stages))
    suffixes = MEDIA_SUFFIXES[pipe.media]
    if (named_source := named(request.input)) is not None:
        name, path = named_source
        return list_source(
            name, path, settings.source, suffixes, owned, settings.sources, request.limit, told
        )
    listing = list_input(
        request.input, settings.source, suffixes, owned, settings.sources, request.limit, told
    )
    beside = dict.fromkeys(each.column for stage in pipe.stages for each in stage.sees_beside)
    if not beside:
        return listing
    return replace(listing, table=with_allowed(listing.table, beside, request.input, settings.sources))


def _checked(run: Run) -> Run:
    """The run, if its stages and screen fit together.

    Raises:
        SettingsError: they do not.
    """
    try:
        run.program()
    except ValueError as error:
        raise SettingsError(str(error)) from None
    except ImportError as error:
        raise _not_installed(run.profile, error) from None
    return run


def _not_installed(profile: Profile, error: ImportError) -> SettingsError:
    """A model's id names its package's version, and there is no such package."""
    return SettingsError(
        f"profile {profile.name}: the package {error.name} is not installed here "
        f"(`interavatar doctor --profile {profile.name}` names all that are missing)"
    )


def load_profile(name: str) -> Profile:
    """A profile by name or file.

    Raises:
        SettingsError: there is none, or it is wrong.
    """
    return parse(Profile, *load_yaml(name, "profiles"))


def profile_roles(profile: Profile, settings: Settings, answers: Path) -> Roles:
    """The models of a profile, not loaded yet.

    Args:
        profile: names an implementation for each role.
        settings: `roles` is laid over the profile's; an endpoint in `vlm` takes the place of its
            vision-language model, one in `reaction_writer` that of its writer of reactions.
        answers: folder in which the language models keep their answers.

    Raises:
        SettingsError: it names a role, implementation, setting or model that does not exist, or the endpoint
            does not say which model it serves.
    """
    choices = _choices(profile, settings)
    for role, vlm in endpoints(settings).items():
        assert vlm.endpoint is not None
        folder = str(answers_of(role, answers))
        try:
            model = vlm.model or served_model(vlm.endpoint, folder, vlm.key_variable)
        except AnswerError as error:
            raise SettingsError(f"{KEYS[role]}.endpoint: {error}") from None
        choices[role]["model"] = model
    for role in KEYS:
        if choices.get(role, {}).get("use") in ("openai_endpoint", "vllm"):
            choices[role].setdefault("folder", str(answers_of(role, answers)))
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
    try:
        return weights_of({n: c for n, c in choices.items() if roles is None or n in roles})
    except ValueError as error:
        raise SettingsError(f"profile {profile.name}: {error}") from None


def _choices(profile: Profile, settings: Settings) -> dict[str, dict[str, Any]]:
    """Role -> implementation and settings; an endpoint may not know its model yet."""
    choices: dict[str, dict[str, Any]] = {role: {"use": name} for role, name in MEASURING.items()}
    choices |= {name: choice.model_dump() for name, choice in profile.roles.items()}
    for role, over in settings.roles.items():
        choices[role] = merged({} if "use" in over else choices.get(role, {}), over)
    for role, key in KEYS.items():
        if choices.get(role, {}).get("use") == "openai_endpoint":
            raise SettingsError(f"profile {profile.name}: give the endpoint under settings: {key}: endpoint")
    for role, vlm in endpoints(settings).items():
        sent = vlm.model_dump(exclude={"input_price", "output_price", "batch_poll_s"})
        choices[role] = {**sent, "use": "openai_endpoint"}
    return choices


def settings_of(profile: Profile, overrides: Iterable[str] = ()) -> Settings:
    """What a profile and `--set` say of where models lie and run.

    Raises:
        SettingsError: a key is unknown or a value is wrong.
    """
    own = {key: value for key, value in profile.settings.items() if key in Settings.model_fields}
    return parse(Settings, merged(own, parse_overrides(list(overrides))), "--set")
