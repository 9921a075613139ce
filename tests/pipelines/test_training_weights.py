"""What training begins with: tiny random weights fetched from a server, put together and checked."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save, save_file
from typer.testing import CliRunner

from backends.store import model_catalogue, model_fetch, model_store
from backends.store.copied_weights import ModelStoreError
from backends.store.model_catalogue import FileEntry, known_models
from backends.store.model_store import ModelStore
from backends.store.training_starts import STARTS
from pipelines import training_weights
from pipelines.cli import models as models_cli
from pipelines.cli.names import TrainingStart
from pipelines.training_weights import assemble, check, convert
from tests.support.model_server import ModelServer
from trainer.backbones import BACKBONES
from trainer.config import ModelConfig, load_config
from trainer.networks.encoders import Encoders
from trainer.networks.load import WeightsError, check_part, load_backbone
from trainer.networks.tiny import save_random_model

# diffusers' names -> Wan's own, one after the other.
ORIGINAL = {
    r"condition_embedder\.time_embedder\.linear_(\d)": lambda m: f"time_embedding.{2 * int(m[1]) - 2}",
    r"condition_embedder\.text_embedder\.linear_(\d)": lambda m: f"text_embedding.{2 * int(m[1]) - 2}",
    r"condition_embedder\.time_proj": "time_projection.1",
    r"condition_embedder\.image_embedder\.norm1": "img_emb.proj.0",
    r"condition_embedder\.image_embedder\.ff\.net\.0\.proj": "img_emb.proj.1",
    r"condition_embedder\.image_embedder\.ff\.net\.2": "img_emb.proj.3",
    r"condition_embedder\.image_embedder\.norm2": "img_emb.proj.4",
    r"\.norm2\.": ".norm3.",
    r"attn1": "self_attn",
    r"attn2": "cross_attn",
    r"to_out\.0": "o",
    r"\.to_([qkv])\.": r".\1.",
    r"add_([kv])_proj": r"\1_img",
    r"norm_added_k": "norm_k_img",
    r"^proj_out": "head.head",
    r"^scale_shift_table": "head.modulation",
    r"scale_shift_table": "modulation",
    r"ffn\.net\.0\.proj": "ffn.0",
    r"ffn\.net\.2": "ffn.2",
}
SAID = {"num_heads": 2, "num_layers": 2, "out_dim": 16, "eps": 1e-6, "_class_name": "WanModel"}


def original(name: str) -> str:
    for pattern, new in ORIGINAL.items():
        name = re.sub(pattern, new, name)
    return name


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    return {backbone: save_random_model(folder / backbone, backbone) for backbone in BACKBONES}


@pytest.fixture
def server(tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModelServer]:
    """The repositories of the catalogue, with tiny files in place of its own."""
    transformer = load_file(tiny["wan"] / "transformer" / "diffusion_pytorch_model.safetensors")
    fun = {
        "config.json": json.dumps(SAID).encode(),
        "diffusion_pytorch_model.safetensors": save({original(n): w for n, w in transformer.items()}),
    }

    def parts(backbone: str, *names: str) -> dict[str, bytes]:
        files = [file for name in names for file in sorted((tiny[backbone] / name).iterdir())]
        return {str(file.relative_to(tiny[backbone])): file.read_bytes() for file in files}

    held = {
        "wan2.1-fun-v1.1-1.3b-inp": fun,
        "wan2.1-t2v-1.3b": parts("wan", "transformer"),
        "wan2.1-encoders": parts("wan", "vae", "text_encoder", "tokenizer"),
        "wan2.1-clip": parts("wan", "image_encoder", "image_processor"),
        "ltx-video-2b": parts("ltx", "transformer", "vae", "text_encoder", "tokenizer"),
    }
    known, repositories = {}, dict[str, dict[str, bytes]]()
    for name, files in held.items():
        entry = known_models()[name]
        repositories.setdefault(str(entry.source.huggingface), {}).update(files)
        known[name] = entry.model_copy(update={"files": {file: FileEntry() for file in files}})
    with ModelServer({}) as made:
        for name, files in repositories.items():
            revision = next(str(e.source.revision) for e in known.values() if e.source.huggingface == name)
            made.add_repository(name, revision, files, set(files))
        for module in (model_catalogue, model_store, model_fetch):
            monkeypatch.setattr(module, "known_models", lambda: known)
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.chdir(tmp_path)
        yield made


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def invoke(*words: Any) -> Any:
    done = CliRunner(env={"COLUMNS": "220", "NO_COLOR": "1", "TERM": "dumb"}).invoke(
        models_cli.app, ["fetch", *map(str, words)]
    )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def fetched(store: ModelStore, name: str) -> None:
    model_fetch.fetch(store, STARTS[name].models, pause_s=0.0)


def test_the_names_are_those_of_the_shipped_configurations() -> None:
    assert set(STARTS) == set(TrainingStart) and {s.backbone for s in STARTS.values()} == set(BACKBONES)
    runs = ("wan_stage1", "wan_stage2", "wan_stage3", "ltx_stage1", "ltx_stage2")
    for run in runs:
        model = load_config(run).model
        assert STARTS[f"train-{model.backbone}"].folder == model.folder and model.image_encoder is None
    for start in STARTS.values():
        parts = {"transformer", "vae", "text_encoder", "tokenizer", "image_encoder", "image_processor"}
        assert set(start.parts) == parts
        for part, name in start.parts.items():  # the store has a folder of each, or Wan's own two files
            folders = {file.partition("/")[0] for file in known_models()[name].files}
            assert part in folders or folders == {"config.json", training_weights.ORIGINAL}, (part, name)


@pytest.mark.parametrize("name", STARTS)
def test_one_command_brings_what_training_begins_with(
    name: str, server: ModelServer, store: ModelStore, tiny: dict[str, Path]
) -> None:
    done = invoke("--for", name, "--models", store.location)
    assert done.exit_code == 0, done.output
    start = STARTS[name]
    folder, like = Path(start.folder), tiny[start.backbone]
    assert f"{name}  {folder}: 0.00 billion weights, each in its place" in done.stdout
    config = ModelConfig(backbone=start.backbone, folder=str(folder))
    network = load_backbone(config, folder)
    expected = load_file(like / "transformer" / "diffusion_pytorch_model.safetensors")
    assert expected.keys() == network.transformer.state_dict().keys()
    for weight, value in network.transformer.state_dict().items():
        assert torch.equal(value, expected[weight]), weight
    assert (
        Encoders.load(config, folder).id
        == Encoders.load(ModelConfig(folder=str(like), backbone=start.backbone), like).id
    )
    sources = yaml.safe_load((folder / "sources.yaml").read_text())
    assert sources["transformer"]["model"].startswith(f"{start.parts['transformer']}@")
    assert sources["image_encoder"]["licence"] == "Apache-2.0" and len(sources["vae"]["revision"]) == 40
    asked = len(server.requests)
    again = invoke("--for", name, "--models", store.location)
    assert again.exit_code == 0 and "there already; every weight is checked" in again.stderr
    assert len(server.requests) == asked


def test_an_interrupted_fetch_goes_on(server: ModelServer, store: ModelStore) -> None:
    path = next(
        p for p in server.files if p.endswith("/vae/diffusion_pytorch_model.safetensors") and "Wan" in p
    )
    server.status[path] = 404
    done = invoke("--for", "train-wan", "--models", store.location)
    assert done.exit_code == 1 and "wan2.1-encoders: " in done.stderr and not Path("models").exists()
    del server.status[path]
    server.breaks[path] = 1
    asked = [path for path, _ in server.requests]
    fetched(store, "train-wan")
    anew = [path for path, _ in server.requests[len(asked) :] if path.endswith(".safetensors")]
    assert anew == [path, path]  # whatever had come whole stays
    done = invoke("--for", "train-wan", "--models", store.location)
    assert done.exit_code == 0, done.output
    assert check("wan", Path("models/Wan2.1-1.3B")) > 0


def changed(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("vae", lambda w: w.pop("encoder.conv_in.bias"), "1 weights of AutoencoderKLWan are missing"),
        ("vae", lambda w: w.update(x=torch.zeros(2)), "1 weights have no place in AutoencoderKLWan, first x"),
        ("image_encoder", lambda w: w.update({"text_projection.weight": torch.zeros(2)}), "text_projection"),
        (
            "transformer",
            lambda w: w.update(proj_out=w.pop("proj_out.bias")),
            "1 weights of WanTransformer3DModel are missing or of another shape, first proj_out.bias",
        ),
        (
            "transformer",
            lambda w: w.update({"proj_out.bias": torch.zeros(3)}),
            "of another shape, first proj_out.bias|cannot be loaded",
        ),
        (
            "text_encoder",
            lambda w: w.update({"shared.weight": w["shared.weight"].to(torch.float8_e4m3fn)}),
            "shared.weight is F8_E4M3; training begins with weights of BF16, F16, F32",
        ),
    ],
)
def test_every_weight_is_looked_at(
    part: str, change: Any, said: str, tiny: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny["wan"], folder)
    counted = check("wan", folder)
    with torch.no_grad():
        network = load_backbone(ModelConfig(folder=str(folder)), folder)
    assert counted > sum(p.numel() for p in network.transformer.parameters()) > 0
    (file,) = (folder / part).glob("*.safetensors")
    changed(file, change)
    with pytest.raises(WeightsError, match=said):
        check("wan", folder)


def test_what_is_not_there_is_named(tiny: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for lost, said in (
        ("vae/config.json", "vae: no config.json of AutoencoderKLWan"),
        ("text_encoder/model.safetensors", "text_encoder: UMT5EncoderModel cannot be loaded"),
        ("image_processor/preprocessor_config.json", "not the settings of a CLIP image processor"),
        ("tokenizer", "tokenizer: not a tokenizer"),
    ):
        shutil.copytree(tiny["wan"], folder)
        path = folder / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        with pytest.raises(WeightsError, match=said):
            check("wan", folder)
        shutil.rmtree(folder)


def test_nothing_is_left_of_what_does_not_fit(server: ModelServer, store: ModelStore, tmp_path: Path) -> None:
    fetched(store, "train-wan-t2v")
    changed(
        store.folder / "wan2.1-encoders" / "vae" / "diffusion_pytorch_model.safetensors",
        lambda w: w.pop("encoder.conv_in.bias"),
    )
    with pytest.raises(WeightsError, match="weights of AutoencoderKLWan are missing"):
        assemble(store, STARTS["train-wan-t2v"], tmp_path / "models" / "w")
    assert [p.name for p in (tmp_path / "models").iterdir()] == [".w.lock"]
    assert (store.folder / "wan2.1-encoders" / "vae" / "config.json").is_file()  # the links alone are removed


def test_a_folder_of_other_weights_stays(server: ModelServer, store: ModelStore, tmp_path: Path) -> None:
    done = invoke("--for", "train-ltx", "--models", store.location, "--folder", tmp_path / "mine")
    assert done.exit_code == 0, done.output
    done = invoke("--for", "train-wan", "--models", store.location, "--folder", tmp_path / "mine")
    assert done.exit_code == 1 and "give another --folder" in done.stderr
    assert check("ltx", tmp_path / "mine") > 0


def test_too_little_space(server: ModelServer, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    full = type("Usage", (), {"free": 10})
    with monkeypatch.context() as patched:
        patched.setattr(model_fetch.shutil, "disk_usage", lambda _: full)
        done = invoke("--for", "train-wan", "--models", store.location)
    assert (
        done.exit_code == 1
        and "are to be fetched" in done.stderr
        and not server.files.keys() & {path for path, _ in server.requests if "resolve" in path}
    )
    fetched(store, "train-wan")
    with monkeypatch.context() as patched:
        patched.setattr(training_weights.shutil, "disk_usage", lambda _: full)
        with pytest.raises(ModelStoreError, match=r"are to be written, 0\.0 GB are free"):
            assemble(store, STARTS["train-wan"], Path("models/w"))

    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(training_weights.WanTransformer3DModel, "save_pretrained", no_space)
        done = invoke("--for", "train-wan", "--models", store.location)
    assert done.exit_code == 1 and "error: [Errno 28] No space left on device" in done.stderr
    assert not Path("models/Wan2.1-1.3B").exists()


def test_a_transformer_that_is_none_of_wan(tiny: dict[str, Path], tmp_path: Path) -> None:
    weights = load_file(tiny["wan"] / "transformer" / "diffusion_pytorch_model.safetensors")
    renamed = {original(name): weight for name, weight in weights.items()}
    (tmp_path / "config.json").write_text(json.dumps(SAID))
    for change, said in (
        (lambda w: w.pop("img_emb.proj.1.weight"), "there is no 'img_emb.proj.1.weight'"),  # text-to-video
        (lambda w: w.update({"ref_conv.weight": torch.zeros(1)}), "Unexpected key.*ref_conv.weight"),
        (lambda w: w.pop("blocks.1.ffn.2.bias"), "Missing key.*blocks.1.ffn.net.2.bias"),
        (lambda w: w.update({"head.head.weight": torch.zeros(3, 24)}), "size mismatch for proj_out.weight"),
    ):
        wrong = dict(renamed)
        change(wrong)
        save_file(wrong, tmp_path / "diffusion_pytorch_model.safetensors")
        with pytest.raises(WeightsError, match=said):
            convert(tmp_path, tmp_path / "made")
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(WeightsError, match="not an image-to-video transformer"):
        convert(tmp_path, tmp_path / "made")


def test_the_type_of_the_weights_stays(tiny: dict[str, Path], tmp_path: Path) -> None:
    from diffusers import WanTransformer3DModel

    weights = load_file(tiny["wan"] / "transformer" / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(SAID))
    half = {original(name): weight.bfloat16() for name, weight in weights.items()}
    save_file(half, tmp_path / "diffusion_pytorch_model.safetensors")
    convert(tmp_path, tmp_path / "made")
    made = load_file(tmp_path / "made" / "diffusion_pytorch_model.safetensors")
    assert {w.dtype for w in made.values()} == {torch.bfloat16}
    assert all(torch.equal(made[name], weight.bfloat16()) for name, weight in weights.items())
    assert check_part(WanTransformer3DModel, tmp_path / "made") == sum(w.numel() for w in weights.values())
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    before = json.loads((tiny["wan"] / "transformer" / "config.json").read_text())
    different = {key for key in before if config.get(key) != before[key]}
    assert different <= {"rope_max_seq_len"}, different  # a table that is made, not learned


def test_wrong_use(tmp_path: Path) -> None:
    done = invoke("--for", "train-wna")
    assert done.exit_code == 2
    assert all(name in done.stderr for name in STARTS)
    for words in (["dwpose", "--for", "train-wan"], ["--folder", "x"]):
        done = invoke(*words, "--models", tmp_path)
        assert done.exit_code == 2 and "--folder belongs to it" in done.stderr
