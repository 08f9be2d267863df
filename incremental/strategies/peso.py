"""PESO: weight matrices are held near their last state by the divergence of softmaxes (2025, arXiv 2510.25093)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from incremental.core.ids import Ids, nobody, of_kind, trained
from incremental.core.leaves import by_path, kernels, matrices, pairs
from incremental.core.strategy import Strategy
from incremental.core.types import Anchor, Batch, Data, Learner, Outputs, Params, Problem, Step
from incremental.domains import NotNegative, checked
from incremental.errors import UserError


class Proximal(NamedTuple):
    """The last increment's weights, and how strongly they pull in the running one."""

    anchor: Anchor
    known: Ids  # what they were trained on
    numbers: dict[str, Array]  # [] float32 by table: of these ids
    ready: Array  # [] float32: 0 until the first increment is finished, then 1
    pull: Array  # [] float32: sum over the increment's steps of the length of the penalties' gradient
    push: Array  # [] float32: and of that of the rest of the loss


@checked
def peso(problem: Problem, *, weight: NotNegative = 2.0, tables: bool = False) -> Strategy:
    """Loss: weight · (1/M) Σ_m Σ_{W in m} KL(softmax(vec W) ‖ softmax(vec W*)) over M modules m, W* at the last end.

    A module is a pair of LoRA matrices A, B (what it merges left out), as in the paper. A model without any has a
    module for each dense kernel. With `tables` each id table [V, D] is one more: (1/n) Σ KL(softmax(w) ‖ softmax(w*))
    over its rows w of the n ids that the last increment's model was trained on; rows of new ids are free. Row by row,
    so that a step on a few rows pulls these as the whole table does. Vectors, such as biases and norms, are free.

    With d = w - w*, p* = softmax(w*) and m = log Σ p* exp(d), KL = Σ p* (δ exp(δ) - exp(δ) + 1), δ = d - m: exactly 0,
    with a gradient of 0, where w = w*. The paper's code adds 1e-8 to both softmaxes, renormalises, and clamps the sum
    at 0; this form needs neither. The term does not see a constant that is added to all of vec W. Of N small numbers it
    is about half the variance of d, and its gradient is 1/N of d's size: a weight beyond 2 may be right for large
    matrices. The report's "gradient_ratio" is the length of the penalties' gradient (other strategies' too, where they
    are of parameters and not of outputs) over that of the rest of the loss, on these matrices, summed over the
    increment's steps. The code also cuts the learning rate to a tenth after its first block; set
    `optimizer.learning_rate` for that. State: 1 float a parameter, 1 bool an id.
    """
    adapted = pairs(jax.eval_shape(problem.init, jax.random.key(0)))
    modules = [[f"{path}/a", f"{path}/b"] for path in adapted] or [[path] for path in kernels(problem)]
    rowwise = {path: problem.tables[path] for path in matrices(problem) if path in problem.tables} if tables else {}
    if not modules and not rowwise:
        raise UserError(
            "strategies.peso: the model has neither LoRA matrices nor dense kernels, only id tables; set "
            "strategies.peso.tables=true"
        )
    own = [*(path for module in modules for path in module), *rowwise]

    def init(learner: Learner) -> Proximal:
        zero = jnp.float32(0.0)
        return Proximal(Anchor(learner.params), nobody(learner), dict.fromkeys(rowwise, zero), zero, zero, zero)

    def begin(state: Proximal, learner: Learner, data: Data, key: Array) -> tuple[Proximal, Learner]:
        del data, key
        return state._replace(pull=jnp.float32(0.0), push=jnp.float32(0.0)), learner

    def loss(state: Proximal, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del batch, outputs
        now, last = by_path(params), by_path(state.anchor.params)
        terms = [divergence(now[path].reshape(-1), last[path].reshape(-1)) for module in modules for path in module]
        for path, kind in rowwise.items():
            rows = jnp.where(of_kind(problem, state.known, kind), divergence(now[path], last[path]), 0.0)
            terms.append(rows.sum() / jnp.maximum(state.numbers[path], 1.0))
        return weight * state.ready * jnp.stack(terms).sum() / (len(modules) + len(rowwise))

    def record(state: Proximal, step: Step, key: Array) -> Proximal:
        del key
        penalty, total = by_path(step.penalty), by_path(step.grads)
        pull = optax.tree.norm([penalty[path] for path in own])
        push = optax.tree.norm([total[path] - penalty[path] for path in own])
        return state._replace(pull=state.pull + pull, push=state.push + push)

    def end(state: Proximal, learner: Learner, data: Data, key: Array) -> tuple[Proximal, Learner]:
        del data, key
        known = trained(learner)
        numbers = {path: of_kind(problem, known, kind).sum().astype(jnp.float32) for path, kind in rowwise.items()}
        return Proximal(Anchor(learner.params), known, numbers, jnp.float32(1.0), state.pull, state.push), learner

    def report(state: Proximal) -> dict[str, Array]:
        return {"gradient_ratio": state.pull / jnp.maximum(state.push, 1e-30)}

    return Strategy(init=init, begin=begin, loss=loss, record=record, end=end, report=report, late=True)


def divergence(now: Array, last: Array) -> Array:
    """KL(softmax(now) ‖ softmax(last)) over the last axis."""
    p, moved = jax.nn.softmax(last), now - last
    log_ratio = moved - jnp.log1p((p * jnp.expm1(moved)).sum(-1, keepdims=True))
    return (p * (log_ratio * jnp.exp(log_ratio) - jnp.expm1(log_ratio))).sum(-1)
