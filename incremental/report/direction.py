"""Whether more of a metric, a measure or a cost is better: the one place that says so."""

import re

DIRECTION = {
    # Metrics, by their names before @K and /group or /class. "map" and "accuracy" come from elsewhere.
    **dict.fromkeys(("ndcg", "recall", "hit", "mrr", "map", "accuracy", "precision", "f1", "auc"), 1),
    # What is recommended may be rightly broad or narrow, popular or not.
    **dict.fromkeys(("coverage", "popularity", "novelty", "gini", "new_item_exposure", "diversity"), 0),
    "serendipity": 1,
    "calibration": -1,
    # Measures of a metric of which more is better.
    **dict.fromkeys(("prequential", "slope", "final_average", "average_incremental", "anytime_average"), 1),
    **dict.fromkeys(("learning_accuracy", "backward_transfer", "forward_transfer"), 1),
    **dict.fromkeys(("learning_average", "retained_average", "harmonic_mean"), 1),
    **dict.fromkeys(("forgetting", "forgetting_chaudhry", "intransigence", "standard_error"), -1),
    # Costs. That there are few updates is a cost saved, but not a quality of each.
    **dict.fromkeys(("seconds_per_update", "waited_per_update", "wall_per_update", "compile_seconds"), -1),
    **dict.fromkeys(("base_seconds", "examples", "base_examples"), -1),
    **dict.fromkeys(("parameters_written", "memory_bytes"), -1),
    "updates": 0,
}

OF_USERS = "^(users|last|first|sets)-"  # a metric of events, as `per_user` and `user_sets` count it


def direction(name: str) -> int:
    """1 where more is better, -1 where less is, 0 where neither is or the name is unknown.

    >>> direction("ndcg@10/cold_users"), direction("f1/buy"), direction("forgetting"), direction("popularity@10")
    (1, 1, -1, 0)
    >>> direction("users-ndcg@10"), direction("sets-recall@20")
    (1, 1)
    """
    return DIRECTION.get(re.split("[@/]", re.sub(OF_USERS, "", name), maxsplit=1)[0], 0)


def is_quality(metric: str) -> bool:
    """Whether more of ``metric`` is better, so that a row can be the best in it.

    >>> is_quality("ndcg@10/cold_users"), is_quality("popularity@10")
    (True, False)
    """
    return direction(metric) > 0
