"""A guest: a strategy with noise in `grads`, which says how large it was."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import incremental as inc
from incremental.run.progress import EpochDone
from tests import lab


def noisy(problem: inc.Problem, *, scale: float = 0.1) -> inc.Strategy:
    """g + scale · n where g is not 0, n standard normal; it reports the norm of the last step.

    Table rows of ids to come get no noise: grown tables must equal tables allocated beforehand.
    """
    del problem

    def grads(state: Any, grads: Any, params: Any, grad_fn: Any, batch: inc.Batch, key: jax.Array) -> Any:
        del state, params, grad_fn, batch
        return jax.tree.map(lambda g, n: jnp.where(g != 0, g + n, g), grads, drawn(key, grads))

    def drawn(key: jax.Array, like: Any) -> Any:
        leaves, structure = jax.tree.flatten(like)
        keys = jax.random.split(key, len(leaves))
        noise = [scale * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(structure, noise)

    def record(state: Any, step: inc.Step, key: jax.Array) -> Any:
        del state, key
        squares = jax.tree.map(lambda leaf: (leaf**2).sum(), step.updates)
        return {"norm": jnp.sqrt(sum(jax.tree.leaves(squares), jnp.float32(0.0)))}

    return inc.Strategy(
        init=lambda _: {"norm": jnp.float32(0.0)}, grads=grads, record=record, report=lambda state: dict(state)
    )


def test_it_keeps_every_law_of_a_strategy() -> None:
    inc.check_strategy(noisy, arguments={"scale": 0.02}, off={"scale": 0.0})


def test_it_trains_in_a_run_and_reports_each_epoch() -> None:
    def build(sizes: inc.Sizes) -> inc.Program:
        own = lab.problem_of(lab.Spec(), sizes)
        return lab.make(own, {"noise": noisy(own, scale=0.1)}, sizes, lab.Spec())

    events = list(lab.events(build, lab.stream()))
    reports = [event.epoch.reports["noise/norm"] for event in events if isinstance(event, EpochDone)]
    assert len(reports) > 3
    assert np.all(np.array(reports) > 0)
    again = [event.epoch.reports for event in lab.events(build, lab.stream()) if isinstance(event, EpochDone)]
    assert [each["noise/norm"] for each in again] == reports  # noise comes from the run's own key
