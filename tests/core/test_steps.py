"""The named steps: what hooks are given of them, and what another builder of a `Program` can call."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from incremental.core import steps
from incremental.core.gradient import make, training
from incremental.core.optimizers import adam, sgd
from incremental.core.problem import problem
from incremental.core.program import Program
from incremental.core.spec import Sizes, next_item
from incremental.core.strategy import Strategy, chain
from incremental.core.types import Batch, Data, Params, Problem, State
from incremental.errors import UserError
from tests import lab
from tests.hooks import error_memory, reptile

SIZES, ROWS = Sizes(item=40, user=24), 24


def rows(t: int = 0) -> Data:
    """An increment: 24 places, 20 of them examples; weights differ."""
    rng = np.random.default_rng(t)
    users, labels = (rng.integers(1, high, ROWS).astype(np.int32) for high in (20, 30))
    weight, valid = rng.uniform(0.5, 1.5, ROWS).astype(np.float32), np.arange(ROWS) < 20
    batch: Any = Batch({"user": users}, labels, weight, valid, np.full(ROWS, t, np.int32))  # type: ignore[arg-type]
    whole: Any = (np.int32(20), np.int32(t), labels, {"user": users})
    return jax.tree.map(jnp.asarray, Data(batch, *whole))


def tiny(head: str = "full") -> Problem:
    return problem(lab.MODELS["mf"](), lab.HEADS[head](), next_item(lab.HISTORY), SIZES)


def program(parts: Any, head: str = "full", sizes: Sizes = SIZES, tx: Any = None, **keys: Any) -> Program:
    """One batch an epoch, SGD at rate 1 where no optimizer is given."""
    plan = training(**{"batch_size": ROWS, "patience": 0, "epochs": 3, **keys})
    own = problem(lab.MODELS["mf"](), lab.HEADS[head](), next_item(lab.HISTORY), sizes)
    made = {name: part(own) for name, part in parts.items()}
    return make(own, tx or sgd(learning_rate=1.0), made, sizes=sizes, training=plan)


def increment(program: Program, state: State, data: Data, epochs: int = 1) -> State:
    """One update, its last epoch kept."""
    state = program.begin(state, data)
    for _ in range(epochs):
        state, _ = program.run_epoch(state, data)
    state = program.validate(state, data._replace(size=jnp.int32(0)), None)
    return program.end(state, data)


def states(program: Program, t: int, epochs: int = 1) -> list[State]:
    """After each of the increments 0..t."""
    update = jax.jit(lambda state, data: increment(program, state, data, epochs))
    found = [jax.jit(program.init)(jax.random.key(0))]
    for i in range(t + 1):
        found.append(update(found[-1], rows(i)))
    return found[1:]


# -- gradients of single examples --------------------------------------------------------------------------------------


def gradients(head: str) -> Any:
    """Of a head, after `begin`: grad_fn(batch), grad_fn.examples(batch), grad_fn(batch, twice the parameters), and
    the last one by a step that stands there."""
    own = tiny(head)
    parts = {} if own.strategy is None else {"head": own.strategy._replace(early=True)}
    setup = steps.Setup(own, chain(**parts), optax.with_extra_args_support(optax.sgd(1.0)))

    @jax.jit
    def both(key: Any) -> Any:
        learner = steps.new_learner(setup, SIZES, key)
        states = setup.strategy.init(learner)
        state = State(learner, states, steps.fresh_fit(), key)
        none: Any = lambda *_: None  # noqa: E731
        state = steps.begin(setup, state, rows(), reset=False, fit=none)
        new = rows().rows._replace(candidates=state.learner.catalogue.seen, step=jnp.int32(0))
        batch = setup.strategy.batch(state.strategy, new, key)
        grad_fn = steps.DataGradient(
            setup, state.learner.params, state.strategy, state.learner.increment, batch, jax.random.key(1)
        )
        twice = jax.tree.map(lambda leaf: 2 * leaf, state.learner.params)
        there = dataclasses.replace(grad_fn, params=twice)(batch)
        return grad_fn(batch), grad_fn.examples(batch), grad_fn(batch, twice), there

    return both(jax.random.key(0))


SLOW = ("chunked", "hierarchical", "bpr", "bce", "gbce", "log_uniform")


@pytest.mark.parametrize(
    "head", ["full", "sampled", "adaptive", "bpr_own", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_gradients_of_single_examples_add_up_to_the_batchs(head: str) -> None:
    whole, single, elsewhere, at_twice = gradients(head)
    weight = np.where(np.asarray(rows().rows.valid), np.asarray(rows().rows.weight), 0.0).sum()
    mean = jax.tree.map(lambda leaf: leaf.sum(0) / weight, single)
    lab.assert_close(mean, whole, rtol=1e-4, atol=1e-6)
    for leaf in jax.tree.leaves(single):
        assert leaf.shape[0] == ROWS
        assert not np.asarray(leaf[20:]).any()  # padding has none
    alone = np.abs(np.asarray(single["user"]["embedding"])).sum(2) > 0
    assert (alone.sum(1)[:20] == 1).all()  # an example moves its own user's row only
    lab.assert_same(elsewhere, at_twice)
    assert lab.differs(elsewhere, whole)


def test_an_example_whose_loss_reads_others_has_no_gradient_of_its_own() -> None:
    with pytest.raises(UserError, match=r"grad_fn\.examples: .*in_batch_softmax has their labels.*sampled_softmax"):
        gradients("in_batch")


def clipped(_problem: Problem) -> Strategy:
    """Every example's gradient at norm 0.05 at most."""

    def grads(state: Any, grads: Params, params: Params, grad_fn: Any, batch: Batch, key: Any) -> Params:
        del state, grads, params, key
        single = grad_fn.examples(batch)
        norms = jax.vmap(optax.tree.norm)(single)
        by = jnp.minimum(1.0, 0.05 / jnp.maximum(norms, 1e-9)) / batch.valid.sum()
        return jax.tree.map(lambda leaf: jnp.tensordot(by, leaf, 1), single)

    return Strategy(grads=grads, early=True)


def test_clipped_examples_on_table_rows_are_those_of_whole_tables() -> None:
    large = Sizes(item=256, user=128)
    dense, compact, plain = (
        jax.jit(lambda p=p: p.run_epoch(p.begin(p.init(jax.random.key(0)), rows()), rows())[0].learner.params)()
        for p in (
            program({"clip": clipped}, "sampled", large),
            program({"clip": clipped}, "sampled", large, rows="compact"),
            program({}, "sampled", large),
        )
    )
    lab.assert_close(compact, dense, rtol=1e-4, atol=1e-6)
    assert np.abs(np.asarray(dense["item"]["embedding"]) - np.asarray(plain["item"]["embedding"])).max() > 1e-3


# -- a correction of the scores ----------------------------------------------------------------------------------------


def test_a_correction_of_scores_acts_in_evaluation_from_the_first_increment_on() -> None:
    plain, corrected = program({}), program({"errors": error_memory})
    inputs = {"user": np.unique(rows().rows.inputs["user"])}  # those that the model knows
    scores, ranked = ([jax.jit(getattr(p, name)) for p in (plain, corrected)] for name in ("scores", "rank"))
    for t, (one, other) in enumerate(zip(states(plain, 1), states(corrected, 1), strict=True)):
        lab.assert_same(one.learner.params, other.learner.params)
        error = np.asarray(other.strategy["errors"])
        assert np.abs(error).max() > 0.01
        seen = np.asarray(one.learner.catalogue.seen)
        before, after = (np.asarray(of(state, inputs)) for of, state in zip(scores, (one, other), strict=True))
        expected = before if t == 0 else before + 3.0 * error
        np.testing.assert_allclose(after[:, seen], expected[:, seen], rtol=1e-6, atol=1e-6)
        assert np.isneginf(after[:, ~seen]).all()
        ranks = [np.asarray(of(state, rows(t), None).rank) for of, state in zip(ranked, (one, other), strict=True)]
        assert (ranks[0] == ranks[1]).all() == (t == 0)
    checked = program({"errors": error_memory}, patience=2)
    fits = [jax.jit(p.validate)(other, rows(1), None).fit.value for p in (checked, program({}, patience=2))]
    assert fits[0] != fits[1]  # early stopping reads what is ranked


ITEM = int(rows().rows.labels[0])


def lifted(training: bool, *, early: bool) -> Any:
    """Lifts an item's score by 2, in training only or in evaluation only."""

    def scores(state: Any, scores: Any, inputs: dict[str, Any], now: bool) -> Any:
        del state, inputs
        return scores.at[:, ITEM].add(2.0) if now is training else scores

    return lambda _problem: Strategy(scores=scores, early=early)


def test_in_training_the_loss_reads_corrected_scores() -> None:
    """That of a full softmax with an item's bias raised, which is not raised when it is tested."""
    data = rows()
    one, other = (program({"lift": lifted(True, early=early)}) for early in (True, False))
    start = jax.jit(lambda key: one.begin(one.init(key), data))(jax.random.key(0))
    params, users = lab.on_host(start.learner.params), np.asarray(data.rows.inputs["user"])
    scores = params["user"]["embedding"][users] @ params["item"]["embedding"].T + params["item_bias"]
    scores = scores + 2.0 * (np.arange(SIZES.slots) == ITEM)
    scores = np.where(np.asarray(start.learner.catalogue.seen), scores, -np.inf)
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(ROWS), np.asarray(data.rows.labels)]
    weight = np.where(np.asarray(data.rows.valid), np.asarray(data.rows.weight), 0.0)
    expected = (weight * np.where(weight > 0, losses, 0.0)).sum() / weight.sum()
    assert float(jax.jit(one.run_epoch)(start, data)[1].loss) == pytest.approx(expected, rel=1e-5)
    assert other.base_epoch is not None  # in the base part, which is plain, without it
    assert float(jax.jit(other.base_epoch)(start, data)[1].loss) != pytest.approx(expected, rel=1e-3)


def test_on_table_rows_scores_are_corrected_in_evaluation_only() -> None:
    large, data = Sizes(item=256, user=128), rows(1)
    good, bad = (program({"lift": lifted(now, early=False)}, "sampled", large, rows="compact") for now in (False, True))
    state = jax.eval_shape(lambda key: good.begin(good.init(key), data), jax.random.key(0))
    jax.eval_shape(good.run_epoch, state, data)
    with pytest.raises(UserError, match=r"training\.rows=compact: strategies\.lift reads the scores of all items"):
        jax.eval_shape(bad.run_epoch, state, data)


# -- training inside an increment --------------------------------------------------------------------------------------


def test_an_inner_fit_is_epochs_of_plain_training_from_fresh_moments() -> None:
    """Two epochs more under Adam: as an update on the same examples whose moments are reset. One batch an epoch, so
    that the order of the examples does not matter."""
    keys: dict[str, Any] = {"tx": adam(learning_rate=0.1), "moments": "reset"}
    meta, plain = program({"meta": whole_way}, **keys), program({}, **keys)

    @jax.jit
    def params(key: Any) -> Any:
        base = [increment(p, p.init(key), rows(0)) for p in (meta, plain)]
        fitted, once = (increment(p, state, rows(1)) for p, state in zip((meta, plain), base, strict=True))
        again = increment(plain, once, rows(1), 2)
        return [state.learner.params for state in (*base, fitted, once, again)]

    base, plain_base, fitted, once, again = params(jax.random.key(0))
    lab.assert_same(base, plain_base)  # what `end` does to the learner acts from increment 1 on
    lab.assert_close(fitted, again, rtol=1e-3, atol=1e-4)
    assert gap(fitted, once) > 0.05


def test_an_inner_fit_draws_the_heads_negatives() -> None:
    """Of a sampled softmax; without negatives its loss would be the exact one, over all candidates."""
    given: list[Any] = []

    def noted(items: Any, outputs: Any, batch: Batch) -> Any:
        given.append(batch.negatives)
        return head.loss(items, outputs, batch)

    head = lab.HEADS["sampled"]()
    own = problem(lab.MODELS["mf"](), head._replace(loss=noted), next_item(lab.HISTORY), SIZES)
    made = make(own, sgd(learning_rate=1.0), {"meta": reptile(own)}, sizes=SIZES, training=training(batch_size=ROWS))
    state = jax.eval_shape(made.init, jax.random.key(0))
    jax.eval_shape(made.end, state, rows())
    assert given
    assert all(negatives.shape == (16,) for negatives in given)


def whole_way(problem: Problem) -> Strategy:
    """`reptile` that goes all of the two epochs."""
    return reptile(problem, rate=1.0)


def gap(one: Params, other: Params) -> float:
    return max(
        float(np.abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def test_an_inner_fit_is_not_traced_where_no_strategy_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[Any] = []
    original = steps.step

    def noted(*given: Any) -> Any:
        traced.append(given)
        return original(*given)

    monkeypatch.setattr(steps, "step", noted)
    for made, expected in ((program({}), False), (program({"meta": reptile}), True)):
        state = jax.eval_shape(made.init, jax.random.key(0))
        jax.eval_shape(made.end, jax.eval_shape(made.begin, state, rows()), rows())
        assert bool(traced) == expected


def test_an_inner_fit_trains_what_the_models_parameters_are_a_function_of() -> None:
    """One step by SGD on the factor 1 + s of the parameters: s is minus the slope of the data loss along them."""

    def scaled(problem: Problem) -> Strategy:
        del problem

        def end(state: Any, learner: Any, data: Data, key: Any, fit: Any) -> Any:
            del state

            def of(factor: Any) -> Params:
                return jax.tree.map(lambda leaf: (1.0 + factor) * leaf, learner.params)

            return fit(jnp.zeros(()), data, key, epochs=1, of=of, tx=optax.sgd(1.0)), learner

        return Strategy(init=lambda _learner: jnp.zeros(()), end=end)

    made, own, data = program({"scaled": scaled}), tiny(), rows()

    def loss(factor: Any, params: Params) -> Any:
        params = jax.tree.map(lambda leaf: (1.0 + factor) * leaf, params)
        batch = data.rows._replace(candidates=jnp.zeros(SIZES.slots, bool).at[data.rows.labels].set(True))
        each = own.loss(params, own.apply(params, batch.inputs), batch)
        return (data.rows.valid * batch.weight * each).sum() / (data.rows.valid * batch.weight).sum()

    @jax.jit
    def both(key: Any) -> Any:
        state = increment(made, made.init(key), data)
        return state.strategy["scaled"], jax.grad(loss)(0.0, state.learner.params)

    found, slope = both(jax.random.key(0))
    assert abs(float(slope)) > 1e-3
    np.testing.assert_allclose(found, -slope, rtol=1e-3)


def test_an_inner_fit_in_begin_has_the_heads_state_of_the_update_that_begins() -> None:
    """Such as its candidates: a head whose loss reads the table row of the number of updates begun."""
    parts: dict[str, Any] = {
        "init": lambda _learner: jnp.int32(0),
        "begin": lambda count, learner, _data, _key: (count + 1, learner),
        "batch": lambda count, batch, _key: batch._replace(negatives=jnp.full(1, count), log_q=jnp.zeros(1)),
    }

    def loss(items: Any, outputs: Any, batch: Batch) -> Any:
        return items.table[batch.negatives].sum() + 0.0 * outputs.hidden.sum(1)

    def begin(state: Any, learner: Any, data: Data, key: Any, fit: Any) -> Any:
        del state
        moved = fit(learner.params, data, key, epochs=1)["item"]["embedding"]
        return (moved != learner.params["item"]["embedding"]).any(1), learner

    head = lab.HEADS["full"]()._replace(loss=loss, strategy=Strategy(**parts), negative=True)
    own = problem(lab.MODELS["mf"](), head, next_item(lab.HISTORY), SIZES)
    part = Strategy(init=lambda _learner: jnp.zeros(SIZES.slots, bool), begin=begin)
    made = make(own, sgd(), {"meta": part}, sizes=SIZES, training=training(batch_size=ROWS))
    state = jax.jit(lambda key: made.begin(made.begin(made.init(key), rows(0)), rows(1)))(jax.random.key(0))
    assert np.flatnonzero(state.strategy["meta"]).tolist() == [2]


def test_a_hook_that_names_fit_is_checked_with_it() -> None:
    def end(state: Any, learner: Any, data: Any, fit: Any) -> Any:
        del data, fit
        return state, learner

    with pytest.raises(UserError, match=r"strategies\.meta: the hook `end` must take \(S, learner, data, key, fit\)"):
        chain(meta=Strategy(end=end))
