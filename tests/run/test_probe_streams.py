"""Streams that make plain what learning and forgetting must come to."""

from dataclasses import replace

import numpy as np
import pytest

from incremental.data.stream import Stream
from incremental.run.policy import Update
from tests import lab

pytestmark = pytest.mark.usefixtures("shared_programs", "one_shape")
FULL = lab.Spec(epochs=40, patience=0)  # trains to the end


def probe(second: str) -> Stream:
    """Each of 12 users wants one item again and again; what the second part asks is the probe."""
    rng = np.random.default_rng(0)

    def part(user: int, item: int) -> list[tuple[str, str]]:
        pairs = [(f"u{i + user}", f"i{i + item}") for i in range(12) for _ in range(8)]
        return [pairs[i] for i in rng.permutation(len(pairs))]

    parts = {"same": part(0, 0), "disjoint": part(12, 12), "contradicting": part(0, 12)}
    return lab.written([part(0, 0), parts[second]], validation=0.0, heldout=0.2)


def probed(second: str, policy: Update = lab.FINETUNE) -> tuple[float, float, float, float]:
    """Recall@1 of the first part after it; of the second before and after it; of the first after the second."""
    build = lab.build(replace(FULL, cutoffs=(1,)))
    result = lab.run(build, probe(second), policy, metrics=("recall@1",), matrix=True)
    places = ((0, 0), (0, 1), (1, 1), (1, 0))
    a, b, c, d = (lab.value(result, *place, "heldout/recall@1") for place in places)
    return a, b, c, d


def test_a_stationary_stream_has_nothing_new() -> None:
    assert probed("same") == (1, 1, 1, 1)
    assert probed("same", lab.POLICIES["retrain"]) == (1, 1, 1, 1)


def test_disjoint_supports_have_nothing_to_forget() -> None:
    first, before, second, still = probed("disjoint")
    assert (first, before, second) == (1, 0, 1)
    assert still > 0.5  # item biases and the softmax are shared: some of it goes
    # Items of different parts share nothing in co-occurrence.
    build = lab.baseline_build("cooccurrence")
    result = lab.run(build, lab.disjoint(), metrics=("ndcg@10",), matrix=True)
    after = [lab.value(result, t, 0, "heldout/ndcg@10") for t in range(3)]
    assert after[0] > 0.2
    assert after == pytest.approx([after[0]] * 3, abs=0.02)  # empty histories fall back on popularity, which moves


def test_contradicting_labels_replace_the_old() -> None:
    assert probed("contradicting") == (1, 0, 1, 0)
    assert probed("contradicting", lab.POLICIES["static"]) == (1, 0, 0, 1)
