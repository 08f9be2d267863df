"""BPR with the authors' negatives: a user's are none of his items in the whole log. They leak what he will take."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jax import Array

from incremental.core.negatives import Proposal
from incremental.core.problem import Head
from incremental.core.types import Batch
from incremental.domains import Count, checked
from incremental.heads import bpr as plain

REDRAWS = 3  # of a user with 50 of 14,622 items, one negative in 10^10 is left his own


@checked
def bpr(*, log: str, negatives: Count = 4) -> Head:
    """`heads.bpr` with negatives of each example's own, redrawn where they are among the user's items in `log`, a CSV
    of user, item and timestamp."""
    head = plain.bpr(negatives=negatives, shared=False)
    drawn, owned = head.strategy, items_of(Path(log))
    assert drawn is not None

    def batch(state: Proposal, batch: Batch, key: Array) -> Batch:
        given = drawn.batch(state, batch, key)
        own, found = jnp.asarray(owned)[batch.inputs["user"]], jnp.asarray(given.negatives)
        for n in range(REDRAWS):
            again = jnp.asarray(drawn.batch(state, batch, jax.random.fold_in(key, n)).negatives)
            found = jnp.where((own[:, None, :] == found[:, :, None]).any(2), again, found)
        return given._replace(negatives=found)

    return head._replace(strategy=drawn._replace(batch=batch))


def items_of(log: Path) -> np.ndarray:
    """[users + 1, K] int32: each user's items, 0 behind them. Ids count from 1 in the order of time."""
    frame = pl.read_csv(log, schema_overrides={"user": pl.String, "item": pl.String})
    frame = frame.sort("timestamp", maintain_order=True)
    user, item = (frame[name].to_numpy() for name in ("user", "item"))
    users, items = ({name: n for n, name in enumerate(dict.fromkeys(names), 1)} for names in (user, item))
    numbers = np.array([users[name] for name in user])
    table = np.zeros((len(users) + 1, np.bincount(numbers).max()), np.int32)
    place = np.zeros(len(users) + 1, int)
    for who, name in zip(numbers, item, strict=True):
        table[who, place[who]] = items[name]
        place[who] += 1
    return table
