"""One stage on one clip or picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.reading import SettingsError, nearest
from interavatar.settings import overrides
from manifests import features
from manifests.storage import folder_of
from media.files import MEDIA_SUFFIXES, PICTURE_SUFFIXES
from media.temporary import temporary_folder
from pipelines.catalogue import PIPELINES
from pipelines.engine.pipeline import MEDIA, MediaKind, Pipeline, RunError
from pipelines.engine.program import Program, compile_pipeline, inputs_of
from pipelines.engine.settings import Settings
from pipelines.engine.source import PROBLEM, InputError, list_input
from pipelines.engine.worker import Worker
from pipelines.requests import Request, resolve
from stages.contract import Array, Stage

# The pipeline whose stages are taken where several have what is asked for.
_FIRST: Mapping[MediaKind, str] = {"video": "talking_head", "picture": "portraits"}


def score(
    stage: str | type[Stage] | Stage,
    path: str | Path,
    *,
    columns: Mapping[str, Any] | None = None,
    pipeline: str | None = None,
    profile: str = "laptop",
    settings: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
) -> dict[str, Any]:
    """What one stage writes for one clip or picture: its columns and arrays, by name.

    Stages whose columns it reads are run before it, as far as `columns` does not give them.

    Args:
        stage: a name (`"quality"`), a class, or an instance with its models and configuration.
        path: the file, local or any fsspec URL.
        columns: values of columns and arrays that the stage reads, which then nobody computes.
        pipeline: whose stages; None: one that has the stage, for a picture rather `portraits`, for a video
            `talking_head`, which is also taken for a stage that no pipeline has.
        profile: the models; a name or a YAML file.
        settings: of the pipeline, as `run` takes them: `{"quality.fps": 4}`.
        folder: where media and arrays that are made stay; None: they are gone afterwards.

    Returns:
        Every name in the stage's `writes`; None where it could not be measured.

    Raises:
        SettingsError: there is no such stage, a setting is wrong, or the stage reads what nobody gives.
        InputError: there is no such file.
        RunError: the stage or one before it failed, or ended the work on this sample; the message says why.
    """
    given = dict(columns or {})
    kind: MediaKind = "picture" if Path(str(path)).suffix.lower() in PICTURE_SUFFIXES else "video"
    listing = list_input(str(path), None, MEDIA_SUFFIXES[kind])
    if len(listing) != 1:
        raise InputError(f"{path} holds {len(listing)} samples; give one file")
    (listed,) = listing.rows
    if (problem := listed.get(PROBLEM)) is not None:
        raise InputError(f"{path}: {problem}")
    with _folder(folder) as place:
        request = Request(
            pipeline or _pipeline_with(stage, kind, profile),
            str(path),
            place,
            profile,
            None,
            overrides(settings or {}),
        )
        _, made, _, pipe = resolve(request)
        chosen, before = _chosen(stage, pipe)
        if MEDIA in chosen.writes and folder is None:
            raise SettingsError(f"{chosen.name} makes media: name a folder for it (folder=...)")
        program = _program(chosen, before, given, pipe, made, kind)
        row = dict.fromkeys(program.schema.names) | listed | {MEDIA: listed["source_uri"]} | given
        row |= {"stages": {}}
        with closing(Worker(program, program.steps, place, run_id="score")) as worker:
            ((after,), _) = worker.run([row])
        return _written(chosen, after, place, path)


@contextmanager
def _folder(folder: str | Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder_of(str(folder)).absolute()
        return
    with temporary_folder() as temporary:
        yield temporary


def _name(stage: str | type[Stage] | Stage) -> str:
    return stage if isinstance(stage, str) else stage.name


def _pipeline_with(stage: str | type[Stage] | Stage, kind: MediaKind, profile: str) -> str:
    """The pipeline that has the stage; for a class or an instance that none has, the first for such a file.

    Raises:
        SettingsError: no pipeline has a stage of that name.
    """
    known: list[str] = []
    for name in sorted(PIPELINES, key=lambda name: name != _FIRST[kind]):
        stages = [s.name for s in resolve(Request(name, "", profile=profile))[3].stages]
        if _name(stage) in stages:
            return name
        known += stages
    if isinstance(stage, str):
        raise SettingsError(f"no pipeline has a stage {stage!r}{nearest(stage, known)}")
    return _FIRST[kind]


def _chosen(stage: str | type[Stage] | Stage, pipe: Pipeline) -> tuple[Stage, Sequence[Stage]]:
    """The stage, ready to be set up, and those that stand before it in the pipeline.

    Raises:
        SettingsError: the pipeline has no stage of that name, or a class needs models.
    """
    names = [s.name for s in pipe.stages]
    if _name(stage) in names:
        position = names.index(_name(stage))
        own = pipe.stages[position]
        is_own = isinstance(stage, str) or (isinstance(stage, type) and type(own) is stage)
        before = pipe.stages[:position]
        if is_own:
            return own, before
    elif isinstance(stage, str):
        raise SettingsError(f"{pipe.name} has no stage {stage!r}{nearest(stage, names)}")
    else:
        before = pipe.stages
    if isinstance(stage, Stage):
        return stage, before
    assert isinstance(stage, type)
    try:
        return stage(), before
    except TypeError as error:
        raise SettingsError(
            f"{stage.__name__} cannot be made without arguments: give an instance ({error})"
        ) from None


def _program(
    stage: Stage,
    before: Sequence[Stage],
    given: Mapping[str, Any],
    pipe: Pipeline,
    settings: Settings,
    kind: MediaKind,
) -> Program:
    """The stage and those that it needs.

    Raises:
        SettingsError: a given column is read by none of them or written by one, or nobody gives one.
    """
    stages, missing = [stage], set(inputs_of(stage)) - set(given)
    for earlier in reversed(before):
        if missing & set(earlier.writes):
            stages.insert(0, earlier)
            missing |= set(inputs_of(earlier)) - set(given)
    read = sorted({name for s in stages for name in s.reads})
    for name in given:
        if name not in read:
            raise SettingsError(
                f"columns: {stage.name} reads no {name}; it and the stages before it read "
                f"{', '.join(read) or 'none'}"
            )
        for writer in (s for s in stages if name in s.writes):
            needed = sorted(missing & set(writer.writes))
            raise SettingsError(
                f"columns: {writer.name} writes {name} and has to run for {', '.join(needed)}: give all of "
                "them or none"
            )
    fields = [pa.field(name, pa.null()) for name in given]
    try:
        return compile_pipeline("score", stages, pipe.max_seconds, settings.seed, fields, kind)
    except ValueError as error:
        raise SettingsError(f"{error}; give it: columns={{...}}") from None


def _written(stage: Stage, row: Mapping[str, Any], folder: Path, path: str | Path) -> dict[str, Any]:
    """The columns and arrays of the stage.

    Raises:
        RunError: it was not computed.
    """
    if stage.name not in row["stages"]:
        if (error := row["error"]) is None:
            raise RunError(f"{path}: {stage.name} was not reached, stopped by {row['stopped']}")
        raise RunError(
            f"{path}: {error['stage']}: {error['kind']}: {error['message']}\n{error['traceback']}".rstrip()
        )
    written = {name: row[name] for name, what in stage.writes.items() if not isinstance(what, Array)}
    if len(written) < len(stage.writes):
        written |= features.load_features(folder, row, stage.name)
    return {name: written[name] for name in stage.writes}
