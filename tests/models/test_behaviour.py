"""Behaviour prediction, from the layer to a run with strategies."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import polars as pl
import pytest

from incremental.app.assemble import assemble
from incremental.app.experiment import execute, named
from incremental.core import optimizers
from incremental.core.gradient import make, training
from incremental.core.problem import Head, problem
from incremental.core.program import Program
from incremental.core.spec import Input, Sizes, Spec
from incremental.data.interactions import Interactions, Kind, Table
from incremental.data.stream import Stream, make_stream
from incremental.data.task import Task
from incremental.data.task import behaviour as predict
from incremental.data.text import hashed_words
from incremental.errors import UserError
from incremental.heads.bce import bce
from incremental.heads.full_softmax import full_softmax
from incremental.models.behaviour import behaviour
from incremental.models.popularity import popularity
from incremental.models.sasrec import sasrec
from incremental.run.feed import Capacities
from incremental.run.policy import update
from incremental.serve.model import Trained
from incremental.strategies.ewc import ewc
from incremental.strategies.gpm import gpm
from incremental.strategies.replay import replay
from tests import lab
from tests.loopless import classified
from tests.test_configs import composed

FEATURES, EPOCHS = 16, 10


def test_hidden_is_as_written() -> None:
    vector = Input((FEATURES,), np.dtype(np.float32))
    spec = Spec({"past": vector, "asked": vector}, "behaviour", ("item", "user", "behaviour"))
    sizes = Sizes(labels="behaviour", item=9, user=8, behaviour=3)
    own = problem(behaviour(features=FEATURES, width=4, dropout=0.5), full_softmax(), spec, sizes)
    params, apply = jax.device_get(jax.jit(own.init)(jax.random.key(0))), jax.jit(own.apply)
    rng = np.random.default_rng(0)
    past, asked = rng.normal(size=(2, 5, FEATURES)).astype(np.float32)
    out = apply(params, {"past": past, "asked": asked})
    read = np.concatenate([past, asked, past * asked * 4.0], axis=1)
    inner = params["inner"]
    hidden = np.maximum(read @ inner["kernel"] + inner["bias"], 0)
    np.testing.assert_allclose(out.hidden, hidden, rtol=1e-5, atol=1e-5)
    scores = hidden @ params["item"]["embedding"].T + params["item_bias"]
    np.testing.assert_allclose(out.scores, scores, rtol=1e-5, atol=1e-5)
    dropped = np.asarray(apply(params, {"past": past, "asked": asked}, key=jax.random.key(1)).hidden)
    assert set(np.unique(np.round(dropped[hidden > 0] / hidden[hidden > 0], 3))) == {0.0, 2.0}


def shop() -> Stream:
    """Two kinds of words; who asks for the kind they had last, buys."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 20, 600), rng.integers(0, 8, 600)
    last: dict[int, int] = {}
    bought = []
    for who, what in zip(user, item, strict=True):
        bought.append("buy" if last.get(who, 0) % 2 == what % 2 else "view")
        last[who] = what
    frame = pl.DataFrame(
        {"user": [f"u{i}" for i in user], "item": [f"i{i}" for i in item], "time": range(600), "behaviour": bought}
    )
    return make_stream(
        source=Table(frame, "shop", {f"i{i}": ("tea", "shoe")[i % 2] for i in range(8)}),
        cut=lambda events: ((np.arange(len(events)) // 200).astype(np.int32), ()),
        history=1,
        text=hashed_words(width=FEATURES),
        task=predict(),
    )


def build(sizes: Sizes, head: Head) -> Program:
    own = problem(behaviour(features=FEATURES, width=16, dropout=0.0), head, shop().spec, sizes)
    parts = {"memory": replay(own, capacity=64, rows=16), "anchor": ewc(own, weight=1.0, samples=16), "basis": gpm(own)}
    steps = training(batch_size=32, epochs=EPOCHS, patience=0)
    return make(own, optimizers.adam(learning_rate=0.02), parts, sizes=sizes, training=steps, cutoffs=(1,))


def test_it_learns_what_the_texts_say_under_strategies() -> None:
    result = lab.run(partial(build, head=full_softmax()), shop(), update(), metrics=("recall@1",))
    assert result.sizes.slots == 8
    found = {record.metric: record for record in result.records if record.evaluated_on == 2}
    assert found["recall@1"].value > 0.95  # accuracy
    assert found["auc"].value > 0.97
    assert found["recall/buy"].events + found["recall/view"].events == 200
    per_class = [f"{metric}/{name}" for metric in ("precision", "recall", "f1", "auc") for name in ("buy", "view")]
    assert {*per_class, "f1", "auc"} <= set(found)


def test_it_learns_under_a_head_that_draws_negatives_too() -> None:
    room = Capacities(table=128, examples=256)
    _, accuracy = classified(partial(build, head=bce(negatives=8)), shop(), EPOCHS, capacities=room)
    assert accuracy > 0.95


def test_the_commoner_class_is_the_baseline() -> None:
    model = popularity()
    result = lab.run(lambda sizes: model.program(shop().spec, sizes, (1,)), shop(), update(), metrics=("recall@1",))
    found = {record.metric: record.value for record in result.records if record.evaluated_on == 2}
    assert sorted([found["recall/buy"], found["recall/view"]]) == [0.0, 1.0]
    assert found["auc"] == 0.5
    with pytest.raises(UserError, match="predicts ids of the kind 'behaviour' and recommends no items; choose"):
        Trained(model.program(shop().spec, result.sizes, (1,)), result.state, shop())


def test_a_model_that_reads_something_else() -> None:
    with pytest.raises(UserError, match=r"scores ids of the kind 'item', but the labels are of the kind 'behaviour'"):
        problem(sasrec(width=8), full_softmax(), shop().spec, lab.sizes_at(shop(), 1))
    with pytest.raises(
        UserError, match=r"it reads 'past', which the data's examples do not hold; they hold user, hist"
    ):
        problem(behaviour(), full_softmax(), lab.stream().spec, lab.sizes_at(lab.stream(), 1))
    with pytest.raises(UserError, match=r"it reads 'past' of shape \[256\], the data makes \[32\]"):
        assemble(composed("experiment=behaviour", "data.text.width=32", "data.source.events=500"))


def test_the_end_of_a_run_names_what_can_follow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def even(log: Interactions, length: int) -> tuple[Interactions, Task]:
        del length
        found = (log.time % 2).astype(np.int32) + 1
        return replace(log, further={"even": Kind(found, ["", "yes", "no"])}), Task("even")

    monkeypatch.setitem(sys.modules, "plugin", SimpleNamespace(rule=update, even=lambda: even))
    plain = ["tracking=disabled", f"runs={tmp_path}", "data.source.events=600", "evaluation.metrics=[recall@1]"]
    for number, (asked, own, follows) in enumerate(
        (
            (["method=popularity"], {}, "--user ID"),
            (["method=popularity"], {"update": {"_target_": "plugin.rule"}}, "--user ID --plugin plugin"),
            (["method=popularity", "experiment=behaviour"], {}, None),
            (["method=popularity"], {"task": {"_target_": "plugin.even"}}, None),
            (["method=oracle"], {}, None),  # it reads the event itself
        )
    ):
        config = composed(*asked, *plain, f"seed={number}")
        config["update"] = own.get("update", config["update"])
        config["data"]["task"] = own.get("task", config["data"].get("task"))
        execute(named(config, {"model": "some", "update": "finetune"}))
        said = capsys.readouterr().out
        assert f"next: incremental-report {tmp_path}" in said
        if follows:
            assert said.endswith(f"{follows}\n")
        else:
            assert "incremental-recommend" not in said
