"""Training beside the latent cache: it is that without, and loads neither text encoder nor CLIP."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from pipelines.cli import train as train_cli
from tests.support.checkpoints import weights_of
from tests.support.shard_toys import toy_shards
from tests.trainer.test_train import WIDTHS, scalars_of
from trainer.config import TrainConfig
from trainer.data.latent_cache import LatentError
from trainer.data.loader import collate
from trainer.data.source import Choice, ClipSource
from trainer.networks import encoders as encoders_module
from trainer.networks.encoders import CachedEncoders, Encoders, encode, encoder_ids
from trainer.networks.load import WeightsError
from trainer.networks.tiny import model_folder
from trainer.self_forcing import distill
from trainer.train import train

FRAMES = 9
PROMPT = "A person nods."
Configure = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of four windows, the first three touched; one person in nine held out."""
    folder = tmp_path_factory.mktemp("cached") / "shards"
    persons = [f"person-{n}" for n in range(9)]
    runs = {"talking": 1.0, "touched": 1.0}
    return toy_shards(
        folder, clips=9, seconds=1.1, size=(96, 64), runs=runs, interactions=3, persons=persons, **WIDTHS
    )


@pytest.fixture()
def configure(shards: Path, tmp_path: Path) -> Configure:
    def make(name: str, latents: bool = False, **changes: Any) -> TrainConfig:
        data = {
            "shards": [str(shards)],
            "workers": 0,
            "buckets": {"min_frames": FRAMES, "max_frames": FRAMES, "area": 64 * 64, "aspects": [1.0]},
            "latents": str(tmp_path / "latents") if latents else None,
            "windows": 3,
            "references": 2,
        }
        values: dict[str, Any] = {
            "name": name,
            "output": str(tmp_path / name),
            "steps": 2,
            "batch": 4,
            "micro_batch": 2,
            "precision": "fp32",
            "checkpoint_every": 100,
            "log_every": 1,
            "data": data | changes.pop("data", {}),
            "model": {"random": "tiny", **WIDTHS},
            "optimiser": {"warmup_steps": 0, "learning_rate": 1e-3},
            "validation": {"share": 0.4, "every": 1, "clips": 2},
            "samples": {"every": 2, "clips": 2, "prompts": [PROMPT]},
        }
        return TrainConfig.model_validate(values | changes)

    return make


def encode_all(config: TrainConfig, tmp_path: Path, *arguments: str) -> str:
    """`interavatar latents`; gives what it says."""
    app = typer.Typer()
    app.command()(train_cli.latents)
    path = tmp_path / "encoded.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    result = CliRunner().invoke(
        app, ["--config", str(path), "--output", str(tmp_path / "latents"), *arguments]
    )
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture()
def same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training without a cache begins where the cache does, and has its references."""
    choose = ClipSource._choose

    def as_cached(self: ClipSource, *arguments: Any) -> Choice:
        cached = copy(self)
        vars(cached)["latents"] = "there is one"
        return choose(cached, *arguments)

    monkeypatch.setattr(ClipSource, "_choose", as_cached)


@pytest.fixture()
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The classes of what the encoders load."""
    kinds: list[str] = []
    real = encoders_module.load_part

    def load_part(kind: Any, *arguments: Any) -> Any:
        kinds.append(kind.__name__)
        return real(kind, *arguments)

    monkeypatch.setattr(encoders_module, "load_part", load_part)
    yield kinds


@pytest.mark.usefixtures("same_places")
def test_two_steps_are_those_without_the_cache(
    configure: Configure, tmp_path: Path, loaded: list[str]
) -> None:
    plain, kept = configure("plain"), configure("cached", latents=True)
    whole = weights_of(train(plain))
    said = encode_all(configure("encoded"), tmp_path, "--batch", "3")
    assert "9 new, 0 there already" in said
    assert loaded.count("UMT5EncoderModel") == loaded.count("CLIPVisionModel") == 2
    loaded.clear()
    found = weights_of(train(kept))
    assert loaded == ["AutoencoderKLWan"]
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0)
    one, other = scalars_of(plain), scalars_of(kept)
    for name in ("loss", "gradient_norm", "validation/loss"):
        assert len(one[name]) == 2
        assert [v for _, v in other[name]] == pytest.approx([v for _, v in one[name]], rel=1e-5), name
    clips = [sorted((Path(c.output) / "samples" / "step-00000002").iterdir()) for c in (plain, kept)]
    assert [path.name for path in clips[0]] == [path.name for path in clips[1]] and len(clips[0]) == 2


@pytest.mark.parametrize("backbone", ["wan", "ltx"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.usefixtures("same_places")
def test_what_the_network_is_given(
    configure: Configure, tmp_path: Path, backbone: str, precision: str
) -> None:
    """The conditions of whole batches, the text encoder in the run's precision."""
    model = {"random": "tiny", "backbone": backbone, **WIDTHS}
    buckets = {"min_frames": FRAMES, "max_frames": FRAMES, "area": 64 * 64, "aspects": [1.0], "step": 8}
    changes: dict[str, Any] = {"model": model, "precision": precision, "data": {"buckets": buckets}}
    if backbone == "ltx":
        changes["data"] = {"buckets": buckets | {"multiple": 32}}
    encode_all(configure("a", **changes), tmp_path)
    plain, kept = configure("a", **changes), configure("a", latents=True, **changes)
    folder = model_folder(plain.model, Path(plain.output))
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    alive, beside = Encoders.load(plain.model, folder, "cpu", dtype), CachedEncoders(kept, folder)
    sources = ClipSource(plain), ClipSource(kept, ids=beside.cache.ids)
    # In bfloat16 a prompt's tokens depend on those that are encoded with it, and z_img's tail is rounded.
    rounded = {"text", "image_latents"} if precision == "bf16" else set()
    for step in range(4):
        batches = [collate([source.load(pick) for pick in source.plan(step)]) for source in sources]
        (latents, one), (found, other) = encode(batches[0], alive), encode(batches[1], beside)
        torch.testing.assert_close(found, latents, atol=1e-5, rtol=0)
        for name, value in vars(one).items():
            tolerance = 0.03 if name in rounded else 1e-5
            torch.testing.assert_close(getattr(other, name), value, atol=tolerance, rtol=tolerance)
        for row, prompt in enumerate(batches[0].prompts):
            assert torch.equal(other.text[row], alive.text([prompt])[0][0])
        assert batches[1].text is not None and batches[1].text.dtype == dtype
    for name in ("", PROMPT):
        (tokens, mask), (expected, counted) = beside.text([name]), alive.text([name])
        assert torch.equal(tokens, expected) and torch.equal(mask, counted) and tokens.dtype == torch.float32


def test_distillation_beside_the_cache(configure: Configure, tmp_path: Path, loaded: list[str]) -> None:
    train(configure("stage2", steps=1, validation={}, samples={}))
    config = configure(
        "stage3",
        latents=True,
        stage="self_forcing",
        init=str(tmp_path / "stage2"),
        validation={},
        samples={"every": 2},
        distill={"steps": [1000, 500], "block": 2, "window": 3, "critic_steps": 2},
    )
    encode_all(configure("stage2"), tmp_path)
    loaded.clear()
    distill(config)
    assert loaded == ["AutoencoderKLWan"]


def test_what_the_cache_is_of(configure: Configure, tmp_path: Path) -> None:
    encode_all(configure("stage1", samples={}), tmp_path)
    assert "0 new, 9 there already" in encode_all(configure("stage1", samples={}), tmp_path)
    # The VAE's weights, the beginning of the others' files, and the precision are its name.
    (pictures,) = [path.name for path in (tmp_path / "latents" / "v4" / "pictures").iterdir()]
    (texts,) = [path.name for path in (tmp_path / "latents" / "v4" / "texts").iterdir()]
    assert re.fullmatch(r"wan-vae-[0-9a-f]{16}-clip-[0-9a-f]{16}-fp32", pictures)
    assert re.fullmatch(r"wan-text-[0-9a-f]{16}-fp32", texts)
    with pytest.raises(
        LatentError, match=f"holds pictures of {pictures}, none of wan-vae-.*: run `interavat"
    ):
        train(configure("other", latents=True, precision="bf16"))
    with pytest.raises(
        LatentError, match=r"the prompt 'A person nods\.', is not there: run .*samples\.prompts"
    ):
        train(configure("prompts", latents=True))
    with pytest.raises(LatentError, match=r"same data\.windows and data\.references"):
        train(configure("many", latents=True, steps=8, samples={}, data={"references": 5}))


def test_another_text_encoder_or_clip_has_another_name(configure: Configure) -> None:
    config = configure("plain")
    folder = model_folder(config.model, Path(config.output))
    encoders = Encoders.load(config.model, folder)
    before = encoder_ids(config, folder, encoders)
    assert encoder_ids(config, folder, encoders) == before
    (folder / "text_encoder" / "notes.txt").write_text("of no importance")
    assert encoder_ids(config, folder, encoders) == before
    weights = folder / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    other = encoder_ids(config, folder, encoders)
    assert other.text != before.text and other.pictures == before.pictures
    settings = folder / "image_processor" / "preprocessor_config.json"
    settings.write_text(settings.read_text() + " ")
    assert encoder_ids(config, folder, encoders).pictures != before.pictures
    (folder / "tokenizer").rename(folder / "elsewhere")
    with pytest.raises(WeightsError, match="tokenizer: nothing there names the encoder"):
        encoder_ids(config, folder, encoders)
