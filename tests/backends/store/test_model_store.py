"""The model store: what it calls weights, what it finds wrong, and that a URL store copies whole and once."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import threading
from pathlib import Path

import pytest

from backends.store import model_catalogue, model_store
from backends.store.copied_weights import CopiedWeights
from backends.store.file_hashes import RememberedHashes
from backends.store.model_catalogue import (
    CatalogueError,
    ModelEntry,
    dump_catalogue,
    known_models,
    parse_catalogue,
)
from backends.store.model_store import ModelStore, ModelStoreError, default_location, say_problems

A, B = b"a" * 1000, b"b" * 2000
PINNED = hashlib.sha256(A).hexdigest()
CATALOGUE = f"""
small:
  roles: [pose]
  source: {{url: https://models.example/small.onnx}}
  files:
    small.onnx: {{sha256: {PINNED}, bytes: 1000}}
  licence: MIT
  commercial: true
loose:
  source: {{huggingface: someone/loose}}
  files:
    config.json: {{}}
    deep/model.safetensors: {{}}
  gated: true
homeless:
  files:
    model.pth: {{}}
"""


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture(autouse=True)
def catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = parse_catalogue(CATALOGUE, "test")
    for module in (model_catalogue, model_store):
        monkeypatch.setattr(module, "known_models", lambda: known)
    monkeypatch.setenv("INTERAVATAR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


# The catalogue.

TRAINING = (
    "wan2.1-fun-v1.1-1.3b-inp",
    "wan2.1-t2v-1.3b",
    "wan2.1-encoders",
    "wan2.1-clip",
    "ltx-video-2b",
)


def test_the_shipped_catalogue_reads_and_names_what_the_gpu_profile_needs() -> None:
    models = known_models()
    assert set(models) == {
        "dwpose",
        "rtmpose-hand",
        "insightface-buffalo-l",
        "mediapipe-face-mesh",
        "sam2.1-hiera-large",
        "cotracker3",
        "openclip-vit-l-14",
        "dinov2-large",
        "wav2vec2-base-960h",
        "pyannote-speaker-diarization-community-1",
        "syncnet",
        "qwen2.5-vl-7b-instruct",
        "wan2.2-i2v-a14b",
        "wan2.2-i2v-a14b-lightning",
        "inception-2015-12-05",
        "i3d-kinetics-400",
        "lpips-alexnet",
        "laion-aesthetic-vit-l-14",
        "raft-things",
        "dino-vit-b-16",
        "clip-vit-b-32",
        *TRAINING,
    }
    for name, model in models.items():
        assert all(model.url_of(file) for file in model.files), name
        assert model.licence and model.licence_url and not model.random_weights, name
        assert bool(model.roles) == (name not in TRAINING), name
        assert model.source.huggingface is None or len(str(model.source.revision)) == 40, name
    not_commercial = ["insightface-buffalo-l", "cotracker3", "ltx-video-2b"]
    assert [n for n, m in models.items() if m.commercial is False] == not_commercial
    assert [n for n, m in models.items() if m.commercial is None] == ["syncnet", "i3d-kinetics-400"]
    assert parse_catalogue(dump_catalogue(models), "again") == dict(models)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{files: {a: {}}, licens: MIT}", "x.licens: Extra inputs"),
        ("{files: {../a: {}}}", "inside the model's folder"),
        ("{files: {/etc/a: {}}}", "inside the model's folder"),
        ("{files: {a//b: {}}}", "inside the model's folder"),
        ("{files: {'a\\b': {}}}", "inside the model's folder"),
        ("{files: {.verified.json: {}}}", "begin with a dot"),
        ("{files: {}}", "at least 1 item"),
        ("{files: {a: {sha256: abc}}}", "x.files.a.sha256"),
        ("{files: {a: {bytes: -1}}}", "x.files.a.bytes"),
        ("{files: {a: {}}, source: {url: 'https://me:secret@host/a'}}", "without user or password"),
        ("{files: {a: {}}, source: {url: 'https://host/a', huggingface: a/b}}", "not both"),
        ("[", "not valid YAML"),
    ],
)
def test_a_wrong_catalogue_is_refused(entry: str, said: str) -> None:
    with pytest.raises(CatalogueError, match=r"models\.yaml") as refused:
        parse_catalogue(f"x: {entry}", "models.yaml")
    assert said in str(refused.value) and "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", ""])
def test_a_models_name_is_no_path(name: str) -> None:
    with pytest.raises(CatalogueError):
        parse_catalogue(json.dumps({name: {"files": {"a": {}}}}), "models.yaml")


# Names and digests.


def test_the_location_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_location() == str(tmp_path / "cache" / "models")
    monkeypatch.setenv("INTERAVATAR_MODELS", "/shared/models")
    assert default_location() == "/shared/models" and ModelStore().location == "/shared/models"
    monkeypatch.delenv("INTERAVATAR_CACHE")
    monkeypatch.delenv("INTERAVATAR_MODELS")
    assert default_location() == str(Path.home() / ".cache" / "interavatar" / "models")


def test_weights_of_a_known_model_need_no_files(store: ModelStore, tmp_path: Path) -> None:
    small = store.weights("small")
    digest = hashlib.sha256(f"small.onnx\t{PINNED}".encode()).hexdigest()[:12]
    assert (small.name, small.folder, small.is_random) == ("small", tmp_path / "store" / "small", False)
    assert small.digest == digest and pickle.loads(pickle.dumps(small)) == small == store.weights("small")
    assert store.weights("loose").digest == "" and str(store.weights("loose")) == "loose@unpinned"


def test_an_unknown_model_is_refused_with_the_nearest_name(store: ModelStore) -> None:
    with pytest.raises(ValueError, match="no model 'smal'; did you mean 'small'"):
        store.weights("smal")
    for name in ("../small", "", "."):
        with pytest.raises(ValueError, match="no model"):
            store.weights(name)


def test_somebodys_own_folder_is_named_by_its_names_and_sizes(store: ModelStore, tmp_path: Path) -> None:
    put(tmp_path / "mine", {"model.pth": A, ".cache/x": B})
    mine = store.weights(str(tmp_path / "mine"))
    assert (mine.name, mine.folder) == ("mine", tmp_path / "mine") and len(mine.digest) == 12
    assert store.problems([str(tmp_path / "mine")]) == []
    put(tmp_path / "mine", {"model.pth": B})
    assert store.weights(str(tmp_path / "mine")).digest != mine.digest
    put(tmp_path / "store" / "own", {"model.pth": B})
    assert store.weights("own").folder == tmp_path / "store" / "own"


def test_published_weights_are_known_by_their_hashes(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers measured with other weights are named after these, so that none passes for the paper's."""
    assert store.weights("small").is_published  # a run compares it with its pin
    assert store.weights("small").network("pose", "small") == ""
    assert store.weights("small").network("pose", "another") == "small"
    assert not store.weights("loose").is_published
    put(tmp_path / "store" / "small", {"small.onnx": A})
    own = store.weights(str(tmp_path / "store" / "small"))
    assert own.name == "small" and own.network("pose", "small") == "unverified_pose"
    store.record(["small"], random_weights=True)
    assert store.weights("small").network("pose", "small") == "stand_in_random_pose"
    assert not store.weights("small").is_published


@pytest.mark.parametrize(("content", "published"), [(A, True), (B, False)])
def test_the_part_of_a_hash_in_the_name_of_a_file_of_the_hub_is_compared(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, published: bool
) -> None:
    """As PyTorch's hub does it: raft_large_C_T_V1-22a6c225.pth."""
    text = f"hub: {{source: {{url: https://models.example/net-{PINNED[:8]}.pth}}, files: {{net.pth: {{}}}}}}"
    known = parse_catalogue(text, "test")
    for module in (model_catalogue, model_store):
        monkeypatch.setattr(module, "known_models", lambda: known)
    assert not store.weights("hub").is_published  # nothing is there yet
    put(tmp_path / "store" / "hub", {"net.pth": content})
    store.record(["hub"])
    assert store.weights("hub").is_published == published
    assert store.weights("hub").network("net", "hub") == ("" if published else "unverified_net")
    behind_a_url = ModelStore((tmp_path / "store").as_uri()).weights("hub")
    assert behind_a_url.is_published == published and pickle.loads(pickle.dumps(behind_a_url)) == behind_a_url


# What is wrong.


def test_a_missing_file_says_where_it_belongs_and_how_to_get_it(store: ModelStore, tmp_path: Path) -> None:
    (problem,) = store.problems(["small"])
    assert (problem.model, problem.file, problem.what) == ("small", "small.onnx", "is missing")
    assert problem.place == str(tmp_path / "store" / "small" / "small.onnx")
    assert problem.source == "https://models.example/small.onnx"
    assert problem.way_out == f"`interavatar models fetch small --models {tmp_path / 'store'}`"
    gated = store.problems(["loose"])
    assert [p.file for p in gated] == ["config.json", "deep/model.safetensors"]
    assert "accept the conditions at https://huggingface.co/someone/loose, set HF_TOKEN" in gated[0].way_out
    assert gated[1].source == "https://huggingface.co/someone/loose/resolve/main/deep/model.safetensors"
    (homeless,) = store.problems(["homeless"])
    assert homeless.source == "" and "no public address is known" in homeless.way_out


def test_a_wrong_size_and_a_wrong_hash_are_told_apart(store: ModelStore, tmp_path: Path) -> None:
    put(tmp_path / "store" / "small", {"small.onnx": B})
    assert [p.what for p in store.problems(["small"])] == ["has 2000 bytes, 1000 are expected"]
    put(tmp_path / "store" / "small", {"small.onnx": B[:1000]})
    assert [p.what for p in store.problems(["small"])] == ["is not the expected file: its SHA-256 differs"]
    assert store.problems(["small"], hashes=False) == []
    put(tmp_path / "store" / "small", {"small.onnx": A})
    assert store.problems(["small"]) == []


def test_check_lists_every_problem_in_one_message(store: ModelStore, tmp_path: Path) -> None:
    put(tmp_path / "store" / "small", {"small.onnx": B})
    with pytest.raises(ModelStoreError) as raised:
        store.check(["small", "loose", "small"])
    lines = str(raised.value).splitlines()
    assert len(lines) == 6 and lines[0] == "weights are missing or wrong:"
    assert sum("small.onnx has 2000 bytes" in line for line in lines) == 1
    put(tmp_path / "store" / "small", {"small.onnx": A})
    store.check(["small"])


def test_files_without_a_hash_must_be_recorded(store: ModelStore, tmp_path: Path) -> None:
    put(tmp_path / "store" / "loose", {"config.json": A, "deep/model.safetensors": B, "README.md": A})
    assert {p.what for p in store.problems(["loose"])} == {"has no hash to compare it with"}
    assert "`interavatar models record loose" in store.problems(["loose"])[0].way_out
    store.record(["loose"])
    assert store.problems(["loose"]) == []
    text = f"config.json\t{sha(A)}\ndeep/model.safetensors\t{sha(B)}"
    assert store.weights("loose").digest == hashlib.sha256(text.encode()).hexdigest()[:12]
    recorded = ModelStore(store.location).recorded()["loose"]
    assert set(recorded.files) == {"config.json", "deep/model.safetensors"}
    assert recorded.files["config.json"].bytes == 1000 and recorded.source.huggingface == "someone/loose"
    put(tmp_path / "store" / "loose", {"config.json": B[:1000]})
    assert [p.file for p in store.problems(["loose"])] == ["config.json"]


def test_recording_refuses_what_is_not_pinned_so_or_not_there(store: ModelStore, tmp_path: Path) -> None:
    put(tmp_path / "store" / "small", {"small.onnx": B})
    with pytest.raises(ModelStoreError, match="has 2000 bytes, 1000 are expected"):
        store.record(["small"])
    with pytest.raises(ModelStoreError, match=r"config.json is missing"):
        store.record(["loose"])
    with pytest.raises(ModelStoreError, match="holds no files"):
        store.record(["nothing"])
    assert store.recorded() == {}


def test_random_weights_stand_in_and_say_so(store: ModelStore, tmp_path: Path) -> None:
    put(tmp_path / "store" / "small", {"small.onnx": B, "more.bin": A})
    store.record(["small"], random_weights=True)
    small = store.weights("small")
    assert small.is_random and small.label == "stand_in_random_small" and len(small.digest) == 12
    assert store.problems(["small"]) == []
    assert set(store.entry("small").files) == {"small.onnx", "more.bin"}
    (tmp_path / "store" / "small" / "more.bin").unlink()
    assert [p.file for p in store.problems(["small"])] == ["more.bin"]


def test_a_record_of_another_revision_fills_nothing_in(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(tmp_path / "store" / "loose", {"config.json": A, "deep/model.safetensors": B})
    store.record(["loose"])
    pinned = parse_catalogue(CATALOGUE.replace("someone/loose}", "someone/loose, revision: abc}"), "test")
    monkeypatch.setattr(model_store, "known_models", lambda: pinned)
    assert {p.what for p in store.problems(["loose"])} == {"has no hash to compare it with"}


# Hashes are remembered.


def test_a_file_is_read_once_until_it_changes(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "store" / "small" / "small.onnx"
    put(file.parent, {file.name: A})
    reads: list[str] = []
    real = RememberedHashes.of.__globals__["sha256"]
    monkeypatch.setitem(
        RememberedHashes.of.__globals__, "sha256", lambda f, stop=None: reads.append(f.name) or real(f, stop)
    )
    assert store.problems(["small"]) == [] and store.problems(["small"]) == []
    assert reads == ["small.onnx"]
    put(file.parent, {file.name: B[:1000]})
    os.utime(file, ns=(1, 1))
    assert len(store.problems(["small"])) == 1 and len(reads) == 2
    (tmp_path / "store" / ".verified.json").write_text("{broken")
    assert len(store.problems(["small"])) == 1 and len(reads) == 3


def test_a_store_that_cannot_be_written_to_is_read_each_time(tmp_path: Path) -> None:
    put(tmp_path / "store" / "small", {"small.onnx": A})
    (tmp_path / "store" / ".verified.json").mkdir()  # root may write anywhere, but not over a folder
    assert ModelStore(tmp_path / "store").problems(["small"]) == []
    assert ModelStore(tmp_path / "store").problems(["small"]) == []


def test_many_records_at_once_all_arrive(store: ModelStore, tmp_path: Path) -> None:
    names = [f"own{i}" for i in range(12)]
    for name in names:
        put(tmp_path / "store" / name, {"x": name.encode()})
    threads = [
        threading.Thread(
            target=ModelStore(store.location).record, args=([n],), kwargs={"random_weights": True}
        )
        for n in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ModelStore(store.location).recorded()) == sorted(names)


# Behind a URL.


@pytest.fixture
def remote(tmp_path: Path) -> ModelStore:
    local = ModelStore(tmp_path / "origin")
    put(tmp_path / "origin" / "loose", {"config.json": A, "deep/model.safetensors": B})
    local.record(["loose"])
    return ModelStore(f"file://{tmp_path / 'origin'}")


def test_a_store_behind_a_url_is_copied_when_first_used(remote: ModelStore, tmp_path: Path) -> None:
    assert remote.problems(["loose"]) == []
    weights = remote.weights("loose")
    assert weights.digest == ModelStore(tmp_path / "origin").weights("loose").digest
    assert not (tmp_path / "cache").exists()
    sent = pickle.loads(pickle.dumps(weights))
    assert isinstance(sent, CopiedWeights) and sent == weights and hash(sent) == hash(weights)
    assert str(sent) == f"loose@{weights.digest}" and not (tmp_path / "cache").exists()
    assert sent.file("deep/model.safetensors").read_bytes() == B
    assert sent.folder.is_relative_to(tmp_path / "cache" / "copies")
    (tmp_path / "origin" / "loose" / "config.json").unlink()
    assert remote.weights("loose").file("config.json").read_bytes() == A  # not copied again


def test_a_copy_that_is_not_the_recorded_file_is_refused_and_leaves_nothing(
    remote: ModelStore, tmp_path: Path
) -> None:
    put(tmp_path / "origin" / "loose", {"deep/model.safetensors": A + A})
    with pytest.raises(ModelStoreError, match=r"deep/model\.safetensors is not the recorded file"):
        _ = remote.weights("loose").folder
    (tmp_path / "origin" / "loose" / "config.json").unlink()
    with pytest.raises(ModelStoreError, match=r"config.json is missing"):
        _ = remote.weights("loose").folder
    left = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert left == []


def test_threads_that_want_the_same_copy_make_one(remote: ModelStore, tmp_path: Path) -> None:
    weights = remote.weights("loose")
    (
        place := tmp_path
        / "cache"
        / "copies"
        / hashlib.sha256(vars(weights)["source"].encode()).hexdigest()[:12]
    )
    put(place / ".loose.copy-killed", {"config.json": B})
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(weights.folder)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert sorted(p.name for p in place.iterdir()) == [".loose.lock", found[0].name]


def test_what_is_missing_behind_a_url_is_found_without_copying(remote: ModelStore, tmp_path: Path) -> None:
    put(tmp_path / "origin" / "loose", {"config.json": B})
    (tmp_path / "origin" / "loose" / "deep" / "model.safetensors").unlink()
    said = say_problems(remote.problems(["loose", "small"]))
    assert "config.json has 2000 bytes, 1000 are expected" in said
    assert "deep/model.safetensors is missing" in said and "small.onnx is missing" in said
    assert not (tmp_path / "cache").exists()


def test_a_store_behind_a_url_is_not_changed_from_here(remote: ModelStore) -> None:
    with pytest.raises(ModelStoreError, match="is a URL: change the models in a folder"):
        remote.record(["loose"])


def test_a_url_whose_library_is_missing_or_broken_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelStoreError, match="nosuchscheme://host/models"):
        ModelStore("nosuchscheme://host/models").weights("small")
    put(tmp_path / "store", {"models.yaml": b"small: {files: {../x: {}}}"})
    with pytest.raises(CatalogueError, match=r"models.yaml: small.files"):
        ModelStore(tmp_path / "store").weights("small")


def test_a_password_in_the_location_is_never_shown() -> None:
    store = ModelStore("memory://me:secret@bucket/models")
    assert "secret" not in say_problems(store.problems(["small"]))


def test_an_entry_knows_its_size_and_page() -> None:
    small: ModelEntry = parse_catalogue(CATALOGUE, "test")["small"]
    assert (small.size, small.is_pinned, small.page) == (1000, True, "https://models.example/small.onnx")
    assert parse_catalogue(CATALOGUE, "test")["loose"].size is None
