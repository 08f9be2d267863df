"""A guest: a task whose labels are not items, but the hour of the day at which a user comes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import incremental as inc
from incremental.data.interactions import Interactions, Kind
from incremental.data.task import Task
from tests import lab


def hour(*, parts: int = 6) -> Any:
    """In which part of the day the next event falls: labels are ids of the kind "hour"."""

    def make(log: Interactions, length: int) -> tuple[Interactions, Task]:
        del length
        found = (log.time // (86_400 // parts) % parts).astype(np.int32) + 1
        names = ["", *(f"part {i}" for i in range(parts))]
        return replace(log, further={**log.further, "hour": Kind(found, names)}), Task("hour", classes=True)

    return make


def test_a_model_learns_them_and_each_has_a_report() -> None:
    stream = lab.stream(task=hour())

    def program(sizes: inc.Sizes) -> inc.Program:
        own = inc.problem(inc.matrix_factorization(width=4), inc.full_softmax(), stream.spec, sizes)
        steps = inc.training(batch_size=32, epochs=3, patience=0)
        parts = {"memory": inc.replay(own, capacity=64, rows=8)}
        return inc.make(own, inc.adam(learning_rate=0.05), parts, sizes=sizes, training=steps, cutoffs=(1,))

    result = lab.run(program, stream, metrics=("recall@1",))
    assert result.sizes.labels == "hour"
    assert result.sizes["hour"] == result.sizes.slots == 8 < result.sizes["item"]
    assert len(result.state.learner.params["item"]["embedding"]) == 8  # what it scores are parts of the day
    told = {record.metric: record.value for record in result.records if record.evaluated_on == 3}
    assert {"recall@1", "f1/part 3", "auc/part 0"} <= told.keys()
    assert np.asarray(result.state.learner.catalogue.events).sum() == (~stream.heldout).sum()
    assert set(np.unique(stream.label)) == set(range(1, 7))


def test_a_sequence_model_scores_items_and_says_so() -> None:
    stream = lab.stream(task=hour())
    with pytest.raises(inc.UserError, match="it scores ids of the kind 'item', but the labels are of the kind 'hour'"):
        inc.problem(inc.sasrec(width=8), inc.full_softmax(), stream.spec, lab.sizes_at(stream, 0))
