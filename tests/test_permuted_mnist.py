"""The permuted study's path, on few synthetic digits: a task is an order of the pixels, three tasks, one head."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.permuted_mnist import methods, study, table, variants
from experiments.permuted_mnist.mlp import mlp
from experiments.permuted_mnist.stream import Stream, piece, stream
from experiments.split_mnist.digits import Digits
from incremental.core.strategy import Strategy
from incremental.core.types import Anchor, Batch, Learner, Problem, Step
from incremental.strategies.mas import Sensitivity

RNG = np.random.default_rng(0)
FACES = 255.0 * (RNG.random((10, 784)) < 0.15)
NONE: Any = None


def drawn(n: int) -> Digits:
    """Each digit a random face of ink, under noise."""
    shown = RNG.integers(0, 10, n)
    noisy = np.clip(FACES[shown] + RNG.normal(0, 30, (n, 784)), 0, 255)
    return Digits(noisy.astype(np.uint8), shown.astype(np.uint8))


@pytest.fixture(scope="module")
def shown() -> Stream:
    return stream(drawn(300), drawn(100), 3)


def test_a_task_is_an_order_of_the_pixels(shown: Stream) -> None:
    assert not (np.diff(shown.pixels[0]) == 1).all()  # the first task's are permuted too
    for t in range(3):
        trained, tested = shown.trained(t), shown.tested(t)
        back = np.argsort(shown.pixels[t])
        images = np.asarray(tested.rows.inputs["image"])
        np.testing.assert_array_equal(images[:, back], shown.test.images)
        assert sorted(map(bytes, np.asarray(trained.rows.inputs["image"])[:, back])) == sorted(
            map(bytes, shown.train.images)
        )
        assert int(trained.increment) == t
    orders = [np.asarray(shown.trained(t).rows.labels).tolist() for t in range(2)]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]
    trained = shown.trained(1)
    part = piece(trained, 20, 30)
    assert int(part.size) == 10
    np.testing.assert_array_equal(part.rows.labels[:10], trained.rows.labels[20:30])
    joint = shown.joint()
    assert int(joint.size) == 900
    tasks = [np.asarray(shown.trained(t).rows.inputs["image"]) for t in range(3)]
    assert sorted(map(bytes, np.asarray(joint.rows.inputs["image"]))) == sorted(map(bytes, np.concatenate(tasks)))


def test_a_row_that_was_stopped_goes_on_where_it_was(
    shown: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A-GEM, whose memory must survive: two lanes, three tasks, stopped after the second."""
    method = methods.Method(0.1, {"agem": partial(variants.ring_agem, tasks=3, each=4, rows=20)})
    made = study.programs(method, mlp(width=16), 1)
    monkeypatch.setattr(study, "programs", lambda *_: made)  # compiled once
    whole = study.train(method, mlp(width=16), shown, [0, 1], tmp_path / "a.npz")
    assert whole.accuracy.shape == (2, 3, 3)
    last = whole.accuracy[:, -1]
    assert (last > 0.5).all()
    assert np.isnan(whole.accuracy[:, 0, 1:]).all()
    assert (last[0] != last[1]).any()  # the lanes are seeds
    assert (whole.start[:, :, 10] > whole.start[:, :, 0]).any()
    kept, half = study.keep, tmp_path / "b.npz"

    def stopped(executor: Any, path: Path, done: int, measured: study.Measured) -> None:
        kept(executor, path, done, measured)
        if done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(study, "keep", stopped)
    with pytest.raises(KeyboardInterrupt):
        study.train(method, mlp(width=16), shown, [0, 1], half)
    monkeypatch.setattr(study, "keep", kept)
    rest = study.train(method, mlp(width=16), shown, [0, 1], half)
    np.testing.assert_array_equal(rest.accuracy, whole.accuracy)
    np.testing.assert_array_equal(rest.start, whole.start)


def test_the_fisher_runs_over_tens_of_steps_and_is_scaled_at_the_end() -> None:
    part = variants.running_ewc(NONE, weight=10.0)
    params = {"a": np.array([1.0, -1.0], np.float32), "b": np.zeros(1, np.float32)}
    learner = Learner(params, (), NONE, NONE)
    state = jax.jit(part.init)(learner)
    rng = np.random.default_rng(1)
    data, own = rng.normal(size=(20, 3)).astype(np.float32), rng.normal(size=(20, 3)).astype(np.float32)
    record = jax.jit(lambda state, grads, own: part.record(state, step_of(grads, own), NONE))
    for g, p in zip(data, own, strict=True):
        state = record(state, split(g + p), split(p))
    first, second = (data[:10] ** 2).sum(0), (data[10:] ** 2).sum(0)
    fisher = 0.1 * 0.9 * first / 10 + 0.9 * second / 10
    np.testing.assert_allclose(joined(state.fisher), fisher, rtol=1e-4)
    end = jax.jit(lambda state, learner: part.end(state, learner, NONE, NONE))
    state, _ = end(state, learner)
    scaled = (fisher - fisher.min()) / (fisher.max() - fisher.min())
    np.testing.assert_allclose(joined(state.importance), scaled, rtol=1e-4, atol=1e-6)
    moved = split(joined(params) + np.array([0.5, 1.0, 2.0]))
    value = jax.jit(lambda state, moved: part.loss(state, moved, NONE, NONE))(state, moved)
    np.testing.assert_allclose(value, 10 * (scaled * np.array([0.25, 1.0, 4.0])).sum(), rtol=1e-4)


def split(values: Any) -> dict[str, jax.Array]:
    return {"a": jnp.asarray(values[:2]), "b": jnp.asarray(values[2:])}


def joined(tree: Any) -> np.ndarray:
    return np.concatenate([tree["a"], tree["b"]])


def step_of(grads: Any, penalty: Any) -> Step:
    return Step(NONE, NONE, NONE, grads, penalty, NONE, NONE, NONE)


def test_the_memory_has_a_share_of_each_class_and_finished_task(shown: Stream) -> None:
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), shown.trained(0).rows)
    problem = Problem(NONE, NONE, NONE, example, {}, NONE, NONE)
    part = variants.ring_agem(problem, tasks=3, each=4, rows=60)
    empty = Batch(*[NONE] * 5)
    end, batch = jax.jit(part.end), jax.jit(lambda state, key: part.batch(state, empty, key).memory)
    state = part.init(NONE)
    for t in range(2):
        learner = Learner(NONE, NONE, NONE, jnp.int32(t))
        state, _ = end(state, learner, shown.trained(t), jax.random.key(t))
    rows = jax.device_get(state.memory.rows)
    assert int(rows.valid.sum()) == 80
    for t in range(2):
        labels = np.asarray(rows.labels[rows.valid & (rows.increment == t)])
        assert (np.bincount(labels, minlength=11)[1:] == 4).all()
        images = np.asarray(rows.inputs["image"][rows.valid & (rows.increment == t)])
        assert len(np.unique(images, axis=0)) == 40
    memory = batch(state, jax.random.key(0))
    assert bool(memory.valid.all())
    assert len(np.unique(np.asarray(memory.inputs["image"]), axis=0)) == 60  # without repeats
    state, _ = end(part.init(NONE), Learner(NONE, NONE, NONE, jnp.int32(0)), shown.trained(0), jax.random.key(0))
    assert int(batch(state, jax.random.key(0)).valid.sum()) == 40  # as many as there are


def test_mas_forgets_the_importance_of_earlier_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(state: Sensitivity, learner: Learner, *_: Any) -> tuple[Sensitivity, Learner]:
        return Sensitivity(state.importance + 1.0, state.anchor), learner

    monkeypatch.setattr(variants, "mas", lambda *_, **__: Strategy(end=counted))
    state = Sensitivity(jnp.float32(0.0), Anchor(NONE))
    part = variants.last_mas(NONE, weight=0.1, samples=10)
    for _ in range(2):
        state, _ = part.end(state, NONE, NONE, NONE)
    assert float(state.importance) == 1.0


def test_the_table_has_the_metrics_and_the_difference(tmp_path: Path) -> None:
    nan = float("nan")
    accuracy = [[[0.9, nan, nan], [0.95, 0.8, nan], [0.5, 0.7, 0.6]]]
    start = [[[b / 10 for b in range(11)]] * 3]
    found = table.summary({"accuracy": accuracy, "start": start})
    assert found["accuracy"] == pytest.approx([60.0])
    assert found["forgetting"] == pytest.approx([(0.45 + 0.1) / 2])
    assert found["worst forgetting"] == pytest.approx([0.45])
    assert found["LCA10"] == pytest.approx([(0 / 2 + 0.1 + 0.2 + 0.3 + 0.4 + 0.5 + 0.6 + 0.7 + 0.8 + 0.9 + 1 / 2) / 10])
    path = table.path_of(tmp_path, "A-GEM", 1)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"accuracy": accuracy, "start": start, "seconds": 7.0, "compile_seconds": 1.0}))
    text = table.table(tmp_path, 1)
    assert "| A-GEM | 89.12 ± 0.15 | 60.00 ± 0.00 | -29.12 | 7 s |" in text
    assert "| VAN | 0.5106 ± 0.0139 | |  |" in text
    assert "| VAN | 47.95 ± 1.32 | |  | not run |" in text
    assert "A-GEM: forgetting 0.2750, at most 0.08: **no**" in text
