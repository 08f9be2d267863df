"""`method=NAME` as a source of configs (`incremental.app.methods`): light, for Hydra looks at each start."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

SCHEME, GROUP = "methods", "method"


class Beside(str):
    """The address of this source, which knows the search path that it is in; a copy of the path has a copy of it."""

    of: ConfigSearchPath


class MethodSource(ConfigSource):
    """Configs `method/NAME`."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider=provider, path=path)
        elements = path.of.get_path() if isinstance(path, Beside) else []
        addresses = [str(one.path) for one in elements if one.path is not path]
        self.others = [address for address in addresses if not address.startswith((f"{SCHEME}:", "structured:"))]

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path in ("", GROUP)

    def is_config(self, config_path: str) -> bool:
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        if group != GROUP:
            return False
        from incremental.app.methods import defaults

        return bool(defaults(name, self.others))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        from incremental.app.methods import names

        if config_path == "":
            return [] if results_filter == ObjectType.CONFIG or not names(self.others) else [GROUP]
        return [] if config_path != GROUP or results_filter == ObjectType.GROUP else names(self.others)

    def load_config(self, config_path: str) -> ConfigResult:
        from incremental.app.methods import defaults

        name = config_path.removesuffix(".yaml").rpartition("/")[2]
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found : {config_path}")
        config = OmegaConf.create({"defaults": defaults(name, self.others), "row": name})
        return ConfigResult(self.provider, self.full_path(), config, {"package": "_global_"})


class MethodsPath(SearchPathPlugin):
    """Puts the methods behind all other configs: a `method/NAME.yaml` that someone wrote goes first."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        address = Beside(f"{SCHEME}://")
        address.of = search_path
        search_path.append("incremental", address)
