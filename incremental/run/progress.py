"""Plain records of a run: what was tested, what an update cost, where the run stands. Nothing here needs jax."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from incremental.errors import UserError


class Record(NamedTuple):
    """One line of evaluations.csv. `heldout/` metrics are entries of the matrix R, the others are prequential."""

    trained_until: int  # increment; 0 = the base part, -1 = untrained
    evaluated_on: int
    metric: str
    value: float
    events: int  # that it is the mean of


class Cost(NamedTuple):
    """What one increment's update cost."""

    increment: int
    seconds: float  # of the update; compilation, evaluation and saving apart
    compile_seconds: float
    examples: int  # rows trained on, over all epochs, replayed ones included
    epochs: int
    parameters_written: int  # parameters whose value the update changed
    memory_bytes: int  # strategy state, and past interactions that the update reads


class Epoch(NamedTuple):
    """What one epoch of an update's training came to."""

    increment: int
    epoch: int  # of the update, from 1
    loss: float | None = None  # mean over the steps; None: a model without gradients
    validation: float | None = None  # after the epoch; None: there is no validation part
    terms: Mapping[str, float] = {}  # of the loss, each a mean over the steps: "data", and strategies by name
    reports: Mapping[str, float] = {}  # what strategies say of themselves, by "NAME/KEY"


class Progress(NamedTuple):
    """Where a run stands; with the state it is all that a resumed run needs."""

    increment: int = 0
    begun: bool = False  # in the middle of the increment's training
    seconds: float = 0.0  # of the running update
    compile_seconds: float = 0.0
    examples: int = 0
    records: tuple[Record, ...] = ()
    costs: tuple[Cost, ...] = ()
    epochs: tuple[Epoch, ...] = ()


class Result(NamedTuple):
    """A finished run."""

    state: Any  # incremental.core.types.State
    sizes: Any  # incremental.core.types.Sizes: the capacities of its tables
    records: tuple[Record, ...]
    costs: tuple[Cost, ...]
    early: tuple[str, ...] = ()  # strategies that acted in the base part


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
    """The increment is over: its update has happened, or the policy let it pass."""

    lane: int
    cost: Cost
    tested: tuple[Record, ...]  # the increment's own, before its update


class Paused(NamedTuple):
    """Nothing runs, and what is saved now can be continued: between two epochs, or two increments."""

    over: bool  # the increment is
    progress: Mapping[int, Progress]  # by lane
    snapshot: Callable[[int], Any]  # (lane) -> incremental.run.executor.Snapshot


class Failed(NamedTuple):
    """The lane has diverged, and is off for good."""

    lane: int
    error: UserError


class Finished(NamedTuple):
    """The stream is over."""

    lane: int
    result: Result


Event = Resumed | EpochDone | Evaluated | Trained | Paused | Failed | Finished
