"""`encode`: many texts as vectors, in batches of texts of about the same length."""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import numpy.typing as npt
from jax import Array

from incremental.core.precision import Precision, low
from incremental.core.types import Params
from incremental.encoders.declared import UNIT, behind
from incremental.encoders.load import Encoder
from incremental.encoders.pooling import Pool
from incremental.encoders.tokens import check

STEP = 8  # lengths are rounded up to a multiple, so that there are few programs


def encode(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    length: int = 128,
    tokens: int = 1024,
    normalise: bool = False,
    precision: Precision = "float32",
    name: Callable[[int], str] = "text {}".format,
) -> npt.NDArray[np.float32]:
    """[N] texts -> [N, D] float32: pooled, and what follows, as the checkpoint declares; of length 1 with `normalise`.

    A text is cut after `length` tokens (the encoder's positions, or its declared length, at most); a batch holds about
    `tokens` of them, padding included, and is of one shape for each length rounded up to a multiple of 8. A vector
    depends on its own text alone.
    Raises UserError for an empty text, bytes, and what is not UTF-8; `name` says which text it was.
    """
    check(texts, name=name, empty=False)
    ids, mask = encoder.tokenize(texts, min(length, encoder.config.positions, encoder.length or length))
    steps = encoder.steps
    if normalise and steps[-1:] != (UNIT,):
        steps = (*steps, UNIT)
    params = jax.device_put(low(encoder.params) if precision == "bfloat16" else encoder.params)
    made = []
    for rows, width, count in batches(mask.sum(1), ids.shape[1], tokens):
        batch = (np.zeros((count, width), each.dtype) for each in (ids, mask))
        own_ids, own_mask = batch
        own_ids[: len(rows)], own_mask[: len(rows)] = ids[rows, :width], mask[rows, :width]
        made.append((rows, _vectors(params, encoder.dense, own_ids, own_mask, encoder.module, encoder.pool, steps)))
    out = np.zeros((len(texts), encoder.width), np.float32)
    for rows, vectors in made:  # only now, so that batches run while others are prepared, and on a CPU side by side
        out[rows] = vectors[: len(rows)]
    return out


def batches(lengths: npt.NDArray[np.int64], longest: int, tokens: int) -> list[tuple[npt.NDArray[np.int64], int, int]]:
    """(rows, length L, number of rows N >= len(rows)) of batches [N, L] that hold all texts of these lengths."""
    found = []
    bucket = np.clip(-(-lengths // STEP) * STEP, 1, longest)
    for width in np.unique(bucket):
        (rows,) = (bucket == width).nonzero()
        whole = max(tokens // int(width), 1)
        found += [(rows[at : at + whole], int(width), whole) for at in range(0, len(rows), whole)]
    return found


@partial(jax.jit, static_argnames=("module", "pool", "steps"))
def _vectors(
    params: Params,
    dense: tuple[Params, ...],
    ids: Array,
    mask: Array,
    module: nn.Module,
    pool: Pool,
    steps: tuple[str, ...],
) -> Array:
    with jax.default_matmul_precision("highest"):  # what is kept on disk must not depend on the device
        states = module.apply({"params": params}, ids, mask)
    return behind(pool(states, mask), dense, steps)
