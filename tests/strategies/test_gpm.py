from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.leaves import kernels
from incremental.core.problem import problem
from incremental.core.spec import Sizes, next_item
from incremental.core.types import Batch, Catalogue, Data, Learner, Problem
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.models.gru4rec import gru4rec
from incremental.models.matrix_factorization import matrix_factorization
from incremental.models.sasrec import sasrec
from incremental.strategies.gpm import gpm, input_widths, widened
from incremental.testing import check_strategy
from tests import lab

IN, HIDDEN, OUT, SAMPLES = 5, 4, 3, 40
NONE: Any = None


def single(values: Any) -> Any:
    return np.asarray(values, np.float32)


EXAMPLE = Batch({"x": jax.ShapeDtypeStruct((IN,), np.float32)}, *[NONE] * 4)


def start(key: Any) -> Any:
    one, two = jax.random.split(key)
    return {
        "one": {"kernel": jax.random.normal(one, (IN, HIDDEN)), "bias": jnp.ones(HIDDEN)},
        "two": {"kernel": jax.random.normal(two, (HIDDEN, OUT)), "bias": jnp.ones(OUT)},
    }


def features(params: Any, inputs: Any) -> Any:
    hidden = inputs["x"] @ params["one"]["kernel"] + params["one"]["bias"]
    return {"one/kernel": inputs["x"], "two/kernel": jax.nn.relu(hidden)}


LAYERS = Problem(start, NONE, NONE, EXAMPLE, {}, NONE, features)
PARAMS = jax.jit(start)(jax.random.key(0))


def data(x: Any) -> Data:
    """These inputs, and a padding row that would take part visibly."""
    rows = single([*x, np.full(IN, 100.0)])
    size: Any = np.int32(len(x))
    return Data(Batch({"x": rows}, *[NONE] * 4), size, NONE, NONE, NONE)


class Jitted:
    """The strategy's functions, compiled."""

    def __init__(self, rank: int) -> None:
        learner = Learner(PARAMS, (), Catalogue(NONE, NONE, NONE), NONE)
        self.empty = jax.jit(lambda: gpm(LAYERS, rank=rank).init(learner))()

        @jax.jit
        def ended(state: Any, data: Any, threshold: Any, key: Any) -> Any:
            return gpm(LAYERS, threshold=threshold, rank=rank, samples=SAMPLES).end(state, learner, data, key)[0]

        self._ended = ended
        self.updates = jax.jit(lambda state, updates: gpm(LAYERS, rank=rank).updates(state, updates, NONE))

    def ended(self, state: Any, x: Any, threshold: float = 0.999, seed: int = 0) -> Any:
        return self._ended(state, data(x), np.float32(threshold), jax.random.key(seed))


@pytest.fixture(scope="module")
def wide() -> Jitted:
    return Jitted(rank=64)


@pytest.fixture(scope="module")
def plane() -> Any:
    """Inputs in a plane."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 2)) @ rng.normal(size=(2, IN))


def random_updates() -> Any:
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), PARAMS)


def test_an_update_leaves_what_past_inputs_meet(wide: Jitted, plane: Any) -> None:
    state = wide.ended(wide.empty, plane)
    assert int(state.used["one/kernel"]) == 2
    update = random_updates()
    new = wide.updates(state, update)
    np.testing.assert_allclose(plane @ new["one"]["kernel"], 0.0, atol=1e-4)
    q = np.asarray(state.basis["one/kernel"])
    assert q.shape == (IN, IN)  # a rank above the width is the width
    np.testing.assert_allclose(q.T @ q, np.diag([1.0, 1.0, 0, 0, 0]), atol=1e-5)
    # What is orthogonal to the past passes.
    away = np.linalg.svd(plane)[2][2:]
    np.testing.assert_allclose(away @ new["one"]["kernel"], away @ update["one"]["kernel"], atol=1e-4)
    for layer in ("one", "two"):
        np.testing.assert_array_equal(new[layer]["bias"], update[layer]["bias"])


def test_the_second_layer_keeps_its_own_space(wide: Jitted, plane: Any) -> None:
    state = wide.ended(wide.empty, plane, threshold=0.9)
    entered = np.asarray(features(PARAMS, {"x": single(plane)})["two/kernel"])
    new = np.asarray(wide.updates(state, random_updates())["two"]["kernel"])
    assert 0 < int(state.used["two/kernel"]) < HIDDEN
    before = np.linalg.norm(entered @ random_updates()["two"]["kernel"])
    assert np.linalg.norm(entered @ new) < 0.5 * before


def test_directions_are_taken_until_the_threshold_of_the_energy(wide: Jitted) -> None:
    # One input for each of four axes, drawn equally often by a lucky key: energies as 8 : 4 : 2 : 1.
    axes = np.eye(IN)[:4] * np.sqrt([8.0, 4.0, 2.0, 1.0])[:, None]
    share = drawn_shares(axes)
    for count in (1, 2, 3, 4):
        threshold = share[:count].sum() - 1e-3
        state = wide.ended(wide.empty, axes, threshold=threshold)
        assert int(state.used["one/kernel"]) == count
        q = np.abs(np.asarray(state.basis["one/kernel"]))
        np.testing.assert_allclose(q[:, :count], np.eye(IN)[:, np.argsort(-drawn_energy(axes))[:count]], atol=1e-4)


def drawn_energy(x: Any) -> Any:
    """Energy of each input among the draws, as `end` with seed 0 makes them."""
    index = jax.random.randint(jax.random.key(0), (SAMPLES,), 0, len(x))
    return np.bincount(np.asarray(index), minlength=len(x)) * (x**2).sum(1)


def drawn_shares(x: Any) -> Any:
    energy = np.sort(drawn_energy(x))[::-1]
    return energy / energy.sum()


def test_what_is_protected_already_counts(wide: Jitted) -> None:
    axes = np.eye(IN)
    state = wide.ended(wide.empty, axes[:1] * 3)
    again = wide.ended(state, axes[:1] * 2)
    assert int(again.used["one/kernel"]) == 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), again.basis, state.basis)
    grown = wide.ended(state, axes[:2])
    assert int(grown.used["one/kernel"]) == 2
    np.testing.assert_allclose(np.abs(np.asarray(grown.basis["one/kernel"]))[:, :2], axes[:, :2], atol=1e-5)
    few = wide.ended(state, np.array([axes[0] * 3, axes[1]]), threshold=0.5)  # 0.5 is met by what is there
    assert int(few.used["one/kernel"]) == 1


def test_a_faint_direction_beside_a_strong_one_is_taken_and_noise_is_not(wide: Jitted) -> None:
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(IN, IN)))[0]
    strong, faint = turn[:, 0], turn[:, 1]
    state = wide.ended(wide.empty, [30 * strong, -40 * strong], threshold=1.01)
    assert int(state.used["one/kernel"]) == 1
    state = wide.ended(state, [30 * strong + 0.2 * faint, 40 * strong - 0.3 * faint], threshold=1.01)
    assert int(state.used["one/kernel"]) == 2
    q = np.asarray(state.basis["one/kernel"], np.float64)[:, :2]
    np.testing.assert_allclose(q.T @ q, np.eye(2), atol=1e-5)


def test_faint_directions_stay_orthogonal_to_all_others_and_a_full_space_leaves_nothing_out() -> None:
    """Inputs whose energy spans six powers of ten, in other directions each increment."""
    rng, width = np.random.default_rng(0), 16
    q, used, left_out = jnp.zeros((width, width)), jnp.int32(0), jnp.int32(0)
    grow = jax.jit(widened)
    for _ in range(8):
        turn = np.linalg.qr(rng.normal(size=(width, width)))[0]
        x = (rng.normal(size=(64, width)) * 0.4 ** np.arange(width)) @ turn
        q, used, left_out = grow(q, used, left_out, single(x), 1.0)
        basis = np.asarray(q, np.float64)[:, : int(used)]
        np.testing.assert_allclose(basis.T @ basis, np.eye(int(used)), atol=1e-5)
    assert (int(used), int(left_out)) == (width, 0)


def test_directions_without_room_are_counted_and_left_out() -> None:
    narrow = Jitted(rank=3)
    state = narrow.ended(narrow.empty, np.eye(IN)[:2])
    assert (int(state.used["one/kernel"]), int(state.left_out["one/kernel"])) == (2, 0)
    state = narrow.ended(state, np.eye(IN)[2:] * np.array([[1.0], [5.0], [1.0]]))
    assert (int(state.used["one/kernel"]), int(state.left_out["one/kernel"])) == (3, 2)
    lost = sum(int(count) for count in state.left_out.values())
    assert int(gpm(LAYERS, rank=3).report(state)["left_out"]) == lost >= 2
    q = np.asarray(state.basis["one/kernel"])
    np.testing.assert_allclose(np.abs(q[:, 2]), np.eye(IN)[3], atol=1e-5)  # the strongest one found room


def test_before_the_first_end_nothing_changes(wide: Jitted) -> None:
    update = random_updates()
    jax.tree.map(np.testing.assert_array_equal, wide.updates(wide.empty, update), update)


def of(model: Any) -> Problem:
    return problem(model, full_softmax(), next_item(4), Sizes(item=16, user=16))


def test_every_dense_kernel_of_a_transformer_is_protected() -> None:
    own = of(sasrec(width=8, blocks=2))
    assert input_widths(own) == {path: shape[0] for path, shape in kernels(own).items()}
    assert len(input_widths(own)) == 10


def test_models_whose_kernels_have_no_readable_inputs_are_refused() -> None:
    with pytest.raises(UserError, match=r"gpm: the model has no dense kernel .* choose"):
        gpm(of(matrix_factorization(width=8)))
    with pytest.raises(UserError, match=r"gpm: .* inside a scan .* choose"):
        gpm(of(gru4rec(width=8)))


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"samples": 0}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"gpm: (rank|samples)=0: expected a whole number >= 1"):
        gpm(LAYERS, **wrong)


def test_the_laws_of_strategies() -> None:
    check_strategy(gpm, kind="projection", arguments={"rank": 6, "samples": 16}, model=lab.dense())
