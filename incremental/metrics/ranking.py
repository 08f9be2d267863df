"""Ranking metrics of one relevant item among the whole catalogue, from its rank (0 = first)."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from incremental.errors import UserError

KINDS = ("recall", "hit", "ndcg", "mrr")


def parse(name: str, known: Sequence[str] = KINDS) -> tuple[str, int]:
    """`"ndcg@10"` -> `("ndcg", 10)`; a UserError says what is allowed, with what else is `known`.

    >>> parse("ndcg@10")
    ('ndcg', 10)
    """
    match = re.fullmatch(r"([a-z]+)@([1-9][0-9]*)", name)
    if not match or match[1] not in KINDS:
        allowed = ", ".join(f"{kind}@K" for kind in known)
        raise UserError(f"metric {name!r}: expected one of {allowed} with a whole K of at least 1, e.g. ndcg@10")
    return match[1], int(match[2])


def per_event(name: str) -> Callable[[Any], Any]:
    """The metric of each event: ranks [N] float -> values [N] float, for numpy and jax arrays alike.

    With one relevant item an event, r its rank from 0: recall@K = hit@K = [r < K], ndcg@K = [r < K] / log2(r + 2),
    mrr@K = [r < K] / (r + 1) (Järvelin & Kekäläinen 2002 for NDCG; the ideal DCG is 1).

    >>> import numpy as np
    >>> per_event("ndcg@10")(np.array([0.0, 2.0, 10.0, np.inf])).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    kind, k = parse(name)

    def value(ranks: Any) -> Any:
        xp = ranks.__array_namespace__()
        hit = (ranks < k).astype(ranks.dtype)
        if kind == "ndcg":
            return hit / xp.log2(ranks + 2)
        if kind == "mrr":
            return hit / (ranks + 1)
        return hit

    return value
