from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.ids import Ids
from incremental.core.problem import problem
from incremental.core.spec import next_item
from incremental.core.types import Catalogue, Learner, Problem, Step
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.strategies.peso import peso
from incremental.testing import check_strategy
from tests import lab

NONE: Any = None
RNG = np.random.default_rng(0)
SHAPES = {"user": (4, 3), "item": (5, 3), "inner": (3, 2), "outer": (2, 3), "bias": (3,)}
TABLES = {"user/embedding": "user", "item/embedding": "item"}


def drawn() -> Any:
    """A model's parameters: two tables, two kernels, a bias."""
    values = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return {
        name: value if name == "bias" else {"embedding" if name in ("user", "item") else "kernel": value}
        for name, value in values.items()
    }


OLD, NOW = drawn(), drawn()
SEEN: Any = np.array([0, 1, 1, 1, 0], bool)
USERS: Any = np.array([0, 1, 1, 0], bool)


def of(start: Any, tables: dict[str, str] = TABLES) -> Problem:
    return Problem(lambda _key: jax.tree.map(jnp.array, start), NONE, NONE, NONE, tables, None, NONE)


def learner(params: Any) -> Learner:
    return Learner(params, (), Catalogue(jnp.array(SEEN), jnp.array(SEEN), {"user": jnp.array(USERS)}), NONE)


def value(start: Any, params: Any, *, tables: bool = False, weight: float = 2.0) -> Any:
    """The term at `params` after an increment that ended at `start`, and its gradient."""

    @jax.jit
    def called(start: Any, params: Any, weight: Any) -> Any:
        made = peso(of(start), weight=weight, tables=tables)
        state, _ = made.end(made.init(learner(start)), learner(start), NONE, NONE)
        return jax.value_and_grad(lambda params: made.loss(state, params, NONE, NONE))(params)

    return called(start, params, np.float32(weight))


def softmax(w: Any) -> Any:
    e = np.exp(np.asarray(w, np.float64))
    return e / e.sum()


def kl(now: Any, last: Any) -> Any:
    """The divergence of the softmaxes of all numbers, and its gradient p (log p - log p* - KL)."""
    p, q = softmax(now), softmax(last)
    found = (p * np.log(p / q)).sum()
    return found, p * (np.log(p / q) - found)


def test_the_term_is_the_mean_divergence_of_the_kernels() -> None:
    total, gradient = value(OLD, NOW)
    parts = {name: kl(NOW[name]["kernel"], OLD[name]["kernel"]) for name in ("inner", "outer")}
    assert float(total) == pytest.approx(2.0 * np.mean([found for found, _ in parts.values()]), rel=1e-5)
    for name, (_, slope) in parts.items():
        np.testing.assert_allclose(gradient[name]["kernel"], 2.0 * slope / 2, rtol=1e-4, atol=1e-7)
    assert not any(np.asarray(gradient[name]["embedding"]).any() for name in ("user", "item"))
    assert not np.asarray(gradient["bias"]).any()


def test_small_moves_of_many_weights_are_not_lost_in_rounding() -> None:
    """About half the variance of the moves, which is far below the rounding of a softmax's logarithm."""
    last = {"inner": {"kernel": (0.1 * RNG.normal(size=(100, 100))).astype(np.float32)}}
    now = {"inner": {"kernel": last["inner"]["kernel"] + (1e-4 * RNG.normal(size=(100, 100))).astype(np.float32)}}
    total, gradient = value(last, now, weight=1.0)
    found, slope = kl(now["inner"]["kernel"], last["inner"]["kernel"])
    assert found < 1e-8
    assert float(total) == pytest.approx(found, rel=1e-2)
    np.testing.assert_allclose(gradient["inner"]["kernel"], slope, atol=1e-2 * np.abs(slope).max())


def test_a_module_is_a_pair_of_lora_matrices_where_there_are_any() -> None:
    def added(params: Any, scale: float) -> Any:
        pairs = {
            name: {"a": scale * np.ones((3, 2)) * np.arange(2), "b": scale * RNG.normal(size=(2, 3)), "merged": merged}
            for name, merged in (("query", np.zeros((3, 3))), ("value", scale * np.eye(3)))
        }
        return {**params, "lora": jax.tree.map(lambda leaf: leaf.astype(np.float32), pairs)}

    old, now = added(OLD, 1.0), added(NOW, 2.0)
    total, gradient = value(old, now)
    parts = [kl(now["lora"][m][x], old["lora"][m][x])[0] for m in ("query", "value") for x in ("a", "b")]
    assert float(total) == pytest.approx(2.0 * sum(parts) / 2, rel=1e-5)
    assert not np.asarray(gradient["inner"]["kernel"]).any()
    assert not np.asarray(gradient["lora"]["value"]["merged"]).any()


def test_tables_are_held_row_by_row_and_rows_of_new_ids_are_free() -> None:
    total, gradient = value(OLD, NOW, tables=True)
    kernels = [kl(NOW[name]["kernel"], OLD[name]["kernel"])[0] for name in ("inner", "outer")]
    means, known = [], {"user": USERS, "item": SEEN}
    for name, ids in known.items():
        rows = [kl(NOW[name]["embedding"][i], OLD[name]["embedding"][i]) for i in np.flatnonzero(ids)]
        means.append(np.mean([found for found, _ in rows]))
        expected = np.zeros(SHAPES[name])
        expected[ids] = [2.0 / 4 / ids.sum() * slope for _, slope in rows]
        np.testing.assert_allclose(gradient[name]["embedding"], expected, rtol=1e-4, atol=1e-7)
    assert float(total) == pytest.approx(2.0 * np.mean([*kernels, *means]), rel=1e-5)


def test_a_few_rows_are_pulled_as_in_the_whole_table() -> None:
    """As a compact step has them: rows of parameters, anchor and known ids, the number of ids as it is."""
    made = peso(of(OLD), tables=True)
    rows = np.array([0, 2, 4])

    @jax.jit
    def slopes(params: Any) -> Any:
        state, _ = made.end(made.init(learner(OLD)), learner(OLD), NONE, NONE)

        def few(tree: Any) -> Any:
            return {**tree, "item": {"embedding": tree["item"]["embedding"][rows]}}

        small = state._replace(
            anchor=state.anchor._replace(params=few(state.anchor.params)),
            known=Ids(state.known.labels[rows], state.known.others),
        )
        return (
            jax.grad(made.loss, 1)(state, params, NONE, NONE)["item"]["embedding"][rows],
            jax.grad(made.loss, 1)(small, few(params), NONE, NONE)["item"]["embedding"],
        )

    whole, few = slopes(jax.tree.map(jnp.array, NOW))
    assert np.asarray(whole).any()
    np.testing.assert_allclose(few, whole, rtol=1e-6)


def test_nothing_pulls_where_nothing_moved_nor_against_a_constant_nor_at_weight_0() -> None:
    shifted = jax.tree.map(lambda leaf: leaf + np.float32(0.5), OLD)
    for params, weight, most in ((OLD, 2.0, 0.0), (NOW, 0.0, 0.0), (shifted, 2.0, 1e-6)):
        total, gradient = value(OLD, params, tables=True, weight=weight)
        assert abs(float(total)) <= most
        assert all(np.abs(leaf).max() <= most for leaf in jax.tree.leaves(gradient))


def test_it_is_off_until_the_first_increment_is_finished() -> None:
    made = peso(of(OLD), tables=True)
    assert float(jax.jit(lambda params: made.loss(made.init(learner(OLD)), params, NONE, NONE))(NOW)) == 0.0


def test_it_may_begin_with_another_runs_base_part() -> None:
    """It follows none of its steps."""
    assert peso(of(OLD)).late


def test_it_reports_how_its_gradient_compares_with_the_rest() -> None:
    made = peso(of(OLD))
    zeros = jax.tree.map(np.zeros_like, OLD)
    penalty = {**zeros, "inner": {"kernel": np.full((3, 2), 2.0)}, "item": {"embedding": np.ones((5, 3))}}
    grads = {**penalty, "outer": {"kernel": np.full((2, 3), 4.0)}}

    @jax.jit
    def ratios() -> Any:
        state = made.init(learner(OLD))
        step = Step(NONE, NONE, NONE, grads, penalty, NONE, NONE, NONE)
        after = made.record(made.record(state, step, NONE), step._replace(penalty=zeros), NONE)
        fresh, _ = made.begin(after, learner(OLD), NONE, NONE)
        return [made.report(each)["gradient_ratio"] for each in (state, after, fresh)]

    without = 4.0 * np.sqrt(6)  # the two steps' lengths of the rest: of the outer kernel, then of both
    both = np.sqrt(6 * 16 + 6 * 4)
    np.testing.assert_allclose(ratios(), [0.0, 2.0 * np.sqrt(6) / (without + both), 0.0], rtol=1e-5)


def test_a_model_with_tables_only_is_told_of_the_option(documented: Any) -> None:
    own = problem(lab.MODELS["mf"](), full_softmax(), next_item(lab.HISTORY), lab.SIZES)
    with pytest.raises(UserError, match=r"only id tables; set strategies.peso.tables=true") as error:
        peso(own)
    documented("PESO on a model without kernels", error.value)


def test_the_laws_of_strategies() -> None:
    check_strategy(peso, kind="penalty", off={"weight": 0.0}, arguments={"weight": 100.0, "tables": True})
