"""The encoder's top layers inside a stream: closed forms against the whole encoder, and strategies on its weights."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.gradient import make, training
from incremental.core.optimizers import adam
from incremental.core.problem import Head, problem
from incremental.core.program import Program
from incremental.core.spec import Sizes, next_item
from incremental.core.tower import on_texts, reading
from incremental.core.types import Info, Problem, State, bytes_of
from incremental.data.encoded import states
from incremental.encoders.encode import encode
from incremental.encoders.load import load
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.heads.in_batch_softmax import in_batch_softmax
from incremental.models.encoder_items import encoder_items
from incremental.models.matrix_factorization import matrix_factorization
from incremental.strategies.ewc import ewc
from incremental.strategies.gpm import gpm
from incremental.strategies.lora_boundary import lora_boundary
from incremental.strategies.lwf import lwf
from incremental.strategies.replay import replay
from tests import lab
from tests.core.test_tower import two_kinds
from tests.encoders.conftest import Checkpoint, checkpoint  # noqa: F401

TITLES = ["", "lip balm", "red nail polish", "blue lip", "nail balm red lip"]
SIZES, L = Sizes(item=64, user=32), 6
LAYER = "tower/layer_1"


def text_of(folder: Path, titles: list[str], layers: int) -> Any:
    return states(path=str(folder), layers=layers, length=L, cache=str(folder / "cache"))(titles)


def of(folder: Path, text: Any, sizes: Sizes, head: Head, **settings: Any) -> Problem:
    model = encoder_items(model=matrix_factorization(width=4), path=str(folder), **settings)
    assert model.tower is not None
    return on_texts(problem(model, head, next_item(2), sizes), model.tower, text, "item")


@pytest.mark.parametrize("settings", [{"layers": 1}, {"layers": 2}, {"layers": 1, "rank": 2}])
def test_items_start_as_the_whole_encoder_has_them(checkpoint: Checkpoint, settings: dict[str, int]) -> None:  # noqa: F811
    folder = checkpoint("bert")
    text = text_of(folder, TITLES, settings["layers"])
    own = of(folder, text, Sizes(item=len(TITLES), user=3), full_softmax(), **settings)

    @jax.jit
    def made(key: Any) -> Any:
        params = own.init(key)
        return params, own.settle(params)

    params, settled = jax.device_get(made(jax.random.key(0)))
    whole = encode(load(folder), TITLES[1:], length=L, normalise=True)
    expected = whole @ params["tower"]["text"]["kernel"]
    np.testing.assert_allclose(settled["item"]["embedding"][1:], expected[:, :4], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(settled["item_bias"][1:], expected[:, 4], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(settled["item"]["embedding"][0], 0.0)
    layers = {f"layer_{i}" for i in range(2 - settings["layers"], 2)}
    assert set(params["tower"]) == {"text", *({"lora"} if "rank" in settings else layers)}


def test_rematerialised_layers_have_the_same_gradient(checkpoint: Checkpoint) -> None:  # noqa: F811
    folder = checkpoint("bert")
    text = text_of(folder, TITLES, 1)

    def gradient(remat: bool) -> Any:
        own = of(folder, text, Sizes(item=len(TITLES), user=3), full_softmax(), layers=1, remat=remat)
        return own, jax.grad(lambda params: (own.settle(params)["item"]["embedding"] ** 2).sum())

    (own, kept), (_, anew) = (gradient(remat) for remat in (False, True))
    params = jax.jit(own.init)(jax.random.key(0))
    traced = [jax.jit(each).trace(params) for each in (kept, anew)]
    lab.assert_close(*(each.lower().compile()(params) for each in traced), rtol=1e-4, atol=1e-6)
    assert ["remat" in str(each.jaxpr) for each in traced] == [False, True]


def test_adapters_are_added_to_query_and_value(checkpoint: Checkpoint) -> None:  # noqa: F811
    """As if the checkpoint had the moved kernels."""
    folder = checkpoint("bert")
    text = text_of(folder, TITLES, 1)
    sizes = Sizes(item=len(TITLES), user=3)
    adapted = of(folder, text, sizes, full_softmax(), layers=1, rank=2, alpha=6.0)
    trained = of(folder, text, sizes, full_softmax(), layers=1)
    params, moved = jax.device_get([jax.jit(each.init)(jax.random.key(0)) for each in (adapted, trained)])
    rng = np.random.default_rng(0)
    for part in ("query", "value"):
        pair = params["tower"]["lora"]["layer_1"][part]
        pair["b"] = rng.normal(size=(2, 8)).astype(np.float32)
        pair["merged"] = rng.normal(size=(8, 8)).astype(np.float32)  # as `lora_boundary` leaves it
        layer = moved["tower"]["layer_1"][part]
        layer["kernel"] = layer["kernel"] + 3.0 * (pair["a"] @ pair["b"] + pair["merged"])
    moved["tower"]["text"] = params["tower"]["text"]
    one, other = jax.jit(adapted.settle)(params), jax.jit(trained.settle)(moved)
    lab.assert_close(one["item"], other["item"], rtol=1e-4, atol=1e-5)


def program(folder: Path, text: Any, head: Head, parts: Any, rows: Any, **settings: Any) -> Program:
    def at(text: jax.Array) -> Program:
        steps = training(batch_size=32, epochs=2, patience=0, rows=rows)
        own = of(folder, text, SIZES, head, **settings)
        return make(own, adam(learning_rate=0.01), parts, sizes=SIZES, training=steps, cutoffs=(12,))

    return reading(
        lambda side: at(side["text"]), {"text": jax.ShapeDtypeStruct((SIZES.slots, *text.shape[1:]), jnp.float32)}
    )


def test_strategies_apply_to_its_layers_as_to_others(checkpoint: Checkpoint) -> None:  # noqa: F811
    folder = checkpoint("bert")
    events = two_kinds(lambda titles: text_of(folder, list(titles), 1))

    def parts(problem: Problem) -> dict[str, Any]:
        return {
            "replay": replay(problem, capacity=64, rows=8),
            "teacher": lwf(problem),
            "ewc": ewc(problem, weight=1.0, samples=16),
            "gpm": gpm(problem, rank=4, samples=16),
        }

    f = lab.functions(
        program(folder, events.interactions.side["text"].values, full_softmax(), parts, "dense", layers=1)
    )

    def updated(state: State, t: int) -> tuple[State, list[Info]]:
        data, _ = lab.update_data(events, f.program, t)
        state, epochs = f.begin(state, data), []
        for _ in range(2):
            state, info = f.run_epoch(state, data)
            epochs.append(jax.tree.map(np.array, info))
        return f.end(state, data), epochs

    state, _ = updated(f.init(jax.random.key(0)), 1)
    before = lab.on_host((state.learner.params, state.strategy))
    state, epochs = updated(state, 2)
    after = lab.on_host(state.learner.params)
    assert all(epoch.loss is not None and np.isfinite(epoch.loss) and epoch.terms["ewc"] > 0 for epoch in epochs)
    assert epochs[-1].terms["teacher"] != 0
    kernel = lambda tree: tree["tower"]["layer_1"]["inner"]["kernel"]  # noqa: E731
    fisher = next(leaf for leaf in jax.tree.leaves(before[1]["ewc"]) if np.shape(leaf) == kernel(after).shape)
    assert np.abs(fisher).max() > 0
    moved, basis = kernel(after) - kernel(before[0]), before[1]["gpm"].basis[f"{LAYER}/inner/kernel"]
    assert np.abs(moved).max() > 1e-4
    assert np.abs(basis).max() > 0
    np.testing.assert_allclose(basis.T @ moved, 0.0, atol=1e-5)


def test_adapters_learn_from_a_batchs_items_alone(checkpoint: Checkpoint) -> None:  # noqa: F811
    folder = checkpoint("bert")
    events = two_kinds(lambda titles: text_of(folder, list(titles), 1))
    parts = lambda problem: {"end": lora_boundary(problem), "memory": replay(problem, capacity=64, rows=8)}  # noqa: E731
    made = program(
        folder,
        events.interactions.side["text"].values,
        in_batch_softmax(),
        parts,
        "compact",
        layers=1,
        rank=2,
        merges=True,
    )
    result = lab.run(lambda _: made, events, metrics=("recall@12",), feed={"listed": True})
    params = result.state.learner.params["tower"]
    assert np.abs(params["lora"]["layer_1"]["query"]["merged"]).max() > 0
    np.testing.assert_array_equal(params["lora"]["layer_1"]["query"]["b"], 0.0)
    assert set(params) == {"lora", "text"}
    cold = [record.value for record in result.records if record.metric == "recall@12/cold_items"]
    assert min(cold) > 0.9  # the titles say the kind
    merged = [params["lora"]["layer_1"][part].pop("merged") for part in ("query", "value")]
    assert [leaf.shape for leaf in merged] == [(8, 8)] * 2
    assert bytes_of(params) < 4 * (2 * 2 * 8 * 2 + 8 * 5 + 1)  # nothing else


def test_what_does_not_fit_is_refused(checkpoint: Checkpoint) -> None:  # noqa: F811
    folder, mf = checkpoint("bert"), matrix_factorization(width=4)
    with pytest.raises(UserError, match=r"model\.layers=3: expected 1 to 2"):
        encoder_items(model=mf, path=str(folder), layers=3)
    with pytest.raises(UserError, match="encoder_items: rank=-1: expected a whole number >= 0"):
        encoder_items(model=mf, path=str(folder), rank=-1)
    with pytest.raises(UserError, match=r"model\.merges=true: without adapters nothing is merged"):
        encoder_items(model=mf, path=str(folder), merges=True)
    with pytest.raises(UserError, match="only encoders of BERT's build"):
        encoder_items(model=mf, path=str(checkpoint("gpt2")))
    with pytest.raises(UserError, match="states: length=0: expected a whole number >= 1"):
        states(path=str(folder), length=0)
