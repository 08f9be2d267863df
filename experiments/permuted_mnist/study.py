"""Trains every row of the table, the seeds as the lanes of one program; what is finished is not run again."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import files
from experiments.permuted_mnist import table
from experiments.permuted_mnist.methods import METHODS, TASKS, Method
from experiments.permuted_mnist.mlp import mlp
from experiments.permuted_mnist.stream import Stream, piece, stream
from experiments.split_mnist.digits import SIZES, SPEC, Digits, read
from incremental.app.options import NEEDED, Option, options
from incremental.app.sweep import use_every_core
from incremental.core import optimizers
from incremental.core.gradient import make, training
from incremental.core.problem import Model, problem
from incremental.core.program import Program
from incremental.core.spec import Sizes
from incremental.core.types import Data
from incremental.heads.full_softmax import full_softmax
from incremental.run.executor import Executor
from incremental.run.lanes import Lanes, Numbers, Programs
from incremental.run.loop import divergence, of_lane
from incremental.shell import reported

BATCH = 10
FIRST = 10  # batches after each of which a task's own test images are ranked
HELD_OUT = 5_000  # first images of the training file


class Measured(NamedTuple):
    """What a row came to so far; NaN where a task was not tested."""

    accuracy: np.ndarray  # [seeds, T, T] of task j at the end of task i >= j
    start: np.ndarray  # [seeds, T, 11] of each task after its first 0 to 10 batches
    seconds: float  # for all seeds, compilation apart
    compile_seconds: float


def programs(method: Method, model: Model, lanes: int) -> Programs:
    """The method's program, whose lanes differ in nothing but their seed."""
    steps = training(batch_size=BATCH, epochs=1, patience=0)

    def build(sizes: Sizes, numbers: Numbers) -> Program:
        del numbers
        own = problem(model, full_softmax(), SPEC, sizes)
        strategies = {name: factory(own) for name, factory in method.strategies.items()}
        sgd = optimizers.sgd(learning_rate=method.rate)
        return make(own, sgd, strategies, sizes=sizes, training=steps)

    return Programs(build, {}, lanes)


def train(
    method: Method, model: Model, shown: Stream, seeds: Sequence[int], half: Path, devices: int | None = None
) -> Measured:
    """All tasks in order. After each one everything is kept in `half`, from which a stopped row goes on."""
    made = programs(method, model, len(seeds) if devices is None else devices)
    lanes, tasks = [*range(len(seeds))], len(shown.pixels)
    executor = Executor(Lanes(made, [{}] * len(seeds), seeds))
    executor.load({}, SIZES["class"])
    nan = np.full((len(seeds), tasks, max(tasks, FIRST + 1)), np.nan)
    done, measured = 0, Measured(nan[:, :, :tasks].copy(), nan[:, :, : FIRST + 1].copy(), 0.0, 0.0)
    if half.exists():
        done, measured = restored(executor, half)
    tests = [made.everywhere(shown.tested(t)) for t in range(tasks)]
    executor.way.compiling()  # what came before the first task is no part of its time
    nothing = tests[0]._replace(size=jnp.int32(0))  # no validation part: the last epoch is kept

    def right(task: int) -> list[float]:
        """[seeds] the share of a task's test images whose class has the highest score."""
        return [float((own.rank == 0).mean()) for own in executor.rank(tests[task], None)[: len(seeds)]]

    def descend(t: int, number: int, part: Data) -> None:
        info, _ = executor.epoch(lanes, number, part, nothing, None, base=t == 0)
        for lane in lanes:
            if error := divergence(of_lane(info, lane), t, 1):
                raise error

    for t in range(done, 1 if method.joint else tasks):
        began = time.perf_counter()
        data = made.everywhere(shown.joint() if method.joint else shown.trained(t))
        executor.begin(lanes, data, afresh=False)
        for b in range(FIRST):
            measured.start[:, t, b] = right(t)
            descend(t, b, made.everywhere(piece(data, b * BATCH, (b + 1) * BATCH)))
        measured.start[:, t, FIRST] = right(t)
        descend(t, FIRST, made.everywhere(piece(data, FIRST * BATCH, int(data.size))))
        executor.end(lanes, data)
        last = tasks - 1 if method.joint else t  # of the tasks that are trained on by now
        for j in range(last + 1):
            measured.accuracy[:, last, j] = right(j)
        compiling = executor.way.compiling()
        took = time.perf_counter() - began - compiling.waited
        measured = measured._replace(
            seconds=measured.seconds + took, compile_seconds=measured.compile_seconds + compiling.seconds
        )
        keep(executor, half, t + 1, measured)
        mean = 100 * measured.accuracy[:, last, : last + 1].mean()
        print(f"{half.stem}: task {last + 1}: {mean:.2f} % ({took:.0f} s)", flush=True)
    return measured


def keep(executor: Executor, half: Path, done: int, measured: Measured) -> None:
    """The lanes between two tasks and what was measured, whole or not at all."""
    leaves = jax.tree.leaves(executor.way.host(executor.state[:2]))
    half.parent.mkdir(parents=True, exist_ok=True)
    new = half.with_suffix(".new.npz")
    np.savez(new, done=done, **measured._asdict(), **{f"leaf_{i}": leaf for i, leaf in enumerate(leaves)})
    new.replace(half)


def restored(executor: Executor, half: Path) -> tuple[int, Measured]:
    """The lanes as `keep` left them; the tasks that are done, and what was measured."""
    with np.load(half) as kept:
        old, shape = jax.tree.flatten(executor.state[:2])
        leaves = [kept[f"leaf_{i}"] for i in range(len(old))]
        learner, own = executor.way.device(jax.tree.unflatten(shape, leaves))
        executor.state = executor.state._replace(learner=learner, strategy=own)
        found: dict[str, Any] = {name: kept[name] for name in Measured._fields}
        done = int(kept["done"])
    return done, Measured(found["accuracy"], found["start"], float(found["seconds"]), float(found["compile_seconds"]))


def run(data: Path, out: Path, names: Sequence[str], seeds: int) -> None:
    """Every row that is not finished."""
    whole = read(data, "train")
    shown = stream(Digits(*(part[HELD_OUT:] for part in whole)), read(data, "t10k"), TASKS)
    for name in names:
        if table.path_of(out, name, seeds).exists():
            continue
        half = table.path_of(out, name, seeds).with_suffix(".npz")
        measured = train(METHODS[name], mlp(), shown, range(seeds), half)
        cell = {**measured._asdict(), "accuracy": measured.accuracy.tolist(), "start": measured.start.tolist()}
        path = table.path_of(out, name, seeds)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(cell), encoding="utf-8")
        new.replace(path)
        half.unlink()


def main() -> None:
    """The command line."""
    known = {
        "path": Option(NEEDED, "the folder of MNIST's idx files"),
        "runs": Option(Path("runs/permuted_mnist"), "the folder of the results"),
        "rows": Option([*METHODS], choices=[*METHODS]),
        "seeds": Option(5, "how many, the lanes of one program"),
    }
    chosen, _ = options(sys.argv[1:], __doc__, known)
    use_every_core()
    files.require(Path(chosen.path), files.MNIST)
    run(Path(chosen.path), chosen.runs, chosen.rows, chosen.seeds)
    print(table.table(chosen.runs, chosen.seeds))


if __name__ == "__main__":
    with reported():
        main()
