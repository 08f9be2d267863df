"""Gradient Projection Memory: layers keep what they do to past inputs (Saha et al. 2021, arXiv 2103.09762)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.leaves import by_path, replaced
from incremental.core.strategy import Strategy
from incremental.core.types import Data, Learner, Params, Problem
from incremental.domains import Count, Share, checked
from incremental.errors import UserError

NOISE = 1e-6  # share of the total below which a direction's energy is rounding


class Spaces(NamedTuple):
    """The protected input space of each dense kernel, by the kernel's path."""

    basis: dict[str, Array]  # [D_in, rank], orthonormal columns, 0 beyond the first `used`
    used: dict[str, Array]  # [] int32
    left_out: dict[str, Array]  # [] int32, directions that found no room


@checked
def gpm(problem: Problem, *, threshold: Share = 0.97, rank: Count = 64, samples: Count = 256) -> Strategy:
    """An update of a dense kernel [D_in, D_out] loses its part in the space of past inputs: U ← U - Q Qᵀ U.

    At each increment's end the inputs X [N, D_in] of each kernel are taken at `samples` training rows (uniform with
    replacement; every position of a sequence counts, padding too; no dropout). Q gains the leading eigenvectors of
    (I - QQᵀ) XᵀX (I - QQᵀ) until |XQ|² ≥ `threshold` · |X|², as far as `rank` columns (at most D_in) go; directions
    beyond them are counted in `left_out` and not protected. So Qᵀ ΔW = 0: a past input in the space meets the same
    layer. Projected are the updates, where the paper projects gradients: Adam's moments would lead back into the space.
    Biases, layer norms, positions and id tables are not kernels and stay free. Refused for models without dense
    kernels or with kernels inside a scan, whose inputs cannot be read. The space outlives a fresh start
    (update.start=afresh), and says nothing of the new weights: leave it out there. State: D_in · `rank` floats a
    kernel.
    """
    widths = input_widths(problem)

    def init(learner: Learner) -> Spaces:
        del learner
        return Spaces(
            {path: jnp.zeros((width, min(rank, width))) for path, width in widths.items()},
            {path: jnp.int32(0) for path in widths},
            {path: jnp.int32(0) for path in widths},
        )

    def updates(state: Spaces, updates: Params, params: Params) -> Params:
        del params
        moves = by_path(updates)
        return replaced(updates, {path: moves[path] - q @ (q.T @ moves[path]) for path, q in state.basis.items()})

    def end(state: Spaces, learner: Learner, data: Data, key: Array) -> tuple[Spaces, Learner]:
        index = jax.random.randint(key, (samples,), 0, jnp.maximum(data.size, 1))
        entered = problem.features(learner.params, jax.tree.map(lambda leaf: leaf[index], data.rows.inputs))
        grown = {
            path: widened(q, state.used[path], state.left_out[path], entered[path], threshold)
            for path, q in state.basis.items()
        }
        return Spaces(*({path: parts[i] for path, parts in grown.items()} for i in range(3))), learner

    return Strategy(
        init=init, updates=updates, end=end, report=lambda state: {"left_out": sum(state.left_out.values())}
    )


def widened(
    q: Array, used: Array, left_out: Array, entered: Array, threshold: float | Array
) -> tuple[Array, Array, Array]:
    """A kernel's space with the directions that the inputs [N, D_in] add."""
    moment = entered.T @ entered / len(entered)  # [D_in, D_in]
    free = jnp.eye(len(q)) - q @ q.T
    energy, vectors = jnp.linalg.eigh(free @ moment @ free)
    energy, vectors = energy[::-1], vectors[:, ::-1]
    total = jnp.trace(moment)
    before = total - energy.sum() + jnp.cumsum(energy) - energy  # |XQ|² with the first 0, 1, … of them
    wanted = ((before < threshold * total) & (energy > NOISE * total)).sum(dtype=jnp.int32)
    taken = jnp.minimum(wanted, q.shape[1] - used)
    column = jnp.arange(q.shape[1]) - used
    q = jnp.where((column >= 0) & (column < taken), vectors[:, jnp.clip(column, 0, len(q) - 1)], q)
    # Rounding turns faint directions towards those that are there.
    orthonormal, r = jnp.linalg.qr(q)
    q = jnp.where(column < taken, orthonormal * jnp.sign(jnp.diagonal(r)), 0.0)
    return q, used + taken, left_out + wanted - taken


def input_widths(problem: Problem) -> dict[str, int]:
    """D_in of each dense kernel whose inputs can be read."""
    params = jax.eval_shape(problem.init, jax.random.key(0))
    row = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), problem.example.inputs)
    try:
        traced, entered = jax.make_jaxpr(problem.features, return_shape=True)(params, row)
        _ = [const + 0 for const in traced.consts]  # a value of a scan that is over cannot be read, a traced text can
    except jax.errors.UnexpectedTracerError:
        raise UserError(
            "gpm: the model's dense kernels run inside a scan (a recurrent model such as GRU4Rec), where what enters "
            "them cannot be read; choose a model such as sasrec, or a strategy that needs no inputs, such as ogd"
        ) from None
    if not entered:
        raise UserError(
            "gpm: the model has no dense kernel (matrix factorisation is id tables alone), so there is nothing to "
            "protect; choose a model such as sasrec, or a strategy for all parameters, such as ogd"
        )
    return {path: leaf.shape[1] for path, leaf in entered.items()}
