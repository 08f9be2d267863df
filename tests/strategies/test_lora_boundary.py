"""What is left of LoRA matrices after an increment's end, and of what mirrors them, on the least model with them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from incremental.core.gradient import make, training
from incremental.core.leaves import pairs
from incremental.core.optimizers import adagrad, adam
from incremental.core.problem import Model, problem
from incremental.core.quadratic import penalty
from incremental.core.spec import next_item
from incremental.core.strategy import Strategy, chain
from incremental.core.types import Data, Learner, Params, Problem, State
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.run import alone
from incremental.run.check import holds_anchor
from incremental.strategies.ema import ema
from incremental.strategies.ewc import ewc
from incremental.strategies.l2_to_last import l2_to_last
from incremental.strategies.lora_boundary import Way, lora_boundary
from incremental.strategies.low_rank_updates import low_rank_updates
from incremental.strategies.lwf import lwf
from incremental.strategies.mas import mas
from incremental.strategies.ogd import ogd
from incremental.strategies.online_ewc import online_ewc
from incremental.strategies.packnet import packnet
from incremental.strategies.si import si
from tests import lab

pytestmark = pytest.mark.usefixtures("shared_programs")
NONE: Any = None
SIZES, RANK = lab.SIZES, 2
ROWS: Any = {"user": np.arange(1, 20, dtype=np.int32)}
PAIR = "lora/layer"


class Adapted(lab.Dense):
    """`lab.Dense` whose layer's kernel is frozen and 1, with adapters beside it."""

    merges: bool = True

    def setup(self) -> None:
        super().setup()

        def start(key: jax.Array) -> Params:
            pair = {"a": jax.random.normal(key, (8, RANK)), "b": jnp.zeros((RANK, 8))}
            return {"layer": {**pair, **({"merged": jnp.zeros((8, 8))} if self.merges else {})}}

        self.lora = self.param("lora", start)

    def __call__(self, inputs: dict[str, jax.Array], key: Any) -> jax.Array:
        del key
        own, row = self.lora["layer"], self.user(inputs["user"])
        return row + row @ (own["a"] @ own["b"] + jax.lax.stop_gradient(own.get("merged", 0.0)))


def of(**own: bool) -> Problem:
    tables = {"user/embedding": "user", "item/embedding": "item"}
    return problem(
        Model(lambda sizes, _: Adapted(sizes, **own), ("user",), tables), full_softmax(), next_item(lab.HISTORY), SIZES
    )


PROBLEM = of()
hidden = jax.jit(lambda params: PROBLEM.apply(params, ROWS).hidden)
BESIDE: dict[str, Callable[[Problem], Strategy]] = {
    "pull": lambda own: l2_to_last(own, weight=1.0),
    "taught": lwf,
    "mean": lambda own: ema(own, decay=0.95),
    "end": lora_boundary,
    "late": lambda own: l2_to_last(own, weight=1.0),
}


@functools.cache
def functions(*names: str) -> alone.Functions:
    parts = {name: BESIDE[name](PROBLEM) for name in names}
    steps = training(batch_size=32, epochs=2, patience=0)
    return lab.functions(make(PROBLEM, adam(learning_rate=0.03), parts, sizes=SIZES, training=steps, cutoffs=(10,)))


@functools.cache
def data_at(t: int) -> tuple[Data, Data]:
    return lab.update_data(lab.stream(), functions("end").program, t)


def before_the_end(f: alone.Functions, state: State, t: int) -> State:
    return lab.trained(f, state, *data_at(t))[0]


def said(params: Params) -> np.ndarray:
    return np.asarray(hidden(params))


def test_right_after_the_boundary_model_mean_and_teacher_say_what_they_said_before() -> None:
    """And what pulls is as far from the weights as it was, 0: in whichever order they stand."""
    f = functions(*BESIDE)
    state = before_the_end(f, f.init(jax.random.key(0)), 0)
    base = lab.on_host(state.learner)
    state = f.end(state, data_at(0)[0])
    lab.assert_same(state.learner, base)  # nothing is merged at the base part's end
    state = before_the_end(f, state, 1)
    trained, mean = lab.on_host((state.learner.params, state.strategy["mean"].mean.params))
    assert np.abs(said(trained) - said(mean)).max() > 0.01
    state = f.end(state, data_at(1)[0])
    params, own = lab.on_host((state.learner.params, state.strategy))
    for now, expected in (
        (params, trained),
        (own["taught"].teacher.params, trained),
        (own["mean"].mean.params, mean),
        (own["pull"].anchor.params, trained),
    ):
        np.testing.assert_allclose(said(now), said(expected), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(pairs(now)[PAIR]["b"], 0.0)
        np.testing.assert_array_equal(pairs(now)[PAIR]["a"], pairs(params)[PAIR]["a"])
    assert np.abs(pairs(params)[PAIR]["a"] - pairs(trained)[PAIR]["a"]).max() > 0.1
    np.testing.assert_allclose(
        np.asarray(jax.jit(f.program.scores)(state, ROWS))[:, 1], said(mean) @ mean["item"]["embedding"][1], 1e-4, 1e-5
    )
    ones, pull = jax.tree.map(np.ones_like, params), jax.jit(penalty)
    assert [float(pull(params, own[name].anchor.params, ones)) for name in ("pull", "late")] == [0.0, 0.0]


def test_two_merged_products_add_up() -> None:
    f = functions("end")
    state, _ = lab.train(f, f.init(jax.random.key(0)), *data_at(0))
    merged = np.zeros((8, 8), np.float32)
    for t in (1, 2):
        state = before_the_end(f, state, t)
        own = lab.on_host(pairs(state.learner.params))[PAIR]
        np.testing.assert_array_equal(own["merged"], merged)
        merged = merged + own["a"] @ own["b"]
        state = f.end(state, data_at(t)[0])
        np.testing.assert_allclose(pairs(state.learner.params)[PAIR]["merged"], merged, rtol=1e-5, atol=1e-6)
    assert np.linalg.matrix_rank(merged, tol=1e-4) > RANK


def test_after_a_fresh_start_the_run_is_one_that_never_merged() -> None:
    f = functions("end")
    state = f.init(jax.random.key(0))
    for t in (0, 1):
        state, _ = lab.train(f, state, *data_at(t))
    assert np.abs(pairs(state.learner.params)[PAIR]["merged"]).max() > 0.01
    ends = [
        lab.train(f, f.restart(start, data_at(2)[0]), *data_at(2))[0] for start in (state, f.init(jax.random.key(0)))
    ]
    lab.assert_same(ends[0].learner, ends[1].learner)


@pytest.mark.parametrize(
    "tx", [adam(), adagrad(), adam(accumulate=2), adam(l2=0.1)], ids=["adam", "adagrad", "accumulated", "l2"]
)
def test_the_moments_of_new_matrices_are_those_of_a_new_optimizer(tx: optax.GradientTransformation) -> None:
    params = jax.tree.map(lambda leaf: leaf + 0.5, jax.jit(PROBLEM.init)(jax.random.key(0)))  # l2 reads what was merged
    grads = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), params)
    grads["lora"]["layer"]["merged"] = np.zeros((8, 8), np.float32)
    new = jax.jit(tx.init)(params)
    moved = jax.jit(tx.update)(grads, new, params)[1]
    own = lora_boundary(PROBLEM)
    started = jax.jit(own.init)(Learner(params, new, NONE, NONE))
    end = jax.jit(lambda learner: own.end(started, learner, NONE, NONE)[1].opt_state)
    for increment, anew in ((0, False), (1, True)):
        learner = Learner(params, moved, NONE, jnp.int32(increment))
        after = end(learner)
        for path, leaf in jax.tree_util.tree_leaves_with_path(after):
            mine = anew and jax.tree_util.keystr(path, simple=True, separator="/").endswith(("layer/a", "layer/b"))
            expected = functools.reduce(lambda node, key: key_of(node, key), path, new if mine else moved)
            np.testing.assert_array_equal(leaf, expected)


def key_of(node: Any, key: Any) -> Any:
    return getattr(node, key.name) if hasattr(key, "name") else node[key.idx if hasattr(key, "idx") else key.key]


def test_weight_decay_leaves_what_was_merged() -> None:
    shapes = jax.eval_shape(PROBLEM.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    after = lora_boundary(PROBLEM).updates({}, params, NONE)
    np.testing.assert_array_equal(pairs(after)[PAIR]["merged"], 0.0)
    np.testing.assert_array_equal(pairs(after)[PAIR]["a"], 1.0)
    assert after["user"] == params["user"]


@pytest.mark.parametrize("factory", [ewc, online_ewc, mas, si, ogd, packnet])
def test_what_has_no_meaning_for_new_matrices_is_refused_by_name(factory: Any) -> None:
    learner = Learner(jax.eval_shape(PROBLEM.init, jax.random.key(0)), NONE, NONE, NONE)
    own = PROBLEM if factory is not packnet else of()._replace(tables={})
    for parts in (
        {"mine": factory(own), "end": lora_boundary(PROBLEM)},
        {"end": lora_boundary(PROBLEM), "mine": factory(own)},
    ):
        with pytest.raises(
            UserError, match=r"strategies\.mine keeps something for each of.*strategies\.end makes anew"
        ):
            jax.eval_shape(chain(**parts).init, learner)
    chained = {"end": lora_boundary(PROBLEM), "subspace": low_rank_updates(PROBLEM, rank=1)}  # of late gradients only
    for parts in (chained, {"mine": factory(own), "end": lora_boundary(PROBLEM, way="average")}):
        jax.eval_shape(chain(**parts).init, learner)


def test_averaged_matrices_are_the_means_of_those_at_the_ends() -> None:
    own, start = lora_boundary(PROBLEM, way="average"), jax.jit(PROBLEM.init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    ends = [jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), start) for _ in range(3)]
    state, finish = jax.jit(own.init)(Learner(start, NONE, NONE, NONE)), jax.jit(own.end)
    for number, params in enumerate(ends, start=1):
        state, after = finish(state, Learner(params, NONE, NONE, NONE), NONE, NONE)
        for part in ("a", "b"):
            mean = sum(pairs(end)[PAIR][part] for end in ends[:number]) / number
            np.testing.assert_allclose(pairs(after.params)[PAIR][part], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(after.params["user"]["embedding"], params["user"]["embedding"])
        np.testing.assert_array_equal(pairs(after.params)[PAIR]["merged"], pairs(params)[PAIR]["merged"])
        if number == 1:  # the base part's end changes nothing
            lab.assert_same(after.params, params)
    assert holds_anchor(state)  # a fresh start is refused


@pytest.mark.parametrize(
    ("own", "way", "message"),
    [
        (PROBLEM, "sum", "way='sum': expected merge or average"),
        (of(merges=False), "merge", r"no place for what is merged; set model\.merges=true"),
        (lab.problem_of(lab.Spec(), SIZES), "merge", r"the model has no LoRA matrices; set model\.rank above 0"),
        (lab.problem_of(lab.Spec(), SIZES), "average", r"the model has no LoRA matrices"),
    ],
)
def test_what_it_cannot_do_is_refused(own: Problem, way: Way, message: str) -> None:
    with pytest.raises(UserError, match=message):
        lora_boundary(own, way=way).init(Learner(jax.eval_shape(own.init, jax.random.key(0)), NONE, NONE, NONE))
