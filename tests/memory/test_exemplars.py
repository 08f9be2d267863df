from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from incremental.core.strategy import named_key
from incremental.core.types import Batch, Catalogue, Data, Learner, Memory, Outputs, Problem
from incremental.errors import UserError
from incremental.memory import buffer, exemplars, herding, quotas

C, N, V, D = 12, 40, 7, 3
NONE: Any = None
KINDS = (np.int32, np.float32, np.bool_, np.int32)
SCALARS: list[Any] = [jax.ShapeDtypeStruct((), kind) for kind in KINDS]
EXAMPLE = Batch({"id": jax.ShapeDtypeStruct((), np.int32)}, *SCALARS)
RNG = np.random.default_rng(3)
IDS = 200  # every row ever met has an id, by which its hidden vector and its loss are known
TABLE: Any = RNG.normal(size=(IDS, D)).astype(np.float32) * RNG.uniform(0.1, 9, (IDS, 1)).astype(np.float32)
COST: Any = RNG.permutation(IDS).astype(np.float32)
LABEL: Any = RNG.integers(1, V - 1, IDS).astype(np.int32)
LISTED: Any = np.arange(V + 1) > 0  # candidates; the last one has no event yet (data.unseen_items=known)
SEEN: Any = LISTED & (np.arange(V + 1) < V)


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    assert key is None  # no dropout
    hidden = params["table"][inputs["id"]]
    return Outputs(hidden, hidden @ jnp.ones((D, V)))


def cost(params: Any, outputs: Any, batch: Batch) -> Any:
    del params, outputs
    assert batch.candidates is not None  # the head's exact loss, over the items seen
    return jnp.where(batch.candidates[batch.labels], jnp.asarray(COST)[batch.inputs["id"]], -1.0)


PROBLEM = Problem(NONE, apply, cost, EXAMPLE, {}, NONE, NONE)
LEARNER = Learner({"table": TABLE}, (), Catalogue(LISTED, SEEN, NONE), NONE)


def data(ids: Any, increment: int, capacity: int = N) -> Data:
    """Rows of an increment; what is beyond is garbage that must not be read."""
    n = len(ids)
    every = np.append(ids, np.full(capacity - n, 199)).astype(np.int32)
    arrived: Any = np.where(np.arange(capacity) < n, increment, -7).astype(np.int32)
    fields: list[Any] = [LABEL[every], np.ones(capacity, np.float32), np.ones(capacity, bool), arrived]
    whole: Any = np.int32(n), np.int32(increment), NONE, NONE
    return Data(Batch({"id": every}, *fields), *whole)


@pytest.fixture(scope="module")
def end() -> Any:
    """`selector` for each way, compiled when it is met."""
    made: dict[Any, Any] = {}

    def run(memory: Any, data: Data, selection: Any = "loss", shares: Any = "proportional", seed: int = 0) -> Memory:
        way = selection, shares
        made[way] = made.get(way) or jax.jit(exemplars.selector(PROBLEM, "mine", selection, shares))
        kept: Memory = jax.tree.map(np.asarray, made[way](memory, LEARNER, data, jax.random.key(seed)))
        return kept

    return run


herd = jax.jit(herding.herd)
proportional = jax.jit(lambda counts, key: quotas.proportional(counts, C, key))
multinomial = jax.jit(lambda counts, key: quotas.multinomial(counts, C, key))
EMPTY = buffer.empty(EXAMPLE, C)


def ids(memory: Memory) -> set[int]:
    """The rows a memory holds; no row twice, and each as it was."""
    kept = jax.tree.map(lambda leaf: leaf[memory.rows.valid], memory.rows)
    np.testing.assert_array_equal(kept.labels, LABEL[kept.inputs["id"]])
    found = set(kept.inputs["id"].tolist())
    assert len(found) == len(kept.labels)
    return found


def expected_by_loss(candidates: Any) -> set[int]:
    """Each label's costliest rows, in proportion."""
    counts: Any = np.bincount(LABEL[candidates], minlength=V).astype(np.int32)
    quota = np.asarray(proportional(counts, named_key(jax.random.key(0), "quotas")))
    return {
        int(row)
        for label in range(V)
        for row in sorted(candidates[LABEL[candidates] == label], key=lambda i: -COST[i])[: quota[label]]
    }


def test_a_memory_with_room_keeps_every_row_and_no_padding(end: Any) -> None:
    memory = EMPTY
    for increment, (first, last) in enumerate([(0, 5), (5, 9), (9, 11)]):
        memory = end(memory, data(np.arange(first, last), increment))
        assert ids(memory) == set(range(last))
        assert int(memory.inserted) == last


def test_by_loss_each_label_keeps_its_costliest_rows(end: Any) -> None:
    memory = end(EMPTY, data(np.arange(30), 0))
    assert ids(memory) == expected_by_loss(np.arange(30))
    assert memory.rows.valid.all()


def test_by_loss_a_label_that_is_no_candidate_any_more_is_one_for_its_rows() -> None:
    """As after a start that forgot items, beside rows that a memory kept of them."""
    select = jax.jit(exemplars.selector(PROBLEM, "mine", "loss", "proportional"))
    fewer = LEARNER._replace(catalogue=LEARNER.catalogue._replace(seen=jnp.asarray(LISTED).at[LABEL[0]].set(False)))
    memory: Memory = jax.tree.map(np.asarray, select(EMPTY, fewer, data(np.arange(30), 0), jax.random.key(0)))
    assert ids(memory) == expected_by_loss(np.arange(30))


def test_by_least_loss_each_label_keeps_its_cheapest_rows(end: Any) -> None:
    kept = ids(end(EMPTY, data(np.arange(30), 0), "least_loss"))
    for label in range(1, V - 1):
        own = sorted(np.flatnonzero(LABEL[:30] == label), key=lambda i: COST[i])
        here = kept & set(own)
        assert here == set(own[: len(here)])
    assert len(kept) == C


def test_the_next_choice_is_among_the_memorys_and_the_increments_rows(end: Any) -> None:
    memory = end(EMPTY, data(np.arange(30), 0))
    after = end(memory, data(np.arange(30, 65), 1))
    assert ids(after) == expected_by_loss(np.array([*sorted(ids(memory)), *range(30, 65)]))
    assert {0, 1} == set(after.rows.increment.tolist())
    assert int(after.inserted) == 65


def test_increments_share_the_memory_equally_whatever_their_labels_and_sizes() -> None:
    select = jax.jit(exemplars.selector(PROBLEM, "mine", "random", "balanced", "increment"))
    memory, first = EMPTY, 0
    for increment, (n, shares) in enumerate([(30, {12}), (14, {6}), (25, {4}), (2, {3, 4, 2})]):
        rows = data(np.arange(first, first + n), 10 * increment, capacity=40)
        memory = jax.tree.map(np.asarray, select(memory, LEARNER, rows, jax.random.key(increment)))
        ids(memory)
        assert memory.rows.valid.all()
        kept = np.bincount(memory.rows.increment, minlength=10 * increment + 1)[::10]
        assert set(kept.tolist()) <= shares
        first += n
    assert (memory.rows.increment == 30).sum() == 2  # as many as there are


def test_rows_that_the_update_trained_on_again_are_candidates_once(end: Any) -> None:
    memory = end(EMPTY, data(np.arange(9), 4))
    window = data(np.arange(11), 4)  # the update's data hold increment 4 again
    assert ids(end(memory, window)) == set(range(11))


@pytest.mark.parametrize("seed", range(3))
def test_by_herding_each_label_keeps_what_follows_its_mean_direction(end: Any, seed: int) -> None:
    memory = end(EMPTY, data(np.arange(35), 0), "herding", "multinomial", seed)
    counts: Any = np.bincount(LABEL[:35], minlength=V).astype(np.int32)
    quota = multinomial(counts, named_key(jax.random.key(seed), "quotas"))
    directions = TABLE[:35] / np.linalg.norm(TABLE[:35], axis=1, keepdims=True)
    chosen = herd(directions, LABEL[:35], quota)
    assert ids(memory) == set(np.flatnonzero(chosen).tolist())
    assert memory.rows.valid.sum() == quota.sum() <= C


def test_at_random_every_row_of_a_label_is_as_likely(end: Any) -> None:
    runs = [ids(end(EMPTY, data(np.arange(36), 0), "random", "balanced", seed)) for seed in range(200)]
    counts = np.bincount([row for run in runs for row in run], minlength=36)
    for label in range(1, V - 1):
        own = counts[LABEL[:36] == label]
        n, mean = len(own), own.mean()
        statistic = ((own - mean) ** 2).sum() / (mean * (1 - mean / 200)) * (n - 1) / n
        assert stats.chi2(n - 1).sf(statistic) > 1e-4
        assert own.sum() == pytest.approx(200 * C / 5, abs=100)  # as many of each label, two or three
    assert len({frozenset(run) for run in runs}) > 100


def test_samples_are_uniform_over_the_filled_slots(end: Any) -> None:
    memory = end(EMPTY, data(np.arange(9), 4))
    memory = memory._replace(inserted=np.int32(500))  # offered, of which fewer are kept
    drawn = jax.tree.map(np.asarray, jax.jit(exemplars.sample, static_argnums=1)(memory, 900, jax.random.key(0)))
    assert drawn.valid.all()
    assert stats.chisquare(np.bincount(drawn.inputs["id"], minlength=9)).pvalue > 1e-4


@pytest.mark.parametrize("n", [1, exemplars.CHUNK, exemplars.CHUNK + 3])
def test_chunks_are_the_whole(n: int) -> None:
    number: Any = np.arange(n, dtype=np.int32)
    rows = Batch({"id": number}, number, NONE, NONE, NONE)

    @jax.jit
    def stacked(rows: Batch) -> Any:
        return exemplars.chunked(lambda rows: jnp.stack([rows.labels, 2 * rows.inputs["id"]], 1), rows)

    found = stacked(rows)
    np.testing.assert_array_equal(found, np.stack([np.arange(n), 2 * np.arange(n)], 1))


@pytest.mark.parametrize("seed", range(3))
def test_one_random_row_of_each_label_that_has_a_slot(end: Any, seed: int) -> None:
    """As ADER's code keeps them for ER-loss: as many rows as labels with a quota of 1 or more, whatever the quotas."""
    kept = ids(end(EMPTY, data(np.arange(35), 0), "one", "multinomial", seed))
    counts: Any = np.bincount(LABEL[:35], minlength=V).astype(np.int32)
    quota = np.asarray(multinomial(counts, named_key(jax.random.key(seed), "quotas")))
    assert quota.max() > 1
    assert sorted(LABEL[sorted(kept)]) == np.flatnonzero(quota).tolist()


def test_the_one_row_is_any_of_its_label(end: Any) -> None:
    runs = [ids(end(EMPTY, data(np.arange(36), 0), "one", "multinomial", seed)) for seed in range(200)]
    met = np.bincount([row for run in runs for row in run], minlength=36)
    for label in range(1, V - 1):
        own = met[LABEL[:36] == label]
        assert stats.chisquare(own).pvalue > 1e-4


def test_draws_over_all_items_seen_leave_slots_empty(end: Any) -> None:
    """Of 12 draws over the 6 items seen, 2 in the mean fall on item 6, which has no row; 5 items have rows enough."""
    sizes = [len(ids(end(EMPTY, data(np.arange(60), 0, 70), "random", "uniform_seen", seed))) for seed in range(200)]
    assert np.mean(sizes) == pytest.approx(10, abs=4 * np.sqrt(12 * 5 / 36 / 200))
    with pytest.raises(UserError, match=r"strategies\.mine: quotas=uniform_seen .* groups=increment .* quotas=uniform"):
        exemplars.selector(PROBLEM, "mine", "random", "uniform_seen", "increment")


def test_an_unknown_selection_is_refused() -> None:
    wrong: Any = "best"
    with pytest.raises(UserError, match=r"strategies\.mine: selection='best': expected one of herding, loss"):
        exemplars.selector(PROBLEM, "mine", wrong, "balanced")


def test_unknown_groups_are_refused() -> None:
    wrong: Any = "user"
    with pytest.raises(UserError, match=r"strategies\.mine: groups='user': expected one of label, increment"):
        exemplars.selector(PROBLEM, "mine", "random", "balanced", wrong)
