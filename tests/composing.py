"""A faster Hydra for the tests: a config file is read and parsed once a process, not once a composition.

Hundreds of tests compose the same thirty files, and reading them is a third of a composition. Each composition
takes copies, for Hydra merges into what it read. A file that was written anew is read anew.
"""

import copy
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType

_load = ConfigRepository.load_config
_loaded: dict[Any, Any] = {}


def install() -> None:
    """Compositions of this process share what they read from now on."""
    ConfigRepository.load_config = load


def load(self: ConfigRepository, config_path: str) -> Any:
    """The config, its header and its defaults, of the first source that has it."""
    source = self._find_object_source(config_path=config_path, object_type=ObjectType.CONFIG)
    key: tuple[Any, ...] = () if source is None else (type(source), source.provider, source.path, config_path)
    if source is not None and source.scheme() == "file":
        file = (Path(source.path) / source._normalize_file_name(config_path)).stat()
        key = (*key, file.st_ino, file.st_mtime_ns, file.st_size)
    elif source is None or source.provider not in ("hydra", "schema"):
        return _load(self, config_path)  # a package of the test's, say
    if key not in _loaded:
        _loaded[key] = _load(self, config_path)
    found = copy.copy(_loaded[key])
    found.config = copy.deepcopy(found.config)
    return found
