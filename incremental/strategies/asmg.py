"""ASMG: a trained generator makes the weights that are tested from the last increments' (Peng et al., RecSys 2021)."""

from typing import Annotated, Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from annotated_types import Ge
from jax import Array

from incremental.core.ids import Ids, nobody, rows_of, since, trained
from incremental.core.leaves import by_path, replaced
from incremental.core.strategy import Strategy, named_key
from incremental.core.types import Anchor, Data, Learner, Params, Problem
from incremental.domains import Count, Finite, NotNegative, checked
from incremental.errors import UserError

Mode = Literal["gru", "linear"]
Generator = dict[str, dict[str, Array]]  # path of a parameter -> the generator's own, which its coordinates share

HIDDEN = 4  # of the GRU


class Window(NamedTuple):
    """The last weight sets but the current one, and what is made of them.

    Attributes:
        older: sets - 1 of them, the oldest first
        generator: what makes the served weights of the window
        hidden: of the GRU, `HIDDEN` trees as the parameters: after the sets that have left the window; linear: none
        known: whose rows are in the window
        begun: [] int32: updates so far, the base part and the running one among them
    """

    older: tuple[Anchor, ...]
    generator: Generator
    hidden: tuple[Params, ...]
    known: Ids
    begun: Array


@checked
def asmg(
    problem: Problem,
    *,
    mode: Mode = "gru",
    sets: Annotated[int, Ge(2)] = 3,
    rate: NotNegative = 0.01,
    epochs: Count = 1,
    newest: Finite = 0.0,
) -> Strategy:
    """Θ*_t = G(Θ_{t-sets+1}, …, Θ_t) is tested, validated and served; Θ_t is plain training's, and goes on from itself.

    When D_{t+1} has been tested, and before it is trained on, G is trained on it: `epochs` epochs with Adam at `rate`
    from fresh moments, by the data loss of Θ*_t. So no example changes a weight before its metrics are written. G works
    on each coordinate alone; the rows of an id table share one G for each of their components, any other weight has its
    own (Peng et al. 2021, "Learning an Adaptive Meta Model-Generator for Incrementally Updating Recommender Systems").

    "linear": Θ* = Σ_j softmax(a)_j Θ_j. a starts at 0 for all sets but the last, whose a is `newest`: with 1e9 Θ*_t is
    Θ_t, bit for bit. "gru": x_j = Θ_j, z = σ(W_z [x; h]), r = σ(W_r [x; h]), h̃ = tanh(W_h [x; r ⊙ h]),
    h ← (1 - z) h + z h̃, with 4 numbers h and no biases; h starts from the sets that have left the window. Then
    Θ* = Θ_t + w · h + b. The authors have no Θ_t there. With it, and w = b = 0 at the start, an untrained G is plain
    training, and `rate` = 0 is off. Until the window is full, Θ_0, the base part's, stands in the empty places; G is
    trained from the second update behind the base part on. The authors train it for some increments before the first
    test.

    Only the single loss is here: their multiple one, Σ_j λ_j L(Θ*_j, D_{j+1}) over the window, needs the examples of
    earlier increments. Batches have `training.batch_size` examples (theirs 1,024), and their cost is not in the run's
    count of examples. The rows of new ids enter the window as they are at an increment's start; put it after strategies
    that rewrite rows. The views before it act on the newest set alone. A fresh start is refused beside it. State:
    `sets` - 1 floats a parameter, with "gru" 4 more; G has `sets` ("linear") or 65 floats for each component of a table
    and each other weight; and 1 bool an id.
    """
    if mode not in get_args(Mode):
        raise UserError(f"strategies.asmg: mode={mode!r}: expected {' or '.join(get_args(Mode))}")

    def shared(path: str, leaf: Array) -> tuple[int, ...]:
        """The shape of what the generator has for a parameter; it broadcasts to that one's."""
        return (1, *leaf.shape[1:]) if path in problem.tables else leaf.shape

    def started(params: Params, key: Array) -> Generator:
        """An untrained generator."""
        made: Generator = {}
        for path, leaf in by_path(params).items():
            shape = shared(path, leaf)
            if mode == "linear":
                made[path] = {"a": jnp.zeros((sets, *shape)).at[-1].set(newest)}
                continue
            weights = jax.random.uniform(named_key(key, path), (3, 1 + HIDDEN, HIDDEN, *shape), minval=-0.5, maxval=0.5)
            made[path] = {"gates": weights, "out": jnp.zeros((HIDDEN, *shape)), "bias": jnp.zeros(shape)}
        return made

    def read(own: dict[str, Array], hidden: Array, x: Array) -> Array:
        """The GRU's hidden state [HIDDEN, ...] after one more weight set x [...]."""

        def gate(i: int, hidden: Array) -> Array:
            return (own["gates"][i] * jnp.concatenate([x[None], hidden])[:, None]).sum(0)

        z, r = jax.nn.sigmoid(gate(0, hidden)), jax.nn.sigmoid(gate(1, hidden))
        return (1.0 - z) * hidden + z * jnp.tanh(gate(2, r * hidden))

    def stacked(hidden: tuple[Params, ...]) -> dict[str, Array]:
        """By path, [HIDDEN, ...]."""
        return by_path(jax.tree.map(lambda *each: jnp.stack(each), *hidden)) if hidden else {}

    def generated(generator: Generator, state: Window, params: Params) -> Params:
        """Θ* of the window whose newest set is `params`."""
        window = [by_path(each) for each in (*(each.params for each in state.older), params)]
        hidden, made = stacked(state.hidden), {}
        for path, own in generator.items():
            series = [each[path] for each in window]
            if mode == "linear":
                share = jax.nn.softmax(own["a"], axis=0)
                made[path] = sum((share[j] * x for j, x in enumerate(series[1:], 1)), share[0] * series[0])
                continue
            h = hidden[path]
            for x in series:
                h = read(own, h, x)
            made[path] = series[-1] + (own["out"] * h).sum(0) + own["bias"]
        return replaced(params, made)

    def passed(state: Window, generator: Generator) -> tuple[Params, ...]:
        """The hidden states after the set that leaves the window."""
        oldest, hidden = by_path(state.older[0].params), stacked(state.hidden)
        after = {path: read(generator[path], h, oldest[path]) for path, h in hidden.items()}
        return tuple(replaced(each, {path: h[i] for path, h in after.items()}) for i, each in enumerate(state.hidden))

    def init(learner: Learner) -> Window:
        params = learner.params
        hidden = (jax.tree.map(jnp.zeros_like, params),) * (HIDDEN if mode == "gru" else 0)
        untrained = started(params, jax.random.key(0))
        return Window((Anchor(params),) * (sets - 1), untrained, hidden, nobody(learner), jnp.int32(0))

    def begin(state: Window, learner: Learner, data: Data, key: Array, fit: Any) -> tuple[Window, Learner]:
        # An update may pass increments over: what counts is how many updates there were, not the increment's number.
        params, known, later = learner.params, trained(learner), state.begun > 1
        new = rows_of(problem, params, since(known, state.known), others=False)
        older = tuple(Anchor(jax.tree.map(jnp.where, new, params, each.params)) for each in state.older)
        hidden = tuple(jax.tree.map(lambda new, h: jnp.where(new, 0.0, h), new, each) for each in state.hidden)
        state = state._replace(older=older, hidden=hidden)

        # Up to here the window holds one set only, of which nothing is learned.
        generator = jax.tree.map(
            lambda old, fresh: jnp.where(later, old, fresh), state.generator, started(params, named_key(key, "start"))
        )
        generator = fit(
            generator,
            data,
            named_key(key, "fit"),
            jnp.where(later, epochs, 0),
            of=lambda generator: generated(generator, state, params),
            tx=optax.adam(rate),
        )
        moved = (*older[1:], Anchor(params))
        older = tuple(
            Anchor(jax.tree.map(lambda old, now: jnp.where(later, old, now), each.params, params)) for each in moved
        )
        hidden = jax.tree.map(lambda h: jnp.where(later, h, 0.0), passed(state, generator))
        return Window(older, generator, hidden, known, state.begun + 1), learner

    def view(state: Window, params: Params, increment: Array, training: bool) -> Params:
        del increment
        return params if training else generated(state.generator, state, params)

    return Strategy(init=init, begin=begin, view=view)
