"""Items by a text encoder that keeps learning: its top layers, or adapters in them, over the frozen layers' states."""

from functools import lru_cache

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from incremental.encoders.bert import Bert, Layer
from incremental.encoders.layers import Config
from incremental.encoders.load import Encoder, load, mean
from incremental.errors import UserError
from incremental.problem import Model
from incremental.tower import Tower
from incremental.types import Params

TOGETHER = 1024  # items whose layers are computed at once
ADAPTED = ("query", "value")  # as in the paper's experiments


class TopLayers(nn.Module):
    """The encoder's layers from `first` on, the mean over a text's tokens at length 1, and a kernel "text" [D, n]."""

    config: Config
    first: int
    numbers: int

    @nn.compact
    def __call__(self, inputs: dict[str, Array], key: Array | None) -> Array:
        """{"text": [N, L, D] float32, what enters layer `first`, 0 where there is no token} -> [N, n]."""
        del key
        x = inputs["text"]
        mask = (x != 0).any(-1)
        for i in range(self.first, self.config.layers):
            x = Layer(self.config, 0.0, name=f"layer_{i}")(x, mask[:, None, None], None)
        pooled = mean(x, mask).astype(jnp.float32)
        length = jnp.sqrt(jnp.maximum((pooled**2).sum(-1, keepdims=True), 1e-12))
        return nn.Dense(self.numbers, use_bias=False, name="text")((pooled / length).astype(x.dtype))


def encoder_items(
    *,
    model: Model,
    path: str,
    layers: int = 1,
    rank: int = 0,
    alpha: float = 16.0,
    ids: bool = False,
    remat: bool = False,
) -> Model:
    """`model` with item rows W e(x), e(x) the text x as the BERT-family encoder at `path` has it, of length 1.

    Data.text must hold the states below its top `layers` (`data.text=states`), which is all that is frozen outside
    them. rank = 0: the top layers are trained from where the checkpoint has them. rank > 0: they are frozen, and LoRA
    matrices are trained beside the query and value kernels (Hu et al. 2021, arXiv 2106.09685): K + alpha / rank · A B,
    A [D, rank] normal of variance 1 / D, B [rank, D] zero at first. What happens to them at an increment's end is a
    strategy (`lora_boundary`); without one they are kept. `ids`: each item also has rows of its own, which are added.
    `remat`: what the layers compute is not kept for the backward pass but computed anew in it, 1,024 items at a time.
    """
    encoder, first = top_of(path, layers)
    if rank < 0:
        raise UserError(f"model.rank={rank}: expected 0 (the layers are trained) or more (adapters of that rank)")
    upper = {f"layer_{i}" for i in range(first, encoder.config.layers)}
    top = {name: part for name, part in encoder.params.items() if name in upper}

    def start(drawn: Params, key: Array) -> Params:
        if not rank:
            return {**drawn, **jax.tree.map(jnp.asarray, top)}
        width = encoder.config.width
        keys = iter(jax.random.split(key, len(top) * len(ADAPTED)))
        drawn_a = {
            (layer, part): jax.random.normal(next(keys), (width, rank)) / jnp.sqrt(width)
            for layer in sorted(top)
            for part in ADAPTED
        }
        lora = {(*path, "a"): a for path, a in drawn_a.items()}
        lora |= {(*path, "b"): jnp.zeros((rank, width)) for path in drawn_a}
        return {"text": drawn["text"], "lora": unflatten_dict(lora)}

    def whole(params: Params) -> Params:
        if not rank:
            return params
        kernels = flatten_dict(top)
        for (layer, part), own in flatten_dict(params["lora"], is_leaf=lambda _, node: "a" in node).items():
            moved = own["a"] @ own["b"] + own.get("merged", 0.0)
            kernels[layer, part, "kernel"] = kernels[layer, part, "kernel"] + alpha / rank * moved
        return {"text": params["text"], **unflatten_dict(kernels)}

    return model._replace(
        tower=Tower(lambda n: TopLayers(encoder.config, first, n), ids, start, whole, TOGETHER, remat)
    )


@lru_cache(maxsize=2)
def loaded(path: str) -> Encoder:
    """The encoder, read once."""
    return load(path)


def top_of(path: str, layers: int) -> tuple[Encoder, int]:
    """The encoder, and the first of its top `layers`."""
    encoder = loaded(path)
    if not isinstance(encoder.module, Bert):
        raise UserError(f"{path}: only encoders of BERT's build are trained inside a stream (data.text=encoded: all)")
    if not 1 <= layers <= encoder.config.layers:
        raise UserError(f"model.layers={layers}: expected 1 to {encoder.config.layers}, the encoder's layers")
    return encoder, encoder.config.layers - layers
