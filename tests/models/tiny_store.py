"""A model store in which every model of the gpu profile is tiny and random.

    python -m tests.models.tiny_store DIR

makes one; `SETTINGS` are what a run on a CPU with it should be given by --set, and `VLM` where its language
model is asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from backends.store.model_store import ModelStore
from tests.models import tiny_audio, tiny_onnx, tiny_vision
from tests.support import tiny_vlm
from tests.support.tiny_wan import save_tiny_wan

BUILDERS: Mapping[str, Callable[[Path], object]] = {
    **tiny_onnx.BUILDERS,
    **tiny_vision.BUILDERS,
    **tiny_audio.BUILDERS,
    "qwen2.5-vl-7b-instruct": tiny_vlm.write,
    "wan2.2-i2v-a14b": save_tiny_wan,
}
# Small where the true architecture would still be slow, and what a vocabulary of few words can bear.
SETTINGS = (
    "device=cpu",
    "roles.point_tracker.interp_shape=[48, 64]",
    "roles.optical_flow.iterations=2",
    "roles.image_to_video.num_frames=17",
    "roles.image_to_video.num_inference_steps=2",
    "roles.image_to_video.max_area=20480",
    "roles.image_to_video.max_prompt_tokens=1024",
)
VLM = (
    "roles.vision_language_model.dtype=float32",
    "roles.vision_language_model.max_model_len=8192",
    "roles.vision_language_model.max_tokens=1024",
    "roles.vision_language_model.batch_size=4",
    f"roles.vision_language_model.max_pixels={28 * 28 * 16}",
)
REAL = ("mediapipe-face-mesh",)  # comes inside a package


def build(folder: Path) -> ModelStore:
    """Write all models and the store's record of them."""
    for name, write in BUILDERS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        write(folder / name)
    store = ModelStore(folder)
    store.record([name for name in BUILDERS if name not in REAL], random_weights=True)
    store.record(REAL)
    return store


if __name__ == "__main__":
    build(Path(sys.argv[1]))
