"""From a resolved config to the parts of a run: the one place that knows the config's top-level keys."""

import copy
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from functools import partial as fixed
from typing import Any, Literal, NamedTuple

import jax
import optax
from jax import Array

from incremental.app import config as schema
from incremental.app import environment
from incremental.app.contents import within
from incremental.app.overrides import PLACES
from incremental.core.gradient import Training, make
from incremental.core.graph import EDGES, no_edges, on_edges
from incremental.core.problem import Baseline, Head, Model, problem, read
from incremental.core.program import Program
from incremental.core.sharding import Devices, over
from incremental.core.spec import Sizes, Spec
from incremental.core.strategy import Strategy
from incremental.core.tower import on_texts, reading
from incremental.core.types import Problem
from incremental.core.untied import REMEDY
from incremental.data.choosing import Sample
from incremental.data.stream import Stream
from incremental.domains import Count, checked
from incremental.errors import UserError
from incremental.metrics.metric import Metric, check
from incremental.metrics.named import resolved
from incremental.run.alone import Build
from incremental.run.policy import Update
from incremental.run.records import cutoffs

NODES = ("model", "head", "optimizer", "update", "tracking", "training", "devices", "evaluation")
"""the top level's nodes, beside the data and the strategies"""
OWN = ("name", "row", "label", "study", "seed", "runs", "base", "continue", "debug", "profile", "dry_run")
KEYS = ("data", *NODES, "strategies", *OWN)
LIVE = "live"
"""the node of `incremental-serve`, which no run has"""
HELDOUT = 0.1
"""share of each increment for the matrix R"""
TRACED = ("model", "head", "optimizer", "strategies")  # the nodes whose floats may be traced


class Evaluation(NamedTuple):
    """What is measured."""

    metrics: tuple[Any, ...]
    """names, of the label's rank, and `Metric`s"""
    matrix: bool
    """the whole matrix R on the held-out parts, after every update"""
    sample: Sample | None = None
    """what is ranked of each test; None: all of it"""
    listed: bool = False
    """whether a prequential test's candidates are also the items that its increment brings: data.unseen_items=listed"""
    new_users: Literal["popularity", "model"] = "popularity"
    """what ranks for those of whom a learned model knows nothing"""


@checked
def evaluation(
    *,
    metrics: list[str | Metric],
    matrix: bool = False,
    events: Count | None = None,
    new_users: Literal["popularity", "model"] = "popularity",
) -> Evaluation:
    """`Evaluation`, checked. With `events` each test ranks a random sample of so many of its events, the same for every
    row of a table. `new_users` "model": those too of whom it knows nothing are ranked by its scores, as its
    random start has them; a baseline has no random start, and keeps its own fallback."""
    if not metrics:
        raise UserError("evaluation.metrics is empty: name at least one, e.g. [ndcg@10]")
    measured = resolved(metrics)
    check(measured)
    return Evaluation(measured, matrix, None if events is None else Sample(events), new_users=new_users)


class Parts(NamedTuple):
    """Everything that a run needs."""

    stream: Stream
    build: Build
    update: Update
    evaluation: Evaluation
    batch_size: int | None
    """None for models without gradients"""
    seed: int
    whole: bool
    """whether tables are made for all ids of the stream from the start"""
    epochs: int = 1
    """of an update at most"""


def refuse_unknown(config: Mapping[str, Any]) -> None:
    """Refuses keys of the top level that nothing reads, and strategies that are no nodes."""
    for key in ("data", *NODES):
        if not isinstance(config.get(key), Mapping):
            raise UserError(
                f"{key}={json.dumps(config.get(key))}: expected a node with _target_ and keys of its own; leave {key} "
                "as it is, and set its keys"
            )
    strategies = config.get("strategies")
    if strategies is not None and not isinstance(strategies, Mapping):
        raise UserError(
            f"strategies={strategies!r}: expected a node by name; did you mean "
            f"+strategy@strategies.{strategies}={strategies}?"
        )
    for name, node in (strategies or {}).items():
        if isinstance(node, Mapping) and "_target_" not in node:
            raise UserError(unchosen(name, f"strategies.{name}.{next(iter(node), 'KEY')}"))
    for key, value in config.items():
        if key in (*KEYS, LIVE):
            continue
        if key in PLACES and isinstance(value, Mapping):
            choice = str(value.get("_target_", "CHOICE")).rpartition(".")[2]
            hint = f"; did you mean +{key}@{PLACES[key].format(choice)}={choice}?"
        else:
            hint = schema.meant(str(key), KEYS, schema.keys({name: config.get(name) for name in KEYS}))
        raise UserError(f"{key}: unknown key; the configuration has {', '.join(KEYS)}{hint}")


def unchosen(name: str, key: str) -> str:
    """What is wrong with a key of a strategy that is not chosen."""
    return (
        f"strategies.{name}: no strategy of this name is chosen, so that {key} has no meaning; add "
        f"+strategy@strategies.{name}=CHOICE, or leave it out"
    )


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what follows from other keys filled in where it is null.

    `training.metric` is the first of `evaluation.metrics`; `data.heldout` is 0.1 where the matrix R is asked for, else
    0. `debug=nan` is a number to a command line, and the word here.
    """
    training, data, measured = config["training"], config["data"], config["evaluation"]
    if measured.get("metrics", "") == []:
        raise UserError("evaluation.metrics=[]: expected one metric or more, such as [ndcg@10]; the first leads")
    if training.get("metric", "") is None and measured.get("metrics") and isinstance(measured["metrics"][0], str):
        training = {**training, "metric": measured["metrics"][0]}
    if data.get("heldout", 0.0) is None:
        data = {**data, "heldout": HELDOUT if measured.get("matrix") else 0.0}
    debug = config.get("debug")
    if isinstance(debug, float) and math.isnan(debug):
        config = {**config, "debug": "nan"}
    return {**config, "training": training, "data": data}


def stream_of(config: Mapping[str, Any]) -> Stream:
    """The stream of `config`, as its data is now."""
    data = completed(config)["data"]
    return _stream(json.dumps(data), json.dumps(within(data)))


def assemble(config: Mapping[str, Any], stream: Stream | None = None) -> Parts:
    """The parts that `config` (resolved, plain dicts) describes; a UserError names the key that is wrong.

    `stream` stands in place of the one that the config describes.
    """
    environment.check()
    config = completed(config)
    stream = stream_of(config) if stream is None else stream
    update = schema.build(config["update"], "update", kind=Update)
    measured = schema.build(config["evaluation"], "evaluation", kind=Evaluation)._replace(
        listed=stream.unseen_items == "listed"
    )
    if measured.sample is not None:
        measured = measured._replace(sample=measured.sample._replace(seed=config["data"].get("seed", 0)))
    steps = schema.build(config["training"], "training", kind=Training)
    spread = schema.build(config["devices"], "devices", kind=Devices)
    if not spread.distributed:
        environment.device()
    factory = schema.partial(config["model"], "model")
    # The oracle takes the stream, whose law it knows; a learned model must not.
    parameters = inspect.signature(factory.func).parameters
    if "problem" in parameters:
        raise UserError(
            f"model: {config['model']['_target_']} takes a problem, as a strategy's factory does; give it as "
            f"+strategies.NAME._target_={config['model']['_target_']}, and a model here"
        )
    given = (stream,) if "stream" in parameters else ()
    schema.takes(factory, len(given), config["model"], "model")
    model = factory(*given)
    schema.of_kind(model, (Model, Baseline), config["model"], "model")
    read(model, stream.spec)
    names = sorted(config["strategies"] or {})
    if isinstance(model, Baseline):
        if names:
            raise UserError(
                f"strategies.{names[0]}: {config['model']['_target_']} updates without gradients, so no strategy "
                "applies to it; leave strategies out, or choose another model"
            )
        if spread.batch * spread.rows > 1:
            raise UserError(f"devices: {config['model']['_target_']} runs on one device; leave devices out")
        baseline = fixed(_baseline, model, stream.spec, cutoffs(measured.metrics))
        return Parts(stream, baseline, update, measured, None, config["seed"], spread.tables == "whole")
    build = over(_learned(config, measured, stream.spec), spread, tuple(model.tables))
    if steps.batch_size % spread.batch:
        raise UserError(
            f"training.batch_size={steps.batch_size} cannot be split over devices.batch={spread.batch} devices; "
            "choose a multiple of it"
        )
    return Parts(
        stream, build, update, measured, steps.batch_size, config["seed"], spread.tables == "whole", steps.epochs
    )


def floats(config: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that may differ between the lanes of one program, by dotted key."""
    nodes = [(name, config[name]) for name in TRACED if name != "strategies"]
    nodes += [(f"strategies.{name}", node) for name, node in (config["strategies"] or {}).items()]
    return {key: value for where, node in nodes for key, value in schema.floats(node, where).items()}


LaneBuild = Callable[[Sizes, Mapping[str, Array]], Program]
"""(sizes, one lane's numbers by dotted key), the numbers traced or not"""


def lanes(configs: Sequence[Mapping[str, Any]], stream: Stream) -> tuple[LaneBuild, list[dict[str, float]]]:
    """The build of configs of learned models that differ in `floats` only, and each one's numbers that do differ."""
    numbers = [floats(config) for config in configs]
    varied = [key for key, value in numbers[0].items() if any(other[key] != value for other in numbers)]
    first = configs[0]
    measured = schema.build(first["evaluation"], "evaluation")

    def build(sizes: Sizes, own: Mapping[str, Array]) -> Program:
        return _learned(with_numbers(first, own), measured, stream.spec)(sizes)

    return build, [{key: each[key] for key in varied} for each in numbers]


def with_numbers(config: Mapping[str, Any], numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The config with these values in place of its own, by dotted key."""
    changed = copy.deepcopy(dict(config))
    for key, value in numbers.items():
        *path, last = key.split(".")
        node = changed
        for name in path:
            node = node[name]
        node[last] = value
    return changed


@lru_cache(maxsize=3)
def _stream(described: str, contents: str) -> Stream:
    """The stream of a `data` config; a sweep over methods and a few seeds reads or simulates each stream once.

    `contents` stands for what lies at its paths now.
    """
    del contents
    return schema.build(json.loads(described), "data", kind=Stream)


def _learned(config: Mapping[str, Any], measured: Evaluation, spec: Spec) -> Build:
    """The build of a learned model."""
    model, head = schema.build(config["model"], "model"), schema.build(config["head"], "head", kind=Head)
    optimizer, steps = schema.partial(config["optimizer"], "optimizer"), schema.build(config["training"], "training")
    schema.of_kind(optimizer(), optax.GradientTransformation, config["optimizer"], "optimizer")
    factories = {
        name: schema.partial(node, f"strategies.{name}") for name, node in (config["strategies"] or {}).items()
    }
    for name, node in (config["strategies"] or {}).items():
        schema.takes(factories[name], 1, node, f"strategies.{name}")  # the problem
    made = fixed(_program, model, head, optimizer, factories, steps, measured, spec)
    if model.tower is not None and "text" not in spec.side:
        raise UserError("model: it computes items from their texts, but data.text=null: +text@data.text=hashed_words")
    if model.tower is not None and head.init is not None:
        raise UserError(f"model: it computes items from their texts, but the head has parameters of its own; {REMEDY}")
    if model.graph is not None and model.tower is not None:
        raise UserError("model: tables are computed over a graph or from texts, not both; choose another model.model")
    if model.graph is not None and head.init is not None:
        raise UserError(f"model: it computes its tables over a graph, but the head has parameters of its own; {REMEDY}")
    if model.tower is None and model.graph is None and model.frozen is None:
        return made
    weights = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), model.frozen)

    def build(sizes: Sizes) -> Program:
        tables: dict[str, Any] = {}
        if model.frozen is not None:
            tables["frozen"] = weights
        if model.tower is not None:
            text = spec.side["text"]
            tables["text"] = jax.ShapeDtypeStruct((sizes[text.kind or ""], *text.shape), text.dtype)
        if model.graph is None:
            by_text = model.tower is not None and not model.tower.ids
            return reading(fixed(made, sizes), tables, model.frozen)._replace(by_text=by_text)
        tables[EDGES] = no_edges()
        return reading(fixed(made, sizes), tables, model.frozen)._replace(window=model.graph.window)

    return build


def _made(name: str, factory: Any, own: Problem) -> Strategy:
    """The strategy; a hook that there is not is the plugin author's mistake, not a traceback."""
    try:
        strategy: Strategy = factory(own)
    except TypeError as error:
        if not str(error).startswith("Strategy.__new__() got an unexpected keyword"):
            raise
        known = ", ".join(Strategy._fields)
        said = str(error).removeprefix("Strategy.__new__() ")
        raise UserError(f"strategies.{name}: {said}; hooks are {known}") from None
    return strategy


def _baseline(model: Baseline, spec: Spec, ks: tuple[int, ...], sizes: Sizes) -> Program:
    return model.program(spec, sizes, ks)


def _program(
    model: Model,
    head: Head,
    optimizer: Any,
    factories: Mapping[str, Any],
    steps: Training,
    measured: Evaluation,
    spec: Spec,
    sizes: Sizes,
    side: Mapping[str, Any] = {},
) -> Program:
    model = model.given(side["frozen"]) if model.given is not None and "frozen" in side else model
    own = problem(model, head, spec, sizes, precision=steps.precision, sharing=steps.sharing)
    if model.tower is not None:
        own = on_texts(own, model.tower, side["text"], spec.side["text"].kind or "", steps.precision)
    if model.graph is not None:
        own = on_edges(own, model.graph, side[EDGES])

    def strategies(own: Problem) -> dict[str, Strategy]:
        return {name: _made(name, factory, own) for name, factory in factories.items()}

    ks, fallback = cutoffs(measured.metrics), measured.new_users == "popularity"
    return make(own, optimizer(), strategies, sizes=sizes, training=steps, cutoffs=ks, fallback=fallback)
