"""A lack of memory, wherever it is met, is said with what the largest increment needs."""

from collections.abc import Callable
from typing import Any

import jax
import pytest

from incremental.errors import UserError
from incremental.run.alone import Bound
from incremental.run.executor import Executor
from incremental.run.exhausted import exhausted, largest, remedy
from incremental.run.feed import Capacities, Feed
from incremental.run.policy import update
from tests import lab

pytestmark = pytest.mark.usefixtures("shared_programs")
XLA = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4915200000 bytes.\nmore lines")

CPU = jax.errors.JaxRuntimeError("INTERNAL: Error dispatching computation: Out of memory allocating 4876323992 bytes.")


def full(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def test_the_largest_update() -> None:
    feed = Feed(lab.stream())
    events = [len(feed.stream.training_events(plan.increments)) for _, plan in update().plans(len(feed.stream))]
    assert len(feed.stream.training_events(largest(feed, update())[1].increments)) == max(events)
    assert largest(feed, update(window="all"))[0] == len(feed.stream) - 1  # all that there is, at the end
    assert [t for t, _ in update(every=2).plans(len(feed.stream))] == [0, 2]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (XLA, True),
        (CPU, True),
        (MemoryError("std::bad_alloc"), True),
        (MemoryError(), True),
        (ValueError("shapes"), False),
    ],
)
def test_what_is_a_lack_of_memory(error: Exception, said: bool) -> None:
    assert exhausted(error) == said


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [(Bound, "epoch", XLA), (Executor, "rank", MemoryError("std::bad_alloc")), (Executor, "grow", XLA)],
)
def test_training_ranking_and_growing(
    monkeypatch: pytest.MonkeyPatch, documented: Callable[..., None], owner: Any, name: str, error: Exception
) -> None:
    monkeypatch.setattr(owner, name, full(error))
    usual = {"listed": True, "capacities": Capacities()}
    with pytest.raises(
        UserError, match=r"out of memory \((RESOURCE|std::bad).*: at the largest part \((\S+ )+"
    ) as said:
        lab.run(lab.build(lab.Spec(epochs=1)), lab.stream(), batch_size=8, feed=usual)
    text = str(said.value)
    assert "the scores of a batch for all items 8 x 1,024 x 4 = 32,768 bytes" in text
    assert "lower training.batch_size; choose head=sampled_softmax" in text
    assert "more lines" not in text
    if name == "epoch":
        documented("a run that needs more memory than there is", text)


def test_another_error_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bound, "epoch", full(ValueError("shapes")))
    with pytest.raises(ValueError, match="shapes"):
        lab.run(lab.build(lab.Spec(epochs=1)), lab.stream())


def test_a_model_without_gradients_has_no_batch_to_lower() -> None:
    assert remedy(256).startswith("lower training.batch_size; choose head=sampled_softmax")
    assert remedy(None) == "choose another model; or cut the stream finer (data.cut)"
