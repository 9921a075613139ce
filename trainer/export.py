"""A checkpoint as a folder that diffusers' `from_pretrained` loads, and that training and sampling take."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import yaml
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file

from configs.errors import UsageError
from trainer.backbones import BACKBONES
from trainer.checkpoint import CONFIG, INFO, find, read_info
from trainer.config import TrainConfig, load_config
from trainer.exported import ADAPTERS, TRANSFORMER, base_folder
from trainer.generate import Trained, load_for_sampling
from trainer.networks.encoders import SETTINGS
from trainer.networks.load import image_encoder_folder, quiet

CARD: Final = "README.md"
SOURCES: Final = "sources.yaml"  # of a folder that `interavatar models fetch --for` made


def export_model(
    checkpoint: Path, output: Path, dtype: torch.dtype = torch.float32, folder: Path | None = None
) -> Path:
    """Write a checkpoint's averaged weights as a pipeline of diffusers; `output` appears whole, or not.

    `transformer/` is diffusers' class, `adapters/` has the new layers, which diffusers does not know. The
    encoders are copied as they are. `trainer.json` and `config.yaml` make it a checkpoint of the trainer.

    Args:
        checkpoint: its folder, or that of its run: then the newest.
        output: folder to make.
        dtype: of the network's weights.
        folder: the diffusers checkpoint that training began with, where it has moved.

    Raises:
        UsageError: `output` is there already.
        CheckpointError, WeightsError: as `load_for_sampling`.
    """
    if output.exists():
        raise UsageError(f"{output} is there already: give a folder that is to be made")
    checkpoint = find(checkpoint).absolute()
    info, config = read_info(checkpoint), load_config(checkpoint / CONFIG)
    base = folder or base_folder(checkpoint, info, config)
    trained = load_for_sampling(checkpoint, "cpu", base)
    output.parent.mkdir(parents=True, exist_ok=True)
    making = output.with_name(f".{output.name}.partial")
    shutil.rmtree(making, ignore_errors=True)  # of a process that was killed
    making.mkdir()
    try:
        _write_network(trained, making, dtype)
        _write_pipeline(trained, base, making)
        _write_config(config, making)
        (making / CARD).write_text(_card(trained, base, dtype))
        _write_info(info, making)
        making.rename(output)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return output


def _write_network(trained: Trained, output: Path, dtype: torch.dtype) -> None:
    """transformer/ and adapters/."""
    network = trained.model.to(dtype)
    with quiet():
        network.transformer.save_pretrained(output / TRANSFORMER)
    state = network.state_dict()
    new = {n: w.contiguous() for n, w in state.items() if not n.startswith(f"{TRANSFORMER}.")}
    (output / ADAPTERS).mkdir()
    save_file(new, output / ADAPTERS / "adapters.safetensors", {"format": "pt"})
    model = trained.config.model.model_dump(include=_widths())
    said = {"_class_name": type(network).__name__, "backbone": trained.config.model.backbone} | model
    said["fps"] = trained.config.data.buckets.fps
    (output / ADAPTERS / "config.json").write_text(json.dumps(said, indent=2) + "\n")


def _widths() -> set[str]:
    of = ("identity", "attribute", "audio")
    return {f"{name}_dim" for name in of} | {"identity_tokens", "audio_tokens", "position_tokens"}


def _write_pipeline(trained: Trained, base: Path, output: Path) -> None:
    """The encoders, the scheduler that sampling follows, and model_index.json."""
    config, encoders = trained.config, trained.encoders
    backbone = encoders.backbone
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(base / part, output / part)
    clip = image_encoder_folder(config.model, base)
    settings = (clip if config.model.image_encoder else base / "image_processor") / SETTINGS
    shutil.copytree(clip, output / "image_encoder")
    (output / "image_processor").mkdir()
    shutil.copy(settings, output / "image_processor" / SETTINGS)
    if (base / SOURCES).is_file():
        shutil.copy(base / SOURCES, output / SOURCES)
    shift = config.distill.shift if trained.is_distilled else config.shift
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.save_pretrained(output / "scheduler")
    pipeline = getattr(diffusers, backbone.pipeline)
    made = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["diffusers", backbone.transformer.__name__],
        "vae": ["diffusers", backbone.vae.__name__],
        "text_encoder": ["transformers", backbone.text_encoder.__name__],
        "tokenizer": ["transformers", type(encoders.tokenizer).__name__],
        "image_encoder": ["transformers", "CLIPVisionModel"],
        "image_processor": ["transformers", "CLIPImageProcessor"],
        "transformer_2": [None, None],  # of Wan 2.2
    }
    takes = inspect.signature(pipeline.__init__).parameters
    index: dict[str, Any] = {part: made[part] for part in sorted(made) if part in takes}
    index = {"_class_name": pipeline.__name__, "_diffusers_version": diffusers.__version__} | index
    (output / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _write_config(config: TrainConfig, output: Path) -> None:
    """What was trained. Here all weights are whole, and the encoders lie beside them."""
    model = config.model.model_copy(update={"image_encoder": None})
    optimiser = config.optimiser.model_copy(update={"trainable": "all"})
    changed = config.model_copy(update={"model": model, "optimiser": optimiser})
    (output / CONFIG).write_text(yaml.safe_dump(changed.model_dump(mode="json"), sort_keys=False))


def _write_info(info: Mapping[str, Any], output: Path) -> None:
    """trainer.json; it lists all files but the card, which people write on."""
    files = sorted(path for path in output.rglob("*") if path.is_file() and path != output / CARD)
    sizes = {str(path.relative_to(output)): path.stat().st_size for path in files}
    here = {"model": None, "files": sizes}  # the folder is its own base
    (output / INFO).write_text(json.dumps({**info, **here}, indent=2) + "\n")


def _card(trained: Trained, base: Path, dtype: torch.dtype) -> str:
    """README.md: what it is, what it was made of and under which licences, how it is loaded."""
    config, info = trained.config, trained.info
    sources = yaml.safe_load((base / SOURCES).read_text()) if (base / SOURCES).is_file() else {}
    models = sorted({s["repository"] for s in sources.values() if "repository" in s})
    licences = sorted({s["licence"] for s in sources.values() if "licence" in s})
    licence = licences[0].lower() if len(licences) == 1 else "other"
    head: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "image-to-video", "license": licence}
    if models:
        head["base_model"] = models
    lines = [f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n", f"# {config.name}\n"]
    if info.get("stand_in"):
        lines.append(f"**It began with {info['stand_in']}: a test, of no use.**\n")
    lines.append(
        f"InterAvatar on {BACKBONES[config.model.backbone].title}: {config.stage}, step {info['step']}, "
        f"averaged weights, {str(dtype).removeprefix('torch.')}. The transformer is diffusers' own; the "
        "layers for identity, appearance, audio and touch are in `adapters/`, and diffusers' pipeline runs "
        "without them.\n"
    )
    lines += [
        "```python",
        "from diffusers import DiffusionPipeline",
        "",
        f'pipeline = DiffusionPipeline.from_pretrained("FOLDER")  # {trained.encoders.backbone.pipeline}',
        "```\n",
        "With all of its conditions: `interavatar sample --checkpoint FOLDER ...`. To train further: "
        "`init: FOLDER`.\n",
        "## Made of\n",
    ]
    if sources:
        lines += ["| part | model | licence |", "| --- | --- | --- |"]
        for part, s in sources.items():
            where = f"{s.get('repository', s['model'])} @ {s.get('revision', '?')}"
            licence = s.get("licence", "not stated")
            lines.append(f"| {part} | {where} | {licence} {s.get('licence_url', '')} |")
    else:
        lines.append(f"The diffusers checkpoint `{base.name}`; its licence is not known here and applies.")
    embedders = info.get("embedders") or {}
    lines.append("\nIts conditions were trained on features of:\n")
    lines += [f"- {column}: {name}" for column, name in embedders.items()] or ["- none"]
    lines.append("\n`config.yaml` is the configuration it was trained with.\n")
    return "\n".join(lines)
