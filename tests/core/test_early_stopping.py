"""Early stopping: which epochs are validated and count, and which one is kept of learner and strategy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from incremental.core import gradient
from incremental.core.ranking import over_events, over_users
from incremental.core.steps import validate
from incremental.core.strategy import Strategy
from incremental.core.types import Data, State
from incremental.run import alone
from incremental.run.stopping import restored
from tests import lab

pytestmark = pytest.mark.usefixtures("shared_programs")
SIZES = lab.SIZES
PLAIN = lab.Spec()


@functools.cache
def counted(patience: int) -> alone.Functions:
    """A program whose strategy counts its steps."""
    tiny = lab.problem_of(PLAIN, SIZES)
    counter = Strategy(init=lambda _: jnp.int32(0), record=lambda state, _step, _key: state + 1)
    return lab.functions(lab.make(tiny, {"counter": counter}, SIZES, lab.Spec(epochs=8, patience=patience)))


def test_patience_counts_after_the_least_number_of_epochs() -> None:
    """From random weights: the base part, and an update afresh; not where training goes on."""
    steps = gradient.training(batch_size=32, epochs=8, patience=2, least_epochs=4)
    nothing = optax.set_to_zero()  # no epoch is better than the first
    f = alone.Functions(gradient.make(lab.problem_of(PLAIN, SIZES), nothing, {}, sizes=SIZES, training=steps))
    (data, validation), (new, checked) = lab.data_at(0), lab.data_at(1)
    state, epochs = lab.train(f, f.init(jax.random.key(0)), data, validation)
    assert len(epochs) == 6
    state, epochs = lab.train(f, state, new, checked)
    assert len(epochs) == 3
    assert len(lab.train(f, f.restart(state, new), new, checked)[1]) == 6


def test_a_validation_every_second_epoch_and_at_the_last() -> None:
    """Values .1 .9 .2 .3 .9 at the epochs 1, 2, …: those of 2, 4 and 5 count, and of equal ones the first is kept."""
    state, (_, checked) = lab.functions(lab.build(PLAIN)(SIZES)).init(jax.random.key(0)), lab.data_at(1)
    noted = jax.jit(functools.partial(validate, metric=over_events, patience=2, epochs=5))
    validated = []
    for epoch, value in enumerate([0.1, 0.9, 0.2, 0.3, 0.9], 1):
        state = state._replace(fit=state.fit._replace(epoch=jnp.int32(epoch)))
        due = epoch % 2 == 0 or epoch == 5
        given = np.full(len(checked.rows.labels), value, np.float32)
        state = noted(state, checked, given, due)
        validated.append((bool(state.fit.better), int(state.fit.bad), bool(np.isfinite(state.fit.last))))
    assert validated == [(False, 0, False), (True, 0, True), (False, 0, False), (False, 1, True), (False, 2, True)]
    assert float(state.fit.value) == pytest.approx(0.9)
    assert not bool(state.fit.active)


def test_a_validation_value_is_a_mean_over_events_or_over_users() -> None:
    data = lab.data_at(1)[1]
    owner: Any = np.where(np.arange(len(data.rows.labels)) % 3 == 0, 7, 3)  # of five events two and three
    data = data._replace(rows=data.rows._replace(owner=owner), size=jnp.int32(5))
    values = np.arange(len(owner), dtype=np.float32)
    both = jax.jit(lambda values, data: (over_events(values, data), over_users(values, data)))
    events, users = both(values, data)
    assert float(events) == 2.0
    assert float(users) == pytest.approx(((0 + 3) / 2 + (1 + 2 + 4) / 3) / 2)
    events, users = both(values, data._replace(size=jnp.int32(0)))
    assert float(events) == float(users) == 0.0


@pytest.mark.parametrize(("epochs", "patience", "checked"), [(5, 9, [2, 4, 5]), (8, 1, [2, 4])])
def test_only_epochs_that_are_due_are_validated(epochs: int, patience: int, checked: list[int]) -> None:
    steps = gradient.training(batch_size=128, epochs=epochs, patience=patience, least_epochs=0, check_every=2)
    nothing = optax.set_to_zero()  # no epoch is better than the first
    f = lab.functions(gradient.make(lab.problem_of(PLAIN, SIZES), nothing, {}, sizes=SIZES, training=steps))
    (data, validation), state, met = lab.data_at(0), f.init(jax.random.key(0)), []
    state = f.begin(state, data)
    while bool(state.fit.active):
        state, _ = f.run_epoch(state, data)
        state = f.validate(state, validation, None)
        met += [int(state.fit.epoch)] if np.isfinite(state.fit.last) else []
    assert met == checked


def epochs_of(f: alone.Functions, data: Data, validation: Data) -> tuple[list[State], list[float], State]:
    """The state on the host after each epoch, the validation value then, and the state after the update."""
    state = f.begin(f.init(jax.random.key(0)), data)
    states, values, best = [], [], f.started(state) if f.program.keeps else None
    while bool(state.fit.active):
        state, _ = f.run_epoch(state, data)
        state = f.validate(state, validation, None)
        best = None if best is None else f.better(best, state)
        states.append(lab.on_host(state))
        ranks = np.asarray(f.rank(state, validation, None).rank)[: int(validation.size)]
        gains = np.where(ranks < 10, 1 / np.log2(np.minimum(ranks, 10) + 2), 0.0)
        values.append(float(gains.sum() / max(len(gains), 1)))
    return states, values, f.end(state if best is None else restored(state, best), data)


def test_the_best_epoch_is_kept_of_learner_and_strategy() -> None:
    data, validation = lab.data_at(0)
    states, values, ended = epochs_of(counted(2), data, validation)
    best = int(np.argmax(values))
    assert 0 < best < len(values) - 1  # otherwise the test would show nothing
    assert len(values) == min(best + 1 + 2, 8)
    assert float(states[-1].fit.value) == pytest.approx(values[best], rel=1e-5)
    assert [int(state.fit.epoch) for state in states] == list(range(1, len(values) + 1))
    lab.assert_same(ended.learner, states[best].learner)
    assert int(ended.strategy["counter"]) == int(states[best].strategy["counter"]) == (best + 1) * 4
    assert int(states[-1].strategy["counter"]) == len(values) * 4
    # The next increment starts with a clean slate.
    assert (int(ended.fit.epoch), int(ended.fit.bad), bool(ended.fit.active)) == (0, 0, True)
    assert np.isneginf(float(ended.fit.value))


@pytest.mark.parametrize(("patience", "empty"), [(0, False), (0, True), (2, True)])
def test_without_validation_or_patience_the_last_epoch_is_kept(patience: int, empty: bool) -> None:
    data, validation = lab.data_at(0)
    states, _, ended = epochs_of(counted(patience), data, lab.cut(validation, 0) if empty else validation)
    assert len(states) == 8
    lab.assert_same(ended.learner, states[-1].learner)
    assert int(ended.strategy["counter"]) == 8 * 4
