"""Published splits: what trains, what is validated on, what is tested; by hand, and as published of Amazon Beauty."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from incremental.app import cli
from incremental.app.assemble import stream_of
from incremental.data import choosing, cutting, roles
from incremental.data.interactions import Table, encode
from incremental.data.stream import Stream, make_stream
from incremental.errors import UserError

# Half of the times are not later than 4.5.
LOG = "ap1 bp1 aq2 dq2 ar3 br4 as5 cp6 bq7 cr8 ds9 bs9"


def table(log: str = LOG) -> Table:
    rows = [(event[0], event[1], int(event[2:])) for event in log.split()]
    return Table(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"), "log.csv")


def made(cut: cutting.Cut, split: roles.Split | None, log: str = LOG, **protocol: Any) -> Stream:
    settings = {"history": 3, "validation": 0.0, "unseen_items": "known", "minimum_history": 1, **protocol}
    return make_stream(source=table(log), cut=cut, roles=split, ties="file", **settings)


def told(stream: Stream, chosen: npt.NDArray[Any]) -> str:
    """Events, by their numbers or as bools, as user and item."""
    log = stream.interactions
    places = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
    return " ".join(log.users[log.user[event]] + log.items[log.item[event]] for event in places)


def parts(stream: Stream) -> tuple[str, str, str]:
    """What of the base part trains and validates, and what is tested after it."""
    assert stream.roles is not None
    base = stream.increment == 0
    tested = np.concatenate([stream.tested_on(t, heldout=False, trained_until=t - 1) for t in range(1, len(stream))])
    return told(stream, stream.roles.trains & base), told(stream, stream.validation & base), told(stream, tested)


SUCCESSIVE = "as bq cr ds bs"  # c begins after the cut, and is tested from its second event on


@pytest.mark.parametrize(
    ("split", "trains", "validates"),
    [
        (roles.last_item(), "ap aq", "ar br"),  # of b one event would be left, and d has one in all
        (roles.by_time(quantile=0.5), "ap aq", "ar br"),
        (roles.by_time(quantile=0.8), "ap aq ar", "br"),  # not later than 3.2
        (roles.by_user(users=1, seed=42), "ap aq ar", "br"),
        (roles.by_user(users=1, seed=1), "bp br", "ar"),
        (roles.by_user(users=1, seed=0), "ap aq ar", "br"),
    ],
)
def test_what_trains_and_what_says_when_to_stop(split: roles.Split, trains: str, validates: str) -> None:
    stream = made(cutting.at_quantile(quantile=0.5), split)
    assert parts(stream) == (trains, validates, SUCCESSIVE)
    # A sequence model trains on what has a history; nothing else of the base part counts as seen.
    first = stream.trained_on([0], validation=False, inputs=["history"])
    assert len(first) == len(trains.split()) - 1
    assert sorted(told(stream, stream.training_events([0])).split()) == sorted(f"{trains} {validates}".split())
    assert told(stream, stream.training_events([1])) == "as cp bq cr ds bs"


@pytest.mark.parametrize(
    ("targets", "tested"),
    [("all", SUCCESSIVE), ("last", "as cr ds bs"), ("first", "as bq cr ds")],
)
def test_targets_after_the_cut(targets: roles.Targets, tested: str) -> None:
    for increments in (1, 3):
        stream = made(cutting.at_quantile(quantile=0.5, increments=increments), roles.last_item(), targets=targets)
        assert len(stream) == increments + 1
        assert parts(stream)[2] == tested
    if targets != "all":
        without = made(cutting.at_quantile(quantile=0.5), None, targets=targets)
        assert parts(without) == ("ap bp aq dq ar br", "", tested)


def test_a_random_target_is_one_of_each_user_and_not_the_first_of_all() -> None:
    drawn = {parts(made(cutting.at_quantile(quantile=0.5), None, targets="random", seed=seed))[2] for seed in range(8)}
    assert drawn == {"as bq cr ds", "as cr ds bs"}


def test_leave_one_out_trains_on_all_but_two_and_tests_with_the_whole_history() -> None:
    stream = made(cutting.leave_one_out(), roles.last_item())
    assert parts(stream) == ("ap bp aq br", "ar bq", "as cr ds bs")
    rows = stream.test_examples(1, heldout=False, trained_until=0, known={"item": np.ones(9, bool)}, inputs=["history"])
    assert [told(stream, past[past >= 0]) for past in rows.past] == ["ap aq ar", "cp", "dq", "bp br bq"]
    assert any("data.unseen_items=known): it uses the future" in note for note in stream.all_notes)
    assert "leave-one-out: the base part has events that are later than others' tests" in stream.all_notes


def test_a_part_is_put_before_the_next_and_ids_count_anew() -> None:
    """Every event keeps its names, title, behaviour, rating, line and law."""
    frame = table().frame.with_columns(
        behaviour=pl.Series(["buy" if event[1] in "ps" else "view" for event in LOG.split()]),
        shop=pl.Series([None if event[1] == "q" else f"shop {event[1]}" for event in LOG.split()]),
        rating=pl.Series(range(12), dtype=pl.Float32),
        fraction=pl.Series([0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 3, 4]),
    )
    log = encode(Table(frame, "log.csv", text={name: f"title {name}" for name in "pqrs"}, kinds=("shop",)), "file")
    log = replace(log, law=SimpleNamespace(take=lambda events, items: (events.tolist(), items.tolist())))
    increment = np.array([1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0], np.int32)
    moved, sorted_ = cutting.in_parts(log, increment)
    assert sorted_.tolist() == [0] * 8 + [1] * 4

    def events(log: Any) -> list[tuple[Any, ...]]:
        shop = log.further["shop"]
        columns = log.user, log.item, log.behaviour, shop.ids, log.time, log.fraction, log.rating, log.line
        return [
            (log.users[u], log.items[i], log.titles[i], log.behaviours[b], shop.names[s], *map(float, numbers))
            for u, i, b, s, *numbers in zip(*columns, strict=True)
        ]

    order = np.argsort(increment, kind="stable")
    assert events(moved) == [events(log)[place] for place in order]
    assert moved.behaviour is not None
    for ids in (moved.user, moved.item, moved.behaviour + 1, moved.further["shop"].ids):  # by first appearance
        assert (np.diff(np.maximum.accumulate(ids), prepend=0) <= 1).all()
    assert moved.further["shop"].names.count("") == 1
    assert moved.moment.tolist() == [log.moment[place] for place in order]
    assert moved.law == (order.tolist(), [log.items.index(name) for name in moved.items[1:]])
    same, unchanged = cutting.in_parts(log, np.sort(increment))
    assert same is log
    assert unchanged.tolist() == sorted(increment.tolist())


@pytest.mark.parametrize("split", [roles.last_item(), roles.by_time(), roles.by_user(users=1)])
def test_roles_read_nothing_after_the_base_part(split: roles.Split) -> None:
    cut = cutting.at_quantile(quantile=0.5, increments=3)
    whole, short = made(cut, split), made(cut, split, until=1)
    assert len(short) == 2
    for stream in (short, whole.prefix(1)):
        assert stream.roles is not None
        assert whole.roles is not None
        base = stream.increment == 0
        for own, of_all in zip(stream.roles, whole.roles, strict=True):
            assert own[base].tolist() == of_all[: len(own)][base].tolist()
        assert told(stream, stream.training_events([0, 1])) == told(whole, whole.training_events([0, 1]))


def test_shares_are_drawn_after_the_base_part_only() -> None:
    stream = made(cutting.at_quantile(quantile=0.5, increments=2), roles.last_item(), validation=0.4)
    assert told(stream, stream.validation & (stream.increment == 0)) == "ar br"
    assert (stream.validation & (stream.increment > 0)).sum() == 2


def test_what_is_held_out_is_not_validated_on() -> None:
    stream = made(cutting.at_quantile(quantile=0.5), roles.last_item(), heldout=0.9)
    assert not (stream.validation & stream.heldout).any()


def test_users_are_drawn_in_the_order_of_their_numbers() -> None:
    log: Any = SimpleNamespace(user=np.array([1, 1, 2, 2]), users=["", "10", "9"])
    _, validated = roles.by_user(users=1, seed=0)(log, np.ones(4, bool))
    assert log.user[validated].tolist() == [*np.random.RandomState(0).choice([2, 1], 1, replace=False)]


def test_at_most_so_many_users_are_validated_on() -> None:
    one = made(cutting.leave_one_out(), roles.last_item(users=1))
    assert parts(one)[0] == "ap bp aq br"  # what is not drawn does not train
    assert parts(one)[1] in ("ar", "bq")


@pytest.mark.parametrize(
    ("situation", "cut", "split", "log"),
    [
        (
            "a cut at a quantile with fewer later events than increments",
            cutting.at_quantile(quantile=0.9, increments=4),
            None,
            LOG,
        ),
        ("leave-one-out for users of one event each", cutting.leave_one_out(), None, "ap1 bq2"),
        (
            "a validation part of more users than the base part has",
            cutting.leave_one_out(),
            roles.by_user(users=2),
            LOG,
        ),
        (
            "a split that leaves nothing to train on",
            cutting.leave_one_out(),
            roles.last_item(),
            "ap1 bq2 aq3 br4 ar5",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(
    situation: str, cut: cutting.Cut, split: Any, log: str, documented: Any
) -> None:
    with pytest.raises(UserError, match=r"data\.(cut|roles)") as error:
        made(cut, split, log)
    documented(situation, error.value)


def test_roles_and_a_validation_on_what_comes_next_exclude_each_other(documented: Any) -> None:
    with pytest.raises(UserError, match=r"data\.validate_on=own") as error:
        made(cutting.at_quantile(quantile=0.5), roles.last_item(), validate_on="next", validation=0.5)
    documented("roles of the base part beside a validation on the next increment", error.value)


BEAUTY = {  # of the base part: training events, users, items, pairs; validation events; of the test users, targets
    "leave_one_out": (153_776, 22_363, 12_068, 131_413, 22_363, 22_363, 22_363),
    "time_to_split_by_time": (160_178, 20_341, 11_801, 139_837, 6_263, 6_110, 19_235),
    "time_to_split_last_train_item": (156_529, 21_085, 11_909, 135_444, 21_460, 6_110, 19_235),
    # Theirs: 170,099 events and 11,958 items; the 1,024 users hang on the numbers that users have.
    "time_to_split_by_user": (169_563, 20_436, 11_959, 149_127, 1_024, 6_110, 19_235),
}
CEILING = {"leave_one_out": 0.9938, "time_to_split_by_time": 0.7768, "time_to_split_last_train_item": 0.8100}


@pytest.mark.parametrize("protocol", BEAUTY)
def test_the_counts_of_amazon_beauty_are_the_published_ones(real_data: Path, protocol: str) -> None:
    path = real_data / "amazon-beauty" / "interactions.csv"
    if not path.is_file():
        pytest.skip("no Amazon Beauty")
    all_of_them = ["data.roles.users=null"] if protocol != "time_to_split_by_user" else []
    config, _ = cli.composed(["data=amazon_beauty", f"data.source.path={path}", f"protocol={protocol}", *all_of_them])
    stream = stream_of(cli.resolved(config))
    log, base = stream.interactions, stream.increment == 0
    assert (len(log), len(log.users) - 1, len(log.items) - 1) == (198_502, 22_363, 12_101)
    assert stream.roles is not None
    trains = stream.roles.trains & base
    pairs = stream.trained_on([0], validation=False, inputs=["history"])
    targets = stream.tested_on(1, heldout=False, trained_until=0)
    assert BEAUTY[protocol] == (
        int(trains.sum()),
        len(np.unique(log.user[trains])),
        len(np.unique(log.item[trains])),
        len(pairs),
        int(stream.validation[base].sum()),
        len(np.unique(log.user[~base])),
        len(targets),
    )
    if protocol != "leave_one_out":
        assert (int(log.time[base].max()), int((~base).sum())) == (1_399_939_200, 19_828)
        two = base & (np.bincount(log.user[base], minlength=len(log.users))[log.user] > 1)
        assert (int(two.sum()), len(np.unique(log.user[two])), len(np.unique(log.item[two]))) == (
            178_364,
            21_460,
            11_960,
        )
        assert len(log.user[~base]) - len(targets) == 593  # users without an event before
    if protocol in CEILING:
        last = choosing.last_of(log.user, ~base)
        assert np.isin(log.item[last], log.item[trains]).mean() == pytest.approx(CEILING[protocol], abs=5e-5)
