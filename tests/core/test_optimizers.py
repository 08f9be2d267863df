from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from incremental.core.optimizers import adagrad, adam, restarted, sgd, shape_of
from incremental.errors import UserError

STEPS, LR = 4, 0.1
START: Any = np.array([1.0, -2.0, 0.5], np.float32)
GRADS: Any = np.array([[0.5, -1.0, 2.0], [1.0, 0.25, -0.5], [-0.75, 2.0, 0.0], [0.1, 0.2, 0.3]], np.float32)


def path(tx: optax.GradientTransformation, grads: Any = GRADS) -> Any:
    """[S, D]: the parameters after each step on the given gradients."""

    def step(carry: Any, grad: Any) -> Any:
        params, state = carry
        updates, state = tx.update(grad, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (jnp.asarray(START), tx.init(jnp.asarray(START))), grads)[1]


def by_hand(rule: Callable[[int, Any, Any], Any], grads: Any = GRADS) -> Any:
    """The same with rule(step, gradient, parameters) -> update."""
    theta, found = np.float64(START), []
    for t, grad in enumerate(np.asarray(grads, np.float64)):
        theta = theta + rule(t, grad, theta)
        found.append(theta)
    return np.array(found)


def momentum_rule(beta: float) -> Any:
    m = np.zeros(3)

    def rule(_t: int, g: Any, _theta: Any) -> Any:
        nonlocal m
        m = beta * m + g
        return -LR * m

    return rule


def adagrad_rule() -> Any:
    total = np.full(3, 0.1)

    def rule(_t: int, g: Any, _theta: Any) -> Any:
        nonlocal total
        total = total + g**2
        return -LR * g / np.sqrt(total)

    return rule


def adam_rule(b1: float = 0.9, b2: float = 0.999, decay: float = 0.0) -> Any:
    m, v = np.zeros(3), np.zeros(3)

    def rule(t: int, g: Any, theta: Any) -> Any:
        nonlocal m, v
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        direction = m / (1 - b1 ** (t + 1)) / (np.sqrt(v / (1 - b2 ** (t + 1))) + 1e-8)
        return -LR * (direction + decay * theta)

    return rule


def coupled(rule: Any, l2: float) -> Any:
    return lambda t, g, theta: rule(t, g + l2 * theta, theta)


def clipped(g: Any, norm: float) -> Any:
    return g * min(1.0, norm / np.linalg.norm(g))


RULES: dict[str, tuple[optax.GradientTransformation, Any]] = {
    "sgd": (sgd(learning_rate=LR), lambda _t, g, _theta: -LR * g),
    "momentum": (sgd(learning_rate=LR, momentum=0.8), momentum_rule(0.8)),
    "sgd-decay": (sgd(learning_rate=LR, weight_decay=0.3), lambda _t, g, theta: -LR * (g + 0.3 * theta)),
    "clip": (sgd(learning_rate=LR, clip=1.0), lambda _t, g, _theta: -LR * clipped(g, 1.0)),
    "adagrad": (adagrad(learning_rate=LR), adagrad_rule()),
    "adam": (adam(learning_rate=LR), adam_rule()),
    "adam-betas": (adam(learning_rate=LR, b1=0.5, b2=0.9), adam_rule(0.5, 0.9)),
    "adamw": (adam(learning_rate=LR, weight_decay=0.2), adam_rule(decay=0.2)),
    "momentum-l2": (sgd(learning_rate=LR, momentum=0.8, l2=0.3), coupled(momentum_rule(0.8), 0.3)),
    "adam-l2": (adam(learning_rate=LR, l2=0.2), coupled(adam_rule(), 0.2)),
    "warmup": (sgd(learning_rate=LR, warmup=2), lambda t, g, _theta: -LR * [1 / 3, 2 / 3, 1, 1][t] * g),
    "linear": (
        sgd(learning_rate=LR, weight_decay=0.3, schedule="linear", decay=2),
        lambda t, g, theta: -LR * [1, 0.5, 0, 0][t] * (g + 0.3 * theta),
    ),
}


@pytest.fixture(scope="module")
def paths() -> Any:
    """Of all the rules, in one program."""
    return jax.jit(lambda grads: {name: path(tx, grads) for name, (tx, _) in RULES.items()})(GRADS)


@pytest.mark.parametrize("name", RULES)
def test_steps_are_the_published_rule(paths: Any, name: str) -> None:
    np.testing.assert_allclose(paths[name], by_hand(RULES[name][1]), rtol=2e-5, atol=1e-6)


def test_clipping_comes_before_the_moments() -> None:
    tx, huge = adam(learning_rate=LR, clip=1.0), GRADS * np.array([[1.0], [1e4], [1.0], [1.0]], np.float32)
    rule = adam_rule()
    expected = by_hand(lambda t, g, theta: rule(t, clipped(g, 1.0), theta), huge)
    np.testing.assert_allclose(jax.jit(lambda grads: path(tx, grads))(huge), expected, rtol=2e-5, atol=1e-6)


def test_accumulated_steps_are_one_step_on_the_mean_gradient() -> None:
    tx = adam(learning_rate=LR, accumulate=2, schedule="linear", decay=4)
    found = np.asarray(jax.jit(lambda grads: path(tx, grads))(GRADS))
    np.testing.assert_array_equal(found[0], START)
    np.testing.assert_array_equal(found[2], found[1])
    rule, means = adam_rule(), GRADS.reshape(2, 2, 3).mean(1)
    # The schedule counts whole steps.
    expected = by_hand(lambda t, g, theta: (1 - t / 4) * rule(t, g, theta), means)
    np.testing.assert_allclose(found[1::2], expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "warmup", "decay", "expected"),
    [
        ("constant", 0, 0, {0: 1, 1000: 1}),
        ("constant", 3, 0, {0: 0.25, 1: 0.5, 2: 0.75, 3: 1, 50: 1}),
        ("linear", 0, 10, {0: 1, 1: 0.9, 5: 0.5, 10: 0, 11: 0}),
        ("cosine", 0, 10, {0: 1, 5: 0.5, 10: 0, 99: 0, 2: 0.5 + 0.5 * np.cos(0.2 * np.pi)}),
        ("linear", 4, 10, {0: 0.2, 3: 0.8, 4: 1, 9: 0.5, 14: 0}),
    ],
)
def test_schedules_pass_through_known_values(
    schedule: Any, warmup: int, decay: int, expected: dict[int, float]
) -> None:
    shape = shape_of(schedule, warmup, decay)
    for count, value in expected.items():
        assert float(shape(np.int32(count))) == pytest.approx(value, abs=1e-6)


MAKERS: dict[str, tuple[Any, dict[str, list[float]]]] = {
    "sgd": (sgd, {"learning_rate": [0.01, 1.0], "momentum": [0.1, 0.9], "clip": [0.5, 9.0], "weight_decay": [0, 0.1]}),
    "adagrad": (adagrad, {"learning_rate": [0.01, 1.0], "clip": [0.5, 9.0], "weight_decay": [0, 0.1]}),
    "adam": (adam, {"learning_rate": [0.01, 1.0], "b1": [0.5, 0.9], "b2": [0.9, 0.99], "weight_decay": [0, 0.1]}),
}


@pytest.mark.parametrize("name", MAKERS)
def test_floats_may_be_traced_so_that_a_sweep_is_one_program(name: str) -> None:
    maker, floats = MAKERS[name]

    def run(values: Any) -> Any:
        return path(maker(**values, schedule="cosine", warmup=1, decay=6))

    stacked = {name: np.array(values, np.float32) for name, values in floats.items()}
    alone = [{name: values[lane] for name, values in floats.items()} for lane in range(2)]
    lanes, expected = jax.jit(lambda stacked: (jax.vmap(run)(stacked), [run(values) for values in alone]))(stacked)
    np.testing.assert_allclose(lanes, expected, rtol=1e-5, atol=1e-6)


def test_an_unknown_schedule_is_refused_with_what_is_allowed() -> None:
    wrong: Any = "exponential"
    with pytest.raises(UserError, match=r"optimizer\.schedule='exponential': expected constant, linear or cosine"):
        sgd(schedule=wrong)


@pytest.mark.parametrize("maker", [sgd, adagrad, adam])
def test_a_fall_without_its_length_is_refused(maker: Any) -> None:
    with pytest.raises(UserError, match=r"optimizer\.decay=0: schedule=cosine needs the number of steps"):
        maker(schedule="cosine")


def test_a_schedule_begins_anew_with_each_increment_or_spans_the_stream() -> None:
    """Three increments of two steps, a fall to 0 over two: the audit's run wrote nothing after the first."""
    for span, factors in (("increment", [1.0, 0.5] * 3), ("stream", [1.0, 0.5, 0.0, 0.0, 0.0, 0.0])):
        for accumulate in (1, 2):
            tx = sgd(learning_rate=LR, schedule="linear", decay=2, span=span, accumulate=accumulate)  # type: ignore[arg-type]
            state, moved, update = tx.init(START), [], jax.jit(tx.update)
            for step in range(6 * accumulate):
                if step % (2 * accumulate) == 0:
                    state = restarted(state)
                updates, state = update(np.ones(3, np.float32), state, START)
                if step % accumulate == accumulate - 1:
                    moved.append(float(-updates[0] / LR))
            np.testing.assert_allclose(moved, factors, atol=1e-6)
    with pytest.raises(UserError, match=r"optimizer\.span='epoch': expected increment or stream"):
        sgd(span="epoch")  # type: ignore[arg-type]


def test_rows_that_have_not_arrived_do_not_decay() -> None:
    tx = optax.with_extra_args_support(sgd(learning_rate=1.0, weight_decay=0.1, accumulate=2))
    params = {"table": np.ones((3, 2), np.float32), "bias": np.ones(2, np.float32)}
    arrived = {"table": np.array([[False], [True], [False]]), "bias": np.array(True)}

    @jax.jit
    def second() -> Any:
        state, updates = tx.init(params), params
        for _ in range(2):
            updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params, arrived=arrived)
        return updates

    updates = second()
    np.testing.assert_allclose(updates["table"], [[0.0, 0.0], [-0.1, -0.1], [0.0, 0.0]])
    np.testing.assert_allclose(updates["bias"], -0.1)
