"""JAX's random bits from one function in C: the same bits, and each draw is one instruction of a program.

XLA has about 170 instructions for each draw, and a training program has dozens of draws: half of its compilation. Where
there is no C compiler, the tests draw as users do, and take longer.
"""

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core.primitives import threefry2x32_p
from jax.interpreters import mlir

SOURCE = Path(__file__).with_suffix(".c")
TARGET = "tests_threefry"


def install() -> bool:
    """Programs for the CPU draw by `SOURCE` from now on. False where nothing compiles C."""
    compiler = shutil.which("cc")
    if compiler is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "threefry.so"
        command = [compiler, "-O2", "-shared", "-fPIC", f"-I{jax.ffi.include_dir()}", str(SOURCE), "-o", str(library)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        loaded = ctypes.CDLL(str(library))
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(loaded.threefry), platform="cpu")
    mlir.register_lowering(threefry2x32_p, mlir.lower_fun(bits, multiple_results=True), platform="cpu")
    return True


def bits(*words: Any) -> list[jax.Array]:
    """Two words of random bits for two of the key and two of the counter, all broadcast to one shape; uint32."""
    same = jnp.broadcast_arrays(*words)
    like = jax.ShapeDtypeStruct(same[0].shape, jnp.uint32)
    return list(jax.ffi.ffi_call(TARGET, (like, like))(*same))
