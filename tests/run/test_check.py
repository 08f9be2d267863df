"""What cannot work is refused before anything runs."""

import functools
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from incremental.core.program import Program
from incremental.core.spec import Sizes
from incremental.core.strategy import Strategy
from incremental.core.types import Anchor, Learner
from incremental.data.choosing import Sample
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.metrics.per_user import per_user
from incremental.metrics.user_sets import user_sets
from incremental.run import alone, loop
from incremental.run.alone import Build
from incremental.run.check import check, holds_anchor, untrained
from incremental.run.executor import Executor
from incremental.run.feed import Feed
from incremental.run.policy import Update, update
from incremental.run.progress import EpochDone
from tests import lab

pytestmark = pytest.mark.usefixtures("shared_programs")
PLAIN = lab.Spec()


def refused(message: str, build: Build, stream: Stream, policy: Update = lab.FINETUNE, **run: Any) -> None:
    with pytest.raises(UserError, match=message):
        lab.run(build, stream, policy, **run)


def test_what_cannot_work_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.Run, "events", None)  # nothing may run
    plain, stream = lab.build(PLAIN), lab.stream()
    pairs = [(str(i % 5), str(i % 13)) for i in range(100)]
    uneven = lab.written([pairs, pairs[:40]])
    refused("no increment after the base part", plain, stream.prefix(0))
    refused(r"evaluation\.matrix=true needs held-out parts", plain, lab.stream(heldout=0.0), matrix=True)
    refused(r"ask for the K's \(5, 10\).*counts \(10,\)", plain, stream, metrics=("mrr@10", "mrr@5"))
    refused(r"K=500 is larger than the catalogue of the base part \(\d+ items\)", plain, stream, metrics=("mrr@500",))
    refused(
        r"training\.batch_size=50 is larger than 1 of 1 increments, such as increment 1 \(\d+ training events\); "
        r"set training\.batch_size=32, or have fewer increments \(data\.cut\)",
        plain,
        uneven,
        batch_size=50,
    )
    check(
        Feed(lab.written([pairs, pairs, pairs[:40]])),
        Executor.alone(plain),
        lab.FINETUNE,
        ("mrr@10",),
        matrix=False,
        batch_size=50,
    )
    refused(
        r"training\.batch_size=1000 is larger than the base part \(\d+ training events\)",
        plain,
        stream,
        batch_size=1000,
    )
    for strategy in ("ewc", "replay+online_ewc"):
        refused(
            rf"strategies\.{strategy.split('+')[-1]} pulls towards earlier weights, but update\.start=afresh",
            lab.build(lab.Spec(strategy)),
            stream,
            lab.POLICIES["retrain"],
        )


def test_a_batch_size_that_fits_is_named(documented: Callable[[str, object], None]) -> None:
    pairs = [(str(i % 5), str(i % 13)) for i in range(100)]
    # A thin increment is trained on in one short batch, so that it does not lower the size.
    uneven = Feed(lab.written([pairs, pairs[:3], pairs[:40], pairs[:41]]))
    executor = Executor.alone(lab.build(PLAIN))
    with pytest.raises(UserError) as caught:
        check(uneven, executor, lab.FINETUNE, ("mrr@10",), matrix=False, batch_size=64)
    documented("a batch that is larger than most increments", caught.value)
    check(uneven, executor, lab.FINETUNE, ("mrr@10",), matrix=False, batch_size=32)


def test_what_can_work_is_not_refused() -> None:
    stream = lab.stream()
    replay = Executor(alone.Alone(lab.build(lab.Spec("replay"))))
    check(Feed(stream), replay, lab.POLICIES["retrain"], ("ndcg@10",), matrix=True, batch_size=32)
    # The base part's catalogue is just large enough; a static model has no later batches.
    items = int(stream.interactions.item[: stream.bounds(0)[1]].max())
    build = lab.build(replace(PLAIN, cutoffs=(items,)))
    static, metrics = Executor(alone.Alone(build)), (f"mrr@{items}",)
    check(Feed(stream), static, lab.POLICIES["static"], metrics, matrix=True, batch_size=lab.rows_of(stream, 0))
    assert holds_anchor({"a": {"b": Anchor(jnp.zeros(2))}})
    assert not holds_anchor({"a": {"b": jnp.zeros(2)}})


@pytest.mark.parametrize("hook", ["begin", "record", "end"])
def test_a_state_that_changes_its_type_is_refused_before_training(hook: str) -> None:
    def begun(state: jax.Array, learner: Learner, _data: Any, _key: Any) -> Any:
        return state.astype(jnp.float32), learner

    hooks: dict[str, Any] = {hook: begun}
    if hook == "record":
        hooks = {hook: lambda state, _step, _key: state.astype(jnp.float32)}
    changing = Strategy(init=lambda _: jnp.zeros(2, jnp.int32), **hooks)

    def build(sizes: Sizes) -> Program:
        return lab.make(lab.problem_of(PLAIN, sizes), {"sound": Strategy(), "changing": changing}, sizes, PLAIN)

    trained: list[Any] = []
    where = "type of its state" if hook == "record" else rf"strategies\.changing: its state changes in `{hook}`.*init"
    with pytest.raises(UserError, match=where):
        trained += [each for each in lab.events(functools.cache(build), lab.stream()) if isinstance(each, EpochDone)]
    assert not trained


def test_an_increment_without_a_history_is_refused_for_sequence_models() -> None:
    parts = [[(f"u{i % 3}", f"i{i % 12}") for i in range(30)], [(f"new{i}", f"i{i}") for i in range(10)]]
    stream = lab.written(parts, heldout=0.0, validation=0.0)
    refused("increment 1 has no training example with an earlier event", lab.baseline_build("cooccurrence"), stream)


@pytest.mark.parametrize(
    ("quiet", "policy", "counting", "expected"),
    [
        ([2], lab.FINETUNE, False, [2]),
        ([1, 3], lab.FINETUNE, False, [1, 3]),
        ([2], update(window=2), False, []),
        ([2], update(window="all"), False, []),
        ([1], update(window=0), False, []),
        ([2], update(window=2), True, [2]),  # counts only what has arrived since
        ([2], update(every=2), True, []),
        ([2], update(drop=0.1), False, []),  # nobody knows yet whether it trains there
        ([0, 1, 2, 3], update(drop=0.1), False, [0]),
        ([0, 1, 2, 3], lab.FINETUNE, False, [0, 1, 2, 3]),
    ],
)
def test_updates_without_a_pair_are_known_before_anything_runs(
    quiet: list[int], policy: Update, counting: bool, expected: list[int], documented: Callable[[str, object], None]
) -> None:
    single = [[(f"once{t}-{i}", f"i{i}") for i in range(10)] for t in range(4)]
    pairs = [[(f"u{t}-{i % 3}", f"i{i}") for i in range(10)] for t in range(4)]
    parts = [single[t] if t in quiet else pairs[t] for t in range(4)]
    feed = Feed(lab.written(parts, heldout=0.0, validation=0.0))
    program: Any = SimpleNamespace(inputs={"history": None}, counting=counting)
    assert untrained(feed, policy, program) == expected
    if not expected:
        return
    said = str(feed.untrainable(program, expected))
    if expected == [2] and not counting:
        assert "train on several increments at once (update=window), or cut coarser (data.cut)" in said
        documented("an increment of single events only, and a sequence model", said)
    if expected[0] == 0:
        assert said.startswith("the base part has no training example with an earlier event of its user")
        if len(expected) == 4:
            documented("single events only, and a sequence model", said)


def test_a_log_that_goes_on_has_no_next_increment_to_validate_on(documented: Callable[[str, object], None]) -> None:
    feed = lab.feed_of(lab.stream(validate_on="next"))
    feed.endless = True
    executor = Executor(alone.Alone(lab.build(lab.Spec())))
    with pytest.raises(UserError, match=r"data\.validate_on=next") as error:
        check(feed, executor, lab.FINETUNE, ("ndcg@10",), matrix=False, batch_size=None)
    documented("a live log validated on its next increment", error.value)


def test_means_over_users_of_a_sample_of_events_are_refused(documented: Callable[[str, object], None]) -> None:
    """Of ranks 0 to 3 of one user's four items one drawn event has ndcg@2 0.41 on average, the set 1."""
    feed = Feed(lab.stream(), sample=Sample(10))
    executor = Executor(alone.Alone(lab.build(lab.Spec())))
    metrics = "ndcg@10", per_user(of="ndcg@10", target="last"), user_sets(of="ndcg@10")
    with pytest.raises(UserError, match=r"last-ndcg@10, sets-ndcg@10 goes by all .*evaluation\.events=10") as error:
        check(feed, executor, lab.FINETUNE, metrics, matrix=False, batch_size=None)
    documented("a metric of users beside a sample of events", error.value)


def test_a_report_of_anything_but_scalars_is_refused() -> None:
    wide = Strategy(report=lambda _: {"all": jnp.zeros(3)})
    build = functools.cache(lambda sizes: lab.make(lab.problem_of(PLAIN, sizes), {"wide": wide}, sizes, PLAIN))
    refused(r"strategies\.wide: the hook `report` gives 'all' of shape \[3\], expected a scalar", build, lab.stream())
