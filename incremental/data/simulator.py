"""The built-in stream: a seeded simulator whose law is known, so that the best reachable score is known too.

Every item has a topic and, within it, a group; a session has a topic; a group has a successor (what follows
what). Event e draws its item from one softmax over the items alive on its day:

    P(item i | e) ∝ exp( context[e] · vectors[i] + log_weight[day[e], i] )

`vectors[i]` is the one-hot of i's topic beside the one-hot of i's group. `context[e]` is `focus` at the
session's topic and, from a session's second event on, `link` at the successor of the previous item's group.
`log_weight` is Zipf popularity + a random walk by day + the life curve of the item (a rise of days, a decay
of months, death).

What makes an old model worse: births and deaths, the walk of popularity, interests that drift (so that users
ask for other topics), and groups whose successor is drawn again now and then. What makes a model worse that has
forgotten: seasons, which come back in turn, in which a share of the items is not to be had but in their own, and
a share of the users has other interests in each.

The letters of this file: N events, V items, D = topics + topics · groups.
"""

from typing import Annotated, NamedTuple

import numpy as np
import polars as pl
from annotated_types import Ge

from incremental.data import interactions
from incremental.domains import AtLeast1, Count, NotNegative, Share, Whole, checked

BEHAVIOURS = ("view", "cart", "favour", "contact", "buy")
START = 1_704_067_200  # 2024-01-01 00:00 UTC, seconds since 1970
DAY = 86_400  # seconds
GAP = 60.0  # mean seconds between two events of a session
RISE = 2.0  # days in which the weight of a new item reaches 63 % of its peak
# P(behaviour b) ∝ RATE[b] · exp(SLOPE[b] · affinity), affinity in [0, 1]: who finds what they came for, buys.
RATE = np.array([0.70, 0.10, 0.08, 0.05, 0.02])
SLOPE = np.array([0.0, 0.6, 0.8, 0.8, 1.2])
SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
# Words in the vocabulary of a topic, of a group, and of all items.
TOPIC_WORDS, GROUP_WORDS, COMMON_WORDS = 6, 2, 24


class Law(NamedTuple):
    """Event e draws item i with P ∝ exp(context[e] · vectors[i] + log_weight[day[e], i]).

    context:    float32 [N, D]       what the session asks for at event e
    vectors:    float32 [V+1, D]     row 0 is padding
    log_weight: float32 [days, V+1]  popularity; -inf for padding and where the item is unborn, dead or out of season
    day:        int32 [N]            day of each event, from 0
    """

    context: np.ndarray
    vectors: np.ndarray
    log_weight: np.ndarray
    day: np.ndarray

    def take(self, events: np.ndarray, items: np.ndarray) -> "Law":
        """The law of the events [N'] int and the items [V'] int (raw numbers, no padding), in that order."""
        rows = np.concatenate([[0], np.asarray(items, np.int64)])
        return Law(self.context[events], self.vectors[rows], self.log_weight[:, rows], self.day[events])

    def scores(self, events: np.ndarray) -> np.ndarray:
        """Log-probability up to a constant a row, float32 [B, V+1], of the events [B] int; -inf = impossible.

        No model can rank better on average; this one even knows the session's topic, which a model has to
        guess from the history.
        """
        scores: np.ndarray = self.context[events] @ self.vectors.T + self.log_weight[self.day[events]]
        return scores


@checked
def simulate(
    *,
    users: Count = 600,
    items: Annotated[int, Ge(2)] = 1000,
    events: Count = 30000,
    days: Count = 60,
    topics: Count = 16,
    groups: Count = 4,
    session_length: AtLeast1 = 6.0,
    newcomers: Share = 0.3,
    newborn: Share = 0.45,
    lifetime: AtLeast1 = 120.0,
    popularity: NotNegative = 0.7,
    popularity_drift: NotNegative = 0.06,
    focus: NotNegative = 2.5,
    interest_spread: NotNegative = 2.0,
    interest_drift: Share = 0.05,
    link: NotNegative = 4.0,
    link_drift: Share = 0.007,
    seasons: Count = 2,
    season_days: Count = 7,
    seasonal_users: Share = 0.0,
    seasonal_items: Share = 0.0,
    seed: Whole = 0,
) -> interactions.Table:
    """Draw a stream of exactly `events` interactions, in time order, with its law (see the module's text).

    users:            all who may appear; activity is Gamma(2) distributed
    items:            all that are ever born
    days:             length of the stream
    topics, groups:   topics, and groups of items within each topic
    session_length:   mean number of events in a session (1 + Poisson)
    newcomers:        share of the users who arrive during the stream, uniformly
    newborn:          share of the items born during the stream, uniformly; the others are there before it
    lifetime:         mean life of an item, days; its weight decays as exp(-age / lifetime)
    popularity:       Zipf exponent: weight ∝ rank^-popularity
    popularity_drift: standard deviation of the daily step of an item's log-weight
    focus:            log-weight of items of the session's topic
    interest_spread:  standard deviation of a user's logits over topics
    interest_drift:   share of those logits renewed by noise each day (x ← √(1-d²) x + d · spread · noise)
    link:             log-weight of items of the group that follows the previous item's group
    link_drift:       probability a day that a group's successor is drawn again, within the topic
    seasons:          how many there are; they follow one another, and after the last comes the first again
    season_days:      length of a season: day d is of season ⌊d / season_days⌋ mod seasons
    seasonal_users:   share of the users with interests of their own in each season; 0: no interest comes back
    seasonal_items:   share of the items (item 1 apart) that occur in one season only, each drawn uniformly
    seed:             the same arguments and seed give the same table

    Raw ids are numbers as text; item "7" is row 7 of the law's arrays, and item "1" is there on every day, so
    that no day is without a candidate. Takes about a second for the defaults, growing with events × items.
    """
    rng = np.random.default_rng(seed)
    cycle = _cycle(seed, users, items, days, seasons, season_days, seasonal_users, seasonal_items)

    topic = rng.integers(topics, size=items)  # of item i + 1
    group = topic * groups + rng.integers(groups, size=items)
    vectors = np.zeros((items + 1, topics + topics * groups), np.float32)
    vectors[np.arange(1, items + 1), topic] = 1
    vectors[np.arange(1, items + 1), topics + group] = 1
    log_weight = _log_weight(rng, items, days, newborn, lifetime, popularity, popularity_drift)
    log_weight[:, 1:][cycle.absent] = -np.inf
    successor = _successors(rng, days, topics, groups, link_drift)

    user, time, position = _visits(rng, users, events, days, session_length, newcomers)
    day = ((time - START) // DAY).astype(np.int32)
    first = position == 0
    interest = _interests(rng, cycle, user[first], day[first], users, days, topics, interest_spread, interest_drift)
    context = np.zeros((events, vectors.shape[1]), np.float32)
    topic_of = interest[np.cumsum(first) - 1]
    context[np.arange(events), topic_of] = focus
    kind = day.astype(np.int64) * topics + topic_of  # of an event: its day and what its context is

    law = Law(context, vectors, log_weight, day)  # its context is completed below, as items are drawn
    columns, item = np.ascontiguousarray(vectors.T), np.zeros(events, np.int64)
    for step in range(int(position.max()) + 1):  # all sessions at once: an event depends on its own session only
        rows = np.flatnonzero(position == step)
        if step > 0:
            following = successor[day[rows], group[item[rows - 1] - 1]]
            context[rows, topics + following] = link
            kind[rows] = kind[rows] * topics * groups + following
        item[rows] = _drawn(rng, law, columns, rows, kind[rows])

    affinity = np.einsum("nd,nd->n", context, vectors[item]) / max(focus + link, 1e-9)
    behaviour = _draw(rng, np.log(RATE) + affinity[:, None] * SLOPE)

    order = np.argsort(time, kind="stable")  # rows so far lie session by session; a tie keeps a session together
    law = Law(context[order], vectors, log_weight, day[order])
    frame = pl.DataFrame(
        {
            "user": user[order].astype(str),
            "item": item[order].astype(str),
            "time": time[order].astype(np.int64),
            "behaviour": np.array(BEHAVIOURS)[behaviour[order]],
            "line": np.arange(1, events + 1),
            "event": np.arange(events),
        }
    )
    return interactions.Table(
        frame=frame,
        origin=f"simulator (seed {seed})",
        text=_titles(rng, topic, group, topics, groups),
        notes=(),
        law=law,
    )


def _draw(rng: np.random.Generator, scores: np.ndarray) -> np.ndarray:
    """One index a row with P ∝ exp(scores) [B, K], int64 [B], by the inverse of the cumulated weights."""
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    total = np.cumsum(weights, axis=1, dtype=np.float64)
    return np.argmax(total > rng.random((len(scores), 1)) * total[:, -1:], axis=1)


def _drawn(rng: np.random.Generator, law: Law, columns: np.ndarray, events: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """One item an event, int64 [N], as `_draw`; events of one kind [N] (day and context) share their weights.

    `columns` [D, V+1] are the law's vectors, so that one coordinate's lie together.
    """
    chance, item = rng.random(len(events)), np.zeros(len(events), np.int64)
    order = np.argsort(kind, kind="stable")
    for here in np.split(order, np.flatnonzero(np.diff(kind[order])) + 1):
        event = events[here[0]]
        asked = np.flatnonzero(law.context[event])  # a topic and a group: the other products are 0
        scores = law.context[event, asked] @ columns[asked] + law.log_weight[law.day[event]]
        total = np.cumsum(np.exp(scores - scores.max()), dtype=np.float64)
        item[here] = np.searchsorted(total, chance[here] * total[-1], side="right")
    return item


class _Cycle(NamedTuple):
    """What comes back. Its draws are its own: without seasons, the stream is the one that it would be.

    rng:     for the interests of seasons
    season:  int [days]      of each day, from 0
    seasons: how many there are
    apart:   bool [users]    users with interests of their own in each season
    absent:  bool [days, V]  items that have their season on another day
    """

    rng: np.random.Generator
    season: np.ndarray
    seasons: int
    apart: np.ndarray
    absent: np.ndarray

    def each(self, first: np.ndarray) -> np.ndarray:
        """Standard normal numbers [seasons, users, topics]: `first` [users, topics], others for who is apart."""
        others = self.rng.standard_normal((self.seasons - 1, *first.shape))
        return np.concatenate([first[None], np.where(self.apart[:, None], others, first)])


def _cycle(
    seed: int,
    users: int,
    items: int,
    days: int,
    seasons: int,
    season_days: int,
    seasonal_users: float,
    seasonal_items: float,
) -> _Cycle:
    """The seasons of the days, and whom they concern."""
    rng = np.random.default_rng([seed, 1])
    season = np.arange(days) // season_days % seasons
    apart = rng.random(users) < seasonal_users
    seasonal, own = rng.random(items) < seasonal_items, rng.integers(seasons, size=items)
    seasonal[0] = False
    return _Cycle(rng, season, seasons, apart, seasonal & (season[:, None] != own))


def _log_weight(
    rng: np.random.Generator,
    items: int,
    days: int,
    newborn: float,
    lifetime: float,
    popularity: float,
    popularity_drift: float,
) -> np.ndarray:
    """Log-weight of each item on each day, float32 [days, V+1]; -inf for padding, the unborn and the dead."""
    life = lifetime * rng.gamma(4.0, 0.25, items)
    birth = np.where(rng.random(items) < newborn, rng.random(items) * days, -rng.random(items) * life)
    birth[0], life[0] = -0.5 * lifetime, np.inf
    age = np.arange(days)[:, None] + 1.0 - birth  # at the end of the day; an item is alive from the day of its birth
    curve = np.log1p(-np.exp(-np.maximum(age, 0.01) / RISE)) - age / lifetime
    base = -popularity * np.log(rng.permutation(items) + 1.0)
    walk = np.cumsum(popularity_drift * rng.standard_normal((days, items)), axis=0)
    alive = (age > 0) & (age <= life)
    padding = np.full((days, 1), -np.inf)
    return np.hstack([padding, np.where(alive, base + walk + curve, -np.inf)]).astype(np.float32)


def _successors(rng: np.random.Generator, days: int, topics: int, groups: int, drift: float) -> np.ndarray:
    """The group that follows each group on each day, int [days, topics·groups]: another of the same topic."""
    group = np.arange(topics * groups)
    base, within = group // groups * groups, group % groups
    successor = np.empty((days, len(group)), np.int64)
    for day in range(days):
        step = rng.integers(1, groups, len(group)) if groups > 1 else np.zeros_like(group)
        fresh = base + (within + step) % groups
        renew = rng.random(len(group)) < (drift if day else 1.0)
        successor[day] = np.where(renew, fresh, successor[day - 1])
    return successor


def _visits(
    rng: np.random.Generator, users: int, events: int, days: int, session_length: float, newcomers: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who comes when: user (from 1), time (seconds) and position within the session (from 0), each int [N].

    Rows lie session by session, the sessions of one user one after another and never overlapping.
    """
    length = 1 + rng.poisson(session_length - 1, events)  # more sessions than needed; the surplus is cut
    count = int(np.searchsorted(np.cumsum(length), events)) + 1
    length = length[:count]
    length[-1] -= length.sum() - events
    begin = rng.random(count) * days  # in days

    arrival = np.sort(np.where(rng.random(users) < newcomers, rng.random(users) * days, 0.0))
    arrival[0] = 0.0
    activity = np.cumsum(rng.gamma(2.0, 1.0, users))
    present = np.searchsorted(arrival, begin, side="right")
    visitor = np.searchsorted(activity, rng.random(count) * activity[present - 1], side="right")

    order = np.lexsort((begin, visitor))
    length, begin, visitor = length[order], begin[order], visitor[order]
    gap = np.ceil(rng.exponential(GAP, events)).astype(np.int64)
    offset = np.cumsum(length) - length  # row of each session's first event
    position = np.arange(events) - np.repeat(offset, length)
    gap[offset] = 0
    elapsed = np.cumsum(gap)
    start = (begin * DAY).astype(np.int64)
    duration = elapsed[offset + length - 1] - elapsed[offset]
    for s in range(1, count):  # a session that would begin before the user's last one ended waits for it
        if visitor[s] == visitor[s - 1]:
            start[s] = max(start[s], start[s - 1] + duration[s - 1] + 1)
    time = np.repeat(start - elapsed[offset], length) + elapsed
    return np.repeat(visitor, length) + 1, START + np.minimum(time, days * DAY - 1), position


def _interests(
    rng: np.random.Generator,
    cycle: _Cycle,
    visitor: np.ndarray,
    day: np.ndarray,
    users: int,
    days: int,
    topics: int,
    spread: float,
    drift: float,
) -> np.ndarray:
    """The topic of each session, int [sessions], drawn from its visitor's interests on its day.

    Interests are a softmax of logits that walk: x ← √(1-drift²) x + drift · spread · noise, once a day. Those of a
    season walk on while it is away.
    """
    logits = spread * cycle.each(rng.standard_normal((users, topics)))
    topic = np.empty(len(visitor), np.int64)
    for today in range(days):
        rows = np.flatnonzero(day == today)
        topic[rows] = _draw(rng, logits[cycle.season[today], visitor[rows] - 1])
        noise = spread * cycle.each(rng.standard_normal((users, topics)))
        logits = np.sqrt(1 - drift**2) * logits + drift * noise
    return topic


def _titles(rng: np.random.Generator, topic: np.ndarray, group: np.ndarray, topics: int, groups: int) -> dict[str, str]:
    """A title of 3 to 5 invented words for each item: two of its topic, one of its group, up to two of all.

    No word belongs to two vocabularies.
    """
    sizes = topics * TOPIC_WORDS, topics * groups * GROUP_WORDS, COMMON_WORDS
    words = np.array([_word(n) for n in rng.permutation(max(sum(sizes), len(SYLLABLES) ** 2))[: sum(sizes)]])
    of_topic, of_group, common = np.split(words, np.cumsum(sizes)[:2])
    of_topic, of_group = of_topic.reshape(topics, -1), of_group.reshape(topics * groups, -1)
    titles = {}
    for i, (t, g) in enumerate(zip(topic, group, strict=True)):
        title = [*rng.choice(of_topic[t], 2, replace=False), rng.choice(of_group[g])]
        title += [*rng.choice(common, rng.integers(3), replace=False)]
        titles[str(i + 1)] = " ".join(title)
    return titles


def _word(number: int) -> str:
    """The number written with syllables as digits, at least two of them, so that different numbers differ."""
    high, low = divmod(int(number), len(SYLLABLES))
    return (_word(high) if high >= len(SYLLABLES) else SYLLABLES[high]) + SYLLABLES[low]
