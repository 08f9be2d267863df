"""The oracle of a simulated stream: ranks by the law that drew the events, the best that any model could reach."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from incremental.core.gradient_free import gradient_free
from incremental.core.problem import Baseline
from incremental.core.program import Program
from incremental.core.ranking import known_to_all
from incremental.core.spec import Input, Sizes
from incremental.core.types import Data, Params
from incremental.data.stream import Stream
from incremental.errors import UserError


def oracle(stream: Stream) -> Baseline:
    """Score of item i for event e: context[e] · vectors[i] + log_weight[day[e], i], the law's own logits."""
    law = stream.interactions.law
    if law is None:
        raise UserError("model=oracle: only the built-in stream (data=builtin) knows its law; choose another model")

    def build(inputs: Mapping[str, Input], sizes: Sizes, cutoffs: tuple[int, ...]) -> Program:
        def fitted(values: Array, fill: float) -> Array:
            """The last axis cut or padded to V."""
            missing = max(sizes.slots - values.shape[-1], 0)
            widths = [(0, 0)] * (values.ndim - 1) + [(0, missing)]
            return jnp.pad(jnp.asarray(values), widths, constant_values=fill)[..., : sizes.slots]

        def init() -> Params:
            return {
                "context": jnp.asarray(law.context),
                "vectors": fitted(law.vectors.T, 0.0),
                "log_weight": fitted(law.log_weight, -jnp.inf),
                "day": jnp.asarray(law.day),
            }

        def absorb(params: Params, data: Data) -> Params:
            del data
            return params

        def scores(params: Params, inputs: dict[str, Array]) -> Array:
            event = inputs["event"]
            return params["context"][event] @ params["vectors"] + params["log_weight"][params["day"][event]]

        return gradient_free(
            sizes=sizes,
            inputs=inputs,
            init=init,
            absorb=absorb,
            scores=scores,
            cutoffs=cutoffs,
            known=known_to_all,
        )

    return Baseline(build, ("event",), labels="item")
