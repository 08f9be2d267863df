"""The conformance kit passes the project's chains, and finds each planted defect in variants of three strategies."""

import itertools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from incremental.core.strategy import Strategy, chain
from incremental.core.types import STORED, Memory, Teacher, stored
from incremental.errors import UserError
from incremental.memory import buffer, reservoir
from incremental.strategies.ader import ader
from incremental.strategies.agem import agem
from incremental.strategies.decayed_replay import decayed_replay
from incremental.strategies.der import der
from incremental.strategies.ema import ema
from incremental.strategies.ewc import ewc
from incremental.strategies.exemplar_replay import exemplar_replay
from incremental.strategies.feature_distillation import feature_distillation
from incremental.strategies.gpm import gpm
from incremental.strategies.l2_to_last import l2_to_last
from incremental.strategies.low_rank_updates import low_rank_updates
from incremental.strategies.lwf import lwf
from incremental.strategies.mas import mas
from incremental.strategies.ogd import ogd
from incremental.strategies.online_ewc import online_ewc
from incremental.strategies.replay import replay
from incremental.strategies.ring_replay import ring_replay
from incremental.strategies.si import si
from incremental.strategies.warm_rows import warm_rows
from incremental.testing import LawBroken, broken_laws, check_strategy
from tests import lab
from tests.hooks import error_memory, noise, reptile

SMALL: dict[str, Any] = {"capacity": 24, "rows": 8}
CHECKS: dict[Any, dict[str, Any]] = {
    ewc: {"kind": "penalty", "arguments": {"weight": 30.0, "samples": 16}},
    online_ewc: {"kind": "penalty", "arguments": {"weight": 30.0, "samples": 16}},
    mas: {"kind": "penalty", "arguments": {"samples": 16}},
    l2_to_last: {"kind": "penalty"},
    si: {"kind": "penalty"},
    replay: {"kind": "memory", "arguments": SMALL},
    ring_replay: {"kind": "memory", "arguments": SMALL, "keeps": "other"},
    der: {"kind": "memory", "arguments": SMALL},
    agem: {"kind": "memory", "arguments": SMALL},
    exemplar_replay: {"kind": "memory", "arguments": SMALL, "keeps": "quota"},
    ader: {"kind": ("memory", "distillation"), "arguments": SMALL, "keeps": "other"},
    ema: {"kind": "policy"},
    lwf: {"kind": "distillation"},
    feature_distillation: {"kind": "distillation"},
    gpm: {
        "kind": "projection",
        "arguments": {"rank": 6, "samples": 16},
        "model": lab.dense(),
    },
    ogd: {"kind": "projection", "arguments": {"directions": 16, "samples": 4}},
    noise: {"off": {"scale": 0.0}},
    error_memory: {"off": {"weight": 0.0}},
    reptile: {"off": {"rate": 0.0}},
    low_rank_updates: {"kind": "projection", "arguments": {"rank": 2, "every": 10**6}},
}
Wrap = Callable[[Any, Strategy, Any], Strategy]


def planted(factory: Any, wrap: Wrap) -> Any:
    """The factory with a defect, under its own name and signature."""

    def made(problem: Any, **keys: Any) -> Strategy:
        return wrap(problem, factory(problem, **keys), keys)

    made.__name__ = factory.__name__
    made.__signature__ = __import__("inspect").signature(factory, eval_str=True)  # type: ignore[attr-defined]
    made.__annotations__ = dict(factory.__annotations__)
    return made


def assert_rejected(factory: Any, wrap: Wrap, message: str, **check: Any) -> None:
    """It is looked for until it is found: the laws behind it need not be compiled. That `check_strategy` raises what is
    found is tested below."""
    passed = []
    for text in broken_laws(planted(factory, wrap), **{**CHECKS[factory], **check}):
        if re.search(message, text):
            return
        passed.append(text)
    pytest.fail(f"no law told {message!r}, only {passed}")


def variants(*factories: Any, slow: bool = False) -> Any:
    """Of three variants the first runs always, the others (with `slow` all) in the slow part."""
    rare = [pytest.param(factory, marks=pytest.mark.slow) for factory in factories[not slow :]]
    return pytest.mark.parametrize("factory", [*factories[: not slow], *rare], ids=lambda factory: factory.__name__)


# -- chains ------------------------------------------------------------------------------------------------------------

CHAINS: dict[str, tuple[Callable[[Any], Strategy], dict[str, Any]]] = {
    "replay and ewc": (
        lambda problem: chain(memory=replay(problem, **SMALL), anchor=ewc(problem, weight=30.0, samples=16)),
        {"kind": ("memory", "penalty")},
    ),
    "decayed replay, si and warm rows": (
        lambda problem: chain(memory=decayed_replay(problem, **SMALL), path=si(problem), start=warm_rows(problem)),
        {"kind": ("memory", "penalty"), "draws": "other"},
    ),
    "lwf and a-gem": (
        lambda problem: chain(teacher=lwf(problem), surgery=agem(problem, **SMALL)),
        {"kind": ("distillation", "memory")},
    ),
    "ring and ogd": (
        lambda problem: chain(memory=ring_replay(problem, **SMALL), space=ogd(problem, directions=16, samples=4)),
        {"kind": ("memory", "projection"), "keeps": "other"},
    ),
    "mas, features and exemplars": (
        lambda problem: chain(
            anchor=mas(problem, samples=16),
            teacher=feature_distillation(problem),
            memory=exemplar_replay(problem, capacity=24, rows=4),  # with 8 the loss is that of the rows it draws
        ),
        {"kind": ("penalty", "memory"), "keeps": "quota"},
    ),
}


@pytest.mark.parametrize(
    "name", [name if i == 0 else pytest.param(name, marks=pytest.mark.slow) for i, name in enumerate(CHAINS)]
)
def test_chains_keep_the_laws(name: str) -> None:
    factory, check = CHAINS[name]
    check_strategy(factory, **check)


@pytest.mark.parametrize("factory", [noise, error_memory, reptile], ids=lambda factory: factory.__name__)
def test_strategies_of_the_hooks_without_an_example_keep_the_laws(factory: Any) -> None:
    """A key in `grads` with a report, a correction of `scores`, a `fit` inside an increment."""
    check_strategy(factory, **CHECKS[factory])


# -- planted defects ---------------------------------------------------------------------------------------------------


@variants(ewc, l2_to_last, mas)
def test_an_anchor_outside_the_state(factory: Any) -> None:
    def outside(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        kept: dict[str, Any] = {}

        def init(learner: Any) -> Any:
            kept["own"] = good.init(learner)
            return kept["own"]

        def loss(own: Any, params: Any, batch: Any, outputs: Any) -> Any:
            return good.loss(kept.get("own", own), params, batch, outputs)

        return good._replace(init=init, loss=loss)

    assert_rejected(factory, outside, "kept outside|always 0|is not 0")


@variants(ewc, l2_to_last, si, slow=True)
def test_an_anchor_of_the_first_increment_for_ever(factory: Any) -> None:
    def frozen(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        def end(own: Any, learner: Any, data: Any, key: Any) -> Any:
            new, learner = good.end(own, learner, data, key)
            return jax.tree.map(lambda a, b: jnp.where(data.increment == 0, a, b), new, own), learner

        return good._replace(end=end)

    assert_rejected(factory, frozen, "anchor does not move at the end of increment 1")


@variants(ewc, l2_to_last, si)
def test_a_penalty_that_is_always_0(factory: Any) -> None:
    def nothing(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        return good._replace(loss=lambda *arguments: 0.0 * good.loss(*arguments))

    assert_rejected(factory, nothing, "the penalty is always 0")


@variants(replay, agem, der)
def test_a_reservoir_that_favours_the_last_rows(factory: Any) -> None:
    def insert(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        def late(memory: Memory, rows: Any, key: Any) -> Memory:
            """A uniform slot for every row: an early row is overwritten again and again."""
            n = memory.inserted + jnp.cumsum(rows.valid) - 1
            capacity = buffer.capacity_of(memory)
            slot = jnp.where(n < capacity, n, jax.random.randint(key, n.shape, 0, capacity))
            return buffer.write(memory, rows, jnp.where(rows.valid, slot, capacity))

        def record(own: Any, step: Any, key: Any) -> Any:
            def swapped(old: Any, new: Any) -> Any:
                return late(old, step.new, key) if isinstance(old, Memory) else new

            new = good.record(own, step, key)
            changed = jax.tree.map(swapped, own, new, is_leaf=lambda leaf: isinstance(leaf, Memory))
            return jax.tree.map(lambda a, b: jnp.where(step.first_pass, a, b), changed, new)

        return good._replace(record=record)

    assert_rejected(factory, insert, "not uniform over the rows offered")


@variants(replay, der, agem, slow=True)
def test_a_reservoir_that_counts_epochs(factory: Any) -> None:
    def always(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        return good._replace(
            record=lambda own, step, key: good.record(own, step._replace(first_pass=jnp.array(True)), key)
        )

    assert_rejected(factory, always, "counts epochs|holds the same row twice")


@variants(replay, agem, der)
def test_a_reservoir_that_takes_a_windows_old_rows_again(factory: Any) -> None:
    def again(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        def record(own: Any, step: Any, key: Any) -> Any:
            return good.record(own, step._replace(before=jnp.int32(-1)), key)

        return good._replace(record=record)

    assert_rejected(factory, again, "under a sliding window old rows|counts epochs|holds the same row twice")


@variants(replay, ring_replay, exemplar_replay)
def test_appended_rows_that_weigh_by_how_full_the_batch_is(factory: Any) -> None:
    def by_fill(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        def batch(own: Any, batch: Any, key: Any) -> Any:
            whole, rows = good.batch(own, batch, key), len(batch.labels)
            full = jnp.where(batch.valid, batch.weight, 0.0).sum() / rows
            return whole._replace(weight=jnp.where(jnp.arange(len(whole.labels)) < rows, 1.0, full) * whole.weight)

        return good._replace(batch=batch)

    assert_rejected(factory, by_fill, "the rows that it appends weigh .* beside one")


@variants(ema, ewc, replay)
def test_a_view_under_which_nothing_is_learned(factory: Any) -> None:
    """The model sees what the strategy holds, in training too: no gradient reaches the weights."""

    def held(problem: Any, good: Strategy, _keys: Any) -> Strategy:
        del problem

        def view(own: Any, params: Any, increment: Any, training: bool) -> Any:
            seen = good.view(own, params, increment, False)
            return jax.lax.stop_gradient(seen) if training else seen

        return good._replace(view=view)

    assert_rejected(factory, held, "under it nothing is learned: in increment 1")


@variants(replay, ring_replay, exemplar_replay)
def test_draws_that_do_not_vary_with_the_key(factory: Any) -> None:
    def one_key(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        return good._replace(batch=lambda own, batch, _key: good.batch(own, batch, jax.random.key(0)))

    assert_rejected(factory, one_key, "the same rows whatever the key")


@variants(replay, ring_replay, der, slow=True)
def test_draws_that_favour_some_rows(factory: Any) -> None:
    def crowded(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        def batch(own: Any, batch: Any, key: Any) -> Any:
            """Rows as from two draws, of which the one with the smaller increment number is kept."""
            one, two = (good.batch(own, batch, jax.random.fold_in(key, i)) for i in range(2))
            first = one.increment <= two.increment

            def chosen(a: Any, b: Any) -> Any:
                return jnp.where(first.reshape(-1, *[1] * (a.ndim - 1)), a, b)

            rows = jax.tree.map(chosen, stored(one), stored(two))
            return one._replace(**{name: getattr(rows, name) for name in STORED})

        return good._replace(batch=batch)

    assert_rejected(factory, crowded, "draws are not uniform")


@variants(ewc, l2_to_last, si)
def test_a_python_if_on_a_float(factory: Any) -> None:
    def conditional(_problem: Any, good: Strategy, keys: Any) -> Strategy:
        return good if keys["weight"] else Strategy()

    assert_rejected(factory, conditional, "as in `if weight:`")


@variants(ewc, replay, lwf)
def test_a_shape_that_changes_at_the_boundary(factory: Any) -> None:
    def growing(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        def end(own: Any, learner: Any, data: Any, key: Any) -> Any:
            own, learner = good.end(own, learner, data, key)
            longer = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]) if leaf.ndim else leaf, own)
            return longer, learner

        return good._replace(end=end)

    assert_rejected(factory, growing, "shapes or dtypes change in `end`")


@pytest.mark.parametrize(
    "selection", ["herding", *(pytest.param(name, marks=pytest.mark.slow) for name in ("loss", "random"))]
)
def test_exemplars_that_exceed_their_quota(selection: str) -> None:
    def greedy(problem: Any, good: Strategy, keys: Any) -> Strategy:
        def end(own: Any, learner: Any, data: Any, key: Any) -> Any:
            """The memory is filled with rows in the order of their labels, whatever their quota."""
            own, learner = good.end(own, learner, data, key)
            order = jnp.argsort(jnp.where(data.rows.valid, data.rows.labels, 10**6), stable=True)
            number = int(keys["capacity"])
            place = order[:number]
            rows = jax.tree.map(lambda leaf: leaf[place], stored(data.rows))
            filled = jax.tree.map(
                lambda leaf: leaf._replace(rows=rows) if isinstance(leaf, Memory) else leaf,
                own,
                is_leaf=lambda leaf: isinstance(leaf, Memory),
            )
            return filled, learner

        del problem
        return good._replace(end=end)

    arguments = {**SMALL, "selection": selection}
    assert_rejected(exemplar_replay, greedy, "exceed the largest-remainder quotas", arguments=arguments)


@variants(ogd, low_rank_updates, gpm)
def test_a_projection_of_gradients_under_adam(factory: Any) -> None:
    def early(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        return good._replace(
            updates=Strategy().updates,
            grads=lambda own, grads, params, _grad_fn, _batch, _key: good.updates(own, grads, params),
        )

    assert_rejected(factory, early, "does not bind Adam")


@variants(lwf, feature_distillation, ader)
def test_a_teacher_that_receives_gradients(factory: Any) -> None:
    def taught(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        def loss(own: Any, params: Any, batch: Any, outputs: Any) -> Any:
            leaves = jax.tree.leaves(own, is_leaf=lambda leaf: isinstance(leaf, Teacher))
            (teacher,) = [leaf for leaf in leaves if isinstance(leaf, Teacher)]
            gap = jax.tree.map(lambda a, b: ((a - b) ** 2).sum(), teacher.params, params)
            return good.loss(own, params, batch, outputs) + 1e-3 * teacher.ready * sum(jax.tree.leaves(gap))

        return good._replace(loss=loss)

    assert_rejected(factory, taught, "the teacher receives gradients")


@variants(lwf, feature_distillation, ader, slow=True)
def test_a_teacher_that_follows_the_weights(factory: Any) -> None:
    def following(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        def record(own: Any, step: Any, key: Any) -> Any:
            def moved(leaf: Any) -> Any:
                if not isinstance(leaf, Teacher):
                    return leaf
                return leaf._replace(params=jax.tree.map(jnp.add, leaf.params, step.updates))

            own = good.record(own, step, key)
            return jax.tree.map(moved, own, is_leaf=lambda leaf: isinstance(leaf, Teacher))

        return good._replace(record=record)

    assert_rejected(factory, following, "teacher changes during increment")


@variants(replay, ring_replay, der)
def test_memory_rows_from_the_future(factory: Any) -> None:
    def early(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        def begin(own: Any, learner: Any, data: Any, key: Any) -> Any:
            own, learner = good.begin(own, learner, data, key)

            def offered(leaf: Any) -> Any:
                return reservoir.insert(leaf, data.rows, key) if isinstance(leaf, Memory) else leaf

            return jax.tree.map(offered, own, is_leaf=lambda leaf: isinstance(leaf, Memory)), learner

        return good._replace(begin=begin)

    assert_rejected(factory, early, "rows leak from the future")


@variants(replay, ring_replay, der, slow=True)
def test_renamed_ids_in_a_memory(factory: Any) -> None:
    def renamed(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        def record(own: Any, step: Any, key: Any) -> Any:
            _, place = jnp.unique(step.new.labels, size=len(step.new.labels), return_inverse=True)
            return good.record(own, step._replace(new=step.new._replace(labels=place.astype(jnp.int32))), key)

        return good._replace(record=record)

    assert_rejected(factory, renamed, "store catalogue ids")


def test_a_memory_that_forgets_owners() -> None:
    def nobodys(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        def record(own: Any, step: Any, key: Any) -> Any:
            return good.record(own, step._replace(new=step.new._replace(owner=0 * step.new.owner)), key)

        return good._replace(record=record)

    assert_rejected(replay, nobodys, r"a row otherwise than it came \(.*, owner 0 for .*, owner [1-9]")


def test_noise_that_is_drawn_outside() -> None:
    """Traced twice, it is another one: what a key gives is always the same."""

    def outside(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        numbers = itertools.count()

        def grads(own: Any, grads: Any, params: Any, grad_fn: Any, batch: Any, key: Any) -> Any:
            return good.grads(own, grads, params, grad_fn, batch, jax.random.fold_in(key, next(numbers)))

        return good._replace(grads=grads)

    assert_rejected(noise, outside, "its `grads` draws something else")


def test_a_report_that_is_not_finite() -> None:
    def spoilt(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        return good._replace(report=lambda norm: {"norm": jnp.log(norm - norm)})

    assert_rejected(noise, spoilt, "its report 'norm' is -inf")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda _good: lambda _own, scores, _inputs, _training: 1.0 * scores, "changes nothing in evaluation"),
        (
            lambda good: lambda own, scores, inputs, training: good(own, scores, inputs, training) - scores.mean(),
            "depends on the others in the batch",
        ),
    ],
    ids=["nothing", "by the batch"],
)
def test_a_correction_of_scores_that_is_none(broken: Any, message: str) -> None:
    def wrong(_problem: Any, good: Strategy, _keys: Any) -> Strategy:
        return good._replace(scores=broken(good.scores))

    assert_rejected(error_memory, wrong, message)


# -- the kit's own input -----------------------------------------------------------------------------------------------


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UserError, match=r"kind=.*'memories'.*expected of penalty, memory"):
        check_strategy(replay, kind="memories")  # type: ignore[arg-type]


def test_a_promise_of_a_memory_that_there_is_not_is_refused() -> None:
    """It would be checked for nothing."""
    with pytest.raises(UserError, match=r"keeps=\['uniforn'\]: expected of uniform, quota, other"):
        check_strategy(replay, kind="memory", keeps="uniforn")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"draws=\['quota'\]: expected of uniform, other"):
        check_strategy(replay, kind="memory", draws="quota")  # type: ignore[arg-type]


def test_an_argument_that_the_factory_does_not_take_is_refused() -> None:
    with pytest.raises(UserError, match="no parameters of the factory"):
        check_strategy(replay, arguments={"size": 3})


def test_all_broken_laws_are_told_at_once() -> None:
    def lazy(problem: Any) -> Strategy:
        del problem
        return Strategy()

    with pytest.raises(LawBroken, match=r"lazy breaks \d law\(s\)[^§]*does nothing[^§]*no `Memory`"):
        check_strategy(lazy, kind="memory")


def test_a_key_that_is_not_there_is_told_as_what_it_is() -> None:
    def mistyped(problem: Any) -> Strategy:
        del problem
        return Strategy(loss=lambda _state, params, _batch, _outputs: params["itms"]["embedding"].sum())

    (said,) = broken_laws(mistyped)
    assert said == "`run_epoch` fails: KeyError: 'itms'"
