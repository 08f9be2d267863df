from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.strategy import Strategy, books, chain, named_key
from incremental.core.types import Batch, Learner, Step
from incremental.errors import UserError

ANY: Any = None
PARAMS = {"w": np.arange(3, dtype=np.float32)}
BATCH = Batch({}, ANY, ANY, ANY, ANY)


def writer(digit: float) -> Strategy:
    """Appends a digit to every noun, so that the order of two writers can be read off; keeps what it drew."""

    def append(value: Any) -> Any:
        return jax.tree.map(lambda leaf: 10 * leaf + digit, value)

    def draw(state: Any, learner: Any, _data: Any, key: Any) -> Any:
        return {**state, "draw": jax.random.uniform(key)}, learner._replace(params=append(learner.params))

    return Strategy(
        init=lambda _learner: {"digit": jnp.float32(digit), "draw": jnp.float32(0.0)},
        begin=draw,
        batch=lambda _state, batch, key: batch._replace(
            labels=append(batch.labels), memory=(batch.memory, jax.random.uniform(key))
        ),
        view=lambda _state, params, _increment, _training: append(params),
        loss=lambda state, _params, _batch, _outputs: state["digit"],
        scores=lambda _state, scores, _inputs, _training: append(scores),
        grads=lambda _state, grads, _params, _grad_fn, _batch, _key: append(grads),
        updates=lambda _state, updates, _params: append(updates),
        record=lambda state, _step, key: {**state, "draw": jax.random.uniform(key)},
        end=draw,
        prepare=lambda state, _learner, _data, key: {**state, "draw": jax.random.uniform(key)},
    )


def stepped(batch: Any) -> Step:
    return Step(batch, *[ANY] * 7)


def used(strategy: Strategy, increment: int = 1) -> dict[str, Any]:
    """What every hook of a strategy returns, under jit."""

    @jax.jit
    def call(key: Any, increment: Any) -> Any:
        state = strategy.init(ANY)
        learner = Learner(jnp.float32(0.0), (), ANY, increment)
        zeros = {"w": jnp.zeros(2)}
        batch = strategy.batch(state, BATCH._replace(labels=jnp.zeros(2)), key)
        return {
            "begin": strategy.begin(state, learner, ANY, key),
            "batch": batch,
            "view": strategy.view(state, zeros, increment, True),
            "tested": strategy.view(state, zeros, increment, False),
            "loss": strategy.loss(state, zeros, batch, ANY),
            "grads": strategy.grads(state, zeros, zeros, ANY, batch, key),
            "updates": strategy.updates(state, zeros, zeros),
            "scores": strategy.scores(state, zeros, {}, False),  # type: ignore[arg-type]
            "record": strategy.record(state, stepped(batch), key),
            "end": strategy.end(state, learner, ANY, key),
            "prepare": strategy.prepare(state, learner, ANY, key),
        }

    answer: dict[str, Any] = jax.tree.map(np.asarray, call(jax.random.key(0), jnp.int32(increment)))
    return answer


@pytest.fixture(scope="module")
def pair() -> dict[str, Any]:
    return used(chain(one=writer(1), two=writer(2)))


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return used(chain(two=writer(2)))


def test_nouns_pass_through_the_parts_in_order(pair: dict[str, Any]) -> None:
    for noun in ("view", "tested", "grads", "updates", "scores"):
        np.testing.assert_array_equal(pair[noun]["w"], 12.0)
    np.testing.assert_array_equal(pair["batch"].labels, 12.0)
    assert pair["begin"][1].params == pair["end"][1].params == 12.0


def test_in_the_base_part_books_are_kept_and_nothing_is_changed() -> None:
    """`books` is what its steps have; `begin`, `end` and the tested parameters look at the increment."""
    parts = {"one": writer(1), "early": writer(2)._replace(early=True)}
    base, steps = used(chain(**parts), 0), used(chain(**{name: books(part) for name, part in parts.items()}), 0)
    assert base["begin"][1].params == base["end"][1].params == 2.0  # what the early one wrote
    np.testing.assert_array_equal(base["tested"]["w"], 2.0)
    for noun in ("view", "grads", "updates", "scores"):
        np.testing.assert_array_equal(steps[noun]["w"], 2.0)
    np.testing.assert_array_equal(steps["batch"].labels, 2.0)
    assert steps["loss"] == {"early": 2.0}
    assert {name: bool(own["draw"] > 0.0) for name, own in steps["prepare"].items()} == {"one": False, "early": True}
    for states in (base["begin"][0], steps["record"], base["end"][0]):
        assert all(own["draw"] > 0.0 for own in states.values())


def test_a_late_part_records_nothing_in_the_base_part() -> None:
    late = writer(1)._replace(late=True)
    parts = {"late": late, "other": writer(2)}
    books_of = chain(**{name: books(part) for name, part in parts.items()})
    recorded = used(books_of, 0)["record"]
    assert recorded["late"]["draw"] == 0.0 < recorded["other"]["draw"]
    assert chain(one=late, two=Strategy()).late
    assert not chain(**parts).late


def test_what_a_view_adds_stays_in_the_base_part() -> None:
    adding = Strategy(view=lambda _state, params, _increment, _training: {"w": 2 * params["w"], "more": params["w"]})
    viewed = chain(adding=adding).view({"adding": ()}, PARAMS, jnp.int32(0), False)
    np.testing.assert_array_equal(viewed["w"], PARAMS["w"])
    np.testing.assert_array_equal(viewed["more"], PARAMS["w"])


def test_each_part_keeps_its_own_state(pair: dict[str, Any]) -> None:
    for states in (pair["begin"][0], pair["record"], pair["end"][0]):
        assert {name: float(own["digit"]) for name, own in states.items()} == {"one": 1.0, "two": 2.0}


def test_loss_terms_go_by_name(pair: dict[str, Any]) -> None:
    assert pair["loss"] == {"one": 1.0, "two": 2.0}
    assert chain(quiet=Strategy()).loss(chain(quiet=Strategy()).init(ANY), PARAMS, BATCH, ANY) == {}


def test_adding_a_strategy_leaves_the_others_draws_alone(pair: dict[str, Any], alone: dict[str, Any]) -> None:
    for hook in ("begin", "end"):
        assert pair[hook][0]["two"]["draw"] == alone[hook][0]["two"]["draw"]
    for hook in ("prepare", "record"):
        assert pair[hook]["two"]["draw"] == alone[hook]["two"]["draw"]
    assert pair["batch"].memory["two"] == alone["batch"].memory["two"]


def test_parts_draw_apart(pair: dict[str, Any]) -> None:
    for states in (pair["begin"][0], pair["prepare"], pair["record"], pair["end"][0]):
        assert states["one"]["draw"] != states["two"]["draw"]
    assert pair["batch"].memory["one"] != pair["batch"].memory["two"]


def noisy() -> Strategy:
    """Adds what it draws to the gradient."""

    def grads(_state: Any, grads: Any, _params: Any, _grad_fn: Any, _batch: Any, key: Any) -> Any:
        return {"w": grads["w"] + jax.random.uniform(key, (3,))}

    return Strategy(grads=grads)


def test_draws_in_gradients_are_a_parts_own() -> None:
    """Company that draws and changes nothing leaves them alone; two parts draw apart."""

    def chosen(**parts: Strategy) -> np.ndarray:
        batch = BATCH._replace(memory=dict.fromkeys(parts))
        states, zeros = dict.fromkeys(parts, ()), {"w": jnp.zeros(3)}
        return np.asarray(chain(**parts).grads(states, zeros, zeros, ANY, batch, jax.random.key(0))["w"])

    quiet = Strategy(grads=lambda _s, grads, _p, _f, _b, key: {"w": grads["w"] + 0.0 * jax.random.uniform(key, (3,))})
    alone, other = chosen(one=noisy()), chosen(two=noisy())
    np.testing.assert_array_equal(chosen(two=quiet, one=noisy()), alone)
    np.testing.assert_array_equal(chosen(one=noisy(), two=quiet), alone)
    np.testing.assert_allclose(chosen(one=noisy(), two=noisy()), alone + other, rtol=1e-6)
    assert (alone != other).all()


def test_a_part_finds_in_the_batch_what_it_left_there_itself() -> None:
    def leaves(digit: int) -> Strategy:
        return Strategy(
            batch=lambda _state, batch, _key: batch._replace(memory=digit),
            loss=lambda _state, _params, batch, _outputs: jnp.float32(batch.memory),
            grads=lambda _state, grads, _params, _grad_fn, batch, _key: {"w": 10 * grads["w"] + batch.memory},
            record=lambda _state, step, _key: step.batch.memory,
        )

    strategy, state, key = chain(one=leaves(1), two=leaves(2)), {"one": (), "two": ()}, jax.random.key(0)
    batch = strategy.batch(state, BATCH, key)
    assert strategy.loss(state, PARAMS, batch, ANY) == {"one": 1, "two": 2}
    assert strategy.grads(state, {"w": jnp.zeros(1)}, PARAMS, ANY, batch, key) == {"w": 12}
    assert strategy.record(state, stepped(batch), key) == {"one": 1, "two": 2}


def test_a_key_depends_on_the_name_alone() -> None:
    key = jax.random.key(7)
    drawn = {name: float(jax.random.uniform(named_key(key, name))) for name in ("replay", "ewc", "ewd", "")}
    assert len(set(drawn.values())) == len(drawn)
    assert drawn["ewc"] == float(jax.random.uniform(named_key(key, "ewc")))


def test_the_empty_chain_and_the_empty_strategy_change_nothing() -> None:
    key, learner = jax.random.key(0), Learner(ANY, ANY, ANY, ANY)
    for strategy in (Strategy(), chain(), chain(quiet=Strategy())):
        state = strategy.init(learner)
        assert strategy.begin(state, learner, ANY, key) == (state, learner)
        assert strategy.prepare(state, learner, ANY, key) == state
        batch = strategy.batch(state, BATCH, key)
        assert batch._replace(memory=BATCH.memory) == BATCH
        assert strategy.view(state, PARAMS, ANY, True) is PARAMS
        assert sum(jax.tree.leaves(strategy.loss(state, PARAMS, batch, ANY))) == 0
        assert strategy.grads(state, PARAMS, ANY, ANY, batch, key) is PARAMS
        assert strategy.updates(state, PARAMS, ANY) is PARAMS
        assert strategy.scores(state, ANY, {}, False) is ANY
        assert strategy.record(state, stepped(batch), key) == state
        assert strategy.end(state, learner, ANY, key) == (state, learner)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"loss": lambda _state, _params: 0.0}, r"hook `loss` must take \(S, params, batch, outputs\): too many"),
        (
            {"loss": lambda _state, _params, _batch, _outputs, fit: 0.0 if fit else 1.0},
            r"hook `loss` must take \(S, params, batch, outputs\): missing a required argument: 'fit'",
        ),
        ({"end": None}, r"hook `end` is None: expected a function of \(S, learner, data, key\)"),
    ],
)
def test_a_hook_that_cannot_be_called_is_refused_by_name(broken: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=r"strategies\.mine: the " + message):
        chain(mine=Strategy(**broken))


def test_what_is_no_strategy_is_refused_by_name() -> None:
    factory: Any = used
    with pytest.raises(UserError, match=r"strategies\.ewc: expected a Strategy, got function.*takes the problem"):
        chain(ewc=factory)


@pytest.mark.parametrize("hook", ["begin", "end"])
@pytest.mark.parametrize("returned", [jnp.zeros(2), (jnp.zeros(2), jnp.zeros(2))], ids=["state", "pair"])
def test_a_hook_that_returns_no_learner_is_refused_by_name(hook: str, returned: Any) -> None:
    hooks: dict[str, Any] = {hook: lambda *_: returned}
    learner = Learner(jnp.float32(0.0), (), ANY, jnp.int32(1))
    with pytest.raises(UserError, match=rf"strategies\.mine: the hook `{hook}` returned .*expected \(S, learner\)"):
        getattr(chain(mine=Strategy(**hooks)), hook)({"mine": ()}, learner, ANY, jax.random.key(0))


@pytest.mark.parametrize(
    ("hook", "returned", "message"),
    [
        ("batch", ((), BATCH), r"`batch` returned tuple, expected the Batch that it was given"),
        ("grads", {"w": jnp.zeros(3)}, r"`grads` returned shape \[3\] at \['w'\], where it was given shape \[2\]"),
        ("updates", None, r"`updates` returned nothing at \['w'\], where it was given shape \[2\]"),
        ("scores", jnp.zeros(2), r"`scores` returned shape \[2\], where it was given shape \[2, 3\]"),
    ],
)
def test_a_hook_that_returns_another_noun_is_refused_by_name(hook: str, returned: Any, message: str) -> None:
    hooks: dict[str, Any] = {hook: lambda *_: returned}
    strategy, state, weights, key = chain(mine=Strategy(**hooks)), {"mine": ()}, {"w": jnp.zeros(2)}, jax.random.key(0)
    calls: dict[str, Any] = {
        "batch": lambda: strategy.batch(state, BATCH, key),
        "grads": lambda: strategy.grads(state, weights, weights, ANY, BATCH._replace(memory={"mine": None}), key),
        "updates": lambda: strategy.updates(state, weights, weights),
        "scores": lambda: strategy.scores(state, jnp.zeros((2, 3)), {}, False),
    }
    with pytest.raises(UserError, match=r"strategies\.mine: the hook " + message):
        calls[hook]()


def test_a_learner_of_other_shapes_and_a_state_that_is_no_array_are_refused_by_name() -> None:
    learner = Learner({"w": jnp.zeros((4, 2))}, (), ANY, jnp.int32(1))
    cut = Strategy(end=lambda S, given, *_: (S, given._replace(params={"w": given.params["w"][:1]})))
    with pytest.raises(UserError, match=r"hook `end` returned shape \[1, 2\] at \.params\['w'\], where .* \[4, 2\]"):
        chain(mine=cut).end({"mine": ()}, learner, ANY, jax.random.key(0))
    with pytest.raises(UserError, match=r"strategies\.mine: the hook `init` gives 'abc', expected arrays and numbers"):
        chain(mine=Strategy(init=lambda _: {"word": "abc"})).init(learner)


def test_a_loss_that_is_no_scalar_is_refused_by_name() -> None:
    strategy = chain(mine=Strategy(loss=lambda *_: jnp.zeros(3)))
    batch = BATCH._replace(memory={"mine": None})
    with pytest.raises(UserError, match=r"strategies\.mine: the hook `loss` gives shape \[3\], expected a scalar"):
        strategy.loss({"mine": ()}, {}, batch, ANY)
