"""Session nearest neighbours with weights that fall along the session, VSKNN (Ludewig and Jannach 2018)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core import ranking
from incremental.core.gradient_free import gradient_free
from incremental.core.problem import Baseline
from incremental.core.program import Program
from incremental.core.spec import Input, Sizes
from incremental.core.types import Catalogue, Data, Params
from incremental.domains import Count, NotNegative, checked


@checked
def vsknn(*, neighbours: Count = 500, sample: Count = 5000, idf: NotNegative = 5.0, items: Count = 64) -> Baseline:
    """Score of item i: Σ_N sim(N) / d(N) · (1 + `idf` · ln(sessions / events of i)) over the neighbours N that hold i.

    With s_1 … s_n the history, item s_p weighs (p/n)², a repeated one as of its later place. sim(N) is the sum of the
    weights of the items that the session N shares with it, divided by the number of its distinct items; d(N) is how
    far from the end the last item is that N shares, 1 for s_n. Candidates are the `sample` most recent sessions that
    share an item, by their last event; neighbours are the `neighbours` most similar, of equal ones the most recent. A
    session is a user of the stream; the asking user's own is no candidate. Source: VSKNN of Ludewig and Jannach 2018
    (UMUAI 28) with quadratic weights, "div" for the scores and "vec" as similarity, there over fixed sessions; here an
    update adds its events to them.

    Deviations: the history is its last data.history events, and a session keeps the last `items` items that
    were new to it (a repeat renews none); with both long enough nothing is left out. Scores are negative where an item
    has more events than there are sessions, as in a stream of few users. State: W · `items` ids. Cost of a
    prediction: O(W · `items`).
    """

    def build(inputs: Mapping[str, Input], sizes: Sizes, cutoffs: tuple[int, ...]) -> Program:
        def add(n: Array, params: Params, data: Data, before: Array) -> Params:
            user, item = data.arrived["user"][n], data.events[n]
            held, number = params["items"][user], params["number"][user]
            new = (item > 0) & ~(held == item).any()
            place = jnp.where(new, number % items, items)
            return {
                "items": params["items"].at[user, place].set(item, mode="drop"),
                "number": params["number"].at[user].add(new),
                "last": params["last"].at[user].max(jnp.where(item > 0, before + n + 1, 0)),
                "events": params["events"].at[item].add(item > 0),
            }

        def absorb(params: Params, data: Data) -> Params:
            before = params["last"].max()
            return jax.lax.fori_loop(0, len(data.events), lambda n, params: add(n, params, data, before), params)

        def scores(params: Params, inputs: dict[str, Array]) -> Array:
            order = jnp.argsort(-params["last"])  # the most recent session first
            sessions, met = params["items"][order], params["last"][order] > 0
            rarity = 1.0 + idf * jnp.log((params["last"] > 0).sum() / jnp.maximum(params["events"], 1.0))

            def of(asked: tuple[Array, Array]) -> Array:
                history, user = asked
                place = jnp.cumsum(history > 0) * (history > 0)
                length = place.max()
                table = jnp.zeros(sizes.slots)
                # Times n²: sums of whole numbers, whatever their order, so that equal sessions are equal.
                weight = table.at[history].max((place**2).astype(jnp.float32)).at[0].set(0.0)
                near = table.at[history].max(1.0 / (length - place + 1)).at[0].set(0.0)
                shared = weight[sessions].sum(1)
                candidate = met & (shared > 0) & (order != user)
                candidate &= jnp.cumsum(candidate) <= sample
                likeness, found = jax.lax.top_k(jnp.where(candidate, shared, 0.0), min(neighbours, len(sessions)))
                held = sessions[found]
                own = likeness / (length**2 * (weight > 0).sum()) * near[held].max(1)
                return table.at[held].add(own[:, None]) * rarity

            return jax.lax.map(of, (inputs["history"], inputs["user"]))

        return gradient_free(
            sizes=sizes,
            inputs=inputs,
            init=lambda: {
                "items": jnp.zeros((sizes["user"], items), jnp.int32),
                "number": jnp.zeros(sizes["user"], jnp.int32),
                "last": jnp.zeros(sizes["user"], jnp.int32),
                "events": jnp.zeros(sizes.slots),
            },
            absorb=absorb,
            scores=scores,
            cutoffs=cutoffs,
            known=with_history,
        )

    return Baseline(build, ("user", "history"), labels="item")


def with_history(catalogue: Catalogue, inputs: dict[str, Array], spec: Mapping[str, Input]) -> Any:
    """[B] bool: whose history holds an item; who asks does not matter."""
    return ranking.known(catalogue, {"history": inputs["history"]}, spec)
