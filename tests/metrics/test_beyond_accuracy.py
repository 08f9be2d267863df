"""Metrics beyond accuracy, each on a case that was worked out by hand."""

import inspect
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from incremental.app import config as schema
from incremental.errors import UserError
from incremental.metrics.metric import Catalogue, check
from incremental.metrics.named import factories, metric_named, resolved
from incremental.report.direction import direction

# Four items: a has 4 training events of 8, b 2, c and d 1 each, and these two are new.
EVENTS, CANDIDATES = np.array([0, 4, 2, 1, 1]), np.array([False, True, True, True, True])
CATALOGUE = Catalogue(["", *"abcd"], EVENTS, CANDIDATES, np.array([True, False, False, True, True]))
A, B, C, D = 1, 2, 3, 4
TEXT = np.array([[0, 0], [1, 0], [0, 2], [1, 1], [0, 0]], np.float32)  # d has none
CATEGORY = np.array([0, 1, 1, 2, 0], np.int32)  # nor has d a category
LISTS = np.array([[A, B, C], [A, B, D], [D, A, 0]], np.int32)
SHOWN = {3: np.array([0, 3, 2, 1, 0])}
NAN = math.nan


def measured(name: str, **arguments: Any) -> Any:
    """What a metric says of the catalogue."""
    metric: Any = metric_named(name)
    given = {"lists": LISTS, "text": TEXT, "category": CATEGORY, "past": arguments.pop("past", None)}
    rows = SimpleNamespace(label=arguments.pop("labels", None))
    more = ({one: given[one] for one in metric.reads},) if metric.reads else ()
    return metric.measure(arguments.pop("ranks", None), arguments.pop("shown", SHOWN), CATALOGUE, rows, *more)


def test_novelty_is_the_mean_of_the_items_bits() -> None:
    assert measured("novelty@3") == pytest.approx((3 * 1 + 2 * 2 + 1 * 3) / 6)  # of 1, 2, 3 and 3 bits
    assert math.isnan(measured("novelty@3", shown={3: np.zeros(5, int)}))
    unseen = CATALOGUE._replace(events=np.array([0, 8, 0, 0, 0]))
    metric: Any = metric_named("novelty@3")
    assert metric.measure(None, {3: np.array([0, 0, 1, 0, 0])}, unseen, None) == 3.0  # as if of one event of 8


def test_the_gini_index_is_0_of_equal_counts_and_1_of_one_item() -> None:
    assert measured("gini@3") == pytest.approx((-3 * 0 - 1 * 1 + 1 * 2 + 3 * 3) / (3 * 6))
    assert measured("gini@3", shown={3: np.array([7, 2, 2, 2, 2])}) == 0.0  # padding is no candidate
    assert measured("gini@3", shown={3: np.array([0, 0, 0, 5, 0])}) == 1.0
    assert math.isnan(measured("gini@3", shown={3: np.zeros(5, int)}))


def test_the_exposure_of_new_items_is_their_share_of_the_places() -> None:
    assert measured("new_item_exposure@3") == pytest.approx(1 / 6)
    none = CATALOGUE._replace(new=np.array([True, False, False, False, False]))
    metric: Any = metric_named("new_item_exposure@3")
    assert math.isnan(metric.measure(None, SHOWN, none, None))  # no candidate is new


def test_what_popularity_would_have_shown_is_not_serendipitous() -> None:
    """a is first by popularity, b second, c and d share the third and fourth place; 9 is unknown."""
    labels = np.array([A, B, C, C, 9, B], np.int32)
    ranks = np.array([0, 1, 0, 5, np.inf, 0], np.float32)
    assert measured("serendipity@2", labels=labels, ranks=ranks).tolist() == [0, 0, 1, 0, 0, 0]
    assert measured("serendipity@1", labels=labels, ranks=ranks).tolist() == [0, 0, 1, 0, 0, 1]  # popularity's is a
    assert measured("serendipity@3", labels=labels, ranks=ranks).tolist() == [0] * 6  # c is popularity's 3.5th


def test_diversity_is_the_mean_distance_in_a_list() -> None:
    half = math.sqrt(0.5)  # the cosine of c to a and to b, which are orthogonal
    np.testing.assert_allclose(measured("diversity@3"), [1 - (0 + half + half) / 3, 1, NAN], atol=1e-7)
    np.testing.assert_allclose(measured("diversity@3.category"), [2 / 3, 0, NAN])


def test_calibration_is_the_divergence_of_the_lists_categories_from_the_pasts() -> None:
    past = np.array([[A, B, C, C], [0, 0, 0, A], [0, 0, 0, D]], np.int32)
    of_list = 2 / 3, 1 / 3  # a and b are of category 1, c of category 2
    kl = sum(0.5 * math.log(0.5 / (0.99 * q + 0.01 * 0.5)) for q in of_list)
    found = measured("calibration@3.category", past=past)
    np.testing.assert_allclose(found, [kl, 0, NAN], atol=1e-12)  # the last has a past without a category
    lacks = 0.5 * math.log(0.5 / 0.995) + 0.5 * math.log(0.5 / 0.005)  # category 2 is of the past, not of the list
    past = np.array([[A, C]] * 3, np.int32)
    np.testing.assert_allclose(measured("calibration@3.category", past=past)[1:], [lacks, lacks])


def test_names_lead_to_the_file_of_their_name() -> None:
    assert {*factories()} >= {"calibration", "diversity", "gini", "new_item_exposure", "novelty", "serendipity"}
    assert not {*factories()} & {"ranking", "metric", "named", "continual", "classes"}
    assert all("k" in inspect.signature(factory).parameters for factory in factories().values())
    names = ["ndcg@10", "novelty@5", "diversity@10", "diversity@10.category", "calibration@20.shop"]
    metrics = resolved(names)
    check(metrics)
    assert [str(metric) for metric in metrics] == names
    assert resolved(metrics) == metrics
    reads = [getattr(metric, "reads", ()) for metric in metrics]
    assert reads == [(), (), ("lists", "text"), ("lists", "category"), ("lists", "past", "shop")]
    assert [direction(name) for name in ("serendipity@10", "calibration@10.category", "diversity@10")] == [1, -1, 0]


@pytest.mark.parametrize(
    ("name", "situation", "said"),
    [
        ("novelty", "a metric without a K", "'novelty': expected one of recall@K, hit@K, .*, novelty@K"),
        ("novlety@10", "a metric that there is not", "'novlety@10': expected one of"),
        ("last-ndcg@10", "a metric over users by its name", "last-ndcg@10 is made by a node; write {_target_:.*"),
        ("novelty@10.category", "a field for a metric that reads none", "novelty@10.category reads no field; write"),
        ("calibration@10", "calibration without a field", "calibration@10 needs a field of the items; write calibr"),
    ],
)
def test_a_name_that_means_nothing_is_refused(name: str, situation: str, said: str, documented: Any) -> None:
    with pytest.raises(UserError, match=said) as error:
        metric_named(name)
    documented(situation, error.value)


@pytest.mark.parametrize("name", ["users-ndcg@10", "last-mrr@5", "first-hit@3", "sets-recall@20"])
def test_the_node_that_is_told_makes_the_metric(name: str) -> None:
    with pytest.raises(UserError) as error:
        metric_named(name)
    node = dict(pair.split(":", 1) for pair in str(error.value).partition("{")[2].rstrip("}").split(","))
    assert str(schema.build(node, "evaluation.metrics")) == name
