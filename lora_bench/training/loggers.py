"""Where training curves may go as well: TensorBoard or Weights & Biases. Off by default; records hold what tables need."""

import importlib.util
from pathlib import Path

from ..spec import Spec, UserError


class Logger:
    """Takes numbers by step. This one drops them."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Args: step: optimizer steps so far. values: by name, as in ``train/loss`` or ``validation/accuracy``."""

    def close(self) -> None:
        """Write what is not written yet."""


class TensorBoard(Logger):
    """Event files in the run's folder: ``tensorboard --logdir <out_dir>/runs``."""

    def __init__(self, spec: Spec, folder: Path):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(folder / "logs")

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WandB(Logger):
    """One W&B run named by the key; W&B's own variables choose account and mode (``WANDB_MODE=offline``)."""

    def __init__(self, spec: Spec, folder: Path):
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project="lora-bench",
            name=spec.key(),
            dir=folder,
            config=spec.to_dict(),
            reinit="finish_previous",
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def close(self) -> None:
        self.run.finish()


LOGGERS = {"none": Logger, "tensorboard": TensorBoard, "wandb": WandB}


def make_logger(spec: Spec, folder: Path) -> Logger:
    """The logger of a spec. Raises: UserError: its package is not installed."""
    if spec.logger == "none":
        return Logger()
    if importlib.util.find_spec(spec.logger) is None:
        raise UserError(
            f"logger={spec.logger}: needs {spec.logger}: pip install 'lora-bench[{spec.logger}]'"
        )
    return LOGGERS[spec.logger](spec, folder)
