"""What Hydra finds when it looks for plugins: light, for it looks at each start."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """Searches generation by generation; the launcher gets a whole generation at once."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from hydra_plugins.incremental_optuna import _core

        return _core.sweep(self.launcher, self.hydra_context, self.config, arguments, **self.settings)


@dataclass
class OptunaConfig:
    """The tuning protocol (docs/sweeps.md)."""

    _target_: str = "hydra_plugins.incremental_optuna.sweeper.OptunaSweeper"
    increments: int | None = None  # n: the stream of every trial ends with this increment
    trials: int = 32
    generation: int = 8  # trials asked for, and launched, at once
    sampler: str = "TPESampler"  # a class of optuna.samplers
    seed: int = 0  # of the sampler
    params: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaConfig, provider="incremental")
