"""The project from Python: `import interavatar as ia`.

    rows = ia.run("talking_head", input="videos", output="out")    # a pandas.DataFrame of the manifest
    scores = ia.score("quality", "clip.mp4")                       # one stage on one clip
    judged = ia.load_screen("talking_head").changed("too_dark", min=20).judge(rows)

A name is loaded when it is first used, so importing this module costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.roles import Roles
    from configs.reading import SettingsError
    from interavatar.comparing import compare
    from interavatar.evaluating import evaluate
    from interavatar.manifest import history, load_arrays, read_manifest
    from interavatar.running import run
    from interavatar.scoring import score
    from manifests.screen import Rule, Screen, load_screen
    from media.requests import Audio, Frames
    from pipelines.engine.pipeline import Pipeline, RunError
    from pipelines.engine.settings import Settings
    from pipelines.engine.source import InputError
    from stages.clip import Clip
    from stages.contract import Array, Column, Score, Stage, StageConfig

__all__ = [
    "Array",
    "Audio",
    "Clip",
    "Column",
    "Frames",
    "InputError",
    "Pipeline",
    "Roles",
    "Rule",
    "RunError",
    "Score",
    "Screen",
    "Settings",
    "SettingsError",
    "Stage",
    "StageConfig",
    "compare",
    "evaluate",
    "history",
    "load_arrays",
    "load_screen",
    "read_manifest",
    "run",
    "score",
]

_HOME = {
    "Array": "stages.contract",
    "Audio": "media.requests",
    "Clip": "stages.clip",
    "Column": "stages.contract",
    "Frames": "media.requests",
    "InputError": "pipelines.engine.source",
    "Pipeline": "pipelines.engine.pipeline",
    "Roles": "backends.roles",
    "Rule": "manifests.screen",
    "RunError": "pipelines.engine.pipeline",
    "Score": "stages.contract",
    "Screen": "manifests.screen",
    "Settings": "pipelines.engine.settings",
    "SettingsError": "configs.reading",
    "Stage": "stages.contract",
    "StageConfig": "stages.contract",
    "compare": "interavatar.comparing",
    "evaluate": "interavatar.evaluating",
    "history": "interavatar.manifest",
    "load_arrays": "interavatar.manifest",
    "load_screen": "manifests.screen",
    "read_manifest": "interavatar.manifest",
    "run": "interavatar.running",
    "score": "interavatar.scoring",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
