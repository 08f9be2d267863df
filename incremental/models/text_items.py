"""Items by their texts: a linear map of each item's text vector, in place of its id's rows or added to them."""

import flax.linen as nn
from jax import Array

from incremental.core.problem import Model
from incremental.core.tower import Tower


class Linear(nn.Module):
    """The text's vector times a kernel "text" [F, n].

    No bias: what is added to all items alike changes no ranking, and under a softmax it has no gradient but rounding.
    """

    numbers: int

    @nn.compact
    def __call__(self, inputs: dict[str, Array], key: Array | None) -> Array:
        """{"text": [N, F] float32} -> [N, n]."""
        del key
        return nn.Dense(self.numbers, use_bias=False, name="text")(inputs["text"])


def text_items(*, model: Model, ids: bool = False) -> Model:
    """`model` with item rows W x, x [F] the item's text vector (`data.text`), one W for all item tables.

    `ids`: each item also has rows of its own, which are added (as in Kula 2015, arXiv 1507.08439, where an item is the
    sum of its features' rows, its id being one of them). Without, items of the same text are the same item. An item
    scores from its text before its first interaction.
    """
    return model._replace(tower=Tower(Linear, ids))
