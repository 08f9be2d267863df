"""Plain records of a run: what was tested, what an update cost, where the run stands. Nothing here needs jax."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from incremental.errors import UserError


class Record(NamedTuple):
    """One line of evaluations.csv. `heldout/` metrics are entries of the matrix R, the others are prequential.

    Attributes:
        trained_until: increment; 0 = the base part, -1 = untrained
        evaluated_on
        metric
        value
        events: that it is the mean of
    """

    trained_until: int
    evaluated_on: int
    metric: str
    value: float
    events: int


class Cost(NamedTuple):
    """What one increment's update cost.

    Attributes:
        increment
        seconds: of the update; waiting for compilation, evaluation and saving apart
        compile_seconds: spent on tracing and compilation, also beside the update before, in another thread
        waited_seconds: for which the update or its test stood still for compilation
        wall_seconds: since the update before: test, update, waiting for compilation, saving and the rest;
            a live learner's waiting for events apart
        examples: rows trained on, over all epochs, replayed ones included
        epochs
        parameters_written: parameters in the rows that the update changed
        memory_bytes: strategy state, and past interactions that the update reads
        lanes: that shared the seconds
    """

    increment: int
    seconds: float
    compile_seconds: float
    waited_seconds: float
    wall_seconds: float
    examples: int
    epochs: int
    parameters_written: int
    memory_bytes: int
    lanes: int = 1


class Epoch(NamedTuple):
    """What one epoch of an update's training came to.

    Attributes:
        increment
        epoch: of the update, from 1
        loss: mean over the steps; None: a model without gradients
        validation: after the epoch; None: there is no validation part
        terms: of the loss, each a mean over the steps: "data", and strategies by name
        reports: what strategies say of themselves, by "NAME/KEY"
    """

    increment: int
    epoch: int
    loss: float | None = None
    validation: float | None = None
    terms: Mapping[str, float] = {}
    reports: Mapping[str, float] = {}


class Progress(NamedTuple):
    """Where a run stands; with the state it is all that a resumed run needs.

    Attributes:
        increment
        begun: in the middle of the increment's training
        seconds: of the running update, and the next three too
        compile_seconds
        waited_seconds
        wall_seconds
        examples
        records
        costs
        epochs
    """

    increment: int = 0
    begun: bool = False
    seconds: float = 0.0
    compile_seconds: float = 0.0
    waited_seconds: float = 0.0
    wall_seconds: float = 0.0
    examples: int = 0
    records: tuple[Record, ...] = ()
    costs: tuple[Cost, ...] = ()
    epochs: tuple[Epoch, ...] = ()


class Result(NamedTuple):
    """A finished run.

    Attributes:
        state: `incremental.core.types.State`
        sizes: `incremental.core.spec.Sizes`, the capacities of its tables
        records: all evaluations
        costs: of each increment
        early: strategies that acted in the base part
    """

    state: Any
    sizes: Any
    records: tuple[Record, ...]
    costs: tuple[Cost, ...]
    early: tuple[str, ...] = ()


def total_cost(result: Result) -> dict[str, float]:
    """Means over the updates that there were after the base part, 0 where there was none, and sums over all of them.

    Waiting and wall time are those of all increments, also of those without an update, over the number of updates;
    where there was none, of increments.

    `memory_bytes` is the largest of all parts: an increment without an update reads no past interactions, but they were
    kept for the next one.
    """
    later = result.costs[1:]
    updates = tuple(cost for cost in later if cost.epochs)
    number = len(updates) or len(later) or 1
    fields = {"seconds": updates, "parameters_written": updates, "waited_seconds": later, "wall_seconds": later}
    mean = {name: sum(getattr(cost, name) for cost in costs) / number for name, costs in fields.items()}
    return {
        "updates": len(updates),
        "seconds_per_update": mean["seconds"],
        "waited_per_update": mean["waited_seconds"],
        "wall_per_update": mean["wall_seconds"],
        "compile_seconds": sum(cost.compile_seconds for cost in result.costs),
        "examples": sum(cost.examples for cost in updates),
        "parameters_written": mean["parameters_written"],
        "memory_bytes": max(cost.memory_bytes for cost in result.costs),
        "base_seconds": result.costs[0].seconds,
        "base_examples": result.costs[0].examples,
    }


# -- events: what a run yields, of one of its lanes where it says `lane` ----------------------------------------------


class Resumed(NamedTuple):
    """The lane goes on from where a checkpoint left it."""

    lane: int
    progress: Progress


class EpochDone(NamedTuple):
    """An epoch of an update's training, and its validation, are over."""

    lane: int
    epoch: Epoch


class Evaluated(NamedTuple):
    """An increment was tested before its update, or a row of the matrix R was."""

    lane: int
    records: tuple[Record, ...]


class Trained(NamedTuple):
    """The increment is over: its update has happened, or the policy let it pass.

    Attributes:
        lane
        cost
        tested: the increment's own, before its update; with the matrix R its entries of then too
    """

    lane: int
    cost: Cost
    tested: tuple[Record, ...]


class Paused(NamedTuple):
    """Nothing runs, and what is saved now can be continued: between two epochs, or two increments.

    Attributes:
        over: the increment is
        progress: by lane
        snapshot: (lane) -> incremental.run.executor.Snapshot; to be called before the next event is asked for
    """

    over: bool
    progress: Mapping[int, Progress]
    snapshot: Callable[[int], Any]


class Failed(NamedTuple):
    """The lane has diverged, and is off for good.

    Attributes:
        lane
        error
        progress: up to the last epoch before
    """

    lane: int
    error: UserError
    progress: Progress


class Finished(NamedTuple):
    """The stream is over."""

    lane: int
    result: Result


Event = Resumed | EpochDone | Evaluated | Trained | Paused | Failed | Finished
