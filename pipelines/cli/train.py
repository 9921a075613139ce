"""`interavatar train` and `interavatar latents`; torch is imported when one of them runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from manifests.storage import is_client_error
from trainer.config import ConfigError, TrainConfig, load_config

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Config = Annotated[Path, typer.Option("--config", metavar="FILE", help="YAML; see configs/train.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, such as steps=10 or data.workers=8; may be repeated."),
]


@contextmanager
def _readable_errors() -> Iterator[None]:
    """Exit 2 for a wrong configuration, 1 for what could not be done, each with a clear message."""
    code, message = 0, ""
    try:
        yield
    except ConfigError as error:
        code, message = 2, f"error: {error}"
    except ImportError as error:
        code, message = 1, f"error: {error}; the trainer needs: pip install 'interavatar[train]'"
    except (ValueError, ArithmeticError, OSError) as error:
        code, message = 1, f"error: {error}"
    except Exception as error:
        if not is_client_error(error):
            raise
        code, message = 1, f"error: an object store cannot be used: {error}; the same command goes on"
    except KeyboardInterrupt:
        code, message = 1, "interrupted; the same command goes on where this one stopped"
    if message:
        err.print(message, style="red", markup=False, soft_wrap=True)
        raise typer.Exit(code)


def train(config: Config, overrides: Overrides = None) -> None:
    """Train on shards. The same command again goes on from the newest checkpoint.

    On several GPUs: torchrun --nproc-per-node 8 -m pipelines train --config FILE. SIGTERM or Ctrl-C saves
    and stops.

    Exit status: 0 all steps are done, 1 they are not, 2 the configuration is wrong.

    Example: interavatar train --config configs/train/tiny.yaml --set data.shards=[made/shards]
    """
    with _readable_errors():
        settings = load_config(config, overrides)
        from trainer.checkpoint import read_info
        from trainer.self_forcing import distill
        from trainer.train import train as flow_matching

        loop = {"flow": flow_matching, "self_forcing": distill}[settings.stage]
        checkpoint = loop(settings)
        done = int(read_info(checkpoint)["step"])
    _say_once(f"checkpoint  {checkpoint}")
    if done < settings.steps:
        _say_once(f"{done} of {settings.steps} steps are done; the same command goes on")
        raise typer.Exit(1)


def latents(
    config: Config,
    output: Annotated[str, typer.Option("--output", metavar="DIR", help="Folder of the cache, or a URL.")],
    overrides: Overrides = None,
) -> None:
    """Encode every clip that a configuration trains on once; name DIR as data.latents then.

    The same command again encodes what is missing. Under torchrun the processes share the work.

    Example: interavatar latents --config configs/train/wan_stage1.yaml --output latents
    """
    with _readable_errors():
        settings = load_config(config, overrides)
        _write_latents(settings, output)


def _write_latents(settings: TrainConfig, output: str) -> None:
    import torch
    from accelerate import PartialState

    from trainer.data.source import ClipSource
    from trainer.data.write_latents import write_latents
    from trainer.networks.encoders import Encoders
    from trainer.networks.tiny import model_folder

    state = PartialState(cpu=not torch.cuda.is_available())
    folder = model_folder(settings.model, Path(settings.output))
    encoders = Encoders.load(settings.model, folder, state.device)
    source = ClipSource(
        settings.model_copy(update={"data": settings.data.model_copy(update={"latents": None})})
    )
    for reason, count in source.left_out.items():
        _say_once(f"left out: {count} {reason}")
    written = write_latents(source, encoders, output, state.process_index, state.num_processes)
    out.print(
        f"latents  {output}: {written.new} new, {written.found} there already", markup=False, soft_wrap=True
    )


def _say_once(text: str) -> None:
    """Print in the first process alone."""
    from accelerate import PartialState

    if PartialState().is_main_process:
        out.print(text, markup=False, soft_wrap=True)
