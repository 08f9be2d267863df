"""The prefix law: what comes later changes no evaluation before it, bit for bit; and planted leaks break it.

The short stream is made anew from the table (or file) as it was when increment t was over, so that loaders, encoding,
cleaning and random draws are under the law too.
"""

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from incremental.core.gradient_free import gradient_free
from incremental.core.problem import Baseline
from incremental.data import interactions
from incremental.data import stream as stream_module
from incremental.data.cleaning import cleaning
from incremental.data.features import Examples
from incremental.data.interactions import Table
from incremental.data.sources.columns import columns
from incremental.data.sources.diginetica import diginetica
from incremental.data.sources.inter import inter
from incremental.data.sources.lastfm import lastfm
from incremental.data.sources.mind import mind
from incremental.data.sources.movielens import ratings_dat, u_data
from incremental.data.sources.split_files import split_files
from incremental.data.stream import Stream
from incremental.run.alone import Build
from incremental.run.policy import Update
from tests import lab

pytestmark = pytest.mark.usefixtures("shared_programs")
LAST = 3  # the increment that the short stream has not
Builds = Callable[[Stream], Build]


# -- the law --------------------------------------------------------------------------------------------------------


def row_kinds(t: int, last: int, known: np.ndarray) -> dict[str, Callable[[Stream], Examples]]:
    """All kinds of rows of increment t."""
    return {
        "train": lambda s: s.training_examples(range(t + 1), validation=False, inputs=("history",)),
        "validation": lambda s: s.training_examples([t], validation=True, inputs=("history",)),
        "test": lambda s: s.test_examples(
            t, heldout=False, trained_until=t - 1, known={"item": known}, inputs=("history",)
        ),
        "heldout": lambda s: s.test_examples(t, heldout=True, trained_until=last, known={"item": known}),
    }


def row_differences(short: Stream, whole: Stream) -> list[str]:
    """Which of the rows that models, tests and validation read differ between a stream and its beginning."""
    found: list[str] = []

    def compare(name: str, one: Any, other: Any) -> None:
        if not np.array_equal(np.asarray(one), np.asarray(other)):
            found.append(name)

    last = len(short) - 1
    n = whole.bounds(last)[1]
    a, b = short.interactions, whole.interactions.prefix(n)
    for name, one in vars(a).items():
        other = getattr(b, name)
        if name in ("further", "side"):
            compare(name, list(one), list(other))
            for key in one.keys() & other.keys():
                for field in one[key]._fields:
                    compare(f"{name}.{key}.{field}", getattr(one[key], field), getattr(other[key], field))
        # The row of the file is for messages: of a file that is cut in another order it is another.
        elif name not in ("notes", "law", "behaviours", "line") and not (one is None and other is None):
            compare(name, one, other)
    if found:  # rows are numbered otherwise; comparing them says no more
        return found
    for name in ("increment", "heldout", "validation"):
        compare(name, getattr(short, name), getattr(whole, name)[:n])
    known = np.arange(len(a.items)) % 5 > 0
    for t in range(last + 1):
        for kind, rows_of in row_kinds(t, last, known).items():
            one, other = rows_of(short), rows_of(whole)
            for column in vars(one):
                compare(f"{kind}[{t}].{column}", getattr(one, column), getattr(other, column))
            for heldout in (True, False):
                for x, y in zip(
                    short.seen_by(one.event, heldout=heldout), whole.seen_by(other.event, heldout=heldout), strict=True
                ):
                    compare(f"{kind}[{t}].seen", x, y)
    return found


def evaluation_differences(builds: Builds, short: Stream, whole: Stream, policy: Update, **arguments: Any) -> list[str]:
    """Which evaluations and costs of a run differ, up to the short stream's end, from those of a run on the whole."""
    last = len(short) - 1

    def numbers(stream: Stream) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        result = lab.run(builds(stream), stream, policy, **arguments)
        found: dict[tuple[Any, ...], tuple[Any, ...]] = {
            record[:3]: (float(record.value).hex(), record[4])
            for record in result.records
            if record.trained_until <= last and record.evaluated_on <= last
        }
        costs = [cost for cost in result.costs if cost.increment <= last]
        return found | {
            ("cost", cost.increment): (cost.examples, cost.epochs, cost.parameters_written, cost.memory_bytes)
            for cost in costs
        }

    one, other = numbers(short), numbers(whole)
    assert any(key[1] == last for key in one if key[0] != "cost")
    return [str(key) for key in one.keys() | other.keys() if one.get(key) != other.get(key)]


@functools.cache
def pair(until: int = LAST - 1, **protocol: Any) -> tuple[Stream, Stream]:
    """The beginning of the tiny stream, and the whole."""
    return lab.stream(until=until, **protocol), lab.stream(**protocol)


def lawful(builds: Builds, policy: Update = lab.FINETUNE, protocol: dict[str, Any] | None = None, **run: Any) -> None:
    short, whole = pair(**(protocol or {}))
    assert len(short) == LAST < len(whole)
    assert evaluation_differences(builds, short, whole, policy, **run) == []


# -- every strategy, model, head, baseline and policy -----------------------------------------------------------------


ON_KERNELS = ("gpm", "orthogonal_updates", "packnet", "peso", "spectral_norm")


@pytest.mark.parametrize(
    "strategy", [*lab.STRATEGIES, *(pytest.param(strategy, marks=pytest.mark.slow) for strategy in lab.EVERY)]
)
def test_strategies(strategy: str) -> None:
    model = "sasrec" if strategy in ON_KERNELS else "mf"
    lawful(lambda _: lab.build(lab.Spec(strategy, model)))


RARER_HEADS = ("bpr", "chunked", "gbce", "hierarchical", "in_batch", "log_uniform")


@pytest.mark.parametrize(
    "head", ["sampled", "bce", "adaptive", *(pytest.param(head, marks=pytest.mark.slow) for head in RARER_HEADS)]
)
def test_heads(head: str) -> None:
    lawful(lambda _: lab.build(lab.Spec(head=head)))


@pytest.mark.parametrize("model", ["sasrec", pytest.param("gru4rec", marks=pytest.mark.slow)])
def test_sequence_models(model: str) -> None:
    lawful(lambda _: lab.build(lab.Spec(model=model)))


@pytest.mark.parametrize(
    ("baseline", "policy"),
    [
        ("popularity", "finetune"),
        ("popularity", "static"),
        ("cooccurrence", "finetune"),
        ("oracle", "finetune"),
        ("incremental_svd", "finetune"),
        ("frequent_directions", "finetune"),
        ("vsknn", "finetune"),
        ("fire", "finetune"),
        *(
            pytest.param(baseline, policy, marks=pytest.mark.slow)
            for baseline in ("popularity", "cooccurrence", "oracle", "incremental_svd", "frequent_directions", "fire")
            for policy in ("static", "window", "retrain")
        ),
        *(
            pytest.param(baseline, policy, marks=pytest.mark.slow)
            for baseline in ("association_rules", "sequential_rules", "vsknn", "item_knn", "ease")
            for policy in ("finetune", "static", "window", "retrain")
            if (baseline, policy) != ("vsknn", "finetune")
        ),
    ],
)
def test_baselines(baseline: str, policy: str) -> None:
    lawful(lambda stream: lab.build_for(baseline, stream), lab.POLICIES[policy], matrix=True)


@pytest.mark.parametrize("policy", ["static", "window", "retrain"])
def test_policies(policy: str) -> None:
    lawful(lambda _: lab.build(lab.Spec()), lab.POLICIES[policy])


def test_the_matrix_up_to_there() -> None:
    lawful(lambda _: lab.build(lab.Spec()), matrix=True)


@pytest.mark.parametrize(
    "protocol",
    [{"exclude_seen": True}, {"unseen_items": "drop", "minimum_history": 1}],
    ids=["exclude_seen", "drop"],
)
def test_protocols(protocol: dict[str, Any]) -> None:
    lawful(lambda _: lab.build(lab.Spec()), protocol=protocol)


@pytest.mark.slow
@pytest.mark.parametrize("policy", list(lab.POLICIES))
@pytest.mark.parametrize("model", ["mf", "sasrec", "gru4rec"])
@pytest.mark.parametrize("strategy", ["replay", "replay+online_ewc"])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_combinations(policy: str, model: str, strategy: str, exclude_seen: bool) -> None:
    if policy == "retrain" and strategy != "replay":
        pytest.skip("an anchor and a fresh start are refused")
    protocol = {"exclude_seen": exclude_seen, "unseen_items": "drop"}
    lawful(lambda _: lab.build(lab.Spec(strategy, model)), lab.POLICIES[policy], protocol, matrix=True)


@pytest.mark.parametrize("until", [0, 1, 2])
@pytest.mark.parametrize("protocol", [{}, {"exclude_seen": True, "unseen_items": "drop", "minimum_history": 2}])
def test_rows_of_every_beginning(until: int, protocol: dict[str, Any]) -> None:
    short, whole = pair(until, **protocol)
    assert row_differences(short, whole) == []
    assert row_differences(whole.prefix(until), short) == []  # `prefix` is the same as never having read on


# -- planted leaks --------------------------------------------------------------------------------------------------


def omniscient(stream: Stream) -> Build:
    """Popularity that counts the whole stream, the future included."""

    def build(inputs: Any, sizes: Any, cutoffs: tuple[int, ...]) -> Any:
        counts = np.bincount(stream.interactions.item, minlength=sizes.slots)[: sizes.slots]
        return gradient_free(
            sizes=sizes,
            inputs=inputs,
            init=lambda: {"count": jnp.asarray(counts, jnp.float32)},
            absorb=lambda params, _data: params,
            scores=lambda params, rows: jnp.broadcast_to(params["count"], (len(rows["user"]), sizes.slots)),
            cutoffs=cutoffs,
        )

    return lab.of_baseline(Baseline(build, ("user",)))


def test_popularity_that_counts_the_future_is_flagged() -> None:
    assert evaluation_differences(omniscient, *pair(), lab.FINETUNE)


class Late(Stream):
    """Histories end with the user's next event."""

    def past(self, events: Any, visible: Any, by_run: bool = False) -> Any:
        past = super().past(events, visible, by_run)
        for row, event in enumerate(events):
            later = np.flatnonzero(self.interactions.user[event + 1 :] == self.interactions.user[event])
            past[row, -1] = event + 1 + later[0] if len(later) else -1
        return past


def test_histories_that_read_on_are_flagged() -> None:
    short, whole = [Late(**{k: v for k, v in vars(s).items() if not k.startswith("_")}) for s in pair()]
    found = row_differences(short, whole)
    assert "train[2].past" in found
    assert "test[2].past" in found
    builds = lambda _stream: lab.baseline_build("cooccurrence")  # noqa: E731
    assert evaluation_differences(builds, short, whole, lab.FINETUNE)
    assert not evaluation_differences(builds, *pair(), lab.FINETUNE)


def test_parts_drawn_over_the_whole_file_are_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    def everywhere(increment: np.ndarray, share: float, seed: int, name: int) -> np.ndarray:
        return np.random.default_rng([seed, name]).permutation(len(increment)) < share * len(increment)

    monkeypatch.setattr("incremental.data.roles.share_of_each", everywhere)
    short, whole = lab.stream(until=LAST - 1), lab.stream()
    assert {"heldout", "validation", "train[0].event"} <= set(row_differences(short, whole))
    assert evaluation_differences(lambda _: lab.build(lab.Spec()), short, whole, lab.FINETUNE)


def test_ids_in_alphabetical_order_are_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    def alphabetical(values: pl.Series) -> tuple[np.ndarray, list[str]]:
        names = sorted(set(values))
        return np.array([names.index(value) for value in values], np.int32), names

    monkeypatch.setattr(interactions, "_number", alphabetical)
    table = Table(lab.simulated().frame, "without its law")
    assert {"user", "items"} <= set(row_differences(lab.stream(table, until=LAST - 1), lab.stream(table)))


@pytest.mark.parametrize(
    ("step", "leaks"),
    [
        ({"duplicates": "first"}, False),
        ({"behaviours": ["view", "cart"]}, False),
        ({"duplicates": "last"}, True),
        ({"k_core": 5}, True),
        ({"minimum_session": 12}, True),
    ],
)
def test_cleaning_that_uses_the_future_is_flagged_and_says_so(step: dict[str, Any], leaks: bool) -> None:
    short, whole = (lab.stream(until=until, cleaning=cleaning(**step)) for until in (LAST - 1, None))
    assert bool(row_differences(short, whole)) == leaks
    assert any(each.uses_future for each in whole.cleaning) == leaks


# -- every loader ---------------------------------------------------------------------------------------------------


Event = tuple[str, str, int]
DAY = 86_400
NOON = 1_300_060_800  # midnight, 2011-03-14


def drawn_events(number: int = 80) -> list[Event]:
    """Random events, one a day, out of time order in the file."""
    rng = np.random.default_rng(0)
    days = rng.permutation(number)
    return [(str(rng.integers(1, 9)), str(rng.integers(1, 25)), NOON + int(day) * DAY) for day in days]


def as_csv(folder: Path, events: list[Event]) -> Table:
    lines = [f"{user},{item},{time},t{item}" for user, item, time in events]
    (folder / "events.csv").write_text("\n".join(["user,item,time,name", *lines]))
    return columns(path=str(folder / "events.csv"), text="name")


def as_parquet(folder: Path, events: list[Event]) -> Table:
    pl.DataFrame(events, schema=["user", "item", "time"], orient="row").write_parquet(folder / "events.parquet")
    return columns(path=str(folder / "events.parquet"))


def as_inter(folder: Path, events: list[Event]) -> Table:
    lines = ["\t".join(map(str, event)) for event in events]
    (folder / "x.inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *lines]))
    return inter(path=str(folder / "x.inter"))


def as_ratings_dat(folder: Path, events: list[Event]) -> Table:
    (folder / "ratings.dat").write_text("".join(f"{u}::{i}::3::{t}\n" for u, i, t in events))
    (folder / "movies.dat").write_text("".join(f"{i}::Film {i} (1999)::Drama\n" for i in range(1, 25)))
    return ratings_dat(path=str(folder))


def as_u_data(folder: Path, events: list[Event]) -> Table:
    (folder / "u.data").write_text("".join(f"{u}\t{i}\t3\t{t}\n" for u, i, t in events))
    return u_data(path=str(folder))


def as_lastfm(folder: Path, events: list[Event]) -> Table:
    lines = ["userID\tartistID\ttagID\tday\tmonth\tyear"]
    for user, item, time in events:
        date = datetime.fromtimestamp(time, UTC)
        lines.append(f"{user}\t{item}\t1\t{date.day}\t{date.month}\t{date.year}")
    (folder / "user_taggedartists.dat").write_text("\n".join(lines))
    return lastfm(path=str(folder))


def as_mind(folder: Path, events: list[Event]) -> Table:
    lines = []
    for row, (user, item, time) in enumerate(events):
        when = datetime.fromtimestamp(time, UTC).strftime("%m/%d/%Y %I:%M:%S %p")
        lines.append(f"{row}\t{user}\t{when}\tN1\t{item}-1 N99-0")
    (folder / "behaviors.tsv").write_text("\n".join(lines))
    return mind(path=str(folder))


def as_diginetica(folder: Path, events: list[Event]) -> Table:
    by_period: dict[int, list[str]] = {}
    for user, item, time in events:
        by_period.setdefault((time - NOON) // DAY // 10, []).append(f"{user} {item}")
    for period, lines in by_period.items():
        (folder / f"period_{period}.txt").write_text("\n".join(lines))
    return diginetica(path=str(folder))


def as_split_files(folder: Path, events: list[Event]) -> Table:
    """The base part in one file, in no order, and all later events in another."""
    border = NOON + 20 * DAY
    for name, part in (
        ("train.csv", [event for event in events if event[2] < border]),
        ("test.csv", [event for event in events if event[2] >= border]),
    ):
        lines = [f"{user},{item},{time}" for user, item, time in part]
        (folder / name).write_text("\n".join(["user,item,time", *lines]))
    return split_files(path=str(folder), time="time", time_unit="s")


LOADERS = [as_split_files, as_csv, as_parquet, as_inter, as_ratings_dat, as_u_data, as_lastfm, as_mind, as_diginetica]


@pytest.mark.parametrize("load", LOADERS)
def test_loaders(load: Callable[[Path, list[Event]], Table], tmp_path: Path) -> None:
    events = drawn_events()
    end = NOON + 40 * DAY  # half of it
    folders = [tmp_path / "whole", tmp_path / "short"]
    for folder in folders:
        folder.mkdir()
    table = load(folders[0], events)
    beginning = load(folders[1], [event for event in events if event[2] < end])
    assert (table.frame.height, beginning.frame.height) == (80, 40)
    bounds = [2, 4] if load is as_diginetica else [NOON + 20 * DAY, end]  # its time is the period
    whole = stream_module.make_stream(source=table, cut=lab.by_time(bounds), history=4)
    short = stream_module.make_stream(source=beginning, cut=lab.by_time(bounds), history=4)
    assert (len(short), len(whole)) == (2, 3)
    assert row_differences(short, whole) == []


def real(name: str, folder: Path) -> Table:
    """A real table."""
    if name == "amazon-beauty":
        path = str(folder / name / "interactions.csv")
        names: Any = {"user": "user_id", "item": "item_id", "time": "timestamp"}
        return columns(path=path, items_path="items.csv", items_id="item_id", text="text", **names)
    if name == "diginetica":
        return diginetica(path=str(folder / name), periods=4)
    loaders = {"movietweetings": ratings_dat, "lastfm-hetrec": lastfm, "mind-sample": mind}
    table = loaders[name](path=str(folder / name))
    least = 631_152_000 if name == "lastfm-hetrec" else 0  # five of its days are before 1990
    return table._replace(frame=table.frame.filter(pl.col("time") > least))


@pytest.mark.parametrize("name", ["movietweetings", "mind-sample", "amazon-beauty", "lastfm-hetrec", "diginetica"])
def test_real_sources(name: str, real_data: Path) -> None:
    table = real(name, real_data)
    short, whole = (lab.stream(table, until=until, exclude_seen=True) for until in (1, None))
    assert len(short) == 2 < len(whole)
    assert row_differences(short, whole) == []
