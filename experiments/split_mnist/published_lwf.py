"""LwF's published cells come from another paper, with another loss: how far that explains the class column.

They are those of van de Ven & Tolias (2018, arXiv 1809.10635, table 3), who train 2,000 batches a task, weigh the new
rows' loss by 1 / N and the distillation by 1 - 1 / N in task N, and, in their code, let new classes take part in the
distillation with the target 0. Here the same distillation, at temperature 2, takes these differences one by one.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from experiments import files
from experiments.split_mnist import study
from experiments.split_mnist.digits import Scenario, read, tasks
from experiments.split_mnist.methods import Method
from experiments.split_mnist.mlp import mlp
from incremental.app.options import NEEDED, Option, options
from incremental.app.sweep import use_every_core
from incremental.core.distillation import Taught, lesson, marked, taught, untaught
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Outputs, Params, Problem
from incremental.shell import reported

TEMPERATURE = 2.0


class Variant(NamedTuple):
    """A distillation, and how long it is trained."""

    scenario: Scenario
    zeros: bool
    """new classes take part, with the target 0"""
    weight: Callable[[Array], Array]
    """of the distillation beside the new rows' loss, of the number of tasks before"""
    told: str
    epochs: int = 4
    """of about 94 batches; 21 are about 2,000"""


VARIANTS = (
    Variant("class", False, lambda _: jnp.float32(1.0), "1 (this project's LwF)"),
    Variant("class", True, lambda _: jnp.float32(1.0), "1"),
    Variant("class", True, lambda t: t, "N - 1"),
    Variant("class", True, lambda t: t / (2 * (t + 1)), "(N - 1) / classes"),
    Variant("class", True, lambda t: t, "N - 1", 21),
    Variant("class", True, lambda t: t / (2 * (t + 1)), "(N - 1) / classes", 21),
    Variant("domain", False, lambda t: t, "N - 1"),
    Variant("domain", False, lambda t: t / 2, "(N - 1) / classes"),
    Variant("domain", False, lambda t: t, "N - 1", 21),
    Variant("domain", False, lambda t: t / 2, "(N - 1) / classes", 21),
)


def distillation(problem: Problem, *, variant: Variant) -> Strategy:
    """weight · T² · mean over the new rows of -Σ_j p_j(teacher) log p_j(student)."""

    def loss(state: Taught, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del params
        student, teacher, share = lesson(problem, state, batch, outputs)
        known = state.known.labels | ~state.known.labels.any()
        over = known if batch.candidates is None or not variant.zeros else known | batch.candidates
        p = jax.nn.softmax(jnp.where(known, teacher.scores / TEMPERATURE, -jnp.inf))
        scores = student.scores / TEMPERATURE
        normaliser = jax.nn.logsumexp(jnp.where(over, scores, -jnp.inf), 1)
        before = batch.increment[0].astype(jnp.float32)
        return variant.weight(before) * TEMPERATURE**2 * (share * (normaliser - (p * scores).sum(1))).sum()

    return Strategy(init=untaught, batch=marked, loss=loss, end=taught)


def main() -> None:
    """The command line."""
    known = {"path": Option(NEEDED, "the folder of MNIST's idx files"), "seeds": Option(4, "how many")}
    chosen, _ = options(sys.argv[1:], __doc__, known)
    data = Path(chosen.path)
    use_every_core()
    files.require(data, files.MNIST)
    train_part, test_part = read(data, "train"), read(data, "t10k")
    print("| scenario | new classes in it | weight in task N | epochs | accuracy |\n|---|---|---|---|---|")
    for variant in VARIANTS:
        method = Method((0.0, 0.0), (0.0, 0.0), partial(dict, lwf=partial(distillation, variant=variant)))
        parts = tasks(train_part, test_part, variant.scenario)
        made = study.programs(method, variant.scenario, mlp(), epochs=variant.epochs)
        measured = study.train(made, parts, variant.scenario, range(chosen.seeds), epochs=variant.epochs)
        values = 100 * measured.accuracy.mean(1)
        print(
            f"| {variant.scenario} | {'yes' if variant.zeros else 'no'} | {variant.told} | {variant.epochs} "
            f"| {values.mean():.2f} ± {values.std(ddof=1):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    with reported():
        main()
