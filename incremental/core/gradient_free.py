"""Models that update without gradients, as the same `Program` that `make` returns: drivers cannot tell them apart."""

from collections.abc import Callable, Mapping
from functools import partial

import jax.numpy as jnp
from jax import Array

from incremental.core.precision import multiplying
from incremental.core.program import Program
from incremental.core.ranking import Known, at_once, known, rankable, ranker, ranker_of_one
from incremental.core.spec import Input, Sizes, of_kinds
from incremental.core.steps import count_arrivals, empty_catalogue, fresh_fit
from incremental.core.types import Data, Info, Learner, Params, Seen, State


def gradient_free(
    *,
    sizes: Sizes,
    inputs: Mapping[str, Input],
    init: Callable[[], Params],
    absorb: Callable[[Params, Data], Params],
    scores: Callable[[Params, dict[str, Array]], Array],
    cutoffs: tuple[int, ...] = (),
    rank_batch_size: int | None = None,
    known: Known = known,
    alike: bool = False,
    report: Callable[[Params], dict[str, Array]] = lambda _params: {},
) -> Program:
    """A program whose one epoch is `absorb(params, data)`; `scores(params, inputs)` is [B, V] float32.

    Nothing stops early here: the data are all events that arrived since the last update, each once, those of the
    validation part too, as `data.rows`, and by their ids as `data.events` and `data.arrived`. Examples that are not
    `known` score by the number of training events of each item. `alike`: scores are the same for every example, which a
    test then ranks once. `report(params)`: what the model has to say after an update, scalars by "NAME/KEY". A test
    ranks `rank_batch_size` rows at once; None: `ranking.at_once`.
    """

    def draw_learner() -> Learner:
        return Learner(init(), (), empty_catalogue(sizes), jnp.int32(-1))

    def start(key: Array) -> State:
        learner = draw_learner()
        return State(learner, {}, fresh_fit(), key)

    def restart(state: State, data: Data) -> State:
        del data
        return state._replace(learner=draw_learner())

    def begin(state: State, data: Data) -> State:
        catalogue = count_arrivals(state.learner.catalogue, data)
        learner = state.learner._replace(catalogue=catalogue, increment=data.increment)
        return State(learner, {}, fresh_fit(), state.key)

    def run_epoch(state: State, data: Data) -> tuple[State, Info]:
        params = absorb(state.learner.params, data)
        learner = state.learner._replace(params=params)
        fit = state.fit._replace(epoch=state.fit.epoch + 1, active=jnp.array(False))
        info = Info(None, {}, (data.events > 0).sum(), jnp.int32(1), None, report(params))
        return state._replace(learner=learner, fit=fit), info

    def validate(state: State, data: Data, seen: Seen | None = None) -> State:
        del data, seen
        return state

    def end(state: State, data: Data) -> State:
        del data
        return state._replace(fit=fresh_fit())

    ranked = rankable(lambda state, rows: scores(state.learner.params, rows), of_kinds(inputs, sizes), known)
    rows = at_once(sizes.slots) if rank_batch_size is None else rank_batch_size
    own = partial(ranker_of_one if alike else ranker, ranked, batch_size=rows, cutoffs=cutoffs)
    program = Program(
        init=start,
        restart=restart,
        begin=begin,
        base_epoch=None,
        run_epoch=run_epoch,
        validate=validate,
        end=end,
        rank=own(),
        rank_lists=own(lists=True),
        scores=ranked,
        represent=None,
        tables=lambda _state: {kind: {} for kind in sizes},
        inputs=inputs,
        epochs=1,
        keeps=False,
        cutoffs=cutoffs,
        sizes=sizes,
        counting=True,
    )
    return multiplying(program, "float32")
