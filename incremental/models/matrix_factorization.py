"""Matrix factorisation: score(user, item) = user vector · item vector + item bias (Koren, Bell & Volinsky 2009)."""

import flax.linen as nn
from jax import Array

from incremental.core.embedding import Rows, uniform_rows
from incremental.core.problem import LABELS, Model
from incremental.core.spec import Sizes
from incremental.domains import Count, NotNegative, checked


class MatrixFactorization(nn.Module):
    """Tables "user/embedding" [W, D], "item/embedding" [V, D] and "item_bias" [V]."""

    sizes: Sizes
    width: int
    limit: float

    def setup(self) -> None:
        rows = uniform_rows(self.limit)
        self.user = Rows(self.sizes["user"], self.width, embedding_init=rows)
        self.item = Rows(self.sizes.slots, self.width, embedding_init=rows)
        self.item_bias = self.param("item_bias", nn.initializers.zeros, (self.sizes.slots,))

    def __call__(self, inputs: dict[str, Array], key: Array | None) -> Array:
        """{"user": [B] int32} -> [B, D]."""
        del key
        return self.user(inputs["user"])

    def items(self) -> tuple[Array, Array]:
        return self.item.embedding, self.item_bias


@checked
def matrix_factorization(*, width: Count = 64, limit: NotNegative = 0.05) -> Model:
    """`width` D; `limit` of the uniform start of the tables."""
    return Model(
        lambda sizes, _inputs: MatrixFactorization(sizes, width, limit),
        ("user",),
        {"user/embedding": "user", "item/embedding": LABELS, "item_bias": LABELS},
    )
