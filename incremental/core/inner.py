"""Training inside an increment: `fit` of the hooks `begin` and `end`."""

from collections.abc import Callable
from functools import partial

import jax
import optax
from jax import Array

from incremental.core.compaction import dense
from incremental.core.steps import Setup, epoch, fresh_fit
from incremental.core.types import Data, Learner, Params, PyTree, State


def inner(
    plain: Setup,
    learner: Learner,
    own: PyTree,
    begun: tuple[Data, Array] | None = None,
    *,
    batch_size: int,
    epochs: int,
) -> Callable[..., Params]:
    """The steps of `plain`, whose only strategy is the head's own, as a function (params, data, key) -> params.

    It starts from fresh moments, with the catalogue of `learner` and the head's state in `own`; nothing stops early.
    `begun` are the data and the key of the update that begins: the head's state is then the one after its own `begin`.
    With `of` the model's parameters are `of(params)`, and with `tx` these are trained by another optimizer.
    """

    def fit(
        params: Params,
        data: Data,
        key: Array,
        epochs: int | Array = epochs,
        *,
        of: Callable[[Params], Params] | None = None,
        tx: optax.GradientTransformation | None = None,
    ) -> Params:
        setup = plain if tx is None else plain._replace(tx=optax.with_extra_args_support(tx))
        setup = setup if of is None else through(setup, of)
        start = learner._replace(params=params, opt_state=setup.tx.init(params))
        head = {name: state for name, state in own.items() if name == "head"}
        if begun is not None:
            head, _ = plain.strategy.begin(head, learner, *begun)
        state = State(start, head, fresh_fit(), key)
        one = partial(epoch, setup, data=data, batch_size=batch_size)
        return jax.lax.fori_loop(0, epochs, lambda _, state: one(state)[0], state).learner.params

    return fit


def through(setup: Setup, of: Callable[[Params], Params]) -> Setup:
    """Steps on parameters φ whose model has the parameters `of`(φ).

    They work on whole tables, for `of` holds tables of which a step on some rows knows nothing.
    """
    strategy = setup.strategy

    def view(state: PyTree, params: Params, increment: Array, training: bool) -> Params:
        return strategy.view(state, of(params), increment, training)

    return setup._replace(strategy=strategy._replace(view=view), on_rows=dense)
