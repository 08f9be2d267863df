"""A problem whose id tables are computed from its parameters before all else."""

from collections.abc import Callable, Mapping

from jax import Array

from incremental.core.types import Batch, Outputs, Params, Problem


def settling(core: Problem, settle: Callable[[Params], Params], settled: Mapping[str, str]) -> Problem:
    """`core` at `settle(params)`, which leaves parameters alone where it is done already.

    `settled` are the paths of the tables that it computes -> the kind of their ids. Model, head and strategies do not
    know: `apply`, `loss`, `scores`, `features` and `items` take parameters before and after `settle`.
    """
    items = core.items

    def apply(params: Params, inputs: dict[str, Array], *, key: Array | None = None) -> Outputs:
        return core.apply(settle(params), inputs, key=key)

    def loss(params: Params, outputs: Outputs, batch: Batch) -> Array:
        return core.loss(settle(params), outputs, batch)

    def scores(params: Params, outputs: Outputs, rows: Array, of: Array | slice = slice(None)) -> Array:
        return core.scores(settle(params), outputs, rows, of)

    return core._replace(
        apply=apply,
        loss=loss,
        scores=scores,
        features=lambda params, inputs: core.features(settle(params), inputs),
        items=None if items is None else lambda params: items(settle(params)),
        settle=settle,
        settled=settled,
    )
