"""An encoder that reads titles' tokens for a behaviour: closed forms against the whole one, and runs."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
import pytest

from incremental.app.assemble import assemble
from incremental.core.gradient import make, training
from incremental.core.optimizers import adam
from incremental.core.precision import Precision
from incremental.core.problem import problem
from incremental.core.program import Program
from incremental.core.spec import Input, Sizes, Spec
from incremental.core.types import Problem
from incremental.data.interactions import Table
from incremental.data.stream import Stream, make_stream
from incremental.data.task import behaviour as predict
from incremental.data.tokens import tokens
from incremental.encoders.load import load
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.models.encoder_behaviour import encoder_behaviour
from incremental.run.feed import Capacities, Feed
from incremental.strategies.ewc import ewc
from incremental.strategies.gpm import gpm
from incremental.strategies.lora_boundary import lora_boundary
from incremental.strategies.lwf import lwf
from incremental.strategies.replay import replay
from tests import lab
from tests.encoders.conftest import WORDS, Checkpoint, checkpoint  # noqa: F401
from tests.loopless import classified
from tests.test_configs import composed

KINDS, COLOURS, L = ("lip", "nail"), ("red", "blue"), 4
ID = {word: i + 1 for i, word in enumerate(WORDS)}  # as rows have them


def row(*words: str, length: int) -> list[int]:
    return [ID[word] for word in words] + [0] * (length - len(words))


def shop(folder: Path, **chosen: Any) -> Stream:
    """Who asks for red, buys; others view."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 20, 360), rng.integers(0, 4, 360)
    titles = {f"i{i}": f"{COLOURS[i % 2]} {KINDS[i // 2]}" for i in range(4)}
    frame = pl.DataFrame(
        {
            "user": [f"u{i}" for i in user],
            "item": [f"i{i}" for i in item],
            "time": range(360),
            "behaviour": [("buy", "view")[i % 2] for i in item],
        }
    )
    return make_stream(
        **{
            "source": Table(frame, "shop", titles),
            "cut": lambda events: ((np.arange(len(events)) // 120).astype(np.int32), ()),
            "history": 2,
            "text": tokens(path=str(folder), length=L),
            "task": predict(),
            **chosen,
        }
    )


def test_a_row_holds_the_titles_one_behind_the_other(checkpoint: Checkpoint) -> None:  # noqa: F811
    stream = shop(checkpoint("bert"), heldout=0.0, validation=0.0)
    rows = stream.training_examples([0], validation=False, inputs=("tokens",))
    titles = [f"{COLOURS[int(name[1]) % 2]} {KINDS[int(name[1]) // 2]}" for name in raw_items()]
    last: dict[int, list[str]] = {}
    for user, title, found in zip(
        rows.user, titles, stream.features["tokens"].of(stream.interactions, rows), strict=True
    ):
        before = last.setdefault(user, [])
        said = ["[CLS]", *title.split(), "[SEP]"]
        for each in before[:-3:-1]:
            said += [*each.split(), "[SEP]"]
        assert found.tolist() == row(*said, length=3 * L)
        before.append(title)


def raw_items() -> list[str]:
    """The items of the stream's events in the base part, as `shop` draws them."""
    rng = np.random.default_rng(0)
    rng.integers(0, 20, 360)
    return [f"i{i}" for i in rng.integers(0, 4, 360)[:120]]


def test_a_title_is_cut_and_one_without_words_has_no_tokens(checkpoint: Checkpoint) -> None:  # noqa: F811
    made = tokens(path=str(checkpoint("bert")), length=L)(["red lip balm", " ", "nail"])
    assert made.dtype == np.int32
    wanted = [row("[CLS]", "red", "lip", "[SEP]", length=L), [0] * L, row("[CLS]", "nail", "[SEP]", length=L)]
    assert made.tolist() == wanted
    with pytest.raises(UserError, match="length=0: expected a whole number >= 1"):
        tokens(path="nowhere", length=0)
    with pytest.raises(UserError, match=r"data\.text: the title of item 1: .* is not UTF-8"):
        tokens(path=str(checkpoint("distilbert")))(["", "red \udcff"])


SIZES, PARTS = (
    Sizes(labels="behaviour", behaviour=3, item=9, user=8),
    ("query", "key", "value", "output", "inner", "outer"),
)
SETTINGS: list[dict[str, Any]] = [{"layers": 1}, {"layers": 2}, {"layers": 1, "rank": 2}]


SPEC = Spec({"tokens": Input((3 * L,), np.dtype(np.int32), "token")}, "behaviour", ("item", "user", "behaviour"))


def of(folder: Path, precision: Precision = "float32", sizes: Sizes = SIZES, **settings: Any) -> Problem:
    model = encoder_behaviour(path=str(folder), tokens=3 * L, dropout=0.0, **settings)
    return problem(model, full_softmax(), SPEC, sizes, precision=precision)


def batch() -> dict[str, Any]:
    said = row("[CLS]", "red", "lip", "[SEP]", "nail", "[SEP]", length=3 * L)
    return {"tokens": np.array([said, row("[CLS]", "blue", "[SEP]", length=3 * L), [0] * (3 * L)], np.int32)}


@pytest.mark.parametrize(
    ("family", "settings"), [*(("bert", settings) for settings in SETTINGS), ("roberta", SETTINGS[0])]
)
def test_it_starts_as_the_whole_encoder(family: str, settings: dict[str, Any], checkpoint: Checkpoint) -> None:  # noqa: F811
    folder = checkpoint(family)
    own = of(folder, **settings)
    key = jax.random.key(0)
    params, out = jax.jit(lambda key: (params := own.init(key), own.apply(params, batch())))(key)
    layers = {f"layer_{i}" for i in range(2 - settings["layers"], 2)}
    assert set(params) == {"item", "item_bias", *({"lora"} if "rank" in settings else layers)}
    dense = {f"{layer}/{part}/kernel" for layer in layers for part in PARTS}
    assert set(jax.eval_shape(own.features, params, batch())) == (set() if "rank" in settings else dense)
    encoder = load(folder)
    ids = batch()["tokens"]
    mask = ids > 0

    @jax.jit
    def whole(weights: Any) -> Any:
        return encoder.pool(encoder.module.apply({"params": weights}, np.maximum(ids - 1, 0), mask), mask)

    hidden, scores, table = map(np.asarray, (out.hidden, out.scores, params["item"]["embedding"]))
    np.testing.assert_allclose(hidden, whole(encoder.params), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(hidden[2], 0.0)
    np.testing.assert_allclose(scores, hidden @ table.T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS[1:])
def test_gradients_are_the_same_when_layers_are_computed_anew(
    settings: dict[str, Any],
    checkpoint: Checkpoint,  # noqa: F811
) -> None:
    folder = checkpoint("bert")

    def gradient(remat: bool, precision: Precision = "float32") -> Any:
        own = of(folder, precision, remat=remat, **settings)
        loss = jax.grad(lambda params: (own.apply(params, batch()).hidden[:, :4] ** 3).sum())
        traced = jax.jit(loss).trace(params)
        return jax.device_get(traced.lower().compile()(params)), str(traced.jaxpr)

    params = jax.device_get(jax.jit(of(folder, **settings).init)(jax.random.key(0)))
    if "rank" in settings:  # the gradient of A is 0 where B is
        params["lora"]["layer_1"]["query"]["b"] = np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32)
    (kept, plain), (anew, again), (low, rounded) = gradient(False), gradient(True), gradient(False, "bfloat16")
    lab.assert_close(kept, anew, rtol=1e-4, atol=1e-5)
    assert ["remat" in each for each in (plain, again)] == [False, True]
    assert "bf16" in rounded
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(low))
    one, other = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in (kept, low))
    assert float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)) > 0.95
    assert not np.allclose(one, other, rtol=1e-4)


EPOCHS = 30


def build(sizes: Sizes, folder: Path, **settings: Any) -> Program:
    own = of(folder, sizes=sizes, **settings)
    parts: dict[str, Any] = {"memory": replay(own, capacity=32, rows=8)}
    if settings.get("rank"):
        parts["end"] = lora_boundary(own)
    else:
        parts |= {
            "anchor": ewc(own, weight=1.0, samples=16),
            "teacher": lwf(own),
            "basis": gpm(own, rank=2, samples=16),
        }
    steps = training(batch_size=24, epochs=EPOCHS, patience=0)
    return make(own, adam(learning_rate=0.01), parts, sizes=sizes, training=steps, cutoffs=(1,))


ROOM = Capacities(table=32, examples=128)


def assert_rows_are_kept(state: Any) -> None:
    """The memory's: of tokens."""
    kept = np.asarray(state.strategy["memory"].rows.inputs["tokens"])
    assert kept.dtype == np.int32
    assert kept.shape == (32, 3 * L)
    assert (kept[:, 0] == ID["[CLS]"]).all()


def test_it_learns_from_the_stream_with_adapters_that_are_merged(checkpoint: Checkpoint) -> None:  # noqa: F811
    folder = checkpoint("bert")
    made = partial(build, folder=folder, layers=1, rank=4, merges=True)
    state, accuracy = classified(made, shop(folder), EPOCHS, capacities=ROOM)
    assert accuracy > 0.95
    assert_rows_are_kept(state)
    query = state.learner.params["lora"]["layer_1"]["query"]
    assert np.abs(query["merged"]).max() > 0
    np.testing.assert_array_equal(query["b"], 0.0)


def test_it_learns_under_strategies_on_its_layers(checkpoint: Checkpoint) -> None:  # noqa: F811
    folder = checkpoint("bert")
    state, accuracy = classified(partial(build, folder=folder, layers=1), shop(folder), EPOCHS, capacities=ROOM)
    assert accuracy > 0.95
    assert_rows_are_kept(state)
    assert np.abs(state.strategy["basis"].basis["layer_1/inner/kernel"]).max() > 0


def test_frozen_weights_are_arguments_of_the_compiled_functions(checkpoint: Checkpoint) -> None:  # noqa: F811
    """And no constants in them, which every compiled program would hold once more."""
    folder = checkpoint("bert")
    chosen = [f"model.path={folder}", f"model.tokens={3 * L}", f"data.text.path={folder}", f"data.text.length={L}"]
    named = ["experiment=behaviour", "data.source.events=800", "data.history=2", "text@data.text=tokens"]
    parts = assemble(composed(*named, "model=encoder_behaviour", *chosen))
    feed = Feed(parts.stream)
    program = parts.build(feed.sizes(0))
    data = feed.update(program, 0, parts.update.plan(0, [], {}, 0), jax.device_put).data
    frozen = sum(np.size(leaf) for leaf in jax.tree.leaves(data.side["frozen"]))
    state = jax.eval_shape(program.init, jax.random.key(0))
    constants = jax.make_jaxpr(program.run_epoch)(state, data).consts
    assert frozen > 4 * sum(np.size(constant) for constant in constants)


def test_what_does_not_fit_is_refused(checkpoint: Checkpoint) -> None:  # noqa: F811
    folder = checkpoint("bert")
    positions = load(folder).config.positions
    with pytest.raises(UserError, match=rf"model\.tokens={positions + 1}: expected 1 to {positions}"):
        encoder_behaviour(path=str(folder), tokens=positions + 1)
    named = ["experiment=behaviour", "data.source.events=500"]
    reader = [*named, "model=encoder_behaviour", f"model.path={folder}"]
    with pytest.raises(
        UserError, match=r"it reads 'tokens', which the data's examples do not hold; they hold .*past, asked"
    ):
        assemble(composed(*reader, "model.tokens=10"))
    with pytest.raises(UserError, match=r"it reads 'tokens' of shape \[10\], the data makes \[15\]"):
        assemble(composed(*reader, "model.tokens=10", "text@data.text=tokens", "data.text.length=3"))
    with pytest.raises(UserError, match=r"it reads 'past', which the data's examples do not hold; they hold .*tokens"):
        assemble(composed(*named, "text@data.text=tokens", f"data.text.path={folder}", "data.text.length=3"))
    with pytest.raises(UserError, match="it reads 'tokens', which the data's examples do not hold"):
        problem(
            encoder_behaviour(path=str(folder), tokens=3 * L),
            full_softmax(),
            lab.stream().spec,
            lab.sizes_at(lab.stream(), 1),
        )
