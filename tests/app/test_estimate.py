"""What a dry run says of time: counted examples, and seconds of epochs that are timed."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from incremental.app import estimate as module
from incremental.app.estimate import Pace, estimate, examples, timed
from incremental.run.policy import update
from tests import lab


class Data(SimpleNamespace):
    def _replace(self, **changed: Any) -> "Data":
        return Data(**{**vars(self), **changed})


def test_examples_are_those_that_a_run_trains_on() -> None:
    stream = lab.stream(heldout=0.1, validation=0.0)  # a baseline reads the validation part too
    for policy in (lab.update(), lab.update(window="all", start="afresh"), lab.update(window=0), lab.update(every=2)):
        result = lab.run(lab.baseline_build("popularity"), stream, policy)
        assert sum(examples(stream, policy)) == sum(cost.examples for cost in result.costs)
    plain = examples(stream, lab.update())
    assert examples(stream, lab.update(drop=0.1)) == examples(stream, lab.update(budget=1)) == plain


class Epochs:
    """Epochs on a clock of their own: `first` seconds more at the start, `epoch` each, and `each` for an example."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, first: float, epoch: float, each: float) -> None:
        self.first, self.epoch, self.each = first, epoch, each
        self.now, self.asked = 0.0, list[int]()
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def __call__(self, state: Any, data: Any) -> tuple[Any, Any]:
        self.now += self.epoch + self.each * int(data.size) + (0.0 if self.asked else self.first)
        self.asked.append(int(data.size))
        return state + 1, {}


def test_seconds_are_of_a_few_examples_and_the_state_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    run_epoch, state = Epochs(monkeypatch, first=1.0, epoch=0.1, each=1e-4), jnp.zeros(3)
    pace = timed(run_epoch, state, Data(size=jnp.int32(5000)))
    assert run_epoch.asked == [module.FEW] * 4 + [module.FEW // 2] * 4
    np.testing.assert_allclose(pace, (0.1, 1e-4))  # the first, which compiles, does not count
    np.testing.assert_array_equal(state, 0)


def test_an_epoch_that_is_slow_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that makes a matrix of all items anew, however few its examples are."""
    run_epoch = Epochs(monkeypatch, first=0.0, epoch=20.0, each=0.0)
    pace = timed(run_epoch, jnp.zeros(3), Data(size=jnp.int32(5000)))
    assert run_epoch.asked == [module.FEW, module.FEW // 2]
    assert pace == (20.0, 0.0)
    one = timed(Epochs(monkeypatch, first=0.0, epoch=2.0, each=0.0), jnp.zeros(3), Data(size=jnp.int32(1)))
    assert one == (0.0, 2.0)


def test_the_runs_of_a_sweep_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SO_FAR", [])
    stream = lab.stream(validation=0.0)
    number = sum(examples(stream, update())) * 2
    first = estimate(Pace(100.0, 1.0), stream, update(), 2, 3, 7.0)
    assert first == (
        f"  about {module.told(200 * len(stream) + number)} of training at most (2 epochs, {number:,} examples), and "
        "21 s or more of compilation (3 sizes, 7.0 s each; less where they are kept), tests apart"
    )
    second = estimate(Pace(0.0, 1.0), stream, update(window=0), 2, 1, 7.0)
    assert "(1 size, 7.0 s each" in second
    both = 200 * len(stream) + number + sum(examples(stream, update(window=0))) * 2
    assert f"; the 2 runs so far, one after the other: about {module.told(both)} and 28 s or more" in second
