"""People of a collection: kept, joined and told apart as docs/collections.md says; and real faces."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from backends.faces.face_detector import CenterFace
from backends.faces.face_embedder import DlibFaceEmbedder
from backends.pictures.image_embedder import EfficientNetLite
from manifests import store
from manifests.screen import EVERYTHING, Rule
from pipelines.cli import app as cli
from pipelines.collection import people as ours
from pipelines.collection.linkage import Groups, unit
from pipelines.collection.people import THRESHOLDS, People, find_people
from pipelines.collection.runs import open_collection, write_found
from pipelines.engine.source import InputError
from stages.consistency import Consistency
from stages.faces import Faces
from tests.support.clips import ffmpeg
from tests.support.helpers import execute
from tests.support.people_runs import RANKED, pair_figures, partition, people_run, rows_of, vectors

T = 0.8
COLUMNS = ("person_id", "person_similarity", "person_rank")
Clips = dict[str, dict[str, Any]]


def clips_of(people: int, clips: int, begin: int = 0, of: int = 8, **columns: Any) -> Clips:
    """Clips named PERSON_NUMBER, of each person those from `begin` on."""
    found = vectors(people, of).reshape(people, of, -1)
    return {
        f"{chr(97 + p)}_{n}": {"vector": found[p, n], **columns}
        for p in range(people)
        for n in range(begin, begin + clips)
    }


def people_of(*runs: Path | str, again: bool = False) -> People:
    """Find the people of these runs and write them into the runs."""
    opened = open_collection([str(run) for run in runs])
    found = find_people(opened, T, again)
    write_found(opened, found.found)
    return found


def invoke(*arguments: Any) -> Any:
    done = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(
        cli.app, [str(a) for a in arguments]
    )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_people_of_two_runs_whatever_the_order(tmp_path: Path) -> None:
    one = people_run(tmp_path / "one", clips_of(4, 3))
    two = people_run(tmp_path / "two", clips_of(5, 3, begin=3) | {"z": {"vector": None}})
    found = people_of(one, two)
    persons = rows_of(one, "person_id") | rows_of(two, "person_id")
    assert persons.pop("z") is None
    assert partition(persons.values(), persons) == partition([n[0] for n in persons], persons)
    assert found.people["clips"].to_pylist() == [6, 6, 6, 6, 3]
    assert sorted(found.people["runs"].to_pylist()) == [["one", "two"]] * 4 + [["two"]]
    assert found.without == {"no face found": 1} and found.rows == 28
    assert rows_of(two, *COLUMNS)["z"] == (None, None, None)
    similarity = rows_of(one, "person_similarity")
    assert all(0.9 < value <= 1 for value in similarity.values())
    clips = clips_of(4, 3) | clips_of(5, 3, begin=3)
    own = unit(np.stack([clip["vector"] for name, clip in clips.items() if name[0] == "a"]))
    assert similarity["a_0"] == pytest.approx(float(own[0] @ unit(own.mean(0)[None])[0]), abs=1e-5)
    assert found.quality.astray == 0 and found.quality.within is not None
    assert found.quality.between is not None and found.quality.within > 0.9 > 0.6 > found.quality.between
    again = find_people(open_collection([str(two), str(one)]), T, again=True)
    ids = {(row["sample_id"], row["person_id"]) for row in found.found.to_pylist()}
    assert ids == {(row["sample_id"], row["person_id"]) for row in again.found.to_pylist()}


def test_only_clips_with_one_face_count(tmp_path: Path) -> None:
    clips = clips_of(1, 6)
    clips["a_0"]["people"], clips["a_1"]["tall"], clips["a_2"]["vector"] = 2, -1.0, np.zeros(32)
    run = people_run(tmp_path / "run", clips)
    found = people_of(run)
    assert {n for n, person in rows_of(run, "person_id").items() if person} == {"a_3", "a_4", "a_5"}
    assert found.without == {
        "several people at once": 1,
        "stopped or in error": 1,
        "no face found": 1,
    }
    said = invoke("people", run, "--threshold", T)
    assert said.exit_code == 0
    assert re.search(r"1 people in 3 clips; of 6 rows 3 have none: 1 several", said.stdout)


def test_a_person_stays_the_same_when_rows_come(tmp_path: Path) -> None:
    some = {name: clip for name, clip in clips_of(4, 4, begin=2).items() if name[0] in "bc"}
    run = people_run(tmp_path / "run", some)
    people_of(run)
    before = rows_of(run, "person_id")
    more = clips_of(4, 8)
    people_run(run, more)
    assert {n: p for n, p in rows_of(run, "person_id").items() if n in before} == before
    found = people_of(run)
    after = rows_of(run, "person_id")
    assert {n: p for n, p in after.items() if n in before} == before
    assert partition(after.values(), after) == partition([n[0] for n in after], after)
    assert not found.alike
    changed = rows_of(run, *COLUMNS)
    people_of(run)
    assert rows_of(run, *COLUMNS) == changed


def test_people_of_before_are_never_joined_but_told(tmp_path: Path) -> None:
    """Two clips far apart are two people; what lies between them shows that they are one."""
    angles = {"left": 0, "right": 50, "m1": 20, "m2": 25, "m3": 30}
    at = {n: {"vector": [np.cos(np.deg2rad(a)), np.sin(np.deg2rad(a))]} for n, a in angles.items()}
    run = people_run(tmp_path / "run", {n: at[n] for n in ("left", "right")})
    people_of(run)
    before = rows_of(run, "person_id")
    assert before["left"] != before["right"]
    people_run(run, at)
    found = people_of(run)
    after = rows_of(run, "person_id")
    assert {n: after[n] for n in before} == before and len(set(after.values())) == 2
    assert [set(pair) for pair in found.alike] == [set(before.values())]
    said = invoke("people", run, "--threshold", T)
    assert "could be one person (--again forms all people anew)" in said.stderr
    assert len(people_of(run, again=True).people) == 1
    assert set(rows_of(run, "person_id").values()) != set(before.values())


def test_names_of_a_data_set_go_before_faces(tmp_path: Path) -> None:
    clips = clips_of(3, 4, source="set")
    for name, clip in clips.items():
        clip["identity"] = {"a": "Ann", "b": "Ben"}.get(name[0])
    clips["b_0"]["identity"], clips["a_3"]["identity"] = "Ann", "Eve"  # a face of Ben's, one like Ann's
    clips["a_2"]["identity"] = None
    run = people_run(tmp_path / "run", clips)
    found = people_of(run)
    persons = rows_of(run, "person_id")
    assert persons["b_0"] == persons["a_0"] == persons["a_1"] != persons["b_1"]
    assert persons["a_3"] not in {persons["a_0"], persons["b_1"]}
    assert found.unlike == [("set", "Ann")]
    identities = dict(
        zip(*found.people.select(["person_id", "identities"]).to_pydict().values(), strict=True)
    )
    assert identities[persons["a_3"]] == ["set: Eve"]
    # The names of one set say nothing of another's people.
    other = {n: clip | {"source": "other", "identity": "Ann"} for n, clip in clips_of(3, 1, begin=5).items()}
    both = people_run(tmp_path / "both", {n: c for n, c in other.items() if n[0] == "c"})
    people_of(run, both)
    assert rows_of(both, "person_id")["c_5"] == persons["c_0"]


def test_names_that_come_later_are_told_where_they_do_not_fit(tmp_path: Path) -> None:
    run = people_run(tmp_path / "run", clips_of(2, 3, source="set"))
    people_of(run)
    named = {n: c | {"identity": "One"} for n, c in clips_of(2, 1, source="set").items()}
    two = people_run(
        tmp_path / "two", named | {"new": {"vector": -vectors(1, 1)[0], "source": "set", "identity": "One"}}
    )
    found = people_of(run, two)
    assert found.torn == [("set", "One")]
    before, after = rows_of(run, "person_id"), rows_of(two, "person_id")
    assert (after["a_0"], after["b_0"]) == (before["a_0"], before["b_0"])
    assert after["new"] == min(before.values())
    named["a_0"]["identity"] = "Other"
    named["a_1"] = clips_of(2, 2, source="set")["a_1"] | {"identity": "One"}
    three = people_run(tmp_path / "three", {n: named[n] for n in ("a_0", "a_1")})
    assert find_people(open_collection([str(run), str(three)]), T).mixed == [before["a_0"]]


def test_ranks_are_those_of_the_kept_clips_and_a_rule_on_them_changes_nothing(tmp_path: Path) -> None:
    clips = clips_of(2, 6)
    for number, (name, clip) in enumerate(clips.items()):
        clip["tall"] = float(name[-1]) * 10 + number / 100
    clips["a_5"]["seconds"] = 0.5  # the largest face; falls for another reason
    run = people_run(tmp_path / "run", clips, RANKED)
    people_of(run)
    ranks = rows_of(run, "person_rank", "keep")
    assert [ranks[f"a_{n}"] for n in range(6)] == [
        (5, False), (4, False), (3, False), (2, True), (1, True), (None, False),
    ]  # fmt: skip
    assert [ranks[f"b_{n}"][0] for n in range(6)] == [6, 5, 4, 3, 2, 1]
    reasons = rows_of(run, "drop_reasons")
    assert reasons["a_0"] == ["too_often"] and reasons["a_5"] == ["too_short"] and reasons["b_5"] == []
    files = {path: path.stat().st_mtime_ns for path in (run / "manifest").glob("*.parquet")}
    found = people_of(run)
    assert rows_of(run, "person_rank", "keep") == ranks
    assert {path: path.stat().st_mtime_ns for path in (run / "manifest").glob("*.parquet")} == files
    assert found.people["kept"].to_pylist() == [6, 5]


def test_a_rule_on_likeness_frees_its_ranks(tmp_path: Path) -> None:
    clips = clips_of(1, 6)
    for number, clip in enumerate(clips.values()):
        clip["tall"] = float(number)
    clips["a_5"]["vector"] = unit((clips["a_4"]["vector"] + 0.5 * vectors(2, 1, seed=9)[1])[None])[0]
    rule = Rule(reason="unlike", column="person_similarity", min=0.93, missing="pass")
    screen = RANKED.model_copy(update={"rules": [*RANKED.rules, rule]})
    run = people_run(tmp_path / "run", clips, screen)
    people_of(run)
    ranks = rows_of(run, "person_rank")
    assert ranks["a_5"] is None and ranks["a_4"] == 1
    people_of(run)
    assert rows_of(run, "person_rank") == ranks


def test_a_sample_of_two_runs_is_one_person(tmp_path: Path) -> None:
    clips = clips_of(2, 2)
    one, two = people_run(tmp_path / "one", clips), people_run(tmp_path / "two", clips)
    people_of(one)
    assert people_of(one, two).people["clips"].to_pylist() == [2, 2]
    assert rows_of(one, "person_id") == rows_of(two, "person_id")
    assert {rank for rank, _ in rows_of(one, "person_rank", "keep").values()} == {1, 3}
    assert {rank for rank, _ in rows_of(two, "person_rank", "keep").values()} == {2, 4}


def test_the_table_of_people(tmp_path: Path) -> None:
    clips = clips_of(2, 3, gender="woman", source="set", seconds=4.0)
    clips["b_1"]["gender"] = "man"  # a source that contradicts itself says nothing
    run = people_run(tmp_path / "run", clips)
    said = invoke("people", f"named={run}", "--threshold", T, "--output", tmp_path / "people.parquet")
    assert said.exit_code == 0, said.output
    table = pq.read_table(tmp_path / "people.parquet")
    assert table.schema.equals(ours.PEOPLE_SCHEMA)
    persons = rows_of(run, "person_id")
    rows = {row["person_id"]: row for row in table.to_pylist()}
    one, other = rows[persons["a_0"]], rows[persons["b_0"]]
    assert (one["gender"], other["gender"]) == ("woman", None)
    assert one["clips"] == one["kept"] == 3 and one["seconds"] == 12.0 and one["runs"] == ["named"]
    assert one["nearest_person"] == other["person_id"]
    assert one["nearest_likeness"] == pytest.approx(other["nearest_likeness"], abs=1e-6)
    assert 0.8 < one["likeness"] < one["likeness_min"] < 1
    assert "named: kept 6 of 6" in said.stdout and "clips of a person: median 3, most 3" in said.stdout
    assert re.search(rf"{one['person_id']}\s+3\s+3\s+0\.2\s+woman\s+set", said.stdout)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    clips = clips_of(1, 2)
    run = people_run(tmp_path / "run", clips)
    other = people_run(tmp_path / "other", clips_of(1, 2, embedder="arcface(x)"))
    empty = people_run(tmp_path / "empty", {n: c | {"people": 3} for n, c in clips_of(1, 2).items()})
    with pytest.raises(InputError, match=r"run are embedded by toy, of other by arcface\(x\), which do not"):
        find_people(open_collection([str(run), str(other)]), T)
    with pytest.raises(InputError, match=r"not known how like .* by toy: .* give --threshold"):
        find_people(open_collection([str(run)]))
    with pytest.raises(InputError, match="no clip of empty has the embedding"):
        find_people(open_collection([str(empty)]))
    assert find_people(open_collection([str(other)])).threshold == THRESHOLDS["arcface("]
    assert rows_of(run, "keep") == {"a_0": True, "a_1": True}


def test_damaged_arrays_are_told_and_change_nothing(tmp_path: Path) -> None:
    run = people_run(tmp_path / "run", clips_of(2, 3))
    people_of(run)
    before = rows_of(run, *COLUMNS)
    (pack,) = (run / "features").rglob("*.pack")
    whole = pack.read_bytes()
    pack.write_bytes(whole[: len(whole) - 10])
    said = invoke("people", run, "--threshold", T)
    assert said.exit_code == 1 and f"`interavatar repair {run} --arrays` says what is lost" in said.stderr
    pack.unlink()
    assert invoke("people", run, "--threshold", T).exit_code == 1
    assert rows_of(run, *COLUMNS) == before


# Who is in the samples, by eye: what has one name shows one person. A clip counts once for every 3 s of it.
VIDEOS = {
    "edtalk_obama.mp4": "obama",
    "hellomeme_man_subtitles.mp4": "man in black, grey hair",
    "intel_asl_book.mkv": "woman who signs",
    "intel_asl_brother.mkv": "man who signs",
    "intel_asl_learn.mkv": "woman who signs",
    "latentsync_man_en.mp4": "man, grey wall",
    "latentsync_man_pt.mp4": "man, beard, kitchen",
    "latentsync_woman_ru.mp4": "woman, long hair",
    "liveportrait_man_outdoor_zh.mp4": "man outdoors",
    "liveportrait_man_selfie_noaudio.mp4": "man, glasses, selfie",
    "liveportrait_woman_lake.mp4": "woman at a lake",
    "pyfeat_woman_emotions.mp4": "woman who cries and laughs",
    "retalking_man_office.mp4": "man, suit",
    "retalking_woman_bluebg.mp4": "woman, blue wall",
    "retalking_woman_glasses.mp4": "woman, red jacket",
    "sam2_man_juggle.mp4": "man who juggles",
}
V_EXPRESS = ("11", "12", "13", "15", "17", "3", "5", "7", "9", "l2", "l3", "l4", "l5", "l7", "l8")
PHOTOS = {
    "kinds/deepface_img": {
        "woman 1": "1 2 4 10 11",
        "woman 2": "3 12",
        "woman 3": "22 23",
        "woman 4": "26 27 28 42 43 44 45 46",
        "woman 5": "47",
        "man 1": "13 14 15",
        "man 2": "16 17",
        "man 3": "18 19",
        "man 4": "20 21",
        "man 5": "24 25",
        "man 6": "29 30 31 32 33",
        "man 7": "34 35 36 37",
        "man 8": "38 39 40 41",
    },
    "kinds/deepface_": {"woman 1": "target"},
    "kinds/facenet-pytorch_": {
        "woman 1": "angelina_jolie_1",
        "woman 6": "kate_siegel_1",
        "man 9": "paul_rudd_1",
        "man 10": "shea_whigham_1",
    },
    "kinds/sadtalker_": {"woman 7": "happy sad", "woman 8": "happy1 sad1", "woman 9": "people_0"},
    "kinds/v-express_emo_talk_": {"woman 10": "emotion_ref", "woman 11": "hb_ref"},
    "kinds/v-express_short_case_": {"woman 12": "10_ref", "woman 13": "aoc_ref", "woman 14": "tys_ref"},
    "kinds/v-express_vasa-1_": {
        "woman 12": "10_ref",
        **{f"v-express {name}": f"{name}_ref" for name in V_EXPRESS},
    },
    "images/facerec_": {"obama": "obama_official obama_podium", "man 11": "biden_official"},
    "images/uniface_": {"man 12": "man1", "man 13": "man2", "man 14": "man3", "woman 15": "woman1"},
    "images/": {
        "man 15": "mtcnn_man_with_mic",
        "man 16": "tddfa_man_gown",
        "man 17": "liveportrait_man_pout",
        "woman 16": "liveportrait_woman_hand_on_cheek",
    },
}


def blurred(image: np.ndarray) -> np.ndarray:
    """As a small video that was enlarged shows it."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (int(width * 0.35), int(height * 0.35)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height))


HARDER: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda image: image,
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "dark": lambda image: (255 * (image / 255.0) ** 1.8).astype(np.uint8),
    "blurred": blurred,
}


def frames_of(path: Path) -> list[list[np.ndarray]]:
    """Two frames of every 3 s, 2 s apart, RGB, the shorter side 480 at most."""
    video, frames = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        frames.append(read[1][..., ::-1])
    rate = video.get(cv2.CAP_PROP_FPS)
    parts = [frames[begin : begin + int(3 * rate)] for begin in range(0, len(frames), int(3 * rate))]
    return [[scaled(part[min(int(rate * at), len(part) - 1)]) for at in (0.5, 2.5)] for part in parts]


def scaled(image: np.ndarray) -> np.ndarray:
    factor = min(1.0, 480 / min(image.shape[:2]))
    return np.ascontiguousarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))


@pytest.mark.slow
def test_the_people_of_the_samples(samples: Path) -> None:
    detector, embedder = CenterFace(), DlibFaceEmbedder()
    labels, shown, found = [], [], []

    def add(label: str, how: str, *images: np.ndarray) -> None:
        vectors = []
        for image, seen in ((image, detector.detect(image)) for image in images):
            if len(seen):
                tallest = int(np.argmax(seen.boxes[:, 3] - seen.boxes[:, 1]))
                vectors.append(unit(embedder.embed([image], seen.landmarks[[tallest]]))[0])
        if vectors:
            labels.append(label)
            shown.append(how)
            found.append(np.mean(vectors, axis=0))

    for begin, people in PHOTOS.items():
        for label, names in people.items():
            for name in names.split():
                photo = cv2.imread(str(samples / f"{begin}{name}.jpg"))
                add(label, "photo", scaled(photo[..., ::-1]))
    for name, label in VIDEOS.items():
        for frames in frames_of(samples / "videos" / name):
            for how, changed in HARDER.items():
                add(label, how, *map(changed, frames))

    def figures(use: np.ndarray) -> tuple[float, float, set[frozenset[str]]]:
        groups = Groups(unit(np.stack(found)[use]), np.arange(int(use.sum())), {})
        groups.join(THRESHOLDS["dlib-resnet-v1"].cosine)
        own = np.array(labels)[use].tolist()
        mixed = {frozenset(own[i] for i in members) for members in partition(groups.of.tolist())}
        return *pair_figures(groups.of.tolist(), own), {one for one in mixed if len(one) > 1}

    kinds = np.array(shown)
    photo, clip = kinds == "photo", kinds == "as it is"
    assert (photo.sum(), clip.sum(), len(set(labels)), len(labels)) == (84, 53, 63, 296)
    precision, recall, mixed = figures(photo)
    assert mixed == {frozenset(["v-express l4", "v-express l5"])}, "one pair of 82"
    assert precision > 0.985 and recall > 0.96
    assert figures(clip)[0] == 1 and figures(clip)[1] > 0.86
    precision, recall, mixed = figures(photo | clip)
    assert precision > 0.99 and recall > 0.91 and len(mixed) == 1
    precision, recall, mixed = figures(photo | (kinds != "photo"))
    assert precision > 0.999 and recall > 0.87 and len(mixed) == 1


@pytest.mark.slow
def test_the_people_of_real_runs(samples: Path, tmp_path: Path) -> None:
    """Ranges of 3 s through the laptop's stages; then later ones, and copies: mirrored, dark and small."""
    videos = {name: samples / "videos" / name for name in VIDEOS}
    ranges = [
        (path, start, min(start + 3.0, end))
        for path, end in ((path, seconds_of(path)) for path in videos.values())
        for start in np.arange(0, end - 1, 3.0).tolist()
    ]
    first = real_run(tmp_path / "first", [one for one in ranges if one[1] < 6])
    people_of_ranges(first)
    before = rows_by_range(first)
    labels = {path.stem: VIDEOS[name] for name, path in videos.items()}
    assert figures_of(before, labels) == (1, 1) and len(before) == 29

    (tmp_path / "changed").mkdir()
    copies = []
    for path, start, end in (one for one in ranges if one[1] == 0):
        copies.append((tmp_path / "changed" / f"{path.stem}.mp4", start, end))
        options = ("-t", "3", "-vf", "hflip,eq=gamma=0.6,scale=-2:240", "-crf", "30", "-an")
        ffmpeg("-i", path, *options, copies[-1][0])
    second = real_run(tmp_path / "second", [*(one for one in ranges if one[1] >= 6), *copies])
    found = people_of_ranges(first, second)
    assert rows_by_range(first) == before
    rows = before | rows_by_range(second)
    precision, recall = figures_of(rows, labels)
    assert len(rows) == 60 and precision == 1 and recall > 0.88 and len(found.people) == 17
    quality = found.quality
    assert quality.within is not None and quality.between is not None and quality.astray == 0
    assert quality.within > 0.955 and quality.between < 0.955


def figures_of(rows: dict[tuple[str, float], str | None], labels: dict[str, str]) -> tuple[float, float]:
    """Pairwise precision and recall of the people of ranges; all have one."""
    assert None not in rows.values()
    return pair_figures(list(rows.values()), [labels[Path(path).stem] for path, _ in rows])


def seconds_of(path: Path) -> float:
    video = cv2.VideoCapture(str(path))
    return float(video.get(cv2.CAP_PROP_FRAME_COUNT) / video.get(cv2.CAP_PROP_FPS))


def real_run(folder: Path, ranges: list[tuple[Path, float, float]]) -> Path:
    """Faces and their embeddings of time ranges of videos, by the laptop's models."""
    rows = [{"uri": str(path), "start_s": start, "end_s": end} for path, start, end in ranges]
    listed = folder.with_suffix(".parquet")
    store.write_table(listed, pa.Table.from_pylist(rows))
    stages = [Faces(CenterFace()), Consistency(EfficientNetLite(), DlibFaceEmbedder())]
    execute(stages, listed, folder, screen=EVERYTHING)
    return folder


def people_of_ranges(*runs: Path) -> People:
    opened = open_collection([str(run) for run in runs])
    found = find_people(opened)
    write_found(opened, found.found)
    return found


def rows_by_range(run: Path) -> dict[tuple[str, float], str | None]:
    table = store.read(run / "manifest", ["source_uri", "start_s", "person_id"]).to_pylist()
    return {(row["source_uri"], row["start_s"]): row["person_id"] for row in table}
