"""What Hydra finds when it looks for plugins: light, for it looks at each start."""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class PackedLauncher(Launcher):
    """Runs a sweep's jobs in this process, those that differ in numbers only as one program."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        del task_function  # the launcher knows the `incremental` command's jobs only
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from hydra_plugins.incremental_packed import _core

        return _core.launch(self.hydra_context, self.config, job_overrides, initial_job_idx)


@dataclass
class PackedConfig:
    """The launcher has no settings: which jobs share a program is found from their configs."""

    _target_: str = "hydra_plugins.incremental_packed.launcher.PackedLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="packed", node=PackedConfig, provider="incremental")
