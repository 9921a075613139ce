"""Who speaks when, by pyannote.audio's pipeline."""

from __future__ import annotations

import inspect
import os
import threading
import warnings
from collections import defaultdict
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import yaml

from backends.running.batching import BatchSize, is_out_of_memory
from backends.running.pretrained import torch_device
from backends.sound.diarizer import Turn
from backends.store.weights import Weights

Floats = npt.NDArray[np.float32]

_PIPELINE: Final = "pyannote.audio.pipelines.SpeakerDiarization"
# What a checkpoint may be made of; its file names the class.
_ARCHITECTURES: Final = {
    ("pyannote.audio.models.segmentation.PyanNet", "PyanNet"),
    ("pyannote.audio.models.segmentation", "PyanNet"),
    ("pyannote.audio.models.embedding.wespeaker", "WeSpeakerResNet34"),
    ("pyannote.audio.models.embedding", "WeSpeakerResNet34"),
}


class PyannoteDiarizer:
    """pyannote.audio 4 (Plaquet and Bredin 2023), the tool of InterAvatar's single-speaker extraction (B.2).

    The community-1 pipeline: a powerset segmentation of windows of 10 s into up to three voices, an embedding
    of each, clustering by VBx, with the settings of its config.yaml. Nothing is fetched and nothing reported:
    its usage metrics are switched off for the process.

    pyannote.audio itself unpickles its checkpoints without restriction. Here they are read with weights_only,
    where beside tensors only pyannote's own task description and omegaconf's containers pass (settings that
    Hydra read are stored so), and only known classes are made of them.

    One recording at a time; the windows of one share batches, smaller ones when memory runs out. pyannote
    switches TF32 off for the process.

    Args:
        model: config.yaml, segmentation/pytorch_model.bin, embedding/pytorch_model.bin, and plda/ with
            xvec_transform.npz and plda.npz.
        min_speakers: fewest voices, None: as found.
        max_speakers: most voices, None: as found.
        batch: most windows at once, of segmentation and embedding.
        device: "cuda" or "cpu"; None: CUDA where there is one.
    """

    packages = ("torch", "pyannote.audio")
    MIN_S = 0.5  # less sound than this is not listened to

    def __init__(
        self,
        model: Weights,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        batch: int = 32,
        device: str | None = None,
    ) -> None:
        self.model = model
        self.min_speakers = min_speakers
        self.max_speakers = max_speakers
        self.batch = batch
        self.device = device
        self._size = BatchSize(batch)
        self._pipeline: Any = None
        self._lock: Any = None

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return (
            f"pyannote({self.model}, pyannote.audio {version('pyannote.audio')}, "
            f"speakers={self.min_speakers}-{self.max_speakers})"
        )

    def setup(self) -> None:
        """Load the weights; again does nothing.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: config.yaml asks for something else than a diarization from these files, or a
                checkpoint holds what weights must not.
        """
        if self._pipeline is not None:
            return
        os.environ["PYANNOTE_METRICS_ENABLED"] = "false"
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchcodec, which reads files; sound comes as an array here
            from pyannote.audio import Pipeline

        config = _read_config(self.model.file("config.yaml"))
        config["pipeline"]["params"] |= {
            "segmentation": _load(self.model.file("segmentation/pytorch_model.bin")),
            "embedding": _load(self.model.file("embedding/pytorch_model.bin")),
            "plda": {"checkpoint": str(self.model.file("plda"))},
        }
        for name in ("xvec_transform.npz", "plda.npz"):
            self.model.file(f"plda/{name}")
        pipeline = Pipeline.from_pretrained(config)
        pipeline.to(torch.device(torch_device(self.device)))
        self._lock = threading.Lock()
        self._pipeline = pipeline

    def turns(self, samples: Floats, rate: int) -> list[Turn]:
        """Turns sorted by start; see the role. Any rate: pyannote resamples."""
        if len(samples) < self.MIN_S * rate:
            return []
        self.setup()
        import torch

        sound = torch.from_numpy(np.array(samples, np.float32)[None])
        with self._lock:
            found = self._run({"waveform": sound, "sample_rate": rate}).speaker_diarization
        seconds = len(samples) / rate
        spoken = sorted(
            (max(0.0, turn.start), min(turn.end, seconds), name)
            for turn, _, name in found.itertracks(yield_label=True)
            if turn.start < seconds  # the last window is padded
        )
        order = list(dict.fromkeys(name for *_, name in spoken))
        return [Turn(float(start), float(end), order.index(name)) for start, end, name in spoken]

    def _run(self, recording: dict[str, Any]) -> Any:
        """The pipeline's output, in batches that fit into memory: `BatchSize` with a recording as a batch."""
        import torch

        while True:
            size = self._size.now
            self._pipeline.embedding_batch_size = self._pipeline.segmentation_batch_size = size
            try:
                found = self._pipeline(
                    recording, min_speakers=self.min_speakers, max_speakers=self.max_speakers
                )
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
            else:
                self._size.fitted(size)
                return found
            self._size.failed(size)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _read_config(path: Path) -> dict[str, Any]:
    """config.yaml, without what pyannote would import or fetch by name."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict) or not isinstance(config.get("pipeline"), dict):
        raise ValueError(f"{path}: no pipeline")
    if config["pipeline"].get("name") != _PIPELINE:
        raise ValueError(f"{path}: a pipeline {config['pipeline'].get('name')!r}, not {_PIPELINE}")
    unknown = sorted(set(config) - {"version", "dependencies", "pipeline", "params"})
    if unknown:
        raise ValueError(f"{path}: {', '.join(unknown)} is not supported")
    config["pipeline"].setdefault("params", {})
    return config


def _load(path: Path) -> Any:
    """One of the pipeline's two models."""
    import torch

    try:
        with torch.serialization.safe_globals(_allowed()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        about = checkpoint["pyannote.audio"]
        module, name = about["architecture"]["module"], about["architecture"]["class"]
    except Exception as error:
        raise ValueError(
            f"{path}: not a checkpoint of pyannote.audio, or more than weights: {error}"
        ) from error
    if (module, name) not in _ARCHITECTURES:
        raise ValueError(f"{path}: {module}.{name} is not among the architectures that may be loaded")
    kind = getattr(import_module(module), name)
    known = inspect.signature(kind).parameters
    settings = _plain(checkpoint["hyper_parameters"])
    model = kind(**{key: value for key, value in settings.items() if key in known})
    model.on_load_checkpoint(checkpoint)  # adds the layers that depend on the task
    model.load_state_dict(_without_loss(checkpoint["state_dict"]))
    return model.eval()


def _allowed() -> list[Any]:
    """What a checkpoint may hold beside tensors and Python's own values; to make one of them runs no code."""
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications

    allowed = [Problem, Resolution, Specifications, torch.torch_version.TorchVersion]
    if find_spec("omegaconf") is not None:  # no dependency of pyannote's: whoever trained may have had it
        from omegaconf import DictConfig, ListConfig
        from omegaconf.base import ContainerMetadata, Metadata
        from omegaconf.nodes import AnyNode

        allowed += [DictConfig, ListConfig, ContainerMetadata, Metadata, AnyNode]
        allowed += [Any, defaultdict, dict, list, int]
    return allowed


def _plain(value: Any) -> Any:
    """Omegaconf's containers as dicts and lists, references in them as they are written."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if type(value).__module__.partition(".")[0] == "omegaconf":
        from omegaconf import OmegaConf

        return OmegaConf.to_container(value, resolve=False)
    return value


def _without_loss(state: Mapping[str, Any]) -> dict[str, Any]:
    """Weights of a training loss are of no use here, and there is nowhere to put them."""
    return {name: value for name, value in state.items() if not name.startswith("loss_func.")}
