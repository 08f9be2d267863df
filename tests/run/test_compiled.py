import threading
import time
from concurrent.futures import ThreadPoolExecutor

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


def test_two_threads_make_one_program_between_them() -> None:
    bodies, begun = [], threading.Event()

    def slow_to_trace(x: jax.Array) -> jax.Array:
        bodies.append(1)
        begun.set()
        time.sleep(0.2)
        return x + 1

    compiled, x = Compiled(slow_to_trace), jnp.zeros(2)
    other = threading.Thread(target=compiled.ahead, args=(jax.ShapeDtypeStruct((2,), jnp.float32),))
    other.start()
    assert begun.wait(60)
    assert compiled.spent.waited == 0.0
    assert compiled(x).tolist() == [1, 1]
    other.join()
    assert (len(bodies), compiled.traces) == (1, 1)
    assert compiled.spent.waited > 0
    assert compiled.spent.seconds >= 0.2


def test_what_another_thread_cannot_make_is_tried_again_where_it_is_needed() -> None:
    tries, begun, waiting = [], threading.Event(), threading.Event()

    def broken(_: jax.Array) -> jax.Array:
        tries.append(threading.current_thread())
        begun.set()
        waiting.wait(60)
        raise ValueError(f"try {len(tries)}")

    compiled = Compiled(broken)
    other = ThreadPoolExecutor(1).submit(compiled.ahead, jnp.zeros(2))
    assert begun.wait(60)
    threading.Timer(0.2, waiting.set).start()
    with pytest.raises(ValueError, match="try 2"):
        compiled(jnp.zeros(2))
    assert str(other.exception()) == "try 1"
    assert tries[1] is threading.current_thread()
