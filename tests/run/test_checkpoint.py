"""What a save within an update has."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from incremental.core.spec import Sizes, next_item
from incremental.models.popularity import popularity
from incremental.run.alone import Kept
from incremental.run.checkpoint import Checkpoints
from incremental.run.executor import Snapshot
from incremental.run.progress import Progress
from incremental.run.stopping import Best
from tests import lab

SIZES = Sizes(item=8, user=8)


@pytest.mark.parametrize("better", [False, True])
def test_the_best_epoch_is_saved_only_where_the_state_is_another(better: bool, tmp_path: Path) -> None:
    state = popularity().program(next_item(8), SIZES, (10,)).init(jax.random.key(0))
    state = state._replace(fit=state.fit._replace(better=jnp.array(better)))
    best = Best(jax.tree.map(lambda leaf: leaf + 1, state.learner.increment), {"of": jnp.arange(3.0)})
    kept = Kept(state, best, {"sums": jnp.arange(8)})

    def like(_: Sizes) -> Any:
        return jax.tree.map(lambda own: jax.ShapeDtypeStruct(own.shape, own.dtype, sharding=own.sharding), kept)

    saves = Checkpoints(tmp_path, {"seed": 0})
    saves.save(Snapshot(*kept, SIZES, Progress(begun=True)))
    found = saves.restore(like)
    assert found is not None
    lab.assert_same((found.state, found.before), (state, kept.before))
    if better:
        assert found.best is None
    else:
        lab.assert_same(found.best, best)
