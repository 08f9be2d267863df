"""Items by a text encoder that keeps learning: its top layers, or adapters in them, over the frozen layers' states."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from incremental.core.problem import Model
from incremental.core.tower import Tower
from incremental.core.types import Params
from incremental.domains import Count, Positive, Whole, checked
from incremental.encoders.layers import Config
from incremental.encoders.pooling import Pool
from incremental.encoders.top import through, top

TOGETHER = 1024  # items whose layers are computed at once


class TopLayers(nn.Module):
    """The encoder's layers from `first` on, their pooling (`Pool`) at length 1, and a kernel "text" [D, n]."""

    config: Config
    first: int
    pool: Pool
    numbers: int

    @nn.compact
    def __call__(self, inputs: dict[str, Array], key: Array | None) -> Array:
        """{"text": [N, L, D] float32, what enters layer `first`, 0 where there is no token} -> [N, n]."""
        del key
        x = inputs["text"]
        mask = (x != 0).any(-1)
        x = through(self.config, self.first, x, mask)
        pooled = self.pool(x, mask).astype(jnp.float32)
        length = jnp.sqrt(jnp.maximum((pooled**2).sum(-1, keepdims=True), 1e-12))
        return nn.Dense(self.numbers, use_bias=False, name="text")((pooled / length).astype(x.dtype))


@checked
def encoder_items(
    *,
    model: Model,
    path: str,
    layers: Count = 1,
    rank: Whole = 0,
    alpha: Positive = 16.0,
    merges: bool = False,
    ids: bool = False,
    remat: bool = False,
) -> Model:
    """`model` with item rows W e(x), e(x) the text x as the BERT-family encoder at `path` has it, of length 1.

    Data.text must hold the states below its top `layers` (`data.text=states`), which is all that is frozen outside
    them. rank = 0: the top layers are trained from where the checkpoint has them. rank > 0: they are frozen, and LoRA
    matrices are trained beside the query and value kernels (`incremental.encoders.top`). What happens to them at an
    increment's end is a strategy (`lora_boundary`); without one they are kept. `merges`: the parameters have a place
    for what it merges. `ids`: each item also has rows of its own, which are added. `remat`: what the layers compute is
    not kept for the backward pass but computed anew in it, 1,024 items at a time.
    """
    own = top(path, layers, rank, alpha, merges)

    def start(drawn: Params, key: Array) -> Params:
        return {"text": drawn["text"], **own.start(key)}

    config, first, pool = own.encoder.config, own.first, own.encoder.pool

    def of(frozen: Params) -> Model:
        def whole(params: Params) -> Params:
            return {"text": params["text"], **own.whole(params, frozen)}

        tower = Tower(lambda n: TopLayers(config, first, pool, n), ids, start, whole, TOGETHER, remat)
        return model._replace(tower=tower, frozen=own.pretrained if rank else None, given=of)

    return of(own.pretrained)
