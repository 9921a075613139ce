"""Fetching models: over a connection that breaks, from a hub, out of archives; and the commands around it."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from backends.store import model_catalogue, model_fetch, model_store
from backends.store.file_hashes import RememberedHashes
from backends.store.model_catalogue import parse_catalogue
from backends.store.model_fetch import FetchProgress, fetch
from backends.store.model_store import ModelStore, ModelStoreError
from pipelines.cli import models as models_cli
from tests.conftest import ROOT
from tests.support.model_server import ModelServer

BIG = bytes(range(256)) * 8000  # 2 MB, several pieces
SMALL = b"{}"
REVISION = "c0ffee" + "0" * 34


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Told(FetchProgress):
    """What a fetch says."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.total: int | None = None
        self.bytes = 0
        self.lock = threading.Lock()

    def say(self, text: str) -> None:
        self.lines.append(text)

    def start(self, total: int | None) -> None:
        self.total = total

    def advance(self, new: int) -> None:
        with self.lock:
            self.bytes += new


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModelServer]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside/one.onnx", BIG)
        archive.writestr("two.onnx", SMALL)
        archive.writestr("../../escape", b"no")
    with ModelServer({"/big.onnx": BIG, "/loose.bin": BIG, "/packed.zip": packed.getvalue()}) as made:
        files = {"config.json": SMALL, "old/m.safetensors": BIG}
        made.add_repository("someone/model", REVISION, files, {"old/m.safetensors"})
        catalogue = f"""
big:
  source: {{url: "{made.url}/big.onnx"}}
  files: {{big.onnx: {{sha256: {sha(BIG)}, bytes: {len(BIG)}}}}}
  licence: MIT
  commercial: true
loose:
  source: {{url: "{made.url}/loose.bin"}}
  files: {{loose.bin: {{}}}}
  licence: none
  commercial: false
hub:
  source: {{huggingface: someone/model}}
  files: {{config.json: {{}}, deep/m.safetensors: {{path: old/m.safetensors}}}}
packed:
  source: {{url: "{made.url}/packed.zip"}}
  files: {{one.onnx: {{member: one.onnx, sha256: {sha(BIG)}}}, deep/two.onnx: {{member: two.onnx}}}}
homeless: {{files: {{m.pth: {{}}}}, notes: Ask the authors.}}
"""
        known = parse_catalogue(catalogue, "test")
        for module in (model_catalogue, model_store, model_fetch):
            monkeypatch.setattr(module, "known_models", lambda: known)
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield made


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def hidden(store: ModelStore) -> list[str]:
    """What a fetch has left beside the models."""
    return [p.name for p in store.folder.glob("*/.*")] + [p.name for p in store.folder.glob("*/*/.*")]


# Models.


def test_a_model_is_fetched_recorded_and_not_fetched_again(server: ModelServer, store: ModelStore) -> None:
    told = Told()
    fetch(store, ["big"], told, pause_s=0.0)
    assert (store.folder / "big" / "big.onnx").read_bytes() == BIG
    assert (told.total, told.bytes) == (len(BIG), len(BIG)) and told.lines == ["big: fetched"]
    assert store.recorded()["big"].files["big.onnx"].sha256 == sha(BIG)
    asked = len(server.requests)
    again = Told()
    fetch(store, ["big"], again, pause_s=0.0)
    assert again.lines == ["big: complete"] and len(server.requests) == asked
    store.check(["big"])


def test_what_was_compared_while_it_came_is_not_read_again(server: ModelServer, store: ModelStore) -> None:
    fetch(store, ["big"], pause_s=0.0)
    assert RememberedHashes(store.folder).known(["big/big.onnx"]) == {"big/big.onnx": sha(BIG)}


def test_what_is_not_pinned_is_recorded_with_hash_and_size(server: ModelServer, store: ModelStore) -> None:
    fetch(store, ["loose"], pause_s=0.0)
    file = store.recorded()["loose"].files["loose.bin"]
    assert (file.sha256, file.bytes) == (sha(BIG), len(BIG)) and store.weights("loose").digest
    store.check(["loose"])


def test_a_file_that_was_damaged_is_fetched_again(server: ModelServer, store: ModelStore) -> None:
    fetch(store, ["big", "loose"], pause_s=0.0)
    for name in ("big/big.onnx", "loose/loose.bin"):
        (store.folder / name).write_bytes(BIG[::-1])
    fetch(store, ["big", "loose"], pause_s=0.0)
    assert (store.folder / "big" / "big.onnx").read_bytes() == BIG
    assert (store.folder / "loose" / "loose.bin").read_bytes() == BIG


def test_a_hub_repository_is_fetched_at_one_revision(server: ModelServer, store: ModelStore) -> None:
    server.breaks[f"/someone/model/resolve/{REVISION}/old/m.safetensors"] = 1
    fetch(store, ["hub"], pause_s=0.0)
    assert (store.folder / "hub" / "deep" / "m.safetensors").read_bytes() == BIG
    assert (store.folder / "hub" / "config.json").read_bytes() == SMALL
    recorded = store.recorded()["hub"]
    assert recorded.source.revision == REVISION and recorded.is_pinned
    assert recorded.files["config.json"].url is None  # the mirror's address is not kept
    assert hidden(store) == []


def test_a_hub_file_that_is_not_the_listed_one_is_refused(server: ModelServer, store: ModelStore) -> None:
    server.files[f"/someone/model/resolve/{REVISION}/old/m.safetensors"] = BIG[::-1]
    with pytest.raises(ModelStoreError, match="SHA-256 differs"):
        fetch(store, ["hub"], pause_s=0.0)
    assert "hub" not in store.recorded()


def test_a_hub_file_that_changed_since_it_was_pinned_is_said(
    server: ModelServer, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = f"old/m.safetensors: {{sha256: {sha(b'old')}}}"
    text = f"hub: {{source: {{huggingface: someone/model}}, files: {{{file}}}}}"
    known = parse_catalogue(text, "test")
    for module in (model_store, model_fetch):
        monkeypatch.setattr(module, "known_models", lambda: known)
    with pytest.raises(ModelStoreError, match="has changed there: its SHA-256 is not the pinned one"):
        fetch(store, ["hub"], pause_s=0.0)


def test_a_gated_repository_needs_a_token_that_is_never_shown(
    server: ModelServer, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.gated = ("/api/models/someone", "/someone")
    with pytest.raises(
        ModelStoreError, match=r"accept the conditions at https://huggingface.co/someone/model"
    ):
        fetch(store, ["hub"], pause_s=0.0)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    told = Told()
    fetch(store, ["hub"], told, pause_s=0.0)
    assert set(server.tokens) == {"Bearer hf_secret"}
    store.check(["hub"])
    kept = "".join(p.read_text(errors="replace") for p in store.folder.rglob("*") if p.is_file())
    assert "hf_secret" not in kept and "hf_secret" not in "".join(told.lines)


def test_a_gated_file_whose_hash_is_pinned_asks_for_a_token_too(
    server: ModelServer, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.gated = ("/someone",)
    file = f"m: {{path: old/m.safetensors, sha256: {sha(BIG)}, bytes: {len(BIG)}}}"
    source = f"{{huggingface: someone/model, revision: {REVISION}}}"
    known = parse_catalogue(f"hub: {{source: {source}, files: {{{file}}}, gated: true}}", "test")
    for module in (model_store, model_fetch):
        monkeypatch.setattr(module, "known_models", lambda: known)
    with pytest.raises(ModelStoreError, match=r"access refused \(401\); accept the conditions at"):
        fetch(store, ["hub"], pause_s=0.0)
    assert [path.partition("/api")[1] for path, _ in server.requests] == [""]  # no listing is needed


def test_a_token_goes_to_the_hub_alone(
    server: ModelServer, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(store, ["big", "packed"], pause_s=0.0)
    assert server.tokens == []
    both = f'{{config.json: {{}}, big.onnx: {{url: "{server.url}/big.onnx"}}}}'
    known = parse_catalogue(f"hub: {{source: {{huggingface: someone/model}}, files: {both}}}", "test")
    for module in (model_store, model_fetch):
        monkeypatch.setattr(module, "known_models", lambda: known)
    fetch(store, ["hub"], pause_s=0.0)
    assert len(server.tokens) == 2  # the listing and config.json


def test_files_are_taken_out_of_an_archive(server: ModelServer, store: ModelStore) -> None:
    fetch(store, ["packed"], pause_s=0.0)
    assert (store.folder / "packed" / "one.onnx").read_bytes() == BIG
    assert (store.folder / "packed" / "deep" / "two.onnx").read_bytes() == SMALL
    found = sorted(str(p.relative_to(store.folder)) for p in store.folder.rglob("*") if p.is_file())
    assert found == [
        ".fetch.lock", ".models.lock", ".verified.json", ".verified.lock", "models.yaml",
        "packed/deep/two.onnx", "packed/one.onnx",
    ]  # fmt: skip
    assert [path for path, _ in server.requests] == ["/packed.zip"]


def test_a_broken_archive_is_said_and_thrown_away(server: ModelServer, store: ModelStore) -> None:
    server.files["/packed.zip"] = b"no archive"
    with pytest.raises(ModelStoreError, match="is not a zip archive"):
        fetch(store, ["packed"], pause_s=0.0)
    assert hidden(store) == []


def test_one_model_that_cannot_be_had_does_not_keep_the_others(
    server: ModelServer, store: ModelStore
) -> None:
    server.status["/loose.bin"] = 404
    with pytest.raises(ModelStoreError) as raised:
        fetch(store, ["loose", "big", "homeless"], pause_s=0.0)
    said = str(raised.value)
    assert "loose: " in said and "status 404" in said and "big" not in said.replace("big.onnx", "")
    assert "no public address is known for m.pth" in said and "Ask the authors." in said
    store.check(["big"])


def test_stand_ins_are_not_overwritten(server: ModelServer, store: ModelStore) -> None:
    (store.folder / "big").mkdir(parents=True)
    (store.folder / "big" / "big.onnx").write_bytes(SMALL)
    store.record(["big"], random_weights=True)
    with pytest.raises(ModelStoreError, match="random weights that stand in; move it away first"):
        fetch(store, ["big"], pause_s=0.0)
    assert (store.folder / "big" / "big.onnx").read_bytes() == SMALL


def test_too_little_space_is_said_before_anything_is_fetched(
    server: ModelServer, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_fetch.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ModelStoreError, match=r"0\.0 GB are to be fetched"):
        fetch(store, ["big"], pause_s=0.0)
    assert server.requests == []


def test_two_fetches_at_once_fetch_once(server: ModelServer, store: ModelStore) -> None:
    server.hold = threading.Event()
    told = [Told(), Told()]
    threads = [
        threading.Thread(target=fetch, args=(ModelStore(store.location), ["big"], t), kwargs={"pause_s": 0.0})
        for t in told
    ]
    threads[0].start()
    assert server.held.wait(30)
    threads[1].start()
    while not told[1].lines:
        threads[1].join(0.01)
    server.hold.set()
    for thread in threads:
        thread.join(30)
    assert told[0].lines == ["big: fetched"]
    assert told[1].lines == [f"another fetch into {store.folder} is running; waiting for it", "big: complete"]
    assert len(server.requests) == 1


# The commands.


def invoke(*arguments: Any) -> Any:
    done = CliRunner(env={"COLUMNS": "220", "NO_COLOR": "1", "TERM": "dumb"}).invoke(
        models_cli.app, [str(a) for a in arguments]
    )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_list_fetch_and_record_on_the_command_line(server: ModelServer, tmp_path: Path) -> None:
    models = ("--models", tmp_path / "store")
    done = invoke("list", "big", "loose", *models)
    assert done.exit_code == 1 and "1 of 1 files missing or wrong" in done.stdout
    assert f"big.onnx is missing; place: {tmp_path / 'store' / 'big' / 'big.onnx'}" in done.stdout
    done = invoke("fetch", "big", "loose", *models)
    assert done.exit_code == 0, done.output
    assert "loose: its licence does not allow commercial use (none)" in done.stderr
    assert "big: fetched" in done.stderr and "loose: fetched" in done.stderr
    done = invoke("list", "big", "loose", "--check", *models)
    digest = ModelStore(tmp_path / "store").weights("big").digest
    assert done.exit_code == 0 and f"complete @{digest}" in done.stdout
    (tmp_path / "store" / "mine").mkdir()
    (tmp_path / "store" / "mine" / "m.pth").write_bytes(SMALL)
    done = invoke("record", "mine", "--random-weights", *models)
    assert done.exit_code == 0 and "stand_in_random_mine@" in done.stdout


def test_wrong_use_and_failure_are_told_apart(server: ModelServer, tmp_path: Path) -> None:
    models = ("--models", tmp_path / "store")
    done = invoke("fetch", "bgi", *models)
    assert done.exit_code == 2 and "error: there is no model 'bgi'; did you mean 'big'?" in done.stderr
    done = invoke("record", "nothing-like-it", *models)
    assert done.exit_code == 2 and "there is no model" in done.stderr
    server.status["/big.onnx"] = 404
    done = invoke("fetch", "big", *models)
    assert done.exit_code == 1 and "error: could not be fetched:" in done.stderr


def test_ctrl_c_ends_a_fetch_soon_and_it_goes_on(server: ModelServer, tmp_path: Path) -> None:
    server.hold = threading.Event()
    code = (
        "from backends.store import model_catalogue, model_fetch, model_store\n"
        "from pipelines.cli import models as models_cli\n"
        f"known = model_catalogue.parse_catalogue(open({str(tmp_path / 'known.yaml')!r}).read(), 'test')\n"
        "for m in (model_catalogue, model_store, model_fetch): m.known_models = lambda: known\n"
        f"models_cli.app(['fetch', 'big', '--models', {str(tmp_path / 'store')!r}])\n"
    )
    (tmp_path / "known.yaml").write_text(model_catalogue.dump_catalogue(model_store.known_models()))
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert server.held.wait(120)
    process.send_signal(signal.SIGINT)
    server.hold.set()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and "interrupted; the same command goes on" in said
    server.hold = None
    store = ModelStore(tmp_path / "store")
    assert not (store.folder / "big" / "big.onnx").exists()
    fetch(store, ["big"], pause_s=0.0)
    store.check(["big"])
