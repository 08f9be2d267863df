"""`Program`: all that the executor needs of a model, as pure functions at given capacities."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jax import Array

from incremental.core.graph import Window
from incremental.core.prefixes import Sharing
from incremental.core.spec import Input, Sizes
from incremental.core.types import Data, Evaluated, Info, PyTree, Ranks, Seen, State


class Program(NamedTuple):
    """What the executor runs: `make` builds it for a model with gradients, baselines build it directly.

    Attributes:
        init: (key)
        restart: parameters, moments and catalogue afresh
        begin: (state, data): the update begins; its events are counted
        base_epoch: an epoch of the base part: plain training, of which strategies keep their books; None: it is as any
            other
        run_epoch: an epoch of an increment
        validate: (state, validation, seen): whether the epoch is the best so far
        end: (state, data): the update is over
        rank: (state, data, seen): the rankings of test examples
        scores: -> [B, V] float32, -inf where not a candidate
        represent: -> [B, D] float32; None: the model has none
        tables: kind -> path -> table, a row an id
        inputs: what an example's inputs hold
        epochs: at most, in one update
        keeps: an update ends with its best epoch, which may be another than the last
        cutoffs: the K's whose recommendations `rank` counts
        sizes: capacities of the id tables
        rank_lists: as `rank`, and keeps each example's first items; None: the program cannot
        counting: an update's rows are all events that arrived, those of the validation part too, each once
        sharing: what examples share of the model's work; where it is prefixes, training histories are cut by runs
        shardings: of a tree's leaves over several devices
        at: (side tables and frozen weights): see `incremental.core.tower`; None: needs none
        frozen: weights that are not trained, on the host; they travel in `Data.side`
        following: strategies, the head's too, whose `record` follows the steps
        early: strategies that act in the base part too
        window: of the graph whose edges travel in `Data.side` (`core.graph`); None: there is none
        evaluated: the state with what `scores`, `represent` and `tables` would compute of it before all else; they take
            what it returns in place of the state. None: there is nothing
        by_text: an item scores by its text alone, also one that was never trained on
    """

    init: Callable[[Array], State]
    restart: Callable[[State, Data], State]
    begin: Callable[[State, Data], State]
    base_epoch: Callable[[State, Data], tuple[State, Info]] | None
    run_epoch: Callable[[State, Data], tuple[State, Info]]
    validate: Callable[[State, Data, Seen | None], State]
    end: Callable[[State, Data], State]
    rank: Callable[[State, Data, Seen | None], Ranks]
    scores: Callable[[State, dict[str, Array]], Array]
    represent: Callable[[State, dict[str, Array]], Array] | None
    tables: Callable[[State], dict[str, dict[str, Array]]]
    inputs: Mapping[str, Input]
    epochs: int
    keeps: bool
    cutoffs: tuple[int, ...]
    sizes: Sizes
    rank_lists: Callable[[State, Data, Seen | None], Ranks] | None = None
    counting: bool = False
    sharing: Sharing = "none"
    shardings: Callable[[PyTree], PyTree] | None = None
    at: "Callable[[Mapping[str, Any]], Program] | None" = None
    frozen: Any = None
    following: tuple[str, ...] = ()
    early: tuple[str, ...] = ()
    window: Window | None = None
    evaluated: Callable[[State], Evaluated] | None = None
    by_text: bool = False
