import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.program import Program
from incremental.core.spec import Sizes, next_item
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Learner
from incremental.errors import UserError
from incremental.metrics.ranking import per_event
from incremental.models.popularity import popularity
from incremental.run import loop
from incremental.run.alone import Bound
from incremental.run.executor import Executor
from incremental.run.feed import Capacities, Feed
from incremental.run.progress import EpochDone, Evaluated, Event, Finished, Paused, Result, Trained
from tests import lab

pytestmark = pytest.mark.usefixtures("shared_programs", "one_shape")
PLAIN = lab.Spec()
METRICS = ("recall@1", "ndcg@5", "mrr@10")


@functools.cache
def popularity_run(listed: bool = False) -> Result:
    made = popularity()
    build = functools.cache(lambda sizes: made.program(next_item(8), sizes, (1, 5, 10)))
    return lab.run(build, lab.stream(), metrics=METRICS, matrix=True, feed={"listed": listed})


# -- what is evaluated ----------------------------------------------------------------------------------------------


def test_items_that_are_known_from_the_start_are_candidates_before_any_training() -> None:
    """Popularity scores the four items alike then, so that each has the rank 1.5; the last one comes in increment 1."""
    pairs = [(user, item) for item in "xyz" for user in "abcd"]
    stream = lab.written([pairs, [*pairs, ("a", "w")]], heldout=0.2, unseen_items="known")
    made = popularity()
    build = functools.cache(lambda sizes: made.program(next_item(8), sizes, (3,)))
    result = lab.run(build, stream, metrics=("mrr@3",), matrix=True)
    before = [record.value for record in result.records if record.trained_until == -1]
    np.testing.assert_allclose(before, [1 / 2.5] * 2, rtol=1e-6)


def test_prequential_and_matrix_entries_are_all_there() -> None:
    stream, result = lab.stream(), popularity_run()
    places = {record[:3] for record in result.records}
    assert len(places) == len(result.records)
    for metric in METRICS:
        prequential = {(i, j) for i, j, name in places if name == metric}
        assert prequential == {(t - 1, t) for t in range(1, 4)}
        matrix = {(i, j) for i, j, name in places if name == f"heldout/{metric}"}
        assert matrix == {(i, j) for i in range(-1, 4) for j in range(4)}  # row -1: before any training
    for record in result.records:
        first, last = stream.bounds(record.evaluated_on)
        if record.metric.startswith("heldout/"):
            assert record.events == stream.heldout[first:last].sum() > 0
        elif "/" not in record.metric:
            assert record.events == last - first
    assert all(r.value == 0 for r in result.records if r.trained_until == -1)  # nothing seen, nothing ranked


@pytest.mark.parametrize("listed", [False, True])
def test_the_numbers_of_popularity_against_a_reference(listed: bool) -> None:
    """All evaluations of a run, computed again in plain numpy."""
    stream, result = lab.stream(), popularity_run(listed)
    items, users = stream.interactions.item, stream.interactions.user
    training = ~stream.heldout

    for t in range(1, 4):
        before = [training & (stream.increment == i) for i in range(t)]
        weight: Any = sum(0.5 ** (t - 1 - i) * np.bincount(items[mask], minlength=200) for i, mask in enumerate(before))
        events: Any = sum(np.bincount(items[mask], minlength=200) for mask in before)
        seen, known = events > 0, set(users[: stream.bounds(t)[0]][np.any(before, axis=0)[: stream.bounds(t)[0]]])
        here = np.arange(*stream.bounds(t))
        ranks, top = [], []
        candidates = seen | np.isin(np.arange(200), items[here]) if listed else seen
        for e in here:
            scores = np.where(candidates, weight, -np.inf)
            own = scores[items[e]]
            ties = (scores == own).sum() - 1
            ranks.append((scores > own).sum() + ties / 2 if np.isfinite(own) else np.inf)
            top.append(np.argsort(-scores, kind="stable")[:10])
        cold_user = np.array([users[e] not in known for e in here])
        cold_item = ~seen[items[here]]
        rare_item = (events[items[here]] > 0) & (events[items[here]] < 5)
        assert np.isfinite(np.array(ranks)[cold_item]).all() == listed
        for metric in METRICS:
            values = per_event(metric)(np.array(ranks))
            assert lab.value(result, t - 1, t, metric) == pytest.approx(values.mean(), abs=1e-6)
            groups = {"cold_users": cold_user, "cold_items": cold_item, "rare_items": rare_item}
            for name, group in groups.items():
                (record,) = [r for r in result.records if r[:3] == (t - 1, t, f"{metric}/{name}")]
                assert record.events == group.sum()
                if group.any():
                    assert record.value == pytest.approx(values[group].mean(), abs=1e-6)
                else:
                    assert np.isnan(record.value)
        for k in (1, 5, 10):
            shown = np.bincount(np.concatenate([row[:k] for row in top]), minlength=200)[candidates]
            coverage = lab.value(result, t - 1, t, f"coverage@{k}")
            assert coverage == pytest.approx((shown > 0).mean())
            own = events[candidates]  # the share of the others with fewer events, ties counted as half
            lower, equal = (own[:, None] > own).sum(1), (own[:, None] == own).sum(1) - 1
            place = (lower + equal / 2) / (len(own) - 1)
            assert lab.value(result, t - 1, t, f"popularity@{k}") == pytest.approx((shown * place).sum() / shown.sum())


def test_an_increment_is_tested_before_it_is_trained_on() -> None:
    result = lab.run(lab.baseline_build("popularity"), lab.disjoint(), metrics=("recall@10",), matrix=True)
    for t in (1, 2):
        assert lab.value(result, t - 1, t, "recall@10") == 0  # none of these items has been trained on
        assert lab.value(result, t - 1, t, "heldout/recall@10") == 0
        assert lab.value(result, t, t, "heldout/recall@10") > 0.5
    assert lab.value(result, 0, 0, "heldout/recall@10") > 0.5


class Hasty(loop.Run):
    """A planted leak: trains first."""

    def test(self, lanes: Any, t: int) -> Any:
        (plan, _), *_ = self.plans(lanes)
        yield from self.train(lanes, t, plan)
        yield from super().test(lanes, t)


def test_training_before_the_test_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "Run", Hasty)
    result = lab.run(lab.baseline_build("popularity"), lab.disjoint(), metrics=("recall@10",))
    assert lab.value(result, 0, 1, "recall@10") > 0.5


def test_tests_of_users_and_items_beyond_the_tables() -> None:
    """The tables are as small as can be, and the model is never updated: later ids are beyond them."""
    rng = np.random.default_rng(0)
    parts = [[(str(rng.integers(ids)), str(rng.integers(ids))) for _ in range(60)] for ids in (12, 60, 60)]
    stream = lab.written(parts)
    results = []
    for least in (8, 1024):
        build, feed = lab.baseline_build("popularity"), {"capacities": Capacities(table=least)}
        results.append(lab.run(build, stream, lab.POLICIES["static"], feed=feed, metrics=("mrr@10",), matrix=True))
    assert results[0].sizes != results[1].sizes
    assert max(results[0].sizes.values()) < 16 < stream.interactions.item.max()
    assert list(map(str, results[0].records)) == list(map(str, results[1].records))


def test_every_test_epoch_and_increment_is_an_event() -> None:
    heard = list(lab.events(lab.build(PLAIN), lab.stream()))
    result = loop.finished(heard)
    trained = [event for event in heard if isinstance(event, Trained)]
    assert tuple(event.cost for event in trained) == result.costs
    assert [record for event in trained for record in event.tested] == list(result.records)
    assert [event.records for event in heard if isinstance(event, Evaluated)] == [event.tested for event in trained[1:]]
    kinds = [type(event) for event in heard]
    assert kinds[-1] is Finished
    assert kinds[kinds.index(Evaluated) - 1] is Trained  # an increment is tested once the one before is over
    for t, cost in enumerate(result.costs):
        epochs = [event.epoch for event in heard if isinstance(event, EpochDone) and event.epoch.increment == t]
        assert [epoch.epoch for epoch in epochs] == list(range(1, cost.epochs + 1))
        assert all(epoch.loss is not None and epoch.loss > 0 for epoch in epochs)
        assert all(dict(epoch.terms) == {"data": epoch.loss} for epoch in epochs)
        values = [epoch.validation for epoch in epochs if epoch.validation is not None]
        assert len(values) == len(epochs)
        assert len(set(values)) > 1  # each epoch's own
        if len(values) < PLAIN.epochs:  # it stopped for want of a better one
            assert values.index(max(values)) == len(values) - 1 - PLAIN.patience


def test_an_epochs_event_has_each_term_of_the_loss_and_each_report() -> None:
    """The term is 0.5 · the number of finished increments, the report counts steps: both are known beforehand."""
    counting = Strategy(
        init=lambda _: (jnp.float32(0.0), jnp.int32(0)),
        loss=lambda state, *_: 0.5 * state[0],
        record=lambda state, *_: (state[0], state[1] + 1),
        end=lambda state, learner, *_: ((state[0] + 1.0, state[1]), learner),
        report=lambda state: {"steps": state[1], "finished": state[0]},
    )

    def build(sizes: Sizes) -> Program:
        return lab.make(lab.problem_of(PLAIN, sizes), {"quiet": Strategy(), "mine": counting}, sizes, PLAIN)

    stream = lab.stream()
    heard = [e.epoch for e in lab.events(functools.cache(build), stream) if isinstance(e, EpochDone)]
    assert {epoch.increment for epoch in heard} == set(range(len(stream)))
    steps = 0.0
    for epoch in heard:
        assert set(epoch.terms) == (
            {"data", "mine"} if epoch.increment else {"data"}
        )  # the base part is plain training
        assert epoch.terms.get("mine", 0.0) == pytest.approx(0.5 * epoch.increment)
        assert epoch.loss == pytest.approx(sum(epoch.terms.values()), rel=1e-5)
        # An update ends with its best epoch's count, from which the next one goes on.
        ran = -(-lab.rows_of(stream, epoch.increment) // 32)
        assert (epoch.reports["mine/steps"] - steps == ran) or epoch.epoch == 1
        steps = int(epoch.reports["mine/steps"])
        assert epoch.reports["mine/finished"] == epoch.increment


# -- an update --------------------------------------------------------------------------------------------------------


def test_an_executor_that_has_run_begins_again_with_small_tables() -> None:
    executor, sizes = Executor.alone(lab.baseline_build("popularity")), []  # each size is a program
    feed: Any = {"capacities": Capacities(table=8, examples=128)}
    for _ in range(2):
        for event in loop.run_stream(Feed(lab.stream(parts=2), **feed), executor, lab.FINETUNE, metrics=("ndcg@10",)):
            if isinstance(event, EpochDone) and event.epoch.increment == 0 and event.epoch.epoch == 1:
                sizes.append(executor.sizes)
    assert sizes[0] == sizes[1] != executor.sizes


def test_training_stops_by_the_newest_increments_validation_part() -> None:
    """Under a window and a retraining too; nothing trains on the older increments' validation parts either."""
    stream = lab.stream()
    for name in ("window", "retrain"):
        program, plan = lab.build(PLAIN)(lab.sizes_at(stream, 2)), lab.POLICIES[name].plan(2, [0, 1], {}, 0)
        data, validation, _ = lab.feed_of(stream).update(program, 2, plan, jax.device_put)
        assert set(np.asarray(validation.rows.increment)[: int(validation.size)].tolist()) == {2}
        assert len(set(np.asarray(data.rows.increment)[: int(data.size)].tolist())) > 1


def test_a_best_epoch_is_copied_only_where_another_one_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keep, restored, told = Bound.keep, Bound.restored, list[str]()

    def noted(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def called(bound: Bound, *given: Any) -> Any:
            if not isinstance(jax.tree.leaves(given)[0], jax.ShapeDtypeStruct):  # to compile ahead
                told.append(name)
            return own(bound, *given)

        return called

    monkeypatch.setattr(Bound, "keep", noted("keep", keep))
    monkeypatch.setattr(Bound, "restored", noted("restored", restored))

    def expected(values: list[float | None]) -> list[str]:
        """Of an update by its epochs' validation values."""
        if (given := [each for each in values if each is not None]) != values:
            return []  # nothing was validated, and the last epoch stays
        best = [e for e, own in enumerate(given) if own > max([-1.0, *given[:e]])]
        copies = ["keep" for e in best if e < len(given) - 1]
        return copies if best[-1] == len(given) - 1 else [*copies, "restored"]

    for stream in (lab.stream(), lab.stream(until=1, validation=0.0)):
        told.clear()
        epochs = [event.epoch for event in lab.events(lab.build(PLAIN), stream) if isinstance(event, EpochDone)]
        updates = {t: [each.validation for each in epochs if each.increment == t] for t in range(len(stream))}
        assert told == [name for values in updates.values() for name in expected(values)]
        assert ("restored" in told) == stream.validation.any()  # otherwise the test would show nothing


# -- starting afresh ------------------------------------------------------------------------------------------------


def test_a_fresh_start_knows_nothing_of_earlier_increments() -> None:
    stream = lab.stream()
    result = lab.run(lab.build(PLAIN), stream, lab.POLICIES["retrain"], seed=3)
    # The last update alone, from any other state: parameters, moments and catalogue must be the same.
    program = lab.build(PLAIN)(result.sizes)
    f = lab.functions(program)
    plan = lab.POLICIES["retrain"].plan(3, [0, 1, 2], {}, 0)
    data, validation, _ = lab.feed_of(stream).update(program, 3, plan, jax.device_put)
    spoilt = jax.tree.map(lambda leaf: leaf + 7, f.init(jax.random.key(3)).learner.params)
    state = f.init(jax.random.key(3))
    state = state._replace(learner=state.learner._replace(params=spoilt))
    state, _ = lab.train(f, f.restart(state, data), data, validation)
    lab.assert_same(state.learner, result.state.learner)
    # Not the base part's start again, either: each fresh start draws its own.
    assert lab.differs(
        f.restart(f.init(jax.random.key(3)), data).learner.params, f.init(jax.random.key(3)).learner.params
    )
    catalogue = result.state.learner.catalogue
    counts = np.bincount(stream.interactions.item[~stream.heldout], minlength=len(catalogue.events))
    np.testing.assert_array_equal(catalogue.events, counts)  # each event once, not once an update


def test_continuing_counts_each_event_once() -> None:
    stream = lab.stream()
    for policy in ("finetune", "window"):
        catalogue = lab.run(lab.build(PLAIN), stream, lab.POLICIES[policy]).state.learner.catalogue
        kept = ~stream.heldout
        counts = np.bincount(stream.interactions.item[kept], minlength=len(catalogue.events))
        np.testing.assert_array_equal(catalogue.events, counts)
        np.testing.assert_array_equal(catalogue.seen, counts > 0)
        assert set(np.flatnonzero(catalogue.arrived["user"])) == set(stream.interactions.user[kept])


def test_what_is_held_out_is_never_read() -> None:
    """Other held-out items: the same training to the bit. The items occur elsewhere, so that the numbering stays."""
    rng = np.random.default_rng(0)
    whole = [(str(rng.integers(6)), str(rng.integers(10))) for _ in range(120)]
    whole[:10] = [(str(i % 6), str(i)) for i in range(10)]
    parts = [whole[:40], whole[40:80], whole[80:]]
    stream = lab.written(parts, heldout=0.3)
    held = [e for e in np.flatnonzero(stream.heldout).tolist() if e >= 40]
    for e in held:
        whole[e] = (whole[e][0], str((int(whole[e][1]) + 1) % 10))
    other = lab.written([whole[:40], whole[40:80], whole[80:]], heldout=0.3)
    assert other.interactions.items == stream.interactions.items
    assert (other.interactions.item != stream.interactions.item).sum() == len(held) > 10
    for spec in (PLAIN, lab.Spec("replay+ewc")):
        one, two = (lab.run(lab.build(spec), each) for each in (stream, other))
        lab.assert_same(one.state, two.state)


# -- what must not be lost -------------------------------------------------------------------------------------------


def fragile(sizes: Sizes) -> Program:
    """Its penalty is no number at increment 2, from the second step on."""
    problem = lab.problem_of(PLAIN, sizes)

    def loss(state: jax.Array, params: Any, batch: Batch, outputs: Any) -> jax.Array:
        del params, outputs
        return jnp.where((batch.increment == 2).any() & (state >= 1), jnp.nan, 0.0)

    def begin(state: jax.Array, learner: Learner, data: Any, key: Any) -> Any:
        del state, data, key
        return jnp.int32(0), learner

    faulty = Strategy(init=lambda _: jnp.int32(0), begin=begin, loss=loss, record=lambda state, _step, _key: state + 1)
    sound = Strategy(loss=lambda _state, _params, _batch, _outputs: 0.0)
    return lab.make(problem, {"faulty": faulty, "sound": sound}, sizes, PLAIN)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_place() -> None:
    saved: list[int] = []

    def seen(events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, Paused) and event.progress:
                params = event.snapshot(0).state.learner.params
                assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(lab.on_host(params)))
                saved.append(event.progress[0].increment)
            yield event

    with pytest.raises(UserError) as caught:
        loop.finished(seen(lab.events(functools.cache(fragile), lab.stream())))
    text = str(caught.value)
    assert "increment 2, epoch 1, step 1, in the term(s) faulty (" in text
    assert saved[-1] == 2  # the end of increment 1: nothing was saved after it
    assert 3 not in saved


def test_a_snapshot_is_never_of_a_later_state() -> None:
    """One that is asked for too late fails, its buffers being given away; it does not bring what came after."""
    first = next(e for e in list(lab.events(lab.build(PLAIN), lab.stream())) if isinstance(e, Paused) and e.over)
    assert first.progress[0].increment == 1
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(first.snapshot(0).state.learner.increment)
