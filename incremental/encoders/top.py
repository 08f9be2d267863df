"""The top of a text encoder that keeps learning: its last layers, or adapters in them, over what is frozen below."""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from incremental.core.types import Params
from incremental.encoders.bert import Bert, Layer
from incremental.encoders.layers import Config
from incremental.encoders.load import Encoder, load
from incremental.encoders.pooling import Together
from incremental.errors import UserError

ADAPTED = ("query", "value")  # as in the paper's experiments


def through(config: Config, first: int, x: Array, mask: Array) -> Array:
    """x [N, L, D], what enters layer `first`, mask [N, L] bool (False = no token) -> what leaves the last, [N, L, D].

    Within the compact method of a module, whose parts the layers become, under the names of the checkpoint.
    """
    for i in range(first, config.layers):
        x = Layer(config, 0.0, name=f"layer_{i}")(x, mask[:, None, None], None)
    return x


class Top(NamedTuple):
    """An encoder whose layers from `first` on are trained, or adapted.

    rank > 0: LoRA (Hu et al. 2021, arXiv 2106.09685): the layers are frozen, and a kernel K of the query and value
    parts is K + alpha / rank · (A B + M), A [D, rank] normal of variance 1 / D, B [rank, D] zero at first. M [D, D] is
    there with `merges` and not trained: the sum of the products merged by `incremental.strategies.lora_boundary`.
    """

    encoder: Encoder
    first: int
    rank: int
    alpha: float
    merges: bool = False

    @property
    def pretrained(self) -> Params:
        """The checkpoint's own of these layers, by their names."""
        return {f"layer_{i}": self.encoder.params[f"layer_{i}"] for i in range(self.first, self.encoder.config.layers)}

    @property
    def frozen(self) -> Params:
        """The checkpoint's own of what is below."""
        return {name: part for name, part in self.encoder.params.items() if name not in self.pretrained}

    def below(self, frozen: Params, ids: Array, mask: Array) -> Array:
        """ids, mask [N, L] -> what enters layer `first`, [N, L, D]; 0 where there is no token."""
        module = self.encoder.module.clone(config=self.encoder.config._replace(layers=self.first))
        states: Array = module.apply({"params": frozen}, ids, mask)
        return states * mask[..., None]

    def start(self, key: Array) -> Params:
        """What is trained: the layers as the checkpoint has them, or "lora"."""
        if not self.rank:
            return jax.tree.map(jnp.asarray, self.pretrained)
        width = self.encoder.config.width
        paths = [(layer, part) for layer in sorted(self.pretrained) for part in ADAPTED]
        lora = {}
        for path, own in zip(paths, jax.random.split(key, len(paths)), strict=True):
            lora[*path, "a"] = jax.random.normal(own, (width, self.rank)) / jnp.sqrt(width)
            lora[*path, "b"] = jnp.zeros((self.rank, width))
            if self.merges:
                lora[*path, "merged"] = jnp.zeros((width, width))
        return {"lora": unflatten_dict(lora)}

    def whole(self, params: Params, pretrained: Params) -> Params:
        """The layers' parameters, of what is trained and what is `pretrained`; other names are left out."""
        if not self.rank:
            return {name: params[name] for name in self.pretrained}
        kernels = flatten_dict(pretrained)
        for (layer, part), own in flatten_dict(params["lora"], is_leaf=lambda _, node: "a" in node).items():
            moved = own["a"] @ own["b"] + jax.lax.stop_gradient(own.get("merged", 0.0))
            kernels[layer, part, "kernel"] = kernels[layer, part, "kernel"] + self.alpha / self.rank * moved
        return unflatten_dict(kernels)


def top(path: str, layers: int, rank: int = 0, alpha: float = 16.0, merges: bool = False) -> Top:
    """The top `layers` of the encoder at `path`; UserError where it is not of BERT's build or has not as many."""
    encoder = loaded(path)
    if not isinstance(encoder.module, Bert):
        raise UserError(f"{path}: only encoders of BERT's build are trained inside a stream (data.text=encoded: all)")
    if encoder.dense or isinstance(encoder.pool, Together):
        raise UserError(
            f"{path}: it declares a dense layer, or several poolings together, which only data.text=encoded reads"
        )
    if not 1 <= layers <= encoder.config.layers:
        raise UserError(f"model.layers={layers}: expected 1 to {encoder.config.layers}, the encoder's layers")
    if merges and not rank:
        raise UserError("model.merges=true: without adapters nothing is merged; set model.rank, or merges=false")
    return Top(encoder, encoder.config.layers - layers, rank, alpha, merges)


@lru_cache(maxsize=2)
def loaded(path: str) -> Encoder:
    """The encoder, read once."""
    return load(path)
