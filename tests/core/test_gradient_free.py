from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core import gradient_free as module
from incremental.core.gradient_free import gradient_free
from incremental.core.program import Program
from incremental.core.spec import Input, Sizes
from incremental.core.types import Batch, Data, Info, State
from incremental.models.cooccurrence import cooccurrence
from incremental.models.popularity import popularity
from tests import lab

SIZES = Sizes(item=6, user=4)
INPUTS = {"user": Input((), np.dtype(np.int32), "user")}


def data(users: list[int], items: list[int], increment: int = 0) -> Data:
    """Events that are also the rows, with one padding row."""
    labels = jnp.array([*items, 0], jnp.int32)
    n = len(labels)
    rows = Batch(
        {"user": jnp.array([*users, 0], jnp.int32)},
        labels,
        jnp.ones(n),
        jnp.arange(n) < len(items),
        jnp.full(n, increment, jnp.int32),
    )
    return Data(rows, jnp.int32(len(items)), jnp.int32(increment), labels, {"user": rows.inputs["user"]})


@pytest.fixture
def counting() -> Program:
    """Counts labels; scores are the negated counts, so that its ranking is no popularity."""

    def absorb(params: Any, data: Data) -> Any:
        return {"count": params["count"].at[data.rows.labels].add(data.rows.valid.astype(jnp.float32))}

    return gradient_free(
        sizes=SIZES,
        inputs=INPUTS,
        init=lambda: {"count": jnp.zeros(SIZES.slots)},
        absorb=absorb,
        scores=lambda params, rows: jnp.broadcast_to(-params["count"], (len(rows["user"]), SIZES.slots)),
        cutoffs=(2,),
        rank_batch_size=2,
    )


def updated(program: Program, state: State, new: Data) -> tuple[State, Info]:
    """One update as the driver does it."""
    state = jax.jit(program.begin)(state, new)
    assert bool(state.fit.active)
    assert int(state.fit.epoch) == 0
    state, info = jax.jit(program.run_epoch)(state, new)
    state = program.validate(state, new, None)
    assert not bool(state.fit.active)  # one epoch is all there is
    assert int(state.fit.epoch) == program.epochs == 1
    return program.end(state, new), info


def test_an_update_absorbs_once_and_counts_what_arrived(counting: Program) -> None:
    state = counting.init(jax.random.key(0))
    state, info = updated(counting, state, data([1, 2, 1], [3, 3, 5]))
    assert int(info.examples) == 3
    state, _ = updated(counting, state, data([1], [4], increment=1))
    assert state.learner.params["count"].tolist() == [0, 0, 0, 2, 1, 1]
    assert state.learner.catalogue.events.tolist() == [0, 0, 0, 2, 1, 1]
    assert state.learner.catalogue.seen.tolist() == [False, False, False, True, True, True]
    assert state.learner.catalogue.arrived["user"].tolist() == [False, True, True, False]
    assert int(state.learner.increment) == 1
    assert state.strategy == {}


def test_scores_rank_seen_items_only_and_fall_back_on_popularity(counting: Program) -> None:
    state, _ = updated(counting, counting.init(jax.random.key(0)), data([1, 2, 1], [3, 3, 5]))
    users: Any = np.array([1, 3])
    tested = data([1, 3, 1], [3, 3, 4])
    both = jax.jit(lambda state, tested: (counting.scores(state, {"user": users}), counting.rank(state, tested, None)))
    scores, ranks = jax.tree.map(np.asarray, both(state, tested))
    inf = np.inf
    assert scores[0].tolist() == [-inf, -inf, -inf, -2, -inf, -1]
    assert scores[1].tolist() == [-inf, -inf, -inf, 2, -inf, 1]  # user 3 is unknown: events of each item

    assert ranks.rank[:3].tolist() == [1, 0, inf]
    assert ranks.recommended.tolist() == [[0, 0, 0, 3, 0, 3]]


def test_a_fresh_start_forgets_all(counting: Program) -> None:
    first = counting.init(jax.random.key(0))
    state, _ = updated(counting, first, data([1, 2, 1], [3, 3, 5]))
    fresh = counting.restart(state, data([2], [4], increment=1))
    lab.assert_same(fresh.learner, first.learner)
    state, _ = updated(counting, fresh, data([2], [4], increment=1))
    assert state.learner.params["count"].tolist() == [0, 0, 0, 0, 1, 0]
    assert state.learner.catalogue.events.tolist() == [0, 0, 0, 0, 1, 0]


def test_it_is_a_program_like_another(counting: Program) -> None:
    state = jax.eval_shape(counting.init, jax.random.key(0))
    new = data([1, 2], [3, 4])
    for changed in (
        jax.eval_shape(counting.restart, state, new),
        jax.eval_shape(counting.begin, state, new),
        jax.eval_shape(counting.run_epoch, state, new)[0],
        jax.eval_shape(counting.end, state, new),
    ):
        assert lab.types(changed) == lab.types(state)
    assert counting.inputs == INPUTS
    assert counting.sizes == SIZES


BASELINES = ("popularity", "cooccurrence", "fire", "incremental_svd", "frequent_directions")
SESSIONS = ("association_rules", "sequential_rules", "vsknn", "item_knn", "ease")


@pytest.mark.parametrize("name", [*BASELINES, *(pytest.param(name, marks=pytest.mark.slow) for name in SESSIONS)])
@pytest.mark.usefixtures("shared_programs")
def test_all_baselines_learn_from_every_event_that_arrived_once(name: str) -> None:
    """Whatever is set aside for early stopping, which they do not have, and however often a window shows an event."""
    stream = lab.stream(heldout=0.2, validation=0.1)
    result = lab.run(lab.baseline_build(name), stream)
    arrived = [int((~stream.heldout & (stream.increment == t)).sum()) for t in range(len(stream))]
    assert [cost.examples for cost in result.costs] == arrived
    for other, policy in ((lab.stream(heldout=0.2, validation=0.5), "finetune"), (stream, "window")):
        again = lab.run(lab.baseline_build(name), other, lab.POLICIES[policy])
        assert [cost.examples for cost in again.costs] == arrived
        lab.assert_same(again.state.learner, result.state.learner)
        assert str(again.records) == str(result.records)  # nan is nan


@pytest.mark.usefixtures("shared_programs")
def test_what_baselines_count_is_the_number_of_events() -> None:
    stream = lab.stream(heldout=0.2, validation=0.4)
    kept = ~stream.heldout
    popular, followed = popularity(decay=1.0), cooccurrence(window=1, decay=1.0)
    counted = lab.run(lab.of_baseline(popular), stream).state.learner.params["weight"]
    assert counted.sum() == kept.sum()
    first = len({*stream.interactions.user[kept]})  # of each user: it follows nothing
    counted = lab.run(lab.of_baseline(followed), stream).state.learner.params["weights"]
    assert counted.sum() == kept.sum() - first


def test_a_test_of_a_large_catalogue_ranks_fewer_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(module, "ranker", lambda _scores, *, batch_size, **_: found.append(batch_size))
    for items in (1000, 10**6):
        sizes = Sizes(item=items, user=4)
        gradient_free(sizes=sizes, inputs=INPUTS, init=dict, absorb=lambda own, _: own, scores=lambda own, _: own["n"])
    assert found == [256, 256, 64, 64]  # of increments, and of these with lists
