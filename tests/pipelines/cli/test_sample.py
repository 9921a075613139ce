"""`interavatar sample`: its words, its errors, and the way from portrait to clip."""

from __future__ import annotations

import json
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from configs.reading import SettingsError
from manifests.buckets import BucketConfig
from media.sound import read_sound
from pipelines.cli import app as cli
from pipelines.cli import sample as sample_cli
from pipelines.generation import (
    ROLES,
    Wish,
    batch_of,
    frames_of,
    portrait_of,
    touched_frame,
    untouched,
)
from pipelines.requests import load_profile, profile_roles, settings_of
from prompts.vocabulary import VOCABULARY, load_vocabulary
from tests.support.checkpoints import average_of, save, state_of
from tests.trainer.test_generate import probe
from trainer.config import TrainConfig
from trainer.generate import load_for_sampling
from trainer.networks.causal import load_causal
from trainer.networks.encoders import Encoders
from trainer.networks.load import load_backbone
from trainer.networks.tiny import model_folder

BUCKETS = {"fps": 16, "min_frames": 9, "max_frames": 25, "area": 64 * 64}


# The command's words


def test_interactions_by_their_words(tmp_path: Path) -> None:
    words = VOCABULARY
    assert sample_cli.interaction_of("poke", words) == "poked"
    for said in ("Blow-on", "blown_on"):
        assert sample_cli.interaction_of(said, words) == "blown on"
    assert sample_cli.interaction_of(None, words) is None
    assert set(words.verbs) == set(words.types)
    with pytest.raises(SettingsError, match=r"hug: choose one of kiss, caress, .*scratch, or .*vocabulary="):
        sample_cli.interaction_of("hug", words)
    (tmp_path / "mine.yaml").write_text("types: {hugged: affectionate}\nverbs: {hugged: hug}\n")
    mine = load_vocabulary(str(tmp_path / "mine.yaml"))
    assert {sample_cli.interaction_of(said, mine) for said in ("hug", "hugged")} == {"hugged"}
    assert sample_cli.interaction_of("poke", mine) == "poked"


def test_points() -> None:
    assert sample_cli.point_of("0.4, 1") == (0.4, 1.0)
    for wrong in ("0.4", "0.4,2", "a,b", "nan,0", "1,2,3", "-0.1,0"):
        with pytest.raises(SettingsError, match="write X,Y"):
            sample_cli.point_of(wrong)


@pytest.mark.parametrize(
    ("seconds", "heard", "frames"),
    [
        (None, None, 25),  # the longest in training
        (None, 1.0, 16),
        (None, 1.01, 17),  # what is said is heard to its end
        (None, 0.01, 1),
        (None, 60.0, 960),
        (1.0, 60.0, 16),
        (25 / 16, None, 25),
    ],
)
def test_lengths(seconds: float | None, heard: float | None, frames: int) -> None:
    assert frames_of(BucketConfig(**BUCKETS), seconds, heard) == frames  # type: ignore[arg-type]


def test_a_touch_is_in_the_clip() -> None:
    buckets, wish = BucketConfig(**BUCKETS), Wish(Path("a"), None, None, None, "", None, 0.5)  # type: ignore[arg-type]
    assert touched_frame(wish, buckets, 16) is None
    assert touched_frame(replace(wish, point=(0.5, 0.5)), buckets, 16) == 8
    with pytest.raises(SettingsError, match=r"--at-s 1: the clip ends at 1\.00 s"):
        touched_frame(replace(wish, point=(0.5, 0.5), at_s=1.0), buckets, 16)


def test_layers() -> None:
    assert sample_cli.layers_of("16, 8,8") == (8, 16) and sample_cli.layers_of(None) is None
    for wrong in ("", "a", "1;2"):
        with pytest.raises(SettingsError, match="write numbers of blocks"):
            sample_cli.layers_of(wrong)


def test_the_portrait_is_cut_like_a_clip() -> None:
    """A picture of 3:1 goes to the widest bucket, 16:9 (48 x 80); its point moves with the cut."""
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, 280:] = 255
    cut, point = portrait_of(picture, BucketConfig(**BUCKETS), 9, (0.5, 0.5))  # type: ignore[arg-type]
    assert cut.shape == (48, 80, 3) and point == (0.5, 0.5) and not cut.any()
    # A point at the right end moves the cut: it stays where the picture is white.
    cut, point = portrait_of(picture, BucketConfig(**BUCKETS), 9, (0.95, 0.5))  # type: ignore[arg-type]
    assert point is not None and 0.9 <= point[0] <= 1
    assert cut[24, int(point[0] * 80)].tolist() == [255, 255, 255]
    assert portrait_of(picture, BucketConfig(**BUCKETS), 9, None)[1] is None  # type: ignore[arg-type]


# From portrait to clip


def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(sample_cli.sample)
    return app


def call(*words: Any) -> Result:
    return CliRunner().invoke(command(), [str(word) for word in words])


def config_for(output: Path, **more: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "name": "test",
            "output": str(output),
            "steps": 1,
            "data": {"shards": ["none"], "buckets": BUCKETS},
            "model": {
                "random": "tiny",
                "identity_dim": 128,
                "attribute_dim": 1280,
                "audio_dim": 80,
                "gradient_checkpointing": False,
            },
        }
        | more
    )


def save_checkpoint(config: TrainConfig, embedders: dict[str, str]) -> Path:
    """As training saves one; its adapters are not zero, so that conditions show."""
    output = Path(config.output)
    folder = model_folder(config.model, output)
    torch.manual_seed(0)
    is_distilled = config.stage == "self_forcing"
    network: Any = load_causal(config, folder) if is_distilled else load_backbone(config.model, folder)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.startswith("adapters"):
                weight.normal_(std=0.3)
    return save(config, 1, state_of(network), {"embedders": embedders})


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    chosen = load_profile("laptop")
    roles = profile_roles(chosen, settings_of(chosen), tmp_path_factory.mktemp("answers"))
    return {role: getattr(roles, role).id for role in ROLES.values()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, laptop: dict[str, str]) -> Path:
    return save_checkpoint(config_for(tmp_path_factory.mktemp("run")), laptop)


def test_a_clip_of_a_portrait_that_speaks_and_is_poked(trained: Path, samples: Path, tmp_path: Path) -> None:
    portrait, speech = samples / "images" / "uniface_woman1.jpg", samples / "audio" / "whisper_jfk_en.wav"
    words: list[Any] = ["--checkpoint", trained, "--image", portrait, "--audio", speech]
    words += ["--at", "0.5,0.5", "--interaction", "poke", "--prompt", "She laughs.", "--steps", 2]
    result = call(*words, "--seconds", "1", "--output", tmp_path / "clip.mp4")
    assert result.exit_code == 0, result.output
    found = probe(tmp_path / "clip.mp4")
    width, height, rate = found["shape"]
    assert rate == 16 and found["sound"] == 48000 and found["frames"].shape == (16, height, width, 3)
    size = BucketConfig(**BUCKETS).size_of(_aspect(portrait))  # type: ignore[arg-type]
    assert (height, width) == size
    said = " ".join(result.output.split())
    assert "random weights" in said and "the first 1.00 s are used" in said
    assert f"clip.mp4: 16 frames of {width}x{height}, 1.00 s" in said

    # The newest checkpoint of the run; same seed, same clip; another seed, another.
    run_folder = trained.parents[1]
    words[1] = run_folder
    assert call(*words, "--seconds", "1", "--output", tmp_path / "again.mp4").exit_code == 0
    assert np.array_equal(probe(tmp_path / "again.mp4")["frames"], found["frames"])
    assert call(*words, "--seconds", "1", "--seed", 7, "--output", tmp_path / "other.mp4").exit_code == 0
    assert not np.array_equal(probe(tmp_path / "other.mp4")["frames"], found["frames"])


def test_a_long_sound_gives_a_long_clip(trained: Path, samples: Path, tmp_path: Path) -> None:
    """Twelve seconds in parts of 25 frames, touched at 5 s: no frame and no sample too many or too few."""
    sound = read_sound(samples / "audio" / "librispeech_woman_en.wav", 16000, 12)
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    words: list[Any] = ["--checkpoint", trained, "--image", samples / "images" / "uniface_woman1.jpg"]
    words += ["--audio", tmp_path / "long.wav", "--at", "0.5,0.5", "--interaction", "poke", "--at-s", "5"]
    words += ["--steps", 1, "--audio-guidance", 3, "--skip-guidance", 1, "--skip-layers", 1]
    result = call(*words, "--negative-prompt", "blurred", "--output", tmp_path / "clip.mp4")
    assert result.exit_code == 0, result.output
    found = probe(tmp_path / "clip.mp4")
    assert len(found["frames"]) == 12 * 16 and found["shape"][2] == 16
    assert "192 frames" in result.output and "12.00 s" in result.output
    with av.open(str(tmp_path / "clip.mp4")) as container:
        video, track = container.streams.video[0], container.streams.audio[0]
        assert float(video.duration * video.time_base) == pytest.approx(12)  # type: ignore[operator]
        assert float(track.duration * track.time_base) == pytest.approx(12, abs=0.07)  # type: ignore[operator]
    heard = read_sound(tmp_path / "clip.mp4", 16000, 20)
    shift = np.correlate(heard[8 * 16000 : 9 * 16000], sound[8 * 16000 - 800 : 9 * 16000 + 800], "valid")
    assert abs(len(shift) - 1 - int(shift.argmax()) - 800) <= 16  # in sync to a millisecond, far behind
    assert np.corrcoef(heard[: 11 * 16000], sound[: 11 * 16000])[0, 1] > 0.98


def _aspect(path: Path) -> float:
    from PIL import Image

    with Image.open(path) as image:
        return image.width / image.height


def test_the_conditions_are_those_a_shard_would_hold(trained: Path, samples: Path) -> None:
    chosen = load_profile("laptop")
    roles = profile_roles(chosen, settings_of(chosen), trained)
    ready = load_for_sampling(trained)
    portrait = samples / "images" / "uniface_woman1.jpg"
    wish = Wish(portrait, None, (0.5, 0.5), "blown on", "She laughs.", None)
    heard = read_sound(samples / "audio" / "whisper_jfk_en.wav", 16000, 1)
    warnings: list[str] = []
    batch = batch_of(wish, heard, 13, ready, roles, warnings.append)
    assert warnings == []
    assert batch.prompts == ["The person is reacting right after being blown on.\nShe laughs."]
    assert batch.video.shape[:3] == (1, 3, 1) and batch.video.dtype == torch.uint8
    assert torch.equal(batch.reference, batch.video[:, :, 0]) and batch.known.tolist() == [1]
    assert batch.identity.shape == (1, 128) and batch.attributes.shape == (1, 50, 1280)
    assert batch.audio.shape == (1, 13, 80)
    for name in ("points", "identity", "attributes", "audio", "reference"):
        assert getattr(batch, f"has_{name}").tolist() == [True], name
    # The log-mel rows in the middle of the clip are those around its 7th frame, at 6 / 16 s.
    rows = roles.audio_embedder.embed(heard, 16000)
    place = (6 / 16 - 0.0125) * 50
    low, share = int(place), place - int(place)
    expected = rows[low] * (1 - share) + rows[low + 1] * share
    assert np.abs(batch.audio[0, 6].numpy() - expected).max() < 0.02  # float16
    calm = untouched(batch, wish)
    assert calm.prompts == ["She laughs."] and not calm.has_points.any() and not calm.points.any()
    assert torch.equal(calm.identity, batch.identity) and torch.equal(calm.reference, batch.reference)
    # Without sound, touch and words.
    unsaid = replace(wish, point=None, interaction=None, prompt="")
    bare = batch_of(unsaid, None, 9, ready, roles, warnings.append)
    assert bare.prompts == [""] and not bare.has_points.any() and not bare.has_audio.any()
    assert bare.audio.shape == (1, 9, 80) and not bare.audio.any()


def test_a_portrait_without_a_face(trained: Path, samples: Path, tmp_path: Path) -> None:
    words = ["--checkpoint", trained, "--image", samples / "images" / "facealign_grass.jpg"]
    result = call(*words, "--seconds", "0.6", "--steps", 1, "--guidance", 1, "--output", tmp_path / "c.mp4")
    assert result.exit_code == 0, result.output
    assert "no face found; identity is left out" in " ".join(result.output.split())
    assert probe(tmp_path / "c.mp4")["sound"] is None


def write_cases(folder: Path, samples: Path, **prompts: str) -> Path:
    """Test cases of one portrait and two seconds of speech, by ids and their prompts."""
    sound = read_sound(samples / "audio" / "whisper_jfk_en.wav", 16000, 2)
    folder.mkdir(exist_ok=True)
    with wave.open(str(folder / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    portrait = samples / "images" / "uniface_woman1.jpg"
    (folder / "portrait.jpg").write_bytes(portrait.read_bytes())
    rows = [
        {"id": name, "reference_image": "portrait.jpg", "audio": "speech.wav", "prompt": prompt}
        for name, prompt in prompts.items()
    ]
    (folder / "cases.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder / "cases.jsonl"


def test_a_clip_of_each_test_case(trained: Path, samples: Path, tmp_path: Path) -> None:
    """Two seconds are two parts of 25 frames; the second begins with the last five of the first."""
    cases = write_cases(tmp_path / "test", samples, one="He talks.", two="She talks.")
    out = tmp_path / "clips"
    words: list[Any] = ["--checkpoint", trained, "--steps", 1, "--guidance", 1, "--seed", 3]
    made = call(*words, "--cases", cases, "--output", out)
    assert made.exit_code == 0, made.output
    assert f"{out}: 2 clips made, 0 were there, of 2 cases" in made.stdout
    assert "2 of 2  two: 32 frames of" in made.stderr
    found = probe(out / "one.mp4")
    assert len(found["frames"]) == 32 and found["sound"] == 48000
    # Each is the clip of `sample` with the same picture, sound, words and seed.
    words += ["--image", tmp_path / "test" / "portrait.jpg", "--audio", tmp_path / "test" / "speech.wav"]
    alone = call(*words, "--prompt", "She talks.", "--output", tmp_path / "alone.mp4")
    assert alone.exit_code == 0, alone.output
    assert (tmp_path / "alone.mp4").read_bytes() == (out / "two.mp4").read_bytes()

    # Made once; of changed cases and missing clips alone again.
    del words[-4:]
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    again = call(*words, "--cases", cases, "--output", out)
    assert again.exit_code == 0 and "0 clips made, 2 were there" in again.stdout
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.mp4")} == before
    write_cases(tmp_path / "test", samples, one="He talks.", two="She sings.", three="")
    more = call(*words, "--cases", cases, "--output", out)
    assert more.exit_code == 0 and "2 clips made, 1 were there, of 3 cases" in more.stdout
    assert (out / "one.mp4").stat().st_mtime_ns == before["one.mp4"]
    words[words.index("--seed") + 1] = 4
    refused = call(*words, "--cases", cases, "--output", out)
    assert refused.exit_code == 2 and "made with another seed" in " ".join(refused.output.split())


def test_a_case_that_fails_does_not_stop_the_others(trained: Path, samples: Path, tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "test", samples, broken="", gone="", whole="")
    rows = [json.loads(line) for line in cases.read_text().splitlines()]
    rows[0]["reference_image"], rows[1]["audio"] = "speech.wav", "none.wav"
    cases.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ["--checkpoint", trained, "--steps", 1, "--guidance", 1, "--cases", cases]
    done = call(*words, "--output", tmp_path / "clips")
    said = " ".join(done.stderr.split())
    assert done.exit_code == 1 and "1 clips made, 0 were there, of 3 cases" in done.stdout
    assert "error: 2 cases have no clip: broken: " in said and "not a picture" in said
    assert "gone: " in said and "none.wav" in said
    assert [path.name for path in (tmp_path / "clips").glob("*.mp4")] == ["whole.mp4"]


def test_cases_leave_no_room_for_other_wishes(trained: Path, samples: Path, tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "test", samples, one="")
    words: list[Any] = ["--checkpoint", trained, "--cases", cases, "--output", tmp_path / "clips"]

    def said(*more: Any) -> str:
        result = call(*words, *more)
        assert result.exit_code == 2 and not (tmp_path / "clips").exists(), result.output
        return " ".join(result.output.split())

    assert "leave out --audio, --prompt, --seconds" in said("--audio", "a", "--prompt", "b", "--seconds", 1)
    assert "leave out --image" in said("--image", tmp_path / "test" / "portrait.jpg")
    words[3] = tmp_path / "none.jsonl"
    assert "none.jsonl: no such file" in said()
    words[2:4] = []
    assert "give the portrait, --image, or test cases" in said()
    words += ["--cases", cases]
    words[3] = tmp_path / "clip.mp4"
    assert "with --cases the folder of all clips" in said()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.mp4").write_bytes(b"")
    words[3] = tmp_path / "other"
    assert "holds other clips" in said()


def test_wrong_use(trained: Path, samples: Path, tmp_path: Path) -> None:
    portrait = samples / "images" / "uniface_woman1.jpg"
    good: dict[str, Any] = {
        "--checkpoint": trained,
        "--image": portrait,
        "--output": tmp_path / "clip.mp4",
    }

    def said(code: int, **changes: Any) -> str:
        words = good | {f"--{name}": value for name, value in changes.items()}
        result = call(*(word for pair in words.items() for word in pair))
        assert result.exit_code == code, result.output
        assert not (tmp_path / "clip.mp4").exists()
        return " ".join(result.output.split())

    assert "--at and --interaction belong together" in said(2, at="0.5,0.5")
    assert "--at and --interaction belong together" in said(2, interaction="poke")
    assert "choose one of kiss" in said(2, at="0.5,0.5", interaction="hug")
    assert "write X,Y" in said(2, at="5,5", interaction="poke")
    assert "no such file" in said(2, image=tmp_path / "none.jpg")
    assert "no such file" in said(2, audio=tmp_path / "none.wav")
    both = said(2, image=tmp_path / "none.jpg", audio=tmp_path / "none.wav", checkpoint=tmp_path / "no")
    assert all(name in both for name in ("none.jpg: no such", "none.wav: no such", "no: nothing there"))
    assert "the clip is an .mp4" in said(2, output=tmp_path / "clip.avi")
    assert "more than 0" in said(2, seconds="-1")
    assert "at most 600" in said(2, seconds="601")
    touch = {"at": "0.5,0.5", "interaction": "poke"}
    assert "give --at and --interaction" in said(2, **{"at-s": "1"})
    assert "the clip ends at 1.56 s" in said(2, **touch, **{"at-s": "2"})
    assert "leaves out block 8, the network has 0 to 1" in said(2, **{"skip-guidance": "1"})
    assert "write numbers of blocks" in said(2, **{"skip-layers": "x"})
    assert "no profile 'none'" in said(2, profile="none")
    assert "no complete checkpoint" in said(2, checkpoint=tmp_path)
    assert "no config.json of WanTransformer3DModel" in said(1, model=tmp_path)
    (tmp_path / "bad.jpg").write_text("no picture")
    assert "not a picture" in said(1, image=tmp_path / "bad.jpg")


def test_features_of_other_embedders_are_refused(
    laptop: dict[str, str], samples: Path, tmp_path: Path
) -> None:
    other = save_checkpoint(config_for(tmp_path / "run"), laptop | {"face_embedder": "arcface"})
    portrait = samples / "images" / "uniface_woman1.jpg"
    result = call("--checkpoint", other, "--image", portrait, "--output", tmp_path / "clip.mp4")
    said = " ".join(result.output.split())
    assert result.exit_code == 2 and "its face_embedder is dlib" in said and "trained with arcface" in said


def test_features_that_training_did_not_have_are_left_out(
    laptop: dict[str, str], samples: Path, tmp_path: Path
) -> None:
    only = {"attribute_embedder": laptop["attribute_embedder"]}
    checkpoint = save_checkpoint(config_for(tmp_path / "run"), only)
    words = ["--checkpoint", checkpoint, "--image", samples / "images" / "uniface_woman1.jpg"]
    words += ["--audio", samples / "audio" / "whisper_jfk_en.wav", "--seconds", "0.6", "--steps", "1"]
    result = call(*words, "--output", tmp_path / "clip.mp4")
    said = " ".join(result.output.split())
    assert result.exit_code == 0, result.output
    assert "identity is left out: no clip in training had it" in said and "audio is left out" in said
    assert probe(tmp_path / "clip.mp4")["sound"] == 48000  # one hears it all the same


def test_a_distilled_checkpoint_takes_its_own_steps(
    laptop: dict[str, str], samples: Path, tmp_path: Path
) -> None:
    config = config_for(tmp_path / "run", stage="self_forcing", init="stage2")
    checkpoint = save_checkpoint(config, laptop)
    ready = load_for_sampling(checkpoint)
    assert ready.is_distilled
    words: list[Any] = ["--checkpoint", checkpoint, "--image", samples / "images" / "uniface_woman1.jpg"]
    words += ["--seconds", "0.6", "--output", tmp_path / "clip.mp4"]
    refused = call(*words, "--steps", 4)
    assert refused.exit_code == 2 and "distilled checkpoint has its own steps" in " ".join(
        refused.output.split()
    )
    for refused in (["--guidance", 3], ["--audio-guidance", 3], ["--skip-guidance", 1]):
        assert call(*words, *refused).exit_code == 2
    late = call(*words, "--at", "0.5,0.5", "--interaction", "poke", "--at-s", "0.5")
    assert late.exit_code == 2 and "is touched when its clip begins" in " ".join(late.output.split())
    # Longer than any clip in training: block by block, without parts.
    words[words.index("0.6")] = "2"
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert probe(tmp_path / "clip.mp4")["frames"].shape[0] == 32


def test_an_exported_folder_gives_the_same_clip(trained: Path, samples: Path, tmp_path: Path) -> None:
    made = CliRunner().invoke(cli.app, ["export-model", str(trained), "--output", str(tmp_path / "made")])
    assert made.exit_code == 0 and f"{tmp_path / 'made'}: 0.00 GB" in made.output, made.output
    words: list[Any] = [
        "--image",
        samples / "images" / "uniface_woman1.jpg",
        "--seconds",
        "0.6",
        "--steps",
        2,
    ]
    words += ["--audio", samples / "audio" / "whisper_jfk_en.wav", "--at", "0.5,0.5", "--interaction", "poke"]
    clips = []
    for name, checkpoint in (("one", trained), ("other", tmp_path / "made")):
        result = call(*words, "--checkpoint", checkpoint, "--output", tmp_path / f"{name}.mp4")
        assert result.exit_code == 0, result.output
        clips.append((tmp_path / f"{name}.mp4").read_bytes())
    assert clips[0] == clips[1]


def test_the_averaged_weights_are_sampled(trained: Path) -> None:

    ready = load_for_sampling(trained)
    assert isinstance(ready.encoders, Encoders) and not ready.is_distilled
    saved = average_of(trained)
    state = ready.model.state_dict()
    assert set(state) == set(saved) | {"position.frequencies"}
    assert all(torch.equal(state[name], saved[name]) for name in saved)
    assert not any(p.requires_grad for p in ready.model.parameters()) and not ready.model.training
