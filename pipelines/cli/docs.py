"""Writes the documentation that follows from the code: `python -m pipelines.cli.docs` (or `make docs`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.filesize import decimal

from backends.roles import FILLED_BY, IMPLEMENTATIONS
from backends.store.model_catalogue import ModelEntry, known_models
from backends.store.training_starts import STARTS
from manifests.schema import COMMON_COLUMNS, OUTCOME_COLUMNS, SCHEMA_VERSION, SOURCE_COLUMNS
from manifests.screen import Screen, load_screen
from media.requests import Audio, Frames, Request
from metrics.catalogue import SETS
from metrics.metric import Metric
from pipelines.catalogue import EVALUATIONS, PIPELINES
from pipelines.engine.settings import ClusterSettings, Settings, SourceSettings, VlmSettings
from pipelines.evaluate import EvaluateSettings, candidates
from pipelines.requests import load_profile, profile_roles
from pipelines.synthetic_interactions import GIVEN
from stages.contract import Array, Column, Stage
from trainer.config import TrainConfig

DOCS = Path(__file__).resolve().parents[2] / "docs"
MADE = "Made from the code by `make docs`; do not edit.\n"


def _in(names: Sequence[str]) -> str:
    return f"In {', '.join(names)}.\n"


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]) + "\n"


def set_form(value: Any) -> str:
    """A value as `--set` takes it after the equals sign: YAML on one line, lists without blanks."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(set_form, value))}]"
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return f"`{set_form(field.get_default(call_default_factory=True))}`"


def manifest_page() -> str:
    """docs/manifest.md: every column with type, unit, meaning and the stage that writes it."""
    writers: dict[str, list[str]] = {}
    for stage, _ in all_stages():
        for name, what in stage.writes.items():
            if isinstance(what, Column):
                writers.setdefault(name, []).append(stage.name)
    head = ("column", "type", "unit or range", "meaning")
    parts = [
        "# The manifest\n",
        "Made from the schema by `make docs`; do not edit.\n",
        f"Schema version {SCHEMA_VERSION}. One row is one sample. Open it with "
        '`pandas.read_parquet("RUN/manifest")`; units and meanings are also in the Arrow field metadata. '
        "Left and right are the subject's own. Coordinates are shares of the first frame, origin top left. "
        "A null score was not measured: because of `error`, because a gate `stopped` the sample, or because "
        "there was nothing to measure it on.\n",
        "## Where a sample comes from\n",
        _table(head, [(f"`{n}`", f.type, f.unit, f.meaning) for n, f in SOURCE_COLUMNS.items()]),
        "Further columns of an input list follow the scores under their own names (`input_<name>` where the "
        "name is one of the manifest's).\n",
        "## Columns every pipeline shares\n",
        _table(
            (*head, "written by"),
            [
                (f"`{n}`", f.type, f.unit, f.meaning, ", ".join(writers.get(n, ["-"])))
                for n, f in COMMON_COLUMNS.items()
            ],
        ),
        "## What happened to it\n",
        _table(head, [(f"`{n}`", f.type, f.unit, f.meaning) for n, f in OUTCOME_COLUMNS.items()]),
        "## What a synthetic clip takes over from its portrait\n",
        _table(head, [(f"`{n}`", c.type, c.unit, c.meaning) for n, c in GIVEN.items()]),
        "`arrays` is a list of records with stage, file, offset, size ([reading them](python.md#arrays)); "
        "`regions` is a list of records with region, x, y, confidence; `reactions` one of records with "
        "region, interaction_type, interaction_group, intensity, action, emotion.\n",
        "## Scores by stage\n",
    ]
    for stage, names in all_stages():
        own = {n: w for n, w in stage.writes.items() if n not in COMMON_COLUMNS and n not in SOURCE_COLUMNS}
        columns = [(f"`{n}`", w.type, w.unit, w.meaning) for n, w in own.items() if isinstance(w, Column)]
        arrays = [(f"`{n}`", w.shape, w.unit, w.meaning) for n, w in own.items() if isinstance(w, Array)]
        if not columns and not arrays:
            continue
        parts += [f"### {stage.name}\n", _in(names)]
        if columns:
            parts.append(_table(head, columns))
        if arrays:
            parts.append("Beside the manifest, in `features/`:\n")
            parts.append(_table(("array", "shape", "unit", "meaning"), arrays))
    return "\n".join(parts)


GIVE = (
    "Give one with `--set key=value` or under `settings:` in a profile. Defaults stand as `--set` takes "
    'them; one with blanks goes into quotes: `--set "reactions.types=[kissed,blown on]"`.\n'
)


def common_page() -> str:
    """docs/settings/common.md: what every pipeline takes, what fills the roles, and other screens."""
    parts = [
        "# Settings that every pipeline takes\n",
        MADE,
        GIVE,
        "## Every run\n",
        _settings_table(Settings, ""),
        "## sources\n",
        _settings_table(SourceSettings, "sources."),
        "## cluster\n",
        _settings_table(ClusterSettings, "cluster."),
        "## vlm and reaction_writer\n",
        "`vlm` is the endpoint of the role `vision_language_model`; `reaction_writer`, with the same keys, "
        "that of the role `reaction_writer`, which the first role's model fills where neither this endpoint "
        "nor `roles` gives it another ([language models](../language_models.md)).\n",
        _settings_table(VlmSettings, "vlm."),
        _settings_table(VlmSettings, "reaction_writer."),
        "## Roles and profiles\n",
        "A profile fills each role with one implementation and its settings; `--set roles.ROLE.use=NAME` "
        "takes another, `--set roles.ROLE.SETTING=VALUE` changes a setting "
        "([running](../running.md#profiles)). A `model` is one of the store's ([models](../models.md)).\n",
        _roles_table(),
    ]
    shared = [s for s in _screens() if not any(_is_screen_of(s.name, name) for name in PIPELINES)]
    return "\n".join(parts + _screen_chapters(shared))


def settings_page(name: str) -> str:
    """docs/settings/PIPELINE.md: its keys, what each of its stages sees, and its screens.

    Stages whose settings it takes over from another pipeline are on that one's page.
    """
    model, _ = {**PIPELINES, **EVALUATIONS}[name]
    parts = [
        f"# Settings of {name}\n",
        MADE,
        GIVE,
        "What every pipeline takes: [common](common.md). Columns: [the manifest](../manifest.md).\n",
    ]
    base = next((other for other, (kind, _) in PIPELINES.items() if kind is model.__base__), None)
    above = PIPELINES[base][0] if base else Settings
    if base:
        taken_over = [n for n in above.model_fields if n not in Settings.model_fields]
        parts.append(
            f"It takes all settings of [{base}]({base}.md) too, for the stages of that name here and there: "
            f"{', '.join(f'`{n}`' for n in taken_over)}.\n"
        )
    # A field that is declared again has another default here.
    own = {n for n in model.model_fields if n in model.__annotations__ or n not in above.model_fields}
    parts += [f"## {name}\n", _settings_table(model, "", set(model.model_fields) - own)]
    for stage, names in all_stages():
        if name in names and not (base and stage.name in above.model_fields):
            parts += [
                f"## {stage.name}\n",
                f"{_sees(stage)}\n",
                _settings_table(_config_of(model, stage), f"{stage.name}."),
            ]
    return "\n".join(parts + _screen_chapters([s for s in _screens() if _is_screen_of(s.name, name)]))


def _config_of(model: type[BaseModel], stage: Stage) -> type[BaseModel]:
    """A stage's settings in a pipeline, whose defaults may be others than in the next one."""
    field = model.model_fields.get(stage.name)
    return type(stage.config) if field is None else type(field.get_default())


def _roles_table() -> str:
    """Role, its implementations with the settings that each takes, and what the two profiles choose."""
    laptop, gpu = load_profile("laptop").roles, load_profile("gpu").roles
    rows = []
    for role, known in IMPLEMENTATIONS.items():
        offered = []
        for name, make in known.items():
            taken = ", ".join(inspect.signature(make).parameters)
            offered.append(f"`{name}`" + (f" ({taken})" if taken else ""))
        chosen = [f"`{p[role].use if role in p else FILLED_BY[role]}`" for p in (laptop, gpu)]
        rows.append((f"`{role}`", "; ".join(offered), *chosen))
    return _table(("role", "implementations (their settings)", "laptop", "gpu"), rows)


def _screens() -> list[Screen]:
    folder = resources.files("configs") / "screens"
    return [
        load_screen(file) for file in sorted(p.name for p in folder.iterdir() if p.name.endswith(".yaml"))
    ]


def _is_screen_of(screen: str, pipeline: str) -> bool:
    """A pipeline's screens are called like it: `portraits`, `portraits_gpu`."""
    return screen == pipeline or screen.startswith(f"{pipeline}_")


def _screen_chapters(screens: Sequence[Screen]) -> list[str]:
    parts = []
    for screen in screens:
        rows = []
        for r in screen.rules:
            bounds = {"≥": r.min, "≤": r.max, "is": r.equals, "one of": r.one_of, "none of": r.none_of}
            kept_if = ", ".join(f"{sign} {bound}" for sign, bound in bounds.items() if bound is not None)
            rows.append((f"`{r.reason}`", f"`{r.column}`", kept_if, r.missing, r.source))
        parts += [
            f"## Screen {screen.name}\n",
            f"{screen.description}\n",
            _table(("drop reason", "column", "kept if", "null", "source"), rows),
        ]
    return parts


def _sees(stage: Stage) -> str:
    models = ", ".join(f"`{m.id}`" for m in stage.models)
    seen = [_seen(request) for request in stage.sees]
    return f"Sees {'; '.join(seen) or 'columns only'}." + (f" Laptop models: {models}." if models else "")


def _seen(request: Request) -> str:
    match request:
        case Frames(0, side):
            return f"the first frame, short side {side} px"
        case Frames(fps, side):
            return f"frames at {'every frame' if fps is None else f'{fps:g}/s'}, short side {side} px"
        case Audio(rate):
            return f"mono sound at {rate} Hz"
        case _:
            return "how loud the sound is"


def _settings_table(model: type[BaseModel], prefix: str, without: Collection[str] = ()) -> str:
    rows = []
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel) or name in without:
            continue
        rows.append((f"`{prefix}{name}`", _default(field), field.description or ""))
    return _table(("key", "default", "meaning"), rows) if rows else "No settings.\n"


MODELS = """# Models

Made from `configs/models.yaml` by `make docs`; do not edit.

Their weights lie in the model store, `<store>/<name>/<files>`: a folder that all workers see, or a URL.
`--set models=LOCATION` names it, else the environment variable `INTERAVATAR_MODELS`, else it is
`~/.cache/interavatar/models`.

```
interavatar models list --models /shared/models    # what is there, what is missing, where it comes from
interavatar models fetch --models /shared/models   # gets what is missing; goes on after a stop
interavatar doctor --profile gpu --set models=/shared/models
```

`fetch` compares every file with its SHA-256 and writes what it got into the store's own `models.yaml`. These
hashes go into the fingerprints of the stages: other weights, and only they, make a stage run again. Before a
run the store is compared with them; files that have not changed since are not read again. Repositories
marked *gated* ask for an account that accepted their conditions, and its token in `HF_TOKEN`; `HF_ENDPOINT`
names a mirror of Hugging Face. A file whose hash is not pinned here is compared with what Hugging Face lists
at the pinned revision: the hash of a large file, the size of a small one. The hash of what came is written
down, and from then on every run and every copy is compared with that.

**Without a network**: fetch on another machine and copy the store, its `models.yaml` too. Or put the files
into their folders by hand and run `interavatar models record NAME...`, which compares them with the pins and
writes down their hashes. Any other folder in the store can be recorded, and named in a profile, the same way.

**On an object store**: copy such a folder to it and give its URL (`--set models=s3://bucket/models`, with the
fsspec package of that kind). Each machine copies a model when it first uses it into `INTERAVATAR_CACHE`
(default `~/.cache/interavatar`), whole and compared, once for all its workers.

**On a network mount** (NFS, Lustre, FUSE, ...) the same: every node copies a model once instead of reading
it for each of its workers. Where a tenth of the disk would not stay free, or the cache is on a mount too,
the model is read where it lies, and the worker says so. `INTERAVATAR_LOCAL_MODELS` names another folder for
these copies, such as one on the node's own NVMe disk, and makes them of any other mount than its own;
empty, nothing on a mount is copied. Copies stay until they are deleted. Weights are copied as they are:
Wan's 126 GB are float32, and become bfloat16 when they are loaded.

**Stand-ins**: `interavatar models record NAME --random-weights` marks a folder of random weights. Whatever
they make is named `stand_in_random_NAME`.

**Numbers** of an evaluation bear a bare name, such as `fid`, only where the metric's own network has the
hashes that are pinned here. Else the network is part of the name: `fid_efficientnet_lite0`, and for weights
that nothing vouches for `fid_unverified_inception` or `fid_stand_in_random_inception`.
"""

PRECISION = """## Precision on a GPU

| models | computed in | why |
| --- | --- | --- |
| CLIP, DINOv2, SAM 2 | bfloat16, weights float32 | embeddings and masks; no public limit is applied to them |
| wav2vec 2.0 | float16 | its rows are stored in float16 |
| an evaluation's networks | float32 without TF32 | numbers are compared with published ones |
| CoTracker3, SyncNet | float32 without TF32 | their numbers are cut at public limits |
| pyannote | float32 without TF32 | pyannote.audio switches TF32 off |
| DWPose, RTMPose, InsightFace | float32 with TF32 | ONNX Runtime's default, as their public programs run |

In PyTorch TF32 is a switch of the whole process, which holds all of these models: it stays off.
`precision: float16` (or `bfloat16`, `float32`) beside `use:` in a profile changes CLIP, CoTracker3, SyncNet
or wav2vec 2.0, and stands in their ids, so results are computed again. On a CPU all is float32 unless a
precision is named.

Compared with float32 on random weights, on a CPU, as shares of the results' standard deviation
(mean / largest):

| model | results | float16 | bfloat16 |
| --- | --- | --- | --- |
| wav2vec 2.0, 32 wide | rows | 0.0011 / 0.0074 | 0.25 / 2.5 |
| SyncNet | distances at 31 shifts | 0.011 / 0.012 | 0.14 / 0.14 |
| CoTracker3, pictures of 32 x 48 | movements | 0.0004 / 0.0020 | 0.0046 / 0.018 |

The published weights have not been compared: `benchmarks/precision.py` does it, with TF32 too, on a GPU.

## DWPose without controlnet_aux

controlnet_aux 0.0.10 (Apache-2.0) runs DWPose by mmcv, mmdet and mmpose, which do not build for current
PyTorch, and gives a drawing instead of points. Here the ONNX files run that DWPose's authors publish.
Compared by reading with the authors' ONNX program: order of colours, mean and deviation, padding 1.25, crop
and way back, two bins a pixel, the smaller of the two maxima as score. Compared by numbers with rtmlib, on
the same network and pixels: boxes and points (`tests/models/test_faces_pose.py`). controlnet_aux puts a neck
behind point 16 and the body in OpenPose's order; here rows are COCO-WholeBody's 133. Where nobody is found
it asks the network about the whole picture; here there are no points.
"""

TRAINING_MODELS = """`interavatar models fetch --for NAME` fetches these, and puts them together as
the folder that `configs/train/` names ([training](training.md#models)):
"""


def models_page() -> str:
    """docs/models.md: the model store, and the weights with source, licence and hashes."""
    parts = [MODELS]
    for title, training in (
        ("## Weights of the gpu profile\n", False),
        ("## Weights that training begins with\n", True),
    ):
        parts += [title, *([TRAINING_MODELS, _starts_table()] if training else [])]
        parts += _weights({name: m for name, m in known_models().items() if bool(m.roles) != training})
        parts += [] if training else [PRECISION]
    return "\n".join(parts)


def _starts_table() -> str:
    rows = []
    for name, start in STARTS.items():
        rows.append((f"`{name}`", f"`{start.folder}`", ", ".join(f"`{model}`" for model in start.models)))
    return _table(("`--for`", "folder", "made of"), rows)


def _weights(models: Mapping[str, ModelEntry]) -> list[str]:
    rows: list[Sequence[object]] = []
    notes = []
    for name, model in models.items():
        pinned = sum(f.sha256 is not None for f in model.files.values())
        commercial = {True: "yes", False: "**no**", None: "not stated"}[model.commercial]
        licence = f"{model.licence}{', gated' if model.gated else ''}"
        size = "?" if model.size is None else decimal(model.size)
        source = model.source.huggingface or str(model.page).split("/")[2]
        pins = f"{pinned} of {len(model.files)}"
        rows.append((f"`{name}`", ", ".join(model.roles), source, size, licence, commercial, pins))
        notes.append(f"- `{name}`: <{model.licence_url}>. {model.notes}".rstrip())
    head: Sequence[str] = (
        "model",
        "roles",
        "from",
        "size",
        "licence of the weights",
        "commercial use",
        "pinned hashes",
    )
    if not any(model.roles for model in models.values()):
        head, rows = (head[0], *head[2:]), [(row[0], *row[2:]) for row in rows]
    return [_table(head, rows), "Their licences:\n", *notes, ""]


def metrics_page() -> str:
    """docs/metrics.md: the sets, and each metric with its numbers, convention and source."""
    metrics = [stage for stage, _ in all_stages() if isinstance(stage, Metric)]
    of_number = {figure.name: metric.name for metric in metrics for figure in metric.figures}
    sets = [
        (f"`{name}`", ", ".join(f"[`{number}`](#{of_number[number]})" for number in numbers))
        for name, numbers in SETS.items()
    ]
    parts = [
        "# Metrics\n",
        MADE,
        "What `interavatar evaluate --metrics` takes: the name of a set, of a metric, or of one number "
        "([how to measure, how to read it](evaluation.md)). A number bears its plain name only where the "
        "published network with its published weights measured it; else the name ends in what stands there: "
        "`fid_efficientnet_lite0` on the laptop. Settings: [evaluate](settings/evaluate.md).\n",
        _table(("set", "numbers, in the order of the paper's table"), sets),
    ]
    for metric in metrics:
        doc = (inspect.getdoc(type(metric)) or "").partition("\n\nArgs:")[0]
        rows = [
            (
                f"`{plain.name}`",
                plain.title,
                plain.unit or "-",
                plain.better,
                plain.meaning,
                f"`{number.name}`",
            )
            for plain, number in zip(metric.figures, metric.numbers, strict=True)
        ]
        parts += [
            f"## {metric.name}\n",
            f"{doc}\n",
            _table(("number", "title", "unit or range", "better", "meaning", "on the laptop"), rows),
            f"Convention: {metric.convention}\n",
            f"Source: {metric.source}\n",
            f"{_sees(metric)}{_sees_beside(metric)}\n",
        ]
        if metric.cannot is not None:
            parts.append(f"The laptop cannot measure it: {metric.cannot}.\n")
    return "\n".join(parts)


def _sees_beside(stage: Stage) -> str:
    said = [f"of `{beside.column}` {_seen(beside.request)}" for beside in stage.sees_beside]
    return f" Beside it: {', '.join(said)}." if said else ""


def training_settings_page() -> str:
    """docs/settings/training.md: every key of a training configuration."""
    parts = [
        "# Settings of a training run\n",
        MADE,
        "Keys of the YAML file that `interavatar train --config FILE` reads; `--set key=value` changes one. "
        "Defaults stand as `--set` takes them. Examples with the sources of their values: `configs/train/`. "
        "What they mean: [training](../training.md).\n",
        _training_table(TrainConfig, ""),
    ]
    return "\n".join(parts)


def _training_table(model: type[BaseModel], prefix: str) -> str:
    """A table of the model's keys, then one of each model in it."""
    rows, inner = [], []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            inner.append(f"## {prefix}{name}\n\n" + _training_table(field.annotation, f"{prefix}{name}."))
            continue
        rows.append((f"`{prefix}{name}`", _default(field), field.description or ""))
    return "\n".join([_table(("key", "default", "meaning"), rows), *inner])


def all_stages() -> list[tuple[Stage, list[str]]]:
    """Every stage once, with the laptop's models, and the names of the pipelines that have it."""
    roles = profile_roles(load_profile("laptop"), Settings(), Path())
    found: dict[str, tuple[Stage, list[str]]] = {}
    stages = {name: build(roles, model()).stages for name, (model, build) in PIPELINES.items()}
    stages["evaluate"] = candidates(roles, EvaluateSettings())  # also what the laptop cannot measure
    for name, of_pipeline in stages.items():
        for stage in of_pipeline:
            found.setdefault(stage.name, (stage, []))[1].append(name)
    return list(found.values())


# Path below docs/ -> what makes the page.
PAGES: Mapping[str, Callable[[], str]] = {
    "manifest.md": manifest_page,
    "models.md": models_page,
    "settings/common.md": common_page,
    "metrics.md": metrics_page,
    **{f"settings/{name}.md": partial(settings_page, name) for name in (*PIPELINES, *EVALUATIONS)},
    "settings/training.md": training_settings_page,
}


def main() -> None:
    """Write every generated page."""
    for name, page in PAGES.items():
        (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / name).write_text(page())
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
