import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from incremental.errors import UserError
from incremental.metrics.ranking import parse, per_event

RANKS = np.array([0.0, 0.5, 2.0, 2.5, 3.0, 9.0, np.inf], np.float32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("recall@3", [1, 1, 1, 1, 0, 0, 0]),
        ("hit@3", [1, 1, 1, 1, 0, 0, 0]),
        ("hit@1", [1, 1, 0, 0, 0, 0, 0]),
        ("recall@10", [1, 1, 1, 1, 1, 1, 0]),
        ("ndcg@3", [1, 1 / math.log2(2.5), 1 / 2, 1 / math.log2(4.5), 0, 0, 0]),
        ("ndcg@10", [1, 1 / math.log2(2.5), 1 / 2, 1 / math.log2(4.5), 1 / math.log2(5), 1 / math.log2(11), 0]),
        ("mrr@3", [1, 1 / 1.5, 1 / 3, 1 / 3.5, 0, 0, 0]),
        ("mrr@20", [1, 1 / 1.5, 1 / 3, 1 / 3.5, 1 / 4, 1 / 10, 0]),
    ],
)
@pytest.mark.parametrize("library", [np, jnp])
def test_values_are_the_definitions_of_one_relevant_item(name: str, expected: list[float], library: Any) -> None:
    values = per_event(name)(library.asarray(RANKS))
    assert isinstance(values, type(library.asarray(RANKS)))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_names_are_split_into_kind_and_cutoff() -> None:
    assert [parse(name) for name in ("recall@1", "hit@20", "mrr@100")] == [("recall", 1), ("hit", 20), ("mrr", 100)]


@pytest.mark.parametrize(
    "name", ["ndgc@10", "ndcg", "ndcg@0", "ndcg@-1", "ndcg@1.5", "NDCG@10", "ndcg@", "@5", "ndcg@10 "]
)
def test_other_names_are_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(UserError) as error:
        per_event(name)
    assert repr(name) in str(error.value)
    assert all(f"{kind}@K" in str(error.value) for kind in ("recall", "hit", "ndcg", "mrr"))
