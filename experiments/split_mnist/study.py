"""Trains every row of the table, ten seeds as the lanes of one program; what is finished is not run again."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import files
from experiments.split_mnist import table
from experiments.split_mnist.digits import SIZES, Scenario, Tasks, read, tasks
from experiments.split_mnist.methods import METHODS, Method
from experiments.split_mnist.mlp import mlp
from incremental.app.options import NEEDED, Option, options
from incremental.app.sweep import use_every_core
from incremental.core.gradient import make, training
from incremental.core.problem import Model, problem
from incremental.core.types import Program, Sizes
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.run.packed import Numbers, Programs

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
        own = problem(model, full_softmax(), sizes, history=0)
        strategies = {name: factory(own) for name, factory in method.factories(scenario).items()}
        return make(own, method.optimizer(), strategies, sizes=sizes, training=steps)

    return Programs(build, {}, lanes=1)


def train(made: Programs, parts: Tasks, scenario: Scenario, seeds: Sequence[int], epochs: int = EPOCHS) -> Measured:
    """All tasks in order, then the share of each task's test images whose class has the highest score."""
    start = time.perf_counter()
    functions, numbers = made.at(SIZES[scenario]), made.placed({})
    on: Any = made.placed(np.ones(len(seeds), bool))
    state = functions.init(numbers, made.placed(jnp.stack([jax.random.key(seed) for seed in seeds])))
    for task in parts.train:
        data = made.everywhere(task)
        nothing = data._replace(size=jnp.int32(0))  # no validation part: the last epoch is kept
        state, _ = functions.begin(numbers, on, state, data)
        run_epoch = functions.run_epoch if int(task.increment) else functions.base_epoch
        for epoch in range(epochs):
            state, report = run_epoch(numbers, on, state, jnp.int32(epoch), data)
            state, _ = functions.validate(numbers, on, state, nothing, None)
            if (np.asarray(report["broken"]["step"]) >= 0).any():
                raise UserError(f"the loss is not finite in epoch {epoch}: {report['broken']}")
        state, _ = functions.end(numbers, on, state, data)
    ranks = [np.asarray(functions.rank(numbers, state, made.everywhere(task), None).rank) for task in parts.test]
    right = [(rank[:, : int(task.size)] == 0).mean(1) for rank, task in zip(ranks, parts.test, strict=True)]
    seconds = time.perf_counter() - start - functions.seconds
    return Measured(np.stack(right, 1), seconds, functions.seconds)


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
    try:
        files.require(Path(chosen.path), files.MNIST)
        run(Path(chosen.path), chosen.runs, chosen.scenarios, chosen.rows, chosen.seeds)
    except UserError as error:
        sys.exit(f"split_mnist: {error}")
    print(table.table(chosen.runs))


if __name__ == "__main__":
    main()
