"""Small ONNX files with the inputs and outputs of the published ones, and random weights.

`BUILDERS` fills folders of the model store. Whatever the picture, their detectors find somebody in about the
same place, surer or less sure by its colours. `write_...` make files with known answers for tests.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper, save

Floats = npt.NDArray[np.float32]
ROOT = Path(__file__).resolve().parent.parent.parent
SIDE = 640  # of YOLOX and SCRFD


def _model(
    inputs: Mapping[str, Sequence[Any]],
    nodes: list[NodeProto],
    outputs: Mapping[str, Sequence[Any]],
    constants: Mapping[str, npt.NDArray[Any]],
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if name == "labels" else TensorProto.FLOAT, shape
            )
            for name, shape in outputs.items()
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    checker.check_model(model)
    return model


def _colours(source: str, scale: float) -> tuple[list[NodeProto], dict[str, npt.NDArray[Any]]]:
    """Nodes that give `colours` [N, 1]: a random mix of a picture's mean colours, at most about `scale`."""
    mix = np.random.default_rng(7).uniform(-1, 1, (3, 1)).astype(np.float32) * scale
    nodes = [
        helper.make_node("ReduceMean", [source], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["means", "mix"], ["colours"]),
    ]
    return nodes, {"mix": mix}


def write_yolox(
    path: Path, people: Sequence[tuple[Sequence[float], float, int]], batch: int | str = 1
) -> None:
    """YOLOX-l that sees given boxes: each x0, y0, x1, y1 in the 640 x 640 input, its score and COCO class."""
    cells = np.zeros((8400, 85), np.float32)
    cells[:, 4] = 0.01
    taken: set[int] = set()
    for (x0, y0, x1, y1), score, kind in people:
        col, row = int((x0 + x1) / 2 / 8), int((y0 + y1) / 2 / 8)
        while row * 80 + col in taken:
            col += 1
        taken.add(row * 80 + col)
        cells[row * 80 + col, :4] = (
            (x0 + x1) / 16 - col,
            (y0 + y1) / 16 - row,
            np.log((x1 - x0) / 8),
            np.log((y1 - y0) / 8),
        )
        cells[row * 80 + col, 4] = 1
        cells[row * 80 + col, 5 + kind] = score
    nodes, constants = _colours("images", 0.02 / 255)
    mask = np.zeros(85, np.float32)
    mask[4] = 1
    nodes += [
        helper.make_node("Mul", ["colours", "mask"], ["change"]),
        helper.make_node("Unsqueeze", ["change", "one"], ["by_cell"]),
        helper.make_node("Add", ["by_cell", "cells"], ["output"]),
    ]
    constants |= {"mask": mask, "one": np.array([1]), "cells": cells[None]}
    shapes = {"images": [batch, 3, SIDE, SIDE]}, {"output": [batch, 8400, 85]}
    save(_model(shapes[0], nodes, shapes[1], constants), path)


def write_simcc(
    path: Path, points: Floats, size: tuple[int, int], batch: int | str = "batch", noise: float = 0.0
) -> None:
    """RTMPose that sees given points [K, 3]: x, y in pixels of its input (w, h), and the maximum."""
    width, height = size
    constants: dict[str, npt.NDArray[Any]] = {}
    nodes, constants = _colours("input", noise)
    for axis, (name, side) in enumerate((("simcc_x", width), ("simcc_y", height))):
        bins = np.arange(2 * side)[None]
        away = bins - 2 * points[:, axis : axis + 1]
        constants[f"{name}_bins"] = (points[:, 2:] * np.exp(-(away**2) / 72)).astype(np.float32)[None]
        nodes += [
            helper.make_node("Unsqueeze", ["colours", "one"], [f"{name}_change"]),
            helper.make_node("Add", [f"{name}_change", f"{name}_bins"], [name]),
        ]
    constants["one"] = np.array([1])
    outputs = {
        "simcc_x": [batch, len(points), 2 * width],
        "simcc_y": [batch, len(points), 2 * height],
    }
    save(_model({"input": [batch, 3, height, width]}, nodes, outputs, constants), path)


def write_bright_simcc(
    path: Path, channels: Sequence[int], size: tuple[int, int], batch: int | str = "batch"
) -> None:
    """RTMPose whose point k is where channel `channels[k]` of its input is brightest."""
    width, height = size
    nodes, constants = [], {"channels": np.asarray(channels, np.int64), "last": np.array([3])}
    constants |= {"twice": np.array([1, 1, 1, 2]), "scale": np.float32(0.2), "shift": np.float32(0.45)}
    for name, side, across in (("simcc_x", width, 2), ("simcc_y", height, 3)):
        constants[f"{name}_shape"] = np.array([0, len(channels), 2 * side])
        nodes += [
            helper.make_node("ReduceMax", ["input"], [f"{name}_a"], axes=[across], keepdims=0),
            helper.make_node("Mul", [f"{name}_a", "scale"], [f"{name}_b"]),
            helper.make_node("Add", [f"{name}_b", "shift"], [f"{name}_c"]),
            helper.make_node("Gather", [f"{name}_c", "channels"], [f"{name}_d"], axis=1),
            helper.make_node("Unsqueeze", [f"{name}_d", "last"], [f"{name}_e"]),
            helper.make_node("Tile", [f"{name}_e", "twice"], [f"{name}_f"]),
            helper.make_node("Reshape", [f"{name}_f", f"{name}_shape"], [name]),
        ]
    outputs = {
        "simcc_x": [batch, len(channels), 2 * width],
        "simcc_y": [batch, len(channels), 2 * height],
    }
    save(_model({"input": [batch, 3, height, width]}, nodes, outputs, constants), path)


def write_rtmdet(path: Path, hands: Floats, batch: int | str = "batch") -> None:
    """RTMDet, its NMS inside, that sees given boxes [K, 5] in its 320 x 320 input, with their scores."""
    nodes, constants = _colours("input", 0.005)
    nodes += [
        helper.make_node("Mul", ["colours", "mask"], ["change"]),
        helper.make_node("Unsqueeze", ["change", "one"], ["by_hand"]),
        helper.make_node("Add", ["by_hand", "hands"], ["dets"]),
        helper.make_node("ReduceMin", ["dets"], ["least"], axes=[2], keepdims=0),
        helper.make_node("Mul", ["least", "zero"], ["zeros"]),
        helper.make_node("Cast", ["zeros"], ["labels"], to=TensorProto.INT64),
    ]
    constants |= {"mask": np.array([0, 0, 0, 0, 1], np.float32), "one": np.array([1])}
    constants |= {"hands": hands[None].astype(np.float32), "zero": np.float32(0)}
    outputs = {"dets": [batch, len(hands), 5], "labels": [batch, len(hands)]}
    save(_model({"input": [batch, 3, 320, 320]}, nodes, outputs, constants), path)


def write_scrfd(path: Path, faces: Sequence[tuple[float, float, float, float]]) -> None:
    """SCRFD-10g that sees given faces: middle x, y and half side in its 640 x 640 input, and the score."""
    nodes, constants = _colours("input.1", 0.02)
    shapes: dict[str, Sequence[Any]] = {}
    # Right eye, left eye, nose, mouth corners of the subject, in half sides from the middle.
    marks = np.array([(-0.4, -0.3), (0.4, -0.3), (0, 0.1), (-0.3, 0.5), (0.3, 0.5)])
    for kind, width in (("score", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            count = SIDE // stride
            values = np.zeros((count * count * 2, width), np.float32)
            for x, y, half, score in faces if stride == 32 else ():
                col, row = int(x / stride), int(y / stride)
                place = (row * count + col) * 2
                dx, dy = x - col * stride, y - row * stride
                values[place] = {
                    "score": [score],
                    "bbox": np.array([half - dx, half - dy, half + dx, half + dy]) / stride,
                    "kps": (marks * half + (dx, dy)).reshape(-1) / stride,
                }[kind]
            name = f"{kind}_{stride}"
            constants[f"{name}_values"] = values
            change = "colours" if kind == "score" else "nothing"
            nodes.append(helper.make_node("Add", [f"{name}_values", change], [name]))
            shapes[name] = [len(values), width]
    nodes.insert(2, helper.make_node("Mul", ["colours", "zero"], ["nothing"]))
    constants["zero"] = np.float32(0)
    save(_model({"input.1": [1, 3, "height", "width"]}, nodes, shapes, constants), path)


def write_arcface(path: Path, batch: int | str = "batch") -> None:
    """A random convolution and projection, [N, 3, 112, 112] to [N, 512]."""
    random = np.random.default_rng(3)
    constants = {
        "kernel": random.normal(0, 0.05, (8, 3, 16, 16)).astype(np.float32),
        "out": random.normal(0, 0.2, (8 * 49, 512)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input.1", "kernel"], ["maps"], strides=[16, 16]),
        helper.make_node("Tanh", ["maps"], ["curved"]),
        helper.make_node("Flatten", ["curved"], ["flat"]),
        helper.make_node("MatMul", ["flat", "out"], ["683"]),
    ]
    save(_model({"input.1": [batch, 3, 112, 112]}, nodes, {"683": [batch, 512]}, constants), path)


def random_points(count: int, size: tuple[int, int], seed: int) -> Floats:
    """`count` points in the inner part of an input, with maxima between 0.35 and 0.95."""
    random = np.random.default_rng(seed)
    xy = random.uniform(0.2, 0.8, (count, 2)) * size
    return np.column_stack([xy, random.uniform(0.35, 0.95, count)]).astype(np.float32)


def dwpose(folder: Path) -> None:
    """One person in the middle of a wide picture, the same seen twice, and a chair."""
    person = (180.0, 20.0, 430.0, 350.0)
    again, chair = (190.0, 30.0, 440.0, 350.0), (20.0, 200.0, 120.0, 340.0)
    write_yolox(folder / "yolox_l.onnx", [(person, 0.9, 0), (again, 0.8, 0), (chair, 0.9, 56)])
    dwpose_points(folder)


def dwpose_points(folder: Path) -> None:
    """The keypoint network alone."""
    points = random_points(133, (288, 384), 0)
    write_simcc(folder / "dw-ll_ucoco_384.onnx", points, (288, 384), noise=0.02)


def rtmpose_hand(folder: Path) -> None:
    """Two hands."""
    hands = np.array([(60, 60, 120, 130, 0.8), (180, 90, 250, 160, 0.6)], np.float32)
    write_rtmdet(folder / "rtmdet_nano_hand.onnx", hands)
    write_simcc(folder / "rtmpose_m_hand.onnx", random_points(21, (256, 256), 1), (256, 256), noise=0.02)


def insightface(folder: Path) -> None:
    """Two faces, and a third that is not sure."""
    faces = [(304.0, 150.0, 70.0, 0.9), (480.0, 250.0, 60.0, 0.7), (100.0, 250.0, 40.0, 0.3)]
    write_scrfd(folder / "det_10g.onnx", faces)
    write_arcface(folder / "w600k_r50.onnx")


def face_mesh(folder: Path) -> None:
    """The real file: out of the laptop's environment beside this one, else out of the wheel on PyPI."""
    member = "mediapipe/modules/face_landmark/face_landmark.tflite"
    for path in (ROOT / ".venv").glob(f"lib/python*/site-packages/{member}"):
        shutil.copyfile(path, folder / path.name)
        return
    with tempfile.TemporaryDirectory() as scratch:
        download = ["download", "--no-deps", "--only-binary", ":all:", "--dest", scratch]
        subprocess.run([sys.executable, "-m", "pip", *download, "mediapipe==0.10.14"], check=True)
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            (folder / "face_landmark.tflite").write_bytes(wheel.read(member))


BUILDERS: dict[str, Callable[[Path], None]] = {
    "dwpose": dwpose,
    "rtmpose-hand": rtmpose_hand,
    "insightface-buffalo-l": insightface,
    "mediapipe-face-mesh": face_mesh,
}
