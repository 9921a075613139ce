"""The names that a command takes, for its help and the shell's completion: known without what they name.

Importing a pipeline takes seconds. A test compares these with the things themselves.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

PIPELINES: Final = ("talking_head", "real_interactions", "portraits", "synthetic_interactions")
SOURCES: Final = (
    *("openhumanvid", "hallo3", "ccv2", "celebv-text", "celebv-hq", "mead", "hdtf", "ravdess", "vico"),
    *("talkvid", "huggingface", "webdataset"),
)
# The runs of a collection.
Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help="Folders of finished runs (their --output), local or any fsspec URL. NAME=RUN gives a run "
        "another name than its folder's.",
    ),
]
Engine = Literal["ray", "inline"]
Gpu = Literal["H100", "A100", "H20"]
Dtype = Literal["float32", "bfloat16"]


class Trainer(StrEnum):
    """See `pipelines.shards.trainer_lists.Trainer`; typer takes no list of a Literal."""

    FINETRAINERS = "finetrainers"
    DIFFSYNTH = "diffsynth"
    VIDEOX_FUN = "videox-fun"


class Tool(StrEnum):
    """What `interavatar export` writes for."""

    HUGGINGFACE = "huggingface"
    CROISSANT = "croissant"
    LABELSTUDIO = "labelstudio"
    FIFTYONE = "fiftyone"


class TrainingStart(StrEnum):
    """See `backends.store.training_starts.STARTS`."""

    TRAIN_WAN = "train-wan"
    TRAIN_WAN_T2V = "train-wan-t2v"
    TRAIN_LTX = "train-ltx"


def folder(text: str) -> Path:
    """A folder on a command line: a local path or any fsspec URL.

    Raises:
        BadParameter: it cannot be used.
    """
    from manifests.storage import StorageError, folder_of

    try:
        return folder_of(text)
    except StorageError as error:
        raise typer.BadParameter(str(error)) from None


_CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def pipelines(incomplete: str) -> list[str]:
    """Pipelines whose name begins so."""
    return [name for name in PIPELINES if name.startswith(incomplete)]


def profiles(incomplete: str) -> list[str]:
    """Likewise profiles."""
    return _files("profiles", incomplete)


def screens(incomplete: str) -> list[str]:
    """Likewise screens."""
    return _files("screens", incomplete)


def training_runs(incomplete: str) -> list[str]:
    """Likewise configurations of the trainer."""
    return _files("train", incomplete)


def _files(kind: str, incomplete: str) -> list[str]:
    names = sorted(file.stem for file in (_CONFIGS / kind).glob("*.yaml"))
    return [name for name in names if name.startswith(incomplete)]
