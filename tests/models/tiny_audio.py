"""Random weights of the audio models, in the layout of the model store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

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


def save_wav2vec2(folder: Path) -> None:
    """wav2vec 2.0 with a CTC head, as facebook/wav2vec2-base-960h, with its strides, 32 wide, 0.1 MB."""
    import torch
    from safetensors.torch import save_file
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        vocab_size=32,
        architectures=["Wav2Vec2ForCTC"],
    )
    state = Wav2Vec2ForCTC(config).state_dict()
    del state["wav2vec2.masked_spec_embed"]  # not in the published file, which has older names too
    state = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in state.items()
    }
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    config.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)


def save_syncnet(folder: Path) -> None:
    """SyncNet's state dict in the form of the public file: not zipped, 52 MB. Its size cannot be chosen."""
    import torch

    from backends.sound.syncnet import build_net

    torch.manual_seed(0)
    state = build_net().state_dict()
    torch.save(state, folder / "syncnet_v2.model", _use_new_zipfile_serialization=False)


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
    "wav2vec2-base-960h": save_wav2vec2,
    "pyannote-speaker-diarization-community-1": save_pyannote,
    "syncnet": save_syncnet,
}
