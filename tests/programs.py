"""What a test run compiles, it compiles once: programs stay in memory, and a folder has those of other processes.

JAX's own cache writes each program to its folder, which takes longer than all hits save. It writes in place, so that
another process could read half an entry.
"""

import atexit
import os
import runpy
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache
from jax._src.compilation_cache_interface import CacheInterface
from jax._src.interpreters import mlir

from tests import threefry

ROOT = Path(__file__).parents[1]
VARIABLE = "INCREMENTAL_TEST_PROGRAMS"
"""names the folder to the processes that this one starts"""


class Programs(CacheInterface):
    """A folder whose entries are there whole or not at all."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder)

    def get(self, key: str) -> bytes | None:
        try:
            return (self._path / key).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, key: str, value: bytes) -> None:
        part = self._path / f"{key}.{os.getpid()}.{threading.get_ident()}"
        part.write_bytes(value)
        part.replace(self._path / key)


class Contexts(threading.local):
    """MLIR's context for all that a thread lowers: a new one takes a third of what a small program takes to lower.

    After some programs it is a new one all the same, for a context keeps its constants.
    """

    made: Any = None
    programs = 0

    def __call__(self) -> Any:
        if self.programs % 64 == 0:
            self.made = new_context()
        self.programs += 1
        return self.made


new_context = mlir.make_ir_context
read = compilation_cache.get_executable_and_time
made: dict[str, Any] = {}


def found(cache_key: str, *how: Any) -> tuple[Any, int | None]:
    """The program and the seconds that it took, of this process or the folder."""
    return (made[cache_key], 0) if cache_key in made else read(cache_key, *how)


def keep(cache_key: str, module_name: str, executable: Any, *_how: Any) -> None:
    """In memory."""
    del module_name
    made[cache_key] = executable


def folder() -> str:
    """Of this test run: its first process makes it, and removes it in the end."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = tempfile.mkdtemp(prefix="incremental-tests-")
        atexit.register(shutil.rmtree, os.environ[VARIABLE], ignore_errors=True)
    return os.environ[VARIABLE]


def install(*, write: bool = True) -> None:
    """This process compiles with `threefry`, reads what is in `folder`, and writes there; or it keeps in memory what
    it compiles."""
    threefry.install()
    jax.config.update("jax_compilation_cache_dir", folder())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    mlir.make_ir_context = Contexts()
    compilation_cache._cache, compilation_cache._cache_initialized = Programs(folder()), True
    if not write:
        cache: Any = compilation_cache
        cache.get_executable_and_time, cache.put_executable_and_time = found, keep


def command(module: str) -> list[str]:
    """`python -m module`, as a process that compiles as the tests do and finds what others of its kind compiled."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests import programs; programs.run({module!r})"
    return [sys.executable, "-c", code]


def run(module: str) -> None:
    """What `command` runs."""
    install()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
