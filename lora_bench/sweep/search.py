"""Runs that a Hydra sweeper such as Optuna's chooses one by one, based on the scores so far."""

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ..compose import from_config, validate
from ..overrides import command_of
from ..training.prepared import DataCache, prepare
from ..training.run import announce, execute
from ..training.stop import Stopped, StopSignals
from ..tuned import SETTING


class Search:
    """The runs of one command whose settings are not all known in advance."""

    def __init__(self) -> None:
        self.cache = DataCache()

    def job(self, config: DictConfig) -> float:
        """Execute a run, or find its record.

        Returns:
            The first metric of the last epoch.

        Raises:
            Exception: why the run failed; the sweeper decides what follows.
            Stopped: the process was asked to stop.
        """
        words = list(HydraConfig.get().overrides.task)
        spec = validate(from_config(config, words))
        if OmegaConf.is_missing(config.train, "lr"):  # a tuned rate, which another search changes
            words.append(f"{SETTING}={spec.train.lr!r}")
        run = prepare(spec, self.cache, command_of(words))
        with StopSignals() as stop:
            (outcome,) = execute([run], stop)
        if outcome.error is not None:
            raise outcome.error
        announce(outcome.record, outcome.folder, skipped=not outcome.trained)
        if stop.received is not None:  # while the run was finishing
            raise Stopped(f"{stop.received} between two runs")
        score = outcome.record.main_score
        assert score is not None
        return score
