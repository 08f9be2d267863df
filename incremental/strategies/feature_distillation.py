"""Feature distillation: new rows' hidden vectors stay near the old model's (Romero et al. 2015, arXiv 1412.6550)."""

from jax import Array

from incremental.core.distillation import Taught, lesson, marked, taught, untaught
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Outputs, Params, Problem
from incremental.domains import NotNegative, checked


@checked
def feature_distillation(problem: Problem, *, weight: NotNegative = 0.01) -> Strategy:
    """Loss: weight · mean over new rows of Σ_d (h_d - h_d(teacher))², h the hidden vector that scores the items.

    The teacher is the model at the end of the last increment, without dropout, of the same width; so the hints of
    FitNets need no regressor, and no ½ stands before the sum. Which rows count is as in `incremental.strategies.lwf`.
    Scores may still move with the item table, which no term holds. State: 1 float a parameter, 1 bool an id.
    """

    def loss(state: Taught, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del params
        student, teacher, share = lesson(problem, state, batch, outputs)
        return weight * (share * ((student.hidden - teacher.hidden) ** 2).sum(1)).sum()

    return Strategy(init=untaught, batch=marked, loss=loss, end=taught)
