"""`Strategy`: what makes an update more than plain training, as pure functions over the strategy's own state.

A hook named by a noun returns that noun; `begin`, `prepare`, `record` and `end` return the strategy's state, and
only `begin` and `end` may rewrite the learner. Every field has an identity default, so a strategy names what it needs.
"""

import inspect
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core import mirrors
from incremental.core.types import Batch, Data, Learner, Outputs, Params, PyTree, Step
from incremental.errors import UserError


class Strategy(NamedTuple):
    """Thirteen pure functions; S is the strategy's own pytree, of constant shape between two growths of the tables.

    `begin` and `end` may name a further argument: `fit(params, data, key, epochs=training.epochs) -> params` is plain
    training on an update's examples, without strategies, from fresh moments. With `of` the model's parameters are
    `of(params)`, with `tx` another optimizer trains them. It is compiled only where it is called.

    Attributes:
        init: (learner) -> S
        begin: (S, learner, data, key, fit) -> (S, learner), with the upcoming increment's data; `fit` may be left out
        prepare: (S, learner, data, key) -> S, before every epoch of an increment: what each epoch has anew, such as
            clusters of the present vectors
        batch: (S, batch, key) -> batch; the only hook that may draw rows, which it appends or leaves in `batch.memory`
        view: (S, params, increment, training) -> the params that the model sees, in training and in evaluation
        loss: (S, params, batch, outputs) -> scalar added to the data loss, under the gradient
        grads: (S, grads, params, grad_fn, batch, key) -> grads; `grad_fn(batch, params=params)` is the data loss's
            gradient on other examples, at other parameters, `grad_fn.examples(batch)` that of each example
            (`incremental.core.steps.DataGradient`)
        updates: (S, updates, params) -> the updates actually added
        record: (S, step, key) -> S, after every step of every epoch
        end: (S, learner, data, key, fit) -> (S, learner), with the finished increment's data; `fit` may be left out
        report: (S) -> scalars by name, after every epoch: what the strategy has to say of itself, for the curves
        rebase: (params, key) -> other params of the same function; after every part's `end` but the base part's, for
            the learner and for every `Anchor` and `Teacher`
        scores: (S, scores, inputs, training) -> the scores [B, V] that are ranked and served and, in training, that
            losses read in `Outputs`; in evaluation before items that are no candidates are left out
        early: whether it acts in the base part too; else it keeps its books there (`begin`, `record`, `end`), changes
            nothing, and the base part is plain training
        late: whether `record` too acts from increment 1 on, so that it follows no step of the base part, which may then
            be another run's (`base=RUN`)
    """

    init: Callable[[Learner], PyTree] = lambda _learner: ()
    begin: Callable[..., tuple[PyTree, Learner]] = lambda state, learner, _data, _key: (
        state,
        learner,
    )
    batch: Callable[[PyTree, Batch, Array], Batch] = lambda _state, batch, _key: batch
    view: Callable[[PyTree, Params, Array, bool], Params] = lambda _state, params, _increment, _training: params
    loss: Callable[[PyTree, Params, Batch, Outputs], Any] = lambda _state, _params, _batch, _outputs: 0.0
    grads: Callable[[PyTree, Params, Params, Any, Batch, Array], Params] = (
        lambda _state, grads, _params, _grad_fn, _batch, _key: grads
    )
    updates: Callable[[PyTree, Params, Params], Params] = lambda _state, updates, _params: updates
    record: Callable[[PyTree, Step, Array], PyTree] = lambda state, _step, _key: state
    end: Callable[..., tuple[PyTree, Learner]] = lambda state, learner, _data, _key: (
        state,
        learner,
    )
    report: Callable[[PyTree], dict[str, Any]] = lambda _state: {}
    rebase: mirrors.Rebase = lambda params, _key: params
    scores: Callable[[PyTree, Array, dict[str, Array], bool], Array] = lambda _state, scores, _inputs, _training: scores
    prepare: Callable[[PyTree, Learner, Data, Array], PyTree] = lambda state, _learner, _data, _key: state
    early: bool = False
    late: bool = False


PLAIN = Strategy()
ACTING = (
    "prepare",
    "batch",
    "view",
    "loss",
    "grads",
    "updates",
    "scores",
)  # the hooks that act from the first increment on


def books(part: Strategy) -> Strategy:
    """The strategy in the base part: its state is kept, the learner, the batch and the step are left alone."""
    left = (*ACTING, "record") if part.late else ACTING
    return part if part.early else part._replace(**{hook: getattr(PLAIN, hook) for hook in left})


def after_base(increment: Array, changed: PyTree, plain: PyTree) -> PyTree:
    """`changed` from increment 1 on, `plain` before: what a strategy returns in the base part is left out.

    Both are dicts of dicts of arrays where they are parameters; an array that a view adds stays as it is.
    """
    if isinstance(changed, dict) and isinstance(plain, dict):
        return {name: after_base(increment, leaf, plain[name]) if name in plain else leaf
                for name, leaf in changed.items()}  # fmt: skip
    return jax.tree.map(lambda new, old: new if new is old else jax.lax.select(increment > 0, new, old), changed, plain)


def named_key(key: Array, name: str) -> Array:
    """A key of its own for each name, so that adding a strategy leaves the others' draws alone."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


HOOKS = {
    "init": ("learner",),
    "begin": ("S", "learner", "data", "key"),
    "prepare": ("S", "learner", "data", "key"),
    "batch": ("S", "batch", "key"),
    "view": ("S", "params", "increment", "training"),
    "loss": ("S", "params", "batch", "outputs"),
    "grads": ("S", "grads", "params", "grad_fn", "batch", "key"),
    "updates": ("S", "updates", "params"),
    "record": ("S", "step", "key"),
    "end": ("S", "learner", "data", "key"),
    "rebase": ("params", "key"),
    "report": ("S",),
    "scores": ("S", "scores", "inputs", "training"),
}


def scalar(what: str, value: Any) -> Array:
    """What a strategy gives, as an array; a UserError where it is no scalar."""
    given = jnp.asarray(value)
    if given.shape:
        raise UserError(f"strategies.{what} shape {list(given.shape)}, expected a scalar; give its sum or its mean")
    return given


def alike(what: str, returned: PyTree, given: PyTree) -> None:
    """A UserError where a hook returns an array of another shape than it was given, one more or one less."""
    new, old = (
        {jax.tree_util.keystr(path): list(jnp.shape(leaf)) for path, leaf in jax.tree.leaves_with_path(tree)}
        for tree in (returned, given)
    )
    for path in [*old, *new]:
        if new.get(path) != old.get(path):
            was, now = (f"shape {tree[path]}" if path in tree else "nothing" for tree in (old, new))
            raise UserError(f"strategies.{what} returned {now}{f' at {path}' * bool(path)}, where it was given {was}")


FITTING = "begin", "end"  # the hooks that may name the argument `fit`


def asks(hook: Callable[..., Any]) -> bool:
    """Whether `begin` or `end` names the argument `fit`."""
    return "fit" in inspect.signature(hook).parameters


def _refuse_hook(where: str, hook: Any, takes: tuple[str, ...], fitting: bool) -> None:
    """A hook that cannot be called as it will be, before anything is compiled; `fitting`: it may name `fit`."""
    if not callable(hook):
        raise UserError(f"{where} is {hook!r}: expected a function of ({', '.join(takes)}); leave it out if not needed")
    more: dict[str, str] = {}
    try:
        more = {"fit": "fit"} if fitting and asks(hook) else {}
        inspect.signature(hook).bind(*takes, **more)
    except TypeError as error:
        raise UserError(f"{where} must take ({', '.join((*takes, *more))}): {error}") from None


def chain(**parts: Strategy) -> Strategy:
    """Strategies applied in the order given, each with its own state and random stream under its name.

    Nouns are threaded from part to part; `loss` returns a dict of each part's term by name, `report` one of all parts'
    scalars by "NAME/KEY".
    """
    for name, part in parts.items():
        if not isinstance(part, Strategy):
            raise UserError(
                f"strategies.{name}: expected a Strategy, got {type(part).__name__}; a factory takes the problem "
                "and returns Strategy(...)"
            )
        for hook, takes in HOOKS.items():
            _refuse_hook(f"strategies.{name}: the hook `{hook}`", getattr(part, hook), takes, hook in FITTING)

    def kept(name: str, hook: str, learner: Learner, returned: Any) -> tuple[PyTree, Learner]:
        """What `begin` or `end` returned, without what it did to the learner of the base part."""
        pair = isinstance(returned, tuple) and len(returned) == 2
        if not pair or not isinstance(returned[1], Learner):
            raise UserError(
                f"strategies.{name}: the hook `{hook}` returned {type(returned).__name__}, expected (S, learner): its "
                "state and the learner that it was given, changed or not"
            )
        (own, changed), part = returned, parts[name]
        alike(f"{name}: the hook `{hook}`", changed, learner)
        if part.early or changed is learner:
            return own, changed
        return own, after_base(learner.increment, changed, learner)

    rebasing = {name: part.rebase for name, part in parts.items() if part.rebase is not Strategy().rebase}

    def init(learner: Learner) -> dict[str, PyTree]:
        states = {name: part.init(learner) for name, part in parts.items()}
        for name, own in states.items():
            for leaf in jax.tree.leaves(own):
                if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float):
                    raise UserError(f"strategies.{name}: the hook `init` gives {leaf!r}, expected arrays and numbers")
        for name, rebase in rebasing.items():
            mirrors.refuse_kept(name, rebase, states, learner.params)
        return states

    def begin(state: Any, learner: Learner, data: Data, key: Array, fit: Any = None) -> tuple[PyTree, Learner]:
        new = {}
        for name, part in parts.items():
            more = {"fit": fit} if asks(part.begin) else {}
            returned = part.begin(state[name], learner, data, named_key(key, name), **more)
            new[name], learner = kept(name, "begin", learner, returned)
        return new, learner

    def prepare(state: Any, learner: Learner, data: Data, key: Array) -> dict[str, PyTree]:
        return {name: part.prepare(state[name], learner, data, named_key(key, name)) for name, part in parts.items()}

    def batch(state: Any, batch: Batch, key: Array) -> Batch:
        memory = {}
        for name, part in parts.items():
            changed: Any = part.batch(state[name], batch._replace(memory=None), named_key(key, name))
            if not isinstance(changed, Batch):
                raise UserError(
                    f"strategies.{name}: the hook `batch` returned {type(changed).__name__}, expected the Batch that "
                    "it was given, changed or not"
                )
            batch = changed
            memory[name] = batch.memory
        return batch._replace(memory=memory)

    def own(batch: Batch, name: str) -> Batch:
        """The batch with the memory that this part left in it; none where `batch` is left out, in the base part."""
        return batch._replace(memory=batch.memory and batch.memory[name])

    def view(state: Any, params: Params, increment: Array, training: bool) -> Params:
        for name, part in parts.items():
            viewed = part.view(state[name], params, increment, training)
            acts = training or part.early or viewed is params
            params = viewed if acts else after_base(increment, viewed, params)
        return params

    def loss(state: Any, params: Params, batch: Batch, outputs: Outputs) -> dict[str, Any]:
        terms = {
            name: part.loss(state[name], params, own(batch, name), outputs)
            for name, part in parts.items()
            if part.loss is not Strategy().loss
        }
        for name, term in terms.items():
            for each in jax.tree.leaves(term):  # a chain's own are several
                scalar(f"{name}: the hook `loss` gives", each)
        return terms

    def grads(state: Any, grads: Params, params: Params, grad_fn: Any, batch: Batch, key: Array) -> Params:
        for name, part in parts.items():
            given = grads
            grads = part.grads(state[name], given, params, grad_fn, own(batch, name), named_key(key, name))
            alike(f"{name}: the hook `grads`", grads, given)
        return grads

    def scores(state: Any, scores: Array, inputs: dict[str, Array], training: bool) -> Array:
        for name, part in parts.items():
            given = scores
            scores = part.scores(state[name], given, inputs, training)
            alike(f"{name}: the hook `scores`", scores, given)
        return scores

    def updates(state: Any, updates: Params, params: Params) -> Params:
        for name, part in parts.items():
            given = updates
            updates = part.updates(state[name], given, params)
            alike(f"{name}: the hook `updates`", updates, given)
        return updates

    def record(state: Any, step: Step, key: Array) -> dict[str, PyTree]:
        return {
            name: part.record(state[name], step._replace(batch=own(step.batch, name)), named_key(key, name))
            for name, part in parts.items()
        }

    def end(state: Any, learner: Learner, data: Data, key: Array, fit: Any = None) -> tuple[PyTree, Learner]:
        new = {}
        for name, part in parts.items():
            more = {"fit": fit} if asks(part.end) else {}
            returned = part.end(state[name], learner, data, named_key(key, name), **more)
            new[name], learner = kept(name, "end", learner, returned)
        for name, rebase in rebasing.items():
            new, learner = mirrors.rebased(rebase, new, learner, named_key(key, name))
        return new, learner

    def report(state: Any) -> dict[str, Any]:
        said = {}
        for name, part in parts.items():
            for key, value in part.report(state[name]).items():
                said[f"{name}/{key}"] = scalar(f"{name}: the hook `report` gives {key!r} of", value)
        return said

    early = all(part.early for part in parts.values())
    late = all(part.late for part in parts.values() if part.record is not PLAIN.record)
    whole = Strategy(
        init, begin, batch, view, loss, grads, updates, record, end, report, prepare=prepare, early=early, late=late
    )
    corrects = any(part.scores is not Strategy().scores for part in parts.values())
    return whole._replace(scores=scores) if corrects else whole
