import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from incremental.core import gradient, steps
from incremental.core.optimizers import sgd
from incremental.core.problem import Head, problem
from incremental.core.program import Program
from incremental.core.spec import Sizes, next_item
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Outputs, Params, Step
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.heads.sampled_softmax import sampled_softmax
from incremental.models.matrix_factorization import matrix_factorization
from incremental.run import alone, loop
from tests import lab

pytestmark = pytest.mark.usefixtures("shared_programs")
SIZES = lab.SIZES
PLAIN = lab.Spec()


def later(given: tuple[Data, Data]) -> tuple[Data, Data]:
    """The base part's rows as those of increment 1, in which strategies act."""
    data, validation = given
    return data._replace(increment=jnp.int32(1)), validation


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


# -- what hooks see and may do --------------------------------------------------------------------------------------


def probe(sizes: Sizes) -> Program:
    """One program that exercises the hooks: each part checks one, and notes what it saw in its state."""
    tiny = lab.problem_of(PLAIN, sizes)

    def zeros(learner: Learner) -> dict[str, Any]:
        return {
            "steps": jnp.int32(0),
            "first": jnp.int32(0),
            "valid": jnp.int32(0),
            "new": jnp.int32(0),
            "updates": jax.tree.map(jnp.zeros_like, learner.params),
            "params": jax.tree.map(jnp.zeros_like, learner.params),
            "grads": jax.tree.map(jnp.zeros_like, learner.params),
            "prepared": jnp.int32(0),
            "bias": jnp.zeros_like(learner.params["item_bias"]),
        }

    def prepare(state: dict[str, Any], learner: Learner, data: Data, key: jax.Array) -> dict[str, Any]:
        del key
        return {**state, "prepared": state["prepared"] + data.size, "bias": learner.params["item_bias"]}

    def record(state: dict[str, Any], step: Step, key: jax.Array) -> dict[str, Any]:
        del key
        return {
            **state,
            "steps": state["steps"] + 1,
            "first": state["first"] + step.first_pass,
            "valid": step.batch.valid.sum(),
            "new": step.new.valid.sum(),
            "updates": step.updates,
            "params": step.params,
            "grads": step.grads,
        }

    def scaled(tree: Params, by: float) -> Params:
        return jax.tree.map(lambda leaf: by * leaf, tree)

    def grads(state: Any, grads: Params, params: Params, grad_fn: Any, batch: Batch, key: Any) -> Params:
        """The data loss's gradient on the same rows: as `grads` where no other loss is added."""
        del state, grads, params, key
        return scaled(grad_fn(batch), 0.5)

    def frozen(state: Any, updates: Params, params: Params) -> Params:
        del state, params
        return {**updates, "user": jax.tree.map(jnp.zeros_like, updates["user"])}

    def begin(state: Any, learner: Learner, data: Data, key: jax.Array) -> Any:
        """Rewrites the learner: all biases to the increment's number."""
        del data, key
        bias = jnp.full_like(learner.params["item_bias"], learner.increment.astype(jnp.float32))
        return state, learner._replace(params={**learner.params, "item_bias": bias})

    def end(state: Any, learner: Learner, data: Data, key: jax.Array) -> Any:
        del data, key
        return state + 1, learner._replace(params=scaled(learner.params, 2.0))

    def view(state: Any, params: Params, increment: jax.Array, training: bool) -> Params:
        del state, increment, training
        return {**params, "user": scaled(params["user"], 0.0)}

    parts = {
        "notes": Strategy(init=zeros, prepare=prepare, record=record),
        "halved": Strategy(grads=grads),
        "frozen": Strategy(updates=frozen),
        "rewriting": Strategy(init=lambda _: jnp.int32(0), begin=begin, end=end),
        "blind": Strategy(view=view),
    }
    return lab.make(tiny, parts, sizes, lab.Spec(optimizer="sgd", epochs=3, patience=0))


@functools.cache
def probed() -> alone.Functions:
    return lab.functions(functools.cache(probe)(SIZES))


def test_the_hooks_of_a_step() -> None:
    f = probed()
    data, validation = lab.data_at(0)
    data = lab.cut(data, 40)  # two batches, of 32 and 8
    initial = f.init(jax.random.key(0))
    drawn = lab.on_host(initial.learner.params)
    state = f.begin(initial, data)
    assert set(np.asarray(state.learner.params["item_bias"]).tolist()) == {0.0}
    state, _ = f.run_epoch(state, data)
    notes = jax.tree.map(np.array, state.strategy["notes"])
    assert (notes["steps"], notes["first"], notes["valid"], notes["new"]) == (2, 2, 8, 8)

    # `updates` is what was added, `params` what it was added to; frozen rows stay as they were drawn.
    lab.assert_same(jax.tree.map(lambda p, u: p + u, notes["params"], notes["updates"]), state.learner.params)
    assert not notes["updates"]["user"]["embedding"].any()
    lab.assert_same(state.learner.params["user"], drawn["user"])
    # The model sees users of zeros (view), so that the item table's gradient is zero and the bias' is not.
    assert not notes["grads"]["item"]["embedding"].any()
    assert np.abs(notes["grads"]["item_bias"]).max() > 0.01
    # `grad_fn` gave the same gradient, of which half was taken; `grads` in the step is from before that.
    np.testing.assert_allclose(notes["updates"]["item_bias"], -0.5 * notes["grads"]["item_bias"], rtol=1e-4, atol=1e-7)

    assert int(notes["prepared"]) == int(data.size)

    state = f.validate(state, validation, None)
    bias = np.array(state.learner.params["item_bias"])
    state, _ = f.run_epoch(state, data)
    notes = state.strategy["notes"]
    assert (int(notes["steps"]), int(notes["first"])) == (4, 2)  # the second epoch is no first pass
    assert int(notes["prepared"]) == 2 * int(data.size)  # once an epoch, before its steps
    np.testing.assert_array_equal(notes["bias"], bias)


def test_begin_and_end_may_rewrite_the_learner() -> None:
    f = probed()
    state = f.init(jax.random.key(0))
    kept = lab.on_host(state.learner.params["user"])
    state, _ = lab.train(f, state, *later(lab.data_at(0)))
    lab.assert_same(state.learner.params["user"], jax.tree.map(lambda leaf: 2 * leaf, kept))  # frozen, then doubled
    assert int(state.strategy["rewriting"]) == 1
    state = f.begin(state, lab.data_at(1)[0])
    assert set(np.asarray(state.learner.params["item_bias"]).tolist()) == {1.0}


def test_the_base_part_is_plain_training_bit_for_bit() -> None:
    """Whatever the hooks do, and though `record` follows the steps; the next test is the plain model's too."""
    plain = lab.functions(lab.build(lab.Spec(optimizer="sgd", epochs=3, patience=0))(SIZES))
    states = []
    for f in (plain, probed()):
        state, epochs = lab.train(f, f.init(jax.random.key(0)), *lab.data_at(0))
        states.append((state.learner, f.rank(state, lab.data_at(1)[1], None).rank, [each.loss for each in epochs]))
        assert int(state.strategy.get("notes", {"prepared": 0})["prepared"]) == 0
    lab.assert_same(*states)
    assert probed().program.following == ("notes",)
    late = {"notes": Strategy(record=lambda state, _step, _key: state, late=True)}
    assert lab.make(lab.problem_of(lab.Spec(), SIZES), late, SIZES, lab.Spec()).following == ()
    assert probed().program.early == ()


def test_each_event_is_offered_once_in_a_run() -> None:
    """Increment 1 trains on the base part's rows again, as a window does."""
    f = lab.functions(lab.build(lab.Spec("replay"))(SIZES))
    (base, checked), (new, _) = lab.data_at(0), lab.data_at(2)
    state, _ = lab.train(f, f.init(jax.random.key(0)), base, checked)
    state, _ = lab.train(f, state, base._replace(increment=jnp.int32(1)), checked)
    assert int(state.strategy["replay"].inserted) == int(base.size)
    state, _ = lab.train(f, f.restart(state, new), new, checked)
    assert int(state.strategy["replay"].inserted) == int(base.size) + int(new.size)


def test_evaluation_sees_the_view() -> None:
    f = probed()
    state, _ = lab.train(f, f.init(jax.random.key(0)), *later(lab.data_at(0)))
    scores = np.asarray(jax.jit(f.program.scores)(state, {"user": np.array([1, 2, 3])}))
    assert (scores[0] == scores[1]).all()  # users of zeros: all alike
    seen = np.asarray(state.learner.catalogue.seen)
    np.testing.assert_array_equal(scores[0][seen], np.asarray(state.learner.params["item_bias"])[seen])
    assert np.isneginf(scores[0][~seen]).all()


def test_the_name_of_the_head_is_taken() -> None:
    tiny = problem(lab.MODELS["mf"](), sampled_softmax(negatives=4), next_item(lab.HISTORY), SIZES)
    with pytest.raises(UserError, match=r"strategies\.head: the name 'head' belongs to the model's head"):
        gradient.make(tiny, optax.sgd(0.1), {"head": Strategy()}, sizes=SIZES)
    with pytest.raises(UserError, match=r"strategies\.mine: expected a Strategy, got int"):
        gradient.make(tiny, optax.sgd(0.1), {"mine": 3}, sizes=SIZES)  # type: ignore[dict-item]


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
