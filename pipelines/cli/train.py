"""`interavatar train` and `interavatar latents`; torch is imported when one of them runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.names import training_runs

if TYPE_CHECKING:
    from trainer.config import TrainConfig

Config = Annotated[
    str,
    typer.Option(
        "--config",
        metavar="FILE",
        help="A YAML file, or the name of one in configs/train.",
        autocompletion=training_runs,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, such as steps=10 or data.workers=8; may be repeated."),
]
INTERRUPTED = "interrupted; the same command goes on where this one stopped"
INSTALL = "the trainer needs: pip install 'interavatar[train]'"


def train(
    config: Config,
    overrides: Overrides = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="SETTING",
            help="A setting that may differ from what the run had until now, such as data.shards.",
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only compute what the run takes: memory of a GPU, days.")
    ] = False,
    gpus: Annotated[
        int, typer.Option("--gpus", min=1, help="With --plan: how many, eight in a machine.")
    ] = 8,
    memory: Annotated[float, typer.Option("--gpu-memory", min=1, help="With --plan: of one GPU, GiB.")] = 80,
    tflops: Annotated[
        float, typer.Option("--tflops", min=1, help="With --plan: what one GPU is taken to do, TFLOP/s.")
    ] = 350,
) -> None:
    """Train on shards. The same command again goes on from the newest checkpoint.

    On several GPUs: torchrun --nproc-per-node 8 -m pipelines train --config FILE. SIGTERM or Ctrl-C saves
    and stops.

    Exit status: 0 all steps are done, 1 they are not, 2 the configuration is wrong.

    With --plan: 0 it fits, 2 it does not.

    Example: interavatar train --config tiny --set data.shards=[made/shards]
    """
    from pipelines.cli.console import readable_errors

    with readable_errors(INTERRUPTED, INSTALL):
        from trainer.config import load_config

        settings = load_config(config, overrides or ())
        if plan:
            _show_plan(settings, gpus, memory, tflops)
            return
        from trainer.checkpoint import read_info
        from trainer.ode import regress
        from trainer.self_forcing import distill
        from trainer.train import train as flow_matching

        loop = {"flow": flow_matching, "ode": regress, "self_forcing": distill}[settings.stage]
        checkpoint = loop(settings, allow or ())
        done = int(read_info(checkpoint)["step"])
        _say_once(f"checkpoint  {checkpoint}")
        if done < settings.steps:
            _say_once(f"{done} of {settings.steps} steps are done; the same command goes on")
            raise typer.Exit(1)


def _show_plan(settings: TrainConfig, gpus: int, memory: float, tflops: float) -> None:
    from pathlib import Path

    from rich.table import Table

    from pipelines.cli.console import err, out
    from trainer.plan import GIB
    from trainer.plan import plan as compute

    folder = None if settings.model.folder is None else Path(settings.model.folder)
    with err().status("computing: half a minute"):
        found = compute(settings, gpus, tflops=tflops, folder=folder)
    there = folder is not None and (folder / "transformer" / "config.json").is_file()
    view = Table(f"{settings.name} on {gpus} GPUs", "", title_justify="left")
    for name, count in found.parameters.items():
        view.add_row(f"parameters, {name}", f"{count / 1e9:.3f} billion")
    for kind, size in found.memory.items():
        view.add_row(f"memory, {kind}", f"{size / GIB:.1f} GiB")
    view.add_row("memory, together", f"{found.total / GIB:.1f} of {memory:g} GiB on each GPU")
    view.add_row("forward passes of a GPU in a step", str(found.micro_batches))
    view.add_row("a clip of the longest bucket", f"{found.flops / 1e15:.2f} PFLOP, encoders apart")
    view.add_row(f"{settings.steps} steps at {found.tflops:g} TFLOP/s", f"{found.days:.1f} days at most")
    out().print(view)
    if not there:
        out().print("the network has the published shape: there is no model.folder yet")
    found.check(memory * GIB)


def latents(
    config: Config,
    output: Annotated[str, typer.Option("--output", metavar="DIR", help="Folder of the cache, or a URL.")],
    overrides: Overrides = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="Clips of one size, pictures or prompts encoded at once.")
    ] = 1,
) -> None:
    """Encode every clip and prompt that a configuration trains on once; name DIR as data.latents then.

    The same command again encodes what is missing. Under torchrun the processes share the work.

    Example: interavatar latents --config wan_stage1 --output latents
    """
    from pipelines.cli.console import readable_errors

    with readable_errors(INTERRUPTED, INSTALL):
        from trainer.config import load_config

        settings = load_config(config, overrides or ())
        _write_latents(settings, output, batch)


def _write_latents(settings: TrainConfig, output: str, batch: int) -> None:
    from pathlib import Path

    import torch

    from pipelines.cli.console import out
    from trainer.config import ValidationConfig
    from trainer.data.source import ClipSource
    from trainer.data.write_latents import write_latents
    from trainer.networks.encoders import Encoders, encoder_ids
    from trainer.networks.tiny import model_folder
    from trainer.processes import together

    with together() as processes:
        # All clips, those of held-out persons included.
        whole = {
            "data": settings.data.model_copy(update={"latents": None}),
            "validation": ValidationConfig(),
        }
        source = ClipSource(settings.model_copy(update=whole))
        for reason, count in source.left_out.items():
            _say_once(f"left out: {count} {reason}")
        with processes.main_first():
            folder = model_folder(settings.model, Path(settings.output))
        half = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        encoders = Encoders.load(settings.model, folder, processes.device, half)
        ids = encoder_ids(settings, folder, encoders)
        written = write_latents(source, encoders, ids, output, batch, processes.rank, processes.count)
        out().print(f"latents  {output}: {written.new} new, {written.found} there already")


def _say_once(text: str) -> None:
    """Print in the first of the processes that torchrun started."""
    import os

    from pipelines.cli.console import out

    if os.environ.get("RANK", "0") == "0":
        out().print(text)
