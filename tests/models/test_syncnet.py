"""SyncNet: sound and crops by hand-computed values, the score against another way to compute it."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backends.faces.face_detector import DetectedFaces
from backends.sound.lip_sync import LipSyncScore, MouthEnvelopeCorrelation, MouthTrack
from backends.sound.syncnet import SyncNetScorer, build_net, crops, judged, mfcc, shifted_distances, stretches
from backends.store.weights import Weights
from benchmarks import precision
from media.decode import decode
from stages.clip import Clip
from stages.lip_sync import LipSync
from tests.models.tiny_audio import BUILDERS

RATE = 16000
EPS = np.log(np.finfo(float).eps)  # what no energy at all is written as
# Convolutions and linear layers of the public file; each but the last of a head has a batch norm behind it.
SHAPES = {
    "netcnnaud.0": (64, 1, 3, 3),
    "netcnnaud.4": (192, 64, 3, 3),
    "netcnnaud.8": (384, 192, 3, 3),
    "netcnnaud.11": (256, 384, 3, 3),
    "netcnnaud.14": (256, 256, 3, 3),
    "netcnnaud.18": (512, 256, 5, 4),
    "netfcaud.0": (512, 512),
    "netfcaud.3": (1024, 512),
    "netfclip.0": (512, 512),
    "netfclip.3": (1024, 512),
    "netcnnlip.0": (96, 3, 5, 7, 7),
    "netcnnlip.4": (256, 96, 1, 5, 5),
    "netcnnlip.8": (256, 256, 1, 3, 3),
    "netcnnlip.11": (256, 256, 1, 3, 3),
    "netcnnlip.14": (256, 256, 1, 3, 3),
    "netcnnlip.18": (512, 256, 1, 6, 6),
}


@pytest.fixture(scope="module")
def syncnet(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    folder = tmp_path_factory.mktemp("syncnet")
    BUILDERS["syncnet"](folder)
    return Weights("syncnet", folder, "0123abcd", is_random=True)


def state_of(model: Weights) -> dict[str, Any]:
    return dict(torch.load(model.file("syncnet_v2.model"), weights_only=True))


def saved(folder: Path, state: Any) -> Weights:
    torch.save(state, folder / "syncnet_v2.model")
    return Weights("syncnet", folder)


def talker(count: int) -> tuple[MouthTrack, np.ndarray]:
    """A face whose brightness follows a random walk, and noise as loud as it is bright."""
    rng = np.random.default_rng(0)
    level = np.repeat(rng.uniform(0.1, 1, count // 3 + 2), 3)[:count]
    images = [np.full((90, 120, 3), 40 + round(180 * v), np.uint8) for v in level]
    boxes = np.tile(np.array([0.3, 0.2, 0.6, 0.7], np.float32), (count, 1))
    samples = np.repeat(level, RATE // 25) * rng.normal(0, 0.1, count * RATE // 25)
    return MouthTrack(np.arange(count) / 25, np.zeros(count, np.float32), images, boxes), samples.astype("f4")


def test_mfcc_of_silence_and_of_one_sample() -> None:
    """No energy: the logarithm of the least number, and no other cepstrum, as all bands are alike.

    One sample of height A becomes A and -0.97 A; its power spectrum, A^2 (1 + 0.97^2 - 1.94 cos w) / 512,
    adds up to 257 (1 + 0.97^2) A^2 / 512 over the 257 bins, since the cosines cancel.
    """
    silence = mfcc(np.zeros(1200, np.float32))
    assert silence.shape == (6, 13)
    np.testing.assert_allclose(silence, np.tile([EPS, *[0] * 12], (6, 1)), atol=1e-9)
    sound = np.zeros(1600, np.float32)
    sound[1000] = 0.5
    found = mfcc(sound)
    energy = np.log(16384**2 * 257 * (1 + 0.97**2) / 512)
    # Windows begin every 160 samples and hold 400: those at 640, 800 and 960 hold sample 1000.
    np.testing.assert_allclose(found[:, 0], [*[EPS] * 4, *[energy] * 3, *[EPS] * 2], atol=1e-9)


def test_mfcc_as_python_speech_features_computes_them() -> None:
    """Rows 0 and 5 of `mfcc(x, 16000)` of python_speech_features 0.6."""
    n = np.arange(1200)
    whole = (3000 * np.sin(n**2 / 9000) + 500 * np.sin(n / 3)).round()
    found = mfcc((whole / 32768).astype(np.float32))
    first = [15.56929, 32.498251, 10.134447, -5.817769, -2.184214, 16.157559, 29.430995]
    first += [19.812707, -6.486762, -30.333483, -32.035658, -15.393221, 4.374774]
    last = [17.675973, 24.353481, -1.850214, -25.655406, -34.204177, -23.658486, -2.319992]
    last += [13.494959, 16.737156, 9.847349, 2.475341, -1.088384, -1.474819]
    np.testing.assert_allclose(found[[0, 5]], [first, last], atol=1e-5)


@pytest.mark.parametrize(("length", "rows"), [(1, 1), (400, 1), (401, 2), (560, 2), (16000, 99)])
def test_number_of_mfcc(length: int, rows: int) -> None:
    assert mfcc(np.ones(length, np.float32)).shape == (rows, 13)


@pytest.mark.parametrize(("width", "height"), [(321, 243), (200, 160)])
def test_crops_show_the_right_place(width: int, height: int) -> None:
    """A picture that says where each pixel is: red is x, green y. Crops begin at whole pixels."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x / 2, y / 2, np.full_like(x, 200)], -1).round().astype(np.uint8)
    box = np.array([[0.4, 0.35, 0.6, 0.65]], np.float32)
    (crop,) = crops([image], box, 0.4, 13)
    half = max(0.2 * width, 0.3 * height) / 2
    left, top = width / 2 - 1.4 * half, height / 2 - half
    scale = 2.8 * half / 224
    for row, column in ((40, 40), (112, 112), (200, 30), (180, 210)):
        blue, green, red = crop[row, column].astype(float)
        assert 2 * red == pytest.approx(left + (column + 0.5) * scale - 0.5, abs=3)
        assert 2 * green == pytest.approx(top + (row + 0.5) * scale - 0.5, abs=3)
        assert blue == 200


def test_crops_are_grey_outside_and_smooth() -> None:
    image = np.full((100, 100, 3), 255, np.uint8)
    corner = np.tile(np.array([0.75, 0.75, 1.0, 1.0], np.float32), (20, 1))
    found = crops([image] * 20, corner, 0.4, 13)
    # 35 pixels from 70, 75 on: the frame ends after 30 columns and 25 rows of them, 6.4 pixels each.
    assert (found[0][:152, :184] == 255).all()
    assert (found[0][168:] == 110).all() and (found[0][:, 200:] == 110).all()
    jumpy = corner.copy()
    jumpy[8:12] = [0.1, 0.1, 0.9, 0.9]  # four frames of 13 do not move the median
    for a, b in zip(found, crops([image] * 20, jumpy, 0.4, 13), strict=True):
        np.testing.assert_array_equal(a, b)


def test_stretches_at_25_frames_a_second() -> None:
    seen = np.tile(np.array([0.1, 0.1, 0.5, 0.5], np.float32), (60, 1))
    boxes = seen.copy()
    boxes[20:26] = np.nan
    (first, index, _), (second, later, shown) = stretches(np.arange(60) / 30, boxes)
    assert first == 0.0 and len(index) == 17  # frames 0 to 19 at 30 a second last 0.65 s
    assert second == pytest.approx(22 / 25) and later[:3] == [26, 28, 29] and later[-1] == 59
    assert np.isfinite(shown).all()
    ((_, doubled, _),) = stretches(np.arange(10) / 12.5, seen[:10])
    assert doubled[0] == 0 and doubled[-1] == 9 and len(doubled) == 19
    assert len(stretches(np.array([0.0, 0.04, 0.08, 1.0, 1.04]), seen[:5])) == 2  # nothing to show in between
    assert stretches(np.zeros(0), seen[:0]) == [] and len(stretches(np.zeros(1), seen[:1])) == 1
    flat = np.tile(np.array([0.5, 0.5, 0.5, 0.6], np.float32), (9, 1))
    assert stretches(np.arange(9) / 25, flat) == []


@pytest.mark.parametrize("late", [-4, 0, 3])
def test_the_sign_of_the_offset(late: int) -> None:
    lips = np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32)
    distances = shifted_distances(lips, np.roll(lips, late, axis=0), 15)
    assert distances.shape == (60, 31)
    found = judged(distances)
    assert found.offset_s == pytest.approx(late / 25) and found.confidence > 2
    assert found.distance == pytest.approx(distances.mean(0).min())
    # The public program prints 15 - argmin of the same 31 mean distances.
    assert 15 - int(distances.mean(0).argmin()) == -late
    assert distances[0, 0] == pytest.approx(np.linalg.norm(lips[0]))  # zeros before the sound begins
    assert judged(np.array([[3.0, 1.0, 2.0]], np.float32)) == LipSyncScore(0.0, 1.0, distance=1.0)


def test_architecture_is_that_of_the_public_weights() -> None:
    state = build_net().state_dict()
    weights = {name: tuple(value.shape) for name, value in state.items() if value.ndim > 1}
    assert weights == {f"{name}.weight": shape for name, shape in SHAPES.items()}
    # The public file has 54,573,114 bytes; what is over the weights' own are names and sizes.
    assert sum(value.numel() * value.element_size() for value in state.values()) == 54_561_136


def test_what_is_no_syncnet_is_refused(syncnet: Weights, tmp_path: Path) -> None:
    state = state_of(syncnet)
    counters = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    SyncNetScorer(saved(tmp_path, counters), device="cpu").setup()  # as files of old torch versions are
    for wrong in ({**state, "more": torch.zeros(1)}, {"netfcaud.0.weight": torch.zeros(512, 512)}):
        with pytest.raises(ValueError, match="not SyncNet"):
            SyncNetScorer(saved(tmp_path, wrong), device="cpu").setup()
    with pytest.raises(ValueError, match="not SyncNet"):
        SyncNetScorer(saved(tmp_path, {**state, "netfcaud.0.bias": torch.zeros(3)}), device="cpu").setup()
    with pytest.raises(pickle.UnpicklingError):
        SyncNetScorer(saved(tmp_path, {"net": Path("code")}), device="cpu").setup()
    with pytest.raises(FileNotFoundError):
        SyncNetScorer(Weights("syncnet", tmp_path / "none"), device="cpu").setup()


def test_score_computed_another_way(syncnet: Weights) -> None:
    """The lip tower has no padding in time: run once over the clip it gives all windows at once."""
    track, sound = talker(50)
    found = SyncNetScorer(syncnet, device="cpu", batch=7).score(track, sound, RATE)
    net = build_net()
    net.load_state_dict(state_of(syncnet))
    net.eval()
    assert track.images is not None and track.boxes is not None
    faces = np.stack(crops(list(track.images), track.boxes, 0.4, 13))
    with torch.inference_mode():
        whole = torch.from_numpy(faces).permute(3, 0, 1, 2)[None].float()
        lips = net["netfclip"](net["netcnnlip"](whole)[0, :, :45, 0, 0].T)
        cepstra = torch.from_numpy(mfcc(sound)).float()
        heard = torch.stack([cepstra[4 * i : 4 * i + 20].T[None] for i in range(45)])
        sounds = net["netfcaud"](net["netcnnaud"](heard).flatten(1))
    padded = torch.cat([torch.zeros(15, 1024), sounds, torch.zeros(15, 1024)])
    mean = torch.stack([(lips - padded[j : j + 45]).norm(dim=1).mean() for j in range(31)])
    assert found is not None and found.correlation is None
    assert found.confidence == pytest.approx(float(mean.median() - mean.min()), abs=1e-4)
    assert found.offset_s == (int(mean.argmin()) - 15) / 25


def fitted(syncnet: Weights, folder: Path, track: MouthTrack, sound: np.ndarray) -> SyncNetScorer:
    """A scorer of which both towers tell the loudness: the last layers are fitted to it."""
    scorer = SyncNetScorer(syncnet, device="cpu")
    scorer.setup()
    seen: dict[str, list[torch.Tensor]] = {"netfclip": [], "netfcaud": []}
    for name, features in seen.items():
        scorer._net[name][2].register_forward_hook(lambda _, __, out, to=features: to.append(out))
    scorer.score(track, sound, RATE)
    level = np.array([np.abs(sound[i * 640 : i * 640 + 3200]).mean() for i in range(75)])
    wanted = torch.from_numpy((level - level.mean()) / level.std()).float()[:, None]
    state = state_of(syncnet)
    for name, features in seen.items():
        known = torch.cat(features).double()
        known = torch.cat([known - known.mean(0), torch.ones(75, 1)], 1)
        shift = torch.cat(features).double().mean(0)
        solved = torch.linalg.solve(known.T @ known + 1e-9 * torch.eye(513), known.T @ wanted.double())
        weight = torch.zeros(1024, 512)
        weight[0] = solved[:512, 0]
        state[f"{name}.3.weight"] = weight
        state[f"{name}.3.bias"] = torch.zeros(1024)
        state[f"{name}.3.bias"][0] = solved[512, 0] - solved[:512, 0] @ shift
    return SyncNetScorer(saved(folder, state), device="cpu")


def test_both_scorers_agree_on_sign_and_zero_of_the_offset(syncnet: Weights, tmp_path: Path) -> None:
    """Moved sound is found, and the laptop's scorer says the same of an opening that is the brightness."""
    track, sound = talker(80)
    assert track.images is not None
    scorer = fitted(syncnet, tmp_path, track, sound)
    opening = np.array([image.mean() for image in track.images], np.float32) / 2550
    for late in (0, 5, -3):
        moved = np.roll(sound, late * 640)
        found = scorer.score(track, moved, RATE)
        assert found is not None
        assert found.offset_s == pytest.approx(late / 25) and found.confidence > 0.5
        other = MouthEnvelopeCorrelation().score(MouthTrack(track.times, opening), moved, RATE)
        assert other is not None and other.offset_s == pytest.approx(late / 25, abs=0.02)


def test_stretches_are_scored_apart_and_together(syncnet: Weights) -> None:
    scorer = SyncNetScorer(syncnet, device="cpu", min_seconds=0.4)
    track, sound = talker(26)
    assert track.boxes is not None and track.images is not None
    track.boxes[12:14] = np.nan
    found = scorer.score(track, sound, RATE)
    parts = [
        scorer._distances(list(track.images[a : a + 12]), track.boxes[a : a + 12], sound[a * 640 :])
        for a in (0, 14)
    ]
    assert [len(part) for part in parts] == [7, 7]
    assert found == judged(np.concatenate(parts))
    with ThreadPoolExecutor(3) as pool:  # windows of several threads share batches
        for other in pool.map(lambda _: scorer.score(track, sound, RATE), range(3)):
            assert other is not None and found is not None
            assert other.offset_s == found.offset_s
            assert other.confidence == pytest.approx(found.confidence, abs=1e-5)


def test_half_precision_changes_little(syncnet: Weights) -> None:
    """Random towers: of the spread of distances over shifts, from which confidence and offset follow."""
    found = precision.syncnet(syncnet, "cpu", seconds=2.0)
    assert set(found) == {"float16", "bfloat16"}
    assert 0 < found["float16"].largest < 0.05
    assert found["float16"].mean < found["bfloat16"].mean < 0.5
    half = SyncNetScorer(syncnet, precision="float16")
    assert half.id.endswith(", float16)") and half.id != SyncNetScorer(syncnet).id
    with pytest.raises(ValueError, match="no precision 'half'"):
        SyncNetScorer(syncnet, precision="half")  # type: ignore[arg-type]


def test_too_little_to_tell(syncnet: Weights) -> None:
    scorer = SyncNetScorer(syncnet, device="cpu")
    track, sound = talker(60)
    assert track.boxes is not None
    assert scorer.score(track, sound[: RATE * 3 // 2], RATE) is None
    assert scorer.score(track, np.zeros(0, np.float32), RATE) is None
    track.boxes[::40] = np.nan  # two stretches of 39 and 19 frames
    assert scorer.score(track, sound, RATE) is None
    track.boxes[:] = np.nan
    assert scorer.score(track, sound, RATE) is None
    with pytest.raises(ValueError, match="16000"):
        scorer.score(track, sound, 8000)
    with pytest.raises(ValueError, match="pictures"):
        scorer.score(MouthTrack(track.times, track.opening), sound, RATE)
    with pytest.raises(ValueError, match="smooth"):
        SyncNetScorer(syncnet, smooth=4)


def test_names(syncnet: Weights) -> None:
    scorer = SyncNetScorer(syncnet)
    assert pickle.loads(pickle.dumps(scorer)).id == scorer.id
    assert scorer.method == "stand_in_random_syncnet" and scorer.picture_fps == 25.0
    assert SyncNetScorer(Weights("syncnet", syncnet.folder)).method == "syncnet"
    assert str(syncnet.folder) not in scorer.id and "0123abcd" in scorer.id
    assert SyncNetScorer(syncnet, device="cpu", batch=2).id == scorer.id
    assert SyncNetScorer(syncnet, max_shift=10).id != scorer.id


class Here:
    """A detector that knows where the face is."""

    id = "here"

    def setup(self) -> None: ...

    def detect(self, image: np.ndarray) -> DetectedFaces:
        box = np.array([[0.36, 0.2, 0.64, 0.7]], np.float32)
        return DetectedFaces(box, np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32))


def test_stage_on_a_real_clip(syncnet: Weights, samples: Path) -> None:
    stage = LipSync(SyncNetScorer(syncnet, device="cpu"), Here())
    seen = decode(samples / "videos" / "latentsync_man_en.mp4", stage.sees, 0.0, 2.5)
    times = np.array([0.0, 2.5])
    arrays = {
        "mouth_times": times,
        "mouth_opening": np.array([0.02, 0.05], np.float32),
        "speech_times": np.array([[0.0, 2.5]], np.float32),
        "face_times": np.arange(6) / 2,
        "face_boxes": np.tile(np.array([0.35, 0.2, 0.65, 0.7], np.float32), (6, 1)),
    }
    out = stage.score(Clip(row={}, decoded=seen, arrays=arrays))
    assert out["lip_sync_by"] == "stand_in_random_syncnet" and out["lip_sync_correlation"] is None
    assert abs(out["av_offset_s"]) <= 0.6 and 0 <= out["lip_sync_confidence"] < 1
