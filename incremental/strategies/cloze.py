"""The cloze loss of BERT4Rec (Sun et al. 2019, arXiv 1904.06690): items asked for from both sides."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Learner, Problem, stored
from incremental.domains import Count, NotNegative, checked
from incremental.errors import UserError
from incremental.memory import buffer


@checked
def cloze(problem: Problem, *, rows: Count = 128, weight: NotNegative = 1.0) -> Strategy:
    """Each batch comes with `rows` of its own examples, drawn by their weights with replacement, that have a hole.

    Loss: Σ_new w ℓ / Σ_new w + weight Σ_holes ℓ / B. The sequence of an example is the last L of its history and its
    label. Of the items between its first and its last one is drawn uniformly; it becomes the label, and 0 stands in its
    place. An example of fewer than three items has none, and is not drawn. The paper takes a user's whole sequence, a
    share of it at once and its ends too; here the ends are asked for as next items alone, and a sequence is read once
    for each hole.

    It acts in the base part too, so that no other run's can be taken for it. It needs a model that reads holes:
    model=bert4rec, which hides other items of the history beside (`masked`). State: none.
    """
    del problem

    def init(learner: Learner) -> tuple[()]:
        if "mask" not in learner.params:
            raise UserError(
                "strategies.cloze: the model has no mask to put in an item's place; choose model=bert4rec, or leave "
                "the strategy out"
            )
        return ()

    def batch(state: tuple[()], batch: Batch, key: Array) -> Batch:
        del state
        which, where = jax.random.split(key)
        new: Batch = jax.tree.map(lambda leaf: leaf[: batch.own], stored(batch))
        sequence = jnp.concatenate([new.inputs["history"][:, 1:], new.labels[:, None]], 1)
        inner = jnp.maximum((sequence > 0).sum(1) - 2, 0)
        total = jnp.cumsum(jnp.where(new.valid & (inner > 0), new.weight, 0.0))
        index = jnp.searchsorted(total, jax.random.uniform(which, (rows,)) * total[-1], side="right")
        chosen, sequence, inner = jax.tree.map(
            lambda leaf: leaf[jnp.minimum(index, batch.own - 1)], (new, sequence, inner)
        )
        last = sequence.shape[1] - 1
        place = last - inner + (jax.random.uniform(where, (rows,)) * inner).astype(jnp.int32)
        hole = jnp.arange(last + 1) == place[:, None]
        asked = chosen._replace(
            inputs={**chosen.inputs, "history": jnp.where(hole, 0, sequence)},
            labels=jnp.where(hole, sequence, 0).sum(1),
            weight=jnp.full(rows, weight, jnp.float32),
            valid=jnp.full(rows, total[-1] > 0),
        )
        return buffer.beside(batch, asked)

    return Strategy(init=init, batch=batch, early=True)
