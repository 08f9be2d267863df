"""A guest: a third kind of id (category) with a growing table, a feature from the log, and a model that reads both."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

import incremental as inc
from incremental.core.problem import LABELS
from incremental.core.sharding import devices, over
from incremental.data.features import Examples, history
from incremental.data.interactions import Interactions
from incremental.run.feed import Capacities
from tests import lab

TABLES = {"category/embedding": "category", "item/embedding": LABELS}


class Categories(nn.Module):
    """The mean of the categories' rows in the past, weighed by how much of it there is."""

    sizes: inc.Sizes

    def setup(self) -> None:
        self.category = nn.Embed(self.sizes["category"], 8)
        self.item = nn.Embed(self.sizes.slots, 8)

    def __call__(self, inputs: dict[str, jax.Array], key: Any) -> jax.Array:
        del key
        real = (inputs["categories"] > 0)[:, :, None]
        mean = (self.category(inputs["categories"]) * real).sum(1) / jnp.maximum(real.sum(1), 1)
        return mean * (1.0 + inputs["busy"][:, None])

    def items(self) -> tuple[jax.Array, jax.Array]:
        return self.item.embedding, jnp.zeros(self.sizes.slots)


def busy() -> inc.Feature:
    """The share of the last L places that the user's past fills: computed from the log."""

    def of(log: Interactions, examples: Examples) -> np.ndarray:
        del log
        return (examples.past >= 0).mean(1, dtype=np.float32)

    return inc.Feature(inc.Input((), np.dtype(np.float32)), of, past="read")


def stream() -> Any:
    """Categories are born with the items: an item's is its number's tens."""
    table = lab.simulated()
    column = (pl.col("item").cast(pl.Int64) // 2).cast(pl.String).alias("category")
    table = table._replace(frame=table.frame.with_columns(column), kinds=("category",))
    features = {"categories": history(length=lab.HISTORY, kind="category"), "busy": busy()}
    return lab.stream(table, parts=2, features=features)  # the tables grow once


def build(rows: Any) -> Any:
    model = inc.Model(lambda sizes, _: Categories(sizes), ("categories", "busy"), TABLES)

    def program(sizes: inc.Sizes) -> inc.Program:
        own = inc.problem(model, inc.sampled_softmax(negatives=8), stream().spec, sizes)
        steps = inc.training(batch_size=32, epochs=2, patience=0, rows=rows)
        parts = {"memory": inc.replay(own, capacity=64, rows=8)}
        return inc.make(own, inc.sgd(learning_rate=0.5), parts, sizes=sizes, training=steps, cutoffs=(10,))

    return program


def ran(program: Any, least: int = 8) -> Any:
    return lab.run(program, stream(), feed={"capacities": Capacities(table=least)})


def corner(larger: Any, smaller: Any) -> Any:
    """The rows of larger tables that the smaller ones have."""
    return jax.tree.map(lambda a, b: np.asarray(a)[: len(b)], larger, smaller)


@pytest.fixture(scope="module")
def dense() -> Any:
    return ran(build("dense"))


def test_its_table_grows_with_the_categories(dense: Any) -> None:
    log = stream().interactions
    first, last = (len(np.unique(log.ids("category")[:n])) for n in (stream().bounds(0)[1], len(log)))
    assert first < last == len(log.vocabulary("category")) - 1
    table = dense.state.learner.params["category"]["embedding"]
    assert dense.sizes["category"] == len(table) > last
    assert np.asarray(dense.state.learner.catalogue.arrived["category"]).sum() == last


def test_compact_rows_do_what_whole_tables_do(dense: Any) -> None:
    """A batch touches few of the categories; SGD leaves the others alone. Tables with all their rows at once do what
    those do that grew."""
    compact, grown = ran(build("compact"), 128).state.learner.params, dense.state.learner.params
    lab.assert_close(corner(compact, grown), grown, rtol=1e-4, atol=1e-5)


def test_two_devices_do_what_one_does(dense: Any) -> None:
    """Where the tables have all their rows at once as where they grew."""
    both = ran(over(build("dense"), devices(batch=1, rows=2), tuple(TABLES)), 128).state.learner.params
    assert not both["category"]["embedding"].sharding.is_fully_replicated
    grown = dense.state.learner.params
    lab.assert_close(corner(both, grown), grown, rtol=1e-3, atol=1e-4)


def test_what_the_data_lacks_is_named() -> None:
    model = inc.Model(lambda sizes, _: Categories(sizes), ("categories", "busy"), TABLES)
    plain = lab.stream()
    with pytest.raises(inc.UserError, match=r"it reads 'categories', which the data's examples do not hold; they hold"):
        inc.problem(model, inc.full_softmax(), plain.spec, lab.sizes_at(plain, 0))
