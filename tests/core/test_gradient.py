import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from incremental.core import gradient, steps
from incremental.core.optimizers import sgd
from incremental.core.problem import Head, problem
from incremental.core.spec import Sizes, next_item
from incremental.core.types import Data, Outputs, Params, State
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.models.matrix_factorization import matrix_factorization
from incremental.run import alone, loop
from tests import lab

pytestmark = pytest.mark.usefixtures("shared_programs")
SIZES = lab.SIZES
PLAIN = lab.Spec()


@jax.jit
@jax.value_and_grad
def weighed_loss(params: Params, users: Any, labels: Any, seen: Any, weight: Any) -> jax.Array:
    """Σ w ℓ, ℓ that of matrix factorisation under a full softmax, written out."""
    scores = params["user"]["embedding"][users] @ params["item"]["embedding"].T + params["item_bias"][None]
    own = scores[jnp.arange(len(labels)), labels]
    return (weight * (jnp.log(jnp.where(seen, jnp.exp(scores), 0.0).sum(1)) - own)).sum()


def reference(
    params: Params, data: Data, seen: Any, weight: Any, replayed: tuple[int, int, float] = (1, 1, 0.0)
) -> tuple[float, Params]:
    """The loss of the first 32 rows with these weights [32] and of a replayed (user, label, weight); its gradient."""
    user, label, by = replayed
    users, labels = np.append(data.rows.inputs["user"][:32], user), np.append(data.rows.labels[:32], label)
    value, grads = weighed_loss(params, users, labels, seen, np.append(weight, by).astype(np.float32))
    return float(value), lab.on_host(grads)


def mean_of(size: int) -> Any:
    """[32]: the weights of a mean over the first rows."""
    return np.where(np.arange(32) < size, 1 / size, 0.0)


# -- one step -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 20])
def test_a_step_is_the_mean_gradient_over_the_batch(size: int) -> None:
    """SGD at rate 1 on one batch, whole or part: parameters move by the gradient of the mean loss."""
    f = lab.functions(lab.build(lab.Spec(optimizer="sgd"))(SIZES))
    data = lab.cut(lab.data_at(0)[0], size)
    state = f.begin(f.init(jax.random.key(0)), data)
    before, seen = lab.on_host((state.learner.params, state.learner.catalogue.seen))
    loss, grads = reference(before, data, seen, mean_of(size))
    state, info = f.run_epoch(state, data)
    lab.assert_close(state.learner.params, jax.tree.map(np.subtract, before, grads), rtol=1e-4, atol=1e-6)
    assert float(info.loss) == pytest.approx(loss, rel=1e-5)
    assert (int(info.examples), int(info.steps)) == (size, 1)


def test_replayed_rows_add_to_the_loss_of_the_new_ones() -> None:
    """Σ_new w ℓ / Σ_new w + Σ_replayed w ℓ / B, whether B rows are new or one; an empty memory's rows weigh nothing."""
    f = lab.functions(lab.build(lab.Spec("replay", optimizer="sgd"))(SIZES))
    data = lab.cut(lab.data_at(0)[0], 32)
    state = f.begin(f.init(jax.random.key(0)), data)
    state, info = f.run_epoch(state, data)
    assert int(info.examples) == 32
    host = lab.on_host(state)
    params, memory, seen = host.learner.params, host.strategy["replay"], host.learner.catalogue.seen

    # Memory: 32 copies of one row, so that whatever is drawn is known.
    user, label = int(memory.rows.inputs["user"][0]), int(memory.rows.labels[0])
    rows = jax.tree.map(lambda leaf: np.broadcast_to(leaf[:1], leaf.shape), memory.rows)
    host = host._replace(strategy={"replay": memory._replace(rows=rows, inserted=np.int32(32))})

    for size in (32, 1):
        value, grads = reference(params, data, seen, mean_of(size), (user, label, 16 / 32))
        after, info = f.run_epoch(lab.put_back(host, state), lab.cut(data, size))
        assert int(info.examples) == size + 16
        assert float(info.terms["data"]) == pytest.approx(value, rel=1e-5)
        lab.assert_close(after.learner.params, jax.tree.map(np.subtract, params, grads), rtol=1e-4, atol=1e-6)


def test_a_label_that_is_trained_on_is_a_candidate() -> None:
    """A replayed row whose label the catalogue has forgotten, as after a fresh start on a window."""
    f = lab.functions(lab.build(lab.Spec("replay", optimizer="sgd"))(SIZES))
    data = lab.cut(lab.data_at(0)[0], 32)
    state, _ = f.run_epoch(f.begin(f.init(jax.random.key(0)), data), data)
    # 32 copies of one row, so that whatever is drawn is known.
    host = lab.on_host(state)
    rows = jax.tree.map(lambda leaf: np.broadcast_to(leaf[:1], leaf.shape), host.strategy["replay"].rows)
    user, label = int(rows.inputs["user"][0]), SIZES.slots - 1
    params, seen = host.learner.params, host.learner.catalogue.seen
    assert not seen[label]
    memory = host.strategy["replay"]._replace(rows=rows._replace(labels=np.full_like(rows.labels, label)))
    host = host._replace(strategy={"replay": memory})
    candidates = seen | (np.arange(len(seen)) == label)
    value, _ = reference(params, data, candidates, mean_of(32), (user, label, 16 / 32))
    state, info = f.run_epoch(lab.put_back(host, state), data)
    assert float(info.terms["data"]) == pytest.approx(value, rel=1e-5)
    assert int(info.broken.step) < 0


def test_table_rows_of_ids_to_come_do_not_decay() -> None:
    """So that tables with room for the whole stream train as tables that grow."""
    decaying, steps = sgd(learning_rate=0.1, weight_decay=0.5), gradient.training(batch_size=32, patience=0)
    program = gradient.make(lab.problem_of(PLAIN, SIZES), decaying, {}, sizes=SIZES, training=steps)
    data = lab.cut(lab.data_at(0)[0], 32)
    state = jax.jit(lambda key: program.begin(program.init(key), data))(jax.random.key(0))
    after = jax.jit(program.run_epoch)(state, data)[0].learner.params
    before = np.asarray(state.learner.params["item"]["embedding"])
    still = (np.asarray(after["item"]["embedding"]) == before).all(1)
    np.testing.assert_array_equal(still[1:], ~np.asarray(state.learner.catalogue.seen)[1:])


@pytest.mark.parametrize("span", ["increment", "stream"])
def test_with_new_moments_a_schedule_that_spans_the_stream_goes_on(span: Any) -> None:
    """It falls to 0 over two steps, which the first increment takes; momentum is gone in both cases."""
    falling = sgd(learning_rate=1.0, momentum=0.9, schedule="linear", decay=2, span=span)
    tiny, once = lab.problem_of(PLAIN, SIZES), gradient.training(batch_size=32, patience=0, moments="reset")
    program = gradient.make(tiny, falling, {}, sizes=SIZES, training=once)

    def second(key: Any, data: Data) -> Any:
        state = program.begin(program.init(key), data)
        _, moments = falling.update(jax.tree.map(jnp.ones_like, state.learner.params), state.learner.opt_state)
        _, moments = falling.update(state.learner.params, moments)
        state = program.begin(state._replace(learner=state.learner._replace(opt_state=moments)), data)
        return falling.update(jax.tree.map(jnp.ones_like, state.learner.params), state.learner.opt_state)[0]

    moved = jax.jit(second)(jax.random.key(0), lab.data_at(0)[0])
    np.testing.assert_array_equal(moved["item"]["embedding"], 0.0 if span == "stream" else -1.0)


def test_the_table_rows_of_a_batch_decay_as_they_do_among_all() -> None:
    """Also row 0, of padding, which stays: a model reads it for a user whom it does not know."""
    tiny, ids = lab.problem_of(PLAIN, SIZES), jnp.array([0, 2, 5])
    params = jax.eval_shape(tiny.init, jax.random.key(0))
    catalogue = steps.empty_catalogue(SIZES)
    catalogue = catalogue._replace(seen=catalogue.seen.at[5].set(True))
    whole = steps.arrived_rows(tiny, params, catalogue, {})["item"]["embedding"]
    few = steps.arrived_rows(tiny, params, catalogue, {"item": ids})["item"]["embedding"]
    assert few[:, 0].tolist() == whole[ids, 0].tolist() == [False, False, True]


@pytest.mark.parametrize("negative", [False, True])
def test_a_data_loss_below_0_is_refused_unless_the_head_may(negative: bool) -> None:
    head = Head(lambda _items, outputs, batch: -jnp.ones(len(batch.labels)) + 0.0 * outputs.hidden.sum(1))
    tiny = problem(lab.MODELS["mf"](), head._replace(negative=negative), next_item(lab.HISTORY), SIZES)
    f = alone.Functions(lab.make(tiny, {}, SIZES, lab.Spec()))
    data = lab.cut(lab.data_at(0)[0], 40)
    _, info = f.run_epoch(f.begin(f.init(jax.random.key(0)), data), data)
    refused = pytest.raises(
        UserError, match=r"the data loss became -1 at increment 0, epoch 1, step 0, .*negative=True"
    )
    with contextlib.nullcontext() if negative else refused:
        if error := loop.divergence(info, 0, 1):
            raise error


def test_row_weights_are_normalised_by_the_new_rows() -> None:
    f = lab.functions(lab.build(lab.Spec(optimizer="sgd"))(SIZES))
    data = lab.cut(lab.data_at(0)[0], 32)
    weight: Any = np.where(np.arange(len(data.rows.weight)) % 2 == 0, 3.0, 0.0).astype(np.float32)
    weighted = data._replace(rows=data.rows._replace(weight=weight))
    state = f.begin(f.init(jax.random.key(0)), data)
    params, seen = lab.on_host((state.learner.params, state.learner.catalogue.seen))
    expected, _ = reference(params, data, seen, np.where(np.arange(32) % 2 == 0, 1 / 16, 0.0))
    _, info = f.run_epoch(state, weighted)
    assert float(info.loss) == pytest.approx(expected, rel=1e-5)


# -- order and keys -------------------------------------------------------------------------------------------------


def test_an_epoch_visits_each_row_once_in_an_order_of_its_own() -> None:
    orders, shuffled = [], jax.jit(steps.shuffled, static_argnums=2)
    for seed in range(3):
        order = np.zeros(0, np.int32)
        for size in (1, 7, 16):
            order = np.asarray(shuffled(jax.random.key(seed), jnp.int32(size), 16))
            assert sorted(order[:size].tolist()) == list(range(size))
            assert order[size:].tolist() == list(range(size, 16))
            larger = np.asarray(shuffled(jax.random.key(seed), jnp.int32(size), 40))
            assert larger[:size].tolist() == order[:size].tolist()  # whatever the capacity
        orders.append(order.tolist())
    assert orders[0] != orders[1] != orders[2]
    of_seeds = jax.jit(jax.vmap(lambda seed: steps.shuffled(jax.random.key(seed), jnp.int32(4), 4)))
    draws = np.asarray(of_seeds(np.arange(600)))
    counts = np.array([(draws == i).sum(0) for i in range(4)])
    assert np.abs(counts - 150).max() < 5 * 10.6  # uniform: 150 ± 10.6 each


def test_draws_depend_on_seed_increment_and_epoch_not_on_what_went_before() -> None:
    f = lab.functions(lab.build(PLAIN)(SIZES))
    data, _ = lab.data_at(1)

    def trained(seed: int, increment: int, epoch: int) -> Params:
        state = f.begin(f.init(jax.random.key(seed)), data._replace(increment=jnp.int32(increment)))
        same = f.init(jax.random.key(0)).learner  # the same start for all
        same = same._replace(catalogue=state.learner.catalogue, increment=state.learner.increment)
        state = state._replace(learner=same, fit=state.fit._replace(epoch=jnp.int32(epoch)))
        return lab.on_host(f.run_epoch(state, data)[0].learner.params)

    base = trained(0, 1, 0)
    assert not lab.differs(trained(0, 1, 0), base)
    for other in ((1, 1, 0), (0, 2, 0), (0, 1, 1)):
        assert lab.differs(trained(*other), base), other


# -- small parts ----------------------------------------------------------------------------------------------------


def test_strangers_are_ranked_by_the_items_counts_or_by_the_model() -> None:
    tiny = lab.problem_of(PLAIN, SIZES)
    by_counts, by_model = (
        gradient.make(tiny, optax.set_to_zero(), {}, sizes=SIZES, fallback=fallback) for fallback in (True, False)
    )
    state = jax.jit(by_counts.init)(jax.random.key(0))
    seen, events = np.arange(SIZES["item"]) % 3 == 1, np.arange(SIZES["item"], dtype=np.float32)
    catalogue = state.learner.catalogue._replace(seen=jnp.asarray(seen), events=jnp.asarray(events))
    state = state._replace(learner=state.learner._replace(catalogue=catalogue))
    stranger = {"user": jnp.array([5])}

    @jax.jit
    def scored(state: State) -> Any:
        programs = [program.scores(state, stranger)[0] for program in (by_counts, by_model)]
        return *programs, tiny.apply(state.learner.params, stranger).scores[0]

    counted, modelled, own = scored(state)
    for found, scores in ((counted, events), (modelled, own)):
        np.testing.assert_allclose(found, np.where(seen, scores, -np.inf), rtol=1e-6)


def test_the_catalogue_counts_arrivals_and_never_the_padding() -> None:
    empty = jax.jit(lambda: steps.empty_catalogue(Sizes(item=5, user=4)))()
    count = jax.jit(steps.count_arrivals)
    data = lab.data_at(0)[0]._replace(arrived={"user": jnp.array([1, 3, 1, 0, 0])}, events=jnp.array([2, 2, 4, 0, 0]))
    once = count(empty, data)
    assert once.events.tolist() == [0, 0, 2, 0, 1]
    assert once.seen.tolist() == [False, False, True, False, True]
    assert once.arrived["user"].tolist() == [False, True, False, True]
    twice = count(once, data._replace(arrived={"user": jnp.array([2])}, events=jnp.array([1])))
    assert twice.events.tolist() == [0, 1, 2, 0, 1]
    assert twice.arrived["user"].tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "training: batch_size=0: expected a whole number >= 1"),
        ({"epochs": 0}, "training: epochs=0: expected a whole number >= 1"),
        ({"patience": -1}, "training: patience=-1: expected a whole number >= 0"),
        ({"metric": "auc"}, "metric 'auc': expected one of"),
    ],
)
def test_impossible_training_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        gradient.training(**arguments)


def test_a_problem_covers_its_capacity() -> None:
    """Outputs cover the capacity; the loss is one number a row."""
    tiny = lab.problem_of(PLAIN, Sizes(item=16, user=8))
    params = jax.eval_shape(tiny.init, jax.random.key(0))
    outputs = jax.eval_shape(tiny.apply, params, {"user": jnp.array([1, 2])})
    assert isinstance(outputs, Outputs)
    assert outputs.scores.shape == (2, 16)
    rows = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype), tiny.example)
    assert jax.eval_shape(tiny.loss, params, outputs, rows).shape == (2,)


@pytest.mark.parametrize(("slots", "batch_size", "rows"), [(128, 32, 256), (256, 32, 32), (256, 512, 128)])
def test_a_test_of_a_large_catalogue_ranks_no_more_rows_than_a_step_has(
    slots: int, batch_size: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(gradient, "ranker", lambda _scores, *, batch_size, **_: found.append(batch_size))
    monkeypatch.setattr(gradient.ranking, "LARGE", 4 * 256 * 128)  # the scores of 256 rows for 128 items
    sizes = Sizes(item=slots, user=128)
    own = problem(matrix_factorization(), full_softmax(), next_item(8), sizes)
    gradient.make(own, sgd(), training=gradient.training(batch_size=batch_size), sizes=sizes)
    assert found == [rows, rows, rows]  # of validation parts, of increments, of these with lists
