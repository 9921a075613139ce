"""Where a run's numbers and clips go: TensorBoard, Weights & Biases, by one interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from configs.reading import SettingsError


class Tracker(Protocol):
    """What a run is told to. Called in the main process alone."""

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Scalars by name, of the state after `step` steps."""
        ...

    def clip(self, name: str, path: Path, step: int) -> None:
        """A clip that was written, an .mp4."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class TensorBoard:
    """Event files in `folder`; clips stay where they are, their paths are noted."""

    def __init__(self, folder: Path, first: int) -> None:
        """What a killed run wrote after step `first` is not shown any more."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=first + 1)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def clip(self, name: str, path: Path, step: int) -> None:
        """See `Tracker`."""
        self.writer.add_text(f"clips/{name}", str(path), step)

    def close(self) -> None:
        """See `Tracker`."""
        self.writer.close()


class WeightsAndBiases:
    """A run of wandb, which its own environment configures: WANDB_PROJECT, WANDB_MODE, ..."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], resumed: bool) -> None:
        """Begin, or go on with, the run whose id stands in `folder`.

        Raises:
            SettingsError: wandb is not installed.
        """
        try:
            import wandb
        except ImportError:
            raise SettingsError("trackers: wandb is not installed: pip install wandb") from None
        self._wandb: Any = wandb
        kept = folder / "wandb-id"
        known = kept.read_text().strip() if resumed and kept.is_file() else None
        folder.mkdir(parents=True, exist_ok=True)
        self.run: Any = wandb.init(
            dir=str(folder),
            name=name,
            id=known,
            resume="allow",
            config=dict(settings),
            settings={"silent": True},
        )
        kept.write_text(self.run.id)
        # wandb's own step may never fall, as it does where a run goes on from a checkpoint: ours is a number.
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        self.run.log(dict(values) | {"step": step})

    def clip(self, name: str, path: Path, step: int) -> None:
        """See `Tracker`."""
        self.run.log({f"clips/{name}": self._wandb.Video(str(path), format="mp4"), "step": step})

    def close(self) -> None:
        """See `Tracker`."""
        self.run.finish()


def open_trackers(
    kinds: list[Any], output: Path, name: str, settings: Mapping[str, Any], first: int
) -> list[Tracker]:
    """The trackers that a configuration names.

    Args:
        kinds: of `TrainConfig.trackers`.
        output: folder of the run.
        name: of the run.
        settings: its configuration, as JSON.
        first: steps that are done already.
    """
    made: list[Tracker] = []
    if "tensorboard" in kinds:
        made.append(TensorBoard(output / "tensorboard" / name, first))
    if "wandb" in kinds:
        made.append(WeightsAndBiases(output, name, settings, first > 0))
    return made
