"""What the environment must not change: the numbers of a run are those of its configuration."""

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
