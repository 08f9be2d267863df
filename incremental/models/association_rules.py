"""Association rules of size two: what occurs in the sessions of the last item (cf. Ludewig and Jannach 2018)."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from incremental.core.problem import Baseline
from incremental.core.program import Program
from incremental.core.rules import by_rules
from incremental.core.spec import Input, Sizes
from incremental.domains import Count, checked


@checked
def association_rules(*, rules: Count = 20, room: Count = 64) -> Baseline:
    """Score of item i after the last item c: n(c, i) if that is among the `rules` largest n(c, ·), else 0.

    n(a, b) is the number of pairs of events of one user whose items are a and b, in any order; a session is a user of
    the stream. So an item that occurs twice counts 2 for itself. Of equal counts those are kept whose partner appeared
    first, event by event, and within an event the partner with the earlier place. No normalisation. Source: "AR" of
    Ludewig and Jannach 2018 (UMUAI 28), there trained once; here an update adds the new events' pairs, those with the
    user's earlier events too, and the result is that of all events at once.

    Deviations: a pair is read from the history of its later event, so pairs more than data.history events apart are
    not counted, nor those of one time unless data.ties orders them. State: `room` · V pairs; counts are exact until
    more distinct pairs have occurred, from then on the lightest are dropped; the report `rules/dropped` says how many.
    Cost of an update: three sorts of R = `room` · V pairs, however small it is.
    """

    def build(inputs: Mapping[str, Input], sizes: Sizes, cutoffs: tuple[int, ...]) -> Program:
        (length,) = inputs["history"].shape
        return by_rules(inputs, sizes, cutoffs, counted=both_ways, window=length, rules=rules, room=room)

    return Baseline(build, ("history",), labels="item")


def both_ways(item: Array, label: Array, distance: Array) -> list[tuple[Array, Array, Array]]:
    """1 for either direction, whatever the distance."""
    one = jnp.ones(distance.shape)
    return [(item, label, one), (label, item, one)]
