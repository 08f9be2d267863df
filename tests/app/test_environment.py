"""An environment that changes numbers is refused by the name of its variable."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from incremental.app import assemble, environment
from incremental.errors import UserError
from tests.app.small import composed


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("jax_enable_x64", True),
        ("jax_default_prng_impl", "rbg"),
        ("jax_threefry_partitionable", False),
        ("jax_random_seed_offset", 1),
        ("jax_default_matmul_precision", "bfloat16"),
        ("jax_numpy_dtype_promotion", SimpleNamespace(value="strict")),
        ("jax_numpy_rank_promotion", "raise"),
        ("jax_high_dynamic_range_gumbel", True),
        ("jax_disable_jit", True),
    ],
)
def test_what_changes_numbers_is_refused_by_name(
    option: str, value: Any, monkeypatch: pytest.MonkeyPatch, documented: Callable[[str, object], None]
) -> None:
    environment.check()  # that of the tests
    own = {name: getattr(jax.config, name) for name in environment.EXPECTED}
    monkeypatch.setattr(environment, "jax", SimpleNamespace(config=SimpleNamespace(**{**own, option: value})))
    with pytest.raises(UserError, match=f"{option.upper()}=.*; unset {option.upper()}") as error:
        environment.check()
    if option == "jax_enable_x64":  # one of them stands for all
        documented("JAX_ENABLE_X64 in the environment", error.value)


def test_every_run_and_every_reader_of_a_checkpoint_asks(tmp_path: Path) -> None:
    with jax.enable_x64(True), pytest.raises(UserError, match="JAX_ENABLE_X64=True"):
        assemble.assemble(composed(tmp_path))


@pytest.mark.parametrize(
    ("error", "said"),
    [(AssertionError(), "JAX finds no such device"), (RuntimeError("no backend 'tpu'\nmore"), "no backend 'tpu'")],
)
def test_a_platform_without_a_device_is_refused(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise error

    environment.device()  # that of the tests
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "default_backend", fail)
    with pytest.raises(UserError, match=f"JAX_PLATFORMS=cuda: {said}; set JAX_PLATFORMS=cpu"):
        environment.device()
