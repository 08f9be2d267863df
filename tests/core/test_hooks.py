"""What a strategy's hooks see and may do."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from incremental.core import gradient
from incremental.core.problem import problem
from incremental.core.program import Program
from incremental.core.spec import Sizes, next_item
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Params, Step
from incremental.errors import UserError
from incremental.heads.sampled_softmax import sampled_softmax
from incremental.run import alone
from tests import lab

pytestmark = pytest.mark.usefixtures("shared_programs")
SIZES = lab.SIZES
PLAIN = lab.Spec()


def later(given: tuple[Data, Data]) -> tuple[Data, Data]:
    """The base part's rows as those of increment 1, in which strategies act."""
    data, validation = given
    return data._replace(increment=jnp.int32(1)), validation


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
