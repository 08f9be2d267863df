"""What a dry run says of time: counted examples, and seconds of epochs that are timed."""

import time
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from incremental.app import estimate as module
from incremental.app.estimate import estimate, examples, per_example
from incremental.run.policy import update
from tests import lab


class Data(SimpleNamespace):
    def _replace(self, **changed: Any) -> "Data":
        return Data(**{**vars(self), **changed})


def test_examples_are_those_that_a_run_trains_on() -> None:
    stream = lab.stream(heldout=0.1, validation=0.0)  # a baseline reads the validation part too
    for policy in (lab.update(), lab.update(window="all", start="afresh"), lab.update(window=0), lab.update(every=2)):
        result = lab.run(lab.baseline_build("popularity"), stream, policy)
        assert examples(stream, policy) == sum(cost.examples for cost in result.costs)
    plain = examples(stream, lab.update())
    assert examples(stream, lab.update(drop=0.1)) == examples(stream, lab.update(budget=1)) == plain


def test_seconds_are_of_a_few_examples_and_the_state_stays() -> None:
    asked = []

    def run_epoch(state: Any, data: Any) -> tuple[Any, Any]:
        asked.append(int(data.size))
        time.sleep(0.3 if len(asked) == 1 else 0.02)
        return state + 1, {}

    state = jnp.zeros(3)
    each = per_example(run_epoch, state, Data(size=jnp.int32(5000)))
    assert asked == [module.FEW] * 4
    assert 0.02 / module.FEW <= each < 0.1 / module.FEW  # the first, which compiles, does not count
    np.testing.assert_array_equal(state, 0)


def test_the_runs_of_a_sweep_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SO_FAR", [])
    stream = lab.stream(validation=0.0)
    number = examples(stream, update()) * 2
    first = estimate(1.0, stream, update(), 2, 3, 7.0)
    assert first == (
        f"  about {module.told(number)} of training at most (2 epochs, {number:,} examples), and 21 s or more of "
        "compilation (3 sizes, 7.0 s each; less where they are kept), tests apart"
    )
    second = estimate(1.0, stream, update(window=0), 2, 1, 7.0)
    assert "(1 size, 7.0 s each" in second
    both = number + examples(stream, update(window=0)) * 2
    assert f"; the 2 runs so far, one after the other: about {module.told(both)} and 28 s or more" in second
