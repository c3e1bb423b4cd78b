"""Training curves for TensorBoard or Weights & Biases. Off by default: tables only need records."""

from pathlib import Path
from typing import Any

from ..spec import Spec


class Logger:
    """Receives numbers by step. This class ignores them."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log values at a step.

        Args:
            step: optimizer steps so far.
            values: values by name, as in ``train/loss`` or ``validation/accuracy``.
        """

    def close(self) -> None:
        """Flush what is still buffered."""


class TensorBoard(Logger):
    """Event files in the run's folder: ``tensorboard --logdir <out_dir>/runs``."""

    def __init__(self, spec: Spec, key: str, folder: Path):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(folder / "logs")

    def log(self, step: int, values: dict[str, float]) -> None:
        """See Logger."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See Logger."""
        self.writer.close()


class WandB(Logger):
    """One W&B run, named by the key. W&B's variables set account and mode (``WANDB_MODE``)."""

    def __init__(self, spec: Spec, key: str, folder: Path):
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project="lora-bench",
            name=key,
            dir=folder,
            config=spec.to_dict(),
            reinit="create_new",
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        """See Logger."""
        self.run.log(values, step=step)

    def close(self) -> None:
        """See Logger."""
        self.run.finish()


LOGGERS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": WandB}


def make_logger(spec: Spec, key: str, folder: Path) -> Logger:
    """The logger of a run.

    Args:
        spec: settings of the run.
        key: key of the run.
        folder: folder of the run.
    """
    return Logger() if spec.logger == "none" else LOGGERS[spec.logger](spec, key, folder)
