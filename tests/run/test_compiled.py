import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.run.compiled import Compiled


def test_one_program_for_each_set_of_shapes_and_types() -> None:
    bodies = []

    def double(tree: dict[str, jax.Array], scale: jax.Array) -> jax.Array:
        bodies.append(1)
        return 2 * tree["x"] * scale

    compiled = Compiled(double)
    assert (compiled.traces, compiled.spent.seconds) == (0, 0.0)
    one = jnp.float32(1)
    for _ in range(3):
        assert compiled({"x": jnp.arange(3.0)}, one).tolist() == [0, 2, 4]
    assert (compiled.traces, len(bodies)) == (1, 1)
    assert compiled({"x": jnp.arange(4.0)}, one).tolist() == [0, 2, 4, 6]  # another shape
    assert compiled({"x": jnp.arange(3)}, jnp.int32(1)).dtype == jnp.int32  # another type
    assert (compiled.traces, len(bodies)) == (3, 3)


def test_compilation_is_timed_and_runs_are_not() -> None:
    def slow_to_trace(x: jax.Array) -> jax.Array:
        time.sleep(0.1)
        return x + 1

    compiled = Compiled(slow_to_trace)
    compiled(jnp.zeros(2))
    spent = compiled.spent.seconds
    assert spent >= 0.1
    compiled(jnp.ones(2))
    assert compiled.spent.seconds == spent


def test_programs_can_be_made_from_shapes_alone() -> None:
    compiled = Compiled(lambda x: x * 2)
    compiled.program(jax.ShapeDtypeStruct((2,), jnp.float32))
    spent = compiled.spent.seconds
    assert compiled(jnp.ones(2)).tolist() == [2, 2]
    assert (compiled.traces, compiled.spent.seconds) == (1, spent)


def test_donated_arguments_are_used_up() -> None:
    compiled = Compiled(lambda state, add: state + add, donate=(0,))
    state, add = jnp.zeros(8), jnp.ones(8)
    assert compiled(state, add).tolist() == [1.0] * 8
    assert state.is_deleted()
    assert not add.is_deleted()
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(state)


def test_random_keys_are_arguments_too() -> None:
    compiled = Compiled(lambda key: jax.random.uniform(key, (2,)))
    one, two = compiled(jax.random.key(0)), compiled(jax.random.key(1))
    assert one.tolist() != two.tolist()
    assert compiled.traces == 1
