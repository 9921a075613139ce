"""SAM 2, CLIP, DINOv2 and CoTracker3 from disk on tiny random weights, against their own libraries."""

from __future__ import annotations

import gc
import pickle
import shutil
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from backends.bodies import sam2
from backends.bodies.sam2 import Sam2HairSegmenter, Sam2PersonMask
from backends.pictures import attribute_embedder, openclip
from backends.pictures.attribute_embedder import DinoV2
from backends.pictures.cotracker import CoTracker3
from backends.pictures.image_embedder import EfficientNetLite, ReadsTexts
from backends.pictures.openclip import OpenClipEmbedder
from backends.pictures.point_tracker import grid
from backends.store.weights import Weights
from benchmarks import precision
from media.decode import Decoded
from stages.attributes import Attributes
from stages.clip import Clip
from stages.talkvid_ratio import TalkvidRatio
from tests.models.tiny_vision import BUILDERS

Store = Callable[[str], Weights]
SHAPE = (64, 96)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("store")

    def weights(name: str) -> Weights:
        folder = root / name
        if not folder.exists():
            folder.mkdir()
            BUILDERS[name](folder)
        return Weights(name, folder, "0123abcd", is_random=True)

    return weights


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*size, 3), np.uint8) for size in sizes]


def yolox(folder: Path, boxes: list[tuple[float, float, float, float]]) -> Weights:
    """A detector that always sees these people, x0, y0, x1, y1 in pixels of its 640 x 640 input."""
    from onnx import TensorProto, helper, numpy_helper, save

    raw = np.zeros((1, 8400, 85), np.float32)
    for i, (x0, y0, x1, y1) in enumerate(boxes):  # cell i of the first row, whose cells are 8 pixels wide
        middle, size = np.array([x0 + x1, y0 + y1]) / 2, np.array([x1 - x0, y1 - y0])
        raw[0, i, :6] = *(middle / 8 - (i, 0)), *np.log(size / 8), 1, 1
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Size", ["shape"], ["rank"]),
        helper.make_node("Cast", ["rank"], ["four"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["four", "four"], ["zero"]),
        helper.make_node("Add", ["raw", "zero"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "yolox",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 640, 640])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 8400, 85])],
        [numpy_helper.from_array(raw, "raw")],
    )
    folder.mkdir()
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(folder / "yolox_l.onnx"))
    return Weights("yolox", folder)


# What all have in common.


def made(store: Store) -> list[Any]:
    return [
        Sam2HairSegmenter(store("sam2.1-hiera-large"), device="cpu"),
        Sam2PersonMask(store("sam2.1-hiera-large"), store("sam2.1-hiera-large"), device="cpu"),
        OpenClipEmbedder(store("openclip-vit-l-14"), device="cpu"),
        DinoV2(store("dinov2-large"), device="cpu"),
        CoTracker3(store("cotracker3"), device="cpu", interp_shape=SHAPE),
    ]


def test_they_pickle_and_are_named_by_their_weights(store: Store) -> None:
    ids = set()
    for model in made(store):
        copy = pickle.loads(pickle.dumps(model))
        assert copy.id == model.id
        assert "stand_in_random_" in model.id and "@0123abcd" in model.id
        assert "/" not in model.id and "cpu" not in model.id
        ids.add(model.id)
    assert len(ids) == 5
    assert Sam2HairSegmenter(store("sam2.1-hiera-large")).name == "stand_in_random_sam2.1-hiera-large"
    assert "@unpinned" in DinoV2(Weights("dinov2-large", Path("/nowhere"))).id


def test_threads_share_them(store: Store) -> None:
    """Many at once give what one after the other gives; sums of batches differ in the last digits."""
    images = pictures(*[(40 + 7 * i, 90 - 5 * i) for i in range(8)])
    box = np.array([0.2, 0.1, 0.8, 0.7], np.float32)
    hair, _, clip, dino, _ = made(store)
    calls: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda image: hair.sam2.logits(image, box[None]),
        lambda image: clip.embed([image]),
        lambda image: dino.embed([image, image]),
    ]
    for call in calls:
        alone = [call(image) for image in images]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(call, images))
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_half_precision_changes_little(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs on CUDA, here on the CPU: weights in float32, sums in bfloat16."""
    image = pictures((97, 161))[0]
    box = np.array([[0.2, 0.1, 0.8, 0.7]], np.float32)
    hair, _, clip, dino, _ = made(store)

    def run() -> list[np.ndarray]:
        return [hair.sam2.logits(image, box)[0] > 0, clip.embed([image])[0], dino.embed([image])[0]]

    exact = run()
    for module in (sam2, openclip, attribute_embedder):
        monkeypatch.setattr(module, "autocast", lambda *asked: torch.autocast("cpu", torch.bfloat16))
    mask, vector, tokens = run()
    assert (mask == exact[0]).mean() > 0.95
    assert vector.dtype == tokens.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert vector @ exact[1] > 0.999
    assert np.abs(tokens - exact[2]).max() < 0.1
    assert not np.array_equal(tokens, exact[2])


def test_missing_weights_are_errors(store: Store, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    empty = Weights("empty", tmp_path)
    for model in (Sam2HairSegmenter(empty), DinoV2(empty)):
        with pytest.raises(OSError, match=str(tmp_path)):
            model.setup()
    for other in (OpenClipEmbedder(empty), CoTracker3(empty)):
        with pytest.raises(FileNotFoundError, match=str(tmp_path)):
            other.setup()
    for name, kind in (("dinov2-large", DinoV2), ("sam2.1-hiera-large", Sam2HairSegmenter)):
        part = shutil.copytree(store(name).folder, tmp_path / name)
        tensors = load_file(part / "model.safetensors")
        gone = sorted(tensors)[-1]
        del tensors[gone]
        save_file(tensors, part / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=f"1 weights .* the first is {gone}"):
            kind(Weights(name, part), device="cpu").setup()


# SAM 2.


@pytest.mark.parametrize("size", [(97, 161), (300, 211), (40, 30)])
def test_sam2_gives_what_its_processor_and_model_give(store: Store, size: tuple[int, int]) -> None:
    from transformers import Sam2ImageProcessor, Sam2Model, Sam2Processor

    weights = store("sam2.1-hiera-large")
    image = pictures(size)[0]
    box = np.array([0.25, 0.125, 0.75, 0.5], np.float32)
    mask = Sam2HairSegmenter(weights, device="cpu").segment(image, box, None)
    assert mask.dtype == bool and mask.shape == size

    processor = Sam2Processor(Sam2ImageProcessor.from_pretrained(weights.folder))
    pixels = (box * np.tile(size[::-1], 2)).tolist()
    inputs = processor(images=image, input_boxes=[[pixels]], return_tensors="pt")
    with torch.inference_mode():
        out = Sam2Model.from_pretrained(weights.folder).eval()(**inputs, multimask_output=False)
    expected = processor.post_process_masks(out.pred_masks, inputs["original_sizes"])[0][0, 0].numpy()
    assert 0 < expected.mean() < 1
    assert (expected == mask).mean() > 0.999


def test_sam2_is_loaded_once_while_it_is_used(store: Store) -> None:
    weights = store("sam2.1-hiera-large")
    one, other = (Sam2HairSegmenter(weights, device="cpu") for _ in range(2))
    one.setup()
    other.setup()
    assert one.sam2._net is other.sam2._net
    assert pickle.loads(pickle.dumps(Sam2HairSegmenter(weights))).sam2._net is None
    used = weakref.ref(one.sam2._net)
    del one, other
    gc.collect()
    assert used() is None


def test_people_are_all_masks_together(store: Store, tmp_path: Path) -> None:
    sam2 = store("sam2.1-hiera-large")
    image = pictures((120, 160))[0]  # 4 times as large for the detector
    people = yolox(tmp_path / "two", [(40, 40, 240, 400), (300, 80, 600, 440)])
    model = Sam2PersonMask(sam2, people, device="cpu")
    mask = model.mask(image)
    assert mask.dtype == np.float32 and mask.shape == (120, 160)
    assert mask.min() >= 0 and mask.max() <= 1

    hair = Sam2HairSegmenter(sam2, device="cpu")
    boxes, _ = model.people.detect(image)
    np.testing.assert_allclose(
        sorted(boxes.tolist()),
        [[10 / 160, 10 / 120, 60 / 160, 100 / 120], [75 / 160, 20 / 120, 150 / 160, 110 / 120]],
        atol=1e-5,
    )
    each = [hair.segment(image, box, None) for box in boxes]
    assert ((mask > 0.5) == (each[0] | each[1])).mean() > 0.999

    nobody = Sam2PersonMask(sam2, yolox(tmp_path / "none", []), device="cpu").mask(image)
    assert nobody.shape == (120, 160) and not nobody.any()


# CLIP.


@pytest.mark.parametrize("size", [(97, 161), (300, 211), (20, 24)])
def test_openclip_gives_what_open_clip_gives(store: Store, size: tuple[int, int]) -> None:
    import open_clip
    from PIL import Image

    weights = store("openclip-vit-l-14")
    image = pictures(size)[0]
    net, prepare = open_clip.create_model_from_pretrained(f"local-dir:{weights.folder}")
    with torch.inference_mode():
        expected = net.eval().encode_image(prepare(Image.fromarray(image))[None], normalize=True).numpy()
    model = OpenClipEmbedder(weights, device="cpu")
    found = model.embed([image, image[::-1]])
    assert found.dtype == np.float32 and found.shape == (2, 16)
    np.testing.assert_allclose(found[:1], expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert model.embed([]).shape == (0, 16)


def test_openclip_reads_sentences_as_open_clip_does(store: Store) -> None:
    import open_clip

    weights = store("openclip-vit-l-14")
    texts = ["a woman laughs and covers her mouth", "a man juggles"]
    net, _ = open_clip.create_model_from_pretrained(f"local-dir:{weights.folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{weights.folder}")(texts)
    with torch.inference_mode():
        expected = net.eval().encode_text(tokens, normalize=True).numpy()
    model = OpenClipEmbedder(weights, device="cpu")
    assert isinstance(model, ReadsTexts) and not isinstance(EfficientNetLite(), ReadsTexts)
    found = model.embed_texts(texts)
    assert found.dtype == np.float32 and found.shape == model.embed([pictures((64, 64))[0]] * 2).shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


# DINOv2.


@pytest.mark.parametrize("size", [(97, 161), (300, 611)])
def test_dinov2_gives_what_transformers_gives(store: Store, size: tuple[int, int]) -> None:
    from transformers import AutoImageProcessor, AutoModel

    weights = store("dinov2-large")
    image = pictures(size)[0]
    inputs = AutoImageProcessor.from_pretrained(weights.folder)(images=image, return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 224, 224)
    with torch.inference_mode():
        out = AutoModel.from_pretrained(weights.folder).eval()(**inputs)
    model = DinoV2(weights, device="cpu")
    found = model.embed([image[::-1], image])
    assert found.dtype == np.float32 and found.shape == (2, 257, 32)
    np.testing.assert_allclose(found[1:], out.last_hidden_state.numpy(), atol=2e-5)
    np.testing.assert_allclose(found[1, 0], out.pooler_output[0].numpy(), atol=2e-5)  # the class token
    assert model.embed([]).shape[0] == 0


def test_tokens_lie_row_by_row(store: Store) -> None:
    """A bright patch changes its own token the most."""
    model = DinoV2(store("dinov2-large"), device="cpu")
    plain = np.full((256, 256, 3), 60, np.uint8)
    marked = plain.copy()
    row, column = 3, 11
    y, x = 16 + 14 * row, 16 + 14 * column  # 16: what the middle square leaves out
    marked[y : y + 14, x : x + 14] = 255
    before, after = model.embed([plain, marked])
    change = np.linalg.norm(after - before, axis=1)[1:]
    assert change.argmax() == row * 16 + column


def test_the_attributes_stage_stores_them(store: Store) -> None:
    model = DinoV2(store("dinov2-large"), device="cpu")
    stage = Attributes(model)
    images = pictures((60, 80), (60, 80))
    clip = Clip(
        row={"face_embedding_time_s": 0.5}, decoded=Decoded(frames={stage.sees[0]: ([0.0, 0.5], images)})
    )
    stored = stage.score(clip)["attribute_features"]
    assert stored.dtype == np.float16 and stored.shape == (257, 32)
    np.testing.assert_allclose(stored, model.embed(images[1:])[0], atol=2e-3)


# CoTracker3.


@pytest.fixture(scope="module")
def tracker(store: Store) -> CoTracker3:
    model = CoTracker3(store("cotracker3"), device="cpu", offline_frames=16, interp_shape=SHAPE)
    model.setup()
    return model


def test_short_runs_are_the_offline_predictors(store: Store, tracker: CoTracker3) -> None:
    from cotracker.predictor import CoTrackerPredictor

    frames = pictures(*[(61, 83)] * 5)
    tracks, visible = tracker.track(frames, 3)
    assert tracks.dtype == np.float32 and tracks.shape == (5, 9, 2)
    assert visible.dtype == bool and visible.shape == (5, 9)
    np.testing.assert_allclose(tracks[0], grid(83, 61, 3), atol=1e-4)
    assert visible[0].all()

    path = str(store("cotracker3").file("scaled_offline.pth"))
    predictor = CoTrackerPredictor(checkpoint=path, offline=True, window_len=60)
    predictor.interp_shape = SHAPE
    video = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None].float()
    queries = torch.from_numpy(np.concatenate([np.zeros((9, 1)), grid(83, 61, 3)], 1)[None]).float()
    found, seen = predictor(video, queries=queries)
    np.testing.assert_allclose(tracks, found[0].numpy(), atol=1e-3)
    assert (visible == seen[0].numpy()).all()


def test_long_runs_are_the_online_predictors(store: Store, tracker: CoTracker3) -> None:
    """While other threads track other clips."""
    from cotracker.predictor import CoTrackerOnlinePredictor

    frames = pictures(*[(61, 83)] * 17)
    others = [pictures(*[(40, 56)] * count) for count in (2, 3)]
    alone = [tracker.track(clip, 3)[0] for clip in others]
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(tracker.track, clip, 3) for clip in others]
        tracks, visible = pool.submit(tracker.track, frames, 2).result()
    for expected, future in zip(alone, running, strict=True):
        np.testing.assert_allclose(future.result()[0], expected, atol=1e-4)
    assert tracks.shape == (17, 4, 2) and visible.shape == (17, 4)
    np.testing.assert_allclose(tracks[0], grid(83, 61, 2))

    path = str(store("cotracker3").file("scaled_online.pth"))
    predictor = CoTrackerOnlinePredictor(checkpoint=path, window_len=16)
    predictor.interp_shape = SHAPE
    video = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None].float()
    queries = torch.from_numpy(np.concatenate([np.zeros((4, 1)), grid(83, 61, 2)], 1)[None]).float()
    predictor(video_chunk=video, is_first_step=True, queries=queries, add_support_grid=True)
    for start in range(0, 17 - 8, 8):
        found, seen = predictor(video_chunk=video[:, start : start + 16], add_support_grid=True)
    np.testing.assert_allclose(tracks[1:], found[0, 1:].numpy(), atol=1e-3)
    assert (visible[1:] == seen[0, 1:].numpy()).all()


def test_talkvids_ratio_is_that_of_the_public_predictor(store: Store, tmp_path: Path) -> None:
    """Through the stage, from the frames of a clip of 1.6 s, against the predictor on three of them."""
    from cotracker.predictor import CoTrackerPredictor

    folder = shutil.copytree(store("cotracker3").folder, tmp_path / "model")
    weights = torch.load(folder / "scaled_offline.pth", weights_only=True)
    weights["updateformer.vis_conf_head.weight"] *= 15  # random weights find all points alike,
    weights["updateformer.vis_conf_head.bias"] -= 0.28  # and none near the limit
    torch.save(weights, folder / "scaled_offline.pth")
    model = CoTracker3(Weights("cotracker3", folder), device="cpu", interp_shape=(32, 48))

    canvas = cv2.resize(np.random.default_rng(5).integers(0, 255, (24, 60, 3), np.uint8), (300, 120))
    shown = [np.ascontiguousarray(canvas[20:92, i : i + 96]) for i in range(40)]
    times = np.arange(40) / 25
    stage = TalkvidRatio(model, TalkvidRatio.Config(grid_size=6))  # 2500 points take minutes on a CPU
    decoded = Decoded(frames={stage.sees[0]: (times, shown)}, frame_times=times, width=96, height=72)
    found = stage.score(Clip(row={}, decoded=decoded))["talkvid_cotracker_ratio"]

    path = str(folder / "scaled_offline.pth")
    predictor = CoTrackerPredictor(checkpoint=path, offline=True, window_len=60)
    predictor.interp_shape = (32, 48)
    picked = [cv2.resize(shown[i], (24, 18), interpolation=cv2.INTER_AREA) for i in (5, 17, 29)]
    video = torch.from_numpy(np.stack(picked)).permute(0, 3, 1, 2)[None].float()
    _, seen = predictor(video, grid_size=6, grid_query_frame=0)
    assert 0.4 < float(seen.float().mean()) < 0.95
    assert found == pytest.approx(float(seen.float().mean()))


def test_cotracker_in_half_precision_changes_little(store: Store, tmp_path: Path) -> None:
    """Of the spread of movements; the last layer moves points as far as trained ones do."""
    folder = shutil.copytree(store("cotracker3").folder, tmp_path / "model")
    for name in ("scaled_offline.pth", "scaled_online.pth"):
        weights = torch.load(folder / name, weights_only=True)
        weights["updateformer.flow_head.weight"] *= 30
        torch.save(weights, folder / name)
    found = precision.cotracker(Weights("cotracker3", folder), "cpu", frames=2, shape=(32, 48))
    assert set(found) == {"float16", "bfloat16"}
    assert 0 < found["float16"].mean < 0.002 and found["float16"].largest < 0.02
    assert found["float16"].mean < found["bfloat16"].mean < 0.02
    model = store("cotracker3")
    assert CoTracker3(model, precision="bfloat16").id == f"{CoTracker3(model).id} bfloat16"


@pytest.mark.parametrize("count", [1, 5, 17])
def test_points_that_do_not_move_stay_in_their_pixels(store: Store, tmp_path: Path, count: int) -> None:
    """Models whose last layer says "no movement": there and back through the models' own scale."""
    for name in ("scaled_offline.pth", "scaled_online.pth"):
        weights = torch.load(store("cotracker3").file(name), weights_only=True)
        for key in ("updateformer.flow_head.weight", "updateformer.flow_head.bias"):
            weights[key].zero_()
        torch.save({"model": weights}, tmp_path / name)  # the releases have both layouts
    still = CoTracker3(Weights("still", tmp_path), device="cpu", offline_frames=16, interp_shape=SHAPE)
    tracks, _ = still.track(pictures(*[(50, 71)] * count), 3)
    assert tracks.shape == (count, 9, 2)
    np.testing.assert_allclose(tracks, np.broadcast_to(grid(71, 50, 3), tracks.shape), atol=1e-3)


def test_a_checkpoint_that_runs_code_is_refused(store: Store, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model": Evil()}, tmp_path / "scaled_offline.pth")
    with pytest.raises(pickle.UnpicklingError):
        CoTracker3(Weights("evil", tmp_path), device="cpu").setup()
    assert not (tmp_path / "ran").exists()


def test_too_few_offline_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="offline_frames must be 16 or more, got 8"):
        CoTracker3(Weights("cotracker3", Path()), offline_frames=8)
