"""`problem`: a Linen model and a head, at given capacities, as the pure functions of a `Problem`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax import Array

from incremental.core.graph import Graph
from incremental.core.packing import Tokens
from incremental.core.precision import Precision, arithmetic
from incremental.core.prefixes import Sharing, by_prefix
from incremental.core.program import Program
from incremental.core.spec import Input, Sizes, Spec
from incremental.core.strategy import Strategy, named_key
from incremental.core.tower import Tower
from incremental.core.types import Batch, Outputs, Params, Problem
from incremental.errors import UserError

LABELS = "labels"
"""in `Model.tables`: the kind of the labels, whatever it is"""


class Model(NamedTuple):
    """A recommender without capacities. Its modules have two methods:

    `__call__(inputs, key) -> hidden [B, D]` (key=None is deterministic) and `items() -> (table [V, D], bias [V])`.
    The score of an item is hidden · table[item] + bias[item].

    Attributes:
        module: (sizes, what an example holds of its inputs)
        inputs: what it reads of an example, by the names that the data has: "user", "history", …
        tables: path of each id table in the parameters -> the kind of its ids; LABELS stands for that of the labels
        wants: the shapes that it needs of inputs, where they are its own parameters' and not the data's
        labels: the kind of the ids that it scores; None: any
        tower: how items' rows are computed from their texts; None: ids alone
        graph: how the tables are computed over the graph of users and items; None: they are the parameters
        frozen: weights that are not trained, a tree on the host; they travel with the data, as arguments of the
            compiled functions
        given: (frozen, on the device) -> the model with these weights
        looked_up: paths of other tables that rows are gathered from, as of positions: float32 in every
            `training.precision`
        sequence: of a causal model, the input that it reads and nothing else: its modules have a third method,
            `encode(tokens, key) -> hidden [b, D]` (`core.packing.Tokens`), which gives a history the same vector in
            every layout and whatever follows it; None: histories cannot share a run
    """

    module: Callable[[Sizes, Mapping[str, Input]], nn.Module]
    inputs: tuple[str, ...]
    tables: dict[str, str]
    wants: Mapping[str, tuple[int, ...]] = {}
    labels: str | None = None
    tower: Tower | None = None
    graph: Graph | None = None
    frozen: Any = None
    given: "Callable[[Any], Model] | None" = None
    looked_up: tuple[str, ...] = ()
    sequence: str | None = None


class Baseline(NamedTuple):
    """A model without gradients, which brings its own program: no head, no optimizer, no strategies.

    Attributes:
        build: (what an example holds of its inputs, sizes, cutoffs)
        inputs: what it reads of an example
        labels: the kind of the ids that it scores; None: any
        wants: the shapes that it needs of inputs
    """

    build: Callable[[Mapping[str, Input], Sizes, tuple[int, ...]], Program]
    inputs: tuple[str, ...]
    labels: str | None = None
    wants: Mapping[str, tuple[int, ...]] = {}

    def program(self, spec: Spec, sizes: Sizes, cutoffs: tuple[int, ...]) -> Program:
        """Its program for examples as the spec says."""
        return self.build(read(self, spec), sizes, cutoffs)


class Items(NamedTuple):
    """The output side of a model.

    Attributes:
        table: [V, D] float32
        bias: [V] float32
    """

    table: Array
    bias: Array


class Head(NamedTuple):
    """A training loss over the catalogue and, where it draws or counts, its strategy.

    Most heads score with the model's items. One with parameters of its own, kept under "head", scores with those; what
    its strategy's `view` adds to them reaches `loss` and `scores`.

    Attributes:
        loss: (Items or own parameters, outputs, batch) -> [B] float32
        strategy: its own, where it draws or counts
        init: (key, sizes, D) -> own parameters, for `sizes.slots` labels
        scores: (own parameters, hidden [B, D]) -> [B, V]; None where the strategy's view is missing
        tied: for own parameters that stand beside the model's items: (parameters -> Items) -> the head's strategy.
            `loss` and `scores` find the `Items` among the own parameters, as "items".
        negative: whether a row's loss may be below 0; else a step whose data loss is stops the run
        together: whether a row's loss reads the batch's other rows, as where their labels are its negatives; gradients
            of single examples are then refused
    """

    loss: Callable[[Any, Outputs, Batch], Array]
    strategy: Strategy | None = None
    init: Callable[[Array, Sizes, int], Params] | None = None
    scores: Callable[[Params, Array], Any] | None = None
    tied: Callable[[Callable[[Params], Items]], Strategy] | None = None
    negative: bool = False
    together: bool = False


def read(model: "Model | Baseline", spec: Spec) -> dict[str, Input]:
    """What an example holds of the inputs that the model reads; a UserError says where data and model do not fit."""
    there = ", ".join(spec.inputs)
    for name in model.inputs:
        if name not in spec.inputs:
            raise UserError(
                f"model: it reads {name!r}, which the data's examples do not hold; they hold {there}; add it "
                "(data.features, data.task; the file of the model says how), or choose another model"
            )
        given = spec.inputs[name]
        if jnp.issubdtype(given.dtype, jnp.integer) and given.kind is None:
            raise UserError(f"data.features.{name}: whole numbers index a table; say of which kind of ids they are")
        wanted = model.wants.get(name, given.shape)
        if wanted != given.shape:
            raise UserError(f"model: it reads {name!r} of shape {list(wanted)}, the data makes {list(given.shape)}")
    if model.labels not in (None, spec.labels):
        raise UserError(
            f"model: it scores ids of the kind {model.labels!r}, but the labels are of the kind {spec.labels!r}; "
            "choose a model for this task, or another data.task"
        )
    return {name: spec.inputs[name] for name in model.inputs}


def problem(
    model: Model,
    head: Head,
    spec: Spec,
    sizes: Sizes,
    *,
    precision: Precision = "float32",
    sharing: Sharing = "none",
) -> Problem:
    """The problem of `model` with `head` at these capacities; `spec` says what the data's examples hold.

    With `sharing` "prefix" the examples of a batch whose histories are prefixes of one another share one run of the
    model (`core.prefixes`).
    """
    if sharing == "prefix" and model.sequence is None:
        raise UserError(
            "training.sharing=prefix: the model does not say that an event's hidden vector is the same whatever "
            "follows (Model.sequence); choose gru4rec, hstu without model.relative_time, or sasrec with "
            "model.positions=left, or leave training.sharing out"
        )
    shared = model.sequence if sharing == "prefix" else None
    numbers = arithmetic(precision, (*model.tables, *model.looked_up))
    given = read(model, spec)
    inputs = {name: jax.ShapeDtypeStruct(each.shape, each.dtype) for name, each in given.items()}
    kinds = (jnp.int32, jnp.float32, jnp.bool_, jnp.int32, jnp.int32)
    scalars: Any = [jax.ShapeDtypeStruct((), kind) for kind in kinds]
    example = Batch(inputs, *scalars)
    tables = {path: spec.labels if kind == LABELS else kind for path, kind in model.tables.items()}

    def of(params: Params) -> nn.Module:
        """The module at the capacities of these tables: a compact step has fewer rows (`core.compaction`)."""
        named = flatten_dict(params, sep="/")
        if wrong := [path for path in tables if path not in named]:
            raise UserError(
                f"model: tables names {wrong[0]!r}, which is none of its parameters: {', '.join(sorted(named))}"
            )
        return model.module(sizes.replace(**{kind: len(named[path]) for path, kind in tables.items()}), given)

    untied = head.init is not None and head.tied is None

    def init(key: Array) -> Params:
        module = model.module(sizes, given)
        one = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape), leaf.dtype), inputs)

        def sides(module: Any, rows: Any) -> Any:
            # Both sides of the model, or Linen would leave out tables that only one of them touches; which is wanted
            # where a head does without the model's items.
            return module(rows, None), None if untied else module.items()

        (hidden, _), made = module.init_with_output(key, one, method=sides)
        if head.init is None:
            return made["params"]
        return {**made["params"], "head": head.init(named_key(key, "head"), sizes, hidden.shape[1])}

    if untied:
        made = flatten_dict(jax.eval_shape(lambda: init(jax.random.key(0))), sep="/")
        tables = {path: kind for path, kind in tables.items() if path in made}

    def items(params: Params) -> Items:
        return Items(*of(params).apply({"params": params}, method="items"))

    def side(params: Params) -> Any:
        """What the head scores with."""
        if head.init is None:
            return items(params)
        return params["head"] if head.tied is None else {**params["head"], "items": items(params)}

    def represent(params: Params, inputs: dict[str, Array], key: Array | None) -> Array:
        module = of(params)
        if shared is None:
            return numbers.apply(module, params, inputs, key)

        def encode(tokens: Tokens, key: Array | None) -> Array:
            return numbers.apply(module, params, tokens, key, method="encode")

        return by_prefix(encode, inputs[shared], key)

    def apply(params: Params, inputs: dict[str, Array], *, key: Array | None = None) -> Outputs:
        hidden = represent(params, inputs, key)
        if head.scores is not None:
            return Outputs(hidden, head.scores(side(params), hidden))
        out = items(params)
        return Outputs(hidden, numbers.product(hidden, out.table) + out.bias)

    def scores(params: Params, outputs: Outputs, rows: Array, of: Array | slice = slice(None)) -> Array:
        if head.scores is not None:  # of what a view has made of the head's parameters
            return outputs.scores[rows][:, of]
        # XLA does not take rows and items before a product: of `outputs.scores[rows][:, of]` it would compute all.
        kind, out = outputs.hidden.dtype, items(params)
        return (numbers.product(outputs.hidden[rows], out.table[of]) + out.bias[of]).astype(kind)

    def loss(params: Params, outputs: Outputs, batch: Batch) -> Array:
        return head.loss(side(params), outputs, batch)

    def features(params: Params, inputs: dict[str, Array]) -> dict[str, Array]:
        module = of(params)

        def of_one(row: dict[str, Array]) -> dict[str, Array]:
            met: dict[str, Array] = {}

            def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
                if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
                    met["/".join((*context.module.path, "kernel"))] = args[0].reshape(-1, args[0].shape[-1])
                return call(*args, **kwargs)

            with nn.intercept_methods(note):
                module.apply({"params": params}, jax.tree.map(lambda leaf: leaf[None], row), None)
            return met

        met = jax.vmap(of_one)(inputs)  # one row at a time takes no branch on the batch's lengths
        trained = flatten_dict(params, sep="/")
        return {path: entered.reshape(-1, entered.shape[-1]) for path, entered in met.items() if path in trained}

    strategy = head.tied(items) if head.tied is not None else head.strategy
    return Problem(
        init,
        apply,
        loss,
        example,
        tables,
        strategy,
        features,
        scores,
        negative=head.negative,
        inputs=given,
        labels=spec.labels,
        together=head.together,
        sequence=shared,
        items=None if untied else items,
    )
