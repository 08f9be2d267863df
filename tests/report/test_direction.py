from incremental.metrics import classes, continual, ranking
from incremental.report.direction import DIRECTION, direction
from incremental.report.grid import COSTS, EXPLAINED_BY
from incremental.run.progress import Cost, Result, total_cost
from tests import lab


def test_of_every_metric_measure_and_cost_it_is_said_whether_more_is_better() -> None:
    import numpy as np

    told = classes.report(np.zeros((1, 3), np.float32), np.ones(1, np.int32), ["", "view", "buy"])
    run = lab.run(lab.baseline_build("popularity"), lab.stream())
    metrics = {*ranking.KINDS, *told, *(record.metric for record in run.records)}
    costs = total_cost(Result(run.state, run.sizes, (), tuple(Cost(t, 0, 0, 0, 0, 0, 0, 0, 0) for t in range(2))))
    measures = {*continual.summarise([(0, 1, "ndcg@10", 0.5, 1)])["ndcg@10"], *EXPLAINED_BY}
    names = {name.split("@")[0].split("/")[0] for name in (*metrics, *measures, *costs, *COSTS)}
    assert names <= {*DIRECTION}


def test_what_explains_a_metric_is_measured_by_a_run_with_the_matrix() -> None:
    rows = [(i, j, "heldout/ndcg@10", 0.5, 1) for i in (-1, 0, 1, 2) for j in range(3)]
    curve = [(t - 1, t, name, 0.5, 1) for t in (1, 2) for name in ("ndcg@10", "ndcg@10/standard_error")]
    numbers = continual.summarise([*rows, *curve])["ndcg@10"]
    assert [name for name in EXPLAINED_BY if numbers.get(name) is None] == []


def test_directions() -> None:
    better = ["ndcg@10", "ndcg@10/rare_items", "hit@5", "f1", "f1/buy", "auc/view", "recall/buy", "forward_transfer"]
    better += ["users-ndcg@10", "last-mrr@5", "first-hit@5", "sets-recall@10"]
    assert [direction(name) for name in better] == [1] * len(better)
    assert [direction(name) for name in ("forgetting", "intransigence", "memory_bytes", "examples")] == [-1] * 4
    neither = ["coverage@10", "popularity@5", "anything", "users-gini@10", "my-ndcg@10"]
    assert [direction(name) for name in neither] == [0] * len(neither)
