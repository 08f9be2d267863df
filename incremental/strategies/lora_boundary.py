"""What happens to LoRA matrices at the end of an increment; without a strategy they are kept and trained on."""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from incremental.core.leaves import Pairs, is_pair, pairs
from incremental.core.mirrors import mirrored, path_of
from incremental.core.strategy import Strategy
from incremental.core.types import Anchor, Data, Learner, Params, Problem, PyTree
from incremental.errors import UserError

Way = Literal["merge", "average"]
Started = dict[str, Array]
"""of each of the optimizer's leaves that mirrors an A or a B, by path: its numbers [] in a new optimizer, all equal"""


class Past(NamedTuple):
    """What the increments so far have left."""

    mean: Anchor  # `Pairs`: of the matrices A and B at the increments' ends
    finished: Array  # [] float32, increments


def lora_boundary(problem: Problem, *, way: Way = "merge") -> Strategy:
    """At an increment's end, for each pair A [D_in, r], B [r, D_out] that a model adds to a frozen kernel:

    "merge": A B is added to what the kernel is from then on, A drawn anew and B = 0, their moments too (Lialin et al.
    2023, arXiv 2307.05695, ReLoRA, which keeps some of the moments), so that the sum of the updates is of higher rank.
    What is merged is a parameter (`model.merges`), so that teachers, means and anchors have their own; the same is done
    to these, with the same draw. The base part's end merges nothing: its A B is merged with the next increment's. What
    is kept for each of the matrices (the importances of EWC, MAS and SI, PackNet's owners, OGD's directions) has no
    meaning for new ones, and is refused beside it. State: the start of each of a matrix's moments, 1 number; the
    parameter is D_in · D_out floats a pair.

    "average": A and B become the means of their values at the ends so far, the base part's among them; the optimizer's
    moments stay. A fresh start is refused beside it. State: as many floats as A and B.
    """
    if way not in get_args(Way):
        raise UserError(f"strategies.lora_boundary: way={way!r}: expected {' or '.join(get_args(Way))}")
    if way == "average":
        return Strategy(init=nothing, end=averaged)

    def init(learner: Learner) -> Started:
        if any("merged" not in own for own in adapters(learner.params).values()):
            raise UserError(
                "strategies.lora_boundary.way=merge: the model's parameters have no place for what is merged; set "
                "model.merges=true"
            )
        return {path: leaf[0, 0] for path, leaf in moments(learner).items()}

    def updates(state: Started, updates: Params, params: Params) -> Params:
        del state, params
        # Weight decay would move what no gradient reaches.
        still = {path: {"merged": jnp.zeros_like(own["merged"])} for path, own in pairs(updates).items()}
        return with_parts(updates, still)

    def end(state: Started, learner: Learner, data: Data, key: Array) -> tuple[Started, Learner]:
        del data, key
        return state, learner._replace(opt_state=without_past(learner, state))

    def rebase(params: Params, key: Array) -> Params:
        fresh = pairs(problem.init(key))
        return with_parts(
            params,
            {
                path: {
                    "a": fresh[path]["a"],
                    "b": jnp.zeros_like(own["b"]),
                    "merged": own["merged"] + own["a"] @ own["b"],
                }
                for path, own in pairs(params).items()
            },
        )

    return Strategy(init=init, updates=updates, end=end, rebase=rebase)


def adapters(params: Params) -> Pairs:
    """The pairs of a model that has some."""
    found = pairs(params)
    if not found:
        raise UserError(
            "strategies.lora_boundary: the model has no LoRA matrices; set model.rank above 0 (model=encoder_items or "
            "encoder_behaviour), or leave the strategy out"
        )
    return found


def nothing(learner: Learner) -> Past:
    """No increment yet; `init` of the averages."""
    return Past(Anchor(jax.tree.map(jnp.zeros_like, matrices(adapters(learner.params)))), jnp.float32(0.0))


def averaged(state: Past, learner: Learner, data: Data, key: Array) -> tuple[Past, Learner]:
    """The matrices become their means; `end` of the averages."""
    del data, key
    count = state.finished + 1.0
    mean = jax.tree.map(lambda old, new: old + (new - old) / count, state.mean.params, matrices(learner.params))
    return Past(Anchor(mean), count), learner._replace(params=with_parts(learner.params, mean))


def moments(learner: Learner) -> dict[str, Array]:
    """What the optimizer keeps for each A and B, by path."""
    shapes = {path_of(path): jnp.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(learner.params)}
    redrawn = {f"{path}/{part}" for path in pairs(learner.params) for part in ("a", "b")}
    found = jax.tree_util.tree_leaves_with_path(learner.opt_state)
    return {path_of(path): leaf for path, leaf in found if mirrored(path, leaf, shapes) in redrawn}


def without_past(learner: Learner, started: Started) -> PyTree:
    """The optimizer's state, that of A and B as it `started`; in the base part as it is."""
    anew = {path: jnp.where(learner.increment > 0, started[path], leaf) for path, leaf in moments(learner).items()}
    return jax.tree_util.tree_map_with_path(lambda path, leaf: anew.get(path_of(path), leaf), learner.opt_state)


def matrices(params: Params) -> Pairs:
    """A and B by their pairs' paths."""
    return {path: {"a": own["a"], "b": own["b"]} for path, own in pairs(params).items()}


def with_parts(params: Params, new: Pairs) -> Params:
    """The parameters with these parts in their pairs."""
    found = flatten_dict(params, sep="/", is_leaf=is_pair)
    return unflatten_dict({**found, **{path: {**found[path], **own} for path, own in new.items()}}, sep="/")
