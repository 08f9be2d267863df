"""What items are called: records of the log, which answers have at once, and streams by the end of an increment."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from incremental.log.records import LONGEST_TITLE, Title
from incremental.serve.live import beginning
from incremental.serve.live.service import Service
from tests import lab
from tests.serve.live import small
from tests.serve.live.test_api import said

Documented = Callable[[str, object], None]


def named(item: str, title: str) -> dict[str, str]:
    return {"item": item, "title": title}


def test_answers_have_titles(client: TestClient) -> None:
    sent = client.post("/v1/items", json=named("c", "Green tea"))
    assert (sent.status_code, sent.json()) == (200, {"item": "c", "verdict": "new"})
    found = client.get("/v1/recommend?user=ann&k=2").json()["items"]
    assert [(each["item"], each.get("title")) for each in found] == [("c", "Green tea"), ("d", None)]
    found = client.get("/v1/explain?user=bob&item=c").json()
    assert found["title"] == "Green tea"
    assert [each.get("title") for each in found["history"]] == [None, "Green tea"]


def test_an_item_has_its_first_title(client: TestClient, service: Service) -> None:
    """12.0 and 12 are one item; what stands is said where it is another title."""
    assert client.post("/v1/items", json=named("12.0", " Tea ")).json()["verdict"] == "new"
    found = client.post("/v1/items", json=[named("12", "Tea"), named("12", "Coffee"), named("new", "Pie")])
    assert found.status_code == 200
    assert found.json()["verdicts"] == [
        {"item": "12", "verdict": "known"},
        {"item": "12", "verdict": "known", "title": "Tea"},
        {"item": "new", "verdict": "new"},
    ]
    assert [record for _, record in service.log.read(len(small.EVENTS), 9)] == [Title("12", "Tea"), Title("new", "Pie")]
    assert client.get("/metrics").text.count('incremental_events_total{verdict="new"} 1') == 0  # they are no events


BAD: dict[str, Any] = {
    "a title that is too long": named("a", "x" * (LONGEST_TITLE + 1)),
    "a title that is no text": {"item": "a", "title": 7},
    "a title with a control character": named("a", "Green\ntea"),
    "a blank title": named("a", "  "),
    "a title of no item": {"title": "Tea"},
    "a title of an item that is a float": named("1.5e9", "Tea"),
}


def test_a_bad_title_is_refused(client: TestClient, service: Service, documented: Documented) -> None:
    for situation, body in BAD.items():
        documented(situation, said(client.post("/v1/items", json=body), 400))
    found = client.post("/v1/items", json=[named("a", "x" * LONGEST_TITLE), *BAD.values()])
    assert found.status_code == 207
    assert [each["verdict"] for each in found.json()["verdicts"]] == ["new", *["refused"] * len(BAD)]
    assert service.log.last() == len(small.EVENTS) + 1
    documented("an empty list of titles", said(client.post("/v1/items", json=[]), 400))


def test_a_burst_of_titles_of_new_items_is_refused_for_now(tmp_path: Path, documented: Documented) -> None:
    service = small.service(tmp_path, limits={"new_items": 0.001, "batch": 3})
    service.new_items.clock = lambda: 0.0
    with small.client(service) as client:
        assert client.post("/v1/items", json=[named(f"n{n}", "Tea") for n in range(3)]).status_code == 200
        found = client.post("/v1/items", json=[named("n4", "Tea")])
        documented("a burst of titles of new items", said(found, 429))
        assert client.post("/v1/items", json=[named("a", "Tea"), named("n1", "Pie")]).status_code == 200  # none is new


def test_a_loop_that_begins_with_a_run_has_its_titles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = lab.stream()
    monkeypatch.setattr(beginning, "config_of", lambda _run: {})
    monkeypatch.setattr(beginning, "data_of", lambda _run: None)
    monkeypatch.setattr(beginning, "log_of", lambda _data: stream.interactions)
    monkeypatch.setattr(beginning, "BLOCK", 100)
    with closing(small.log(tmp_path, [])) as log:
        log.append([Title("early", "A title before all events")])
        assert beginning.begin(tmp_path, log, "x") == beginning.begin(tmp_path, log, "x") == len(stream.interactions)
        people = small.service(tmp_path, []).people
        titles = dict(zip(stream.interactions.items[1:], (stream.interactions.titles or [])[1:], strict=True))
        assert {item: people.title(item) for item in people.titled} == {"early": "A title before all events", **titles}
