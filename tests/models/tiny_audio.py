"""Random weights of the audio models, in the layout of the model store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import random_weights

PIPELINE_CONFIG = """\
dependencies:
  pyannote.audio: 4.0.0
pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    clustering: VBxClustering
    segmentation: $model/segmentation
    segmentation_batch_size: 32
    embedding: $model/embedding
    embedding_batch_size: 32
    embedding_exclude_overlap: true
    plda: $model/plda
params:
  clustering:
    threshold: 0.6
    Fa: 0.07
    Fb: 0.8
  segmentation:
    min_duration_off: 0.0
"""


def save_pyannote(folder: Path) -> None:
    """A community-1 pipeline: PyanNet 16 wide, WeSpeaker's ResNet34 (27 MB), a transform drawn at random."""
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import WeSpeakerResNet34
    from pyannote.audio.models.segmentation import PyanNet

    torch.manual_seed(0)
    segmentation = PyanNet(
        sincnet={"stride": 10},
        lstm={"hidden_size": 16, "num_layers": 1, "bidirectional": True, "monolithic": True},
        linear={"hidden_size": 16, "num_layers": 1},
    )
    segmentation.specifications = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=10.0,
        classes=["speaker#1", "speaker#2", "speaker#3"],
        powerset_max_classes=2,
        permutation_invariant=True,
    )
    segmentation.build()
    embedding = WeSpeakerResNet34()
    embedding.specifications = Specifications(
        problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=5.0
    )
    for name, model in (("segmentation", segmentation), ("embedding", embedding)):
        (folder / name).mkdir(exist_ok=True)
        torch.save(checkpoint_of(model), folder / name / "pytorch_model.bin")
    (folder / "plda").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    np.savez(
        folder / "plda" / "xvec_transform.npz",
        mean1=np.zeros(256),
        mean2=np.zeros(128),
        lda=rng.normal(size=(256, 128)),
    )
    np.savez(
        folder / "plda" / "plda.npz",
        mu=np.zeros(128),
        tr=np.eye(128) + 0.01 * rng.normal(size=(128, 128)),
        psi=np.linspace(5, 0.1, 128),
    )
    (folder / "config.yaml").write_text(PIPELINE_CONFIG, encoding="utf-8")


def checkpoint_of(model: Any) -> dict[str, Any]:
    """What Lightning stores of a pyannote model when it is trained."""
    import torch

    return {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "pytorch-lightning_version": "2.6.0",
        "pyannote.audio": {
            "versions": {
                "torch": torch.torch_version.TorchVersion("2.0.1"),
                "pyannote.audio": "4.0.0",
            },
            "architecture": {"module": type(model).__module__, "class": type(model).__name__},
            "specifications": model.specifications,
        },
    }


BUILDERS: dict[str, Callable[[Path], None]] = {
    "wav2vec2-base-960h": partial(random_weights.wav2vec2, small=True),
    "pyannote-speaker-diarization-community-1": save_pyannote,
    "syncnet": random_weights.syncnet,
}
