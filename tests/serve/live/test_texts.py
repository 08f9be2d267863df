"""Models that read titles: the law holds for them, and a new item is recommended by its title at once."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from incremental.app.bases import config_of
from incremental.core.spec import Sizes
from incremental.data.text import hashed_words
from incremental.log.place import open_log
from incremental.log.records import Event, Record, Title
from incremental.serve import model as serve
from incremental.serve.live import versions
from incremental.serve.live.model import Loader, Model, roomy
from incremental.serve.live.people import People
from incremental.serve.live.texts import Places, Texts
from tests import lab
from tests.serve.live.test_learner import TINY, assert_law, crowd, live_run

TEXTS = [
    *(each for each in TINY if not each.startswith(("model", "strategies", "+strategy"))),
    "model=text_items",
    "model@model.model=matrix_factorization",
    "model.model.width=8",
    "+text@data.text=hashed_words",
    "data.text.width=16",
    "live.cut.base=100",
    "live.cut.count=100",
    "live.cut.most=100",
]


def titled(events: list[Event]) -> list[Record]:
    """Of three items one has its title before its first event, one 40 events later, and one never."""
    titles, found, later = lab.simulated().text, list[Record](), dict[int, Title]()
    for n, event in enumerate(events):
        number = int(event.item)
        if number % 3 == 0:
            found.append(Title(event.item, titles[event.item]))
        elif number % 3 == 1:
            later.setdefault(number, Title(event.item, titles[event.item]))
        found.append(event)
        if n % 40 == 39:
            found += later.values()
            later.clear()
    return [record for n, record in enumerate(found) if isinstance(record, Event) or record not in found[:n]]


def best(model: Model, people: People, user: str) -> dict[str, float]:
    """Score by item, the best first."""
    (found,) = model.best(people, [people.ask(user)], [True])
    return {model.places.name(people, row): score for row, score in zip(found.items, found.scores, strict=True)}


def test_a_run_on_the_log_is_the_live_run_again_and_new_items_need_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    given = [*TEXTS, f"live.folder={folder}", f"runs={folder}/runs", "+strategy@strategies.memory=replay"]
    live_run(given, titled(crowd()[:330]), 2)  # type: ignore[arg-type]
    number = assert_law(given)
    assert number == 2
    published = load_file(folder / "learners/champion" / versions.VERSIONS / f"{number:06d}" / versions.LEAVES)
    assert any("params" in path for path in published)
    assert not [path for path in published if "memory" in path or "opt_state" in path]  # nobody asks for them
    log = open_log(str(folder / "log.sqlite"))
    people = People(log, 8)
    people.follow()
    (run,) = (folder / "runs/champion").iterdir()
    offline = serve.load(run)
    assert 0.2 < np.mean([title == "" for title in people.texts]) < 0.9
    assert people.texts == offline.stream.interactions.titles
    loader = Loader(folder / "learners", log, 2000, config_of(folder / "learners/champion")["data"])
    model = loader.load("champion", number, people)

    # What is learnt is recommended as the run on the log does, by those who did nothing since.
    since = {record.user for _, record in log.read(people.sealed[-1].until, 10**6) if isinstance(record, Event)}
    user = next(each for each in offline.users if each not in since)
    scores = best(model, people, user)
    for wanted in offline.recommend(user, 10):
        assert scores[wanted.item] == pytest.approx(wanted.score, rel=1e-5)

    # An item of the same title is the same item to this model, from the next request on.
    likes = next(item for item in scores if people.title(item) and model.places.of(people, item) < model.places.first)
    log.append([Title("fresh", people.title(likes)), Title(likes, "another title")])
    people.follow()
    assert "fresh" not in best(model, people, user)
    model.look(people)
    scores = best(model, people, user)
    assert scores["fresh"] == pytest.approx(scores[likes], rel=1e-6)
    row = model.row(people, "fresh")
    assert model.named(people, row) == {"item": "fresh", "title": people.title(likes), "learned": False}
    near, cosines = model.similar(row)
    assert model.places.name(people, near[0]) == likes or cosines[0] == pytest.approx(1.0)
    assert model.explain(people, people.ask(user), row)[0] == pytest.approx(scores["fresh"], rel=1e-6)
    log.append([Event("e", user, "fresh", time=2e9)])
    people.follow()
    assert "fresh" not in best(model, people, user)

    # Where the rows are used up the version is loaded again, with more of them.
    log.append([Title(f"many{n}", f"title {n}") for n in range(model.sizes.slots)])
    people.follow()
    model.look(people)
    assert model.places.full
    larger = loader.load("champion", number, people)
    assert (larger.sizes.slots > model.sizes.slots, larger.places.full) == (True, False)
    assert larger.row(people, f"many{model.sizes.slots - 1}")
    again, known = best(larger, people, user), best(model, people, user)
    assert {item: again[item] for item in known} == pytest.approx(known, rel=1e-5)
    log.close()


def test_rows_are_added_for_as_many_again() -> None:
    sizes = Sizes(item=16, user=9)
    assert roomy(sizes, [], 10, 6) == sizes
    assert roomy(sizes, [], 10, 7) == sizes.replace(item=24)
    there = [sizes.replace(item=40), Sizes(item=30, user=8)]
    assert roomy(sizes, there, 10, 30) == roomy(sizes, there, 10, 1) == there[0]  # that is compiled


class Known:
    """What `Places` asks of the log's state."""

    def __init__(self, items: dict[str, int], titles: dict[str, str]) -> None:
        self.items, self.titles, self.titled = items, titles, [*titles]
        self.names = ["", *items]

    def title(self, item: str) -> str:
        return self.titles[item]


def test_items_with_a_title_get_the_rows_behind_the_learnt_ones() -> None:
    """Items 1 and 2 are learnt; item 3 has an event, the others none, and there is room for three."""
    people: Any = Known({"a": 1, "b": 2, "c": 3}, {"new": "x", "b": "y", "c": "z"})
    encoded: list[list[str]] = []

    def encode(titles: Any) -> np.ndarray:
        encoded.append([*titles])
        return hashed_words(width=4)(titles)

    places = Places(3, 6, Texts(encode))
    rows, values = places.new(people)
    assert (rows.tolist(), values.shape) == ([3, 4], (2, 4))
    assert [places.of(people, item) for item in ("a", "b", "c", "new", "none")] == [1, 2, 4, 3, 0]
    assert [places.name(people, row) for row in (1, 3, 4)] == ["a", "new", "c"]
    assert places.had(people, np.array([1, 3], np.int32)).tolist() == [1, 4]
    assert places.new(people)[0].tolist() == []
    people.titles |= {"d": "x", "e": "v"}
    people.titled += ["d", "e"]
    assert not places.full
    assert places.new(people)[0].tolist() == [5]
    assert places.full
    assert encoded == [[""], ["x", "z"]]  # each title once, and what has no room never
    assert Places(3, 6, None).new(people)[0].tolist() == []


def test_a_title_that_cannot_be_read_leaves_the_others_served(caplog: pytest.LogCaptureFixture) -> None:
    def encode(titles: Any) -> np.ndarray:
        if "bad" in titles:
            raise OSError("no such tokenizer")
        return np.ones((len(titles), 2), np.float32)

    people: Any = Known({}, {"i": "bad"})
    places = Places(1, 4, Texts(encode))
    assert places.new(people)[0].tolist() == []
    people.titles["j"] = "good"
    people.titled.append("j")
    assert places.new(people)[0].tolist() == [1]
    assert "titles of 1 new items are left out" in caplog.text


def test_a_title_counts_for_the_server_as_it_does_for_a_stream(tmp_path: Path) -> None:
    """`tests/data/test_log.py` has the same log as a stream."""
    from tests.data.test_log import TITLED, stream, written

    place = written(tmp_path / "log.sqlite", TITLED)
    with closing(open_log(place)) as log:
        people = People(log, 4)
        people.follow()
        assert people.texts == stream(place).interactions.titles
        assert [people.until(offset) for offset in (0, 1, 4, 8, 11)] == [1, 2, 3, 4, 5]
        assert (people.read_until(11, sealed=True), people.title("pie")) == (True, "Apple pie")
