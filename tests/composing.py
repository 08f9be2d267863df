"""A faster Hydra for the tests: what compositions have in common is read and parsed once a process.

Hundreds of tests compose the same thirty files. Three things took two thirds of a composition:

- Reading the files. Each composition takes copies, for Hydra merges into what it read. A file that was written anew is
  read anew.
- Parsing the interpolations. A parse tree is only read, so that all compositions have one.
- The choices that a default such as `${model}` may name, which Hydra puts together for each file. Few files have one.
"""

import copy
import functools
import pickle
from pathlib import Path
from typing import Any

from hydra._internal import defaults_list
from hydra._internal.config_repository import ConfigRepository
from hydra.core.default_element import InputDefault
from hydra.core.object_type import ObjectType
from omegaconf import _utils, base, grammar_parser

_load = ConfigRepository.load_config
_choices = defaults_list._create_interpolation_map
_resolve = InputDefault._resolve_interpolation_impl
_loaded: dict[Any, Any] = {}


def install() -> None:
    """Compositions of this process share what they read from now on."""
    ConfigRepository.load_config = load
    _utils.parse = base.parse = functools.cache(grammar_parser.parse)
    defaults_list._create_interpolation_map = lambda *given: functools.partial(_choices, *given)
    InputDefault._resolve_interpolation_impl = lambda self, choices, value: _resolve(self, choices(), value)


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
        read = _load(self, config_path)
        _loaded[key] = read, pickle.dumps(read.config)
    read, config = _loaded[key]
    found = copy.copy(read)
    found.config = pickle.loads(config)
    return found
