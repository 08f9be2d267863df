from typing import Any

import jax
import numpy as np

from incremental.core.types import Batch, Catalogue, Learner
from incremental.heads.log_uniform_softmax import log_uniform, log_uniform_softmax

SEEN: Any = np.array([0, 1, 1, 0, 1, 1], bool)
EVENTS: Any = np.array([0, 2, 9, 0, 30, 1], np.float32)
NONE: Any = None


def test_an_item_of_rank_r_is_drawn_with_log_uniform_probability() -> None:
    strategy = log_uniform_softmax(negatives=2048).strategy
    assert strategy is not None
    learner = Learner({}, (), Catalogue(SEEN, EVENTS, {}), NONE)

    @jax.jit
    def draws(key: Any) -> Any:
        state, _ = strategy.begin(strategy.init(learner), learner, NONE, key)
        batch = strategy.batch(state, Batch({}, NONE, NONE, NONE, NONE), key)
        return batch.negatives, batch.log_q

    negatives, log_q = map(np.asarray, draws(jax.random.key(0)))
    rank = np.array([0, 2, 1, 0, 0, 3])  # by falling events, among the seen
    share = np.log((rank + 2) / (rank + 1)) / np.log(4 + 1)  # sums to 1 over ranks 0..3
    np.testing.assert_allclose(log_q, np.log(2048 * share[negatives]), rtol=1e-5)
    assert set(negatives) == {1, 2, 4, 5}


def test_ranks_of_equal_counts_are_distinct() -> None:
    weights = np.asarray(jax.jit(log_uniform)(Catalogue(SEEN, np.ones_like(EVENTS), {})))
    assert len(set(weights[SEEN])) == SEEN.sum()
    assert weights[SEEN].min() > weights[~SEEN].max()
