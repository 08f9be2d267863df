"""Sequential rules: what follows the last item within some events (cf. Ludewig and Jannach 2018)."""

from collections.abc import Mapping
from typing import Literal

from jax import Array

from incremental.core.problem import Baseline
from incremental.core.program import Program
from incremental.core.rules import by_rules
from incremental.core.spec import Input, Sizes
from incremental.domains import Count, checked
from incremental.errors import UserError

POWERS = {"quadratic": 2, "div": 1}


@checked
def sequential_rules(
    *, steps: Count = 20, weighting: Literal["quadratic", "div"] = "quadratic", rules: Count = 20, room: Count = 64
) -> Baseline:
    """Score of item i after the last item c: w(c, i) if that is among the `rules` largest w(c, ·), else 0.

    w(a, b) = Σ 1/d² (quadratic) or 1/d (div) over all events with item b that have an item a of the same user d events
    before, d = 1 .. `steps`; a session is a user of the stream. Of equal weights those are kept whose partner appeared
    first. No normalisation. Source: "SR" of Ludewig and Jannach 2018 (UMUAI 28), there trained once; here an update
    adds the weights of the new events, and the result is that of all events at once.

    Deviations: at most data.history steps are seen, and events of one time are not before one another unless data.ties
    orders them; weights are sums of float32 numbers. State: `room` · V pairs; weights are exact until more distinct
    pairs have occurred, from then on the lightest are dropped; the report `rules/dropped` says how many.
    Cost of an update: three sorts of R = `room` · V pairs, however small it is.
    """
    if weighting not in POWERS:
        raise UserError(f"model.weighting={weighting!r}: expected {' or '.join(POWERS)}")

    def forward(item: Array, label: Array, distance: Array) -> list[tuple[Array, Array, Array]]:
        return [(item, label, 1.0 / distance.astype("float32") ** POWERS[weighting])]

    def build(inputs: Mapping[str, Input], sizes: Sizes, cutoffs: tuple[int, ...]) -> Program:
        (length,) = inputs["history"].shape
        return by_rules(inputs, sizes, cutoffs, counted=forward, window=min(steps, length), rules=rules, room=room)

    return Baseline(build, ("history",), labels="item")
