"""Trains every row of the table, ten seeds as the lanes of one program; what is finished is not run again."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments import files
from experiments.split_mnist import table
from experiments.split_mnist.digits import SIZES, SPEC, Scenario, Tasks, read, tasks
from experiments.split_mnist.methods import METHODS, Method
from experiments.split_mnist.mlp import mlp
from incremental.app.options import NEEDED, Option, options
from incremental.app.sweep import use_every_core
from incremental.core.gradient import make, training
from incremental.core.problem import Model, problem
from incremental.core.program import Program
from incremental.core.spec import Sizes
from incremental.heads.full_softmax import full_softmax
from incremental.run.executor import Executor
from incremental.run.lanes import Lanes, Numbers, Programs
from incremental.run.loop import divergence, of_lane
from incremental.shell import reported

BATCH, EPOCHS = 128, 4


class Measured(NamedTuple):
    """One cell of the table."""

    accuracy: np.ndarray  # [seeds, tasks], after the last task
    seconds: float  # for all seeds, compilation apart
    compile_seconds: float


def programs(
    method: Method, scenario: Scenario, model: Model, batch_size: int = BATCH, epochs: int = EPOCHS
) -> Programs:
    """The method's program, whose lanes differ in nothing but their seed."""
    steps = training(batch_size=batch_size, epochs=epochs, patience=0)

    def build(sizes: Sizes, numbers: Numbers) -> Program:
        del numbers
        own = problem(model, full_softmax(), SPEC, sizes)
        strategies = {name: factory(own) for name, factory in method.factories(scenario).items()}
        return make(own, method.optimizer(), strategies, sizes=sizes, training=steps)

    return Programs(build, {}, lanes=1)


def train(made: Programs, parts: Tasks, scenario: Scenario, seeds: Sequence[int], epochs: int = EPOCHS) -> Measured:
    """All tasks in order, then the share of each task's test images whose class has the highest score."""
    start, lanes = time.perf_counter(), [*range(len(seeds))]
    executor = Executor(Lanes(made, [{}] * len(seeds), seeds))
    executor.load({}, SIZES[scenario])
    for task in parts.train:
        data, t = made.everywhere(task), int(task.increment)
        nothing = data._replace(size=jnp.int32(0))  # no validation part: the last epoch is kept
        executor.begin(lanes, data, afresh=False)
        for epoch in range(epochs):
            info, _ = executor.epoch(lanes, epoch, data, nothing, None, base=t == 0)
            for lane in lanes:
                if error := divergence(of_lane(info, lane), t, epoch + 1):
                    raise error
        executor.end(lanes, data)
    ranks = [executor.rank(made.everywhere(task), None) for task in parts.test]
    right = [
        [(own.rank[: int(task.size)] == 0).mean() for own in found[: len(seeds)]]
        for found, task in zip(ranks, parts.test, strict=True)
    ]
    compiling = executor.way.compiling()
    return Measured(np.array(right).T, time.perf_counter() - start - compiling.waited, compiling.seconds)


def run(data: Path, out: Path, scenarios: Sequence[Scenario], names: Sequence[str], seeds: int) -> None:
    """Every cell that is not finished."""
    train_part, test_part = read(data, "train"), read(data, "t10k")
    for scenario in scenarios:
        for name in names:
            if len(table.accuracy(out, name, scenario)) >= seeds:
                continue
            method = METHODS[name]
            parts = tasks(train_part, test_part, scenario, joint=method.joint)
            measured = train(programs(method, scenario, mlp()), parts, scenario, range(seeds))
            table.keep(out, name, scenario, {**measured._asdict(), "accuracy": measured.accuracy.tolist()})
            print(
                f"{scenario}: {name}: {100 * measured.accuracy.mean():.2f} % "
                f"({measured.seconds:.0f} s, and {measured.compile_seconds:.0f} s of compilation)",
                flush=True,
            )


def main() -> None:
    """The command line."""
    known = {
        "path": Option(NEEDED, "the folder of MNIST's idx files"),
        "runs": Option(Path("runs/split_mnist"), "the folder of the results"),
        "scenarios": Option([*SIZES], choices=[*SIZES]),
        "rows": Option([*METHODS], choices=[*METHODS]),
        "seeds": Option(10, "how many"),
    }
    chosen, _ = options(sys.argv[1:], __doc__, known)
    use_every_core()
    files.require(Path(chosen.path), files.MNIST)
    run(Path(chosen.path), chosen.runs, chosen.scenarios, chosen.rows, chosen.seeds)
    print(table.table(chosen.runs))


if __name__ == "__main__":
    with reported():
        main()
