import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.problem import Items
from incremental.core.types import Batch, Catalogue, Learner, Outputs, Problem
from incremental.errors import UserError
from incremental.heads.bce import bce
from incremental.heads.bpr import bpr
from incremental.heads.sampled_softmax import sampled_softmax
from incremental.strategies.incctr import Scores, divergence, incctr
from incremental.testing import check_strategy
from tests.applies import trace

NONE: Any = None
B, V, W, D = 4, 7, 5, 2
RNG = np.random.default_rng(0)
OLD, NOW = (
    {name: RNG.normal(size=(n, D)).astype(np.float32) for name, n in (("user", W), ("item", V))} for _ in range(2)
)
SEEN: Any = np.array([0, 1, 1, 1, 0, 0, 1], bool)  # 4 is new, 5 is no item yet
USERS: Any = np.array([0, 1, 1, 1, 0], bool)
USER, LABEL = np.array([1, 2, 3, 1]), np.array([1, 2, 2, 3])
WEIGHT: Any = np.array([1.0, 2.0, 0.5, 9.0], np.float32)
VALID: Any = np.array([1, 1, 1, 0], bool)
SHARE = np.asarray(WEIGHT * VALID, np.float64) / 3.5
CANDIDATES: Any = np.array([0, 1, 1, 1, 1, 0, 0], bool)  # 6 is one no more
NEGATIVES: Any = np.array([2, 3, 4, 3])
OWN: Any = np.array([[3, 2], [3, 1], [4, 1], [1, 1]])  # of each example
LOG_Q: Any = np.log(np.array([0.3, 0.2, 0.4, 0.2], np.float32))


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    assert key is None
    hidden = params["user"][inputs["user"]]
    return Outputs(hidden, hidden @ params["item"].T)


PROBLEM = Problem(NONE, apply, NONE, NONE, {"user": "user", "item": "item"}, None, NONE)


def rows(user: Any = USER, label: Any = LABEL, **fields: Any) -> Batch:
    batch = Batch({"user": jnp.array(user)}, jnp.array(label), WEIGHT, VALID, NONE, candidates=CANDIDATES, **fields)
    return batch._replace(own=B)


@functools.partial(jax.jit, static_argnums=0)
def loss(link: Any, params: Any, batch: Batch, weight: Any, new: Any) -> Any:
    """The term, its gradients by model and teacher, and the weights that the labels keep."""

    def term(params: Any, teacher: Any) -> Any:
        made = incctr(PROBLEM, weight=weight, link=link, new=new)
        learner = Learner(teacher, (), Catalogue(jnp.array(SEEN), jnp.array(SEEN), {"user": jnp.array(USERS)}), NONE)
        state, _ = made.end(made.init(learner), learner, NONE, NONE)
        joined = made.batch(state, batch, NONE)
        return made.loss(state, params, joined, apply(params, joined.inputs)), joined.weight

    return jax.value_and_grad(term, argnums=(0, 1), has_aux=True)(params, jax.tree.map(jnp.array, OLD))


def scores(params: Any, user: Any = USER) -> Any:
    return np.asarray(params["user"], np.float64)[user] @ np.asarray(params["item"], np.float64).T


def sigmoid(s: Any) -> Any:
    return 1 / (1 + np.exp(-s))


def cross_entropy(q: Any, p: Any) -> Any:
    return -q * np.log(p) - (1 - q) * np.log(1 - p)


def expected(link: str, negatives: Any, log_q: Any) -> float:
    """λ = 0.3, example by example and item by item."""
    total = 0.0
    for x in range(B):
        drawn = range(V) if negatives is None else negatives[x] if negatives.ndim > 1 else negatives
        counts = CANDIDATES if negatives is None else np.isfinite(log_q if log_q.ndim == 1 else log_q[x])
        places = [j for j, item in enumerate(drawn) if SEEN[item] and item != LABEL[x] and counts[j]]
        items = [list(drawn)[j] for j in places]
        (told, q), (said, p) = ((s[x, LABEL[x]], s[x, items]) for s in (scores(OLD), scores(NOW)))
        if link == "softmax":
            correction = np.zeros(len(items)) if log_q is None else log_q[places]
            q, p = (np.exp([label, *(s - correction)]) for label, s in ((told, q), (said, p)))
            value = -(q / q.sum() * np.log(p / p.sum())).sum()
        elif link == "sigmoid":
            value = cross_entropy(sigmoid(told), sigmoid(said)) + cross_entropy(sigmoid(q), sigmoid(p)).mean()
        else:
            value = cross_entropy(sigmoid(told - q), sigmoid(said - p)).mean()
        total += 0.3 * SHARE[x] * value
    return total


@pytest.mark.parametrize(
    ("link", "negatives", "log_q"),
    [
        ("softmax", None, None),
        ("softmax", NEGATIVES, LOG_Q),
        ("softmax", np.append(NEGATIVES, 1), np.append(LOG_Q, np.float32(np.inf))),  # the last draw does not count
        ("sigmoid", None, None),
        ("sigmoid", NEGATIVES, LOG_Q),
        ("pairs", OWN, np.zeros_like(OWN, np.float32)),
    ],
)
def test_the_term_is_the_cross_entropy_of_the_two_models(link: str, negatives: Any, log_q: Any) -> None:
    batch = rows(negatives=negatives, log_q=log_q)
    (value, weight), (gradient, teacher) = loss(link, NOW, batch, np.float32(0.3), np.float32(0.0))
    assert float(value) == pytest.approx(expected(link, negatives, log_q), rel=1e-5)
    np.testing.assert_allclose(np.asarray(weight)[:3], 0.7 * WEIGHT[:3])
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(teacher))
    assert not np.asarray(gradient["item"])[~SEEN].any()
    assert np.abs(gradient["user"]).max() > 1e-3
    # Teacher = student: nothing is asked for.
    _, (gradient, _) = loss(link, OLD, batch, np.float32(0.3), np.float32(0.0))
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-7)


@pytest.mark.parametrize(
    ("link", "head"), [("softmax", sampled_softmax), ("sigmoid", bce), ("pairs", bpr)], ids=["softmax", "bce", "bpr"]
)
def test_a_teacher_that_is_sure_of_the_labels_says_what_the_labels_say(link: Any, head: Any) -> None:
    """In the head's own unit, so that λ is a share."""
    items, hidden = Items(jnp.array(NOW["item"]), jnp.zeros(V)), jnp.array(NOW["user"][USER])
    drawn, log_q = np.array([4, 5, 5]), jnp.log(jnp.array([0.3, 0.2, 0.2]))
    batch = rows(negatives=drawn, log_q=log_q)
    outputs = Outputs(hidden, hidden @ items.table.T)
    said = Scores(outputs.scores[np.arange(B), LABEL], outputs.scores[:, drawn])
    sure, every = Scores(jnp.full(B, 60.0), jnp.full(said.others.shape, -60.0)), jnp.ones(said.others.shape, bool)
    own = jax.jit(head().loss)(items, outputs, batch)
    np.testing.assert_allclose(divergence(link, sure, said, every, log_q), own, rtol=1e-5)


def test_labels_and_teacher_weigh_an_appended_example_alike() -> None:
    """The last two of four are those of another strategy: each has its weight / 2, whatever the two own ones weigh."""
    batch = rows()._replace(own=2)
    (value, _), _ = loss("softmax", NOW, batch, np.float32(0.3), np.float32(0.0))
    whole = [
        loss(
            "softmax", NOW, batch._replace(valid=VALID & (np.arange(B) == x), own=B), np.float32(0.3), np.float32(0.0)
        )[0][0]
        for x in range(B)
    ]
    weight = np.where(VALID, WEIGHT, 0.0)
    share = np.where(np.arange(B) < 2, weight / weight[:2].sum(), weight / 2)
    assert float(value) == pytest.approx(sum(share * np.array(whole, float)), rel=1e-5)


def test_an_example_of_an_id_that_the_teacher_did_not_know_keeps_its_label() -> None:
    batch = rows(user=[1, 4, 3, 1], label=[1, 2, 4, 3])
    (_, weight), (gradient, _) = loss("softmax", NOW, batch, np.float32(0.3), np.float32(0.0))
    np.testing.assert_allclose(weight, WEIGHT * np.array([0.7, 1.0, 1.0, 0.7], np.float32))
    assert np.asarray(gradient["user"]).any(1).tolist() == [False, True, False, False, False]
    (_, weight), (gradient, _) = loss("softmax", NOW, batch, np.float32(0.3), np.float32(0.5))
    np.testing.assert_allclose(weight, WEIGHT * np.array([0.7, 0.85, 0.85, 0.7], np.float32))
    assert np.asarray(gradient["user"]).any(1).tolist() == [False, True, False, True, True]
    assert np.asarray(gradient["item"])[4].any()  # then a new item counts, as any candidate


def test_weight_0_is_plain_fine_tuning() -> None:
    (value, weight), (gradient, _) = loss("softmax", NOW, rows(), np.float32(0.0), np.float32(1.0))
    np.testing.assert_array_equal(weight, WEIGHT)
    assert not any(np.asarray(leaf).any() for leaf in (value, *jax.tree.leaves(gradient)))


def test_before_the_first_increments_end_there_is_no_teacher() -> None:
    made = incctr(PROBLEM)
    learner = Learner(OLD, (), Catalogue(jnp.array(SEEN), jnp.array(SEEN), {"user": jnp.array(USERS)}), NONE)
    joined = jax.jit(lambda: made.batch(made.init(learner), rows(), NONE))()
    np.testing.assert_array_equal(joined.weight, WEIGHT)
    np.testing.assert_array_equal(joined.memory, 0.0)


def test_a_link_that_there_is_not_is_refused(documented: Any) -> None:
    wrong: Any = "probit"
    with pytest.raises(UserError, match=r"link='probit': expected one of softmax, sigmoid, pairs") as error:
        incctr(PROBLEM, link=wrong)
    documented("a link of IncCTR that there is not", error.value)


def test_it_applies_to_compact_rows() -> None:
    trace(incctr, "mf", lambda: sampled_softmax(negatives=2), rows="compact")
    trace(lambda own: incctr(own, link="pairs"), "sasrec", lambda: bpr(negatives=1, shared=False), rows="compact")


def test_the_laws_of_strategies() -> None:
    check_strategy(incctr, kind="distillation", off={"weight": 0.0})
