"""Item rows that are computed from the items' texts, and the program that reads those from its data.

The texts are not trained and are no part of a state: `Data.side` brings them, one copy for all lanes, and neither the
optimizer, nor strategies, nor the best epoch, nor checkpoints have anything for them. Model, head and strategies do not
know: a problem's functions compute the item tables first, and those of the model without a tower do the rest.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from incremental.core.compaction import take
from incremental.core.precision import Precision, arithmetic
from incremental.core.program import Program
from incremental.core.settling import settling
from incremental.core.strategy import named_key
from incremental.core.types import Data, Params, Problem, State
from incremental.errors import UserError

READING = (
    "restart",
    "begin",
    "base_epoch",
    "run_epoch",
    "validate",
    "end",
    "rank",
    "rank_lists",
)  # the functions of (state, data, ...)


class Tower(NamedTuple):
    """From an item's text to its rows in the model's item tables.

    Attributes:
        module: (n) -> a module, `__call__({"text": [N, ...]}, key) -> [N, n]`: the n numbers an item has in all item
            tables
        ids: whether items have rows of their own too, which are added to what their texts say
        start: (the module's parameters as its `init` draws them, key) -> those that are trained, at their start
        whole: (those that are trained) -> the module's, frozen ones among them
        together: items that are computed at once, so that their inner values fit into memory; 0: all
        remat: inner values are computed anew in the backward pass, not kept: those of `together` items are held at a
            time
    """

    module: Callable[[int], nn.Module]
    ids: bool
    start: Callable[[Params, Array], Params] = lambda drawn, _key: drawn
    whole: Callable[[Params], Params] = lambda params: params
    together: int = 0
    remat: bool = False


def on_texts(core: Problem, tower: Tower, text: Array, kind: str, precision: Precision = "float32") -> Problem:
    """The problem of `core` whose items' rows come from their texts [V, ...]; items are ids of the `kind`.

    Its parameters are those of `core` and, under "tower", the tower's; without `tower.ids` there are no item tables.
    `settle` puts the tables, [V, ...] as in `core`, in their places.
    """
    made = flatten_dict(jax.eval_shape(core.init, jax.random.key(0)), sep="/")
    rows = {path: made[path].shape[1:] for path, own in core.tables.items() if own == kind}
    module = tower.module(sum(math.prod(shape) for shape in rows.values()))
    numbers = arithmetic(precision, ())

    def init(key: Array) -> Params:
        kept = flatten_dict(core.init(key), sep="/")
        for path in rows:
            table = kept.pop(path)
            if tower.ids:
                kept[path] = table[: len(text)]
        key = named_key(key, "tower")
        own = module.init(key, {"text": text[:1]}, None)["params"]
        return {**unflatten_dict(kept, sep="/"), "tower": tower.start(own, named_key(key, "start"))}

    def said_of(params: Params) -> Array:
        """[N, n] of all texts."""
        whole, some = tower.whole(params), tower.together

        def of(text: Array) -> Array:
            return numbers.apply(module, whole, {"text": text}, None)

        of = jax.checkpoint(of) if tower.remat else of
        if not 0 < some < len(text):
            return of(text)
        padded = jnp.pad(text, [(0, -len(text) % some), *[(0, 0)] * (text.ndim - 1)])
        parts = jax.lax.map(of, padded.reshape(-1, some, *text.shape[1:]))
        return parts.reshape(-1, parts.shape[-1])[: len(text)]

    def settle(params: Params) -> Params:
        if "tower" not in params:
            return params
        named = flatten_dict({name: part for name, part in params.items() if name != "tower"}, sep="/")
        said, first = said_of(params["tower"]), 0
        for path, shape in rows.items():
            own = said[:, first : first + math.prod(shape)].reshape(len(said), *shape)
            named[path] = named[path] + own if tower.ids else own
            first += math.prod(shape)
        return unflatten_dict(named, sep="/")

    def features(params: Params, inputs: dict[str, Array]) -> dict[str, Array]:
        met: dict[str, Array] = {}

        def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
                met["/".join(("tower", *context.module.path, "kernel"))] = args[0].reshape(-1, args[0].shape[-1])
            return call(*args, **kwargs)

        with nn.intercept_methods(note):
            module.apply({"params": tower.whole(params["tower"])}, {"text": text}, None)
        trained = flatten_dict(params, sep="/")
        return {**computed.features(params, inputs), **{path: met[path] for path in met if path in trained}}

    computed = settling(core, settle, dict.fromkeys(rows, kind))
    return computed._replace(
        init=init,
        features=features,
        tables={path: own for path, own in core.tables.items() if tower.ids or path not in rows},
        of_items=lambda ids: on_texts(core, tower, take(text, kind, {kind: ids}), kind, precision),
    )


def reading(program: Callable[[Mapping[str, Any]], Program], tables: Mapping[str, Any], frozen: Any = None) -> Program:
    """One program for all side tables and frozen weights: each of its functions is that of `program(data.side)`.

    `tables` are the shapes of what it reads of `data.side`, `frozen` the weights that travel there under that name.
    `scores`, `represent`, `tables` and `evaluated` take no data: `at(side)` has them.
    """

    def at_none() -> Program:
        return program(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), dict(tables)))

    def of(name: str) -> Callable[..., Any]:
        def called(state: State, data: Data, *rest: Any) -> Any:
            return getattr(program(data.side), name)(state, data, *rest)

        return called

    def unread(*_: Any) -> Any:
        raise UserError("a program that reads side tables or frozen weights needs them: program.at(side) has this one")

    none = at_none()
    functions: Mapping[str, Any] = {name: of(name) for name in READING if getattr(none, name) is not None}
    return none._replace(
        init=lambda key: at_none().init(key),
        scores=unread,
        represent=unread,
        tables=unread,
        evaluated=unread,
        at=program,
        frozen=frozen,
        **functions,
    )
