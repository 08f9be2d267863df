"""Versions: what is published serves as the state that it was made of, whole or not at all."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.app.assemble import completed
from incremental.core.spec import Sizes
from incremental.errors import UserError
from incremental.log.place import open_log
from incremental.log.records import Choice, Cut
from incremental.run import alone
from incremental.run.executor import Snapshot
from incremental.run.progress import Progress
from incremental.serve.live import configuring, versions
from incremental.serve.live.learner import Learner
from incremental.serve.live.tail import Tail
from tests import lab
from tests.plugin import test_third_kind

PROGRAM = lab.build(lab.Spec("replay+ewc"))(lab.SIZES)


def like(_: Any) -> alone.Kept:
    return alone.like(PROGRAM)


def snapshot(number: int) -> Snapshot:
    """A state of which every leaf is another number."""
    draws = np.random.default_rng(number)

    def drawn(leaf: Any) -> Any:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(number)
        return draws.integers(0, 2, leaf.shape).astype(leaf.dtype)

    state = jax.tree.map(drawn, jax.eval_shape(PROGRAM.init, jax.random.key(0)))
    return Snapshot(state, None, None, lab.SIZES, Progress(increment=number + 1))


def publish(folder: Path, number: int, *, keep: int = 3, never: tuple[int, ...] = ()) -> int:
    return versions.publish(folder, PROGRAM, snapshot(number), cut=100 + number, keep=keep, never=never)


def test_a_version_recommends_as_the_state_that_it_was_made_of(tmp_path: Path) -> None:
    assert versions.newest(tmp_path) is None
    assert publish(tmp_path, 7) == 7
    assert versions.newest(tmp_path) == 7
    state, sizes, cut = versions.read(tmp_path, 7, like)
    assert (sizes, cut) == (lab.SIZES, 107)
    inputs = {name: np.ones((4, *each.shape), each.dtype) for name, each in PROGRAM.inputs.items()}
    scores = jax.jit(PROGRAM.scores)
    np.testing.assert_array_equal(scores(state, inputs), scores(snapshot(7).state, inputs))
    lab.assert_same(PROGRAM.tables(state), PROGRAM.tables(snapshot(7).state))


def test_what_a_recommendation_does_not_read_is_left_out() -> None:
    read = versions.leaves_read(PROGRAM)
    assert any("params" in path for path in read)
    assert any("seen" in path for path in read)
    assert not [path for path in read if "opt_state" in path or "replay" in path or "ewc" in path]


def test_a_version_says_which_ids_of_a_further_kind_it_knows(tmp_path: Path) -> None:
    """Its histories are of events whose categories it knows, which no function of the model mentions."""
    sizes = Sizes(item=64, user=64, category=32)
    program = test_third_kind.build(None)(sizes)
    state = jax.jit(program.init)(jax.random.key(0))
    arrived = {**state.learner.catalogue.arrived, "category": jnp.arange(32) < 9}
    catalogue = state.learner.catalogue._replace(arrived=arrived)
    made = Snapshot(state._replace(learner=state.learner._replace(catalogue=catalogue)), None, None, sizes, Progress(1))
    versions.publish(tmp_path, program, made, cut=7, keep=1, never=())
    found = versions.read(tmp_path, 0, lambda _: alone.like(program)).state.learner.catalogue.arrived
    np.testing.assert_array_equal(found["category"], np.arange(32) < 9)


def test_the_last_ones_stay_and_those_that_somebody_named(tmp_path: Path) -> None:
    for number in range(6):
        publish(tmp_path, number, keep=2, never=(1,))
    assert versions.numbers(tmp_path) == [1, 4, 5]
    assert versions.newest(tmp_path) == 5


def test_a_version_that_is_learnt_again_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    publish(tmp_path, 3)
    leaves = tmp_path / "versions/000003/state.safetensors"
    first = leaves.read_bytes()
    leaves.write_bytes(b"half")
    (tmp_path / "versions/.000003.new").mkdir()  # of a learner that was killed
    publish(tmp_path, 3)
    assert leaves.read_bytes() == first


def test_what_cannot_be_read_is_said(tmp_path: Path, documented: Callable[[str, object], None]) -> None:
    publish(tmp_path, 4)
    with pytest.raises(UserError) as error:
        versions.read(tmp_path, 3, like)
    documented("a version of a live model that was not kept", error.value)

    about = tmp_path / "versions/000004/version.json"
    own = json.loads(about.read_text())
    about.write_text(json.dumps({**own, "format": 9}))
    with pytest.raises(UserError) as error:
        versions.read(tmp_path, 4, like)
    documented("a version of a live model in another format", error.value)

    about.write_text(json.dumps({**own, "sizes": {**own["sizes"], "item": 64}}))
    with pytest.raises(UserError) as error:
        versions.read(tmp_path, 4, lambda sizes: alone.like(lab.build(lab.Spec("replay+ewc"))(sizes)))
    documented("a version of a live model of another configuration", error.value)

    (about.parent / "state.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="cannot be read"):
        versions.read(tmp_path, 4, like)

    (tmp_path / "current").write_text("")
    with pytest.raises(UserError) as error:
        versions.newest(tmp_path)
    documented("a live folder whose file `current` is broken", error.value)


def test_what_was_chosen_while_a_learner_trained_stays(tmp_path: Path) -> None:
    config, live = configuring.composed_of(["experiment=live", f"live.folder={tmp_path}", "live.keep_versions=2"])
    log = open_log(live.log, create=True)
    directory: Any = SimpleNamespace(path=tmp_path)
    learner = Learner(directory, completed(config), live, "champion", Tail(log, ""), lambda: True)
    feed: Any = SimpleNamespace(cut=lambda t: Cut(t, 100 + t, "count", 0.0))
    executor: Any = SimpleNamespace(way=SimpleNamespace(at=lambda _sizes: SimpleNamespace(program=PROGRAM)))
    learner.publish(feed, executor, snapshot(5))
    learner.publish(feed, executor, snapshot(6))
    log.append([Choice("a", "champion", 5, 0.0), Choice("b", "other", 6, 0.0)])
    for number in (7, 8):
        learner.publish(feed, executor, snapshot(number))
    assert versions.numbers(tmp_path) == [5, 7, 8]
    log.close()
