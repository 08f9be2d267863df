"""What the environment must not change: the numbers of a run are those of its configuration."""

import os
from typing import Any

import jax

from incremental.errors import UserError

EXPECTED: dict[str, tuple[Any, ...]] = {
    "jax_enable_x64": (False,),
    "jax_default_prng_impl": ("threefry2x32",),
    "jax_threefry_partitionable": (True,),
    "jax_random_seed_offset": (0,),
    "jax_default_matmul_precision": (None,),
    "jax_numpy_dtype_promotion": ("standard",),
    "jax_numpy_rank_promotion": ("allow", "warn"),
    "jax_high_dynamic_range_gumbel": (False,),
    "jax_disable_jit": (False,),
}
"""JAX's options that change numbers, draws or checkpoints, and the values that runs are made for"""
INSTEAD = {"jax_default_matmul_precision": "; training.precision=tf32 is this project's choice of fewer digits"}


def check() -> None:
    """Refuses a process whose JAX computes, or draws, other numbers than the configuration says."""
    for option, values in EXPECTED.items():
        value = getattr(jax.config, option)
        value = getattr(value, "value", value)  # of an enumeration
        if value not in values:
            name = option.upper()
            raise UserError(
                f"{name}={value}: runs are made for {values[0]}, and this changes their numbers or stops them; "
                f"unset {name}{INSTEAD.get(option, '')}"
            )


def device() -> None:
    """Refuses a process whose JAX has no device of the platform that it is asked for."""
    try:
        jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # an assertion of JAX's own, where a platform's plugin is missing
        why = str(error).partition("\n")[0] or "JAX finds no such device"
        raise UserError(
            f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}: {why}; set JAX_PLATFORMS=cpu, unset it, or install "
            "JAX for that device"
        ) from error
