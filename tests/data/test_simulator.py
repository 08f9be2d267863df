import hashlib
import typing

import hypothesis
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
import scipy.special
import scipy.stats

from incremental import errors
from incremental.data import interactions, simulator

SMALL: dict[str, typing.Any] = {"users": 40, "items": 60, "events": 1500, "days": 12, "topics": 4}


def columns(table: interactions.Table) -> tuple[np.ndarray, np.ndarray]:
    """Raw user and item numbers, each int [N]."""
    return table.frame["user"].cast(pl.Int64).to_numpy(), table.frame["item"].cast(pl.Int64).to_numpy()


def previous(user: np.ndarray) -> np.ndarray:
    """For each event the event before it of the same user, -1 if none."""
    order = np.argsort(user, kind="stable")
    before = np.full(len(user), -1)
    before[order[1:]] = np.where(user[order[1:]] == user[order[:-1]], order[:-1], -1)
    return before


@pytest.fixture(scope="module")
def default() -> interactions.Table:
    return simulator.simulate()


def test_drawn_items_follow_the_softmax() -> None:
    # One topic, two groups, one day: three contexts, so that the draws of each are one multinomial.
    table = simulator.simulate(users=30, items=12, events=12000, days=1, topics=1, groups=2, link=1.5, seed=3)
    _, item = columns(table)
    contexts, kind = np.unique(table.law.context, axis=0, return_inverse=True)
    assert len(contexts) == 3
    for k in range(3):
        rows = np.flatnonzero(kind == k)
        p = scipy.special.softmax(table.law.scores(rows[:1])[0].astype(np.float64))
        alive = p > 0
        observed = np.bincount(item[rows], minlength=len(p))
        assert not observed[~alive].any()
        assert scipy.stats.chisquare(observed[alive], len(rows) * p[alive]).pvalue > 1e-3


def test_the_whole_stream_follows_its_law(default: interactions.Table) -> None:
    # The randomised probability integral transform is uniform if each event obeys its own softmax.
    _, item = columns(default)
    events = np.random.default_rng(0).choice(len(item), 4000, replace=False)
    p = scipy.special.softmax(default.law.scores(events).astype(np.float64), axis=1)
    chosen = p[np.arange(len(events)), item[events]]
    below = np.take_along_axis(np.cumsum(p, axis=1), item[events][:, None], 1)[:, 0] - chosen
    uniform = below + chosen * np.random.default_rng(1).random(len(events))
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-3


def test_same_seed_same_stream_other_seed_another() -> None:
    one, same, other = (simulator.simulate(**SMALL, seed=s) for s in (1, 1, 2))
    assert one.frame.equals(same.frame)
    assert one.text == same.text
    for a, b in zip(one.law, same.law, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not one.frame["item"].equals(other.frame["item"])
    assert one.text != other.text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "27e24adc99356b97"),
        (SMALL | {"seed": 3}, "d64c4e6c4fa4421c"),
        (SMALL | {"groups": 1, "newborn": 0.0, "interest_drift": 0.3, "seed": 11}, "1b42ab7b270b3db1"),
    ],
)
def test_without_seasons_the_streams_are_those_of_before_there_were_any(
    arguments: dict[str, typing.Any], expected: str
) -> None:
    # Hashes of the version without seasons. How many there would be, and how long, changes nothing.
    table = simulator.simulate(**arguments, seasons=3, season_days=1)
    found = hashlib.sha256(f"{table.frame.write_csv()}{table.text}".encode())
    found.update(table.law.context.tobytes())
    assert found.hexdigest()[:16] == expected


def test_seasons_change_neither_who_comes_nor_when() -> None:
    plain, seasonal = (
        simulator.simulate(**SMALL, season_days=3, seasonal_users=share, seasonal_items=share) for share in (0.0, 0.5)
    )
    assert plain.frame.select("user", "time").equals(seasonal.frame.select("user", "time"))
    assert not plain.frame["item"].equals(seasonal.frame["item"])
    there = np.isfinite(seasonal.law.log_weight)
    np.testing.assert_array_equal(seasonal.law.log_weight[there], plain.law.log_weight[there])


def test_schema_and_shapes() -> None:
    table = simulator.simulate(**SMALL)
    assert dict(table.frame.schema) == {
        "user": pl.String,
        "item": pl.String,
        "time": pl.Int64,
        "behaviour": pl.String,
        "line": pl.Int64,
        "event": pl.Int64,
    }
    context, vectors, log_weight, day = table.law
    assert (context.shape, context.dtype) == ((1500, 4 + 16), np.float32)
    assert (vectors.shape, vectors.dtype) == ((61, 20), np.float32)
    assert (log_weight.shape, log_weight.dtype) == ((12, 61), np.float32)
    assert (day.shape, day.dtype) == ((1500,), np.int32)
    scores = table.law.scores(np.arange(5))
    assert (scores.shape, scores.dtype) == ((5, 61), np.float32)
    assert np.isneginf(scores[:, 0]).all()
    assert not vectors[0].any()


def test_every_item_is_alive_and_every_day_is_the_times_day(default: interactions.Table) -> None:
    _, item = columns(default)
    law, time = default.law, default.frame["time"].to_numpy()
    assert np.isfinite(law.log_weight[law.day, item]).all()
    np.testing.assert_array_equal((time - simulator.START) // simulator.DAY, law.day)
    assert law.day.min() == 0
    assert law.day.max() == 59
    assert (np.diff(time) >= 0).all()
    np.testing.assert_array_equal(default.frame["event"], np.arange(30000))


def test_items_are_born_once_and_die_once_and_one_stays(default: interactions.Table) -> None:
    alive = np.isfinite(default.law.log_weight[:, 1:])
    assert (np.abs(np.diff(alive.astype(int), axis=0)).sum(0) <= 2).all()
    born, died = ~alive[0] & alive.any(0), ~alive[-1] & alive.any(0)
    assert born.sum() > 300
    assert died.sum() > 50
    assert alive[:, 0].all()


def test_users_arrive_over_time(default: interactions.Table) -> None:
    user, _ = columns(default)
    half = len(set(user[:15000]))
    assert 400 < half < len(set(user)) - 50


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.data())
def test_sessions_of_a_user_never_overlap(data: st.DataObject) -> None:
    users = data.draw(st.integers(1, 5))
    events = data.draw(st.integers(1, 400))
    length = data.draw(st.floats(1, 8))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    user, time, position = simulator._visits(rng, users, events, 30, length, 0.5)
    assert len(user) == len(time) == len(position) == events
    assert (user >= 1).all()
    assert (user <= users).all()
    same = user[1:] == user[:-1]
    end = simulator.START + 30 * simulator.DAY - 1  # where the late ones are held back
    assert ((np.diff(time)[same] > 0) | (time[1:][same] == end)).all()
    assert (time <= end).all()
    follows = position[1:] > 0
    assert (position[1:][follows] == position[:-1][follows] + 1).all()
    assert same[follows].all()
    assert position[0] == 0


def test_context_is_the_topic_and_the_successor_of_the_previous_group(default: interactions.Table) -> None:
    user, item = columns(default)
    law, before = default.law, previous(user)
    topics, links = law.context[:, :16], law.context[:, 16:]
    assert ((topics == 2.5).sum(1) == 1).all()
    assert (np.count_nonzero(topics, axis=1) == 1).all()
    linked = links.any(1)
    assert 0.75 < linked.mean() < 0.9  # all but the first of about six
    assert (before[linked] >= 0).all()
    assert (topics[linked] == topics[before[linked]]).all()
    group = law.vectors[:, 16:].argmax(1)
    now, asked, last = law.day[linked], links[linked].argmax(1), group[item[before[linked]]]
    successor: dict[tuple[int, int], int] = {}
    for key, value in zip(zip(now, last, strict=True), asked, strict=True):
        assert successor.setdefault(key, value) == value
    assert (asked // 4 == last // 4).all()
    assert (asked != last).all()
    days_of = [{v for (_, g), v in successor.items() if g == k} for k in range(64)]
    assert sum(len(s) > 1 for s in days_of) > 5  # what follows what drifts


# No day differs from another but by its season.
STILL: dict[str, typing.Any] = {
    "newcomers": 0.0,
    "newborn": 0.0,
    "lifetime": 1e9,
    "popularity_drift": 0.0,
    "interest_drift": 0.0,
    "link_drift": 0.0,
}


def test_in_each_season_drawn_items_follow_the_softmax_and_the_others_do_not_occur() -> None:
    # One topic, two groups, two seasons, each twice: three contexts a season, the draws of each one multinomial.
    table = simulator.simulate(
        users=30, items=14, events=16000, days=4, topics=1, groups=2, link=1.5, **STILL,
        seasons=2, season_days=1, seasonal_items=0.7, seed=3,
    )  # fmt: skip
    _, item = columns(table)
    law, season = table.law, table.law.day % 2
    contexts, kind = np.unique(law.context, axis=0, return_inverse=True)
    assert len(contexts) == 3
    for of in (0, 1):
        here = np.isfinite(law.log_weight[of])
        assert 4 < here.sum() < 13
        np.testing.assert_array_equal(here, np.isfinite(law.log_weight[of + 2]))
        for k in range(3):
            rows = np.flatnonzero((kind == k) & (season == of))
            p = scipy.special.softmax(law.scores(rows[:1])[0].astype(np.float64))
            np.testing.assert_array_equal(p > 0, here)
            observed = np.bincount(item[rows], minlength=len(p))
            assert not observed[~here].any()
            assert scipy.stats.chisquare(observed[here], len(rows) * p[here]).pvalue > 1e-3


def test_items_are_there_all_the_time_or_in_one_season_of_each_cycle() -> None:
    table = simulator.simulate(**SMALL | {"days": 30}, **STILL, seasons=3, season_days=4, seasonal_items=0.6)
    there = np.isfinite(table.law.log_weight[:, 1:])
    season = np.arange(30) // 4 % 3
    by_season = np.stack([there[season == of][0] for of in range(3)])
    for of in range(3):
        assert (there[season == of] == by_season[of]).all()
    assert set(by_season.sum(0)) == {1, 3}
    assert 0.4 < (by_season.sum(0) == 1).mean() < 0.8
    assert by_season[:, 0].all()
    assert (by_season.sum(1) > by_season.all(0).sum()).all()  # each season has items of its own


def test_interests_come_back_with_their_season() -> None:
    # A session is one event. Of a user, the topics of days 0 and 2, of 1 and 3 have one law, and neighbours two.
    for share in (0.0, 1.0):
        table = simulator.simulate(
            users=2, items=20, events=8000, days=4, topics=5, session_length=1, **STILL,
            seasons=2, season_days=1, seasonal_users=share,
        )  # fmt: skip
        user, _ = columns(table)
        topic = table.law.context[:, :5].argmax(1)
        for one in (1, 2):
            counts = [np.bincount(topic[(user == one) & (table.law.day == d)], minlength=5) for d in range(4)]

            def p(a: int, b: int, counts: list[np.ndarray] = counts) -> float:
                pair = np.stack([counts[a], counts[b]])
                return float(scipy.stats.chi2_contingency(pair[:, pair.any(0)]).pvalue)

            assert min(p(0, 2), p(1, 3)) > 1e-3
            assert p(0, 1) < 1e-9 if share else p(0, 1) > 1e-3


def test_the_oracle_knows_the_season() -> None:
    table = simulator.simulate(**SMALL, seasons=2, season_days=2, seasonal_users=0.5, seasonal_items=0.5)
    _, item = columns(table)
    p = scipy.special.softmax(table.law.scores(np.arange(1500)).astype(np.float64), axis=1)
    chosen = p[np.arange(1500), item]
    below = np.take_along_axis(np.cumsum(p, axis=1), item[:, None], 1)[:, 0] - chosen
    uniform = below + chosen * np.random.default_rng(1).random(1500)
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-3


def cycle(seasons: int = 1, share: float = 0.0, users: int = 1, days: int = 60) -> simulator._Cycle:
    return simulator._cycle(0, users, 9, days, seasons, 1, share, 0.0)


def test_interests_of_all_seasons_keep_their_spread_while_they_drift() -> None:
    rng, season = np.random.default_rng(0), cycle(3, 0.5, 2000)
    first = season.each(rng.standard_normal((2000, 8)))
    assert first.shape == (3, 2000, 8)
    np.testing.assert_allclose(first.std((1, 2)), 1, atol=0.02)
    same = (first == first[:1]).all((0, 2))
    np.testing.assert_array_equal(same, ~season.apart)
    apart = first[:, season.apart].reshape(3, -1)
    np.testing.assert_allclose(np.corrcoef(apart), np.eye(3), atol=0.05)


def test_interests_keep_their_spread_while_they_drift() -> None:
    rng = np.random.default_rng(0)
    visitor, day = np.ones(40000, np.int64), np.repeat([0, 59], 20000)
    topic = simulator._interests(rng, cycle(), visitor, day, 1, 60, 5, 2.0, 0.3)
    early, late = np.bincount(topic[:20000], minlength=5), np.bincount(topic[20000:], minlength=5)
    assert np.abs(early - late).sum() / 20000 > 0.3
    fixed = simulator._interests(np.random.default_rng(0), cycle(), visitor, day, 1, 60, 5, 2.0, 0.0)
    early, late = np.bincount(fixed[:20000], minlength=5), np.bincount(fixed[20000:], minlength=5)
    assert np.abs(early - late).sum() / 20000 < 0.05


@hypothesis.settings(max_examples=25)
@hypothesis.given(st.data())
def test_take_reorders_events_and_items(data: st.DataObject) -> None:
    table = simulator.simulate(users=5, items=9, events=40, days=3, topics=2)
    events = np.array(data.draw(st.lists(st.integers(0, 39), min_size=1, unique=True)))
    items = np.array(data.draw(st.lists(st.integers(1, 9), min_size=1, unique=True)))
    law = table.law.take(events, items)
    expected = table.law.scores(events)[:, [0, *items]]
    np.testing.assert_array_equal(law.scores(np.arange(len(events))), expected)


def test_encoding_keeps_the_law() -> None:
    table = simulator.simulate(**SMALL)
    kept = table.frame.filter(pl.col("behaviour") != "view")
    encoded = interactions.encode(table._replace(frame=kept))
    rows = [0, *(int(i) for i in encoded.items[1:])]
    expected = table.law.scores(kept["event"].to_numpy())[:, rows]
    np.testing.assert_array_equal(encoded.law.scores(np.arange(len(encoded))), expected)
    assert np.isfinite(expected[np.arange(len(kept)), encoded.item]).all()
    assert encoded.titles is not None
    assert all(encoded.titles[1:])


def test_titles_carry_the_topic(default: interactions.Table) -> None:
    assert set(default.text) == {str(i) for i in range(1, 1001)}
    words = {int(i): set(title.split()) for i, title in default.text.items()}
    assert {len(title.split()) for title in default.text.values()} == {3, 4, 5}
    topic = default.law.vectors[:, :16].argmax(1)
    rng = np.random.default_rng(0)
    pairs = [(a, b) for a, b in rng.integers(1, 1001, (20000, 2)) if a != b]
    shared = np.array([len(words[a] & words[b]) for a, b in pairs])
    same = np.array([topic[a] == topic[b] for a, b in pairs])
    assert shared[same].mean() > 5 * shared[~same].mean()
    topics_of: dict[str, set[int]] = {}
    for i in range(1, 1001):
        for word in words[i]:
            topics_of.setdefault(word, set()).add(topic[i])
    assert sum(len(t) > 1 for t in topics_of.values()) == simulator.COMMON_WORDS


@hypothesis.given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_different_numbers_are_different_words(a: int, b: int) -> None:
    assert (simulator._word(a) == simulator._word(b)) == (a == b)


def test_behaviours(default: interactions.Table) -> None:
    counts = dict(default.frame["behaviour"].value_counts().iter_rows())
    assert set(counts) == set(simulator.BEHAVIOURS)
    assert max(counts, key=counts.__getitem__) == "view"
    assert min(counts, key=counts.__getitem__) == "buy"
    _, item = columns(default)
    affinity = (default.law.context * default.law.vectors[item]).sum(1)
    bought = (default.frame["behaviour"] == "buy").to_numpy()
    assert affinity[bought].mean() > affinity[~bought].mean() + 0.1


def ndcg(scores: np.ndarray, label: np.ndarray) -> np.ndarray:
    """NDCG@10 of one relevant item a row, [B]; ties count half."""
    own = scores[np.arange(len(label)), label][:, None]
    rank = (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2
    return np.where(rank < 10, 1 / np.log2(rank + 2), 0)


def test_the_oracle_beats_popularity_and_what_is_learned_once_ages(default: interactions.Table) -> None:
    user, item = columns(default)
    before = previous(user)
    last = np.where(before >= 0, item[before], 0)
    half, size = 15000, len(default.law.vectors)
    counts = np.zeros((size, size))
    np.add.at(counts, (last[:half], item[:half]), 1)
    popularity = np.bincount(item[:half], minlength=size) / half
    pairs = counts[last[half:]] + popularity
    oracle = ndcg(default.law.scores(np.arange(half, 30000)), item[half:]).reshape(6, -1).mean(1)
    follows = ndcg(pairs, item[half:]).reshape(6, -1).mean(1)
    popular = ndcg(np.broadcast_to(popularity, pairs.shape), item[half:]).reshape(6, -1).mean(1)
    assert (oracle > 0.3).all()
    assert (oracle > 3 * popular).all()
    assert (oracle > follows + 0.1).all()
    assert follows[0] > 2 * popular[0]
    assert np.polyfit(range(6), follows, 1)[0] < -0.015
    assert follows[-1] < 0.6 * follows[0]
    assert np.ptp(oracle) < 0.1  # it is the models that age, not the stream that becomes harder


def test_new_items_are_a_small_part_of_each_increment(default: interactions.Table) -> None:
    _, item = columns(default)
    for start in range(15000, 30000, 2500):
        unseen = ~np.isin(item[start : start + 2500], item[:start])
        assert 0.01 < unseen.mean() < 0.12


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("users", 0),
        ("items", 1),
        ("events", 0),
        ("days", 0),
        ("topics", 0),
        ("groups", 0),
        ("session_length", 0.5),
        ("newcomers", 1.5),
        ("newborn", -0.1),
        ("lifetime", 0.0),
        ("link", float("inf")),
        ("interest_drift", float("nan")),
        ("seasons", 0),
        ("season_days", 0),
        ("seasonal_users", 1.5),
        ("seasonal_items", -0.1),
        ("seed", -1),
    ],
)
def test_bad_arguments_are_named(key: str, value: typing.Any) -> None:
    with pytest.raises(errors.UserError, match=rf"\b{key}={value}"):
        simulator.simulate(**{key: value})


@pytest.mark.parametrize(
    "extreme",
    [
        {"users": 1, "items": 2, "events": 1, "days": 1, "topics": 1, "groups": 1},
        {
            "users": 1,
            "items": 2,
            "events": 50,
            "days": 1,
            "topics": 1,
            "groups": 1,
            "focus": 0.0,
            "link": 0.0,
        },
        {
            "users": 3,
            "items": 2,
            "events": 200,
            "days": 100,
            "newborn": 1.0,
            "newcomers": 1.0,
            "lifetime": 1.0,
        },
        {"users": 20, "items": 50, "events": 200, "days": 5, "session_length": 1.0},
        {"users": 2, "items": 2, "events": 90, "days": 5, "seasons": 9, "seasonal_items": 1.0, "seasonal_users": 1.0},
        {"users": 20, "items": 50, "events": 200, "days": 5, "topics": 400, "groups": 10},
    ],
)
def test_extremes(extreme: dict[str, typing.Any]) -> None:
    table = simulator.simulate(**extreme)
    _, item = columns(table)
    assert table.frame.height == extreme["events"]
    assert np.isfinite(table.law.log_weight[table.law.day, item]).all()
    assert set(table.text) == {str(i) for i in range(1, extreme["items"] + 1)}
