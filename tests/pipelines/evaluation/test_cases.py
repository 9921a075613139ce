"""Test cases of small trees of HDTF, CelebV-HQ and RAVDESS: what is drawn, what lies there, and going on."""

from __future__ import annotations

import json
import shutil
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from media.decode import decode
from media.requests import Audio, Frames
from pipelines.evaluation import make_cases as making
from pipelines.evaluation.cases import PROMPT, CaseError, TalkingCase, read_cases
from pipelines.evaluation.make_cases import Outcome, TestSet, make_cases
from tests.pipelines.cli.test_cli import invoke
from tests.pipelines.sources import trees
from tests.pipelines.sources.trees import Builder
from tests.support.clips import ffmpeg, make_clip


@pytest.fixture(scope="module")
def media(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wide and a square clip of a man who speaks, 2 s."""
    folder = tmp_path_factory.mktemp("media")
    source = samples / "videos" / "edtalk_obama.mp4"
    for name, scale in (("wide.mp4", "scale=320:240"), ("square.mp4", "scale=128:128")):
        ffmpeg("-t", "2", "-i", source, "-vf", f"{scale},setsar=1", "-preset", "ultrafast", folder / name)
    return folder / "wide.mp4", folder / "square.mp4"


@pytest.fixture(scope="module")
def sets(media: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    for name in ("hdtf", "celebv_hq", "ravdess"):
        getattr(trees, name)(Builder(root / name, *media))
    for number in range(1, 5):
        shutil.copy(media[0], root / "ravdess" / "Actor_12" / f"01-01-0{number}-01-01-01-12.mp4")
    return root


def asked(sets: Path, *names: str, **options: Any) -> TestSet:
    keys = {"celebv_hq": "celebv-hq"}
    return TestSet(inputs=[f"{keys.get(name, name)}:{sets / name}" for name in names], **options)


def uris(outcome: Outcome) -> set[str]:
    return {case.source_uri.rpartition("/")[2] for case in outcome.cases}


def sound_of(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def test_cases_of_three_data_sets(sets: Path, tmp_path: Path) -> None:
    made = make_cases(asked(sets, "hdtf", "celebv_hq", "ravdess"), tmp_path / "test")
    assert {source: sum(c.source == source for c in made.cases) for source in ("HDTF", "CelebV-HQ")} == {
        "HDTF": 3,  # a range of Radio11, a clip that is cut and cropped, one that is cut alone
        "CelebV-HQ": 2,
    }
    assert sum(case.source == "RAVDESS" for case in made.cases) == 5
    assert made.new == len(made.cases) == 10
    assert read_cases(tmp_path / "test" / "cases.jsonl") is not None
    listed = [json.loads(line) for line in (tmp_path / "test" / "cases.jsonl").read_text().splitlines()]
    assert listed == [case.model_dump(mode="json") for case in made.cases]
    for case in made.cases:
        assert case.prompt == PROMPT == "the person is talking"
        picture = np.asarray(Image.open(tmp_path / "test" / case.reference_image))
        assert picture.shape[1] - case.width in (0, 1) and picture.shape[0] - case.height in (0, 1)
        assert case.audio is not None and case.reference_video is not None
        real = decode(tmp_path / "test" / case.reference_video, [Frames(0.0, 4096), Audio(16000)])
        first, heard = real.frames[Frames(0.0, 4096)][1][0], real.audio[Audio(16000)]
        cut = picture[: first.shape[0], : first.shape[1]].astype(int)
        assert np.abs(cut - first).mean() < 8  # the same picture, before it was encoded
        sound = sound_of(tmp_path / "test" / case.audio)
        assert heard is not None and len(sound) / 16000 == pytest.approx(case.seconds, abs=0.05)
        length = min(len(sound), len(heard))
        assert np.corrcoef(sound[:length], heard[:length])[0, 1] > 0.95
        assert case.fps == pytest.approx(25, abs=0.01)
    for case in made.cases:
        assert case.source != "RAVDESS" or case.seconds == pytest.approx(2, abs=0.05)
    (box,) = [case for case in made.cases if "M2Ohb0FAaJU" in case.source_uri]
    assert (box.width, box.height, box.source_start_s, box.source_end_s) == (240, 180, 0.5, 1.5)
    assert box.seconds == pytest.approx(1, abs=0.05)
    assert any("HDTF publishes no window for the clip Radio12_2" in note for note in made.notes)
    assert f"celebv-hq:{sets / 'celebv_hq'}: passed over 1 clips: the file is not there" in made.notes
    assert f"ravdess:{sets / 'ravdess'}: passed over 1 clips: without sound" in made.notes
    assert f"ravdess:{sets / 'ravdess'}: passed over 1 clips: sung" in made.notes
    assert f"ravdess:{sets / 'ravdess'}: 5 cases instead of 100: there are no more" in made.notes


def test_the_draw_stays_when_files_are_added(sets: Path, media: tuple[Path, Path], tmp_path: Path) -> None:
    tree = tmp_path / "sets"
    shutil.copytree(sets / "ravdess", tree / "ravdess")
    few = asked(tree, "ravdess", sample=3)
    first = make_cases(few, tmp_path / "first")
    assert len(first.cases) == 3
    assert uris(make_cases(few, tmp_path / "same")) == uris(first)
    seeds = [
        uris(make_cases(few.model_copy(update={"seed": seed}), tmp_path / f"s{seed}")) for seed in (1, 2, 3)
    ]
    assert any(other != uris(first) for other in seeds)
    shutil.copy(media[0], tree / "ravdess" / "Actor_12" / "01-01-08-02-01-01-12.mp4")
    more = make_cases(few, tmp_path / "more")
    assert len(uris(more) & uris(first)) >= 2
    # In the same folder: what is drawn no more goes, the rest stays as it is.
    again = make_cases(few, tmp_path / "first")
    assert uris(again) == uris(more) and again.new == len(uris(more) - uris(first))
    for folder, ending in (("real", "mp4"), ("images", "png"), ("audio", "wav")):
        names = {path.name for path in (tmp_path / "first" / folder).iterdir()}
        assert names == {f"{case.id}.{ending}" for case in again.cases}


def test_another_clip_in_the_place_of_a_broken_one(sets: Path, tmp_path: Path) -> None:
    tree = tmp_path / "sets"
    shutil.copytree(sets / "ravdess", tree / "ravdess")
    few = asked(tree, "ravdess", sample=3)
    whole = make_cases(few, tmp_path / "whole")
    broken = tree / "ravdess" / whole.cases[0].source_uri.partition("/ravdess/")[2]
    broken.write_bytes(b"not a video")
    made = make_cases(few, tmp_path / "other")
    assert len(made.cases) == 3 and made.cases[0].id == whole.cases[1].id
    (said,) = [note for note in made.notes if note.startswith(f"{broken}:")]
    assert "Invalid data" in said or "not a media file" in said


def test_a_killed_command_goes_on(sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, output = asked(sets, "ravdess", sample=3), tmp_path / "test"
    write, written = making.storage.write_bytes, []

    def dies(path: Path, data: bytes, **options: Any) -> None:
        if path.parent.name == making.MADE:
            if len(written) == 1:
                raise KeyboardInterrupt
            written.append(path)
        write(path, data, **options)

    monkeypatch.setattr(making.storage, "write_bytes", dies)
    with pytest.raises(KeyboardInterrupt):
        make_cases(wanted, output)
    monkeypatch.undo()
    assert not (output / "cases.jsonl").exists()
    (output / "real" / "x-0123-01234567.tmp.mp4").write_bytes(b"half")
    done = make_cases(wanted, output)
    assert (len(done.cases), done.new) == (3, 2)
    assert {path.stem for path in (output / "real").iterdir()} == {case.id for case in done.cases}
    (output / "audio" / f"{done.cases[0].id}.wav").unlink()
    assert make_cases(wanted, output).new == 1
    assert make_cases(wanted, output).new == 0


def test_lengths_and_silence(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    make_clip(folder / "long.mp4", 3, 25, "64x48")
    make_clip(folder / "short.mp4", 0.6, 25, "64x48")
    silent = ("-f", "lavfi", "-i", "anullsrc", "-shortest")
    ffmpeg("-i", folder / "long.mp4", *silent, "-map", "0:v", "-map", "1:a", folder / "silent.mp4")
    make_clip(folder / "mute.mp4", 2, 25, "64x48", sound=False)
    wanted = TestSet(inputs=[str(folder)], max_seconds=2)
    made = make_cases(wanted, tmp_path / "test")
    (case,) = made.cases
    assert case.source_uri.endswith("long.mp4") and case.seconds == pytest.approx(2, abs=0.01)
    assert case.audio is not None and len(sound_of(tmp_path / "test" / case.audio)) == pytest.approx(
        32000, abs=640
    )
    with av.open(str(tmp_path / "test" / f"real/{case.id}.mp4")) as container:
        assert container.streams.video[0].frames == 50
    assert sorted(note.rpartition(": ")[2] for note in made.notes[:3]) == [
        "shorter than 1 s",
        "silent",
        "without sound",
    ]


def test_a_folder_of_something_else(sets: Path, tmp_path: Path) -> None:
    wanted = asked(sets, "ravdess", sample=1)
    make_cases(wanted, tmp_path / "test")
    with pytest.raises(CaseError, match=r"was made with sample 1, seed 0; give another --output"):
        make_cases(wanted.model_copy(update={"sample": 2, "seed": 1}), tmp_path / "test")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(CaseError, match="holds something else"):
        make_cases(wanted, tmp_path / "other")
    twice = wanted.model_copy(update={"inputs": wanted.inputs * 2, "sample": 5})
    with pytest.raises(CaseError, match="is in another input, too"):
        make_cases(twice, tmp_path / "twice")


def test_reading_cases(tmp_path: Path) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text('{"id": "a", "reference_image": "a.png", "objects": ["cup"]}\n\n')
    (case,) = read_cases(file)
    assert (case.id, case.audio, case.prompt) == ("a", None, "")
    assert case.model_dump()["objects"] == ["cup"]
    file.write_text('{"id": "a", "reference_image": "a.png", "prompt": "one\u2028line"}\n', encoding="utf-8")
    assert read_cases(file)[0].prompt == "one\u2028line"
    line = '{"id": "a", "reference_image": "a.png"}\n'
    for text, said in (
        ("", "there is no test case in it"),
        (line + line, "line 2: a stands there twice"),
        ('{"id": "../a", "reference_image": "a.png"}\n', "line 1: id: "),
        ('{"id": "a"}\n', "line 1: reference_image: "),
        ("no json\n", "line 1: Invalid JSON"),
    ):
        file.write_text(text)
        with pytest.raises(CaseError, match=said):
            read_cases(file)


def test_the_command(sets: Path, tmp_path: Path) -> None:
    words = ("benchmark", "talking", "--input", f"ravdess:{sets / 'ravdess'}", "--output", tmp_path / "test")
    done = invoke(*words, "--sample", 2, "--prompt", "She sings.")
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'test' / 'cases.jsonl'}: 2 cases, 2 of them new" in done.stdout
    assert {case.prompt for case in read_cases(tmp_path / "test" / "cases.jsonl")} == {"She sings."}
    again = invoke(*words, "--sample", 2, "--prompt", "She sings.")
    assert "2 cases, 0 of them new" in again.stdout
    refused = invoke(*words, "--sample", 3)
    assert refused.exit_code == 2 and "was made with sample 2, prompt She sings." in refused.stderr
    nowhere = invoke("benchmark", "talking", "--input", "hdtf:gone", "--output", tmp_path / "no")
    assert nowhere.exit_code == 2 and "no such folder: gone" in nowhere.stderr


def test_a_case_is_closed_to_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="extra"):
        TalkingCase.model_validate({"id": "a", "reference_image": "b", "unknown": 1})
