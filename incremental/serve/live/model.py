"""A version that serves: a program's compiled functions by number of requests, and the state that they are given."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from incremental.app import config as schema
from incremental.app.assemble import assemble
from incremental.app.bases import ALONE, config_of
from incremental.app.trust import refuse_strangers
from incremental.core.program import Program
from incremental.core.ranking import top_k
from incremental.core.spec import Sizes
from incremental.core.types import Evaluated, Params, State
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.log.engine import Log
from incremental.run.alone import Build, like
from incremental.run.capacity import capacity
from incremental.run.feed import padded, read_by, unfit, within
from incremental.serve.live import versions
from incremental.serve.live.cuts import Cuts
from incremental.serve.live.feed import Cutter
from incremental.serve.live.making import Making
from incremental.serve.live.people import Asked, People
from incremental.serve.live.products import apart
from incremental.serve.live.tail import Tail
from incremental.serve.live.texts import Places, Texts

BUCKETS = (1, 8, 64, 256)  # requests that a compiled function answers
TOGETHER = 1024  # rows that are filled at once
EPSILON = 1e-12
Side = Mapping[str, Any]


class Best(NamedTuple):
    """The best items of a request.

    Attributes:
        items: [n] their numbers, best first
        scores: [n] float32
        fallback: they are ranked by the number of their training events, as the model knows nothing of the user
    """

    items: np.ndarray
    scores: np.ndarray
    fallback: bool


class Functions:
    """A program's functions, compiled for each bucket once; versions of the same capacities share them."""

    def __init__(self, program: Program, most: int, side: Mapping[str, Any] = {}) -> None:
        self.program, self.most = program, min(most, program.sizes.slots)
        self.top = jax.jit(partial(top, program, self.most))
        self.score = jax.jit(partial(score, program))
        self.seen = jax.jit(partial(params_seen, program))
        self.put = jax.jit(put, donate_argnums=(0, 1))
        self.warm = False
        self.near = jax.jit(partial(near, program, self.most)) if table_of(program, side) else None


def beside(program: Program, side: Side) -> Program:
    """The program with its side tables and frozen weights, if it reads any."""
    return program if program.at is None else program.at(side)


def top(
    program: Program, k: int, state: State, inputs: dict[str, Array], had: Array, side: Side
) -> tuple[Array, Array, Array]:
    """[B, k] the best scores and their items, -inf where there are fewer; [B] whether they are but event counts.

    `had` [B, V] bool: items that are left out.
    """

    def said(state: State, inputs: dict[str, Array], side: Side) -> Array:
        return beside(program, side).scores(state, inputs)

    scores = apart(said)(state, inputs, side)
    values, items = top_k(jnp.where(had, -jnp.inf, scores), k)
    # Of all scores are looked at only those of whom the best ones leave it open.
    may = ((values == state.learner.catalogue.events[items]) | (values == -jnp.inf)).all(1)
    return values, items, jax.lax.cond(may.any(), lambda: counted(state, scores), lambda: may)


def score(program: Program, state: State, inputs: dict[str, Array], item: Array, side: Side) -> tuple[Array, Array]:
    """[B] the scores of one item, and whether they are but event counts."""
    scores = beside(program, side).scores(state, inputs)
    return scores[:, item], counted(state, scores)


def counted(state: State, scores: Array) -> Array:
    """[B] bool: whether the scores are the items' training events, the fallback of `incremental.core.ranking`."""
    catalogue = state.learner.catalogue
    return ((scores == catalogue.events) | ~catalogue.seen).all(1)


def table_of(program: Program, side: Side) -> str:
    """The name of the first item table of vectors; "" for a model without any."""
    tables = jax.eval_shape(lambda side: beside(program, side).tables(program.init(jax.random.key(0))), side)["item"]
    return next((name for name, table in tables.items() if len(table.shape) == 2), "")


def params_seen(program: Program, state: State, side: Side) -> Params:
    """The parameters that rankings see: of items that are computed from texts, the tables."""
    evaluated = beside(program, side).evaluated
    return state.learner.params if evaluated is None else evaluated(state).learner.params


def put(text: Array, seen: Array, rows: Array, values: Array) -> tuple[Array, Array]:
    """The texts [V, ...] and the candidates [V] with those of `rows` [n]; a row beyond V is nobody's."""
    return text.at[rows].set(values, mode="drop"), seen.at[rows].set(True, mode="drop")


def near(program: Program, k: int, state: State, item: Array, side: Side) -> tuple[Array, Array]:
    """[k] the items whose vectors have the largest cosines to the item's, and these; -inf where there are fewer."""
    table = beside(program, side).tables(state)["item"][table_of(program, side)].astype(jnp.float32)
    table = table / jnp.maximum(jnp.linalg.norm(table, axis=1, keepdims=True), EPSILON)
    candidates = state.learner.catalogue.seen & (jnp.arange(len(table)) != item)
    values, items = top_k(jnp.where(candidates, table @ table[item], -jnp.inf)[None], k)
    return items[0], values[0]


class Model:
    """One version. A request reads the reference to it once, so that it is answered by one version; between two of
    them it takes up items that it knows by their titles.

    `stream` says what features there are, `side` [V, ...] holds what the program reads beside its state.
    """

    def __init__(
        self,
        learner: str,
        number: int,
        found: versions.Version,
        functions: Functions,
        stream: Stream,
        places: Places,
        side: Mapping[str, Any] = {},
    ) -> None:
        self.learner, self.number, self.cut, self.sizes = learner, number, found.cut, found.sizes
        self.functions, self.features = functions, stream.features
        catalogue = found.state.learner.catalogue
        self.seen = np.asarray(catalogue.seen)
        self.items = int(self.seen.sum())
        others = {kind: np.asarray(ids) for kind, ids in catalogue.arrived.items()}
        self.known = read_by(functions.program.inputs, {found.sizes.labels: self.seen, **others})
        self.state = jax.tree.map(placed, found.state)
        self.places, self.side = places, jax.tree.map(placed, dict(side))
        self.evaluated: State | None = None

    def look(self, people: People) -> None:
        """Takes up the items whose titles have come since the last look, where titles are all that they need."""
        rows, values = self.places.new(people)
        for first in range(0, len(rows), TOGETHER):
            self.take(rows[first : first + TOGETHER], values[first : first + TOGETHER])

    def take(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Items in these rows are candidates, with these texts."""
        padding = TOGETHER - len(rows)
        rows = np.pad(rows, (0, padding), constant_values=self.sizes.slots)
        values = np.pad(values, [(0, padding)] + [(0, 0)] * (values.ndim - 1))
        learner = self.state.learner
        self.side["text"], seen = self.functions.put(self.side["text"], learner.catalogue.seen, rows, values)
        self.state = self.state._replace(learner=learner._replace(catalogue=learner.catalogue._replace(seen=seen)))
        self.evaluated = None

    @property
    def ready(self) -> State:
        """The state as the program's functions take it, where it reads texts: they are read once, and not a request."""
        if not self.side:
            return self.state
        if self.evaluated is None:
            learner = self.state.learner._replace(params=self.functions.seen(self.state, self.side))
            self.evaluated = Evaluated(*self.state._replace(learner=learner))
        return self.evaluated

    def row(self, people: People, item: str) -> int:
        """The row of an item that was learnt, or is known by its title; 0: neither."""
        row = self.places.of(people, item)
        return row if row >= self.places.first or self.seen[row] else 0

    def named(self, people: People, row: int) -> dict[str, Any]:
        """A row's item as an answer has it."""
        return people.named(self.places.name(people, row)) | ({} if row < self.places.first else {"learned": False})

    def inputs(self, people: People, asked: Sequence[Asked], rows: int) -> dict[str, np.ndarray]:
        """The program's inputs for these users, padded to `rows`."""
        program = self.functions.program
        log, examples = people.examples(asked, rows, self.known)
        values = {name: self.features[name].of(log, examples) for name in program.inputs}
        return within(values, program.inputs, self.sizes)

    def best(self, people: People, asked: Sequence[Asked], exclude: Sequence[bool]) -> list[Best]:
        """The best items for each user, at most 256 of them; without those had where `exclude` says so."""
        rows = bucket(len(asked))
        had = np.zeros((rows, self.sizes.slots), bool)
        for row, (each, leave) in enumerate(zip(asked, exclude, strict=True)):
            if leave:
                had[row, self.places.had(people, each.had)] = True
        inputs = self.inputs(people, asked, rows)
        values, items, fallback = map(np.asarray, self.functions.top(self.ready, inputs, had, self.side))
        found = []
        for row in range(len(asked)):
            number = int((values[row] > -np.inf).sum())
            found.append(Best(items[row, :number], values[row, :number], bool(fallback[row])))
        return found

    def similar(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """[n] the nearest items by the cosine of their vectors, the nearest first, and the cosines."""
        assert self.functions.near is not None  # whoever asks has looked
        items, values = jax.device_get(self.functions.near(self.ready, np.int32(item), self.side))
        number = int((values > -np.inf).sum())
        return items[:number], values[:number]

    def explain(self, people: People, asked: Asked, item: int) -> tuple[float, list[tuple[int, float | None]]]:
        """The item's score, and for each of the last events that the model reads, the oldest first: its item, and by
        how much the score is smaller without it; None where the model knows nothing of the user without it."""
        events = asked.recent
        read = any(self.features[name].past != "unread" for name in self.functions.program.inputs)
        places = [*people.last(events, self.known)[-(BUCKETS[-1] - 1) :]] if read else []
        without = [asked._replace(recent=np.delete(events, place)) for place in places]
        rows = [asked, *without]
        inputs = self.inputs(people, rows, bucket(min(people.length + 1, BUCKETS[-1])))
        scores, fallback = jax.device_get(self.functions.score(self.ready, inputs, np.int32(item), self.side))
        if fallback[0]:
            return float(scores[0]), []
        return float(scores[0]), [
            (int(events["item"][place]), None if fallback[row] else float(scores[0] - scores[row]))
            for row, place in enumerate(places, 1)
        ]

    def warm(self, people: People) -> None:
        """Compiles what requests need, or the first of them would wait, and all behind it."""
        if self.functions.warm:
            return
        nobody = people.ask("")
        for rows in BUCKETS:
            self.best(people, [nobody] * rows, [False] * rows)
        self.explain(people, nobody, 0)
        if self.functions.near is not None:
            self.similar(0)
        if self.places.texts is not None:
            self.take(np.zeros(0, np.int32), self.places.texts.of([]))
        self.functions.warm = True


def roomy(sizes: Sizes, there: Collection[Sizes], first: int, new: int) -> Sizes:
    """Capacities with rows for `new` items behind the `first`: of programs that are `there` if one has room, else for
    twice as many, so that it does not happen often."""
    for each in there:
        if each.slots >= max(first + new, sizes.slots) and each == sizes.replace(item=each.slots):
            return each
    return sizes if first + new <= sizes.slots else sizes.replace(item=capacity(first + 2 * new))


def widened(state: State, like: State) -> State:
    """The state, on the host, in larger tables: what is new is 0."""

    def of(leaf: Any, wanted: Any) -> Any:
        if leaf.shape == wanted.shape:
            return leaf
        zeros = np.zeros((), wanted.dtype)
        if not any(leaf.strides):  # it is not read
            return np.broadcast_to(zeros, wanted.shape)
        return np.pad(leaf, [(0, more - size) for size, more in zip(leaf.shape, wanted.shape, strict=True)])

    found: State = jax.tree.map(of, state, like)
    return found


def placed(leaf: Any) -> Any:
    """A leaf on the device; a host array of one repeated zero stands for what no function reads, and stays there."""
    unread = isinstance(leaf, np.ndarray) and leaf.size > 1 and not any(leaf.strides)
    return leaf if unread else jax.device_put(leaf)


def piece(number: int) -> int:
    """How many of so many requests to answer at once: all, unless more than half of their bucket would be padding."""
    rows = bucket(min(number, BUCKETS[-1]))
    return min(number, rows) if rows <= 2 * number else max(each for each in BUCKETS if each <= number)


def bucket(number: int) -> int:
    """The smallest bucket for so many requests."""
    return next(rows for rows in BUCKETS if rows >= number)


class Recipe(NamedTuple):
    """What a learner's programs are made of.

    Attributes:
        build
        stream: of the log, whose features are read
        texts: of titles, as its programs read them; None: they read none
    """

    build: Build
    stream: Stream
    texts: Texts | None


class Loader:
    """Makes models of learners' folders. Programs and functions are kept for the capacities of the last model.

    `data`: the server's node, as its ids and histories are made. `plugins`: packages, beside this one, that factories
    may be imported from.
    """

    def __init__(
        self, learners: Path, log: Log, most: int, data: Mapping[str, Any], plugins: Sequence[str] = ()
    ) -> None:
        self.learners, self.log, self.most, self.data, self.plugins = learners, log, most, data, plugins
        self.made: tuple[str, Recipe, dict[Sizes, Functions]] | None = None

    def load(self, learner: str, number: int, people: People) -> Model:
        """The version of a learner, not yet warm; `people` have what is served with it. Raises UserError."""
        folder = self.learners / learner
        if self.made is None or self.made[0] != learner:
            self.made = learner, self.recipe(folder), {}
        _, parts, functions = self.made
        programs: Mapping[Sizes, Functions] = functions

        def at(sizes: Sizes) -> Program:
            return programs[sizes].program if sizes in programs else parts.build(sizes)

        found = versions.read(folder, number, lambda sizes: like(at(sizes)))
        program = at(found.sizes)
        graph = "its model reads a graph, which this server does not keep" if program.window is not None else ""
        if why := unfit(parts.stream, program.inputs) or graph:
            raise UserError(f"{folder}: {why}; choose another learner")
        texts = parts.texts if program.by_text else None
        if not people.read_until(found.cut, sealed=parts.texts is not None):
            raise UserError(f"{folder}: version {number} is ahead of what the server has read; it serves soon")
        first = people.until(found.cut)
        if texts is not None:
            new = sum(people.items.get(item, first) >= first for item in [*people.titled])
            sizes = roomy(found.sizes, functions, first, new)
            if sizes != found.sizes:
                program = at(sizes)
                found = found._replace(sizes=sizes, state=widened(found.state, like(program).state))
        side: dict[str, Any] = {} if program.frozen is None else {"frozen": program.frozen}
        if parts.texts is not None and program.at is not None:
            side["text"] = padded(parts.texts.of(people.texts[:first]), program.sizes.slots)
        if found.sizes not in functions:
            functions.clear()
            functions[found.sizes] = Functions(program, self.most, side)
        places = Places(first, program.sizes.slots, texts)
        model = Model(learner, number, found, functions[found.sizes], parts.stream, places, side)
        model.look(people)
        return model

    def recipe(self, folder: Path) -> Recipe:
        """That of a learner's folder, with the stream of its base part, which has all features."""
        config = config_of(folder)
        used = {key: value for key, value in config.items() if key != "tracking"}
        refuse_strangers(used, self.plugins, str(folder / "config.yaml"))
        theirs, ours = read_of(config["data"]), read_of(self.data)
        for key in ours:
            if theirs[key] != ours[key]:
                raise UserError(
                    f"{folder}: the learner has data.{key}={theirs[key]}, and the server {ours[key]}, so that its ids "
                    "or histories would be others; choose another learner, or start one as the server is"
                )
        tail, stream = Tail(self.log, "the log"), None
        while not tail.cuts and tail.more():
            pass
        if tail.cuts:
            cutter = Cutter(tail, Cuts(), Making(config["data"], "the log"), lambda _stream: True, writes=False)
            cutter.catch_up(1)
            stream = cutter.stream
        if stream is None:
            raise UserError(f"{folder}: it has versions, and no increment has ended in the log; give the learner's log")
        text = config["data"].get("text")
        texts = None if text is None else Texts(schema.build(text, "data.text"))
        return Recipe(assemble({**config, "devices": ALONE}, stream).build, stream, texts)


def read_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Of a node `data`, what decides the numbers of ids and the events of a history."""
    return {
        "history": data["history"],
        "source.kinds": (data.get("source") or {}).get("kinds") or {},
        "cleaning": data.get("cleaning"),
    }
