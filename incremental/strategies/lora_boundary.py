"""What happens to LoRA matrices at the end of an increment; without a strategy they are kept and trained on."""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from incremental.errors import UserError
from incremental.strategy import Strategy
from incremental.types import Data, Learner, Params, Problem

Way = Literal["merge", "average"]
Pair = str  # the path of an adapter below "tower/lora"


class Past(NamedTuple):
    """What the increments so far have left."""

    merged: dict[Pair, Array]  # [D_in, D_out] float32: the sum of the products that were merged
    mean: dict[Pair, dict[str, Array]]  # of the matrices A and B at the increments' ends
    finished: Array  # [] float32, increments


def lora_boundary(problem: Problem, *, way: Way = "merge") -> Strategy:
    """At an increment's end, for each pair A [D_in, r], B [r, D_out] that a model adds to a frozen kernel:

    "merge": A B is added to what the kernel is from then on, A drawn anew and B = 0 (Lialin et al. 2023, arXiv
    2307.05695, ReLoRA), so that the sum of the updates is of higher rank. "average": A and B become the means of their
    values at the ends so far. The optimizer's moments of A and B stay (training.moments=reset clears them). State:
    merge: D_in · D_out floats a pair; average: as many as A and B. A model without such pairs is left alone.
    """
    if way not in get_args(Way):
        raise UserError(f"strategies.lora_boundary: way={way!r}: expected {' or '.join(get_args(Way))}")

    def init(learner: Learner) -> Past:
        found = pairs(learner.params)
        merged = {path: jnp.zeros((len(own["a"]), own["b"].shape[1])) for path, own in found.items()}
        mean = {path: jax.tree.map(jnp.zeros_like, own) for path, own in found.items()}
        return Past(merged if way == "merge" else {}, mean if way == "average" else {}, jnp.float32(0.0))

    def view(state: Past, params: Params, increment: Array, training: bool) -> Params:
        del increment, training
        found = pairs(params)
        return with_pairs(params, {path: {**found[path], "merged": past} for path, past in state.merged.items()})

    def end(state: Past, learner: Learner, data: Data, key: Array) -> tuple[Past, Learner]:
        del data
        found, count = pairs(learner.params), state.finished + 1.0
        mean = {
            path: jax.tree.map(lambda old, new: old + (new - old) / count, past, found[path])
            for path, past in state.mean.items()
        }
        merged = {path: past + found[path]["a"] @ found[path]["b"] for path, past in state.merged.items()}
        fresh = pairs(problem.init(key))
        changed = {path: {"a": fresh[path]["a"], "b": jnp.zeros_like(fresh[path]["b"])} for path in merged}
        return Past(merged, mean, count), learner._replace(params=with_pairs(learner.params, {**changed, **mean}))

    return Strategy(init=init, view=view, end=end)


def pairs(params: Params) -> dict[Pair, dict[str, Array]]:
    """The adapters by their paths."""
    lora = params.get("tower", {}).get("lora", {})
    return dict(flatten_dict(lora, sep="/", is_leaf=lambda _, node: "a" in node))


def with_pairs(params: Params, new: dict[Pair, dict[str, Array]]) -> Params:
    """The parameters with these adapters in place of their own."""
    if not new:
        return params
    lora = unflatten_dict({**pairs(params), **new}, sep="/")
    return {**params, "tower": {**params["tower"], "lora": lora}}
