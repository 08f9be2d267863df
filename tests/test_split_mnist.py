"""The classification study's path, on synthetic digits: labels are the catalogue, a task an increment."""

import gzip
import struct
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.split_mnist import digits, methods, published_lwf, study, table
from experiments.split_mnist.mlp import mlp
from incremental.core.types import Batch, Catalogue, Learner, Outputs, Problem
from incremental.errors import UserError

RNG = np.random.default_rng(0)
FACES = RNG.normal(128, 25, (10, 784))


def drawn(n: int) -> digits.Digits:
    """Each digit a random face under noise."""
    shown = np.arange(n) % 10
    noisy = np.clip(FACES[shown] + RNG.normal(0, 60, (n, 784)), 0, 255)
    return digits.Digits(noisy.astype(np.uint8), shown.astype(np.uint8))


def test_replay_keeps_every_class() -> None:
    parts = digits.tasks(drawn(640), drawn(100), "class")
    made = study.programs(methods.METHODS["replay, 1,100"], "class", mlp(width=16), batch_size=16)
    accuracy = study.train(made, parts, "class", [0, 1]).accuracy
    assert accuracy.shape == (2, 5)
    assert (accuracy.mean(1) > 0.5).all()  # without a memory only the last task is right: 0.2
    assert (accuracy[0] != accuracy[1]).any()  # the lanes are seeds


@pytest.mark.parametrize(("name", "part"), [("L2", "l2"), ("EWC", "ewc"), ("MAS", "mas"), ("plain, SGD", "")])
def test_a_row_has_its_strategy_at_the_scenarios_coefficient(name: str, part: str) -> None:
    row = methods.METHODS[name]
    domain, class_ = row.factories("domain"), row.factories("class")
    assert list(domain) == list(class_) == ([part] if part else [])
    if row.coefficients:
        a, b = (made[part].keywords["weight"] for made in (domain, class_))  # type: ignore[attr-defined]
        assert a / b == pytest.approx(row.coefficients[0] / row.coefficients[1])


def test_tasks_are_increments_and_classes_the_catalogue() -> None:
    shown = drawn(100)
    for scenario, labels in (("domain", [1, 2]), ("class", [5, 6])):
        parts = digits.tasks(shown, shown, scenario)  # type: ignore[arg-type]
        task = parts.train[2]
        real = np.asarray(task.rows.labels)[: int(task.size)]
        assert sorted(set(real.tolist())) == labels
        assert int(task.size) == 20 == int((shown.digits // 2 == 2).sum())
        assert int(task.increment) == 2
        np.testing.assert_array_equal(task.rows.inputs["image"][:20], shown.images[shown.digits // 2 == 2])
    joint = digits.tasks(shown, shown, "class", joint=True)
    assert len(joint.train) == 1
    assert int(joint.train[0].size) == 100
    assert len(joint.test) == 5


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_packed_or_not(packed: bool, tmp_path: Path) -> None:
    images, shown = RNG.integers(0, 256, (3, 28, 28), np.uint8), np.array([7, 0, 9], np.uint8)
    for name, values in (("images-idx3", images), ("labels-idx1", shown)):
        raw = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()
        path = tmp_path / f"t10k-{name}-ubyte{'.gz' * packed}"
        path.write_bytes(gzip.compress(raw) if packed else raw)
    read = digits.read(tmp_path, "t10k")
    np.testing.assert_array_equal(read.images, images.reshape(3, 784))
    np.testing.assert_array_equal(read.digits, shown)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\[\.gz\]: no such file; name the folder"):
        digits.read(tmp_path, "train")


def test_the_table_has_the_difference_the_test_and_the_order(tmp_path: Path) -> None:
    # The squares of 0 to 9: mean 28.5, standard deviation 28.3.
    for name, shift in (("plain, Adam", 0.0), ("L2", 0.11), ("EWC", -0.2)):
        values = [[0.55 + shift + 0.001 * seed**2 * (1 + shift)] * 5 for seed in range(10)]
        table.keep(tmp_path, name, "domain", {"accuracy": values, "seconds": 20.0, "compile_seconds": 1.0})
    text = table.table(tmp_path)
    assert "| plain, Adam | 55.16 ± 1.38 | 57.85 ± 2.83 | +2.69 | 4.99 | yes | 2 s |" in text
    assert "| EWC | 58.85 ± 2.59 | 37.28 ± 2.26 | -21.57 | 5.26 | **no** | 2 s |" in text
    assert "| SI | 64.76 ± 3.09 | not run |" in text
    assert "| L2 | plain, Adam | +11.31 | <" in text
    assert "| plain, Adam < EWC | 57.85 ± 2.02 | 37.28 ± 1.62 | **no** |" in text


@pytest.mark.parametrize(("zeros", "before", "weight"), [(False, 0, 1.0), (True, 3, 3.0)])
def test_the_published_distillation_takes_new_classes_in_with_the_target_0(
    zeros: bool, before: int, weight: float
) -> None:
    none: Any = None
    rng = np.random.default_rng(0)
    x, old, new = (rng.normal(size=(4, 3)).astype(np.float32) for _ in range(3))
    known, candidates = np.array([True, True, False, False]), np.array([True, True, True, False])

    def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
        assert key is None
        return Outputs(inputs["x"], inputs["x"] @ params["item"].T)

    variant = published_lwf.Variant("class", zeros, lambda t: t if zeros else jnp.float32(1.0), "")
    part = published_lwf.distillation(Problem(none, apply, none, none, {}, None, none), variant=variant)
    catalogue = Catalogue(jnp.asarray(known), jnp.where(known, 2.0, 0.0), none)
    state = part.end(none, Learner({"item": old}, (), catalogue, none), none, none)[0]
    rows = Batch({"x": x}, none, none, jnp.ones(4, bool), jnp.full(4, before), candidates=jnp.asarray(candidates))
    rows = part.batch(state, rows, none)
    value = jax.jit(part.loss)(state, {"item": new}, rows, apply({"item": new}, rows.inputs))
    taught, learnt = np.exp(x @ old.T / 2)[:, :2], np.exp(x @ new.T / 2)
    p = taught / taught.sum(1, keepdims=True)
    q = learnt[:, :2] / learnt[:, : 3 if zeros else 2].sum(1, keepdims=True)
    np.testing.assert_allclose(value, weight * 4 * -(p * np.log(q)).sum(1).mean(), rtol=1e-5)
